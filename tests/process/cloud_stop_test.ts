/** A signal ends a host on the cloud in time, whatever it is waiting for. */
import assert from "node:assert/strict";
import { labTest } from "../lab/mod.ts";
import type { FaultConfig } from "../simulator/config.ts";
import { eventually } from "../support/eventually.ts";
import { sendSignal } from "../support/process_table.ts";
import { openCloudLab, ownCluster, statusSays, together } from "./cloud_support.ts";
import { linesOf } from "./support.ts";

/** The time that the service manager's users were promised, and some for a busy machine. */
const STOP_LIMIT_MS = 2_000 + 1_000;

interface Phase {
  readonly fault: FaultConfig;
  /** Status or log line of a host that waits for what the fault withholds. */
  readonly waitsFor: RegExp;
}

const PHASES: Readonly<Record<string, Phase>> = {
  "the metadata service is silent": {
    fault: { match: { service: "metadata" }, effect: { kind: "hang" } },
    waitsFor: /Preparing backend ali-vpc/,
  },
  "the API is silent": {
    fault: { match: { action: "DescribeVpcAttribute" }, effect: { kind: "hang" } },
    waitsFor: /Preparing backend ali-vpc/,
  },
  "the account is throttled": {
    fault: {
      match: { action: "DescribeVpcAttribute" },
      effect: { kind: "error", status: 400, code: "Throttling.User" },
    },
    waitsFor: /Waiting for Alibaba Cloud's rate limit/,
  },
  "other hosts have their turn": {
    fault: {
      match: { action: "CreateRouteEntry" },
      effect: { kind: "error", status: 400, code: "TaskConflict" },
    },
    waitsFor: /Waiting to create route .* reason=TaskConflict/,
  },
};

labTest(
  "a signal ends a host in time, whatever it waits for from the cloud",
  async ({ signal }) => {
    await using lab = await openCloudLab({ signal, hosts: Object.keys(PHASES).length });
    const { control } = lab.cloud;
    await together(
      lab,
      Object.fromEntries(
        Object.entries(PHASES).map(([title, { fault, waitsFor }]) => [title, async (host) => {
          await control.addFault({ ...fault, match: { ...fault.match, source: host.address } });
          // Each is to write its route itself.
          const daemon = await host.startDaemon({ flags: await ownCluster(lab, host, { signal }) });
          if (waitsFor.source.startsWith("Preparing")) {
            await statusSays(daemon, waitsFor, { signal });
          } else await daemon.process.waitForLine(waitsFor, { signal });
          const startedAt = performance.now();
          sendSignal(daemon.process.pid, "SIGTERM");
          const status = await eventually(() => daemon.process.ended, { signal, title: "its end" });
          const tookMs = performance.now() - startedAt;
          assert.equal(status.code, 0, daemon.process.tail());
          assert.ok(tookMs < STOP_LIMIT_MS, `${Math.round(tookMs)} ms\n${daemon.process.tail()}`);
          assert.deepEqual(linesOf(daemon, / (WARN|ERROR) /), []);
        }]),
      ),
    );
  },
);

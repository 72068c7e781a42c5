/**
 * A service that answers badly, late or not at all.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type DaemonProgram, type Host, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import type { FaultConfig, FaultEffect } from "../simulator/config.ts";
import { eventually } from "../support/eventually.ts";
import { askHealth, HEALTH_FLAGS, linesOf } from "./support.ts";
import {
  callsSince,
  countCalls,
  healed,
  note,
  openCloudLab,
  ownCluster,
  type Scenario,
  subnetOf,
  together,
  writesAmong,
} from "./cloud_support.ts";

/** A fault of the service towards one host. */
type Fault = Omit<FaultConfig, "match"> & { readonly action: string | string[] };

const once = (action: string, effect: FaultEffect, times = 1): Fault => ({ action, effect, times });
const READS = ["Describe*"];

/** Each befalls a host from its start on, and once more when its route has been deleted. */
export const FAULTS = {
  "the answer to a create is lost": [once("CreateRouteEntry", { kind: "performThenDrop" }, 2)],
  "a create that was done is answered with an error": [
    once("CreateRouteEntry", { kind: "performThenError", status: 500 }, 2),
  ],
  "a create that was done is answered too late": [
    once("CreateRouteEntry", { kind: "delayAnswer", delayMs: 24_000 }),
  ],
  "a create is not answered": [once("CreateRouteEntry", { kind: "hang" })],
  "a proxy answers for a while": [
    { action: "*", effect: { kind: "html", status: 502 }, times: 5 },
  ],
  "answers are cut short": [
    { action: READS, effect: { kind: "truncate" }, times: 4 },
    once("CreateRouteEntry", { kind: "truncate" }),
  ],
  "answers are empty": [{ action: READS, effect: { kind: "empty", status: 204 }, times: 4 }],
  "the service fails for a while": [
    {
      action: "*",
      effect: { kind: "error", status: 503, code: "ServiceUnavailable" },
      times: 5,
    },
  ],
  "the service fails without a code": [
    { action: "*", effect: { kind: "error", status: 500 }, times: 4 },
  ],
  "connections end": [{ action: "*", effect: { kind: "drop" }, times: 5 }],
} as const satisfies Readonly<Record<string, readonly Fault[]>>;

export type FaultTitle = keyof typeof FAULTS;

/**
 * Runs a host, a cluster of its own, through each of the named {@linkcode FAULTS}, and asserts that one right route comes
 * of it, created once, with few calls and few words.
 */
export async function surviveFaults(
  titles: readonly FaultTitle[],
  options: { readonly signal: AbortSignal; readonly program?: DaemonProgram },
): Promise<void> {
  const { signal } = options;

  const scenario = (title: FaultTitle): Scenario => async (host) => {
    const cluster = await ownCluster(lab, host, { signal });
    const strike = async () => {
      for (const { action, ...fault } of FAULTS[title] as readonly Fault[]) {
        const actions = [action].flat();
        // Metadata has trouble of its own, elsewhere.
        for (const service of ["vpc", "ecs"] as const) {
          await control.addFault({
            ...fault,
            match: { action: actions, source: host.address, service },
          });
        }
      }
    };
    await strike();
    const daemon = await host.startDaemon({ flags: [...cluster, ...HEALTH_FLAGS] });
    await daemon.ready({ signal, timeoutMs: 100_000 });
    await healed(lab, host, { signal });
    assert.equal(await created(host), 1, countCalls(await callsSince(lab, 0, host)));

    await strike();
    await control.deleteRoute({
      routeTableId: SYSTEM_TABLE_ID,
      destination: await subnetOf(host),
    });
    await eventually(async () => await created(host) >= 2, {
      signal,
      title: `the second create\n${daemon.process.tail()}`,
      timeoutMs: 90_000,
    });
    await healed(lab, host, { signal, timeoutMs: 60_000 });
    await eventually(async () => (await askHealth(host, "/readyz", { signal })).status === 200, {
      signal,
      title: `the host to be ready again\n${daemon.process.tail()}`,
      timeoutMs: 60_000,
    });
    assert.equal(await created(host), 2, countCalls(await callsSince(lab, 0, host)));
    const calls = await callsSince(lab, 0, host);
    assert.ok(calls.length <= 50, `${calls.length}: ${countCalls(calls)}`);
    assert.deepEqual(
      writesAmong(calls).filter(({ action }) => /Delete|ModifyRoute/.test(action)),
      [],
    );
    const complaints = linesOf(daemon, / (WARN|ERROR) /);
    assert.ok(complaints.length <= 8, complaints.join("\n"));
    note(`${title}: ${calls.length} calls, ${complaints.length} lines of complaint`);
  };
  await using lab = await openCloudLab({
    ...options,
    hosts: titles.length,
    cloud: { behaviour: { delays: { minMs: 50, maxMs: 300 }, listLagMs: 1_500 } },
  });
  const { control } = lab.cloud;
  await together(
    lab,
    Object.fromEntries(titles.map((title) => [title, scenario(title)])),
  );

  /** How many times the host's route has come into being. */
  async function created(host: Host): Promise<number> {
    const writes = writesAmong(await callsSince(lab, 0, host));
    return writes.filter(({ action, performed }) => action === "CreateRouteEntry" && performed)
      .length;
  }
}

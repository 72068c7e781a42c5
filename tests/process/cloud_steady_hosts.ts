/**
 * What a host does when all is right, over several resyncs.
 *
 * @module
 */
import assert from "node:assert/strict";
import { RAM_ROLE, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { settleAll } from "../support/settle_all.ts";
import { linesOf } from "./support.ts";
import {
  callsSince,
  countCalls,
  healed,
  mark,
  note,
  openCloudLab,
  ownCluster,
  startAll,
  subnetOf,
  together,
  writesAmong,
} from "./cloud_support.ts";

/** The backend's shortest; by default it is six times as long. */
const RESYNC_MS = 10_000;

/**
 * Watches a steady cluster, whose writer makes one list call per resync for all; and two hosts by
 * themselves: one notices that its check was switched on, one renews its role's keys.
 */
export async function watchSteadyHosts(options: { readonly signal: AbortSignal }): Promise<void> {
  await settleAll([watchSteadyCluster(options), watchSteadyLoners(options)]);
}

async function watchSteadyCluster({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  await using lab = await openCloudLab({ signal, hosts: 3 });
  await startAll(lab, { signal });
  await Promise.all(lab.hosts.map((host) => healed(lab, host, { signal })));
  const sources = new Set((await callsSince(lab, 0)).map(({ source }) => source));
  assert.equal(sources.size, 1, "one host writes for all, and no other makes a call");
  const from = await mark(lab);
  const lines = lab.hosts.map(({ daemon }) => daemon.process.lines.length);
  const lists = await eventually(async () => {
    const found = (await callsSince(lab, from))
      .filter(({ action }) => action === "DescribeRouteEntryList");
    return found.length >= 5 && found;
  }, { signal, title: "five resyncs", timeoutMs: 90_000 });
  const calls = await callsSince(lab, from);
  note(`calls of a cluster in ${lists.length} resyncs: ${countCalls(calls)}`);
  assert.ok(calls.every(({ source }) => sources.has(source)), "of its writer alone");
  // The first one may belong to the start. Resyncs are spread by a tenth.
  for (let n = 2; n < lists.length; n++) {
    const pauseMs = lists[n]!.startedAtMs - lists[n - 1]!.startedAtMs;
    assert.ok(pauseMs > RESYNC_MS * 0.85, `a list call after ${pauseMs} ms`);
  }
  assert.deepEqual(writesAmong(calls), []);
  const others = calls.filter(({ action }) => action !== "DescribeRouteEntryList");
  assert.ok(others.length <= 1, countCalls(others));
  assert.ok(others.every(({ action }) => action === "DescribeNetworkInterfaces"));
  for (const [index, { daemon }] of lab.hosts.entries()) {
    assert.deepEqual(daemon.process.lines.slice(lines[index]), [], "and nothing to say");
  }
}

async function watchSteadyLoners({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  await using lab = await openCloudLab({
    signal,
    hosts: 2,
    cloud: {
      ramRole: true,
      customise: (config) => ({
        ...config,
        instances: config.instances!.map((each) => ({ ...each, httpTokens: "required" })),
        roles: [{ name: RAM_ROLE, lifetimeMs: 12_000, renewBeforeMs: 7_000 }],
      }),
    },
  });
  const { control } = lab.cloud;
  await together(lab, {
    "the check is switched on in the console": async (host) => {
      const flags = await ownCluster(lab, host, { signal });
      await (await host.startDaemon({ flags })).ready({ signal });
      const from = await mark(lab);
      await control.setSourceDestCheck(host.identity.instanceId, true);
      await eventually(async () => {
        const { networkInterfaces } = await control.snapshot();
        return networkInterfaces.some(({ id, sourceDestCheck }) =>
          id === host.identity.networkInterfaceId && !sourceDestCheck
        );
      }, { signal, title: "the check to be off again", timeoutMs: 7 * RESYNC_MS });
      const writes = writesAmong(await callsSince(lab, from, host));
      assert.equal(countCalls(writes), "1 × ModifyNetworkInterfaceAttribute OK");
    },
    "keys of a role rotate": async (host) => {
      const daemon = await host.startDaemon({
        flags: await ownCluster(lab, host, { signal }),
        env: { ACCESS_KEY_ID: "", ACCESS_KEY_SECRET: "" },
      });
      await daemon.ready({ signal });
      const keys = await eventually(async () => {
        const calls = await callsSince(lab, 0, host);
        const used = new Set(calls.map(({ accessKeyId }) => accessKeyId));
        return used.size >= 4 && used;
      }, { signal, title: "the fourth pair of keys", timeoutMs: 90_000 });
      assert.ok([...keys].every((id) => id.startsWith("STS.")));
      const failed = (await callsSince(lab, 0, host))
        .filter(({ code }) => !/^(OK|DryRunOperation)$|Conflict|Status$/.test(code));
      assert.equal(countCalls(failed), "", "no call failed for its keys");
      const metadata = (await control.requests())
        .filter(({ service, source }) => service === "metadata" && source === host.address);
      assert.ok(
        metadata.some(({ action, code }) => /^PUT .*token/.test(action) && code === "OK"),
      );
      assert.deepEqual(metadata.filter(({ code }) => code !== "OK"), []);

      const from = await mark(lab);
      await control.rotateRole(RAM_ROLE, { revoke: true });
      await control.deleteRoute({
        routeTableId: SYSTEM_TABLE_ID,
        destination: await subnetOf(host),
      });
      await healed(lab, host, { signal });
      const refused = (await callsSince(lab, from, host))
        .filter(({ code }) => /SecurityToken/.test(code));
      assert.ok(refused.length <= 1, `renewed once, at once: ${countCalls(refused)}`);
      assert.deepEqual(linesOf(daemon, / (WARN|ERROR) /), []);
    },
  });
}

/** Fifty hosts that boot together, when the VPC changes one route at a time and throttles. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { GUIDE_CONFIG, labTest } from "../lab/mod.ts";
import {
  assertRightRoutes,
  callsSince,
  countCalls,
  foreignOf,
  note,
  openCloudLab,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";

const HOSTS = 50;
/** All hosts are up within this, so that their starts overlap and the machine survives it. */
const BOOT_MS = 12_000;

labTest("fifty hosts that boot at once all get their route, in turn", async ({ signal }) => {
  await using lab = await openCloudLab({
    signal,
    hosts: HOSTS,
    config: GUIDE_CONFIG,
    cloud: {
      // Windows of the clock alone might let all calls of a slow machine pass.
      faults: [{
        match: { action: ["CreateRouteEntry", "Describe*"], service: "vpc" },
        probability: 0.05,
        effect: { kind: "error", status: 400, code: "Throttling.User" },
      }],
      behaviour: {
        delays: { minMs: 200, maxMs: 1000 },
        conflictProbability: 0.1,
        throttle: {
          windowMs: 10_000,
          limits: { DescribeRouteEntryList: 120, CreateRouteEntry: 60, DescribeVpcAttribute: 40 },
        },
      },
    },
  });
  const before = await foreignOf(lab);
  const startedAt = performance.now();
  await Promise.all(lab.hosts.map(async (host, index) => {
    await delay(index * BOOT_MS / HOSTS, { signal });
    const daemon = await host.startDaemon();
    await daemon.ready({ signal, timeoutMs: 280_000 });
  }));
  const seconds = (performance.now() - startedAt) / 1000;

  await assertRightRoutes(lab);
  const subnets = await Promise.all(lab.hosts.map(subnetOf));
  assert.equal(new Set(subnets).size, HOSTS, "no subnet is leased twice");
  assert.equal((await lab.leases({ signal })).size, HOSTS);
  for (const { daemon, label } of lab.hosts) {
    assert.equal(daemon.process.ended, undefined, `${label} still runs`);
  }
  assert.deepEqual(await foreignOf(lab), before);

  const calls = await callsSince(lab, 0);
  const creates = writesAmong(calls).filter(({ action }) => action === "CreateRouteEntry");
  const done = creates.filter(({ performed }) => performed);
  note(
    `${HOSTS} hosts ready after ${seconds.toFixed(0)} s with ${calls.length} calls ` +
      `(${(calls.length / HOSTS).toFixed(1)} per host): ${countCalls(calls)}`,
  );
  assert.equal(done.length, HOSTS, "each route is created once");
  assert.deepEqual(
    writesAmong(calls).filter(({ action }) => /^(Delete|ModifyRoute)/.test(action)),
    [],
  );
  const refused = creates.filter(({ code }) => /Conflict|Status/.test(code));
  assert.ok(refused.length > 0, "the VPC was busy");
  assert.ok(calls.some(({ code }) => code.startsWith("Throttling")), "the account was throttled");
  assert.ok(calls.length <= HOSTS * 60, `${calls.length} calls`);
  assert.ok(creates.length <= HOSTS * 20, `${creates.length} tries to create`);
  // Whoever is refused keeps away for a while: no host asks twice within a second.
  for (const [source, own] of Map.groupBy(creates, (call) => call.source)) {
    for (let n = 1; n < own.length; n++) {
      const pauseMs = own[n]!.startedAtMs - own[n - 1]!.finishedAtMs;
      assert.ok(pauseMs > 500 || own[n]!.code === "OK", `${source} came back after ${pauseMs} ms`);
    }
  }
}, { timeoutMs: 300_000 });

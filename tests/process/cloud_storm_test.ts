/** Fifty hosts that boot together, when the VPC serves one write at a time and throttles. */
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
/** Hosts come one by one, and each rest between two of them may end a batch. */
const MAX_BATCHES = 6;
/** Of the VPC's API, in all. Each host by itself would make ten, and more in the others' way. */
const MAX_VPC_CALLS = 40;
/** One switches each interface's check off; the others read many at once. */
const MAX_ECS_CALLS = HOSTS + 20;

labTest(
  "fifty hosts that boot at once all get their route, by a few calls of one of them",
  async ({ signal }) => {
    await using lab = await openCloudLab({
      signal,
      hosts: HOSTS,
      config: GUIDE_CONFIG,
      cloud: {
        // Windows of the clock alone might let all calls of a slow machine pass.
        faults: [
          {
            match: { action: "CreateRouteEntries" },
            times: 2,
            effect: { kind: "error", status: 400, code: "TaskConflict" },
          },
          {
            match: { action: ["CreateRouteEntr*", "Describe*"], service: "vpc" },
            probability: 0.1,
            effect: { kind: "error", status: 400, code: "Throttling.User" },
          },
          {
            match: { action: "DescribeRouteEntryList" },
            times: 1,
            effect: { kind: "error", status: 400, code: "Throttling.User" },
          },
        ],
        behaviour: {
          delays: { minMs: 200, maxMs: 1000 },
          conflictProbability: 0.1,
          throttle: {
            windowMs: 10_000,
            limits: { DescribeRouteEntryList: 12, CreateRouteEntries: 4, CreateRouteEntry: 2 },
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
    const writes = writesAmong(calls).filter(({ service }) => service === "vpc");
    note(
      `${HOSTS} hosts ready after ${seconds.toFixed(0)} s with ${calls.length} calls, ` +
        `${writes.length} of them writes: ${countCalls(calls)}`,
    );
    assert.deepEqual(
      writes.filter(({ action }) => !/^CreateRouteEntr/.test(action)),
      [],
      "no entry is made twice, or changed",
    );
    const creates = writes.filter(({ action }) => /^CreateRouteEntr/.test(action));
    assert.ok(creates.some(({ code }) => /Conflict/.test(code)), "the VPC was busy");
    assert.ok(calls.some(({ code }) => code.startsWith("Throttling")), "the account was throttled");
    // One host writes for all: who does not spends no call at all.
    const sources = new Set(calls.map(({ source }) => source));
    assert.equal(sources.size, 1, `${[...sources].join(" and ")} called`);
    const done = creates.filter(({ performed }) => performed);
    assert.ok(done.length <= MAX_BATCHES, `${done.length} batches`);
    const vpcCalls = calls.filter(({ service }) => service === "vpc").length;
    assert.ok(vpcCalls <= MAX_VPC_CALLS, `${vpcCalls} calls of the VPC's API`);
    const ecsCalls = calls.length - vpcCalls;
    assert.ok(ecsCalls <= MAX_ECS_CALLS, `${ecsCalls} other calls`);
    // Whoever is refused keeps away for a while: nothing is asked for twice within a moment.
    for (let n = 1; n < creates.length; n++) {
      const pauseMs = creates[n]!.startedAtMs - creates[n - 1]!.finishedAtMs;
      const refused = !creates[n - 1]!.performed;
      assert.ok(pauseMs > 500 || !refused, `back after ${pauseMs} ms`);
    }
  },
  { timeoutMs: 300_000 },
);

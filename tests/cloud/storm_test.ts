/**
 * Many hosts that boot at once against a VPC that serves one write at a time: every one must get
 * its entry, and together they must not make a storm of calls.
 */
import assert from "node:assert/strict";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { startSimulator } from "../simulator/mod.ts";
import { fastClock, lease, openOn, round } from "./support.ts";

const HOSTS = 50;

Deno.test("50 hosts that boot at once all get their entry, and nobody gives up", async () => {
  // Both sides live on one clock, so delays and limits are those of the real service.
  const clock = fastClock(20);
  const example = exampleConfig();
  const hosts = Array.from({ length: HOSTS }, (_, n) => ({
    id: `i-boot-${n}`,
    vSwitchId: EXAMPLE.vSwitchIds[0],
    privateIp: `192.168.1.${100 + n}`,
  }));
  await using simulator = await startSimulator({
    config: {
      ...example,
      instances: [...example.instances ?? [], ...hosts],
      behaviour: {
        delays: { minMs: 500, maxMs: 3_000 },
        conflictProbability: 0.1,
        throttle: { limit: 300 },
      },
    },
    nowMs: clock.now,
  });
  const startedAt = clock.now();
  const signal = AbortSignal.timeout(120_000);
  const problems = await Promise.all(hosts.map(async ({ id, privateIp }, n) => {
    await using cloud = await openOn(simulator, { instanceId: id, clock, signal });
    const { problems } = await round(cloud, lease(`10.24.${n + 1}.0/24`, privateIp), { signal });
    return problems;
  }));
  const tookSeconds = (clock.now() - startedAt) / 1000;
  assert.deepEqual(problems.flat(), []);
  const entries = simulator.cloud.routeEntries(EXAMPLE.systemTableId)
    .filter(({ destination }) => destination.startsWith("10.24."));
  assert.equal(entries.length, HOSTS);
  assert(entries.every(({ status }) => status === "Available"));
  const calls = simulator.requests.filter(({ service }) => service === "vpc");
  const creates = calls.filter(({ action, params }) =>
    action === "CreateRouteEntry" && params["DryRun"] !== "true"
  );
  assert.equal(creates.filter(({ performed }) => performed).length, HOSTS);
  // About 90 s of turns; most of each host's tries are in vain, but not many per second.
  assert(tookSeconds < 600, `it took ${tookSeconds} s`);
  assert(creates.length < HOSTS * 15, `${creates.length} creates`);
  assert(calls.length < HOSTS * 30, `${calls.length} calls`);
});

import assert from "node:assert/strict";
import { deadline } from "../../src/util/time.ts";
import { Cloud } from "./cloud.ts";
import { EXAMPLE, exampleConfig } from "./example.ts";
import { startSimulator } from "./mod.ts";
import { codeOf, ManualClock, TestBench } from "./testing.ts";

const PLACE = { routeTableId: EXAMPLE.systemTableId, destination: "10.24.1.0/24" };

/** Where the cloud would send packets for the place above. */
function hops(cloud: Cloud): string[] {
  return cloud.snapshot().forwarding
    .filter((each) =>
      each.routeTableId === PLACE.routeTableId && each.destination === PLACE.destination
    ).map((each) => each.instanceId);
}

function startCloud(): { cloud: Cloud; clock: ManualClock } {
  const clock = new ManualClock();
  return { cloud: new Cloud(exampleConfig(), { nowMs: clock.now }), clock };
}

Deno.test("an operator adds, re-points and deletes routes at once", () => {
  const { cloud } = startCloud();
  const route = {
    destination: PLACE.destination,
    nextHops: [{ type: "Instance" as const, id: "i-node-1" }],
  };
  cloud.addRoute(PLACE.routeTableId, route);
  assert.deepEqual(hops(cloud), ["i-node-1"]);
  assert.throws(() => cloud.addRoute(PLACE.routeTableId, route), /there is one/);
  cloud.repointRoute(PLACE, "i-nat");
  assert.deepEqual(hops(cloud), ["i-nat"]);
  cloud.deleteRoute(PLACE);
  assert.deepEqual(hops(cloud), []);
  assert.throws(() => cloud.deleteRoute(PLACE), /Cannot find route 10\.24\.1\.0\/24/);
});

Deno.test("forwarding holds entries in force only; a change keeps the old hop meanwhile", async () => {
  await using bench = await TestBench.start();
  const { RouteEntryId } = await bench.create(PLACE.destination);
  assert.deepEqual(hops(bench.cloud), []);
  bench.clock.advance(1000);
  assert.deepEqual(hops(bench.cloud), ["i-node-1"]);
  await bench.vpc("ModifyRouteEntry", { RouteEntryId, NewNextHopId: "i-node-3" });
  assert.deepEqual(hops(bench.cloud), ["i-node-1"]);
  bench.clock.advance(1000);
  assert.deepEqual(hops(bench.cloud), ["i-node-3"]);
  await bench.vpc("DeleteRouteEntry", { RouteEntryId });
  assert.deepEqual(hops(bench.cloud), []);
});

Deno.test("a released or stopped instance swallows its packets; its routes stay", async () => {
  await using bench = await TestBench.start();
  const { cloud } = bench;
  await bench.create(PLACE.destination);
  bench.settle();
  cloud.setInstance("i-node-1", { status: "Stopped" });
  assert.deepEqual(hops(cloud), []);
  cloud.setInstance("i-node-1", { status: "Running" });
  assert.deepEqual(hops(cloud), ["i-node-1"]);
  cloud.releaseInstance("i-node-1");
  assert.deepEqual(hops(cloud), []);
  assert.equal((await bench.list({ DestinationCidrBlock: PLACE.destination })).length, 1);
  assert.equal(await codeOf(bench.create("10.24.9.0/24")), "InvalidInstanId.NotFound");
  cloud.addInstance({ id: "i-node-9", vSwitchId: "vsw-b", privateIp: "192.168.1.11" });
  cloud.repointRoute(PLACE, "i-node-9");
  assert.deepEqual(hops(cloud), ["i-node-9"]);
});

Deno.test("fillTable() leaves as many places as it is told", () => {
  const { cloud } = startCloud();
  const added = cloud.fillTable(EXAMPLE.systemTableId, { leave: 2 });
  assert.ok(added > 100);
  assert.equal(cloud.routes.customCount(EXAMPLE.systemTableId), 198);
  assert.equal(cloud.fillTable(EXAMPLE.systemTableId), 2);
});

Deno.test("vSwitches are bound to tables of their own VPC, and unbound to the system's", () => {
  const { cloud } = startCloud();
  const tableOf = (id: string) =>
    cloud.snapshot().vSwitches.find((each) => each.id === id)?.routeTableId;
  cloud.unbindVSwitch("vsw-h");
  assert.equal(tableOf("vsw-h"), EXAMPLE.systemTableId);
  cloud.bindVSwitch("vsw-b", EXAMPLE.customTableId);
  assert.equal(tableOf("vsw-b"), EXAMPLE.customTableId);
  assert.throws(() => cloud.bindVSwitch("vsw-b", EXAMPLE.gatewayTableId), /wrong VPC or kind/);
  assert.throws(() => cloud.bindVSwitch("vsw-b", "vtb-other"), /wrong VPC or kind/);
});

Deno.test("each change raises the version and is told to listeners", () => {
  const { cloud, clock } = startCloud();
  let told = 0;
  using subscription = cloud.subscribe(() => told++);
  const before = cloud.version;
  cloud.setSourceDestCheck("i-node-1", false);
  assert.equal(cloud.version, before + 1);
  const table = cloud.network.table(EXAMPLE.systemTableId);
  const entry = cloud.routes.create({ table, destination: PLACE.destination, nextHops: [] });
  const pending = cloud.version;
  clock.advance(1000);
  cloud.settle();
  assert.equal(entry.status, "Available");
  assert.ok(cloud.version > pending);
  assert.equal(told, cloud.version - before);
  subscription[Symbol.dispose]();
  cloud.deleteRoute(PLACE);
  assert.equal(told, cloud.version - before - 1);
});

Deno.test("the same seed gives the same delays, another seed others", () => {
  const delays = (seed: number) => {
    const clock = new ManualClock();
    const config = exampleConfig({ seed, behaviour: { delays: { minMs: 0, maxMs: 1_000_000 } } });
    const cloud = new Cloud(config, { nowMs: clock.now });
    const table = cloud.network.table(EXAMPLE.systemTableId);
    cloud.routes.create({ table, destination: PLACE.destination, nextHops: [] });
    return cloud.nextDueAtMs();
  };
  assert.equal(delays(7), delays(7));
  assert.notEqual(delays(7), delays(8));
});

Deno.test("a config is refused with every fault", () => {
  const config = exampleConfig({
    seed: -1,
    vpcs: [{ id: "vpc-main", cidr: "10.0.0.0" }],
  });
  assert.throws(() => new Cloud(config), /seed: .*; vpcs\.0\.cidr: is no CIDR/);
});

Deno.test("a running simulator carries out what is due without being asked", async () => {
  await using simulator = await startSimulator({
    config: exampleConfig({ behaviour: { delays: { minMs: 20, maxMs: 20 } } }),
  });
  const { cloud } = simulator;
  const table = cloud.network.table(EXAMPLE.systemTableId);
  const entry = cloud.routes.create({ table, destination: PLACE.destination, nextHops: [] });
  const available = Promise.withResolvers<void>();
  using _subscription = cloud.subscribe(() => {
    if (entry.status === "Available") available.resolve();
  });
  await deadlineOf(available.promise, 10_000);
});

/** `promise`, or a failure after `milliseconds`. */
async function deadlineOf(promise: Promise<void>, milliseconds: number): Promise<void> {
  using limit = deadline(milliseconds, { signal: new AbortController().signal });
  const late = Promise.withResolvers<never>();
  limit.signal.addEventListener("abort", () => late.reject(limit.signal.reason));
  await Promise.race([promise, late.promise]);
}

/** What a host does that has its route written by another one, and what it does to write itself. */
import assert from "node:assert/strict";
import { RouteTable } from "../../src/cloud/routes/route_table.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { type Simulator, startSimulator } from "../simulator/mod.ts";
import { checksOf, identifyOn, lease, LineLog, NETWORK } from "./support.ts";

const { signal } = new AbortController();

function apiCalls(simulator: Simulator): readonly string[] {
  return simulator.requests.filter(({ service }) => service !== "metadata")
    .map(({ action }) => action);
}

Deno.test("identifyAliVpc() needs neither credentials nor a call of the API", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  const log = new LineLog();
  await using identity = await identifyOn(simulator, { instanceId: "i-node-2", env: {}, log });
  assert.deepEqual(identity.instance, {
    instanceId: "i-node-2",
    networkInterfaceId: "eni-node-2",
    regionId: EXAMPLE.regionId,
    vpcId: EXAMPLE.vpcId,
    vSwitchId: EXAMPLE.vSwitchIds[0],
  });
  assert.equal(identity.credentialsSource, undefined);
  const checks = checksOf(identity, () => [], log);
  assert.deepEqual(await checks.list({ signal }), []);
  assert.deepEqual(apiCalls(simulator), []);
  // What needs them says which ones it looked for, and that no waiting helps.
  await assert.rejects(() => identity.connect({ signal }), {
    name: "OperatorError",
    message: /^Cannot find credentials for Alibaba Cloud; tried backend config: /,
  });
  // A check is not worth a host that cannot start: most are off.
  const own = checksOf(identity, () => [{ networkInterfaceId: "eni-node-2" }], log);
  const enabled = (await own.list({ signal })).map((spec) => spec.enabled);
  assert.deepEqual([enabled, own.isOff("eni-node-2")], [[false], undefined]);
  assert.match(
    log.text,
    /^warn: Cannot read the source\/destination check of eni-node-2: Cannot find credentials .*allow/,
  );
  assert.deepEqual(apiCalls(simulator), []);
});

Deno.test("connect() makes its checks once, for all who ask", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  const log = new LineLog();
  await using identity = await identifyOn(simulator, { log });
  const impatient = new AbortController();
  const [first, second, third] = [
    identity.connect({ signal }),
    identity.connect(impatient),
    identity.connect({ signal }),
  ];
  impatient.abort(new Error("not needed any more"));
  await assert.rejects(second, { message: "not needed any more" });
  const access = await first;
  assert.equal(await third, access);
  const calls = apiCalls(simulator).length;
  assert.equal(await identity.connect({ signal }), access);
  assert.equal(apiCalls(simulator).length, calls);
  assert.equal(apiCalls(simulator).filter((action) => action === "DescribeVpcAttribute").length, 1);
  assert.equal(log.lines.filter((line) => line.includes("Ready to use")).length, 1, log.text);
  assert.equal(identity.credentialsSource, "ACCESS_KEY_ID/ACCESS_KEY_SECRET");
  assert.deepEqual(access.routeTableIds, [EXAMPLE.systemTableId]);
  await assert.rejects(() => identity.connect({ signal: AbortSignal.abort(new Error("late")) }), {
    message: "late",
  });
});

Deno.test("connect() can be called again after it failed", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  await using identity = await identifyOn(simulator);
  simulator.cloud.denyAction("vpc:DescribeVpcAttribute");
  await assert.rejects(() => identity.connect({ signal }), {
    name: "OperatorError",
    message: /RAM|vpc:DescribeVpcAttribute/,
  });
  simulator.cloud.permitAction("vpc:DescribeVpcAttribute");
  assert.deepEqual((await identity.connect({ signal })).routeTableIds, [EXAMPLE.systemTableId]);
});

Deno.test("the end of an identity ends what it is at", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  simulator.cloud.addFault({
    match: { action: "DescribeVpcAttribute" },
    effect: { kind: "hang" },
  });
  const identity = await identifyOn(simulator);
  const connecting = identity.connect({ signal });
  const ended = assert.rejects(connecting, { message: "The identity of this instance is closed" });
  while (!apiCalls(simulator).includes("DescribeVpcAttribute")) {
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await identity[Symbol.asyncDispose]();
  await ended;
  await assert.rejects(() => identity.connect({ signal }), {
    message: "The identity of this instance is closed",
  });
});

Deno.test("RouteTable looks after this host's entry, or after those of all", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  await using identity = await identifyOn(simulator);
  const access = await identity.connect({ signal });
  const claims = [
    { destination: lease("10.24.1.0/24", "192.168.1.11").subnet.ipv4!, instanceId: "i-node-1" },
    { destination: lease("10.24.2.0/24", "192.168.1.12").subnet.ipv4!, instanceId: "i-node-2" },
  ];
  const scope = { routeTableIds: access.routeTableIds, otherTableIds: [] };
  const mark = { clusterId: "c0ffee0123456789", network: NETWORK };
  const { routes: api, clock, instance: { instanceId } } = identity;
  const options = { ...clock, api, mark, log: new LineLog() };
  const host = new RouteTable({ ...options, instanceId });
  const cluster = new RouteTable(options);
  cluster.setScope({ ...scope, claims });
  const changes = claims.map((claim) => ({
    op: "add" as const,
    desired: { ...claim, routeTableId: EXAMPLE.systemTableId },
  }));
  await cluster.list({ signal });
  assert.deepEqual(await cluster.apply(changes, { signal }), []);
  host.setScope({ ...scope, claims: claims.slice(0, 1) });
  const seen = async (table: typeof host) =>
    (await table.list({ signal })).filter((entry) => NETWORK.contains(entry.destination))
      .map((entry) => `${entry.destination} ${entry.instanceId}`).sort();
  assert.deepEqual(await seen(host), ["10.24.1.0/24 i-node-1"]);
  assert.deepEqual(await seen(cluster), ["10.24.1.0/24 i-node-1", "10.24.2.0/24 i-node-2"]);
});

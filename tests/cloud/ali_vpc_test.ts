/**
 * `ali-vpc` against the simulated cloud: the real client, Tables, plan and reconciler, on a clock
 * that runs fast.
 */
import assert from "node:assert/strict";
import { OperatorError } from "../../src/errors.ts";
import { CloudApiError } from "../../src/cloud/routes/cloud_error.ts";
import { Prefix } from "../../src/net/mod.ts";
import { redact } from "../../src/secret.ts";
import { delay } from "../../src/util/time.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { cannedServer } from "../support/canned_server.ts";
import { type CloudConfig, type Simulator, startSimulator } from "../simulator/mod.ts";
import {
  CLUSTER_ID,
  fastClock,
  keyEnv,
  lease,
  LineLog,
  openOn,
  type OpenOnOptions,
  round,
  writes,
} from "./support.ts";

const SUBNET = "10.24.7.0/24";
const OWN = lease(SUBNET, "192.168.1.11");
const NAME = `flanneld/${CLUSTER_ID}/10.24.0.0/16/${EXAMPLE.instanceIds[0]}`;
const PLACE = { routeTableId: EXAMPLE.systemTableId, destination: SUBNET };

function start(change: Partial<CloudConfig> = {}): Promise<Simulator> {
  return startSimulator({ config: exampleConfig(change) });
}

/** Our entries of the table, as `10.24.7.0/24 i-node-1 "name"`. */
function entries(simulator: Simulator, tableId: string = EXAMPLE.systemTableId): string[] {
  return simulator.cloud.routeEntries(tableId)
    .filter(({ destination }) => destination.startsWith("10.24."))
    .map(({ destination, nextHops, name }) =>
      `${destination} ${nextHops.map(({ id }) => id).join()} ${JSON.stringify(name)}`
    );
}

/** Everything that is not ours, to be found unchanged. */
function foreign(simulator: Simulator): unknown {
  return simulator.cloud.routeEntries().filter(({ destination }) =>
    !destination.startsWith("10.24.")
  );
}

/** Calls of an action, without dry runs. */
function count(simulator: Simulator, action: string, since = 0): number {
  return simulator.requests.slice(since).filter((request) =>
    request.action === action && request.params["DryRun"] !== "true"
  ).length;
}

async function refused(
  simulator: Simulator,
  options: OpenOnOptions,
  expected: RegExp,
  type: "person" | "time" = "person",
): Promise<void> {
  await assert.rejects(openOn(simulator, options), (error) => {
    assert(error instanceof Error);
    assert.match(error.message, expected);
    assert.equal(error instanceof OperatorError, type === "person", Deno.inspect(error));
    return true;
  });
  assert.deepEqual(writes(simulator.requests), []);
}

Deno.test("a host's route is created, Available before the round ends, and the check is off", async () => {
  await using simulator = await start({ behaviour: { delays: { minMs: 20, maxMs: 60 } } });
  const before = foreign(simulator);
  await using cloud = await openOn(simulator);
  assert.deepEqual(cloud.facts.routeTableIds, [EXAMPLE.systemTableId], "never the first table");
  const report = await round(cloud, OWN, { checks: true });
  assert.deepEqual(report.problems, []);
  assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
  assert.equal(simulator.cloud.routeEntries(EXAMPLE.systemTableId).at(-1)?.status, "Available");
  const { networkInterfaces } = simulator.cloud.snapshot();
  assert.deepEqual(
    networkInterfaces.filter((each) => !each.sourceDestCheck).map((each) => each.instanceId).sort(),
    [EXAMPLE.foreignInstanceId, "i-node-1"].sort(),
    "no other interface is touched",
  );
  assert.deepEqual(foreign(simulator), before);
});

Deno.test("a right route costs one list call per round, and a restart writes nothing", async () => {
  await using simulator = await start();
  {
    await using cloud = await openOn(simulator);
    await round(cloud, OWN, { checks: true });
    const since = simulator.requests.length;
    for (let n = 0; n < 5; n++) await round(cloud, OWN);
    assert.equal(simulator.requests.length - since, 5);
    assert.equal(count(simulator, "DescribeRouteEntryList", since), 5);
  }
  const since = simulator.requests.length;
  await using cloud = await openOn(simulator);
  const report = await round(cloud, OWN, { checks: true });
  assert(report.inSync);
  assert.deepEqual(writes(simulator.requests.slice(since)), []);
  assert(
    simulator.requests.slice(since).every(({ params }) => params["DryRun"] !== "true"),
    "nothing needs to be asked for",
  );
});

Deno.test("a route deleted or re-pointed in the console is back after one round", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  await round(cloud, OWN);
  simulator.cloud.deleteRoute(PLACE);
  assert((await round(cloud, OWN)).inSync);
  assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
  simulator.cloud.repointRoute(PLACE, "i-node-2");
  const since = simulator.requests.length;
  assert((await round(cloud, OWN)).inSync);
  assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
  assert.deepEqual(
    writes(simulator.requests.slice(since)).map(({ action }) => action),
    ["ModifyRouteEntry"],
    "in place, without a gap",
  );
});

Deno.test("a host takes no subnet from the instance that its entry leads to", async () => {
  await using simulator = await start();
  {
    await using former = await openOn(simulator, { instanceId: "i-node-2" });
    await round(former, OWN);
  }
  await using cloud = await openOn(simulator);
  const since = simulator.requests.length;
  const { problems: [problem] } = await round(cloud, OWN);
  assert.match(problem!, /via i-node-2 .* stands in its place/);
  assert.deepEqual(writes(simulator.requests.slice(since)), []);
});

Deno.test("the entry of a release without cluster ids is named anew, where it leads here", async () => {
  await using simulator = await start();
  const add = (destination: string, id: string, name: string) =>
    simulator.cloud.addRoute(EXAMPLE.systemTableId, {
      destination,
      nextHops: [{ type: "Instance", id }],
      name,
    });
  add(SUBNET, "i-node-1", "flanneld/10.24.0.0/16/i-node-1");
  // Another cluster may have made it as well.
  add("10.24.8.0/24", "i-node-1", "flanneld/10.24.0.0/16/i-node-1");
  add("10.24.9.0/24", "i-node-2", "flanneld/10.24.0.0/16/i-node-2");
  await using cloud = await openOn(simulator);
  assert((await round(cloud, OWN)).inSync);
  assert.deepEqual(entries(simulator), [
    `${SUBNET} i-node-1 "${NAME}"`,
    '10.24.8.0/24 i-node-1 "flanneld/10.24.0.0/16/i-node-1"',
    '10.24.9.0/24 i-node-2 "flanneld/10.24.0.0/16/i-node-2"',
  ]);
  assert.deepEqual(writes(simulator.requests).map(({ action }) => action), ["ModifyRouteEntry"]);
});

Deno.test("another cluster's entry that leads here serves, and keeps its name", async () => {
  await using simulator = await start();
  const theirs = "flanneld/0123456789abcdef/10.24.0.0/16/i-node-1";
  simulator.cloud.addRoute(EXAMPLE.systemTableId, {
    destination: SUBNET,
    nextHops: [{ type: "Instance", id: "i-node-1" }],
    name: theirs,
  });
  await using cloud = await openOn(simulator);
  assert((await round(cloud, OWN)).inSync);
  assert((await round(cloud, lease("10.24.8.0/24", "192.168.1.11"))).inSync);
  assert.deepEqual(entries(simulator), [
    `${SUBNET} i-node-1 "${theirs}"`,
    `10.24.8.0/24 i-node-1 "${NAME}"`,
  ]);
});

Deno.test("without the right to modify, an entry is led back by delete and create", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  await round(cloud, OWN);
  simulator.cloud.repointRoute(PLACE, "i-node-2");
  simulator.cloud.denyAction("vpc:ModifyRouteEntry");
  assert((await round(cloud, OWN)).inSync);
  assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
  assert.equal(count(simulator, "DeleteRouteEntry"), 1);
});

Deno.test("the entry that upstream left for our lease is adopted, once", async (t) => {
  const upstream = {
    destination: SUBNET,
    nextHops: [{ type: "Instance" as const, id: "i-node-1" }],
  };
  await t.step("and named", async () => {
    await using simulator = await start();
    simulator.cloud.addRoute(EXAMPLE.systemTableId, upstream);
    await using cloud = await openOn(simulator);
    assert((await round(cloud, OWN)).inSync);
    assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
    await round(cloud, OWN);
    assert.deepEqual(writes(simulator.requests).map(({ action }) => action), ["ModifyRouteEntry"]);
  });
  await t.step("or used as it is where naming is denied", async () => {
    await using simulator = await start();
    simulator.cloud.addRoute(EXAMPLE.systemTableId, upstream);
    simulator.cloud.denyAction("vpc:ModifyRouteEntry");
    const log = new LineLog();
    await using cloud = await openOn(simulator, { log });
    assert.deepEqual((await round(cloud, OWN, { log })).problems, []);
    assert.match(log.text, /warn: Cannot name a route entry as flanneld's own/);
    assert.doesNotMatch(log.text, /replace route entry/, "what was not done is not told");
    const since = simulator.requests.length;
    assert((await round(cloud, OWN)).inSync);
    assert.deepEqual(writes(simulator.requests.slice(since)), []);
    assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 ""`]);
  });
});

Deno.test("a stale entry of an earlier lease is removed; nobody else's is", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  await round(cloud, OWN);
  const hop = [{ type: "Instance" as const, id: "i-node-1" }];
  const other = [{ type: "Instance" as const, id: "i-node-2" }];
  const add = (destination: string, nextHops: typeof hop, name = "") =>
    simulator.cloud.addRoute(EXAMPLE.systemTableId, { destination, nextHops, name });
  add("10.24.20.0/24", hop);
  add("10.24.21.0/24", hop, "mine by hand");
  add("10.24.22.0/24", other, "flanneld/10.24.0.0/16/i-node-2");
  add("10.23.0.0/24", hop, "flanneld/10.23.0.0/16/i-node-1");
  const kept = simulator.cloud.routeEntries().length;
  add("10.24.23.0/24", hop, NAME);
  assert((await round(cloud, OWN)).inSync);
  assert.equal(simulator.cloud.routeEntries().length, kept);
  // A new lease: its entry comes first, then the old one goes.
  assert((await round(cloud, lease("10.24.8.0/24", "192.168.1.11"))).inSync);
  assert.equal(simulator.cloud.routeEntries().length, kept);
  assert(entries(simulator).includes(`10.24.8.0/24 i-node-1 "${NAME}"`));
  assert(!entries(simulator).some((line) => line.startsWith(`${SUBNET} `)));
});

Deno.test("a foreign entry in our place is reported by name and never changed", async () => {
  await using simulator = await start();
  simulator.cloud.addRoute(EXAMPLE.systemTableId, {
    destination: SUBNET,
    nextHops: [{ type: "Instance", id: EXAMPLE.foreignInstanceId }],
    name: "legacy vpn",
  });
  await using cloud = await openOn(simulator);
  const report = await round(cloud, OWN);
  assert.equal(report.inSync, false);
  assert.match(
    report.problems[0]!,
    /10\.24\.7\.0\/24 via i-nat in vtb-main \(rte-\w+, "legacy vpn"\)/,
  );
  assert.deepEqual(writes(simulator.requests), []);
});

Deno.test("peers in a vSwitch with another table get our route there, too", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  const peer = lease("10.24.9.0/24", "192.168.2.13");
  const abroad = lease("10.24.10.0/24", "10.1.0.5");
  const log = new LineLog();
  assert((await round(cloud, OWN, { peers: [abroad], log })).inSync);
  assert.deepEqual(cloud.facts.routeTableIds, [EXAMPLE.systemTableId]);
  assert((await round(cloud, OWN, { peers: [abroad, peer], log })).inSync);
  assert.deepEqual(cloud.facts.routeTableIds, [EXAMPLE.systemTableId, EXAMPLE.customTableId]);
  for (const table of cloud.facts.routeTableIds) {
    assert.deepEqual(entries(simulator, table), [`${SUBNET} i-node-1 "${NAME}"`]);
  }
  const since = simulator.requests.length;
  const before = cloud.facts;
  assert((await round(cloud, OWN, { peers: [peer] })).inSync);
  assert.equal(cloud.facts, before, "nothing to plan anew");
  assert.equal(simulator.requests.length - since, 2, "one list call per table");
  // The peer is gone for now: its table keeps the route.
  assert((await round(cloud, OWN)).inSync);
  assert.equal(entries(simulator, EXAMPLE.customTableId).length, 1);
});

Deno.test("vSwitches are found without the right to list them", async () => {
  await using simulator = await start();
  simulator.cloud.denyAction("vpc:DescribeVSwitches");
  await using cloud = await openOn(simulator);
  const facts = await cloud.follow(OWN, [lease("10.24.9.0/24", "192.168.2.13")], {
    signal: AbortSignal.timeout(30_000),
  });
  assert.deepEqual(facts.routeTableIds, [EXAMPLE.systemTableId, EXAMPLE.customTableId]);
});

Deno.test("not knowing the peers' tables for long is told once, and its end", async () => {
  await using simulator = await start();
  const log = new LineLog();
  await using cloud = await openOn(simulator, { log, clock: fastClock(1_000) });
  const signal = AbortSignal.timeout(60_000);
  // Its tables count as known for 5 minutes, which take 0.3 s here.
  await delay(500, { signal });
  const fault = simulator.cloud.addFault({
    match: { action: "DescribeRouteTableList" },
    effect: { kind: "error", status: 403, code: "Forbidden.RAM" },
  });
  for (let n = 0; n < 5; n++) {
    const facts = await cloud.follow(OWN, [lease("10.24.9.0/24", "192.168.2.13")], { signal });
    assert.deepEqual(facts.routeTableIds, [EXAMPLE.systemTableId]);
  }
  simulator.cloud.removeFault(fault);
  await cloud.follow(OWN, [lease("10.24.9.0/24", "192.168.2.13")], { signal });
  const told = log.lines.filter((line) =>
    /route tables peers use/.test(line) && !/^debug/.test(line)
  );
  assert.equal(told.length, 2, log.text);
  assert.match(told[0]!, /^warn: Cannot find out which route tables peers use.*RAM policy/);
  assert.match(told[1]!, /^info: Could find out which route tables peers use after/);
});

Deno.test("one table that cannot be written does not hold up the others", async () => {
  await using simulator = await start();
  simulator.cloud.setQuota(2, { routeTableId: EXAMPLE.customTableId });
  simulator.cloud.fillTable(EXAMPLE.customTableId);
  await using cloud = await openOn(simulator, {
    backend: { RouteTableID: [EXAMPLE.customTableId, EXAMPLE.systemTableId] },
  }).catch(() => openOn(simulator));
  const report = await round(cloud, OWN, { peers: [lease("10.24.9.0/24", "192.168.2.13")] });
  assert.equal(report.problems.length, 1);
  assert.match(
    report.problems[0]!,
    /10\.24\.7\.0\/24 via i-node-1 in vtb-custom-h: route table is full \(2 of 2\); raise the quota vpc_quota_route_entrys_num/,
  );
  assert.equal(entries(simulator).length, 1);
});

Deno.test("stale entries of tables that are no longer used are found, by and by", async () => {
  await using simulator = await start();
  for (const destination of [SUBNET, "10.24.8.0/24"]) {
    simulator.cloud.addRoute("vtb-spare-3", {
      destination,
      nextHops: [{ type: "Instance", id: "i-node-1" }],
      name: NAME,
    });
  }
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  const delay = () => Promise.resolve();
  await using cloud = await openOn(simulator, { clock: { now, delay } });
  await round(cloud, OWN);
  hurryMs += 10 * 60_000;
  for (let n = 0; n < 20; n++) await round(cloud, OWN);
  // Peers of which this host does not know may look it up there.
  assert.deepEqual(entries(simulator, "vtb-spare-3"), [`${SUBNET} i-node-1 "${NAME}"`]);
  assert.equal(entries(simulator).length, 1);
});

Deno.test("a table that no vSwitch uses any more gets no new entry, and keeps the subnet's", async () => {
  await using simulator = await start();
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  const delay = () => Promise.resolve();
  await using cloud = await openOn(simulator, { clock: { now, delay } });
  const peers = [lease("10.24.9.0/24", "192.168.2.13")];
  await round(cloud, OWN, { peers });
  assert.equal(entries(simulator, EXAMPLE.customTableId).length, 1);
  simulator.cloud.unbindVSwitch(EXAMPLE.vSwitchIds[1]);
  hurryMs += 10 * 60_000;
  assert((await round(cloud, OWN, { peers })).inSync);
  assert.deepEqual(cloud.facts.routeTableIds, [EXAMPLE.systemTableId]);
  hurryMs += 2 * 3_600_000;
  for (let n = 0; n < 20; n++) await round(cloud, OWN, { peers });
  assert.equal(entries(simulator, EXAMPLE.customTableId).length, 1);
  assert.equal(entries(simulator).length, 1);
  // It goes with the subnet.
  const moved = lease("10.24.8.0/24", "192.168.1.11");
  await round(cloud, moved, { peers });
  hurryMs += 2 * 3_600_000;
  for (let n = 0; n < 20; n++) await round(cloud, moved, { peers });
  assert.deepEqual(entries(simulator, EXAMPLE.customTableId), []);
});

Deno.test("our vSwitch bound to another table takes our route with it", async () => {
  await using simulator = await start();
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  const delay = () => Promise.resolve();
  await using cloud = await openOn(simulator, { clock: { now, delay } });
  await round(cloud, OWN);
  simulator.cloud.bindVSwitch(EXAMPLE.vSwitchIds[0], "vtb-spare-3");
  hurryMs += 30 * 60_000;
  assert((await round(cloud, OWN)).inSync);
  assert.deepEqual(cloud.facts.routeTableIds, ["vtb-spare-3"]);
  assert.equal(entries(simulator, "vtb-spare-3").length, 1);
  hurryMs += 2 * 3_600_000;
  for (let n = 0; n < 20; n++) await round(cloud, OWN);
  assert.equal(entries(simulator).length, 1, "peers in other vSwitches may look there for us");
});

Deno.test("a table that cannot be read is not written blindly", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  const peer = lease("10.24.9.0/24", "192.168.2.13");
  assert((await round(cloud, OWN, { peers: [peer] })).inSync);
  const since = simulator.requests.length;
  simulator.cloud.addFault({
    match: { action: "DescribeRouteEntryList" },
    times: 1,
    effect: { kind: "error", status: 400, code: "Throttling.User" },
  });
  assert((await round(cloud, OWN, { peers: [peer] })).inSync);
  assert.deepEqual(writes(simulator.requests.slice(since)), []);
});

Deno.test("what no host can use is refused before anything is written", async (t) => {
  await t.step("overlap with the VPC's blocks", async () => {
    await using simulator = await start();
    for (const text of ["192.168.128.0/17", "172.16.0.0/12"]) {
      await refused(
        simulator,
        { network: Prefix.parse(text) },
        /overlaps (192\.168\.0\.0\/16|172\.31\.0\.0\/16) of VPC vpc-main/,
      );
    }
    await refused(
      simulator,
      { network: Prefix.parse("100.64.0.0/16") },
      /overlaps 100\.64\.0\.0\/10/,
    );
    await refused(simulator, { network: Prefix.parse("fd00:10::/56") }, /IPv4 only/);
  });
  await t.step("unknown, gateway and other VPCs' tables", async () => {
    await using simulator = await start();
    for (const id of ["vtb-absent", "vtb-other", EXAMPLE.gatewayTableId]) {
      await refused(
        simulator,
        { backend: { RouteTableID: id } },
        new RegExp(`${id}.*vtb-custom-h \\("zone h"\\)`),
      );
    }
  });
  await t.step("another VPC or region than the config names", async () => {
    await using simulator = await start();
    await refused(simulator, { backend: { VpcID: "vpc-other" } }, /this instance is in vpc-main/);
    await refused(simulator, { backend: { RegionID: "cn-beijing" } }, /in region cn-hangzhou/);
  });
  await t.step("a full table", async () => {
    await using simulator = await start();
    simulator.cloud.fillTable(EXAMPLE.systemTableId);
    await refused(
      simulator,
      {},
      /Cannot use route table vtb-main: route table is full \(200 of 200\); raise the quota/,
      "time",
    );
  });
  await t.step("denied actions, by name", async () => {
    for (
      const action of [
        "vpc:DescribeVpcAttribute",
        "vpc:DescribeVSwitchAttributes",
        "vpc:DescribeRouteEntryList",
        "vpc:CreateRouteEntry",
      ]
    ) {
      await using simulator = await start();
      simulator.cloud.denyAction(action);
      await refused(simulator, {}, new RegExp(`${action}.*allow ${action} in the RAM policy`));
    }
  });
  await t.step("wrong keys, and a clock that is off", async () => {
    await using simulator = await start();
    await refused(
      simulator,
      { env: { ...keyEnv(), ACCESS_KEY_SECRET: "wrong-secret-canary" } },
      /AccessKeySecret does not belong/,
    );
    await refused(
      simulator,
      { env: { ...keyEnv(), ACCESS_KEY_ID: "LTAI5tUnknown00000001" } },
      /AccessKey is wrong/,
    );
  });
  await t.step("an instance of the classic network", async () => {
    await using simulator = await start();
    await using metadata = cannedServer(({ path }) =>
      path.endsWith("/region-id") ? new Response("cn-hangzhou") : new Response("", { status: 404 })
    );
    await refused(simulator, { metadataEndpoint: metadata.url }, /not in a VPC/);
  });
  await t.step("no credentials at all", async () => {
    await using simulator = await start();
    await refused(
      simulator,
      { instanceId: "i-node-2", env: {} },
      /backend config.*has no RAM role/,
    );
  });
});

Deno.test("a table that is nearly full is warned of", async () => {
  await using simulator = await start();
  simulator.cloud.fillTable(EXAMPLE.systemTableId, { leave: 20 });
  const log = new LineLog();
  await using _cloud = await openOn(simulator, { log });
  assert.match(
    log.text,
    /warn: Route table vtb-main is nearly full, unless its quota was raised.*used=180 limit=200/,
  );
});

Deno.test("RouteQuota says when a table is nearly full; a table past the default says it was raised", async () => {
  await using simulator = await start();
  simulator.cloud.fillTable(EXAMPLE.systemTableId, { leave: 20 });
  const told = async (backend: Readonly<Record<string, unknown>>) => {
    const log = new LineLog();
    await using _cloud = await openOn(simulator, { log, backend });
    return log.lines.filter((line) => line.startsWith("warn")).join();
  };
  assert.equal(await told({ RouteQuota: 1000 }), "");
  assert.match(
    await told({ RouteQuota: 190 }),
    /^warn: Route table vtb-main is nearly full: each host.*used=180 limit=190$/,
  );
  assert.match(
    await told({ RouteQuota: 180 }),
    /^warn: Route table vtb-main is full: .*limit=180$/,
  );
  // The account's quota was raised: another table has outgrown the usual one.
  simulator.cloud.setQuota(500);
  simulator.cloud.fillTable(EXAMPLE.customTableId, { leave: 250 });
  const both = { RouteTableID: [EXAMPLE.systemTableId, EXAMPLE.customTableId] };
  assert.equal(await told(both), "");
});

Deno.test("an entry of an earlier run lets a host start although the table is full", async () => {
  await using simulator = await start();
  {
    await using cloud = await openOn(simulator);
    await round(cloud, OWN);
  }
  simulator.cloud.fillTable(EXAMPLE.systemTableId);
  await using cloud = await openOn(simulator);
  assert((await round(cloud, OWN)).inSync);
});

Deno.test("a denied source/destination check tells what to do and costs no route", async () => {
  await using simulator = await start();
  simulator.cloud.denyAction("ecs:ModifyNetworkInterfaceAttribute");
  await using cloud = await openOn(simulator);
  const report = await round(cloud, OWN, { checks: true });
  assert.equal(report.problems.length, 1);
  assert.match(
    report.problems[0]!,
    /RAM denies ecs:ModifyNetworkInterfaceAttribute.*console.*eni-node-1.*"SourceDestCheck": "ignore"/,
  );
  assert.equal(entries(simulator).length, 1);
});

Deno.test("a conflicting operation on the interface is waited out", async () => {
  await using simulator = await start();
  simulator.cloud.addFault({
    match: { action: "ModifyNetworkInterfaceAttribute" },
    times: 2,
    effect: { kind: "error", status: 400, code: "InvalidOperation.Conflict" },
  });
  await using cloud = await openOn(simulator);
  assert((await round(cloud, OWN, { checks: true })).inSync);
});

Deno.test({
  name: "every way a create can go wrong ends in one right entry",
  // httpx leaves an unreferenced timer behind when a connection is dropped; it ends after 20 s.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async (t) => {
    const codes: [code: string, status: number][] = [
      ["TaskConflict", 400],
      ["OperationFailed.DistibuteLock", 400],
      ["IncorrcetRouteEntryStatus", 400],
      ["IncorrectInstanceStatus", 403],
      ["LastTokenProcessing", 400],
      ["Throttling.User", 400],
      ["ServiceUnavailable", 503],
      ["VPC.ERROR", 500],
      ["SignatureNonceUsed", 400],
    ];
    for (const [code, status] of codes) {
      await t.step(code, async () => {
        await using simulator = await start();
        simulator.cloud.addFault({
          match: { action: "CreateRouteEntry" },
          skip: 1,
          times: 3,
          effect: { kind: "error", status, code },
        });
        await using cloud = await openOn(simulator);
        assert.deepEqual((await round(cloud, OWN)).problems, []);
        assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
        const tokens = simulator.requests.filter(({ action, params }) =>
          action === "CreateRouteEntry" && params["DryRun"] !== "true"
        ).map(({ params }) => params["ClientToken"]);
        assert(tokens.length >= 3);
        assert.equal(new Set(tokens).size, 1, "one logical create");
      });
    }
    for (
      const effect of [
        { kind: "performThenDrop" },
        { kind: "performThenError", status: 500, code: "InternalError" },
        { kind: "performThenError", status: 502 },
        { kind: "html" },
        { kind: "drop" },
        { kind: "truncate" },
        { kind: "empty" },
      ] as const
    ) {
      await t.step(JSON.stringify(effect), async () => {
        await using simulator = await start();
        simulator.cloud.addFault({
          match: { action: "CreateRouteEntry" },
          skip: 1,
          times: 2,
          effect,
        });
        await using cloud = await openOn(simulator);
        assert.deepEqual((await round(cloud, OWN)).problems, []);
        assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
        const performed = simulator.requests.filter(({ action, performed }) =>
          action === "CreateRouteEntry" && performed
        );
        assert.equal(performed.length, 1);
      });
    }
  },
});

Deno.test("a list that lags causes no second write", async () => {
  await using simulator = await start({ behaviour: { listLagMs: 400 } });
  await using cloud = await openOn(simulator);
  assert((await round(cloud, OWN)).inSync);
  assert.equal(count(simulator, "CreateRouteEntry"), 1);
  assert((await round(cloud, lease("10.24.8.0/24", "192.168.1.11"))).inSync);
  assert.equal(count(simulator, "CreateRouteEntry"), 2);
  assert.equal(count(simulator, "DeleteRouteEntry"), 1);
});

Deno.test("a duplicate that another try of ours made is read back", async () => {
  for (const code of ["InvalidCIDRBlock.Duplicate", "RouterEntryConflict.Duplicated"]) {
    await using simulator = await start();
    await using cloud = await openOn(simulator);
    simulator.cloud.addFault({
      match: { action: "CreateRouteEntry" },
      times: 1,
      effect: { kind: "performThenError", status: 400, code },
    });
    assert((await round(cloud, OWN)).inSync);
    assert.deepEqual(entries(simulator), [`${SUBNET} i-node-1 "${NAME}"`]);
  }
});

Deno.test("a write waits its whole budget and then says why", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  await cloud.follow(OWN, [], { signal: AbortSignal.timeout(30_000) });
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntry" },
    effect: { kind: "error", status: 400, code: "IncorrectInstanceStatus" },
  });
  const log = new LineLog();
  const report = await round(cloud, OWN, { log });
  assert.match(report.problems[0]!, /given up after \d min: .*IncorrectInstanceStatus/);
  assert(count(simulator, "CreateRouteEntry") < 30, "five minutes' patience is no storm");
});

Deno.test("abort ends a waiting write at once", async () => {
  await using simulator = await start();
  await using cloud = await openOn(simulator);
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntry" },
    effect: { kind: "error", status: 400, code: "TaskConflict" },
  });
  const controller = new AbortController();
  const running = round(cloud, OWN, { signal: controller.signal });
  while (count(simulator, "CreateRouteEntry") === 0) await new Promise((r) => setTimeout(r, 5));
  // The answer has come, too: what the SDK leaves behind of a call under way is not our subject.
  await new Promise((r) => setTimeout(r, 200));
  controller.abort(new Error("going down"));
  await assert.rejects(running, /going down/);
});

Deno.test("temporary keys of the instance's role are renewed under way", async (t) => {
  await t.step("when the old ones are revoked", async () => {
    await using simulator = await start();
    await using cloud = await openOn(simulator, { env: {} });
    assert.equal(cloud.credentialsSource, "instance RAM role");
    assert((await round(cloud, OWN)).inSync);
    simulator.cloud.rotateRole(EXAMPLE.roleName, { revoke: true });
    simulator.cloud.deleteRoute(PLACE);
    assert.deepEqual((await round(cloud, OWN)).problems, []);
    assert.equal(entries(simulator).length, 1);
  });
  await t.step("on an instance with hardened metadata", async () => {
    await using simulator = await start();
    simulator.cloud.setInstance("i-node-1", { httpTokens: "required" });
    await using cloud = await openOn(simulator, { env: {} });
    assert((await round(cloud, OWN)).inSync);
  });
});

Deno.test("an OIDC token is exchanged for keys of a role", async () => {
  await using simulator = await start();
  const file = await Deno.makeTempFile();
  try {
    const token = simulator.cloud.issueOidcToken({ subject: "flanneld", lifetimeMs: 3_600_000 });
    await Deno.writeTextFile(file, token);
    await using cloud = await openOn(simulator, {
      env: {
        ALIBABA_CLOUD_ROLE_ARN: EXAMPLE.roleArn,
        ALIBABA_CLOUD_OIDC_PROVIDER_ARN: EXAMPLE.oidcProviderArn,
        ALIBABA_CLOUD_OIDC_TOKEN_FILE: file,
      },
    });
    assert.equal(cloud.credentialsSource, "RRSA (OIDC)");
    assert((await round(cloud, OWN)).inSync);
  } finally {
    await Deno.remove(file);
  }
});

Deno.test("trouble that time may mend is no OperatorError", async (t) => {
  await t.step("throttling, waited out for minutes first", async () => {
    await using simulator = await start();
    simulator.cloud.addFault({
      match: { service: "vpc" },
      effect: { kind: "error", status: 400, code: "Throttling.User" },
    });
    await assert.rejects(
      openOn(simulator, { clock: fastClock(2_000) }),
      (error) => error instanceof CloudApiError && error.reaction.do === "retry",
    );
    assert(simulator.requests.length < 60);
  });
  await t.step("and throttling that ends", async () => {
    await using simulator = await start();
    simulator.cloud.addFault({
      match: { service: "vpc" },
      skip: 2,
      times: 3,
      effect: { kind: "error", status: 400, code: "Throttling.User" },
    });
    await using _cloud = await openOn(simulator, { clock: fastClock(500) });
    assert.equal(count(simulator, "DescribeVpcAttribute"), 1);
  });
  await t.step("a service that is down", async () => {
    await using simulator = await start();
    simulator.cloud.addFault({ match: { service: "vpc" }, effect: { kind: "drop" } });
    await refused(simulator, {}, /NoConnection/, "time");
  });
});

Deno.test("no secret shows in a log or an error", async () => {
  await using simulator = await start();
  const log = new LineLog();
  const canary = "canary-secret-of-the-config";
  simulator.cloud.setAccessKey(EXAMPLE.accessKeyId, { secret: canary });
  const backend = { AccessKeyID: EXAMPLE.accessKeyId, AccessKeySecret: canary };
  {
    await using cloud = await openOn(simulator, { backend, env: {}, log });
    await round(cloud, OWN, { log, checks: true });
    simulator.cloud.setAccessKey(EXAMPLE.accessKeyId, { secret: "another" });
    simulator.cloud.deleteRoute(PLACE);
    const report = await round(cloud, OWN, { log });
    assert.match(report.problems.join(), /SignatureDoesNotMatch/);
    log.error(report.problems.join());
  }
  assert(!log.text.includes(canary) && !log.text.includes(EXAMPLE.accessKeyId), redact(log.text));
});

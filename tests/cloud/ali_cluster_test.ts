/**
 * One writer for the entries of all hosts, against the simulated cloud, on a clock that runs fast.
 */
import assert from "node:assert/strict";
import { Prefix } from "../../src/net/mod.ts";
import { delay } from "../../src/util/time.ts";
import { EXAMPLE } from "../simulator/example.ts";
import type { RequestRecord, Simulator } from "../simulator/mod.ts";
import {
  claimsOf,
  entriesOf,
  openCluster,
  startWithHosts,
  subnetOf,
  type Tamper,
  wanted,
} from "./cluster_rig.ts";
import { CLUSTER_ID, fastClock, NETWORK, writes } from "./support.ts";

const { systemTableId, customTableId } = EXAMPLE;

function calls(simulator: Simulator, action: string, since = 0): readonly RequestRecord[] {
  return simulator.requests.slice(since).filter((request) => request.action === action);
}

function count(simulator: Simulator, action: string, since = 0): number {
  return calls(simulator, action, since).length;
}

/** The actions of all writes, with how often each was called. */
function written(simulator: Simulator, since = 0): Record<string, number> {
  const byAction = Map.groupBy(writes(simulator.requests.slice(since)), ({ action }) => action);
  return Object.fromEntries([...byAction].map(([action, all]) => [action, all.length]));
}

function sorted(lines: readonly string[]): string[] {
  return [...lines].sort();
}

/** What is not of the network, to be found unchanged. */
function foreign(simulator: Simulator): unknown {
  return simulator.cloud.routeEntries().filter(({ destination }) =>
    !NETWORK.contains(Prefix.parse(destination))
  );
}

Deno.test("200 entries cost four batches, and a steady round one call per hundred", async () => {
  const clock = fastClock(10);
  await using simulator = await startWithHosts(
    200,
    { delays: { minMs: 1_000, maxMs: 3_000 } },
    clock.now,
  );
  const before = foreign(simulator);
  await using cluster = openCluster(simulator, clock);
  const claims = claimsOf(0, 200);
  const startedAt = clock.now();
  const report = await cluster.round(claims);
  const seconds = (clock.now() - startedAt) / 1_000;
  assert.deepEqual(report.problems, []);
  assert.deepEqual(entriesOf(simulator), wanted(claims));
  assert.deepEqual(written(simulator), { CreateRouteEntries: 4 });
  const lists = count(simulator, "DescribeRouteEntryList");
  assert(lists <= 22, `${lists} list calls`);
  // About 20; what this machine takes for other work counts ten times.
  assert(seconds < 40, `${seconds} s`);
  assert.equal(cluster.routes.view.tables.get(systemTableId)?.used, 205);

  const since = simulator.requests.length;
  for (let n = 0; n < 3; n++) assert((await cluster.round(claims)).inSync);
  assert.deepEqual(simulator.requests.slice(since).map(({ action }) => action), [
    ...Array(9).fill("DescribeRouteEntryList"),
  ]);
  assert.deepEqual(foreign(simulator), before);
});

Deno.test("1,000 entries fit where the quota was raised, at a constant cost per batch", async () => {
  await using simulator = await startWithHosts(1_000);
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 1_000);
  assert.deepEqual((await cluster.round(claims)).problems, []);
  assert.deepEqual(entriesOf(simulator), wanted(claims));
  assert.deepEqual(written(simulator), { CreateRouteEntries: 20 });
  const lists = count(simulator, "DescribeRouteEntryList");
  assert(lists <= 20 * 6, `${lists} list calls`);
  const since = simulator.requests.length;
  assert((await cluster.round(claims)).inSync);
  assert.equal(simulator.requests.length - since, 11);
});

Deno.test("each entry of a batch has an outcome of its own", async () => {
  await using simulator = await startWithHosts(12);
  const { cloud } = simulator;
  const hop = (id: string) => [{ type: "Instance" as const, id }];
  const claims = claimsOf(0, 12);
  await using cluster = openCluster(simulator);
  // While the writer believes the table to be empty: ours already, foreign, dynamic, and a host
  // that is not there any more.
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntries" },
    times: 1,
    effect: { kind: "delay", delayMs: 100 },
  });
  cloud.releaseInstance("i-5");
  const running = cluster.round(claims);
  while (count(simulator, "DescribeRouteEntryList") === 0) await delay(1, aborts());
  cloud.addRoute(systemTableId, {
    destination: subnetOf(1),
    nextHops: hop("i-1"),
    name: `flanneld/${CLUSTER_ID}/10.24.0.0/16/i-1`,
  });
  cloud.addRoute(systemTableId, { destination: subnetOf(2), nextHops: hop("i-2") });
  cloud.addRoute(systemTableId, { destination: subnetOf(3), nextHops: hop("i-nat"), name: "x" });
  cloud.addRoute(systemTableId, {
    destination: subnetOf(4),
    type: "CEN",
    nextHops: [{ type: "Attachment", id: "tr-1" }],
  });
  const { problems } = await running;
  assert.equal(problems.length, 3, problems.join("\n"));
  assert.match(
    problems.find((line) => line.includes(subnetOf(3)))!,
    /via i-nat.*"x".*not flanneld/,
  );
  assert.match(problems.find((line) => line.includes(subnetOf(4)))!, /via tr-1.*not flanneld/);
  assert.match(problems.find((line) => line.includes(subnetOf(5)))!, /NotFound|NextHop/);
  assert.deepEqual(
    sorted(entriesOf(simulator)),
    sorted([
      ...wanted(claims.filter((_, n) => ![2, 3, 4, 5].includes(n))),
      `${subnetOf(2)} i-2 ""`,
      `${subnetOf(3)} i-nat "x"`,
      `${subnetOf(4)} tr-1 ""`,
    ]),
  );
  assert.deepEqual(
    [...cluster.routes.view.failures.keys()].sort(),
    [3, 4, 5].map((n) => `${systemTableId} ${subnetOf(n)}`),
  );
  assert.equal(cluster.routes.view.entries.get(`${systemTableId} ${subnetOf(3)}`)?.owned, false);
  assert.equal(cluster.routes.view.entries.get(`${systemTableId} ${subnetOf(2)}`)?.owned, true);
  // The operator makes room.
  cloud.deleteRoute({ routeTableId: systemTableId, destination: subnetOf(3) });
  await cluster.round(claims);
  assert(entriesOf(simulator).includes(`${subnetOf(3)} i-3`));
  assert(!cluster.routes.view.failures.has(`${systemTableId} ${subnetOf(3)}`));
  assert(entriesOf(simulator).includes(`${subnetOf(2)} i-2`), "and the other has its name by now");
});

function aborts(): { signal: AbortSignal } {
  return { signal: AbortSignal.timeout(30_000) };
}

Deno.test({
  name: "a batch whose answer is lost is looked at, and nothing is written twice",
  // httpx leaves an unreferenced timer behind when a connection is dropped; it ends after 20 s.
  sanitizeOps: false,
  sanitizeResources: false,
  fn: async (t) => {
    const effects = [
      { kind: "performThenDrop" },
      { kind: "performThenError", status: 500, code: "InternalError" },
      { kind: "performThenError", status: 502 },
      { kind: "truncate" },
      { kind: "drop" },
      { kind: "html" },
      { kind: "error", status: 503, code: "ServiceUnavailable" },
    ] as const;
    for (const effect of effects) {
      await t.step(JSON.stringify(effect), async () => {
        await using simulator = await startWithHosts(60);
        await using cluster = openCluster(simulator, { graceMs: 0 });
        const claims = claimsOf(0, 60);
        const action = ["CreateRouteEntries", "DeleteRouteEntries"];
        simulator.cloud.addFault({ match: { action }, times: 1, effect });
        assert.deepEqual((await cluster.round(claims)).problems, []);
        assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims)));
        const performed = writes(simulator.requests).filter((each) => each.performed);
        assert.equal(performed.length, 2, "one per batch");
        simulator.cloud.clearFaults();
        simulator.cloud.addFault({ match: { action }, times: 1, effect });
        await cluster.round([]);
        assert.deepEqual(entriesOf(simulator), []);
        assert.equal(writes(simulator.requests).filter((each) => each.performed).length, 4);
      });
    }
  },
});

Deno.test("whatever is in the way of a batch for a while is waited out", async (t) => {
  const codes: [code: string, status: number, times: number][] = [
    ["TaskConflict", 400, 6],
    ["IncorrcetRouteEntryStatus", 400, 3],
    ["Throttling.User", 400, 3],
    ["OperationFailed.DistibuteLock", 400, 3],
    ["SystemBusy", 400, 2],
  ];
  for (const [code, status, times] of codes) {
    await t.step(code, async () => {
      await using simulator = await startWithHosts(60);
      await using cluster = openCluster(simulator, fastClock(200));
      simulator.cloud.addFault({
        match: { action: "CreateRouteEntries" },
        times,
        effect: { kind: "error", status, code },
      });
      const claims = claimsOf(0, 60);
      assert.deepEqual((await cluster.round(claims)).problems, []);
      assert.deepEqual(entriesOf(simulator), wanted(claims));
      assert.deepEqual(written(simulator), { CreateRouteEntries: 2 + times });
    });
  }
});

Deno.test("a conflict that does not end fails the round in minutes, with few calls", async () => {
  await using simulator = await startWithHosts(120);
  const clock = fastClock(400);
  await using cluster = openCluster(simulator, clock);
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntries" },
    effect: { kind: "error", status: 400, code: "TaskConflict" },
  });
  const startedAt = clock.now();
  const { problems } = await cluster.round(claimsOf(0, 120));
  assert((clock.now() - startedAt) / 60_000 < 6, "it lets the next round see what is new");
  assert.equal(problems.length, 101, "100 are kept, and a line for the others");
  assert.match(problems[0]!, /given up after \d min: .*TaskConflict/);
  assert(count(simulator, "CreateRouteEntries") < 30);
});

Deno.test("a list that lags causes no second write", async () => {
  await using simulator = await startWithHosts(60, { listLagMs: 400 });
  await using cluster = openCluster(simulator, { graceMs: 0 });
  const claims = claimsOf(0, 60);
  assert.deepEqual((await cluster.round(claims)).problems, []);
  assert.deepEqual(written(simulator), { CreateRouteEntries: 2 });
  await cluster.round(claims.slice(0, 10));
  assert.deepEqual(entriesOf(simulator), wanted(claims.slice(0, 10)));
  assert.deepEqual(written(simulator), { CreateRouteEntries: 2, DeleteRouteEntries: 1 });
});

Deno.test("a list that lags after a lost answer causes no storm of single writes", async () => {
  await using simulator = await startWithHosts(50, { listLagMs: 300 });
  await using cluster = openCluster(simulator);
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntries" },
    times: 1,
    effect: { kind: "performThenError", status: 500, code: "InternalError" },
  });
  const claims = claimsOf(0, 50);
  assert.deepEqual((await cluster.round(claims)).problems, []);
  assert.deepEqual(entriesOf(simulator), wanted(claims));
  assert.deepEqual(written(simulator), { CreateRouteEntries: 2 }, "one of them in vain");
});

Deno.test("where batches are denied, entries are written one by one, and it is told once", async (t) => {
  for (const code of ["Forbidden.RAM", "InvalidApi.NotFound"]) {
    await t.step(code, async () => {
      await using simulator = await startWithHosts(8);
      simulator.cloud.addFault({
        match: { action: ["CreateRouteEntries", "DeleteRouteEntries"] },
        effect: { kind: "error", status: code === "Forbidden.RAM" ? 403 : 404, code },
      });
      await using cluster = openCluster(simulator, { graceMs: 0 });
      const claims = claimsOf(0, 8);
      assert.deepEqual((await cluster.round(claims.slice(0, 4))).problems, []);
      assert.deepEqual((await cluster.round(claims)).problems, []);
      assert.deepEqual(entriesOf(simulator), wanted(claims));
      assert.deepEqual(written(simulator), { CreateRouteEntries: 1, CreateRouteEntry: 8 });
      await cluster.round([]);
      assert.deepEqual(entriesOf(simulator), []);
      assert.equal(count(simulator, "DeleteRouteEntry"), 8);
      const warnings = cluster.log.lines.filter((line) => line.startsWith("warn: "));
      assert.equal(warnings.length, 2, cluster.log.text);
      assert.match(warnings[0]!, /vpc:CreateRouteEntries.*one by one|one by one.*vpc:CreateRoute/);
      assert.match(warnings[1]!, /vpc:DeleteRouteEntries/);
    });
  }
});

Deno.test("a table that fills up in the middle of a batch takes what it can", async () => {
  await using simulator = await startWithHosts(130);
  simulator.cloud.setQuota(5 + 70, { routeTableId: systemTableId });
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 130);
  const report = await cluster.round(claims);
  assert.deepEqual(entriesOf(simulator), wanted(claims.slice(0, 70)));
  assert.equal(cluster.routes.view.failures.size, 60);
  assert.match(report.problems[0]!, /route table is full \(75 of 75\); raise the quota/);
  assert.deepEqual(written(simulator), { CreateRouteEntries: 2 }, "the third is not tried");
  const view = cluster.routes.view.tables.get(systemTableId)!;
  assert.equal(view.used, 75);
  assert.equal(view.full?.used, 75);

  let since = simulator.requests.length;
  await cluster.round(claims);
  assert.deepEqual(written(simulator, since), { CreateRouteEntry: 1 }, "one asks for all");
  assert.equal(cluster.routes.view.failures.size, 60);

  simulator.cloud.setQuota(1_000, { routeTableId: systemTableId });
  since = simulator.requests.length;
  assert((await cluster.round(claims)).inSync);
  assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims)));
  assert.deepEqual(written(simulator, since), { CreateRouteEntry: 1, CreateRouteEntries: 2 });
  assert.equal(cluster.routes.view.tables.get(systemTableId)?.full, undefined);
  assert.equal(cluster.routes.view.failures.size, 0);
});

Deno.test("a whole call refused for want of room still fills the table", async () => {
  // How the service refuses a batch that does not fit is not documented.
  for (const room of [0, 1, 37]) {
    await using simulator = await startWithHosts(50);
    simulator.cloud.setBehaviour({ batchQuota: "call" });
    simulator.cloud.setQuota(5 + room, { routeTableId: systemTableId });
    await using cluster = openCluster(simulator);
    await cluster.round(claimsOf(0, 50));
    assert.equal(entriesOf(simulator).length, room);
    assert.equal(cluster.routes.view.failures.size, 50 - room);
    assert.equal(cluster.routes.view.tables.get(systemTableId)?.full?.used, 5 + room);
    assert(writes(simulator.requests).length <= 14, `${writes(simulator.requests).length} writes`);
  }
});

/** The service refuses single entries of a create, with codes that `refuse` gives. */
function refusing(refuse: (subnet: string, call: number) => string | undefined): Tamper {
  let number = 0;
  return async (action, parameters, forward) => {
    if (action !== "CreateRouteEntries") return await forward(parameters);
    number++;
    const records = parameters["RouteEntries"] as readonly Record<string, string>[];
    const codes = new Map(records.map((each) => [each, refuse(each["DstCidrBlock"]!, number)]));
    const kept = records.filter((each) => codes.get(each) === undefined);
    const answer = kept.length === 0 ? {} : await forward({ ...parameters, RouteEntries: kept });
    const failed = records.filter((each) => codes.get(each) !== undefined).map((each) => ({
      DstCidrBlock: each["DstCidrBlock"],
      NextHop: each["NextHop"],
      FailedCode: codes.get(each),
      FailedMessage: "made up",
    }));
    const others = (answer["FailedRouteEntries"] ?? []) as unknown[];
    return {
      FailedCount: failed.length + others.length,
      FailedRouteEntries: [...failed, ...others],
    };
  };
}

Deno.test("whatever code an entry is refused with, the others are not held up", async (t) => {
  const claims = claimsOf(0, 60);
  const odd = subnetOf(7);
  const others = wanted(claims.filter((_, n) => n !== 7));
  await t.step("one that passes: it goes again, with whatever else was refused so", async () => {
    await using simulator = await startWithHosts(60);
    await using cluster = openCluster(simulator, {
      tamper: refusing((subnet, call) =>
        call < 3 && /\.[12]\.\d+\/26$/.test(subnet) ? "TaskConflict" : undefined
      ),
    });
    assert.deepEqual((await cluster.round(claims)).problems, []);
    assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims)));
    assert.equal(count(simulator, "CreateRouteEntry"), 0);
  });
  await t.step("one that stays, or nobody knows", async () => {
    for (const code of ["InvalidNextHop.NotFound", "VPC_UNHEARD_OF"]) {
      await using simulator = await startWithHosts(60);
      await using cluster = openCluster(simulator, {
        tamper: refusing((subnet) => subnet === odd ? code : undefined),
      });
      const { problems } = await cluster.round(claims);
      assert.equal(problems.length, 1);
      assert.match(problems[0]!, new RegExp(`${odd}.*${code}`));
      assert.deepEqual(entriesOf(simulator), others);
      assert.deepEqual(written(simulator), { CreateRouteEntries: 2 });
    }
  });
  await t.step("a duplicate that is none: it is created by itself", async () => {
    await using simulator = await startWithHosts(60);
    const code = "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE";
    await using cluster = openCluster(simulator, {
      tamper: refusing((subnet) => subnet === odd ? code : undefined),
    });
    assert.deepEqual((await cluster.round(claims)).problems, []);
    assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims)));
    assert.deepEqual(written(simulator), { CreateRouteEntries: 2, CreateRouteEntry: 1 });
  });
});

Deno.test("an answer that makes no sense is no answer: the table is looked at", async (t) => {
  const nonsense: Record<string, unknown>[] = [
    { FailedCount: 1, FailedRouteEntries: [] },
    { FailedRouteEntries: [{ DstCidrBlock: "10.99.0.0/16", NextHop: "i-0", FailedCode: "X" }] },
    { FailedRouteEntries: [{ DstCidrBlock: subnetOf(3), NextHop: "i-nat", FailedCode: "X" }] },
  ];
  for (const answer of nonsense) {
    await t.step(JSON.stringify(answer), async () => {
      await using simulator = await startWithHosts(10);
      await using cluster = openCluster(simulator, {
        tamper: async (action, parameters, forward) => {
          const right = await forward(parameters);
          return action === "CreateRouteEntries" ? answer : right;
        },
      });
      const claims = claimsOf(0, 10);
      assert.deepEqual((await cluster.round(claims)).problems, []);
      assert.deepEqual(entriesOf(simulator), wanted(claims));
      assert.deepEqual(written(simulator), { CreateRouteEntries: 1 });
    });
  }
});

Deno.test("limits of the account and other people's writes slow a batch down, no more", async () => {
  const clock = fastClock(200);
  await using simulator = await startWithHosts(200, {
    delays: { minMs: 1_000, maxMs: 3_000 },
    lockAfterWriteMs: 2_000,
    conflictProbability: 0.3,
    throttle: { limits: { CreateRouteEntries: 3, DescribeRouteEntryList: 12 } },
  }, clock.now);
  let changes = 0;
  await using cluster = openCluster(simulator, { ...clock, onView: () => changes++ });
  const claims = claimsOf(0, 200);
  for (let rounds = 0; !(await cluster.round(claims)).inSync; rounds++) {
    assert(rounds < 5, cluster.log.text);
  }
  assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims)));
  const performed = writes(simulator.requests).filter((each) => each.performed);
  assert.deepEqual(performed.map(({ action }) => action), Array(4).fill("CreateRouteEntries"));
  assert(simulator.requests.length < 120, `${simulator.requests.length} calls`);
  assert(changes > 0);
});

Deno.test("two clusters live in one table, and neither touches the other's or anybody's", async () => {
  await using simulator = await startWithHosts(60);
  const { cloud } = simulator;
  const other = Prefix.parse("10.25.0.0/16");
  await using ours = openCluster(simulator, { graceMs: 0 });
  await using theirs = openCluster(simulator, { graceMs: 0, network: other });
  const hop = (id: string) => [{ type: "Instance" as const, id }];
  // Upstream hosts write no name; an operator writes what they like, even our name.
  cloud.addRoute(systemTableId, { destination: "10.24.200.0/24", nextHops: hop("i-7") });
  cloud.addRoute(systemTableId, {
    destination: "10.24.201.0/24",
    nextHops: hop("i-nat"),
    name: `flanneld/${CLUSTER_ID}/10.24.0.0/16/i-7`,
  });
  cloud.addRoute(systemTableId, {
    destination: "10.24.202.0/24",
    nextHops: hop("i-7"),
    name: "by hand",
  });
  const before = JSON.stringify(cloud.routeEntries());
  const claims = claimsOf(0, 60);
  const otherClaims = claimsOf(0, 60, other);
  for (let n = 0; n < 2; n++) {
    const reports = await Promise.all([ours.round(claims), theirs.round(otherClaims)]);
    assert.deepEqual(reports.flatMap(({ problems }) => problems), []);
  }
  assert.deepEqual(sorted(entriesOf(simulator, { network: other })), sorted(wanted(otherClaims)));
  await ours.round([]);
  assert.deepEqual(sorted(entriesOf(simulator, { network: other })), sorted(wanted(otherClaims)));
  await theirs.round([]);
  assert.equal(JSON.stringify(cloud.routeEntries()), before);
});

Deno.test("an orphan goes after its grace, once; what is claimed again in time stays", async () => {
  await using simulator = await startWithHosts(60);
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  const clock = { now, delay: () => delay(2, aborts()) };
  await using cluster = openCluster(simulator, { ...clock, graceMs: 600_000 });
  const claims = claimsOf(0, 60);
  await cluster.round(claims);
  const since = simulator.requests.length;
  const fewer = claims.slice(0, 50);
  assert((await cluster.round(fewer)).inSync);
  assert.equal(cluster.routes.orphans.list().length, 10);
  hurryMs += 590_000;
  await cluster.round(fewer);
  await cluster.round(claims.slice(0, 55));
  assert.equal(cluster.routes.orphans.list().length, 5, "five hosts are back");
  assert.deepEqual(written(simulator, since), {});
  // A new writer takes over in the middle of the grace.
  await using next = openCluster(simulator, { ...clock, graceMs: 600_000 });
  next.routes.orphans.seed(cluster.routes.orphans.list());
  await next.round(claims.slice(0, 55));
  hurryMs += 151_000;
  await next.round(fewer);
  assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(claims.slice(0, 55))));
  assert.deepEqual(written(simulator, since), { DeleteRouteEntries: 1 });
  assert.equal(next.routes.orphans.list().length, 5, "whose time has begun anew");
  hurryMs += 610_000;
  await next.round(fewer);
  await next.round(fewer);
  assert.deepEqual(entriesOf(simulator), wanted(fewer));
  assert.deepEqual(written(simulator, since), { DeleteRouteEntries: 2 });
  assert.deepEqual(next.routes.orphans.list(), []);
});

Deno.test("a subnet that moved is re-pointed, and a host that moved leaves nothing", async () => {
  await using simulator = await startWithHosts(10);
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 4);
  await cluster.round(claims);
  const since = simulator.requests.length;
  // Host 9 has the subnet of host 0 now, and host 1 has another one.
  const moved = [
    { ...claims[0]!, instanceId: "i-9" },
    { ...claims[1]!, destination: Prefix.parse(subnetOf(20)) },
    ...claims.slice(2),
  ];
  const { problems } = await cluster.round(moved);
  assert.deepEqual(problems, []);
  assert.deepEqual(sorted(entriesOf(simulator)), sorted(wanted(moved)));
  assert.deepEqual(written(simulator, since), {
    CreateRouteEntry: 1,
    ModifyRouteEntry: 1,
    DeleteRouteEntry: 1,
  });
});

Deno.test("entries that upstream left are adopted as they are, and named by and by", async () => {
  await using simulator = await startWithHosts(12);
  const claims = claimsOf(0, 12);
  for (const { destination, instanceId } of claims) {
    simulator.cloud.addRoute(systemTableId, {
      destination: destination.toString(),
      nextHops: [{ type: "Instance", id: instanceId }],
    });
  }
  await using cluster = openCluster(simulator);
  const named = () => entriesOf(simulator).filter((line) => !line.endsWith('""')).length;
  for (const expected of [5, 10, 12]) {
    assert.deepEqual((await cluster.round(claims)).problems, []);
    assert.equal(named(), expected);
  }
  assert.deepEqual(written(simulator), { ModifyRouteEntry: 12 });
});

Deno.test("a fence that rejects between two batches ends all writing at once", async () => {
  await using simulator = await startWithHosts(150);
  const overtaken = new Error("The term is over");
  let passes = 1;
  await using cluster = openCluster(simulator, {
    fence: () => passes-- > 0 ? Promise.resolve() : Promise.reject(overtaken),
  });
  const claims = claimsOf(0, 150);
  const { problems } = await cluster.round(claims, {
    routeTableIds: [systemTableId, customTableId],
  });
  assert.deepEqual(problems, ["The term is over"]);
  assert.deepEqual(written(simulator), { CreateRouteEntries: 1 });
  const all = [...entriesOf(simulator), ...entriesOf(simulator, { tableId: customTableId })];
  assert.equal(all.length, 50);
});

Deno.test("leases that change while the fence is asked count", async () => {
  await using simulator = await startWithHosts(10);
  const claims = claimsOf(0, 10);
  const scope = { routeTableIds: [systemTableId], otherTableIds: [] };
  await using cluster = openCluster(simulator, {
    fence: () => {
      cluster.routes.setScope({ ...scope, claims: claims.slice(0, 6) });
      return Promise.resolve();
    },
  });
  assert.equal((await cluster.round(claims)).problems.length, 4);
  assert.deepEqual(entriesOf(simulator), wanted(claims.slice(0, 6)));
});

Deno.test("what was listed long ago is read again before any of it is deleted", async () => {
  await using simulator = await startWithHosts(10);
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  await using cluster = openCluster(simulator, {
    now,
    delay: () => delay(2, aborts()),
    graceMs: 0,
  });
  const claims = claimsOf(0, 10);
  await cluster.round(claims);
  cluster.routes.setScope({
    routeTableIds: [systemTableId],
    otherTableIds: [],
    claims: claims.slice(0, 5),
  });
  const listed = await cluster.routes.list(aborts());
  const removals = listed.filter((entry) => cluster.routes.kind.owns(entry)).slice(5)
    .map((actual) => ({ op: "remove" as const, actual }));
  assert.equal(removals.length, 5);
  // The operator takes one of them over meanwhile.
  simulator.cloud.repointRoute(
    { routeTableId: systemTableId, destination: subnetOf(8) },
    EXAMPLE.foreignInstanceId,
  );
  hurryMs += 120_000;
  assert.deepEqual(await cluster.routes.apply(removals, aborts()), []);
  assert.deepEqual(entriesOf(simulator), [
    ...wanted(claims.slice(0, 5)),
    `${subnetOf(8)} i-nat "flanneld/${CLUSTER_ID}/10.24.0.0/16/i-8"`,
  ]);
});

Deno.test("the fence is asked before every write, also of single entries", async () => {
  await using simulator = await startWithHosts(4);
  let asked = 0;
  await using cluster = openCluster(simulator, {
    graceMs: 0,
    fence: () => {
      asked++;
      return Promise.resolve();
    },
  });
  const claims = claimsOf(0, 3);
  await cluster.round(claims);
  await cluster.round([{ ...claims[0]!, instanceId: "i-3" }]);
  await cluster.round([]);
  assert.deepEqual(written(simulator), {
    CreateRouteEntries: 1,
    ModifyRouteEntry: 1,
    DeleteRouteEntries: 1,
    DeleteRouteEntry: 1,
  });
  assert.equal(asked, 4);
});

Deno.test("tables of one VPC take turns, and one that fails does not hold up the others", async () => {
  await using simulator = await startWithHosts(100, { delays: { minMs: 10, maxMs: 60 } });
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 100);
  const routeTableIds = [systemTableId, customTableId, "vtb-spare-3"];
  simulator.cloud.setQuota(20, { routeTableId: "vtb-spare-3" });
  const { problems } = await cluster.round(claims, { routeTableIds });
  assert.equal(problems.length, 80, problems[0]);
  for (const tableId of routeTableIds.slice(0, 2)) {
    assert.deepEqual(entriesOf(simulator, { tableId }), wanted(claims));
  }
  assert.deepEqual(written(simulator), { CreateRouteEntries: 5 }, "no conflict with ourselves");
  const fault = simulator.cloud.addFault({
    match: { action: "DescribeRouteEntryList" },
    times: 1,
    effect: { kind: "error", status: 400, code: "InvalidRouteTable.NotFound" },
  });
  // The first table cannot be read: it is left alone, and the view says so.
  const since = simulator.requests.length;
  await cluster.routes.list(aborts());
  assert.match(
    cluster.routes.view.tables.get(systemTableId)?.error ?? "",
    /InvalidRouteTable.NotFound/,
  );
  assert.deepEqual(written(simulator, since), {});
  simulator.cloud.removeFault(fault);
});

Deno.test("a table that cannot be read is never written blindly", async () => {
  await using simulator = await startWithHosts(60);
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 60);
  const routeTableIds = [systemTableId, customTableId];
  await cluster.round(claims, { routeTableIds });
  const since = simulator.requests.length;
  simulator.cloud.addFault({
    match: { action: "DescribeRouteEntryList" },
    times: 1,
    effect: { kind: "error", status: 400, code: "Throttling.User" },
  });
  await cluster.round(claims, { routeTableIds });
  assert.deepEqual(written(simulator, since), {});
  assert.equal(cluster.routes.view.failures.size, 0);
});

Deno.test("in a table that is no longer used, entries of claimants stay, and orphans go after the grace", async () => {
  await using simulator = await startWithHosts(6);
  let hurryMs = 0;
  const now = () => Date.now() + hurryMs;
  await using cluster = openCluster(simulator, { now, delay: () => delay(2, aborts()) });
  const claims = claimsOf(0, 6);
  await cluster.round(claims, { routeTableIds: [systemTableId, customTableId] });
  const scope = { otherTableIds: [customTableId, "vtb-spare-3"] };
  const fewer = claims.slice(0, 4);
  hurryMs += 10 * 60_000;
  for (let n = 0; n < 4; n++) await cluster.round(fewer, scope);
  assert.equal(entriesOf(simulator, { tableId: customTableId }).length, 6);
  hurryMs += 11 * 60_000;
  for (let n = 0; n < 4; n++) await cluster.round(fewer, scope);
  // Hosts whose leases this store does not know may look routes up there.
  assert.deepEqual(entriesOf(simulator, { tableId: customTableId }), wanted(fewer));
  assert.deepEqual(entriesOf(simulator), wanted(fewer));
  assert.equal(count(simulator, "DeleteRouteEntries"), 2);
});

Deno.test("a claim that ends while its batch waits is not written", async () => {
  await using simulator = await startWithHosts(10);
  await using cluster = openCluster(simulator);
  const claims = claimsOf(0, 10);
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntries" },
    times: 1,
    effect: { kind: "error", status: 400, code: "TaskConflict" },
  });
  const running = cluster.round(claims);
  while (count(simulator, "CreateRouteEntries") === 0) await delay(1, aborts());
  cluster.routes.setScope({
    routeTableIds: [systemTableId],
    otherTableIds: [],
    claims: claims.slice(0, 7),
  });
  const { problems } = await running;
  assert.deepEqual(entriesOf(simulator), wanted(claims.slice(0, 7)));
  assert.equal(problems.length, 3);
  assert.match(problems[0]!, /i-7 does not hold the lease of 10\.24\.1\.192\/26 any more/);
});

Deno.test("a lease that comes back while its entry is to be deleted keeps it", async () => {
  await using simulator = await startWithHosts(10);
  await using cluster = openCluster(simulator, { graceMs: 0 });
  const claims = claimsOf(0, 10);
  await cluster.round(claims);
  simulator.cloud.addFault({
    match: { action: "DeleteRouteEntries" },
    times: 1,
    effect: { kind: "error", status: 400, code: "TaskConflict" },
  });
  const running = cluster.round(claims.slice(0, 5));
  while (count(simulator, "DeleteRouteEntries") === 0) await delay(1, aborts());
  cluster.routes.setScope({
    routeTableIds: [systemTableId],
    otherTableIds: [],
    claims: claims.slice(0, 8),
  });
  await running;
  assert.deepEqual(entriesOf(simulator), wanted(claims.slice(0, 8)));
});

Deno.test("abort ends a waiting batch at once", async () => {
  await using simulator = await startWithHosts(10);
  await using cluster = openCluster(simulator);
  simulator.cloud.addFault({
    match: { action: "CreateRouteEntries" },
    effect: { kind: "error", status: 400, code: "TaskConflict" },
  });
  const controller = new AbortController();
  const running = cluster.round(claimsOf(0, 10), { signal: controller.signal });
  while (!cluster.log.text.includes("Waiting to create 10 routes")) await delay(1, aborts());
  controller.abort(new Error("going down"));
  await assert.rejects(running, /going down/);
});

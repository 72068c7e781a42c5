import assert from "node:assert/strict";
import { EXAMPLE } from "./example.ts";
import { type Body, codeOf, failureOf, TestBench } from "./testing.ts";

const CONFLICTS = ["TaskConflict", "IncorrectRouteEntryStatus", "IncorrcetRouteEntryStatus"];

Deno.test("the example cloud holds what a user's does (system and foreign routes)", async () => {
  await using bench = await TestBench.start();
  const entries = await bench.list();
  const hops = (entry: Body) =>
    entry.NextHops.NextHop.map((hop: Body) => hop.NextHopType.toLowerCase());
  const of = (cidr: string) => entries.find((each) => each.DestinationCidrBlock === cidr);
  for (const cidr of ["192.168.1.0/24", "192.168.2.0/24", "100.64.0.0/10"]) {
    assert.deepEqual([of(cidr).Type, hops(of(cidr))], ["System", ["local"]]);
  }
  assert.deepEqual(hops(of("0.0.0.0/0")), ["instance"]);
  assert.deepEqual(hops(of("10.98.0.0/16")), ["routerinterface", "routerinterface"]);
  assert.equal(of("10.97.0.0/16").ServiceType, "TR");
  assert.equal(of("10.96.0.0/16").Type, "CEN");
  const attributes = (id: string) => bench.vpc("DescribeVSwitchAttributes", { VSwitchId: id });
  const [first, second] = await Promise.all(EXAMPLE.vSwitchIds.map(attributes));
  assert.notEqual(first.ZoneId, second.ZoneId);
  assert.deepEqual(
    [first.RouteTable.RouteTableId, second.RouteTable.RouteTableId],
    [EXAMPLE.systemTableId, EXAMPLE.customTableId],
  );
  const vpc = await bench.vpc("DescribeVpcAttribute", { VpcId: EXAMPLE.vpcId });
  assert.deepEqual(vpc.SecondaryCidrBlocks.SecondaryCidrBlock, ["172.31.0.0/16"]);
});

Deno.test("CreateRouteEntry() refuses destinations by the documented rules", async () => {
  await using bench = await TestBench.start();
  const cases = {
    "10.24.1.0/33": "InvalidCidrBlock.Malformed",
    "10.24.1.7/24": "InvalidCidrBlock.Malformed",
    "192.168.1.0/24": "InvalidCidrBlock",
    "192.168.1.128/25": "InvalidCidrBlock",
    "192.168.2.9": "InvalidCidrBlock",
    "224.0.0.0/8": "InvalidCidrBlock",
    "100.64.0.0/10": "InvalidDestinationCidrBlock",
    "100.100.1.0/24": "InvalidDestinationCidrBlock",
    "2408:4005:3c5:6e01::/80": "OperationUnsupported.DestinationCidrBlockOverlapWithVSwitch",
    "10.96.0.0/16": "RouteConflict.AlreadyExist",
  };
  for (const [cidr, code] of Object.entries(cases)) {
    assert.equal(await codeOf(bench.create(cidr)), code, cidr);
  }
  // Around a vSwitch is allowed, and a bare address is a /32.
  await bench.create("192.168.0.0/22");
  bench.settle();
  await bench.create("10.1.2.3");
  assert.ok((await bench.list()).some((each) => each.DestinationCidrBlock === "10.1.2.3/32"));
});

Deno.test("CreateRouteEntry() refuses hops that are not in this VPC", async () => {
  await using bench = await TestBench.start();
  const create = (params: object) => codeOf(bench.create("10.24.1.0/24", params));
  assert.equal(await create({ NextHopId: "i-none" }), "InvalidInstanId.NotFound");
  assert.equal(
    await create({ NextHopId: EXAMPLE.otherInstanceId }),
    "OperationFailed.InstanceDismatchCurrentVpc",
  );
  assert.equal(
    await create({ NextHopType: "NetworkInterface", NextHopId: "eni-none" }),
    "InvalidNextHopId.NotFound",
  );
  assert.equal(await create({ NextHopType: "Carrier" }), "IllegalParam.NextHopType");
  assert.equal(await create({ RouteEntryName: "http://x" }), "IllegalParam.RouteEntryName");
  assert.equal(await create({ RouteTableId: "vtb-none" }), "InvalidRouteTableId.NotFound");
  assert.equal(
    await create({ RouteTableId: EXAMPLE.gatewayTableId }),
    "OperationDenied.RouteTableTypeNotPermitted",
  );
  bench.cloud.setInstance(EXAMPLE.instanceIds[0], { status: "Starting" });
  assert.equal(await create({}), "IncorrectInstanceStatus");
});

Deno.test("CreateRouteEntry() takes IPv6 only where hop and table have it", async () => {
  await using bench = await TestBench.start();
  const cidr = "fd00:24:1::/64";
  const custom = { RouteTableId: EXAMPLE.customTableId };
  assert.equal(await codeOf(bench.create(cidr, custom)), "OperationDenied.Ipv6EntryOnCustomTable");
  const bare = { NextHopId: EXAMPLE.instanceIds[1] };
  assert.equal(await codeOf(bench.create(cidr, bare)), "OperationFailed.NotSupportIPV6");
  await bench.create(cidr);
  const [entry] = await bench.list({ IpVersion: "ipv6", RouteEntryType: "Custom" });
  assert.equal(entry.DestinationCidrBlock, cidr);
});

Deno.test("the quota counts custom entries of one table", async () => {
  await using bench = await TestBench.start();
  const custom = bench.cloud.routes.customCount(EXAMPLE.systemTableId);
  bench.cloud.setQuota(custom + 1, { routeTableId: EXAMPLE.systemTableId });
  await bench.create("10.24.1.0/24");
  bench.settle();
  const failure = await failureOf(bench.create("10.24.2.0/24"));
  assert.deepEqual([failure.status, failure.code], [400, "QuotaExceeded"]);
  await bench.create("10.24.2.0/24", { RouteTableId: EXAMPLE.customTableId });
  const summary = await bench.vpc("GetVpcRouteEntrySummary", {
    VpcId: EXAMPLE.vpcId,
    RouteEntryType: "custom",
    RouteTableId: EXAMPLE.systemTableId,
  });
  const count = summary.RouteEntrySummarys[0].EntrySummarys[0].Count;
  assert.equal(count, custom + 1);
});

Deno.test("duplicates are reported in three spellings in turn", async () => {
  await using bench = await TestBench.start();
  await bench.create("10.24.1.0/24");
  bench.settle();
  const failures = [];
  for (let i = 0; i < 3; i++) failures.push(await failureOf(bench.create("10.24.1.0/24")));
  assert.deepEqual(
    failures.map((each) => each.code),
    ["InvalidCIDRBlock.Duplicate", "RouterEntryConflict.Duplicated", "InvalidCidrBlock"],
  );
  assert.match(failures[2]!.message, /^Specified CIDR block is already exists/);
});

Deno.test("entries pass Pending, Modifying and Deleting, each for a while", async () => {
  await using bench = await TestBench.start();
  const status = async () =>
    (await bench.list({ DestinationCidrBlock: "10.24.1.0/24" })).map((each) => [
      each.Status,
      each.NextHops.NextHop[0].NextHopId,
    ]);
  const { RouteEntryId } = await bench.create("10.24.1.0/24");
  assert.deepEqual(await status(), [["Pending", "i-node-1"]]);
  bench.clock.advance(999);
  assert.deepEqual(await status(), [["Pending", "i-node-1"]]);
  bench.clock.advance(1);
  assert.deepEqual(await status(), [["Available", "i-node-1"]]);
  await bench.vpc("ModifyRouteEntry", { RouteEntryId, NewNextHopId: "i-node-2" });
  assert.deepEqual(await status(), [["Modifying", "i-node-1"]]);
  bench.clock.advance(1000);
  assert.deepEqual(await status(), [["Available", "i-node-2"]]);
  await bench.vpc("DeleteRouteEntry", { RouteEntryId });
  assert.deepEqual(await status(), [["Deleting", "i-node-2"]]);
  bench.clock.advance(1000);
  assert.deepEqual(await status(), []);
});

Deno.test("while one entry is not settled, every table of the VPC refuses writes", async () => {
  await using bench = await TestBench.start();
  const { RouteEntryId } = await bench.create("10.24.1.0/24");
  const seen = new Set<string>();
  const elsewhere = { RouteTableId: EXAMPLE.customTableId };
  for (let i = 0; i < 12; i++) {
    seen.add(await codeOf(bench.create("10.24.2.0/24", elsewhere)));
    seen.add(await codeOf(bench.vpc("DeleteRouteEntry", { RouteEntryId })));
    seen.add(await codeOf(bench.vpc("ModifyRouteEntry", { RouteEntryId, RouteEntryName: "x" })));
  }
  assert.deepEqual([...seen].toSorted(), CONFLICTS.toSorted());
  const other = {
    RegionId: "cn-shanghai",
    RouteTableId: "vtb-other",
    NextHopId: EXAMPLE.otherInstanceId,
  };
  await bench.create("172.20.0.0/16", other);
  bench.clock.advance(1000);
  await bench.create("10.24.2.0/24", elsewhere);
});

Deno.test("conflicts also come by chance, and a lock can outlast the write", async () => {
  await using bench = await TestBench.start({ behaviour: { lockAfterWriteMs: 5000 } });
  await bench.create("10.24.1.0/24");
  bench.clock.advance(5999);
  assert.ok(CONFLICTS.includes(await codeOf(bench.create("10.24.2.0/24"))));
  bench.clock.advance(1);
  bench.cloud.setBehaviour({ conflictProbability: 1 });
  assert.ok(CONFLICTS.includes(await codeOf(bench.create("10.24.2.0/24"))));
  bench.cloud.setBehaviour({ conflictProbability: 0 });
  await bench.create("10.24.2.0/24");
});

Deno.test("DeleteRouteEntry() takes an id, or table with destination and hop", async () => {
  await using bench = await TestBench.start();
  const remove = (params: object) => bench.vpc("DeleteRouteEntry", params);
  const { RouteEntryId } = await bench.create("10.24.1.0/24");
  bench.settle();
  const place = { RouteTableId: EXAMPLE.systemTableId, DestinationCidrBlock: "10.24.1.0/24" };
  assert.equal(
    await codeOf(remove({ RouteEntryId, ...place })),
    "ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock",
  );
  const wrongHop = { ...place, NextHopId: "i-node-2" };
  assert.equal(await codeOf(remove(wrongHop)), "InvalidRouteEntry.NotFound");
  await remove({ ...place, NextHopId: "i-node-1" });
  bench.settle();
  assert.equal(await codeOf(remove({ RouteEntryId })), "InvalidRouteEntry.NotFound");
});

Deno.test("routes of the system and of other services cannot be written", async () => {
  await using bench = await TestBench.start();
  const at = (cidr: string) => ({
    RouteTableId: EXAMPLE.systemTableId,
    DestinationCidrBlock: cidr,
  });
  const system = await failureOf(bench.vpc("DeleteRouteEntry", at("192.168.1.0/24")));
  assert.equal(system.code, "OperationDenied");
  assert.equal(
    await codeOf(bench.vpc("DeleteRouteEntry", at("10.97.0.0/16"))),
    "OperationDenied.DeleteManagedRouteEntry",
  );
  assert.equal(
    await codeOf(
      bench.vpc("ModifyRouteEntry", { ...at("10.96.0.0/16"), NewNextHopId: "i-node-1" }),
    ),
    "OperationDenied",
  );
  const unknown = { RouteTableId: "vtb-none", DestinationCidrBlock: "10.24.1.0/24" };
  const failure = await failureOf(bench.vpc("DeleteRouteEntry", unknown));
  assert.deepEqual([failure.status, failure.code], [404, "InvalidRouteTableId.NotFound"]);
});

Deno.test("an ECMP route is created and deleted with all of its hops", async () => {
  await using bench = await TestBench.start();
  const hops = ["ri-1", "ri-2"].map((id) => ({ NextHopId: id, NextHopType: "RouterInterface" }));
  const { RouteEntryId } = await bench.vpc("CreateRouteEntry", {
    RouteTableId: EXAMPLE.systemTableId,
    DestinationCidrBlock: "10.50.0.0/16",
    NextHopList: hops.map((hop) => ({ ...hop, Weight: 100 })),
  });
  bench.settle();
  const place = { RouteTableId: EXAMPLE.systemTableId, DestinationCidrBlock: "10.50.0.0/16" };
  const partial = bench.vpc("DeleteRouteEntry", { ...place, NextHopId: "ri-1" });
  assert.equal(await codeOf(partial), "InvalidRouteEntry.NotFound");
  await bench.vpc("DeleteRouteEntry", { ...place, NextHopList: hops });
  assert.equal(bench.cloud.routes.find(RouteEntryId)?.status, "Deleting");
});

Deno.test("a dry run checks and does nothing", async () => {
  await using bench = await TestBench.start();
  const failure = await failureOf(bench.create("10.24.1.0/24", { DryRun: true }));
  assert.deepEqual([failure.status, failure.code], [400, "DryRunOperation"]);
  const bad = bench.create("192.168.1.0/24", { DryRun: true });
  assert.equal(await codeOf(bad), "InvalidCidrBlock");
  bench.cloud.denyAction("vpc:CreateRouteEntry");
  const denied = bench.create("10.24.1.0/24", { DryRun: true });
  assert.equal(await codeOf(denied), "Forbidden.RAM");
  assert.equal(bench.cloud.routes.at(EXAMPLE.systemTableId, "10.24.1.0/24"), undefined);
});

Deno.test("a client token makes a repeated create one create", async () => {
  await using bench = await TestBench.start({ behaviour: { tokenProcessingMs: 500 } });
  const token = { ClientToken: "one-logical-create" };
  const first = await bench.create("10.24.1.0/24", token);
  assert.equal(await codeOf(bench.create("10.24.1.0/24", token)), "LastTokenProcessing");
  bench.clock.advance(500);
  const again = await bench.create("10.24.1.0/24", token);
  assert.equal(again.RouteEntryId, first.RouteEntryId);
  assert.notEqual(again.RequestId, first.RequestId);
  assert.equal(
    await codeOf(bench.create("10.24.2.0/24", token)),
    "IdempotentParameterMismatch",
  );
  assert.equal(bench.simulator.requests.filter((each) => each.performed).length, 1);
});

Deno.test("a token whose call failed can be used again", async () => {
  await using bench = await TestBench.start({ behaviour: { conflictProbability: 1 } });
  const token = { ClientToken: "retried" };
  assert.ok(CONFLICTS.includes(await codeOf(bench.create("10.24.1.0/24", token))));
  bench.cloud.setBehaviour({ conflictProbability: 0 });
  await bench.create("10.24.1.0/24", token);
});

Deno.test("batches succeed and fail entry by entry, with their own codes", async () => {
  await using bench = await TestBench.start();
  const table = { RouteTableId: EXAMPLE.systemTableId };
  const entry = (cidr: string, hop = "i-node-1") => ({
    ...table,
    DstCidrBlock: cidr,
    NextHop: hop,
  });
  const created = await bench.vpc("CreateRouteEntries", {
    RouteEntries: [
      entry("10.24.1.0/24"),
      entry("10.24.2.0/24"), // the same hop twice
      entry("10.95.1.0/24"),
      entry("192.168.0.0/20"),
      entry("10.24.3.0/24", "i-none"),
    ],
  });
  assert.deepEqual([created.SuccessCount, created.FailedCount], [2, 3]);
  assert.equal(created.RouteEntryIds.length, 2);
  assert.deepEqual(created.FailedRouteEntries.map((each: Body) => each.FailedCode), [
    "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
    "InvalidCidrBlock",
    "InvalidInstanId.NotFound",
  ]);
  const repeated = await bench.vpc("CreateRouteEntries", { RouteEntries: [entry("10.24.1.0/24")] });
  assert.equal(repeated.FailedRouteEntries[0].FailedCode, "VPC_ROUTE_ENTRY_STATUS_ERROR");
  const busy = bench.vpc("CreateRouteEntries", { RouteEntries: [entry("10.24.4.0/24")] });
  assert.ok(CONFLICTS.includes(await codeOf(busy)));
  bench.settle();
  const deleted = await bench.vpc("DeleteRouteEntries", {
    RouteEntries: [
      entry("10.24.1.0/24"),
      { ...table, RouteEntryId: created.RouteEntryIds[1] },
      entry("10.24.9.0/24"),
    ],
  });
  assert.deepEqual([deleted.SuccessCount, deleted.FailedCount], [2, 1]);
  assert.equal(deleted.FailedRouteEntries[0].FailedCode, "VPC_ROUTER_ENTRY_NOT_EXIST");
});

Deno.test("a batch holds at most 50 entries and takes no client token", async () => {
  await using bench = await TestBench.start();
  const entries = (count: number) =>
    Array.from({ length: count }, (_, n) => ({
      RouteTableId: EXAMPLE.systemTableId,
      DstCidrBlock: `10.24.${n}.0/24`,
      NextHop: "i-node-1",
    }));
  const tooMany = bench.vpc("CreateRouteEntries", { RouteEntries: entries(51) });
  assert.equal(await codeOf(tooMany), "IllegalParam.RouteEntries");
  const params = { RouteEntries: entries(50), ClientToken: "ignored" };
  assert.equal((await bench.vpc("CreateRouteEntries", params)).SuccessCount, 50);
  bench.settle();
  const again = await bench.vpc("CreateRouteEntries", params);
  assert.equal(again.FailedCount, 50);
});

Deno.test("a batch that does not fit is refused entry by entry, or as a whole", async () => {
  await using bench = await TestBench.start();
  const used = bench.cloud.routeEntries(EXAMPLE.systemTableId)
    .filter(({ type }) => type === "Custom").length;
  bench.cloud.setQuota(used + 1, { routeTableId: EXAMPLE.systemTableId });
  const create = (...nets: number[]) =>
    bench.vpc("CreateRouteEntries", {
      RouteEntries: nets.map((n) => ({
        RouteTableId: EXAMPLE.systemTableId,
        DstCidrBlock: `10.24.${n}.0/24`,
        NextHop: "i-node-1",
      })),
    });
  bench.cloud.setBehaviour({ batchQuota: "call" });
  assert.equal(await codeOf(create(1, 2)), "QuotaExceeded");
  bench.cloud.setBehaviour({ batchQuota: "entry" });
  const answer = await create(1, 2);
  assert.deepEqual([answer.SuccessCount, answer.FailedCount], [1, 1]);
  assert.equal(answer.FailedRouteEntries[0].FailedCode, "QuotaExceeded");
});

Deno.test("fifty hosts that boot at once all get their route, one write at a time", async () => {
  await using bench = await TestBench.start({ behaviour: { delays: { minMs: 5, maxMs: 10 } } });
  const host = async (n: number) => {
    for (let tries = 0; tries < 500; tries++) {
      try {
        return await bench.create(`10.24.${n}.0/24`);
      } catch (error) {
        if (!CONFLICTS.includes((error as { code: string }).code)) throw error;
        bench.clock.advance(1);
      }
    }
    throw new Error(`host ${n} starved`);
  };
  await Promise.all(Array.from({ length: 50 }, (_, n) => host(n)));
  bench.settle();
  const routes = (await bench.list()).filter((each) => /^10\.24\./.test(each.DestinationCidrBlock));
  assert.equal(routes.filter((each) => each.Status === "Available").length, 50);
  const writes = bench.simulator.requests.filter((each) => each.performed);
  assert.equal(writes.length, 50);
  const gaps = writes.slice(1).map((each, n) => each.startedAtMs - writes[n]!.startedAtMs);
  assert.ok(Math.min(...gaps) >= 5, `writes overlapped: ${gaps}`);
});

import assert from "node:assert/strict";
import { EXAMPLE } from "./example.ts";
import { type Body, codeOf, TestBench } from "./testing.ts";

const cidrs = (entries: Body[]) => entries.map((each) => each.DestinationCidrBlock);

async function withManyRoutes(): Promise<TestBench> {
  const bench = await TestBench.start();
  for (let n = 0; n < 110; n++) {
    bench.cloud.addRoute(EXAMPLE.systemTableId, {
      destination: `10.24.${n}.0/24`,
      nextHops: [{ type: "Instance", id: EXAMPLE.instanceIds[n % 2]! }],
      name: `route-${n}`,
    });
  }
  return bench;
}

Deno.test("DescribeRouteEntryList() gives 10 entries by default and never above 100", async () => {
  await using bench = await withManyRoutes();
  const page = (params: object) =>
    bench.vpc("DescribeRouteEntryList", { RouteTableId: EXAMPLE.systemTableId, ...params });
  const first = await page({});
  assert.equal(first.RouteEntrys.RouteEntry.length, 10);
  assert.notEqual(first.NextToken, "");
  assert.equal((await page({ MaxResult: 500 })).RouteEntrys.RouteEntry.length, 100);
  const all = await bench.list();
  assert.equal(new Set(cidrs(all)).size, first.TotalCount);
  assert.equal(all.length, first.TotalCount);
});

Deno.test("a page shifts when the table changes, and its token expires", async () => {
  await using bench = await withManyRoutes();
  const page = (params: object) =>
    bench.vpc("DescribeRouteEntryList", {
      RouteTableId: EXAMPLE.systemTableId,
      RouteEntryType: "Custom",
      MaxResult: 50,
      ...params,
    });
  const first = await page({});
  const expected = (await page({ NextToken: first.NextToken })).RouteEntrys.RouteEntry;
  bench.cloud.deleteRoute({ routeTableId: EXAMPLE.systemTableId, destination: "10.24.0.0/24" });
  const shifted = (await page({ NextToken: first.NextToken })).RouteEntrys.RouteEntry;
  // The entry that moved to the first page is on neither of the two pages that were read.
  assert.deepEqual(cidrs(shifted)[0], cidrs(expected)[1]);
  bench.clock.advance(601_000);
  assert.equal(
    await codeOf(page({ NextToken: first.NextToken })),
    "IllegalParam.NextTokenExpired",
  );
  assert.equal(await codeOf(page({ NextToken: "undefined" })), "IllegalParam.NextToken");
});

Deno.test("DescribeRouteEntryList() filters", async () => {
  await using bench = await withManyRoutes();
  const find = async (params: object) => cidrs(await bench.list(params));
  assert.deepEqual(await find({ DestinationCidrBlock: "10.24.7.0/24" }), ["10.24.7.0/24"]);
  const several = { DestCidrBlockList: ["10.24.7.0/24", "10.24.9.0/24", "10.250.0.0/24"] };
  assert.deepEqual(await find(several), ["10.24.7.0/24", "10.24.9.0/24"]);
  assert.equal((await find({ NextHopId: EXAMPLE.instanceIds[1] })).length, 55);
  assert.equal((await find({ NextHopType: "VpnGateway" })).length, 1);
  assert.ok(!(await find({ RouteEntryType: "Custom" })).includes("100.64.0.0/10"));
  const named = { RouteEntryName: "route-3" };
  assert.deepEqual(await find({ ...named, RouteEntryType: "Custom" }), ["10.24.3.0/24"]);
  assert.equal(
    await codeOf(bench.list(named)),
    "OperationFailed.FilterParamUnderWrongRouteType",
  );
  assert.deepEqual(await find({ ServiceType: "TR" }), ["10.97.0.0/16"]);
});

Deno.test("lists refuse unknown tables in their own words, and gateway tables", async () => {
  await using bench = await TestBench.start();
  assert.equal(
    await codeOf(bench.list({ RouteTableId: "vtb-none" })),
    "InvalidRouteTable.NotFound",
  );
  assert.equal(
    await codeOf(bench.list({ RouteTableId: EXAMPLE.gatewayTableId })),
    "OperationDenied.UseGatewayRouteEntryQueryInterface",
  );
});

Deno.test("instance hops are spelt in both ways", async () => {
  await using bench = await withManyRoutes();
  const spellings = async () =>
    new Set(
      (await bench.list()).flatMap((each) =>
        each.NextHops.NextHop.map((hop: Body) => hop.NextHopType)
      ).filter((type) => /instance/i.test(type)),
    );
  assert.deepEqual([...await spellings()].toSorted(), ["Instance", "instance"]);
  bench.cloud.setBehaviour({ instanceSpelling: "Instance" });
  assert.deepEqual([...await spellings()], ["Instance"]);
});

Deno.test("DescribeRouteTableList() pages by ten and filters; unknown VPCs are empty", async () => {
  await using bench = await TestBench.start();
  const list = (params: object) => bench.vpc("DescribeRouteTableList", params);
  const ids = (body: Body) =>
    body.RouterTableList.RouterTableListType.map((table: Body) => table.RouteTableId);
  const first = await list({ VpcId: EXAMPLE.vpcId });
  assert.deepEqual([first.TotalCount, ids(first).length], [13, 10]);
  assert.ok(!ids(first).includes(EXAMPLE.systemTableId));
  const second = await list({ VpcId: EXAMPLE.vpcId, PageNumber: 2 });
  assert.deepEqual(ids(second), [
    EXAMPLE.systemTableId,
    EXAMPLE.customTableId,
    EXAMPLE.gatewayTableId,
  ]);
  const [system, custom, gateway] = second.RouterTableList.RouterTableListType;
  assert.deepEqual([system.RouteTableType, custom.RouteTableType], ["System", "Custom"]);
  assert.deepEqual(custom.VSwitchIds.VSwitchId, [EXAMPLE.vSwitchIds[1]]);
  assert.deepEqual(
    [gateway.AssociateType, gateway.GatewayIds.GatewayIds],
    ["Gateway", ["ipv4gw-1"]],
  );
  assert.deepEqual(ids(await list({ RouteTableType: "System" })), [EXAMPLE.systemTableId]);
  assert.equal((await list({ VpcId: "vpc-none" })).TotalCount, 0);
  assert.deepEqual((await bench.vpc("DescribeVpcs", { VpcId: "vpc-none" })).Vpcs.Vpc, []);
});

Deno.test("the deprecated DescribeRouteTables() holds the entries inside the tables", async () => {
  await using bench = await TestBench.start();
  const body = await bench.vpc("DescribeRouteTables", { RouteTableId: EXAMPLE.systemTableId });
  const [table] = body.RouteTables.RouteTable;
  const entry = table.RouteEntrys.RouteEntry
    .find((each: Body) => each.DestinationCidrBlock === "0.0.0.0/0");
  assert.deepEqual([entry.InstanceId, entry.NextHopType], [EXAMPLE.foreignInstanceId, "Instance"]);
});

Deno.test("a list can lag behind creates, changes of status and deletes", async () => {
  await using bench = await TestBench.start({ behaviour: { listLagMs: 5000 } });
  const seen = async () =>
    (await bench.list({ DestinationCidrBlock: "10.24.1.0/24" })).map((each) => each.Status);
  const { RouteEntryId } = await bench.create("10.24.1.0/24");
  bench.clock.advance(4000);
  assert.deepEqual(await seen(), [], "accepted and finished, yet not in the list");
  assert.equal(bench.cloud.routes.find(RouteEntryId)?.status, "Available");
  bench.clock.advance(1000);
  assert.deepEqual(await seen(), ["Pending"]);
  bench.clock.advance(1000);
  assert.deepEqual(await seen(), ["Available"]);
  await bench.vpc("DeleteRouteEntry", { RouteEntryId });
  bench.clock.advance(4000);
  assert.deepEqual(await seen(), ["Available"], "gone, yet still in the list");
  bench.clock.advance(2000);
  assert.deepEqual(await seen(), []);
});

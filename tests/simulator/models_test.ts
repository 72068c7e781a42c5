import assert from "node:assert/strict";
import { EXAMPLE } from "./example.ts";
import { type ModelledService, requestFaults, responseFaults } from "./models.ts";
import { type Body, TestBench } from "./testing.ts";

const TABLE = { RouteTableId: EXAMPLE.systemTableId };
const HOP = { NextHopType: "Instance", NextHopId: EXAMPLE.instanceIds[0] };

interface Case {
  readonly service: ModelledService;
  readonly action: string;
  readonly params: Record<string, unknown>;
  /** Paths that the answer must have, so that an empty answer passes for nothing. */
  readonly holds: readonly string[];
}

const CASES: readonly Case[] = [
  {
    service: "vpc",
    action: "DescribeVpcs",
    params: { VpcId: EXAMPLE.vpcId, PageNumber: 1, PageSize: 50 },
    holds: [
      "TotalCount",
      "PageNumber",
      "PageSize",
      "Vpcs.Vpc.0.VRouterId",
      "Vpcs.Vpc.0.OwnerId",
      "Vpcs.Vpc.0.RouterTableIds.RouterTableIds.0",
      "Vpcs.Vpc.0.SecondaryCidrBlocks.SecondaryCidrBlock.0",
      "Vpcs.Vpc.0.UserCidrs.UserCidr.0",
      "Vpcs.Vpc.0.Ipv6CidrBlock",
    ],
  },
  {
    service: "vpc",
    action: "DescribeVpcAttribute",
    params: { VpcId: EXAMPLE.vpcId },
    holds: [
      "CidrBlock",
      "VRouterId",
      "Status",
      "SecondaryCidrBlocks.SecondaryCidrBlock.0",
      "VSwitchIds.VSwitchId.1",
    ],
  },
  {
    service: "vpc",
    action: "DescribeVRouters",
    params: { VRouterId: "vrt-main", PageNumber: 1, PageSize: 50 },
    holds: ["VRouters.VRouter.0.RouteTableIds.RouteTableId.0"],
  },
  {
    service: "vpc",
    action: "DescribeVSwitches",
    params: { VpcId: EXAMPLE.vpcId, ZoneId: "cn-hangzhou-b", RouteTableId: EXAMPLE.systemTableId },
    holds: ["VSwitches.VSwitch.0.RouteTable.RouteTableId"],
  },
  {
    service: "vpc",
    action: "DescribeVSwitchAttributes",
    params: { VSwitchId: "vsw-b" },
    holds: ["RouteTable.RouteTableId", "CidrBlock", "ZoneId", "VpcId"],
  },
  {
    service: "vpc",
    action: "DescribeRouteTables",
    params: { ...TABLE, VRouterId: "vrt-main" },
    holds: ["RouteTables.RouteTable.0.RouteEntrys.RouteEntry.7.NextHops.NextHop.1.NextHopId"],
  },
  {
    service: "vpc",
    action: "DescribeRouteTableList",
    params: { VpcId: EXAMPLE.vpcId, RouterType: "VRouter", PageNumber: 2, PageSize: 10 },
    holds: [
      "RouterTableList.RouterTableListType.0.VSwitchIds.VSwitchId.0",
      "RouterTableList.RouterTableListType.2.GatewayIds.GatewayIds.0",
      "RouterTableList.RouterTableListType.0.RouteTableType",
      "RouterTableList.RouterTableListType.0.AssociateType",
    ],
  },
  {
    service: "vpc",
    action: "CreateRouteEntry",
    params: {
      ...TABLE,
      ...HOP,
      DestinationCidrBlock: "10.24.1.0/24",
      RouteEntryName: "ours",
      Description: "of a test",
      ClientToken: "token",
    },
    holds: ["RouteEntryId"],
  },
  {
    service: "vpc",
    action: "DescribeRouteEntryList",
    params: { ...TABLE, RouteEntryType: "Custom", MaxResult: 3 },
    holds: [
      "NextToken",
      "TotalCount",
      "RouteEntrys.RouteEntry.0.NextHops.NextHop.0.NextHopType",
      "RouteEntrys.RouteEntry.0.GmtModified",
      "RouteEntrys.RouteEntry.0.Origin",
      "RouteEntrys.RouteEntry.0.Status",
    ],
  },
  {
    service: "vpc",
    action: "GetVpcRouteEntrySummary",
    params: { VpcId: EXAMPLE.vpcId, RouteEntryType: "all" },
    holds: ["RouteEntrySummarys.0.EntrySummarys.0.Count"],
  },
  {
    service: "vpc",
    action: "ModifyRouteEntry",
    params: {
      ...TABLE,
      DestinationCidrBlock: "10.24.1.0/24",
      NewNextHopType: "Instance",
      NewNextHopId: EXAMPLE.instanceIds[1],
      RouteEntryName: "ours too",
    },
    holds: ["RequestId"],
  },
  {
    service: "vpc",
    action: "DeleteRouteEntry",
    params: {
      ...TABLE,
      DestinationCidrBlock: "10.24.1.0/24",
      NextHopId: EXAMPLE.instanceIds[1],
    },
    holds: ["RequestId"],
  },
  {
    service: "vpc",
    action: "CreateRouteEntries",
    params: {
      RouteEntries: ["10.24.5.0/24", "10.95.1.0/24"].map((cidr) => ({
        ...TABLE,
        DstCidrBlock: cidr,
        NextHop: EXAMPLE.instanceIds[0],
        NextHopType: "Instance",
        IpVersion: 4,
        Name: "ours",
        Description: "of a test",
      })),
    },
    holds: ["RouteEntryIds.0", "FailedRouteEntries.0.FailedCode", "SuccessCount", "FailedCount"],
  },
  {
    service: "vpc",
    action: "DeleteRouteEntries",
    params: {
      RouteEntries: [
        { ...TABLE, DstCidrBlock: "10.24.5.0/24", NextHop: EXAMPLE.instanceIds[0] },
        { ...TABLE, RouteEntryId: "rte-none" },
      ],
    },
    holds: ["FailedRouteEntries.0.RouteEntryId", "SuccessCount"],
  },
  {
    service: "ecs",
    action: "DescribeNetworkInterfaces",
    params: { NetworkInterfaceId: ["eni-node-1"], InstanceId: "i-node-1", Type: "Primary" },
    holds: ["NetworkInterfaceSets.NetworkInterfaceSet.0.SourceDestCheck"],
  },
  {
    service: "ecs",
    action: "ModifyNetworkInterfaceAttribute",
    params: { NetworkInterfaceId: "eni-node-1", SourceDestCheck: false },
    holds: ["RequestId"],
  },
  {
    service: "ecs",
    action: "DescribeInstances",
    params: { InstanceIds: '["i-node-1"]', MaxResults: 10 },
    holds: [
      "Instances.Instance.0.NetworkInterfaces.NetworkInterface.0.NetworkInterfaceId",
      "Instances.Instance.0.VpcAttributes.VSwitchId",
    ],
  },
];

function at(body: Body, path: string): unknown {
  return path.split(".").reduce((value, name) => value?.[name], body);
}

/** What JSON had, where pop-core made objects of its own out of long numbers. */
function plain(value: Body): Body {
  if (Array.isArray(value)) return value.map(plain);
  if (typeof value !== "object" || value === null) return value;
  if (typeof value.toNumber === "function") return value.toNumber();
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]));
}

Deno.test("every answer has the names, nesting and types of the official models", async () => {
  await using bench = await TestBench.start();
  for (const { service, action, params, holds } of CASES) {
    const sent = await bench[service](action, params);
    const body = plain(sent);
    assert.deepEqual(responseFaults(service, action, body), []);
    for (const path of holds) assert.notEqual(at(body, path), undefined, `${action}: ${path}`);
    bench.settle();
  }
  assert.deepEqual(bench.simulator.requests.flatMap(requestFaults), []);
});

Deno.test("the check of answers finds unknown names, wrong nesting and wrong types", () => {
  const faults = (body: unknown) => responseFaults("vpc", "DescribeRouteEntryList", body);
  assert.deepEqual(faults({ RouteEntries: {} }), ["DescribeRouteEntryList.RouteEntries: unknown"]);
  assert.deepEqual(faults({ RouteEntrys: [] }), [
    "DescribeRouteEntryList.RouteEntrys: list instead of an object",
  ]);
  assert.deepEqual(faults({ TotalCount: "1" }), [
    "DescribeRouteEntryList.TotalCount: string instead of number",
  ]);
  const entry = { NextHops: { NextHop: [{ Enabled: true }] } };
  assert.deepEqual(faults({ RouteEntrys: { RouteEntry: [entry] } }), [
    "DescribeRouteEntryList.RouteEntrys.RouteEntry[0].NextHops.NextHop[0].Enabled: " +
    "boolean instead of number",
  ]);
});

Deno.test("the check of requests finds parameters that the service does not know", () => {
  const faults = (params: Record<string, string>) =>
    requestFaults({ service: "vpc", action: "CreateRouteEntries", params });
  assert.deepEqual(faults({ RegionId: "r", "RouteEntries.1.NextHop": "i" }), []);
  for (const name of ["RouteEntries.1.NextHopId", "RouteEntries.0.NextHop", "ClientToken"]) {
    const expected = [`CreateRouteEntries: the service knows no parameter ${name}`];
    assert.deepEqual(faults({ [name]: "x" }), expected);
  }
});

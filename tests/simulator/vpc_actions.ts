import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { RouteTable, Vpc, VSwitch } from "./model.ts";

const CREATED_AT = "2024-03-01T08:00:00Z";

/** VPCs, routers, vSwitches and route tables as lists; reading only. */
export const vpcActions: readonly Action[] = [
  { name: "DescribeVpcs", regionRequired: true, handle: describeVpcs },
  { name: "DescribeVpcAttribute", regionRequired: true, handle: describeVpcAttribute },
  { name: "DescribeVRouters", regionRequired: true, handle: describeVRouters },
  { name: "DescribeVSwitches", handle: describeVSwitches },
  { name: "DescribeVSwitchAttributes", handle: describeVSwitchAttributes },
  { name: "DescribeRouteTableList", regionRequired: true, handle: describeRouteTableList },
  { name: "DescribeRouteTables", handle: describeRouteTables },
];

/** The VPCs that a caller may see: those of its account in the region it names. */
export function visibleVpcs({ cloud, principal, regionId }: Call): Vpc[] {
  return [...cloud.network.vpcs.values()]
    .filter((vpc) => vpc.accountId === principal.accountId && vpc.regionId === regionId);
}

/** The route tables that a caller may see. */
export function visibleTables(call: Call): RouteTable[] {
  return visibleVpcs(call).flatMap((vpc) => call.cloud.network.tablesOf(vpc.id));
}

/** Answers one page of `items` with PageNumber, PageSize and TotalCount. */
export function page<T>(
  { params }: Call,
  items: readonly T[],
): { items: T[]; counts: Record<string, number> } {
  const number = params.integer("PageNumber", { min: 1, default: 1 });
  const size = Math.min(50, params.integer("PageSize", { min: 1, default: 10 }));
  return {
    items: items.slice((number - 1) * size, number * size),
    counts: { PageNumber: number, PageSize: size, TotalCount: items.length },
  };
}

function describeVpcs(call: Call): Record<string, unknown> {
  const wanted = call.params.optional("VpcId")?.split(",");
  const found = visibleVpcs(call).filter((vpc) => !wanted || wanted.includes(vpc.id));
  const { items, counts } = page(call, found);
  return { ...counts, Vpcs: { Vpc: items.map((vpc) => describeVpc(call, vpc)) } };
}

function describeVpc({ cloud }: Call, vpc: Vpc): Record<string, unknown> {
  return {
    VpcId: vpc.id,
    VpcName: vpc.name,
    Description: "",
    RegionId: vpc.regionId,
    Status: vpc.status,
    CreationTime: CREATED_AT,
    CidrBlock: vpc.cidr,
    Ipv6CidrBlock: vpc.ipv6Cidr ?? "",
    IsDefault: false,
    OwnerId: Number(vpc.accountId),
    VRouterId: vpc.routerId,
    ResourceGroupId: "rg-default",
    VSwitchIds: { VSwitchId: cloud.network.vSwitchesOf(vpc.id).map((each) => each.id) },
    SecondaryCidrBlocks: { SecondaryCidrBlock: vpc.secondaryCidrs },
    UserCidrs: { UserCidr: vpc.userCidrs },
    RouterTableIds: {
      RouterTableIds: cloud.network.tablesOf(vpc.id).map((table) => table.id),
    },
  };
}

function describeVpcAttribute(call: Call): Record<string, unknown> {
  const id = call.params.required("VpcId");
  const vpc = visibleVpcs(call).find((each) => each.id === id);
  if (!vpc) throw new ApiError(404, "InvalidVpcId.NotFound", "Specified VPC does not exist.");
  const { RouterTableIds: _, ...attributes } = describeVpc(call, vpc);
  return {
    ...attributes,
    ClassicLinkEnabled: false,
    CloudResources: {
      CloudResourceSetType: [
        { ResourceType: "VRouter", ResourceCount: 1 },
        { ResourceType: "VSwitch", ResourceCount: call.cloud.network.vSwitchesOf(vpc.id).length },
        { ResourceType: "RouteTable", ResourceCount: call.cloud.network.tablesOf(vpc.id).length },
      ],
    },
  };
}

function describeVRouters(call: Call): Record<string, unknown> {
  const wanted = call.params.optional("VRouterId");
  const found = visibleVpcs(call).filter((vpc) => !wanted || vpc.routerId === wanted);
  const { items, counts } = page(call, found);
  return {
    ...counts,
    VRouters: {
      VRouter: items.map((vpc) => ({
        VRouterId: vpc.routerId,
        VpcId: vpc.id,
        RegionId: vpc.regionId,
        VRouterName: "",
        Description: "",
        CreationTime: CREATED_AT,
        RouteTableIds: {
          RouteTableId: call.cloud.network.tablesOf(vpc.id).map((table) => table.id),
        },
      })),
    },
  };
}

function describeVSwitches(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const found = visibleVpcs(call).flatMap((vpc) => cloud.network.vSwitchesOf(vpc.id))
    .filter((each) =>
      is(params.optional("VpcId"), each.vpcId) && is(params.optional("ZoneId"), each.zoneId) &&
      is(params.optional("VSwitchId"), each.id) &&
      is(params.optional("RouteTableId"), each.routeTableId)
    );
  const { items, counts } = page(call, found);
  return { ...counts, VSwitches: { VSwitch: items.map((each) => describeVSwitch(call, each)) } };
}

function describeVSwitchAttributes(call: Call): Record<string, unknown> {
  const id = call.params.required("VSwitchId");
  const found = visibleVpcs(call).flatMap((vpc) => call.cloud.network.vSwitchesOf(vpc.id))
    .find((each) => each.id === id);
  if (!found) {
    throw new ApiError(404, "InvalidVswitchID.NotFound", "The specified vSwitch does not exist.");
  }
  return describeVSwitch(call, found);
}

function describeVSwitch({ cloud }: Call, vSwitch: VSwitch): Record<string, unknown> {
  return {
    VSwitchId: vSwitch.id,
    VSwitchName: vSwitch.name,
    Description: "",
    VpcId: vSwitch.vpcId,
    ZoneId: vSwitch.zoneId,
    Status: "Available",
    CreationTime: CREATED_AT,
    CidrBlock: vSwitch.cidr,
    Ipv6CidrBlock: vSwitch.ipv6Cidr ?? "",
    AvailableIpAddressCount: 200,
    IsDefault: false,
    OwnerId: Number(cloud.network.vpc(vSwitch.vpcId).accountId),
    ResourceGroupId: "rg-default",
    RouteTable: {
      RouteTableId: vSwitch.routeTableId,
      RouteTableType: cloud.network.table(vSwitch.routeTableId).type,
    },
  };
}

function describeRouteTableList(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const found = visibleTables(call).filter((table) =>
    is(params.optional("VpcId"), table.vpcId) && is(params.optional("RouteTableId"), table.id) &&
    is(params.optional("RouteTableType"), table.type) &&
    is(params.optional("RouteTableName"), table.name) &&
    is(params.optional("RouterId"), cloud.network.vpc(table.vpcId).routerId) &&
    is(params.optional("RouterType"), "VRouter")
  );
  const { items, counts } = page(call, found);
  return {
    ...counts,
    RouterTableList: {
      RouterTableListType: items.map((table) => ({
        RouteTableId: table.id,
        RouteTableName: table.name,
        RouteTableType: table.type,
        Description: "",
        VpcId: table.vpcId,
        RouterId: cloud.network.vpc(table.vpcId).routerId,
        RouterType: "VRouter",
        AssociateType: table.associate,
        Status: "Available",
        CreationTime: CREATED_AT,
        OwnerId: Number(cloud.network.vpc(table.vpcId).accountId),
        ResourceGroupId: "rg-default",
        RoutePropagationEnable: true,
        VSwitchIds: {
          VSwitchId: cloud.network.vSwitchesBoundTo(table.id).map((each) => each.id),
        },
        GatewayIds: { GatewayIds: table.gatewayId === undefined ? [] : [table.gatewayId] },
      })),
    },
  };
}

/** Deprecated by the service, and still what older programs call. */
function describeRouteTables(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const found = visibleTables(call).filter((table) =>
    table.associate === "VSwitch" && is(params.optional("RouteTableId"), table.id) &&
    is(params.optional("VRouterId"), cloud.network.vpc(table.vpcId).routerId) &&
    is(params.optional("RouterId"), cloud.network.vpc(table.vpcId).routerId)
  );
  const { items, counts } = page(call, found);
  return {
    ...counts,
    RouteTables: {
      RouteTable: items.map((table) => ({
        RouteTableId: table.id,
        RouteTableType: table.type,
        VRouterId: cloud.network.vpc(table.vpcId).routerId,
        Status: "Available",
        CreationTime: CREATED_AT,
        ResourceGroupId: "rg-default",
        VSwitchIds: {
          VSwitchId: cloud.network.vSwitchesBoundTo(table.id).map((each) => each.id),
        },
        RouteEntrys: {
          RouteEntry: cloud.routes.visible(table.id).map((entry) => ({
            RouteEntryId: entry.id,
            RouteTableId: table.id,
            DestinationCidrBlock: entry.destination,
            Type: entry.type,
            Status: entry.status,
            RouteEntryName: entry.name,
            Description: entry.description,
            NextHopType: entry.nextHops.length > 1 ? "" : entry.nextHops[0]?.type ?? "",
            InstanceId: entry.nextHops.length > 1 ? "" : entry.nextHops[0]?.id ?? "",
            NextHops: {
              NextHop: entry.nextHops.length > 1
                ? entry.nextHops.map((hop) => ({
                  NextHopId: hop.id,
                  NextHopType: hop.type,
                  Enabled: 1,
                  Weight: hop.weight ?? 100,
                }))
                : [],
            },
          })),
        },
      })),
    },
  };
}

/** Whether `value` passes a filter that may be absent. */
function is(wanted: string | undefined, value: string): boolean {
  return wanted === undefined || wanted === value;
}

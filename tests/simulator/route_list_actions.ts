import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { NextHop, RouteEntry, RouteTable } from "./model.ts";
import { visibleTables, visibleVpcs } from "./vpc_actions.ts";

const MAX_RESULT = 100;
const DEFAULT_RESULT = 10;

/** Lists of route entries. */
export const routeListActions: readonly Action[] = [
  { name: "DescribeRouteEntryList", regionRequired: true, handle: describeRouteEntryList },
  { name: "GetVpcRouteEntrySummary", regionRequired: true, handle: getVpcRouteEntrySummary },
];

function describeRouteEntryList(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const id = params.required("RouteTableId");
  const table = visibleTables(call).find((each) => each.id === id);
  if (!table) {
    throw new ApiError(
      400,
      "InvalidRouteTable.NotFound",
      "The specified route table is not found.",
    );
  }
  if (table.associate === "Gateway") {
    throw new ApiError(
      400,
      "OperationDenied.UseGatewayRouteEntryQueryInterface",
      "The gateway route table has its own query interface.",
    );
  }
  const size = Math.min(
    MAX_RESULT,
    params.integer("MaxResult", { min: 1, default: DEFAULT_RESULT }),
  );
  const found = cloud.routes.visible(table.id).filter(entryFilter(call));
  // A page begins at a place, not at an entry: it shifts when the table changes in between.
  const offset = readNextToken(call, table);
  const entries = found.slice(offset, offset + size);
  const more = offset + size < found.length;
  return {
    NextToken: more ? makeNextToken(call, table, offset + size) : "",
    TotalCount: found.length,
    RouteEntrys: { RouteEntry: entries.map((entry, index) => describeEntry(call, entry, index)) },
  };
}

function entryFilter({ params }: Call): (entry: RouteEntry) => boolean {
  const type = params.optional("RouteEntryType");
  const entryId = params.optional("RouteEntryId");
  const name = params.optional("RouteEntryName");
  if ((entryId !== undefined || name !== undefined) && type !== "Custom") {
    throw new ApiError(
      400,
      "OperationFailed.FilterParamUnderWrongRouteType",
      "RouteEntryId and RouteEntryName filter custom route entries only.",
    );
  }
  const single = params.optional("DestinationCidrBlock");
  const destinations = [...params.texts("DestCidrBlockList"), ...(single ? [single] : [])];
  if (destinations.length > 20) {
    throw new ApiError(400, "IllegalParam.DestCidrBlockList", "DestCidrBlockList is too long.");
  }
  const hopId = params.optional("NextHopId");
  const hopType = params.optional("NextHopType")?.toLowerCase();
  const version = params.optional("IpVersion")?.toLowerCase();
  const serviceType = params.optional("ServiceType");
  return (entry) =>
    (type === undefined || entry.type === type) &&
    (entryId === undefined || entry.id === entryId) &&
    (name === undefined || entry.name === name) &&
    (destinations.length === 0 || destinations.includes(entry.destination)) &&
    (hopId === undefined || entry.nextHops.some((hop) => hop.id === hopId)) &&
    (hopType === undefined || entry.nextHops.some((hop) => hop.type.toLowerCase() === hopType)) &&
    (version === undefined || ipVersion(entry) === version) &&
    (serviceType === undefined || entry.serviceType === serviceType);
}

function describeEntry(call: Call, entry: RouteEntry, index: number): Record<string, unknown> {
  return {
    RouteEntryId: entry.id,
    RouteTableId: entry.routeTableId,
    DestinationCidrBlock: entry.destination,
    IpVersion: ipVersion(entry),
    Type: entry.type,
    Status: entry.status,
    RouteEntryName: entry.name,
    Description: entry.description,
    GmtModified: `${new Date(entry.modifiedAtMs).toISOString().slice(0, 16)}Z`,
    Origin: origin(entry),
    ...(entry.serviceType === undefined ? {} : { ServiceType: entry.serviceType }),
    NextHops: {
      NextHop: entry.nextHops.map((hop) => ({
        NextHopId: hop.id,
        NextHopType: spellHopType(call, hop, index),
        Enabled: 1,
        Weight: hop.weight ?? 0,
        NextHopRegionId: call.regionId,
      })),
    },
  };
}

function spellHopType({ cloud }: Call, hop: NextHop, index: number): string {
  const { instanceSpelling } = cloud.behaviour;
  const odd = index % 2 === 1 && instanceSpelling === "mixed";
  if (hop.type === "local") return odd ? "Local" : "local";
  if (hop.type !== "Instance") return hop.type;
  if (instanceSpelling !== "mixed") return instanceSpelling;
  return odd ? "instance" : "Instance";
}

function origin(entry: RouteEntry): string {
  if (entry.type === "System") return "SystemCreate";
  return entry.type === "Custom" ? "CustomCreate" : "RoutePropagation";
}

function ipVersion(entry: RouteEntry): "ipv4" | "ipv6" {
  return entry.destination.includes(":") ? "ipv6" : "ipv4";
}

function makeNextToken({ cloud }: Call, table: RouteTable, offset: number): string {
  return btoa(JSON.stringify({ table: table.id, offset, atMs: cloud.nowMs() }));
}

function readNextToken({ cloud, params }: Call, table: RouteTable): number {
  const token = params.optional("NextToken");
  if (token === undefined) return 0;
  let parsed: { table?: unknown; offset?: unknown; atMs?: unknown };
  try {
    parsed = JSON.parse(atob(token));
  } catch {
    parsed = {};
  }
  const { offset, atMs } = parsed;
  if (parsed.table !== table.id || typeof offset !== "number" || typeof atMs !== "number") {
    throw new ApiError(400, "IllegalParam.NextToken", "The specified NextToken is not valid.");
  }
  if (cloud.nowMs() - atMs > cloud.behaviour.nextTokenLifetimeMs) {
    throw new ApiError(
      400,
      "IllegalParam.NextTokenExpired",
      "The specified NextToken has expired.",
    );
  }
  return offset;
}

function getVpcRouteEntrySummary(call: Call): Record<string, unknown> {
  const { params, cloud } = call;
  const vpcId = params.required("VpcId");
  const wanted = params.required("RouteEntryType").toLowerCase();
  const tableId = params.optional("RouteTableId");
  if (!visibleVpcs(call).some((vpc) => vpc.id === vpcId)) {
    throw new ApiError(404, "InvalidVpcId.NotFound", "Specified VPC does not exist.");
  }
  const tables = cloud.network.tablesOf(vpcId)
    .filter((table) => tableId === undefined || table.id === tableId);
  return {
    RouteEntrySummarys: tables.map((table) => {
      const counts = Map.groupBy(cloud.routes.entriesOf(table.id), (entry) => entry.type);
      return {
        RouteTableId: table.id,
        EntrySummarys: [...counts]
          .filter(([type]) => wanted === "all" || type.toLowerCase() === wanted)
          .map(([type, entries]) => ({ RouteEntryType: type, Count: entries.length })),
      };
    }),
  };
}

/** What the VPC service (2016-04-28) sends, and what is made of it. @module */
import * as v from "valibot";
import type { CloudRoute, EntryState } from "../routes/provider.ts";
import type { SubnetInfo, TableInfo } from "../routes/table_choice.ts";
import {
  Cidr,
  Count,
  Id,
  list,
  optionalList,
  OptionalText,
  parseDestination,
  Rows,
  Text,
  Token,
} from "./replies.ts";

export const VpcAttributeReply = v.object({
  VpcId: Id,
  CidrBlock: Cidr,
  SecondaryCidrBlocks: optionalList("SecondaryCidrBlock", Cidr),
});

export const VSwitchAttributesReply = v.object({
  VSwitchId: Id,
  CidrBlock: Cidr,
  RouteTable: v.nullish(v.object({ RouteTableId: v.nullish(v.union([Id, v.literal("")])) })),
});
export const VSwitchesReply = v.object({
  TotalCount: Count,
  VSwitches: list("VSwitch", VSwitchAttributesReply),
});

const RouteTable = v.object({
  RouteTableId: Id,
  RouteTableName: OptionalText,
  RouteTableType: OptionalText,
  VpcId: OptionalText,
  AssociateType: OptionalText,
  VSwitchIds: optionalList("VSwitchId", Id),
});
export const RouteTableListReply = v.object({
  TotalCount: Count,
  RouterTableList: list("RouterTableListType", RouteTable),
});

const RouteEntry = v.object({
  RouteEntryId: OptionalText,
  // A CIDR block, a bare address or the id of a prefix list.
  DestinationCidrBlock: Text,
  Status: Text,
  Type: Text,
  RouteEntryName: OptionalText,
  // `TR`: a transit router manages it.
  ServiceType: OptionalText,
  NextHops: optionalList(
    "NextHop",
    v.object({ NextHopType: OptionalText, NextHopId: OptionalText }),
  ),
});
export const RouteEntryListReply = v.object({
  NextToken: Token,
  TotalCount: v.nullish(Count),
  RouteEntrys: list("RouteEntry", RouteEntry),
});

export const CreateReply = v.object({ RouteEntryId: v.optional(v.unknown()) });

export const BatchReply = v.object({
  FailedCount: v.nullish(Count),
  FailedRouteEntries: v.nullish(
    Rows(v.object({
      RouteEntryId: OptionalText,
      DstCidrBlock: OptionalText,
      NextHop: OptionalText,
      FailedCode: Text,
      FailedMessage: v.nullish(v.string(), ""),
    })),
    [],
  ),
});

export function toSubnet(
  { VSwitchId, CidrBlock, RouteTable }: v.InferOutput<typeof VSwitchAttributesReply>,
): SubnetInfo {
  const routeTableId = RouteTable?.RouteTableId;
  return { id: VSwitchId, cidr: CidrBlock, ...(routeTableId ? { routeTableId } : {}) };
}

export function toTable(row: v.InferOutput<typeof RouteTable>): TableInfo {
  return {
    id: row.RouteTableId,
    name: row.RouteTableName,
    // The other kind is for what comes in through a gateway.
    servesInstances: row.AssociateType.toLowerCase() !== "gateway",
    isMain: row.RouteTableType !== "Custom",
    subnetIds: row.VSwitchIds,
  };
}

/** Only entries that are Available forward and can be changed. */
const STATES: Readonly<Record<string, EntryState>> = { Available: "ready", Modifying: "changing" };

/** `undefined` for an entry whose destination is a prefix list. */
export function toCloudRoute(
  row: v.InferOutput<typeof RouteEntry>,
  routeTableId: string,
): CloudRoute | undefined {
  const destination = parseDestination(row.DestinationCidrBlock);
  if (destination === undefined) return undefined;
  // The API writes types in upper and in lower case.
  const hops = row.NextHops.map((hop) => ({
    type: hop.NextHopType.toLowerCase(),
    id: hop.NextHopId,
  }));
  const [hop] = hops;
  return {
    routeTableId,
    destination,
    instanceId: hops.length === 1 && hop?.type === "instance" ? hop.id : "",
    entryId: row.RouteEntryId,
    mark: row.RouteEntryName,
    state: STATES[row.Status] ?? "pending",
    status: row.Status,
    isStatic: row.Type === "Custom",
    type: row.Type,
    managedBy: row.ServiceType,
    hops: hops.map(({ type, id }) => id || type),
  };
}

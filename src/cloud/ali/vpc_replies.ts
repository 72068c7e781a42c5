/**
 * What the VPC service (2016-04-28) sends, and what is made of it.
 *
 * @module
 */
import * as v from "valibot";
import type { Prefix } from "../../net/mod.ts";
import { Cidr, Count, Id, list, optionalList, OptionalText, Rows, Text, Token } from "./replies.ts";

/** A next hop of a route entry; `type` is in lower case (the API uses both). */
export interface NextHop {
  readonly type: string;
  readonly id: string;
}

/** A route entry with an IP destination. */
export interface RouteEntry {
  readonly id: string;
  readonly routeTableId: string;
  readonly destination: Prefix;
  /**
   * `Pending`, `Available`, `Modifying` or `Deleting`. Only `Available` entries forward, and only
   * those can be changed.
   */
  readonly status: string;
  /** Custom, System, BGP, CEN, ECR. Only custom entries may be written. */
  readonly type: string;
  readonly name: string;
  /** `TR`: a transit router manages it. */
  readonly serviceType: string;
  readonly nextHops: readonly NextHop[];
}

/** A route table, without its entries. */
export interface RouteTableInfo {
  readonly id: string;
  readonly name: string;
  readonly vpcId: string;
  /** System or Custom. */
  readonly type: string;
  /** Serves vSwitches, or a gateway's inbound traffic. */
  readonly associateType: "VSwitch" | "Gateway";
  readonly vSwitchIds: readonly string[];
}

/** A VPC's address ranges. */
export interface VpcInfo {
  readonly id: string;
  /** Primary and secondary IPv4 blocks. */
  readonly cidrs: readonly Prefix[];
}

/** A vSwitch: a subnet of the VPC in one zone. */
export interface VSwitchInfo {
  readonly id: string;
  readonly name: string;
  readonly cidr: Prefix;
  /** The table bound to it, if the service says. */
  readonly routeTableId?: string;
}

export const VpcAttributeReply = v.object({
  VpcId: Id,
  CidrBlock: Cidr,
  SecondaryCidrBlocks: optionalList("SecondaryCidrBlock", Cidr),
});

const VSwitchFields = {
  VSwitchId: Id,
  VSwitchName: OptionalText,
  CidrBlock: Cidr,
  RouteTable: v.nullish(v.object({ RouteTableId: v.nullish(v.union([Id, v.literal("")])) })),
};
export const VSwitchAttributesReply = v.object({ ...VSwitchFields, VpcId: Id });
export const VSwitchesReply = v.object({
  TotalCount: Count,
  VSwitches: list("VSwitch", v.object(VSwitchFields)),
});

export const RouteTableListReply = v.object({
  TotalCount: Count,
  RouterTableList: list(
    "RouterTableListType",
    v.object({
      RouteTableId: Id,
      RouteTableName: OptionalText,
      RouteTableType: OptionalText,
      VpcId: OptionalText,
      AssociateType: OptionalText,
      VSwitchIds: optionalList("VSwitchId", Id),
    }),
  ),
});

export const RouteEntryListReply = v.object({
  NextToken: Token,
  TotalCount: v.nullish(Count),
  RouteEntrys: list(
    "RouteEntry",
    v.object({
      RouteEntryId: OptionalText,
      // A CIDR block, a bare address or the id of a prefix list.
      DestinationCidrBlock: Text,
      Status: Text,
      Type: Text,
      RouteEntryName: OptionalText,
      ServiceType: OptionalText,
      NextHops: optionalList(
        "NextHop",
        v.object({ NextHopType: OptionalText, NextHopId: OptionalText }),
      ),
    }),
  ),
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

export function toVSwitch(row: {
  VSwitchId: string;
  VSwitchName: string;
  CidrBlock: Prefix;
  RouteTable?: { RouteTableId?: string | null | undefined } | null | undefined;
}): VSwitchInfo {
  return {
    id: row.VSwitchId,
    name: row.VSwitchName,
    cidr: row.CidrBlock,
    ...(row.RouteTable?.RouteTableId ? { routeTableId: row.RouteTable.RouteTableId } : {}),
  };
}

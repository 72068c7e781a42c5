import type { Prefix } from "../../src/net/mod.ts";
import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { NextHop, RouteEntry } from "./model.ts";
import type { Parameters } from "./parameters.ts";
import {
  checkDestination,
  checkNextHop,
  checkText,
  parseDestination,
  type Target,
} from "./route_rules.ts";
import { visibleTables } from "./vpc_actions.ts";

/** Create, modify and delete of single route entries. */
export const routeWriteActions: readonly Action[] = [
  { name: "CreateRouteEntry", handle: createRouteEntry },
  { name: "DeleteRouteEntry", handle: deleteRouteEntry },
  { name: "ModifyRouteEntry", regionRequired: true, handle: modifyRouteEntry },
];

/** Parameters that differ between two tries of the same call. */
const PER_TRY = /^(?:Timestamp|Signature.*|AccessKeyId|SecurityToken)$/;

function createRouteEntry(call: Call): Readonly<Record<string, unknown>> {
  const { cloud, params, principal } = call;
  const token = params.optional("ClientToken");
  const key = { accountId: principal.accountId, token: token ?? "" };
  const request = JSON.stringify(
    params.names.filter((name) => !PER_TRY.test(name)).sort()
      .map((name) => [name, params.optional(name)]),
  );
  if (token !== undefined) {
    const processingMs = cloud.behaviour.tokenProcessingMs;
    const options = { nowMs: cloud.nowMs(), processingMs };
    const answer = cloud.clientTokens.recall(key, request, options);
    if (answer) return answer;
  }
  const target = requireTarget(call, params.required("RouteTableId"));
  const destination = parseDestination(params.required("DestinationCidrBlock"));
  checkDestination(destination, target, cloud.network);
  const nextHops = readNextHops(call, target, destination);
  const name = params.optional("RouteEntryName");
  const description = params.optional("Description");
  checkText("RouteEntryName", name, 128);
  checkText("Description", description, 256);
  if (params.boolean("DryRun")) {
    cloud.routes.requireRoom(target.table);
    throw dryRunPassed();
  }
  cloud.routes.requireIdle(target.vpc.id);
  cloud.routes.requireFree(target.table.id, destination.toString());
  cloud.routes.requireRoom(target.table);
  const entry = cloud.routes.create({
    table: target.table,
    destination: destination.toString(),
    nextHops,
    name,
    description,
  });
  call.performed();
  const answer = { RouteEntryId: entry.id };
  if (token !== undefined) cloud.clientTokens.remember(key, request, answer, cloud.nowMs());
  return answer;
}

function readNextHops(call: Call, target: Target, destination: Prefix): NextHop[] {
  const { params, cloud } = call;
  const options = { vpc: target.vpc, family: destination.family, network: cloud.network };
  const list = params.records("NextHopList");
  if (list.length === 0) {
    const hop = { type: params.optional("NextHopType"), id: params.required("NextHopId") };
    return [checkNextHop(hop, options)];
  }
  const hops = list.map((each) => ({
    ...checkNextHop(
      { type: each.required("NextHopType"), id: each.required("NextHopId") },
      options,
    ),
    weight: each.integer("Weight", { min: 1, default: 100 }),
  }));
  if (hops.length < 2 || hops.some((hop) => hop.type !== "RouterInterface")) {
    throw new ApiError(400, "IllegalParam.NextHopList", "The specified NextHopList is not valid.");
  }
  return hops;
}

function deleteRouteEntry(call: Call): Readonly<Record<string, unknown>> {
  const { cloud, params } = call;
  const entryId = params.optional("RouteEntryId");
  const tableId = params.optional("RouteTableId");
  const place = tableId ?? params.optional("DestinationCidrBlock");
  if (entryId !== undefined && place !== undefined) {
    throw new ApiError(
      400,
      "ParamExclusive.RouteEntryIdAndRouteTableIdOrDestCidrBlock",
      "RouteEntryId excludes RouteTableId and DestinationCidrBlock.",
    );
  }
  if (params.boolean("DryRun")) throw dryRunPassed();
  const entry = requireEntry(call, params);
  requireHops(entry, params);
  const { vpcId } = cloud.network.table(entry.routeTableId);
  requireOwn(entry);
  cloud.routes.requireIdle(vpcId);
  cloud.routes.delete(entry);
  call.performed();
  return {};
}

/** With a hop given, the entry must have just that one; an ECMP entry must have it given. */
function requireHops(entry: RouteEntry, params: Parameters): void {
  const wanted = params.records("NextHopList").map((each) => each.required("NextHopId"));
  const single = params.optional("NextHopId");
  if (single !== undefined) wanted.push(single);
  const byPlace = params.optional("RouteEntryId") === undefined;
  if (wanted.length === 0 && (!byPlace || entry.nextHops.length === 1)) return;
  const actual = entry.nextHops.map((hop) => hop.id);
  if (wanted.toSorted().join() !== actual.toSorted().join()) throw unknownEntry();
}

function modifyRouteEntry(call: Call): Readonly<Record<string, unknown>> {
  const { cloud, params } = call;
  const entry = requireEntry(call, params);
  const { vpcId } = cloud.network.table(entry.routeTableId);
  const name = params.optional("RouteEntryName");
  const description = params.optional("Description");
  checkText("RouteEntryName", name, 128);
  checkText("Description", description, 256);
  const hopId = params.optional("NewNextHopId");
  const hop = hopId === undefined ? undefined : checkNextHop(
    { type: params.optional("NewNextHopType"), id: hopId },
    {
      vpc: cloud.network.vpc(vpcId),
      family: entry.destination.includes(":") ? 6 : 4,
      network: cloud.network,
    },
  );
  requireOwn(entry);
  if (params.boolean("DryRun")) throw dryRunPassed();
  cloud.routes.requireIdle(vpcId);
  cloud.routes.modify(entry, { name, description, ...(hop ? { nextHops: [hop] } : {}) });
  call.performed();
  return {};
}

/** The table to write to. @throws {ApiError} If the caller has none such, or it is a gateway's. */
export function requireTarget(call: Call, routeTableId: string): Target {
  const table = visibleTables(call).find((each) => each.id === routeTableId);
  if (!table) {
    throw new ApiError(
      404,
      "InvalidRouteTableId.NotFound",
      "Specified route table does not exist.",
    );
  }
  if (table.associate === "Gateway") {
    throw new ApiError(
      400,
      "OperationDenied.RouteTableTypeNotPermitted",
      "The operation is not allowed on a gateway route table.",
    );
  }
  return { table, vpc: call.cloud.network.vpc(table.vpcId) };
}

/** The entry that RouteEntryId, or RouteTableId with DestinationCidrBlock, names. */
function requireEntry(call: Call, params: Parameters): RouteEntry {
  const entryId = params.optional("RouteEntryId");
  if (entryId !== undefined) {
    const entry = call.cloud.routes.find(entryId);
    const table = visibleTables(call).find((each) => each.id === entry?.routeTableId);
    if (!entry || !table) throw unknownEntry();
    return entry;
  }
  const { table } = requireTarget(call, params.required("RouteTableId"));
  const destination = parseDestination(params.required("DestinationCidrBlock"));
  const entry = call.cloud.routes.at(table.id, destination.toString());
  if (!entry) throw unknownEntry();
  return entry;
}

/** @throws {ApiError} If the entry belongs to the system or to another service. */
export function requireOwn(entry: RouteEntry): void {
  if (entry.type !== "Custom") {
    throw new ApiError(
      400,
      "OperationDenied",
      "The operation is not allowed on a system route entry.",
    );
  }
  if (entry.serviceType !== undefined) {
    throw new ApiError(
      400,
      "OperationDenied.DeleteManagedRouteEntry",
      "The route entry is managed by another service.",
    );
  }
}

/** What a dry run answers when nothing speaks against the call. */
export function dryRunPassed(): ApiError {
  return new ApiError(
    400,
    "DryRunOperation",
    "Request validation has been passed with DryRun flag set.",
  );
}

export function unknownEntry(): ApiError {
  return new ApiError(
    404,
    "InvalidRouteEntry.NotFound",
    "The specified route entry does not exist.",
  );
}

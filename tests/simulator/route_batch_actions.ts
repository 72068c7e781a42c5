import { Prefix } from "../../src/net/mod.ts";
import { ApiError } from "./api_error.ts";
import type { Action, Call } from "./action.ts";
import type { RouteEntry } from "./model.ts";
import type { Parameters } from "./parameters.ts";
import { checkDestination, checkNextHop, checkText, parseDestination } from "./route_rules.ts";
import { dryRunPassed, requireOwn, requireTarget, unknownEntry } from "./route_write_actions.ts";

const MAX_BATCH = 50;

/** Create and delete of up to 50 route entries; each one succeeds or fails by itself. */
export const routeBatchActions: readonly Action[] = [
  { name: "CreateRouteEntries", regionRequired: true, handle: createRouteEntries },
  { name: "DeleteRouteEntries", regionRequired: true, handle: deleteRouteEntries },
];

/** How batches spell the codes of single calls. */
const FAILED_CODES: Readonly<Record<string, string>> = {
  "InvalidCIDRBlock.Duplicate": "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
  "RouterEntryConflict.Duplicated": "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
  "RouteConflict.AlreadyExist": "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
  "InvalidRouteEntry.NotFound": "VPC_ROUTER_ENTRY_NOT_EXIST",
};
const STATUS_ERROR = "VPC_ROUTE_ENTRY_STATUS_ERROR";

interface Failure {
  readonly code: string;
  readonly message: string;
}

function createRouteEntries(call: Call): Record<string, unknown> {
  const { cloud, params } = call;
  const records = readBatch(params);
  const targets = records.map((each) => requireTarget(call, each.required("RouteTableId")));
  for (const each of records) {
    each.required("DstCidrBlock");
    each.required("NextHop");
  }
  if (params.boolean("DryRun")) throw dryRunPassed();
  const middle = entriesInMiddleState(call, records);
  if (!middle) requireIdle(call, targets);
  if (cloud.behaviour.batchQuota === "call") {
    const tables = Map.groupBy(targets, ({ table }) => table);
    for (const [table, { length }] of tables) cloud.routes.requireRoom(table, length);
  }
  const createdIds: string[] = [];
  const failures = records.map((record, index): Failure | undefined => {
    if (middle) return { code: STATUS_ERROR, message: "The route entry is in a middle state." };
    try {
      createdIds.push(createOne(call, record, targets[index]!).id);
      return undefined;
    } catch (error) {
      return failure(error);
    }
  });
  if (createdIds.length > 0) call.performed();
  return { ...summary(records, failures), RouteEntryIds: createdIds };
}

function createOne(
  { cloud }: Call,
  record: Parameters,
  target: ReturnType<typeof requireTarget>,
): RouteEntry {
  const destination = parseDestination(record.required("DstCidrBlock"));
  checkDestination(destination, target, cloud.network);
  // The batch call is stricter than the single one: it takes no destination around a vSwitch.
  for (const { cidr } of cloud.network.vSwitchesOf(target.vpc.id)) {
    if (destination.length > 0 && Prefix.parse(cidr).overlaps(destination)) {
      throw new ApiError(400, "InvalidCidrBlock", "Specified CIDR block is not valid.");
    }
  }
  const version = record.optional("IpVersion");
  if (version !== undefined && version !== String(destination.family)) {
    throw new ApiError(400, "IllegalParam.IpVersion", "The specified IpVersion is not valid.");
  }
  const hop = checkNextHop(
    { type: record.optional("NextHopType"), id: record.required("NextHop") },
    { vpc: target.vpc, family: destination.family, network: cloud.network },
  );
  const name = record.optional("Name");
  const description = record.optional("Description");
  checkText("Name", name, 128);
  checkText("Description", description, 256);
  requireFree(cloud, target.table.id, destination);
  cloud.routes.requireRoom(target.table);
  return cloud.routes.create({
    table: target.table,
    destination: destination.toString(),
    nextHops: [hop],
    name,
    description,
  });
}

function requireFree(cloud: Call["cloud"], tableId: string, destination: Prefix): void {
  if (!cloud.routes.at(tableId, destination.toString())) return;
  // Only the single call rotates among its spellings.
  throw new ApiError(400, "InvalidCIDRBlock.Duplicate", "Specified CIDR block is already exists.");
}

function deleteRouteEntries(call: Call): Record<string, unknown> {
  const { cloud, params } = call;
  const records = readBatch(params);
  const targets = records.map((each) => requireTarget(call, each.required("RouteTableId")));
  if (params.boolean("DryRun")) throw dryRunPassed();
  requireIdle(call, targets);
  let deleted = 0;
  const failures = records.map((record, index): Failure | undefined => {
    try {
      const entry = findOne(call, record, targets[index]!.table.id);
      requireOwn(entry);
      if (entry.status !== "Available") {
        return { code: STATUS_ERROR, message: "The status of the route entry is incorrect." };
      }
      cloud.routes.delete(entry);
      deleted++;
      return undefined;
    } catch (error) {
      return failure(error);
    }
  });
  if (deleted > 0) call.performed();
  return summary(records, failures);
}

/** A batch is one task of each VPC that it is about, however many its entries. */
function requireIdle(
  { cloud }: Call,
  targets: readonly ReturnType<typeof requireTarget>[],
): void {
  for (const id of new Set(targets.map(({ vpc }) => vpc.id))) cloud.routes.requireIdle(id);
}

function findOne({ cloud }: Call, record: Parameters, routeTableId: string): RouteEntry {
  const entryId = record.optional("RouteEntryId");
  if (entryId !== undefined) {
    const entry = cloud.routes.find(entryId);
    if (entry?.routeTableId !== routeTableId) throw unknownEntry();
    return entry;
  }
  const destination = parseDestination(record.required("DstCidrBlock"));
  const entry = cloud.routes.at(routeTableId, destination.toString());
  const hop = record.required("NextHop");
  if (!entry?.nextHops.some((each) => each.id === hop)) throw unknownEntry();
  return entry;
}

function readBatch(params: Parameters): Parameters[] {
  const records = params.records("RouteEntries");
  if (records.length === 0) {
    throw new ApiError(400, "MissingRouteEntries", "RouteEntries is mandatory for this action.");
  }
  if (records.length > MAX_BATCH) {
    throw new ApiError(400, "IllegalParam.RouteEntries", `At most ${MAX_BATCH} RouteEntries.`);
  }
  return records;
}

/** Whether every entry asked for is there already and on its way. */
function entriesInMiddleState({ cloud }: Call, records: readonly Parameters[]): boolean {
  return records.every((record) => {
    const destination = Prefix.tryParse(record.required("DstCidrBlock"));
    const entry = destination &&
      cloud.routes.at(record.required("RouteTableId"), destination.toString());
    return entry?.status === "Pending" && entry.nextHops[0]?.id === record.required("NextHop");
  });
}

function failure(error: unknown): Failure {
  if (!(error instanceof ApiError)) throw error;
  return { code: FAILED_CODES[error.code] ?? error.code, message: error.message };
}

function summary(
  records: readonly Parameters[],
  failures: readonly (Failure | undefined)[],
): Record<string, unknown> {
  const failed = failures.flatMap((each, index) => {
    if (!each) return [];
    const record = records[index]!;
    const entryId = record.optional("RouteEntryId");
    return [{
      DstCidrBlock: record.optional("DstCidrBlock") ?? "",
      NextHop: record.optional("NextHop") ?? "",
      ...(entryId === undefined ? {} : { RouteEntryId: entryId }),
      FailedCode: each.code,
      FailedMessage: each.message,
    }];
  });
  return {
    SuccessCount: records.length - failed.length,
    FailedCount: failed.length,
    FailedRouteEntries: failed,
  };
}

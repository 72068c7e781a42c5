import type { AliVpcClaim, AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import type { VpcClient, VpcInfo } from "./client.ts";
import { type Clock, Patience } from "../routes/patience.ts";
import { RouteTable, type RouteTableOptions } from "../routes/route_table.ts";
import { checkRouteTables } from "./table_check.ts";
import { TableChoice } from "./table_choice.ts";

/** What a host can use that may write routes. */
export interface AliVpcAccess {
  readonly vpc: VpcClient;
  /** The tables that this instance needs for itself. */
  readonly routeTableIds: readonly string[];
  /** Which of them has no room for this instance's entry, and what to do; absent if all have. */
  readonly full?: string;
  /** Finds the further tables that peers need. */
  readonly choice: TableChoice;
  /** The VPC's tables in the scope that the options say. */
  makeRouteTable(options: RouteTableScopeOptions): RouteTable;
}

/** What is left to say of a {@linkcode RouteTable} that the access makes. */
export type RouteTableScopeOptions = Omit<
  RouteTableOptions,
  "vpc" | "log" | "now" | "delay"
>;

/** The tables that vSwitches use are looked up in every so many resyncs, but not more often. */
const TABLES_STALE_RESYNCS = 5;
const TABLES_STALE_MS = 2 * 60_000;

/** Options of {@linkcode openAccess}. */
export interface AccessOptions {
  readonly instance: AliVpcClaim;
  readonly vpc: VpcClient;
  readonly config: AliVpcConfig;
  readonly network: Prefix;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly clock?: Clock;
}

/**
 * Checks all that must hold before a route is written: the VPC may be read and is clear of the
 * network, the right tables are found and may be written. Short trouble and throttling are waited
 * out step by step.
 */
export async function openAccess(options: AccessOptions): Promise<AliVpcAccess> {
  const { instance, vpc, config, network, log, signal, clock } = options;
  const { vpcId, vSwitchId, instanceId } = instance;
  const patience = new Patience({ log, signal, clock: clock ?? {} });
  const vpcInfo = await patience.call(() => vpc.describeVpcAttribute(vpcId, { signal }));
  refuseOverlap(network, vpcInfo);
  const choice = new TableChoice({
    vpc,
    vpcId,
    vSwitchId,
    configured: config.routeTableIds,
    log,
    staleMs: Math.max(TABLES_STALE_MS, TABLES_STALE_RESYNCS * config.resyncSeconds * 1_000),
    ...clock,
  });
  const tables = await patience.call(() => choice.resolveOwn({ signal }));
  const routeTableIds = tables.map((table) => table.id);
  const full = await checkRouteTables({
    vpc,
    routeTableIds,
    network,
    instanceId,
    ...(config.routeQuota === undefined ? {} : { limit: config.routeQuota }),
    patience,
    log,
    signal,
  });
  return {
    vpc,
    routeTableIds,
    ...(full === undefined ? {} : { full }),
    choice,
    makeRouteTable: (scope) => new RouteTable({ ...scope, vpc, log, ...clock }),
  };
}

/** A route inside the VPC's own ranges is refused by the service, or takes vSwitches' traffic. */
function refuseOverlap(network: Prefix, vpc: VpcInfo): void {
  const overlapping = vpc.cidrs.filter((cidr) => cidr.overlaps(network));
  if (overlapping.length === 0) return;
  throw new OperatorError(
    `Cannot use network ${network}: it overlaps ${overlapping.join(" and ")} of VPC ${vpc.id}; ` +
      "choose a network outside the VPC's CIDR blocks",
  );
}

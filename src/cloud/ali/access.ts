/** The checks that must hold before a route is written. @module */
import type { AliVpcClaim, AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import { Patience } from "../routes/patience.ts";
import type { Clock, CloudAccess } from "../routes/provider.ts";
import { TableChoice } from "../routes/table_choice.ts";
import type { AliRoutes } from "./route_api.ts";
import { checkRouteTables } from "./table_check.ts";
import { tableDirectory } from "./table_directory.ts";
import type { VpcClient } from "./vpc_client.ts";
import type { VpcInfo } from "./vpc_replies.ts";
import { WORDS } from "./words.ts";

/** The tables that vSwitches use are looked up in every so many resyncs, but not more often. */
const TABLES_STALE_RESYNCS = 5;
const TABLES_STALE_MS = 2 * 60_000;

export interface AccessOptions {
  readonly instance: AliVpcClaim;
  readonly vpc: VpcClient;
  readonly routes: AliRoutes;
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
export async function openAccess(options: AccessOptions): Promise<CloudAccess> {
  const { instance, vpc, routes, config, network, log, signal, clock } = options;
  const { vpcId, vSwitchId, instanceId } = instance;
  const patience = new Patience({ words: WORDS, log, signal, clock: clock ?? {} });
  const vpcInfo = await patience.call(() => vpc.describeVpcAttribute(vpcId, { signal }));
  refuseOverlap(network, vpcInfo);
  const choice = new TableChoice({
    directory: tableDirectory(vpc, vpcId),
    vpcId,
    subnetId: vSwitchId,
    configured: config.routeTableIds,
    log,
    staleMs: Math.max(TABLES_STALE_MS, TABLES_STALE_RESYNCS * config.resyncSeconds * 1_000),
    ...clock,
  });
  const tables = await patience.call(() => choice.resolveOwn({ signal }));
  const routeTableIds = tables.map((table) => table.id);
  const full = await checkRouteTables({
    vpc,
    routes,
    routeTableIds,
    network,
    instanceId,
    ...(config.routeQuota === undefined ? {} : { limit: config.routeQuota }),
    patience,
    log,
    signal,
  });
  return {
    routeTableIds,
    ...(full === undefined ? {} : { full }),
    tablesFor: (leases, each) => choice.forPeers(leases, each),
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

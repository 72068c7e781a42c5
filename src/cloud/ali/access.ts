/** The checks that must hold before a route is written. @module */
import type { AliVpcClaim, AliVpcConfig } from "../../backends/ali_vpc.ts";
import { OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import { CloudApiError } from "../routes/cloud_error.ts";
import { type Patience, startPatience } from "../routes/patience.ts";
import type { Clock, CloudAccess } from "../routes/provider.ts";
import { countEntries, tableFull } from "../routes/route_writer.ts";
import { TableChoice } from "../routes/table_choice.ts";
import { fillLevel } from "../routes/table_quota.ts";
import type { VpcClient } from "./vpc_client.ts";
import { ROUTE_QUOTA, WORDS } from "./words.ts";

/** The tables that vSwitches use are looked up in every so many resyncs, but not more often. */
const TABLES_STALE_RESYNCS = 5;
const TABLES_STALE_MS = 2 * 60_000;

export interface AccessOptions {
  readonly instance: AliVpcClaim;
  readonly vpc: VpcClient;
  readonly config: AliVpcConfig;
  readonly network: Prefix;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly clock: Partial<Clock>;
}

/**
 * Checks all that must hold before a route is written: the VPC may be read and is clear of the
 * network, the right tables are found and may be written. Short trouble and throttling are waited
 * out step by step.
 */
export async function openAccess(options: AccessOptions): Promise<CloudAccess> {
  const { instance: { vpcId, vSwitchId }, vpc, config, network, log, signal, clock } = options;
  const patience = startPatience({ words: WORDS, log, signal, clock });
  refuseOverlap(network, vpcId, await patience(() => vpc.cidrs({ signal })));
  const choice = new TableChoice({
    directory: vpc,
    vpcId,
    subnetId: vSwitchId,
    configured: config.routeTableIds,
    log,
    staleMs: Math.max(TABLES_STALE_MS, TABLES_STALE_RESYNCS * config.resyncSeconds * 1_000),
    ...clock,
  });
  const tables = await patience(() => choice.resolveOwn({ signal }));
  const routeTableIds = tables.map((table) => table.id);
  const full = await checkRouteTables(routeTableIds, patience, options);
  return {
    routeTableIds,
    ...(full === undefined ? {} : { full }),
    tablesFor: (leases, each) => choice.forPeers(leases, each),
  };
}

/** A route inside the VPC's own ranges is refused by the service, or takes vSwitches' traffic. */
function refuseOverlap(network: Prefix, vpcId: string, cidrs: readonly Prefix[]): void {
  const overlapping = cidrs.filter((cidr) => cidr.overlaps(network));
  if (overlapping.length === 0) return;
  throw new OperatorError(
    `Cannot use network ${network}: it overlaps ${overlapping.join(" and ")} of VPC ${vpcId}; ` +
      "choose a network outside the VPC's CIDR blocks",
  );
}

/**
 * Whether the tables may be read and written; returns which of them has no room for an entry of
 * this instance, if one has none. One that holds an entry already is asked no further.
 *
 * @throws {CloudApiError} What the service refuses.
 */
async function checkRouteTables(
  routeTableIds: readonly string[],
  patience: Patience,
  options: AccessOptions,
): Promise<string | undefined> {
  const { vpc, config: { routeQuota: limit }, log, signal } = options;
  const fills = new Map<string, number>();
  let full: string | undefined;
  for (const id of routeTableIds) {
    if (await patience(() => holdsEntry(id, options))) continue;
    const used = await countEntries(vpc, id, { signal });
    if (used !== undefined) fills.set(id, used);
    const refusal = await patience(() => tryToWrite(id, used, options));
    if (refusal !== undefined) full ??= `route table ${id}: ${refusal}`;
  }
  // A table past the default quota shows that the account's was raised.
  const raised = [...fills.values()].some((used) => used > vpc.defaultQuota);
  if (full !== undefined || (limit === undefined && raised)) return full;
  for (const [id, used] of fills) {
    const level = fillLevel(used, limit, vpc.defaultQuota);
    if (level === "roomy") continue;
    log.warn(
      `Route table ${id} is ${level}` +
        (limit === undefined ? ", unless its quota was raised (RouteQuota says so)" : "") +
        `: each host of the network takes one entry (quota ${ROUTE_QUOTA})`,
      { used, limit: limit ?? vpc.defaultQuota },
    );
  }
  return undefined;
}

/** Whether an entry of an earlier run is there, which will most likely do. */
async function holdsEntry(
  routeTableId: string,
  { vpc, network, instance: { instanceId }, signal }: AccessOptions,
): Promise<boolean> {
  const entries = await vpc.readLeadingTo(routeTableId, instanceId, { signal });
  return entries.some(({ destination }) => network.contains(destination));
}

/** Asks for rights, parameters and quota, and writes nothing; says so if the table is full. */
async function tryToWrite(
  routeTableId: string,
  used: number | undefined,
  { vpc, network, instance: { instanceId }, log, signal }: AccessOptions,
): Promise<string | undefined> {
  // Our subnet is not known yet; nobody routes a single address of the network.
  const destination = new Prefix(network.last, 32);
  try {
    await vpc.tryCreate({ routeTableId, destination, instanceId, mark: "flanneld" }, { signal });
  } catch (error) {
    if (!(error instanceof CloudApiError)) throw error;
    const { reaction } = error;
    if (reaction.do === "quota") return tableFull(used, error);
    // How much a dry run checks is not documented: only a plain denial counts.
    const isPlain = reaction.do === "denied" || reaction.do === "credentials" ||
      (reaction.do === "fatal" && (reaction.about === "key" || reaction.about === "clock"));
    if (isPlain) throw error;
    if (reaction.do === "fatal") {
      log.debug("A dry run of CreateRouteEntry failed", { error: error.message });
    }
  }
  return undefined;
}

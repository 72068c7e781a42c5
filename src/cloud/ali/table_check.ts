/** Whether route tables can be read and written, and have room. @module */
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import { CloudApiError } from "../routes/cloud_error.ts";
import type { Patience } from "../routes/patience.ts";
import { countEntries, tableFull } from "../routes/route_writer.ts";
import { fillLevel } from "../routes/table_quota.ts";
import type { AliRoutes } from "./route_api.ts";
import type { VpcClient } from "./vpc_client.ts";
import { ROUTE_QUOTA } from "./words.ts";

export interface TableCheckOptions {
  readonly vpc: VpcClient;
  readonly routes: AliRoutes;
  readonly routeTableIds: readonly string[];
  readonly network: Prefix;
  readonly instanceId: string;
  /** Custom entries that each table may hold; absent where nobody said. */
  readonly limit?: number;
  /** Waits out what passes, one call at a time. */
  readonly patience: Patience;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/**
 * Whether the tables may be read and written; returns which of them has no room for an entry of
 * this instance, if one has none. One that holds an entry already is asked no further.
 *
 * @throws {CloudApiError} What the service refuses.
 */
export async function checkRouteTables(options: TableCheckOptions): Promise<string | undefined> {
  const { routes, routeTableIds, limit, patience, log, signal } = options;
  const { defaultQuota } = routes;
  const fills = new Map<string, number>();
  let full: string | undefined;
  for (const id of routeTableIds) {
    if (await patience.call(() => holdsEntry(id, options))) continue;
    const used = await countEntries(routes, id, { signal });
    if (used !== undefined) fills.set(id, used);
    const refusal = await patience.call(() => tryToWrite(id, used, options));
    if (refusal !== undefined) full ??= `route table ${id}: ${refusal}`;
  }
  // A table past the default quota shows that the account's was raised.
  const raised = [...fills.values()].some((used) => used > defaultQuota);
  if (full !== undefined || (limit === undefined && raised)) return full;
  for (const [id, used] of fills) {
    const level = fillLevel(used, limit, defaultQuota);
    if (level === "roomy") continue;
    log.warn(
      `Route table ${id} is ${level}` +
        (limit === undefined ? ", unless its quota was raised (RouteQuota says so)" : "") +
        `: each host of the network takes one entry (quota ${ROUTE_QUOTA})`,
      { used, limit: limit ?? defaultQuota },
    );
  }
  return undefined;
}

/** Whether an entry of an earlier run is there, which will most likely do. */
async function holdsEntry(
  routeTableId: string,
  { vpc, network, instanceId, signal }: TableCheckOptions,
): Promise<boolean> {
  const mine = await vpc.describeRouteEntryList(
    routeTableId,
    { type: "Custom", nextHopId: instanceId },
    { signal },
  );
  return mine.some((entry) =>
    network.contains(entry.destination) && entry.nextHops.some((hop) => hop.id === instanceId)
  );
}

/** Asks for rights, parameters and quota, and writes nothing; says so if the table is full. */
async function tryToWrite(
  routeTableId: string,
  used: number | undefined,
  { vpc, network, instanceId, log, signal }: TableCheckOptions,
): Promise<string | undefined> {
  try {
    await vpc.createRouteEntry({
      routeTableId,
      // Our subnet is not known yet; any destination within the network does, and nobody routes a
      // single address of it.
      destination: new Prefix(network.last, 32),
      instanceId,
      name: "flanneld",
      dryRun: true,
      signal,
    });
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

import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import type { RouteEntry, VpcClient } from "./client.ts";
import { AliApiError } from "./errors.ts";
import { routeEntryName } from "./route_entry.ts";
import { countEntries, tableFull } from "./route_table.ts";

/** Entries per table where nobody raised the quota. The service tells no other number. */
const DEFAULT_QUOTA = 200;

/** Whether the table may be read and written, and has room for our entry. */
export async function checkRouteTable(
  vpc: VpcClient,
  routeTableId: string,
  context: {
    readonly network: Prefix;
    readonly instanceId: string;
    readonly log: Logger;
    readonly signal: AbortSignal;
  },
): Promise<void> {
  const { network, instanceId, log, signal } = context;
  const mine: readonly RouteEntry[] = await vpc.describeRouteEntryList(
    routeTableId,
    { type: "Custom", nextHopId: instanceId },
    { signal },
  );
  const held = mine.some((entry) =>
    network.contains(entry.destination) && entry.nextHops.some((hop) => hop.id === instanceId)
  );
  // An entry of an earlier run will most likely do; nothing is to be asked of the service.
  if (held) return;
  const used = await countEntries(vpc, routeTableId, { signal });
  if (used !== undefined && used >= DEFAULT_QUOTA * 0.8 && used < DEFAULT_QUOTA) {
    log.warn(
      `Route table ${routeTableId} is nearly full unless its quota was raised: each host of the ` +
        "network takes one entry (quota vpc_quota_route_entrys_num)",
      { used, limit: DEFAULT_QUOTA },
    );
  }
  try {
    // Asks for rights, parameters and quota, and writes nothing. Our subnet is not known yet; any
    // destination within the network does, and nobody routes a single address of it.
    await vpc.createRouteEntry({
      routeTableId,
      destination: new Prefix(network.last, 32),
      instanceId,
      name: routeEntryName(network, instanceId),
      dryRun: true,
      signal,
    });
  } catch (error) {
    if (!(error instanceof AliApiError)) throw error;
    const { reaction } = error;
    if (reaction.do !== "stop") {
      if (reaction.do === "credentials") throw error;
      return;
    }
    if (reaction.cause === "quota") {
      // Other hosts leave, and quotas are raised: to be waited out, without a lease.
      throw new Error(`Cannot use route table ${routeTableId}: ${tableFull(used, error)}`, {
        cause: error,
      });
    }
    // How much a dry run checks is not documented: only a plain denial counts.
    if (reaction.cause === "denied" || reaction.cause === "key" || reaction.cause === "clock") {
      throw error;
    }
    log.debug("A dry run of CreateRouteEntry was answered with an error", { error: error.message });
  }
}

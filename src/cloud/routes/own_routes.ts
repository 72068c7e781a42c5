/** Removes a host's routes when it leaves the cluster. @module */
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import { Reconciler } from "../../reconcile/reconciler.ts";
import { sentenceOf } from "../../status/problems.ts";
import { Backoff } from "../../util/time.ts";
import type { Cloud } from "./provider.ts";
import { RouteTable } from "./route_table.ts";

export interface RemoveOwnRoutesOptions {
  readonly network: Prefix;
  /** Absent where the store has none, so that no entry can be the cluster's. */
  readonly clusterId: string | undefined;
  /** The subnets that the host has given back. */
  readonly released: readonly Prefix[];
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Rounds of looking and removing. */
const ATTEMPTS = 3;

/**
 * Removes the route entries of this instance from all tables that may hold them: those of its
 * cluster, and at the subnets that it has given back also those with an older or another cluster's
 * mark, which lead here just as well. To be used once its lease is released, since the leader would
 * make them again. Returns how many went.
 *
 * @throws {Error} With what could not be removed.
 */
export async function removeOwnRoutes(
  cloud: Cloud,
  { network, clusterId, released, log, signal }: RemoveOwnRoutesOptions,
): Promise<number> {
  const { instance: { instanceId }, routes: api, clock } = cloud;
  const table = new RouteTable({ ...clock, api, mark: { clusterId, network }, instanceId, log });
  const routeTableIds = await cloud.listTables({ signal });
  table.setScope({ routeTableIds, otherTableIds: [], claims: [], released });
  const reconciler = new Reconciler({
    name: "cloud",
    stages: [{ table, desired: () => [] }],
    resyncMs: Infinity,
    log,
  });
  const backoff = new Backoff({ initialMs: 1_000, maxMs: 5_000 });
  let removed = 0;
  for (let attempt = 1;; attempt++) {
    const { problems, changed } = await reconciler.round({ signal });
    removed += changed;
    const unread = [...table.view.tables].flatMap(([id, { error }]) =>
      error === undefined ? [] : [`Cannot read route table ${id}: ${error}`]
    );
    const [problem] = [...problems.map(sentenceOf), ...unread];
    if (problem === undefined) return removed;
    if (attempt === ATTEMPTS) throw new Error(problem);
    await backoff.wait({ signal });
  }
}

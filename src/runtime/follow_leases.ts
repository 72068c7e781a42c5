/**
 * Folds what the store tells of leases into the map of them, in slices.
 *
 * @module
 */
import type { LeaseMap } from "../lease/lease_map.ts";
import type { ChangedLeases } from "../lease/peers.ts";
import type { Logger } from "../log.ts";
import type { LeaseEvent, LeaseStore } from "../store/lease_store.ts";
import { inSlices } from "../util/slices.ts";
import type { Condition } from "../status/readiness.ts";
import { Outage, type ProblemLog } from "../status/problems.ts";

/** How long peers may be out of date before the daemon counts as not ready. */
const STALE_AFTER_MS = 60_000;

/** Options of {@linkcode followLeases}. */
export interface FollowLeasesOptions {
  readonly store: Pick<LeaseStore, "followLeases">;
  /** What the store says is folded into this. */
  readonly leases: LeaseMap;
  /** Told of entries that are no leases. */
  readonly skipped: ProblemLog;
  /** In doubt while the store is not followed. */
  readonly condition: Condition;
  readonly log: Logger;
  /** Called after leases have changed, and after the first snapshot. */
  readonly onChange: (changed: ChangedLeases) => void;
  readonly signal: AbortSignal;
}

/** Follows the leases in the store, until `signal` aborts. */
export async function followLeases(options: FollowLeasesOptions): Promise<void> {
  const { store, leases, skipped, condition, log, onChange, signal } = options;
  const following = new Outage(log, {
    code: "store-unreachable",
    object: "leases",
    failed: "Peers are not followed at present",
    recovered: "Peers are followed again",
  });
  for await (const update of store.followLeases({ signal })) {
    if (update.type === "disconnected") {
      const { message, ...problem } = following.failing(update.error);
      condition.doubtful(
        { ...problem, message: `peers may be out of date: ${message}` },
        STALE_AFTER_MS,
      );
      continue;
    }
    following.working();
    condition.met();
    const first = !leases.complete;
    const folding = update.type === "snapshot"
      ? leases.replaceInSteps(update.entries)
      : fold(update.events, leases);
    const changed = await inSlices(folding, { signal });
    if (leases.skippedCount > 0 || skipped.count > 0) {
      skipped.set([...leases.skipped()].map(([object, message]) => ({
        code: "entry-skipped",
        object,
        message,
      })));
    }
    if (first) log.info("Leases of the network are known", { leases: leases.size });
    else if (changed.size > 0) log.debug("Leases changed", { leases: leases.size });
    if (first || changed.size > 0) onChange(first ? "all" : changed);
  }
}

/** Events folded in between two steps; some tenths of a millisecond. */
const STEP_EVENTS = 32;

/** Returns the keys of the leases that changed. */
function* fold(
  events: readonly LeaseEvent[],
  leases: LeaseMap,
): Generator<void, ReadonlySet<string>> {
  const changed = new Set<string>();
  let count = 0;
  for (const event of events) {
    if (++count % STEP_EVENTS === 0) yield;
    const keys = event.type === "put" ? leases.put(event.entry) : leases.delete(event.key);
    keys.forEach((key) => changed.add(key));
  }
  return changed;
}

/**
 * Reconcilers on whose success readiness depends.
 *
 * @module
 */
import { Reconciler, type ReconcilerOptions } from "../reconcile/reconciler.ts";
import type { ConditionId, Finding } from "../status/model.ts";
import type { Condition } from "../status/readiness.ts";

/** Options of {@linkcode watchedReconciler}. */
export interface WatchedReconcilerOptions
  extends Pick<ReconcilerOptions, "stages" | "resyncMs" | "prepare" | "log"> {
  /** What its success decides on; the reconciler has its name. */
  readonly condition: Condition;
  /** Why the condition does not hold although every Table is in order. */
  readonly hold?: () => Finding | undefined;
}

/** How long a repair may take before the daemon counts as not ready. */
const REPAIR_MS = 2_000;
/** A Table that cannot be read for this long, or for three rounds, counts as not in order. */
const UNSEEN_MS = 60_000;

/** A reconciler on whose success readiness depends. */
export function watchedReconciler(
  { condition, hold, ...options }: WatchedReconcilerOptions,
): Reconciler {
  const { id } = condition;
  condition.unmet(notSetUp(id));
  return new Reconciler({
    ...options,
    name: id,
    onPending: (message) =>
      condition.doubtful({ code: "not-in-place", object: id, message }, REPAIR_MS),
    onReport({ inSync, unseen, problems: [problem, ...more] }) {
      const held = hold?.();
      if (inSync && held !== undefined) condition.doubtful(held, REPAIR_MS);
      else if (inSync) condition.met();
      else if (problem === undefined) return; // what is desired has changed: another round follows
      else if (unseen) condition.doubtful(problem, Math.max(UNSEEN_MS, 3 * options.resyncMs));
      else condition.unmet(problem, ...more);
    },
  });
}

/** Said of a reconciler before its first round. */
export function notSetUp(id: ConditionId): Finding {
  return { code: "not-set-up", object: id, message: "not set up yet" };
}

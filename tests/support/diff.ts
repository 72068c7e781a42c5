/** The difference of two lists, as one round of the reconciler finds it. @module */
import { type Difference, diffInSteps, indexDesired } from "../../src/reconcile/diff.ts";
import type { Kind } from "../../src/reconcile/table.ts";
import { atOnce } from "../../src/util/slices.ts";

/** The changes that bring `actual` to `desired`. */
export function diff<Spec>(
  kind: Kind<Spec>,
  desired: readonly Spec[],
  actual: readonly Spec[],
): Difference<Spec> {
  return atOnce(diffInSteps(kind, indexDesired(kind, desired), actual));
}

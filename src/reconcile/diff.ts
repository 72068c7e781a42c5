import { atOnce } from "../util/slices.ts";
import type { Change, Conflict, Kind } from "./table.ts";

/** What separates actual from desired state. */
export interface Difference<Spec> {
  /** Adds and replacements, in the order of `desired`. */
  readonly writes: readonly Change<Spec>[];
  /** Own objects that nothing desires any more. */
  readonly removals: readonly Change<Spec>[];
  readonly conflicts: readonly Conflict<Spec>[];
}

/**
 * The changes that bring `actual` to `desired`. Foreign objects are neither changed nor removed.
 * Pure; cost is linear in both lists.
 *
 * @throws {TypeError} If two desired objects have one key: the plan contradicts itself.
 */
export function diff<Spec>(
  kind: Kind<Spec>,
  desired: readonly Spec[],
  actual: readonly Spec[],
): Difference<Spec> {
  return atOnce(diffInSteps(kind, desired, actual));
}

/** Objects looked at between two steps; some tenths of a millisecond. */
const STEP_OBJECTS = 512;

/** Like {@linkcode diff}, with pauses, so that long lists need not keep other work waiting. */
export function* diffInSteps<Spec>(
  kind: Kind<Spec>,
  desired: readonly Spec[],
  actual: readonly Spec[],
): Generator<void, Difference<Spec>> {
  let count = 0;
  const wanted = yield* indexDesired(kind, desired);
  /** What was found for each of `desired`, in its order. */
  const found = new Array<Spec | undefined>(desired.length).fill(undefined);
  const removals: Change<Spec>[] = [];
  for (const object of actual) {
    if (++count % STEP_OBJECTS === 0) yield;
    const index = wanted.get(kind.key(object));
    if (index !== undefined && found[index] === undefined) found[index] = object;
    // A second object of one key (duplicate rules, say): whichever is ours goes.
    else if (kind.owns(object)) removals.push({ op: "remove", actual: object });
  }
  const writes: Change<Spec>[] = [];
  const conflicts: Conflict<Spec>[] = [];
  for (let i = 0; i < desired.length; i++) {
    if (++count % STEP_OBJECTS === 0) yield;
    const spec = desired[i]!;
    const object = found[i];
    if (object === undefined) writes.push({ op: "add", desired: spec });
    else if (kind.equal(spec, object)) continue;
    else if (kind.owns(object)) writes.push({ op: "replace", desired: spec, actual: object });
    else conflicts.push({ desired: spec, actual: object });
  }
  return { writes, removals, conflicts };
}

/** The latest index of a desired list: one list is compared many times before another comes. */
const indexes = new WeakMap<
  readonly unknown[],
  { readonly kind: unknown; readonly index: ReadonlyMap<string, number> }
>();

/** Places in `desired` by key. */
function* indexDesired<Spec>(
  kind: Kind<Spec>,
  desired: readonly Spec[],
): Generator<void, ReadonlyMap<string, number>> {
  const known = indexes.get(desired);
  if (known?.kind === kind && known.index.size === desired.length) return known.index;
  const index = new Map<string, number>();
  for (const spec of desired) {
    if (index.size % STEP_OBJECTS === STEP_OBJECTS - 1) yield;
    const key = kind.key(spec);
    if (index.has(key)) {
      throw new TypeError(`Cannot plan ${kind.name} ${key}: it is desired twice`);
    }
    index.set(key, index.size);
  }
  indexes.set(desired, { kind, index });
  return index;
}

/** `add route 10.5.7.0/24 via 192.0.2.7`, for logs, dry run and tests. */
export function formatChange<Spec>(kind: Kind<Spec>, change: Change<Spec>): string {
  return `${change.op} ${kind.name} ${
    kind.format(change.op === "remove" ? change.actual : change.desired)
  }`;
}

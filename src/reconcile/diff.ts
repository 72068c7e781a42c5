import type { Change, Conflict, Kind } from "./table.ts";
import type { DesiredByKey, Wanted } from "../state/wanted.ts";

/** What separates actual from desired state. */
export interface Difference<Spec> {
  /** Adds and replacements, in the order of `desired`. */
  readonly writes: readonly Change<Spec>[];
  /** Own objects that nothing desires any more. */
  readonly removals: readonly Change<Spec>[];
  readonly conflicts: readonly Conflict<Spec>[];
  /** Objects of ours, or wanted, that were found; not counted where only changes were looked at. */
  readonly found?: number;
}

/** Objects looked at between two steps; some tenths of a millisecond. */
const STEP_OBJECTS = 128;

/**
 * The changes that bring `actual` to `desired`. Foreign objects are neither changed nor removed.
 * Pure; cost is linear in both lists, with pauses so that long ones keep no other work waiting.
 */
export function* diffInSteps<Spec>(
  kind: Kind<Spec>,
  desired: DesiredByKey<Spec>,
  actual: Iterable<Spec>,
): Generator<void, Difference<Spec>> {
  let count = 0;
  /** Desired objects that were found; not their keys, of which this makes thousands. */
  const found = new Set<Spec>();
  /** What was found where that is not right. */
  const wrong = new Map<Spec, Spec>();
  const removals: Change<Spec>[] = [];
  for (const object of actual) {
    if (++count % STEP_OBJECTS === 0) yield;
    const key = kind.key(object);
    const spec = desired.get(key);
    if (spec !== undefined && found.size < found.add(spec).size) {
      if (!kind.equal(spec, object)) wrong.set(spec, object);
    } // A second object of one key (duplicate rules, say): whichever is ours goes.
    else if (kind.owns(object)) removals.push({ op: "remove", actual: object });
  }
  const writes: Change<Spec>[] = [];
  const conflicts: Conflict<Spec>[] = [];
  const isRight = found.size === desired.size && wrong.size === 0;
  for (const [, spec] of isRight ? [] : desired.entries()) {
    if (++count % STEP_OBJECTS === 0) yield;
    const object = wrong.get(spec);
    if (object === undefined) {
      if (!found.has(spec)) writes.push({ op: "add", desired: spec });
    } else if (kind.owns(object)) writes.push({ op: "replace", desired: spec, actual: object });
    else conflicts.push({ desired: spec, actual: object });
  }
  return { writes, removals, conflicts, found: found.size + removals.length };
}

/**
 * The changes for those objects that are no longer what they were when the Table was last made to
 * match: they are `changes`, with what was desired and is taken to be there, and `doubtful`, keys
 * of objects that are said to have gone. A doubtful object is written, or removed, whatever else is
 * thought of it: what said so may be older than the last write.
 */
export function* diffChangesInSteps<Spec>(
  kind: Kind<Spec>,
  desired: Wanted<Spec>,
  changes: ReadonlyMap<string, Spec | undefined>,
  doubtful: ReadonlySet<string>,
): Generator<void, Difference<Spec>> {
  const writes: Change<Spec>[] = [];
  const removals: Change<Spec>[] = [];
  let count = 0;
  for (const [key, actual] of changes) {
    if (++count % STEP_OBJECTS === 0) yield;
    const spec = desired.get(key);
    if (spec === undefined) {
      if (actual !== undefined) removals.push({ op: "remove", actual });
    } else if (actual === undefined || doubtful.has(key)) {
      writes.push({ op: "add", desired: spec });
    } else if (!kind.equal(spec, actual)) {
      writes.push({ op: "replace", desired: spec, actual });
    }
  }
  for (const key of doubtful) {
    const spec = changes.has(key) ? undefined : desired.get(key);
    if (spec !== undefined) writes.push({ op: "add", desired: spec });
  }
  return { writes, removals, conflicts: [] };
}

/** A list of desired objects by their keys. @throws {TypeError} If two have one key. */
export function indexDesired<Spec>(
  kind: Kind<Spec>,
  desired: readonly Spec[],
): ReadonlyMap<string, Spec> {
  const index = new Map<string, Spec>();
  for (const spec of desired) {
    const key = kind.key(spec);
    if (index.has(key)) {
      throw new TypeError(`Cannot plan ${kind.name} ${key}: it is desired twice`);
    }
    index.set(key, spec);
  }
  return index;
}

/** `add route 10.5.7.0/24 via 192.0.2.7`, for logs, dry run and tests. */
export function formatChange<Spec>(kind: Kind<Spec>, change: Change<Spec>): string {
  return `${change.op} ${kind.name} ${
    kind.format(change.op === "remove" ? change.actual : change.desired)
  }`;
}

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
  const found = new Map<string, Spec>();
  const removals: Change<Spec>[] = [];
  for (const object of actual) {
    const key = kind.key(object);
    if (!found.has(key)) found.set(key, object);
    // A second object of one key (duplicate rules, say): whichever is ours goes.
    else if (kind.owns(object)) removals.push({ op: "remove", actual: object });
  }
  const writes: Change<Spec>[] = [];
  const conflicts: Conflict<Spec>[] = [];
  const wanted = new Set<string>();
  for (const spec of desired) {
    const key = kind.key(spec);
    if (wanted.has(key)) {
      throw new TypeError(`Cannot plan ${kind.name} ${key}: it is desired twice`);
    }
    wanted.add(key);
    const object = found.get(key);
    if (object === undefined) writes.push({ op: "add", desired: spec });
    else if (kind.equal(spec, object)) continue;
    else if (kind.owns(object)) writes.push({ op: "replace", desired: spec, actual: object });
    else conflicts.push({ desired: spec, actual: object });
  }
  for (const [key, object] of found) {
    if (!wanted.has(key) && kind.owns(object)) removals.push({ op: "remove", actual: object });
  }
  return { writes, removals, conflicts };
}

/** `add route 10.5.7.0/24 via 192.0.2.7`, for logs, dry run and tests. */
export function formatChange<Spec>(kind: Kind<Spec>, change: Change<Spec>): string {
  return `${change.op} ${kind.name} ${
    kind.format(change.op === "remove" ? change.actual : change.desired)
  }`;
}

import type { KindId } from "../state/mod.ts";

/** What a kind of object is: its identity, when two are the same, and which ones are ours. */
export interface Kind<Spec> {
  readonly id: KindId;
  /** The noun in messages, singular: `route`, `route entry`, `rule set`. */
  readonly name: string;
  /** Identity within the Table. Two specs of one key cannot exist side by side. */
  key(spec: Spec): string;
  /** Whether `actual` already is what `desired` asks for; every owned field is compared. */
  equal(desired: Spec, actual: Spec): boolean;
  /**
   * Whether an object found in the Table belongs to this daemon, so that it may be changed or
   * removed. An object that is not ours is never touched: one that stands where a desired object
   * should be is a {@linkcode Conflict}.
   */
  owns(actual: Spec): boolean;
  /** One line, in the style of iproute2, for logs, dry run and tests. */
  format(spec: Spec): string;
  /** What an operator can do about `actual`, which is not ours and in the way; without full stop. */
  adviseConflict?(actual: Spec): string;
}

/** One step that brings a Table nearer to the desired state. */
export type Change<Spec> =
  | { readonly op: "add"; readonly desired: Spec }
  | { readonly op: "replace"; readonly desired: Spec; readonly actual: Spec }
  | { readonly op: "remove"; readonly actual: Spec };

/** A foreign object that stands where a desired one should be. */
export interface Conflict<Spec> {
  readonly desired: Spec;
  readonly actual: Spec;
}

/** A change that failed; the others of the same `apply` were still tried. */
export interface FailedChange<Spec> {
  readonly change: Change<Spec>;
  readonly error: Error;
  /** The object serves as it is, and the Table has said what was to be said: no problem. */
  readonly serves?: true;
}

/**
 * A set of objects outside the process: a kernel table, a cloud's route table, a file.
 *
 * - `list` reads the actual state anew each time, completely; a listing cut short is an error,
 *   never a short list. It includes foreign objects (or leaves out those that can neither be
 *   ours nor be in the way).
 * - `apply` is idempotent: adding what is there and removing what is gone succeed. It tries every
 *   change and returns the failed ones; it throws only when nothing could be tried, or on abort
 *   (with `signal.reason`). Adds and replacements come before removals in `changes`.
 */
export interface Table<Spec> {
  readonly kind: Kind<Spec>;
  list(options: { signal: AbortSignal }): Promise<readonly Spec[]>;
  /** `list` where objects are many: each is made when it is come to; to be gone through once. */
  scan?(options: { signal: AbortSignal }): Promise<Iterable<Spec>>;
  apply(
    changes: readonly Change<Spec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<Spec>[]>;
}

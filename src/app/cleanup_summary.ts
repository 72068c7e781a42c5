/**
 * Counts what `flanneld cleanup` removes, for its last line.
 *
 * @module
 */
import type { Change, FailedChange, Table } from "../reconcile/table.ts";
import type { AnyStage } from "../reconcile/reconciler.ts";

/** What a clean-up has removed and what it leaves, for its last line. */
export class CleanUpSummary {
  readonly #removed = new Map<string, number>();
  readonly #left: string[] = [];

  /** Counts one more object of `kind`: `link`. */
  removed(kind: string, count = 1): void {
    if (count > 0) this.#removed.set(kind, (this.#removed.get(kind) ?? 0) + count);
  }

  /** Notes what stays, with the reason: `the lease, without --release`. */
  left(what: string): void {
    this.#left.push(what);
  }

  /** `stage`, whose changes are counted. */
  counting(stage: AnyStage): AnyStage {
    const { table } = stage;
    const counted: Table<unknown> = {
      kind: table.kind,
      list: (options) => table.list(options),
      apply: async (changes: readonly Change<unknown>[], options) => {
        const failed: readonly FailedChange<unknown>[] = await table.apply(changes, options);
        this.removed(table.kind.name, changes.length - failed.length);
        return failed as FailedChange<unknown>[];
      },
    };
    return { ...stage, table: counted, desired: () => stage.desired() };
  }

  /** `Removed 1 link and 2 routes; left the lease, without --release`. */
  toString(): string {
    const removed = [...this.#removed].map(([kind, count]) => countOf(count, kind));
    const left = this.#left.length === 0 ? "" : `; left ${joined(this.#left)}`;
    return (removed.length === 0 ? "There was nothing to remove" : `Removed ${joined(removed)}`) +
      left;
  }
}

/** `1 address`, `2 addresses`, `3 forwarding entries`. */
function countOf(count: number, noun: string): string {
  if (count === 1) return `1 ${noun}`;
  if (noun.endsWith("y")) return `${count} ${noun.slice(0, -1)}ies`;
  return `${count} ${noun}${noun.endsWith("s") ? "es" : "s"}`;
}

function joined(parts: readonly string[]): string {
  const last = parts.at(-1)!;
  return parts.length === 1 ? last : `${parts.slice(0, -1).join(", ")} and ${last}`;
}

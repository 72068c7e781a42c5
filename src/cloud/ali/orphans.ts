import type { Prefix } from "../../net/mod.ts";
import { keyOf, type Place } from "./route_entry.ts";

/** A route entry that nobody needs any more, as it is published for the next writer. */
export interface Orphan {
  readonly routeTableId: string;
  readonly destination: Prefix;
  /** Milliseconds since the epoch. */
  readonly sinceMs: number;
}

/** Options of {@linkcode Orphans}. */
export interface OrphansOptions {
  /** How long an entry must have been an orphan before it may go. */
  readonly graceMs: number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
  /** Milliseconds since the epoch. @default {Date.now} */
  readonly wallNow?: () => number;
}

interface Known {
  readonly routeTableId: string;
  readonly destination: Prefix;
  /** On the clock that only goes forward, so that no step of the other one ends a grace. */
  readonly since: number;
  /** The same on the other clock, as it was handed on last. */
  sinceMs?: number;
}

/** The two clocks differ by a millisecond more or less each time, which is no news to hand on. */
const CLOCKS_AGREE_MS = 1_000;

/**
 * Since when entries have been orphans: a host that is away for a moment finds its entry where it
 * was. An entry that is needed again, or gone, leaves the book; its next time begins anew.
 */
export class Orphans {
  readonly #options: Required<OrphansOptions>;
  readonly #known = new Map<string, Known>();

  constructor(options: OrphansOptions) {
    this.#options = { now: () => performance.now(), wallNow: Date.now, ...options };
  }

  /** Takes over what a former writer knew; of two times for one entry, the earlier one. */
  seed(orphans: Iterable<Orphan>): void {
    const { now, wallNow } = this.#options;
    for (const { routeTableId, destination, sinceMs } of orphans) {
      // Another host's clock may be ahead of ours.
      const ageMs = Math.max(0, wallNow() - sinceMs);
      const known = { routeTableId, destination, since: now() - ageMs, sinceMs };
      const key = keyOf(known);
      if ((this.#known.get(key)?.since ?? Infinity) > known.since) this.#known.set(key, known);
    }
  }

  /** What is known, to be handed on. */
  list(): readonly Orphan[] {
    const { now, wallNow } = this.#options;
    const offset = wallNow() - now();
    return [...this.#known.values()].map((known) => {
      const sinceMs = Math.round(known.since + offset);
      if (Math.abs(sinceMs - (known.sinceMs ?? -Infinity)) >= CLOCKS_AGREE_MS) {
        known.sinceMs = sinceMs;
      }
      const { routeTableId, destination } = known;
      return { routeTableId, destination, sinceMs: known.sinceMs ?? sinceMs };
    });
  }

  /** Says which entries of a table are orphans now: all of them. */
  note(routeTableId: string, destinations: Iterable<Prefix>): void {
    const now = this.#options.now();
    const present = new Set<string>();
    for (const destination of destinations) {
      const key = keyOf({ routeTableId, destination });
      present.add(key);
      if (!this.#known.has(key)) this.#known.set(key, { routeTableId, destination, since: now });
    }
    this.drop((orphan) => orphan.routeTableId === routeTableId && !present.has(keyOf(orphan)));
  }

  /** Forgets those that `isNone` picks. */
  drop(isNone: (orphan: Place) => boolean): void {
    for (const [key, known] of this.#known) if (isNone(known)) this.#known.delete(key);
  }

  /** Whether an entry has been an orphan for long enough to go. */
  isDue(orphan: Place): boolean {
    const { now, graceMs } = this.#options;
    const since = this.#known.get(keyOf(orphan))?.since;
    return since !== undefined && now() - since >= graceMs;
  }
}

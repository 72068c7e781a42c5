/** For how long entries have had no lease. @module */
import type { Prefix } from "../../net/mod.ts";
import type { Stray } from "./cluster_state.ts";
import { keyOf, type Place } from "./route_entry.ts";

/** A route entry without a lease, as it is published for the next leader. */
export type Orphan = Omit<Stray, "state">;

export interface OrphansOptions {
  /** How long an entry must have been an orphan before it may go. */
  readonly graceMs: number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
}

interface Known {
  readonly routeTableId: string;
  readonly destination: Prefix;
  readonly instanceId: string;
  readonly since: number;
}

/** An age that is handed on changes this often within a grace, as each change is a write. */
const AGE_STEPS = 4;

/**
 * For how long entries have been orphans, so that a host that is away for a moment finds its entry
 * again. Only time in which a leader watched counts, on a clock that only goes forward: no
 * difference between two leaders' clocks ends a grace. An entry that is needed again, or gone, is
 * forgotten.
 */
export class Orphans {
  readonly #options: Required<OrphansOptions>;
  readonly #known = new Map<string, Known>();
  /** Ages by the places of entries, until these are seen. */
  readonly #seeds = new Map<string, Orphan>();

  constructor(options: OrphansOptions) {
    this.#options = { now: () => performance.now(), ...options };
  }

  /** Takes over what a former leader knew, for the entries that are still to be seen. */
  seed(orphans: Iterable<Orphan>): void {
    for (const orphan of orphans) this.#seeds.set(keyOf(orphan), orphan);
  }

  /** What is known, to be handed on. */
  list(): readonly Orphan[] {
    const { now, graceMs } = this.#options;
    const stepMs = graceMs / AGE_STEPS;
    return [...this.#known.values()].map(({ since, ...orphan }) => ({
      ...orphan,
      ageMs: Math.floor(Math.min(now() - since, graceMs) / stepMs) * stepMs,
    }));
  }

  /** Says which entries of a table are orphans now: all of them. */
  note(routeTableId: string, entries: Iterable<Place & { readonly instanceId: string }>): void {
    const present = new Set<string>();
    for (const { destination, instanceId } of entries) {
      const key = keyOf({ routeTableId, destination });
      present.add(key);
      if (this.#known.get(key)?.instanceId === instanceId) continue;
      this.#known.set(key, {
        routeTableId,
        destination,
        instanceId,
        since: this.#options.now() - this.#seededMs(key, instanceId),
      });
    }
    this.drop((orphan) => orphan.routeTableId === routeTableId && !present.has(keyOf(orphan)));
  }

  /** Forgets those that `isNone` picks. */
  drop(isNone: (orphan: Place) => boolean): void {
    for (const [key, known] of this.#known) if (isNone(known)) this.#known.delete(key);
    for (const [key, seed] of this.#seeds) if (isNone(seed)) this.#seeds.delete(key);
  }

  /** Whether an entry has been an orphan for long enough to go. */
  isDue(orphan: Place & { readonly instanceId: string }): boolean {
    const { now, graceMs } = this.#options;
    const known = this.#known.get(keyOf(orphan));
    return known?.instanceId === orphan.instanceId && now() - known.since >= graceMs;
  }

  #seededMs(key: string, instanceId: string): number {
    const seed = this.#seeds.get(key);
    this.#seeds.delete(key);
    if (seed?.instanceId !== instanceId || !(seed.ageMs > 0)) return 0;
    return Math.min(seed.ageMs, this.#options.graceMs);
  }
}

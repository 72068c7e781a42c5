/** Tells leases that end one by one from those that a store has lost. @module */
import type { LeaseMap } from "../../lease/lease_map.ts";

interface Held {
  readonly key: string;
  readonly destination: { toString(): string };
  readonly instanceId: string;
}

/** Leases that end within this time of each other may have been wiped out together. */
const APART_MS = 10_000;

/**
 * Which leases ended one by one, as when a host stays away or an operator deletes one. What ends
 * together with others, or is missing from a listing, may be a store that has lost its keys, and
 * proves nothing about the hosts.
 */
export class LeaseEnds {
  readonly #leases: LeaseMap;
  readonly #now: () => number;
  #keys = new Set<string>();
  #held: readonly Held[] = [];
  #replacements = -1;
  /** Ends of late, of whatever leases. */
  #recent: { readonly at: number; readonly held: Held | undefined }[] = [];
  readonly #proved = new Set<string>();

  constructor(leases: LeaseMap, now: () => number = () => performance.now()) {
    this.#leases = leases;
    this.#now = now;
  }

  /** To be called after each change of the leases, with those that name an instance. */
  changed(held: readonly Held[]): void {
    const keys = new Set([...this.#leases.leases()].map(({ key }) => key));
    const { replacements } = this.#leases;
    if (replacements === this.#replacements) {
      const at = this.#now();
      const byKey = new Map(this.#held.map((each) => [each.key, each]));
      for (const key of this.#keys) {
        if (!keys.has(key)) this.#recent.push({ at, held: byKey.get(key) });
      }
    } else {
      this.#recent = [];
      this.#proved.clear();
    }
    for (const each of held) this.#proved.delete(nameOf(each));
    this.#keys = keys;
    this.#held = held;
    this.#replacements = replacements;
  }

  /** Whether the instance's lease of the subnet has ended by itself, and was not taken again. */
  has(destination: Held["destination"], instanceId: string): boolean {
    this.#prove();
    return this.#proved.has(nameOf({ destination, instanceId }));
  }

  /** How many leases have so ended. */
  get count(): number {
    this.#prove();
    return this.#proved.size;
  }

  #prove(): void {
    const now = this.#now();
    this.#recent = this.#recent.filter(({ at, held }, place, all) => {
      if (now - at < APART_MS) return true;
      const alone = all.every((other, its) => its === place || Math.abs(other.at - at) >= APART_MS);
      const isBack = this.#held.some((each) => held && nameOf(each) === nameOf(held));
      if (alone && held !== undefined && !isBack) this.#proved.add(nameOf(held));
      // It still counts against those that ended soon after it.
      return now - at < 2 * APART_MS;
    });
  }

  /** When there may be more, in milliseconds from now. */
  get dueMs(): number {
    const now = this.#now();
    const waits = this.#recent.map(({ at }) => at + APART_MS - now).filter((ms) => ms > 0);
    return Math.min(...waits);
  }
}

function nameOf({ destination, instanceId }: Pick<Held, "destination" | "instanceId">): string {
  return `${destination} ${instanceId}`;
}

/**
 * The leases of a network, folded from what a store tells.
 *
 * @module
 */
import type { NetworkConfig } from "../config/network_config.ts";
import { Address, type Family, type Prefix } from "../net/mod.ts";
import { atOnce } from "../util/slices.ts";
import { encodeLeaseValue, parseLease } from "./codec.ts";
import type { Lease } from "./lease.ts";

/** What a store says of one lease. Nothing about it is trusted yet. */
export interface LeaseEntry {
  /** Identity in the store; never stands for another subnet. */
  readonly key: string;
  /** The subnets as `encodeLeaseKey()` writes them, where the key is something else. */
  readonly subnet?: string;
  /** As `encodeLeaseValue()` writes it. */
  readonly value: string;
  /**
   * Opaque but for its order, in which the texts of older entries are lower: of two that claim one
   * subnet the older one stays.
   */
  readonly order: string;
}

/** Entries looked at between two steps; some milliseconds at most. */
const STEP_ENTRIES = 128;

/** Options of {@linkcode LeaseMap}. */
export interface LeaseMapOptions {
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
}

/**
 * Snapshots and events of a store folded into one map of leases, keyed by lease. An entry that is
 * no lease of this network (junk key or value, outside the network, overlapping another's subnet)
 * is kept apart with the reason and disturbs no other; it is looked at again when it changes, or
 * when the lease it overlaps goes. Of two overlapping leases the one that was there first stays;
 * in a snapshot that is the older one by its order, so that all hosts agree. Of a lease
 * with two families, the one that the network does not have is left out.
 */
export class LeaseMap {
  readonly #network: LeaseMapOptions["network"];
  readonly #leases = new Map<string, Lease>();
  readonly #skipped = new Map<string, { reason: string; entry: LeaseEntry; overlaps: boolean }>();
  readonly #index = { 4: new PrefixIndex(), 6: new PrefixIndex() };
  #snapshot = false;
  #replacements = 0;
  #skippedEdition = 0;

  constructor(options: LeaseMapOptions) {
    this.#network = options.network;
  }

  /** Whether a complete snapshot has been folded in. */
  get complete(): boolean {
    return this.#snapshot;
  }

  /**
   * Counts the beginnings and ends of replacements: what changes while it stays the same has come
   * event by event.
   */
  get replacements(): number {
    return this.#replacements;
  }

  get size(): number {
    return this.#leases.size;
  }

  get(key: string): Lease | undefined {
    return this.#leases.get(key);
  }

  /** Every lease, the own one included. An unchanged lease is the same object each time. */
  leases(): IteratorObject<Lease> {
    return this.#leases.values();
  }

  /** Skipped entries: key to reason. */
  skipped(): ReadonlyMap<string, string> {
    return new Map([...this.#skipped].map(([key, { reason }]) => [key, reason]));
  }

  /** Changes whenever {@linkcode LeaseMap.skipped} may. */
  get skippedEdition(): number {
    return this.#skippedEdition;
  }

  /** The key of a lease that shares an address with `prefix`. */
  findOverlap(prefix: Prefix): string | undefined {
    return this.#index[prefix.family].findOverlap(prefix);
  }

  get skippedCount(): number {
    return this.#skipped.size;
  }

  /** Replaces everything by a snapshot; returns the keys of the leases that changed. */
  replace(entries: readonly LeaseEntry[]): ReadonlySet<string> {
    return atOnce(this.replaceInSteps(entries));
  }

  /**
   * Like {@linkcode LeaseMap.replace}, with pauses, so that thousands need not keep other work
   * waiting. What is seen meanwhile lacks some of the new leases, and has none that is gone.
   */
  *replaceInSteps(entries: readonly LeaseEntry[]): Generator<void, ReadonlySet<string>> {
    this.#replacements++;
    const present = new Set(entries.map((entry) => entry.key));
    const changed = new Set<string>();
    for (const key of [...this.#leases.keys(), ...this.#skipped.keys()]) {
      if (!present.has(key) && this.#remove(key)) changed.add(key);
    }
    yield;
    const byAge = [...entries].sort((a, b) => a.order < b.order ? -1 : a.order > b.order ? 1 : 0);
    let count = 0;
    for (const entry of byAge) {
      if (count++ % STEP_ENTRIES === 0) yield;
      if (this.#set(entry)) changed.add(entry.key);
    }
    this.#snapshot = true;
    this.#replacements++;
    return this.#admitSkipped(changed);
  }

  /** Folds a put in; returns the keys of the leases that changed. */
  put(entry: LeaseEntry): ReadonlySet<string> {
    return this.#admitSkipped(new Set(this.#set(entry) ? [entry.key] : []));
  }

  /** Folds a deletion or expiry in; returns the keys of the leases that changed. */
  delete(key: string): ReadonlySet<string> {
    return this.#admitSkipped(new Set(this.#remove(key) ? [key] : []));
  }

  #remove(key: string): boolean {
    if (this.#skipped.delete(key)) this.#skippedEdition++;
    const lease = this.#leases.get(key);
    if (!lease) return false;
    this.#leases.delete(key);
    for (const prefix of subnets(lease)) this.#index[prefix.family].delete(prefix);
    return true;
  }

  #set(entry: LeaseEntry): boolean {
    if (this.#skipped.get(entry.key)?.entry.value === entry.value) return false;
    const before = this.#leases.get(entry.key);
    let lease: Lease;
    try {
      lease = parseLease(entry);
    } catch (error) {
      return this.#skip(entry, (error as Error).message);
    }
    const inside = subnets(lease).filter((prefix) =>
      this.#network[`ipv${prefix.family}`]?.network.contains(prefix)
    );
    if (inside.length === 0) {
      return this.#skip(entry, `Subnet ${subnets(lease)[0]} is not inside the network`);
    }
    if (inside.length < subnets(lease).length) {
      // While a family is switched on or off, hosts differ in what they have.
      lease = {
        ...lease,
        subnet: Object.fromEntries(inside.map((prefix) => [`ipv${prefix.family}`, prefix])),
      };
    }
    if (!before) {
      for (const prefix of subnets(lease)) {
        const other = this.#index[prefix.family].findOverlap(prefix);
        if (other !== undefined) {
          return this.#skip(entry, `Subnet ${prefix} overlaps the lease ${other}`, true);
        }
      }
    }
    if (before && encodeLeaseValue(before.attributes) === encodeLeaseValue(lease.attributes)) {
      return false;
    }
    if (this.#skipped.delete(entry.key)) this.#skippedEdition++;
    this.#leases.set(entry.key, lease);
    for (const prefix of subnets(lease)) this.#index[prefix.family].set(prefix, lease.key);
    return true;
  }

  /** Keeps the entry out; a lease that stood under its key is gone. */
  #skip(entry: LeaseEntry, reason: string, overlaps = false): boolean {
    const changed = this.#remove(entry.key);
    this.#skippedEdition++;
    this.#skipped.set(entry.key, { reason, entry, overlaps });
    return changed;
  }

  /** Looks again at entries that were kept out because they overlapped another. */
  #admitSkipped(changed: Set<string>): ReadonlySet<string> {
    // Only where something went, or is another, there may be room.
    if (changed.size === 0) return changed;
    for (const [key, { entry, overlaps }] of [...this.#skipped]) {
      if (!overlaps) continue;
      this.#remove(key);
      if (this.#set(entry)) changed.add(key);
    }
    return changed;
  }
}

function subnets(lease: Lease): Prefix[] {
  return [lease.subnet.ipv4, lease.subnet.ipv6].filter((prefix) => prefix !== undefined);
}

/**
 * Disjoint prefixes of one family, found by overlap: one map for each length in use, so that a
 * look-up costs a handful of map accesses however many prefixes there are.
 */
class PrefixIndex {
  readonly #byLength = new Map<number, Map<number | string, string>>();

  set(prefix: Prefix, key: string): void {
    const sameLength = this.#byLength.get(prefix.length) ?? new Map();
    this.#byLength.set(prefix.length, sameLength.set(prefix.address.mapKey, key));
  }

  delete(prefix: Prefix): void {
    const sameLength = this.#byLength.get(prefix.length);
    sameLength?.delete(prefix.address.mapKey);
    if (sameLength?.size === 0) this.#byLength.delete(prefix.length);
  }

  findOverlap(prefix: Prefix): string | undefined {
    for (const [length, prefixes] of this.#byLength) {
      if (length <= prefix.length) {
        const found = prefixes.get(prefix.address.truncate(length).mapKey);
        if (found !== undefined) return found;
      } else {
        for (const [inner, key] of prefixes) {
          if (baseOf(inner, prefix.family).sharesBits(prefix.address, prefix.length)) return key;
        }
      }
    }
    return undefined;
  }
}

/** The address that a map key stands for. */
function baseOf(key: number | string, family: Family): Address {
  return typeof key === "number" ? new Address(family, key) : Address.parse(key);
}

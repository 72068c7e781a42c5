/** Parts of the address space that no pod may use, and their search by overlap. @module */
import type { Prefix } from "./prefix.ts";

/** A part of the address space that is needed for something other than pods. */
export interface Place {
  readonly prefix: Prefix;
  /** How messages name it: `172.17.0.0/16 of docker0`, `the name server 10.0.0.2`. */
  readonly what: string;
  /** A smaller subnet inside it does no harm; one that covers it does. @default {false} */
  readonly yields?: boolean;
}

/** Whether two places are the same in every field. */
export function samePlace(a: Place, b: Place): boolean {
  return a.prefix.equals(b.prefix) && a.what === b.what && a.yields === b.yields;
}

/** One family's places, ready to be searched. */
interface Index {
  /** By first address. */
  readonly sorted: readonly { readonly first: bigint; readonly place: Place }[];
  /** Those that do not yield, by length and network address. */
  readonly byLength: ReadonlyMap<number, ReadonlyMap<number | string, Place>>;
}

/**
 * Places that no pod subnet may take, found by overlap. A look-up costs a binary search and one map
 * access per length in use, however many places there are.
 */
export class Places {
  static readonly none: Places = new Places([]);

  readonly list: readonly Place[];
  readonly #indexes: { [family in 4 | 6]?: Index } = {};

  constructor(list: readonly Place[]) {
    this.list = list;
  }

  /** All of these and of `others`. */
  concat(others: Places | undefined): Places {
    if (!others || others.list.length === 0) return this;
    return this.list.length === 0 ? others : new Places([...this.list, ...others.list]);
  }

  /** Those that share addresses with `network`. */
  within(network: Prefix): Places {
    const inside = this.list.filter(({ prefix }) => prefix.overlaps(network));
    return inside.length === this.list.length
      ? this
      : inside.length === 0
      ? Places.none
      : new Places(inside);
  }

  /** Those that keep subnets of `length` bits from being used. */
  blocking(length: number): readonly Place[] {
    return this.list.filter(({ prefix, yields }) => !yields || prefix.length >= length);
  }

  /** A place that `subnet` would take, if there is one: one inside it, or one that it is a part of. */
  find(subnet: Prefix): Place | undefined {
    if (this.list.length === 0) return undefined;
    const { sorted, byLength } = this.#indexes[subnet.family] ??= makeIndex(
      this.list.filter(({ prefix }) => prefix.family === subnet.family),
    );
    const first = subnet.address.value;
    let [low, high] = [0, sorted.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (sorted[middle]!.first < first) low = middle + 1;
      else high = middle;
    }
    for (let at = low; at < sorted.length; at++) {
      const { place } = sorted[at]!;
      if (subnet.contains(place.prefix)) return place;
      // A larger one with the same first address precedes those inside.
      if (sorted[at]!.first !== first) break;
    }
    for (const [length, places] of byLength) {
      if (length >= subnet.length) continue;
      const found = places.get(subnet.address.truncate(length).mapKey);
      if (found) return found;
    }
    return undefined;
  }
}

function makeIndex(places: readonly Place[]): Index {
  const sorted = places
    .map((place) => ({ first: place.prefix.address.value, place }))
    .sort((a, b) =>
      a.first < b.first ? -1 : a.first > b.first ? 1 : a.place.prefix.length - b.place.prefix.length
    );
  const byLength = new Map<number, Map<number | string, Place>>();
  for (const place of places) {
    if (place.yields) continue;
    const { address, length } = place.prefix;
    let sameLength = byLength.get(length);
    if (!sameLength) byLength.set(length, sameLength = new Map());
    if (!sameLength.has(address.mapKey)) sameLength.set(address.mapKey, place);
  }
  return { sorted, byLength };
}

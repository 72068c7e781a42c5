/**
 * Which subnets of a network are free, and which one a host takes.
 *
 * @module
 */
import type { FamilyConfig, NetworkConfig } from "../config/network_config.ts";
import { Address, type Place, Places, Prefix } from "../net/mod.ts";
import type { LeaseSubnet } from "./lease.ts";

/** How many of the first free subnets the choice is drawn from, as upstream does. */
const CANDIDATES = 100;

/** How much of one family's range is in use. */
export interface RangeUse {
  readonly total: bigint;
  /** Subnets of the range that overlap a lease. */
  readonly used: bigint;
}

/**
 * The first free subnets in the range of `config`, at most `limit`, in order. Cost grows with the
 * number of leases, not with the size of the range.
 */
export function freeSubnets(
  config: FamilyConfig,
  taken: readonly Prefix[],
  limit: number = CANDIDATES,
): Prefix[] {
  const free: Prefix[] = [];
  for (const gap of gaps(config, taken)) {
    for (let base = gap.first; base <= gap.last; base += subnetSize(config)) {
      free.push(new Prefix(new Address(config.network.family, base), config.subnetLength));
      if (free.length === limit) return free;
    }
  }
  return free;
}

/** How full the range of `config` is. */
export function rangeUse(config: FamilyConfig, taken: readonly Prefix[]): RangeUse {
  const size = subnetSize(config);
  const total = (config.subnetMax.value - config.subnetMin.value) / size + 1n;
  let free = 0n;
  for (const gap of gaps(config, taken)) free += (gap.last - gap.first) / size + 1n;
  return { total, used: total - free };
}

/** Options of {@linkcode chooseSubnet}. */
export interface ChooseSubnetOptions {
  readonly kept?: LeaseSubnet;
  /** What no subnet may cover, besides leases. */
  readonly occupied?: Places;
}

/**
 * A free subnet of each enabled family, drawn evenly from the first hundred, so that hosts that
 * boot together rarely choose the same one; `undefined` if a family has none left.
 *
 * With two families both subnets have the same number in their ranges wherever such a pair is free.
 * Then hosts that choose the same subnet choose the same key, which the store gives to one of them.
 * Drawn apart, one in a hundred of such hosts would share the subnet of one family alone: both keys
 * can be created, and the one that is given back takes the routes of the one that stays from every
 * upstream host, which goes by events.
 *
 * Families in `kept` have their subnets already; the other one is drawn to match.
 */
export function chooseSubnet(
  config: Pick<NetworkConfig, "ipv4" | "ipv6">,
  leases: readonly LeaseSubnet[],
  random: () => number,
  { kept = {}, occupied = Places.none }: ChooseSubnetOptions = {},
): LeaseSubnet | undefined {
  const draw = <T>(choices: readonly T[]) => choices[Math.floor(random() * choices.length)];
  const takenOf = (name: "ipv4" | "ipv6") => takenPrefixes(config, name, leases, occupied);
  const { ipv4, ipv6 } = config;
  if (ipv4 && ipv6) {
    const pair = kept.ipv6 && !kept.ipv4
      ? swap(draw(freePairs(ipv6, [kept.ipv6], ipv4, takenOf("ipv4"))))
      : draw(freePairs(
        ipv4,
        kept.ipv4 ? [kept.ipv4] : freeSubnets(ipv4, takenOf("ipv4")),
        ipv6,
        kept.ipv6 ? [] : takenOf("ipv6"),
      ));
    if (pair && !(kept.ipv4 && kept.ipv6)) return { ipv4: pair[0], ipv6: pair[1] };
  }
  const chosen: { ipv4?: Prefix; ipv6?: Prefix } = {};
  for (const name of ["ipv4", "ipv6"] as const) {
    const family = config[name];
    if (!family) continue;
    const choice = kept[name] ?? draw(freeSubnets(family, takenOf(name)));
    if (!choice) return undefined;
    chosen[name] = choice;
  }
  return chosen;
}

/** What keeps subnets of family `name` from being drawn: leases, and what is occupied otherwise. */
export function takenPrefixes(
  config: Pick<NetworkConfig, "ipv4" | "ipv6">,
  name: "ipv4" | "ipv6",
  leases: readonly LeaseSubnet[],
  occupied: Places = Places.none,
): Prefix[] {
  return leases.map((lease) => lease[name]).filter((prefix) => prefix !== undefined)
    .concat(blockingPlaces(config[name], occupied).map(({ prefix }) => prefix));
}

/** Those of `occupied` that keep subnets of this family from being leased. */
export function blockingPlaces(
  family: FamilyConfig | undefined,
  occupied: Places,
): readonly Place[] {
  return family ? occupied.within(family.network).blocking(family.subnetLength) : [];
}

function swap<T, U>(pair: readonly [T, U] | undefined): readonly [U, T] | undefined {
  return pair && [pair[1], pair[0]];
}

/** Those of `free`, in ascending order, whose number in the other family's range is free there, too. */
function freePairs(
  one: FamilyConfig,
  free: readonly Prefix[],
  other: FamilyConfig,
  taken: readonly Prefix[],
): (readonly [Prefix, Prefix])[] {
  const pairs: (readonly [Prefix, Prefix])[] = [];
  const runs = gaps(other, taken);
  let run = runs.next();
  for (const subnet of free) {
    const number = (subnet.address.value - one.subnetMin.value) / subnetSize(one);
    const base = other.subnetMin.value + number * subnetSize(other);
    while (!run.done && run.value.last < base) run = runs.next();
    if (run.done) break;
    if (base < run.value.first) continue;
    pairs.push([subnet, new Prefix(new Address(other.network.family, base), other.subnetLength)]);
  }
  return pairs;
}

/** Whether `subnet` is one that this config could hand out: families, lengths and range fit. */
export function fitsConfig(
  config: Pick<NetworkConfig, "ipv4" | "ipv6">,
  subnet: LeaseSubnet,
): boolean {
  return (["ipv4", "ipv6"] as const).every((name) => {
    const family = config[name];
    const prefix = subnet[name];
    if (!family || !prefix) return family === undefined && prefix === undefined;
    return fitsFamily(family, prefix);
  });
}

/** Whether `prefix` is one that this family's config could hand out: length and range fit. */
export function fitsFamily(family: FamilyConfig, prefix: Prefix): boolean {
  return prefix.family === family.network.family && prefix.length === family.subnetLength &&
    prefix.address.value >= family.subnetMin.value &&
    prefix.address.value <= family.subnetMax.value;
}

function subnetSize(config: FamilyConfig): bigint {
  return 1n << BigInt((config.network.family === 4 ? 32 : 128) - config.subnetLength);
}

/** Runs of free, aligned subnet bases between the leases, both ends included. */
function* gaps(config: FamilyConfig, taken: readonly Prefix[]) {
  const size = subnetSize(config);
  const end = config.subnetMax.value;
  const occupied = taken
    .map((prefix) => ({ first: prefix.address.value, last: prefix.last.value }))
    .sort((a, b) => (a.first < b.first ? -1 : a.first > b.first ? 1 : 0));
  let base = config.subnetMin.value;
  for (const { first, last } of occupied) {
    if (last < base) continue;
    if (first > end + size - 1n) break;
    const lastFree = (first / size) * size - size;
    if (lastFree >= base) yield { first: base, last: lastFree };
    base = (last / size) * size + size;
  }
  if (base <= end) yield { first: base, last: end };
}

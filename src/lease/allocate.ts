import type { FamilyConfig, NetworkConfig } from "../config/network_config.ts";
import { Address, Prefix } from "../net/mod.ts";
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

/**
 * A free subnet of each enabled family, drawn evenly from the first hundred, so that hosts that
 * boot together rarely choose the same one; `undefined` if a family has none left.
 *
 * With two families both subnets have the same number in their ranges wherever such a pair is free.
 * Then hosts that choose the same subnet choose the same key, which the store gives to one of them.
 * Drawn apart, one in a hundred of such hosts would share the subnet of one family alone: both keys
 * can be created, and the one that is given back takes the routes of the one that stays from every
 * upstream host, which goes by events.
 */
export function chooseSubnet(
  config: Pick<NetworkConfig, "ipv4" | "ipv6">,
  leases: readonly LeaseSubnet[],
  random: () => number,
): LeaseSubnet | undefined {
  const draw = <T>(choices: readonly T[]) => choices[Math.floor(random() * choices.length)];
  const takenOf = (name: "ipv4" | "ipv6") =>
    leases.map((lease) => lease[name]).filter((prefix) => prefix !== undefined);
  const { ipv4, ipv6 } = config;
  if (ipv4 && ipv6) {
    const pair = draw(freePairs(ipv4, freeSubnets(ipv4, takenOf("ipv4")), ipv6, takenOf("ipv6")));
    if (pair) return pair;
  }
  const chosen: { ipv4?: Prefix; ipv6?: Prefix } = {};
  for (const name of ["ipv4", "ipv6"] as const) {
    const family = config[name];
    if (!family) continue;
    const choice = draw(freeSubnets(family, takenOf(name)));
    if (!choice) return undefined;
    chosen[name] = choice;
  }
  return chosen;
}

/** Those of `free`, in ascending order, whose number in the other family's range is free there, too. */
function freePairs(
  ipv4: FamilyConfig,
  free: readonly Prefix[],
  ipv6: FamilyConfig,
  taken: readonly Prefix[],
): LeaseSubnet[] {
  const pairs: LeaseSubnet[] = [];
  const runs = gaps(ipv6, taken);
  let run = runs.next();
  for (const subnet of free) {
    const number = (subnet.address.value - ipv4.subnetMin.value) / subnetSize(ipv4);
    const base = ipv6.subnetMin.value + number * subnetSize(ipv6);
    while (!run.done && run.value.last < base) run = runs.next();
    if (run.done) break;
    if (run.value.first > base) continue;
    pairs.push({ ipv4: subnet, ipv6: new Prefix(new Address(6, base), ipv6.subnetLength) });
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
    return prefix.family === family.network.family && prefix.length === family.subnetLength &&
      prefix.address.value >= family.subnetMin.value &&
      prefix.address.value <= family.subnetMax.value;
  });
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

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
 */
export function chooseSubnet(
  config: Pick<NetworkConfig, "ipv4" | "ipv6">,
  leases: readonly LeaseSubnet[],
  random: () => number,
): LeaseSubnet | undefined {
  const chosen: { ipv4?: Prefix; ipv6?: Prefix } = {};
  for (const name of ["ipv4", "ipv6"] as const) {
    const family = config[name];
    if (!family) continue;
    const taken = leases.map((lease) => lease[name]).filter((prefix) => prefix !== undefined);
    const free = freeSubnets(family, taken);
    const choice = free[Math.floor(random() * free.length)];
    if (!choice) return undefined;
    chosen[name] = choice;
  }
  return chosen;
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

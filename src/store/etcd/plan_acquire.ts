/** Decides how to get a lease where hosts choose their subnets. @module */
import type { NetworkConfig } from "../../config/network_config.ts";
import {
  blockingPlaces,
  chooseSubnet,
  fitsConfig,
  fitsFamily,
  rangeUse,
  takenPrefixes,
} from "../../lease/allocate.ts";
import { encodeLeaseKey, parseLease, parseLeaseKey } from "../../lease/codec.ts";
import { formatSubnet, type Lease, type LeaseSubnet } from "../../lease/lease.ts";
import {
  hasAddressOf,
  isOwnedBy,
  type LeaseOwner,
  overlaps,
  sameSubnet,
  sharesSubnet,
} from "../../lease/ownership.ts";
import { type Address, addressBits, type Place, Places, Prefix } from "../../net/mod.ts";
import type { Entry } from "../keys/key_space.ts";

/** Leases, and other things in the way, that a message names. */
const NAMED = 3;

const FAMILIES = ["ipv4", "ipv6"] as const;

/** What to do next to hold a lease, given the store's present content. */
export type AcquireStep =
  /** The host has this lease already. */
  | { readonly action: "reuse"; readonly entry: Entry; readonly lease: Lease }
  /** Its lease does not fit the network config any more; delete it and look again. */
  | {
    readonly action: "remove";
    readonly entry: Entry;
    readonly lease: Lease;
    readonly reason: string;
  }
  /**
   * Its lease fits in one family, as after a family was switched on or off: that one's subnet stays,
   * under the key of `subnet`.
   */
  | {
    readonly action: "move";
    readonly entry: Entry;
    readonly lease: Lease;
    readonly subnet: LeaseSubnet;
    /** The part that stays. */
    readonly kept: LeaseSubnet;
    readonly reason: string;
  }
  | { readonly action: "create"; readonly subnet: LeaseSubnet; readonly reason: string }
  /** No free subnet; leases must end, or the network must grow. */
  | { readonly action: "wait"; readonly reason: string };

/**
 * Decides how to get a lease: in upstream's order that of our public address, then the subnet of
 * before, then a free one; but the subnet of before first if the host has addresses of it alone.
 * Entries that are no leases are skipped, but a subnet that their key names is not handed out. Pods
 * may have addresses of what was leased before, so each family's subnet stays as long as the config
 * allows, even if it is occupied by now; a drawn subnet covers neither a place in `occupied` nor
 * another host.
 */
export function planAcquire(context: {
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  readonly owner: LeaseOwner;
  readonly entries: readonly Entry[];
  /** From subnet.env. */
  readonly previous: LeaseSubnet | undefined;
  /**
   * All addresses of this host. A lease of the subnet of before under one of them is the own one,
   * too: another address of the host was published then, such as a virtual one.
   */
  readonly addresses?: readonly Address[];
  /** What no new subnet may cover. */
  readonly occupied?: Places;
  readonly random: () => number;
}): AcquireStep {
  const { network, owner, entries, previous, addresses = [], random } = context;
  const local = new Set(addresses.map(({ mapKey }) => mapKey));
  /** Subnets of other hosts, and of nobody. */
  const others: LeaseSubnet[] = [];
  const own: { entry: Entry; lease: Lease }[] = [];
  const hosts: Place[] = [];
  for (const entry of entries) {
    let subnet: LeaseSubnet | undefined;
    try {
      subnet = parseLeaseKey(entry.key);
      const lease = parseLease(entry);
      hosts.push(...hostPlaces(network, lease));
      const { publicIp, publicIpv6 } = lease.attributes;
      const isServed = previous !== undefined && sameSubnet(lease.subnet, previous) &&
        local.has((publicIp ?? publicIpv6)?.mapKey ?? "");
      if (isServed || isOwnedBy(lease.attributes, owner)) {
        own.push({ entry, lease });
        continue;
      }
    } catch { /* junk; the watch counts and names it */ }
    if (subnet) others.push(subnet);
  }
  const taken = [...others, ...own.map(({ lease }) => lease.subnet)];
  const occupied = new Places(hosts).concat(context.occupied);
  const draw = (leases: readonly LeaseSubnet[], kept: LeaseSubnet = {}) =>
    chooseSubnet(network, leases, random, { kept, occupied });
  const exhausted = (leases: readonly LeaseSubnet[], kept: LeaseSubnet = {}): AcquireStep => ({
    action: "wait",
    reason: describeUse(network, leases, occupied, kept),
  });

  const fitting = own.filter(({ lease }) => fitsConfig(network, lease.subnet));
  const preferred = fitting.find(({ lease }) => previous && sameSubnet(lease.subnet, previous)) ??
    fitting.find(({ entry }) => !entry.expires) ?? fitting[0];
  if (preferred) {
    const { entry, lease } = preferred;
    const twin = own.find((other) =>
      other !== preferred && other.entry.expires && !fitting.includes(other) &&
      overlaps(other.lease.subnet, lease.subnet)
    );
    if (twin) {
      const reason = `${entry.key} has taken its place`;
      return { action: "remove", ...twin, reason };
    }
    // No pod has an address of it yet: the last start ended before it could look for rivals.
    const isNew = entry.expires && !(previous && sameSubnet(lease.subnet, previous));
    const rival = isNew
      ? findEarlierRival(entry, entries.filter((each) => !own.some((mine) => mine.entry === each)))
      : undefined;
    if (rival === undefined) {
      const back = isNew && previous && takeBack(context, previous, { taken, own: lease.subnet });
      return back ? { action: "create", ...back } : { action: "reuse", entry, lease };
    }
    const reason = `${rival} was there first`;
    const kept = keptParts(
      lease.subnet,
      (name, prefix) =>
        previous?.[name]?.equals(prefix) === true &&
        !sharesSubnet(rival, { [name]: prefix }),
    );
    if (!kept) return { action: "remove", entry, lease, reason };
    const subnet = draw(others, kept);
    return subnet
      ? { action: "move", entry, lease, subnet, kept, reason }
      : exhausted(others, kept);
  }

  const fits = (name: "ipv4" | "ipv6", prefix: Prefix) =>
    network[name] !== undefined && fitsFamily(network[name], prefix) &&
    !others.some((other) => other[name]?.overlaps(prefix));
  const movable = own
    .map(({ entry, lease }) => ({ entry, lease, kept: keptParts(lease.subnet, fits) }))
    .filter((each) => each.kept !== undefined)
    .toSorted((a, b) => rank(a, previous) - rank(b, previous))[0];
  if (movable?.kept) {
    const { entry, lease, kept } = movable;
    const subnet = draw(others, kept);
    if (!subnet) return exhausted(others, kept);
    const reason = `the network config has other families or ranges by now; ` +
      `${formatSubnet(kept)} stays`;
    return { action: "move", entry, lease, subnet, kept, reason };
  }
  // A reservation is the operator's; it is never deleted, even if it cannot be used.
  const misfit = own.find(({ entry }) => entry.expires);
  if (misfit) {
    const reason = `${formatSubnet(misfit.lease.subnet)} does not fit the network config any more`;
    return { action: "remove", ...misfit, reason };
  }
  const kept = previous &&
    keptParts(
      previous,
      (name, prefix) =>
        network[name] !== undefined && fitsFamily(network[name], prefix) &&
        !taken.some((other) => other[name]?.overlaps(prefix)),
    );
  const subnet = draw(taken, kept);
  if (!subnet) return exhausted(taken, kept);
  if (!kept) return { action: "create", subnet, reason: "it is free" };
  const reason = sameSubnet(kept, subnet)
    ? "the subnet of the last run is free"
    : `${formatSubnet(kept)} of the last run is free`;
  return { action: "create", subnet, reason };
}

/**
 * The subnet of the last run, if this host has addresses of it and none of its present lease: a
 * restored backup may hold a lease from before the host moved.
 */
function takeBack(
  { network, addresses = [] }: Pick<Parameters<typeof planAcquire>[0], "network" | "addresses">,
  previous: LeaseSubnet,
  { taken, own }: { readonly taken: readonly LeaseSubnet[]; readonly own: LeaseSubnet },
): { readonly subnet: LeaseSubnet; readonly reason: string } | undefined {
  if (!fitsConfig(network, previous) || taken.some((each) => overlaps(each, previous))) {
    return undefined;
  }
  if (!hasAddressOf(addresses, previous) || hasAddressOf(addresses, own)) return undefined;
  return {
    subnet: previous,
    reason: `this host has addresses of it, and none of ${formatSubnet(own)}, whose lease it has`,
  };
}

/** The public addresses of a lease's host that lie inside the network. */
function hostPlaces(
  network: Pick<NetworkConfig, "ipv4" | "ipv6">,
  { key, attributes: { publicIp, publicIpv6 } }: Lease,
): Place[] {
  return [publicIp, publicIpv6].flatMap((address) => {
    const family = address && network[`ipv${address.family}`];
    if (!family?.network.contains(address!)) return [];
    const prefix = new Prefix(address!, addressBits(address!.family));
    return [{ prefix, what: `the host ${address} of lease ${key}` }];
  });
}

/** The families of `subnet` that `keeps` says yes to; `undefined` if there is none. */
function keptParts(
  subnet: LeaseSubnet,
  keeps: (name: "ipv4" | "ipv6", prefix: Prefix) => boolean,
): LeaseSubnet | undefined {
  const parts = FAMILIES.flatMap((name) => {
    const prefix = subnet[name];
    return prefix && keeps(name, prefix) ? [[name, prefix]] : [];
  });
  return parts.length === 0 ? undefined : Object.fromEntries(parts);
}

/** The own lease to move: the one whose subnet was served last, then a reservation. */
function rank(
  { entry, lease }: { readonly entry: Entry; readonly lease: Lease },
  previous: LeaseSubnet | undefined,
): number {
  return previous && overlaps(lease.subnet, previous) ? 0 : entry.expires ? 2 : 1;
}

/** Why no subnet is to be had: what each family's range is used for, and what to do. */
function describeUse(
  network: Pick<NetworkConfig, "ipv4" | "ipv6">,
  leases: readonly LeaseSubnet[],
  occupied: Places,
  kept: LeaseSubnet,
): string {
  let isBlocked = false;
  const use = FAMILIES.flatMap((name) => {
    const family = network[name];
    if (!family || kept[name]) return [];
    const prefixes = takenPrefixes(network, name, leases);
    const { used, total } = rangeUse(family, prefixes);
    // One that somebody wrote by hand can take as much as the whole network.
    const large = leases
      .filter(({ [name]: prefix }) =>
        prefix && prefix.length < family.subnetLength && prefix.overlaps(family.network)
      )
      .map(encodeLeaseKey);
    const among = large.length === 0 ? "" : `, several of them by ${nameSome(large)}`;
    const blocked = rangeUse(family, takenPrefixes(network, name, leases, occupied)).used - used;
    // Those at work in the range; a place may be named that lies where a lease is anyway.
    const range = blockingPlaces(family, occupied).filter(({ prefix }) =>
      prefix.last.value >= family.subnetMin.value &&
      prefix.address.value <= new Prefix(family.subnetMax, family.subnetLength).last.value &&
      !prefixes.some((taken) => taken.contains(prefix))
    );
    isBlocked ||= blocked > 0n;
    const others = blocked === 0n
      ? ""
      : `, and ${blocked} cannot be used here because of ${
        nameSome(range.map(({ what }) => what))
      }`;
    return [`${used} of ${total} subnets of ${family.network} are leased${among}${others}`];
  });
  return `Cannot lease a subnet: ${use.join(", ")}; enlarge the network, or remove the leases of ` +
    `hosts that are gone${isBlocked ? ", or set SubnetMin and SubnetMax apart from the rest" : ""}`;
}

/** The first few of `names`, and how many more there are. */
function nameSome(names: readonly string[]): string {
  return names.slice(0, NAMED).join(", ") +
    (names.length > NAMED ? ` and ${names.length - NAMED} more` : "");
}

/**
 * The key of an earlier lease among `entries`, listed after `own` was created, that shares
 * addresses with it. Two dual-stack hosts may choose the same IPv4 subnet at once: their keys
 * differ, so both are created, and the later one finds the other here.
 */
export function findEarlierRival(own: Entry, entries: readonly Entry[]): string | undefined {
  const subnet = parseLeaseKey(own.key);
  return entries.find((entry) => {
    if (entry.key === own.key) return false;
    // An entry that was created later sees ours by the same rule.
    if (entry.order > own.order) return false;
    return sharesSubnet(entry.key, subnet);
  })?.key;
}

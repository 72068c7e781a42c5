import type { NetworkConfig } from "../config/network_config.ts";
import { chooseSubnet, fitsConfig, rangeUse } from "../lease/allocate.ts";
import { encodeLeaseKey, parseLease, parseLeaseKey } from "../lease/codec.ts";
import {
  formatSubnet,
  type Lease,
  type LeaseAttributes,
  type LeaseSubnet,
} from "../lease/lease.ts";
import { compareRevisions } from "../lease/lease_map.ts";
import type { Address } from "../net/mod.ts";
import type { Entry } from "./registry.ts";

/** Leases that a message names. */
const NAMED_LEASES = 3;

/** The addresses by which a host recognises its own lease, as upstream does. */
export interface LeaseOwner {
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
}

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
  | { readonly action: "create"; readonly subnet: LeaseSubnet; readonly reason: string }
  /** No free subnet; leases must end, or the network must grow. */
  | { readonly action: "wait"; readonly reason: string };

/** Whether a lease with these attributes is `owner`'s: same IPv4 address, or IPv6 without IPv4. */
export function isOwnedBy(attributes: LeaseAttributes, owner: LeaseOwner): boolean {
  const [mine, theirs] = owner.publicIp
    ? [owner.publicIp, attributes.publicIp]
    : [owner.publicIpv6, attributes.publicIpv6];
  return mine !== undefined && theirs !== undefined && mine.equals(theirs);
}

/**
 * Decides how to come by a lease (upstream's order: the lease of our public address, then the
 * subnet of before, then a free one). Entries that are no leases are looked past, but their
 * subnets, where the key names one, are not handed out.
 */
export function planAcquire(context: {
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  readonly owner: LeaseOwner;
  readonly entries: readonly Entry[];
  /** From subnet.env. */
  readonly previous: LeaseSubnet | undefined;
  readonly random: () => number;
}): AcquireStep {
  const { network, owner, entries, previous, random } = context;
  const taken: LeaseSubnet[] = [];
  const own: { entry: Entry; lease: Lease }[] = [];
  for (const entry of entries) {
    try {
      taken.push(parseLeaseKey(entry.key));
      const lease = parseLease(entry);
      if (isOwnedBy(lease.attributes, owner)) own.push({ entry, lease });
    } catch { /* junk; the watch counts and names it */ }
  }
  const fitting = own.filter(({ lease }) => fitsConfig(network, lease.subnet));
  const preferred = fitting.find(({ lease }) => previous && sameSubnet(lease.subnet, previous)) ??
    fitting.find(({ entry }) => !entry.expires) ?? fitting[0];
  if (preferred) {
    const { entry, lease } = preferred;
    // No pod has an address of it yet: the last start ended before it could look for rivals.
    const isNew = entry.expires && !(previous && sameSubnet(lease.subnet, previous));
    const rival = isNew ? findEarlierRival(entry, entries) : undefined;
    if (rival === undefined) return { action: "reuse", entry, lease };
    return { action: "remove", entry, lease, reason: `${rival} was there first` };
  }
  // A reservation is the operator's word; it is never deleted, even where it cannot be used.
  const misfit = own.find(({ entry }) => entry.expires);
  if (misfit) {
    const reason = `${formatSubnet(misfit.lease.subnet)} does not fit the network config any more`;
    return { action: "remove", ...misfit, reason };
  }
  if (
    previous && fitsConfig(network, previous) &&
    !taken.some((other) => overlaps(other, previous))
  ) {
    return { action: "create", subnet: previous, reason: "the subnet of the last run is free" };
  }
  const subnet = chooseSubnet(network, taken, random);
  if (subnet) return { action: "create", subnet, reason: "it is free" };
  const use = (["ipv4", "ipv6"] as const).flatMap((name) => {
    const family = network[name];
    if (!family) return [];
    const prefixes = taken.map((lease) => lease[name]).filter((prefix) => prefix !== undefined);
    const { used, total } = rangeUse(family, prefixes);
    // One that somebody wrote by hand can take as much as the whole network.
    const large = taken
      .filter(({ [name]: prefix }) =>
        prefix && prefix.length < family.subnetLength && prefix.overlaps(family.network)
      )
      .map(encodeLeaseKey);
    const among = large.length === 0
      ? ""
      : `, several of them by ${large.slice(0, NAMED_LEASES).join(", ")}` +
        (large.length > NAMED_LEASES ? ` and ${large.length - NAMED_LEASES} more` : "");
    return [`${used} of ${total} subnets of ${family.network} are leased${among}`];
  });
  return {
    action: "wait",
    reason: `Cannot lease a subnet: ${use.join(", ")}; enlarge the network, or remove the leases ` +
      "of hosts that are gone",
  };
}

/**
 * The key of a lease that was there before `own` and shares addresses with it, if there is one among
 * `entries`, which were listed after `own` was created. Two hosts that lease at the same time may
 * choose the same IPv4 subnet with different IPv6 ones: their keys differ, so both are created. Of
 * the two the one that came later finds the other one, and only that one does.
 */
export function findEarlierRival(own: Entry, entries: readonly Entry[]): string | undefined {
  const subnet = parseLeaseKey(own.key);
  return entries.find((entry) => {
    if (entry.key === own.key) return false;
    // An entry that was created later sees ours by the same rule.
    if (compareRevisions(entry.createRevision, own.createRevision) > 0) return false;
    return sharesSubnet(entry.key, subnet);
  })?.key;
}

/** Whether `key` is a lease's with an address of `subnet`. */
export function sharesSubnet(key: string, subnet: LeaseSubnet): boolean {
  try {
    return overlaps(parseLeaseKey(key), subnet);
  } catch {
    return false; // junk; the watch counts and names it
  }
}

function overlaps(a: LeaseSubnet, b: LeaseSubnet): boolean {
  return (["ipv4", "ipv6"] as const).some((family) => {
    const [one, other] = [a[family], b[family]];
    return one !== undefined && other !== undefined && one.overlaps(other);
  });
}

function sameSubnet(a: LeaseSubnet, b: LeaseSubnet): boolean {
  return String(a.ipv4) === String(b.ipv4) && String(a.ipv6) === String(b.ipv6);
}

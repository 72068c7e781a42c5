/**
 * Whose a lease is, and what leases have in common.
 *
 * @module
 */
import type { Address } from "../net/mod.ts";
import { parseLeaseKey } from "./codec.ts";
import type { LeaseAttributes, LeaseSubnet } from "./lease.ts";

const FAMILIES = ["ipv4", "ipv6"] as const;

/** The addresses by which a host recognises its own lease, as upstream does. */
export interface LeaseOwner {
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
}

/**
 * Whether a lease with these attributes is `owner`'s: same IPv4 address, or same IPv6 address where
 * either has no other, as before the network had both.
 */
export function isOwnedBy(attributes: LeaseAttributes, owner: LeaseOwner): boolean {
  const [mine, theirs] = owner.publicIp && attributes.publicIp
    ? [owner.publicIp, attributes.publicIp]
    : [owner.publicIpv6, attributes.publicIpv6];
  return mine !== undefined && theirs !== undefined && mine.equals(theirs);
}

/** Whether one of the addresses lies in the subnet. */
export function hasAddressOf(addresses: readonly Address[], subnet: LeaseSubnet): boolean {
  return addresses.some((address) => subnet[`ipv${address.family}`]?.contains(address));
}

/** Whether `key` is a lease's with an address of `subnet`. */
export function sharesSubnet(key: string, subnet: LeaseSubnet): boolean {
  try {
    return overlaps(parseLeaseKey(key), subnet);
  } catch {
    return false; // junk; the lease map counts and names it
  }
}

/** Whether two subnets have an address in common. */
export function overlaps(a: LeaseSubnet, b: LeaseSubnet): boolean {
  return FAMILIES.some((family) => {
    const [one, other] = [a[family], b[family]];
    return one !== undefined && other !== undefined && one.overlaps(other);
  });
}

/** Whether two subnets are the same in both families. */
export function sameSubnet(a: LeaseSubnet, b: LeaseSubnet): boolean {
  return String(a.ipv4) === String(b.ipv4) && String(a.ipv6) === String(b.ipv6);
}

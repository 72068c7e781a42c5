/** Gives back the leases of a host. @module */
import { parseLease } from "../../lease/codec.ts";
import { formatSubnet, type Lease, type LeaseSubnet } from "../../lease/lease.ts";
import { isOwnedBy } from "../../lease/ownership.ts";
import type { Address } from "../../net/mod.ts";
import type { CallOptions } from "../errors.ts";
import type { Released, ReleaseRequest } from "../lease_store.ts";
import type { Entry, KeySpace } from "../keys/key_space.ts";

/** Deletes the leases that these addresses own; a reservation is the operator's, and stays. */
export async function releaseLeases(
  space: KeySpace,
  { addresses, log }: ReleaseRequest,
  { signal }: CallOptions,
): Promise<Released> {
  const kept: LeaseSubnet[] = [];
  const released: LeaseSubnet[] = [];
  for (const entry of await space.list({ signal })) {
    const lease = ownLease(entry, addresses);
    if (lease === undefined) continue;
    const subnet = formatSubnet(lease.subnet);
    if (!entry.expires) {
      log.info(`Reservation of ${subnet} is kept, with its routes: the operator made it`);
      kept.push(lease.subnet);
    } else if (await space.remove(entry, { signal })) {
      log.info(`Lease of ${subnet} is released`);
      released.push(lease.subnet);
    } else {
      throw new Error(`${subnet} was written in this moment; is a flanneld running?`);
    }
  }
  return { kept, released };
}

/** The lease in an entry if one of the addresses owns it. */
function ownLease(entry: Entry, addresses: readonly Address[]): Lease | undefined {
  try {
    const lease = parseLease(entry);
    // One with an IPv4 address belongs to whoever has that.
    const family = lease.attributes.publicIp === undefined ? 6 : 4;
    const isOwn = addresses.some((address) =>
      address.family === family &&
      isOwnedBy(lease.attributes, family === 4 ? { publicIp: address } : { publicIpv6: address })
    );
    return isOwn ? lease : undefined;
  } catch {
    return undefined; // no lease
  }
}

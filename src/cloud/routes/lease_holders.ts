/** Who leases a subnet at present, as far as the store can tell. @module */
import type { Lease } from "../../lease/lease.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import { Prefix } from "../../net/mod.ts";
import type { Holder } from "./clearance.ts";
import type { ReadClaim } from "./config.ts";

/** Where a key of `subnets/` begins like one of a lease, whatever is wrong with it. */
const LIKE_A_SUBNET = /(\d{1,3}(?:\.\d{1,3}){3})[-\/_](\d{1,2})/;

/**
 * Who leases `destination`. Keys that are no leases count, too: whoever wrote one meant something
 * by it.
 */
export function findHolder(
  leases: LeaseMap,
  destination: Prefix,
  readClaim: ReadClaim,
): Holder {
  if (roughly(leases).some((prefix) => prefix.overlaps(destination))) return { is: "unclear" };
  const key = leases.findOverlap(destination);
  if (key === undefined) return { is: "nobody" };
  const lease = leases.get(key);
  if (!lease?.subnet.ipv4?.equals(destination)) return { is: "unclear" };
  return holderOf(lease, readClaim);
}

function holderOf(lease: Lease, readClaim: ReadClaim): Holder {
  const claim = readClaim(lease);
  const { publicIp } = lease.attributes;
  return {
    is: "host",
    ...(typeof claim === "object" ? { instanceId: claim.instanceId } : {}),
    ...(publicIp === undefined ? {} : { publicIp: String(publicIp) }),
  };
}

/** What skipped keys may stand for; read anew when they change, as there may be thousands. */
const rough = new WeakMap<LeaseMap, { edition: number; prefixes: readonly Prefix[] }>();

function roughly(leases: LeaseMap): readonly Prefix[] {
  const edition = leases.skippedEdition;
  let known = rough.get(leases);
  if (known?.edition !== edition) {
    const prefixes = [...leases.skipped().keys()].map(readRoughly)
      .filter((prefix) => prefix !== undefined);
    rough.set(leases, known = { edition, prefixes });
  }
  return known!.prefixes;
}

function readRoughly(key: string): Prefix | undefined {
  const [, address, length] = LIKE_A_SUBNET.exec(key) ?? [];
  return address === undefined ? undefined : Prefix.tryParse(`${address}/${length}`);
}

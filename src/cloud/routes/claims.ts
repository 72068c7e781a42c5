/** Reads from leases which subnets are to lead to which instances. @module */
import type { Lease } from "../../lease/lease.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import type { ClusterClaim } from "./cluster_plan.ts";
import type { ReadClaim } from "./config.ts";

/** Returns what reads the claims of the leases whose instances are in the VPC, in order. */
export function claimReader(
  leases: LeaseMap,
  vpcId: string,
  readClaim: ReadClaim,
): () => readonly ClusterClaim[] {
  /** An unchanged lease is the same object. */
  const known = new WeakMap<Lease, ClusterClaim | "none">();
  const claimOf = (lease: Lease): ClusterClaim | "none" => {
    const { subnet: { ipv4: destination }, attributes: { publicIp } } = lease;
    const claim = readClaim(lease);
    const isOurs = typeof claim === "object" && claim.vpcId === vpcId;
    if (destination === undefined || !isOurs) return "none";
    const { instanceId, networkInterfaceId } = claim;
    const address = publicIp === undefined ? {} : { publicIp: String(publicIp) };
    return { key: lease.key, destination, instanceId, networkInterfaceId, ...address };
  };
  return () => {
    const claims: ClusterClaim[] = [];
    for (const lease of leases.leases()) {
      const claim = known.get(lease) ?? claimOf(lease);
      known.set(lease, claim);
      if (claim !== "none") claims.push(claim);
    }
    return claims.sort((a, b) => a.key < b.key ? -1 : 1);
  };
}

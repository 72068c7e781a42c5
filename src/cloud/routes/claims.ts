/** Reads from leases which subnets are to lead to which instances. @module */
import type { Lease } from "../../lease/lease.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import type { ClusterClaim } from "./cluster_plan.ts";
import type { ReadClaim } from "./config.ts";

export class ClaimReader {
  readonly #leases: LeaseMap;
  readonly #vpcId: string;
  readonly #readClaim: ReadClaim;
  /** An unchanged lease is the same object. */
  readonly #known = new WeakMap<Lease, ClusterClaim | "none">();

  constructor(leases: LeaseMap, vpcId: string, readClaim: ReadClaim) {
    this.#leases = leases;
    this.#vpcId = vpcId;
    this.#readClaim = readClaim;
  }

  /** The claims of the leases whose instances are in the VPC, in order. */
  read(): readonly ClusterClaim[] {
    const claims: ClusterClaim[] = [];
    for (const lease of this.#leases.leases()) {
      const claim = this.#known.get(lease) ?? this.#claimOf(lease) ?? "none";
      this.#known.set(lease, claim);
      if (claim !== "none") claims.push(claim);
    }
    return claims.sort((a, b) => a.key < b.key ? -1 : 1);
  }

  #claimOf(lease: Lease): ClusterClaim | undefined {
    const destination = lease.subnet.ipv4;
    const claim = this.#readClaim(lease);
    const isOurs = typeof claim === "object" && claim.vpcId === this.#vpcId;
    if (destination === undefined || !isOurs) return undefined;
    const { instanceId, networkInterfaceId } = claim;
    const { publicIp } = lease.attributes;
    return {
      key: lease.key,
      destination,
      instanceId,
      networkInterfaceId,
      ...(publicIp === undefined ? {} : { publicIp: String(publicIp) }),
    };
  }
}

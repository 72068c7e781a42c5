import type { Lease } from "../../lease/lease.ts";
import type { AliVpcAccess } from "../ali/access.ts";
import type { ClusterMark } from "./route_entry.ts";
import type { RouteTable } from "./route_table.ts";

/** The route entry of one host, in every table that peers look routes up in. */
export class HostRoutes {
  /** In the scope of this host alone. */
  readonly table: RouteTable;
  readonly #access: AliVpcAccess;
  readonly #instanceId: string;

  constructor(access: AliVpcAccess, instanceId: string, mark: ClusterMark) {
    this.table = access.makeRouteTable({ instanceId, mark });
    this.#access = access;
    this.#instanceId = instanceId;
  }

  /**
   * Takes the leases into account, before a round of the Table: which subnet is this host's, and
   * which tables the peers' vSwitches use. It costs no call as long as the VPC has one table, and
   * few otherwise. Answers the ids of the tables that are to hold the entry, and never fails for
   * trouble of the service: the tables known before stay.
   */
  async follow(
    own: Lease,
    peers: readonly Lease[],
    options: { signal: AbortSignal },
  ): Promise<readonly string[]> {
    const chosen = await this.#access.choice.forPeers(peers, options);
    const destination = own.subnet.ipv4;
    const instanceId = this.#instanceId;
    const claims = destination === undefined ? [] : [{ destination, instanceId }];
    this.table.setScope({ ...chosen, claims });
    return chosen.routeTableIds;
  }
}

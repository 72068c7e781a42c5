/** The routes of a host that writes them itself. @module */
import type { Lease } from "../../lease/lease.ts";
import type { Logger } from "../../log.ts";
import type { CallOptions, Cloud, CloudAccess } from "./provider.ts";
import type { ClusterMark } from "./route_entry.ts";
import { RouteTable } from "./route_table.ts";

/** The route entry of one host, in every table that peers look routes up in. */
export class HostRoutes {
  /** In the scope of this host alone. */
  readonly table: RouteTable;
  readonly #access: CloudAccess;
  readonly #instanceId: string;

  constructor(
    { routes: api, clock, instance: { instanceId } }: Cloud,
    access: CloudAccess,
    options: { readonly mark: ClusterMark; readonly log: Logger },
  ) {
    this.table = new RouteTable({ ...options, ...clock, api, instanceId });
    this.#access = access;
    this.#instanceId = instanceId;
  }

  /**
   * Takes the leases into account, before a round of the Table: which subnet is this host's, and
   * which tables the peers use. It costs no call as long as there is one table, and few otherwise.
   * Returns the ids of the tables that are to hold the entry, and never fails for trouble of the
   * cloud: the tables known before stay.
   */
  async follow(
    own: Lease,
    peers: readonly Lease[],
    options: CallOptions,
  ): Promise<readonly string[]> {
    const chosen = await this.#access.tablesFor(peers, options);
    const destination = own.subnet.ipv4;
    const instanceId = this.#instanceId;
    const claims = destination === undefined ? [] : [{ destination, instanceId }];
    this.table.setScope({ ...chosen, claims });
    return chosen.routeTableIds;
  }
}

/** A host's own routes as a Table that is in use only while no leader writes them. @module */
import type { Lease } from "../../lease/lease.ts";
import type { CallOptions, CloudAccess, CloudRoute } from "./provider.ts";
import { formatCloudRoute, keyOf } from "./route_entry.ts";
import type { RouteTable } from "./route_table.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";

export interface SwitchedRoutesOptions {
  /**
   * How long a list serves, in milliseconds. While no leader lists for all, each host does so for
   * itself, and an account has some hundred calls a minute.
   */
  readonly freshMs: () => number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
}

/** The host's own scope while it is in use; otherwise empty, and never asked for anything. */
export class SwitchedRoutes implements Table<CloudRoute> {
  readonly #current: () => Table<CloudRoute> | undefined;
  readonly #options: Required<SwitchedRoutesOptions>;
  #listed: {
    readonly table: Table<CloudRoute>;
    readonly entries: readonly CloudRoute[];
    readonly at: number;
  } | undefined;

  constructor(current: () => Table<CloudRoute> | undefined, options: SwitchedRoutesOptions) {
    this.#current = current;
    this.#options = { now: () => performance.now(), ...options };
  }

  get kind(): Kind<CloudRoute> {
    return this.#current()?.kind ?? IDLE_KIND;
  }

  async list(options: { signal: AbortSignal }): Promise<readonly CloudRoute[]> {
    const { freshMs, now } = this.#options;
    const table = this.#current();
    if (table === undefined) return [];
    const known = this.#listed;
    if (known?.table === table && now() - known.at < freshMs()) return known.entries;
    const entries = await table.list(options);
    this.#listed = { table, entries, at: now() };
    return entries;
  }

  async apply(
    changes: readonly Change<CloudRoute>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<CloudRoute>[]> {
    this.#listed = undefined;
    return await this.#current()?.apply(changes, options) ?? [];
  }
}

const IDLE_KIND: Kind<CloudRoute> = {
  id: "route-entry",
  name: "route entry",
  key: keyOf,
  equal: () => true,
  owns: () => false,
  format: formatCloudRoute,
};

/** A host's own route entry, in every table that peers look routes up in. */
export interface OwnRoutes {
  /** In the scope of this host alone. */
  readonly table: RouteTable;
  readonly access: CloudAccess;
}

/**
 * Sets the scope of a host's own table before a round: its subnet, and the tables that its peers use.
 * Returns their ids. It costs no call while there is one table, and few otherwise; with trouble of
 * the cloud the tables known before stay.
 */
export async function scopeOwnRoutes(
  { table, access }: OwnRoutes,
  { instanceId, own, peers }: {
    readonly instanceId: string;
    readonly own: Lease;
    readonly peers: readonly Lease[];
  },
  options: CallOptions,
): Promise<readonly string[]> {
  const chosen = await access.tablesFor(peers, options);
  const { ipv4: destination } = own.subnet;
  table.setScope({ ...chosen, claims: destination ? [{ destination, instanceId }] : [] });
  return chosen.routeTableIds;
}

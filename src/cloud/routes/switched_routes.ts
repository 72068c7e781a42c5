/** A host's own routes as a Table that is in use only while no leader writes them. @module */
import type { CloudRoute } from "./provider.ts";
import { formatCloudRoute } from "./route_entry.ts";
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
  key: ({ routeTableId, destination }) => `${routeTableId} ${destination}`,
  equal: () => true,
  owns: () => false,
  format: formatCloudRoute,
};

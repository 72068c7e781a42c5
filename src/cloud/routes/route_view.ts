/** What was last seen of entries and tables. @module */
import type { CloudRoute } from "./provider.ts";
import { keyOf, type Place } from "./route_entry.ts";

/** What is known of one table. */
export interface TableView {
  /** Entries that count against the quota; known in the cluster's scope, once the table was read. */
  readonly used?: number | undefined;
  /**
   * A create was refused for want of room, with so many entries in the table, at this time on the
   * Table's clock. Gone as soon as a create is accepted or entries have gone.
   */
  readonly full?: { readonly used: number | undefined; readonly at: number } | undefined;
  /** Why it could not be read the last time. */
  readonly error?: string | undefined;
}

/** What the tables hold, as far as they were read. Keys are those of the entries' Kind. */
export interface RouteView {
  /** Each entry that was listed, as it was seen last. */
  readonly entries: ReadonlyMap<string, CloudRoute>;
  /** Why the last change at a place failed; a change that succeeds takes it away. */
  readonly failures: ReadonlyMap<string, string>;
  /** By id; a table that was never read or written is absent. */
  readonly tables: ReadonlyMap<string, TableView>;
}

/** Keeps a {@linkcode RouteView} up to date. */
export class RouteViewKeeper implements RouteView {
  readonly entries = new Map<string, CloudRoute>();
  readonly failures = new Map<string, string>();
  readonly tables = new Map<string, TableView>();
  readonly #onChange: () => void;

  constructor(onChange: () => void) {
    this.#onChange = onChange;
  }

  /** Takes in a complete listing of a table; `used` where all entries were counted. */
  saw(routeTableId: string, listed: readonly CloudRoute[], used?: number): void {
    const present = new Set(listed.map(keyOf));
    for (const [key, entry] of this.entries) {
      if (entry.routeTableId === routeTableId && !present.has(key)) this.entries.delete(key);
    }
    for (const entry of listed) this.entries.set(keyOf(entry), entry);
    const { full } = this.tables.get(routeTableId) ?? {};
    const roomier = used !== undefined && full?.used !== undefined && used < full.used;
    this.tables.set(routeTableId, { used, full: roomier ? undefined : full });
    this.#onChange();
  }

  /** Takes in a look at one place. */
  sawOne(place: Place, entry: CloudRoute | undefined): void {
    const key = keyOf(place);
    const before = this.entries.get(key);
    if (entry === undefined) this.entries.delete(key);
    else this.entries.set(key, entry);
    const grown = (isCounted(entry) ? 1 : 0) - (isCounted(before) ? 1 : 0);
    const { used } = this.tables.get(place.routeTableId) ?? {};
    if (used !== undefined && grown !== 0) {
      this.#updateTable(place.routeTableId, { used: used + grown });
    }
    if (grown < 0) this.#updateTable(place.routeTableId, { full: undefined });
    this.#onChange();
  }

  /** A table could not be read. */
  unread(routeTableId: string, error: string): void {
    this.#updateTable(routeTableId, { error });
    this.#onChange();
  }

  /** A table refused an entry for want of room. */
  full(routeTableId: string, full: NonNullable<TableView["full"]>): void {
    this.#updateTable(routeTableId, { full });
    this.#onChange();
  }

  /** A table took an entry. */
  notFull(routeTableId: string): void {
    if (this.tables.get(routeTableId)?.full === undefined) return;
    this.#updateTable(routeTableId, { full: undefined });
    this.#onChange();
  }

  failed(key: string, reason: string): void {
    this.failures.set(key, reason);
    this.#onChange();
  }

  succeeded(key: string): void {
    if (this.failures.delete(key)) this.#onChange();
  }

  /** Forgets what is not of these tables, and failures of changes that nobody wants any more. */
  keepOnly(options: {
    readonly routeTableIds: ReadonlySet<string>;
    readonly isWanted: (key: string) => boolean;
  }): void {
    const { routeTableIds, isWanted } = options;
    let changed = false;
    for (const [key, { routeTableId }] of this.entries) {
      if (!routeTableIds.has(routeTableId)) changed = this.entries.delete(key) || changed;
    }
    for (const id of this.tables.keys()) {
      if (!routeTableIds.has(id)) changed = this.tables.delete(id) || changed;
    }
    for (const key of this.failures.keys()) {
      if (!this.entries.has(key) && !isWanted(key)) changed = this.failures.delete(key) || changed;
    }
    if (changed) this.#onChange();
  }

  #updateTable(routeTableId: string, change: TableView): void {
    this.tables.set(routeTableId, { ...this.tables.get(routeTableId), ...change });
  }
}

function isCounted(entry: CloudRoute | undefined): boolean {
  return entry?.isStatic === true;
}

/**
 * The limits that refusals have shown: they hold while entries come and go, until a table takes more
 * than it once refused.
 */
export class ShownLimits {
  readonly #refusals = new Map<string, NonNullable<TableView["full"]>>();

  /** The tables with what was shown so far. */
  of(views: RouteView["tables"]): RouteView["tables"] {
    const tables = new Map(views);
    for (const [id, table] of tables) {
      const known = this.#refusals.get(id);
      if (table.full !== undefined) this.#refusals.set(id, table.full);
      else if (known?.used !== undefined && (table.used ?? 0) > known.used) {
        this.#refusals.delete(id);
      }
      const full = this.#refusals.get(id);
      if (full !== undefined) tables.set(id, { ...table, full });
    }
    return tables;
  }
}

import { Prefix } from "../../src/net/mod.ts";
import { ApiError } from "./api_error.ts";
import { type Behaviour, parseConfig, type RouteEntryConfig, routeEntryConfig } from "./config.ts";
import type { NextHop, RouteEntry, RouteTable } from "./model.ts";
import type { Network } from "./network.ts";
import type { SeededRandom } from "./random.ts";

/** How many past states of an entry a lagging list can show. */
const MAX_HISTORY = 10;
/** How long a deleted entry is remembered at least, for lists that lag. */
const MIN_MEMORY_MS = 60_000;

interface Stored {
  readonly entry: RouteEntry;
  readonly vpcId: string;
  /** The next change of status, if one is under way. */
  task?: { readonly dueAtMs: number; readonly nextHops?: readonly NextHop[] };
  /** What lists show from when on; `undefined`: nothing. */
  readonly history: { readonly sinceMs: number; readonly view: RouteEntry | undefined }[];
}

/** What the store needs of the rest of the cloud. */
export interface StoreContext {
  readonly network: Network;
  readonly random: SeededRandom;
  readonly behaviour: () => Behaviour;
  readonly nowMs: () => number;
  /** Called after each change of an entry. */
  readonly onChange: () => void;
}

/**
 * Route entries and their life cycle:
 *
 *     create → Pending → Available ⇄ Modifying
 *                            └→ Deleting → gone
 *
 * While an entry of a VPC is not Available, every write to any table of that VPC is refused.
 */
export class RouteStore {
  readonly #context: StoreContext;
  readonly #entries = new Map<string, Stored>();
  /** Entries that are gone, kept for lists that lag. */
  #gone: Stored[] = [];
  /** See {@linkcode RouteStore.slowly}. */
  #taskMs: number | undefined;
  readonly #lockedUntilMs = new Map<string, number>();
  #duplicates = 0;

  constructor(context: StoreContext) {
    this.#context = context;
  }

  /** All entries of a table, in order of creation. */
  entriesOf(routeTableId: string): RouteEntry[] {
    return this.all().filter((entry) => entry.routeTableId === routeTableId);
  }

  all(): RouteEntry[] {
    return [...this.#entries.values()].map((stored) => stored.entry);
  }

  find(entryId: string): RouteEntry | undefined {
    return this.#entries.get(entryId)?.entry;
  }

  at(routeTableId: string, destination: string): RouteEntry | undefined {
    return this.entriesOf(routeTableId).find((entry) => entry.destination === destination);
  }

  /** Entries of a table as a list shows them, which may lag behind. */
  visible(routeTableId: string): RouteEntry[] {
    const asOfMs = this.#context.nowMs() - this.#context.behaviour().listLagMs;
    const all = [...this.#gone, ...this.#entries.values()];
    return all.filter((stored) => stored.entry.routeTableId === routeTableId)
      .map((stored) => stored.history.findLast(({ sinceMs }) => sinceMs <= asOfMs)?.view)
      .filter((view) => view !== undefined);
  }

  /** Custom entries of a table, which are what the quota limits. */
  customCount(routeTableId: string): number {
    return this.entriesOf(routeTableId).filter((entry) => entry.type === "Custom").length;
  }

  quotaOf(table: RouteTable): number {
    return table.quota ?? this.#context.behaviour().quota;
  }

  /** Whether a write to the VPC has not settled, or has only just done so. */
  isBusy(vpcId: string): boolean {
    return (this.#lockedUntilMs.get(vpcId) ?? 0) > this.#context.nowMs();
  }

  /** @throws {ApiError} One of the conflict codes, if the VPC takes no write now. */
  requireIdle(vpcId: string): void {
    const { random, behaviour } = this.#context;
    const unlucky = random.next() < behaviour().conflictProbability;
    if (unlucky || this.isBusy(vpcId)) throw conflict(random);
  }

  /** @throws {ApiError} In one of the spellings the service has for it. */
  requireFree(routeTableId: string, destination: string): void {
    const existing = this.at(routeTableId, destination);
    if (!existing) return;
    if (existing.type !== "Custom") {
      throw new ApiError(400, "RouteConflict.AlreadyExist", "The route already exists.");
    }
    const forms = [
      ["InvalidCIDRBlock.Duplicate", "Specified CIDR block is already exists."],
      ["RouterEntryConflict.Duplicated", "The route entry already exists."],
      ["InvalidCidrBlock", "Specified CIDR block is already exists."],
    ] as const;
    const [code, message] = forms[this.#duplicates++ % forms.length]!;
    throw new ApiError(400, code, message);
  }

  /** @throws {ApiError} `QuotaExceeded` */
  requireRoom(table: RouteTable, entries = 1): void {
    if (this.customCount(table.id) + entries <= this.quotaOf(table)) return;
    throw new ApiError(
      400,
      "QuotaExceeded",
      "Route entry quota exceeded in this route table.",
    );
  }

  /** Accepts a new custom entry; it becomes Available after a while. */
  create(
    fields: { table: RouteTable; destination: string; nextHops: NextHop[] } & {
      name?: string | undefined;
      description?: string | undefined;
    },
  ): RouteEntry {
    const stored = this.#store({
      id: `rte-${this.#context.random.text(20)}`,
      routeTableId: fields.table.id,
      destination: fields.destination,
      type: "Custom",
      status: "Pending",
      name: fields.name ?? "",
      description: fields.description ?? "",
      nextHops: fields.nextHops,
      modifiedAtMs: this.#context.nowMs(),
    });
    this.#begin(stored);
    return stored.entry;
  }

  /** Accepts a change of an entry; hops change when it is Available again. */
  modify(
    entry: RouteEntry,
    change: { nextHops?: NextHop[]; name?: string | undefined; description?: string | undefined },
  ): void {
    const stored = this.#entries.get(entry.id)!;
    if (change.name !== undefined) entry.name = change.name;
    if (change.description !== undefined) entry.description = change.description;
    entry.status = "Modifying";
    this.#begin(stored, change.nextHops);
  }

  /** Accepts a deletion; the entry is gone after a while. */
  delete(entry: RouteEntry): void {
    entry.status = "Deleting";
    this.#begin(this.#entries.get(entry.id)!);
  }

  /** Puts an entry there, in force at once, as an operator or the service itself does. */
  put(
    routeTableId: string,
    input: RouteEntryConfig,
    options: { sinceMs?: number } = {},
  ): RouteEntry {
    const config = parseConfig(routeEntryConfig, input);
    const destination = Prefix.parse(config.destination).toString();
    if (this.at(routeTableId, destination)) {
      throw new Error(`Cannot add route ${destination} to ${routeTableId}: there is one`);
    }
    return this.#store({
      id: config.id ?? `rte-${this.#context.random.text(20)}`,
      routeTableId,
      destination,
      type: config.type,
      status: "Available",
      name: config.name,
      description: config.description,
      nextHops: config.nextHops.map(({ weight, ...hop }) => ({
        ...hop,
        ...(weight === undefined ? {} : { weight }),
      })),
      ...(config.serviceType === undefined ? {} : { serviceType: config.serviceType }),
      modifiedAtMs: this.#context.nowMs(),
    }, options.sinceMs).entry;
  }

  /** Removes an entry at once, whatever its status. */
  remove(entry: RouteEntry): void {
    this.#remove(this.#entries.get(entry.id)!);
  }

  /** Gives an entry other hops at once. */
  repoint(entry: RouteEntry, nextHops: NextHop[]): void {
    entry.nextHops = nextHops;
    this.#note(this.#entries.get(entry.id)!, entry);
  }

  /** Carries out every change of status that is due. */
  settle(): void {
    const nowMs = this.#context.nowMs();
    const due = [...this.#entries.values()].filter((each) =>
      (each.task?.dueAtMs ?? Infinity) <= nowMs
    )
      .sort((a, b) => a.task!.dueAtMs - b.task!.dueAtMs);
    for (const stored of due) {
      const { entry } = stored;
      const { dueAtMs, nextHops } = stored.task!;
      delete stored.task;
      if (entry.status === "Deleting") {
        this.#remove(stored, dueAtMs);
        continue;
      }
      if (nextHops) entry.nextHops = [...nextHops];
      entry.status = "Available";
      this.#note(stored, entry, dueAtMs);
    }
    const oldestMs = nowMs - Math.max(MIN_MEMORY_MS, this.#context.behaviour().listLagMs);
    this.#gone = this.#gone.filter((stored) => stored.history.at(-1)!.sinceMs > oldestMs);
  }

  /** When {@linkcode RouteStore.settle} has something to do next; `undefined`: nothing is planned. */
  nextDueAtMs(): number | undefined {
    let next: number | undefined;
    for (const { task } of this.#entries.values()) {
      if (task && (next === undefined || task.dueAtMs < next)) next = task.dueAtMs;
    }
    return next;
  }

  #store(entry: RouteEntry, sinceMs?: number): Stored {
    const { vpcId } = this.#context.network.table(entry.routeTableId);
    const stored: Stored = { entry, vpcId, history: [] };
    this.#entries.set(entry.id, stored);
    this.#note(stored, entry, sinceMs);
    return stored;
  }

  /** Has what `write` begins take `taskMs`, whatever else is set. */
  slowly<T>(taskMs: number, write: () => T): T {
    this.#taskMs = taskMs;
    try {
      return write();
    } finally {
      this.#taskMs = undefined;
    }
  }

  #begin(stored: Stored, nextHops?: readonly NextHop[]): void {
    const { delays, lockAfterWriteMs } = this.#context.behaviour();
    const dueAtMs = this.#context.nowMs() +
      (this.#taskMs ?? this.#context.random.integer(delays.minMs, delays.maxMs));
    stored.task = nextHops ? { dueAtMs, nextHops } : { dueAtMs };
    const lockedUntilMs = Math.max(
      this.#lockedUntilMs.get(stored.vpcId) ?? 0,
      dueAtMs + lockAfterWriteMs,
    );
    this.#lockedUntilMs.set(stored.vpcId, lockedUntilMs);
    this.#note(stored, stored.entry);
  }

  #remove(stored: Stored, sinceMs?: number): void {
    this.#entries.delete(stored.entry.id);
    this.#gone.push(stored);
    this.#note(stored, undefined, sinceMs);
  }

  #note(stored: Stored, view: RouteEntry | undefined, sinceMs = this.#context.nowMs()): void {
    if (view) stored.entry.modifiedAtMs = this.#context.nowMs();
    stored.history.push({ sinceMs, view: view && structuredClone(view) });
    if (stored.history.length > MAX_HISTORY) stored.history.shift();
    this.#context.onChange();
  }
}

function conflict(random: SeededRandom): ApiError {
  const [code, message] = random.pick([
    ["TaskConflict", "The operation is too frequent, please wait a moment and try again."],
    ["TaskConflict", "The operation is too frequent, please wait a moment and try again."],
    ["IncorrectRouteEntryStatus", "The status of the route entry is incorrect."],
    ["IncorrcetRouteEntryStatus", "The status of the route entry is incorrect."],
  ]);
  return new ApiError(400, code!, message!);
}

/** A cloud's route tables as a Table of the reconciler. @module */
import type { Prefix } from "../../net/mod.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";
import { childSignal } from "../../util/child_signal.ts";
import { delay } from "../../util/time.ts";
import { Orphans } from "./orphans.ts";
import type { CallOptions, ChosenTables, Clock, CloudRoute, RouteApi } from "./provider.ts";
import {
  Claims,
  type ClusterMark,
  isOwned,
  isStray,
  keyOf,
  lacksMark,
  leadsTo,
  type Owner,
  type Place,
  type RouteClaim,
  routeEntryKind,
  stepAway,
} from "./route_entry.ts";
import { type Add, type Removal, RouteBatches } from "./route_batches.ts";
import { RouteReader } from "./route_reader.ts";
import { type RouteView, RouteViewKeeper } from "./route_view.ts";
import { FenceError, RouteWriter, TableFullError, UnmarkedError } from "./route_writer.ts";

export interface RouteTableOptions extends Partial<Clock> {
  readonly api: RouteApi;
  /** What tells the cluster's entries from others. */
  readonly mark: ClusterMark;
  /** The host whose entries alone are looked after; without it, those of all hosts. */
  readonly instanceId?: string;
  readonly log: Logger;
  /**
   * Awaited right before every write; if it rejects, nothing more is written and `apply` rejects
   * with its reason.
   */
  readonly fence?: (options: CallOptions) => Promise<void>;
  /**
   * In the scope of all hosts: whether there is proof that nobody uses an entry of ours any more,
   * which no lease speaks for. @default never
   */
  readonly mayTake?: (actual: CloudRoute) => boolean;
  /** How long entries of ours stay that no lease speaks for. @default {600_000} */
  readonly graceMs?: number;
  /** Called whenever {@linkcode RouteTable.view} has changed; often. */
  readonly onView?: () => void;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
}

export interface RouteTableScope extends ChosenTables {
  /** Which subnets belong to which instances: the host's own, or those of all live leases. */
  readonly claims: readonly RouteClaim[];
  /** Whether any key of the store may stand for a lease of some of these addresses. */
  readonly isLeased?: (destination: Prefix) => boolean;
  /** Subnets that the host has given back. */
  readonly released?: readonly Prefix[];
}

/** How long a host waits for its turn while others write. */
const HOST_PATIENCE_MS = 20 * 60_000;
/** The one that writes for all must see soon what else there is to do. */
const CLUSTER_PATIENCE_MS = 3 * 60_000;
/** What was listed longer ago is read again before any of it is deleted. */
const LISTING_FRESH_MS = 60_000;
/** How often tables are searched where nothing of ours belongs. */
const SWEEP_MS = 60 * 60_000;
const FIRST_SWEEP_MS = 2 * 60_000;
/** Entries that are marked in one round of the cluster: each takes seconds, and serves as it is. */
const MARKS_PER_ROUND = 5;

/**
 * A cloud's route tables, as far as they concern this host, or all hosts of the network.
 *
 * For a host, `list` costs one call per table while everything is right, two if our entry is not
 * among those of this instance. For all hosts it costs one call per table and page. `apply` ends
 * when the list shows each entry ready, or it is known why not; while others write it waits for its
 * turn.
 */
export class RouteTable implements Table<CloudRoute> {
  readonly kind: Kind<CloudRoute>;
  /** Entries of ours that no host needs, to be handed from one leader to the next. */
  readonly orphans: Orphans;
  readonly #options: Required<Omit<RouteTableOptions, "instanceId" | "fence" | "onView">> & {
    readonly instanceId: string | undefined;
  };
  readonly #view: RouteViewKeeper;
  readonly #reader: RouteReader;
  readonly #writer: RouteWriter;
  readonly #batches: RouteBatches;
  #scope: RouteTableScope = { routeTableIds: [], otherTableIds: [], claims: [] };
  #owner: Owner;
  #sweepAt: number;
  #unswept = new Set<string>();
  #listedAt = -Infinity;
  /** Tables that the last `list` left out. */
  readonly #unread = new Set<string>();
  /** Places whose entries are to be marked after the last `list`. */
  #markDue: ReadonlySet<string> = new Set();

  constructor({ fence, onView = () => {}, instanceId, ...options }: RouteTableOptions) {
    this.#options = {
      now: () => performance.now(),
      delay,
      random: Math.random,
      graceMs: 600_000,
      mayTake: () => false,
      instanceId,
      ...options,
    };
    // The first rounds have more urgent calls to make.
    this.#sweepAt = this.#options.now() + FIRST_SWEEP_MS * (0.5 + this.#options.random());
    this.orphans = new Orphans(this.#options);
    this.#view = new RouteViewKeeper(onView);
    const context = {
      ...this.#options,
      fence,
      view: this.#view,
      orphans: this.orphans,
      owner: () => this.#owner,
      patienceMs: instanceId === undefined ? CLUSTER_PATIENCE_MS : HOST_PATIENCE_MS,
    };
    const reader = this.#reader = new RouteReader(context);
    const writer = this.#writer = new RouteWriter(context, reader);
    this.#batches = new RouteBatches({ ...context, reader, writer });
    this.#owner = this.#makeOwner();
    this.kind = routeEntryKind(context.owner);
  }

  /** What is known of the tables. The object stays the same; what is in it changes. */
  get view(): RouteView {
    return this.#view;
  }

  isStray(entry: CloudRoute): boolean {
    return this.#owner.instanceId === undefined && isStray(entry, this.#owner);
  }

  /** Says what to look at from the next `list` on; a write that waits takes note at once. */
  setScope(scope: RouteTableScope): void {
    this.#scope = scope;
    this.#owner = this.#makeOwner();
    const known = new Set([...scope.routeTableIds, ...scope.otherTableIds]);
    const owner = this.#owner;
    this.orphans.drop(({ routeTableId, destination }) =>
      !known.has(routeTableId) ||
      (owner.instanceId === undefined && owner.isLeased(destination))
    );
    const wanted = new Set(
      scope.routeTableIds.flatMap((routeTableId) =>
        scope.claims.map(({ destination }) => keyOf({ routeTableId, destination }))
      ),
    );
    this.#view.keepOnly({ routeTableIds: known, isWanted: (key) => wanted.has(key) });
  }

  /**
   * No subnet is ours until the next scope says so; also ends waits for a turn to write one. For
   * all hosts, nothing is looked at either: without claims, every entry would be an orphan.
   */
  disown(): void {
    const tables = this.#options.instanceId === undefined
      ? { routeTableIds: [], otherTableIds: [] }
      : {};
    this.#scope = { ...this.#scope, ...tables, claims: [] };
    this.#owner = this.#makeOwner();
  }

  /**
   * A host's entries and those at its subnets; or every static entry. A table that cannot be read
   * is left out as long as another can, so that it does not hold up the others: `apply` then names
   * the fault.
   */
  async list(options: CallOptions): Promise<readonly CloudRoute[]> {
    const found: CloudRoute[] = [];
    const faults: unknown[] = [];
    const { routeTableIds } = this.#scope;
    this.#unread.clear();
    this.#owner = this.#makeOwner();
    for (const routeTableId of routeTableIds) {
      try {
        const listed = this.#options.instanceId === undefined
          ? await this.#reader.readTable(routeTableId, options)
          : await this.#readOwn(routeTableId, this.#options.instanceId, options);
        found.push(...listed);
      } catch (error) {
        options.signal.throwIfAborted();
        const reason = describeError(error);
        this.#options.log.debug("Cannot read route table", { table: routeTableId, error: reason });
        this.#view.unread(routeTableId, reason);
        this.#unread.add(routeTableId);
        faults.push(error);
      }
    }
    if (faults.length > 0 && faults.length === routeTableIds.length) throw faults[0];
    found.push(...await this.#sweepNext(options));
    this.#listedAt = this.#options.now();
    this.#markDue = new Set(
      found.filter((entry) => this.#isMarkable(entry)).slice(0, MARKS_PER_ROUND).map(keyOf),
    );
    return found;
  }

  async apply(
    changes: readonly Change<CloudRoute>[],
    options: CallOptions,
  ): Promise<readonly FailedChange<CloudRoute>[]> {
    options.signal.throwIfAborted();
    const byTable = Map.groupBy(
      changes,
      (change) => (change.op === "remove" ? change.actual : change.desired).routeTableId,
    );
    using all = childSignal(options.signal);
    // Tables wait for their turns side by side, so that a bad one does not hold up the others.
    const outcomes = await Promise.allSettled([...byTable].map(async ([id, group]) => {
      return await this.#applyTo(id, group, (error) => all.abort(error), { signal: all.signal });
    }));
    options.signal.throwIfAborted();
    if (all.signal.aborted) {
      const { reason } = all.signal;
      throw reason instanceof FenceError ? reason.cause : reason;
    }
    return outcomes.flatMap((outcome) => outcome.status === "fulfilled" ? outcome.value : []);
  }

  async #applyTo(
    routeTableId: string,
    changes: readonly Change<CloudRoute>[],
    end: (error: unknown) => void,
    options: CallOptions,
  ): Promise<readonly FailedChange<CloudRoute>[]> {
    const failures: FailedChange<CloudRoute>[] = [];
    let full: TableFullError | undefined;
    const done = (change: Change<CloudRoute>, error?: Error) => {
      const key = keyOf(change.op === "remove" ? change.actual : change.desired);
      if (error === undefined) return this.#view.succeeded(key);
      if (error instanceof UnmarkedError) {
        failures.push({ change, error, serves: true });
        return;
      }
      if (error instanceof TableFullError) full = error;
      this.#view.failed(key, describeError(error));
      failures.push({ change, error });
    };
    const looked = !this.#unread.has(routeTableId);
    const work = async (left: Change<CloudRoute>[]) => {
      for (let change = left.shift(); change !== undefined; change = left.shift()) {
        const fits = full === undefined || change.op !== "add" ||
          this.#view.entries.has(keyOf(change.desired));
        if (!fits) done(change, full);
        else done(change, await this.#applyOne(change, { ...options, looked }));
      }
    };
    try {
      const left = this.#options.instanceId === undefined
        ? [...await this.#applyInBatches(routeTableId, changes, done, options)]
        : [...changes];
      await Promise.all(
        Array.from({ length: this.#options.api.writesAtOnce }, () => work(left)),
      );
    } catch (error) {
      end(error);
      throw error;
    }
    return failures;
  }

  /** Makes one change; returns why it failed. */
  async #applyOne(
    change: Change<CloudRoute>,
    options: CallOptions & { looked: boolean },
  ): Promise<Error | undefined> {
    try {
      await this.#writer.converge(change, options);
      return undefined;
    } catch (thrown) {
      options.signal.throwIfAborted();
      if (thrown instanceof FenceError) throw thrown;
      return thrown instanceof Error ? thrown : new Error(String(thrown));
    }
  }

  /** Makes those changes that batches can make; returns the others. */
  async #applyInBatches(
    routeTableId: string,
    changes: readonly Change<CloudRoute>[],
    done: (change: Change<CloudRoute>, error?: Error) => void,
    options: CallOptions,
  ): Promise<readonly Change<CloudRoute>[]> {
    const age = this.#options.now() - this.#listedAt;
    const stale = age > LISTING_FRESH_MS && changes.some(({ op }) => op === "remove");
    if (stale || this.#unread.has(routeTableId)) {
      // Nothing is written blindly, and one reading serves all.
      try {
        await this.#reader.readTable(routeTableId, options);
      } catch (thrown) {
        options.signal.throwIfAborted();
        const error = thrown instanceof Error ? thrown : new Error(String(thrown));
        for (const change of changes) done(change, error);
        return [];
      }
    }
    const isThere = (place: Place) => this.#view.entries.has(keyOf(place));
    const adds: Add[] = [];
    const removals: Removal[] = [];
    const others: Change<CloudRoute>[] = [];
    for (const change of changes) {
      if (change.op === "add" && !isThere(change.desired)) adds.push(change);
      else if (change.op === "remove" && this.#isToGo(change.actual)) removals.push(change);
      else others.push(change);
    }
    if (adds.length > 1 && this.#view.tables.get(routeTableId)?.full !== undefined) {
      // Only a try tells whether the quota was raised; one is enough.
      const probe = adds.shift()!;
      const error = await this.#applyOne(probe, { ...options, looked: true });
      done(probe, error);
      if (error instanceof TableFullError) {
        for (const add of adds.splice(0)) done(add, error);
      }
    }
    if (this.#options.api.batches === undefined) return [...adds, ...removals, ...others];
    const created = await this.#batches.create(routeTableId, adds, options);
    const removed = await this.#batches.remove(routeTableId, removals, options);
    const left: readonly Change<CloudRoute>[] = [...created.left, ...removed.left];
    const failed = [...created.failed, ...removed.failed];
    for (const { change, error } of failed) done(change, error);
    const undone = new Set([...left, ...failed.map(({ change }) => change)]);
    for (const change of [...adds, ...removals]) if (!undone.has(change)) done(change);
    return [...left, ...others];
  }

  /** Whether the entry, as it was seen last, is the one that was found to have no use. */
  #isToGo(listed: CloudRoute): boolean {
    const step = stepAway(this.#view.entries.get(keyOf(listed)), this.#owner);
    return step.do === "delete" && step.entry.entryId === listed.entryId;
  }

  #makeOwner(): Owner {
    const { mark, mayTake, instanceId } = this.#options;
    const { claims, routeTableIds, isLeased = () => false, released = [] } = this.#scope;
    const any = {
      mark,
      claims: new Claims(claims),
      routeTableIds: new Set(routeTableIds),
      acceptUnmarked: !this.#writer.canMark,
    };
    return instanceId !== undefined ? { ...any, instanceId, released } : {
      ...any,
      mayTake,
      isLeased: (destination) => any.claims.at(destination) !== undefined || isLeased(destination),
      isMarkDue: (actual) => this.#markDue.has(keyOf(actual)),
    };
  }

  /** Whether an entry is right but for its mark. */
  #isMarkable(entry: CloudRoute): boolean {
    const claimant = this.#owner.claims.at(entry.destination);
    return claimant !== undefined && leadsTo(entry, claimant) && lacksMark(entry, this.#owner);
  }

  /** A host's entries, wherever they lead to, and those at its subnets. */
  async #readOwn(
    routeTableId: string,
    instanceId: string,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const listed = [...await this.#listOwn(routeTableId, instanceId, options)];
    const { claims, released = [] } = this.#scope;
    for (const destination of [...claims.map((claim) => claim.destination), ...released]) {
      if (listed.some((entry) => entry.destination.equals(destination))) continue;
      const entry = await this.#reader.read({ routeTableId, destination }, options);
      if (entry !== undefined) listed.push(entry);
    }
    this.#view.saw(routeTableId, listed);
    return listed;
  }

  /** Entries that the cloud knows as this instance's; what its filter returns is checked. */
  async #listOwn(
    routeTableId: string,
    instanceId: string,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const entries = await this.#reader.readOwn(routeTableId, instanceId, options);
    return entries.filter((entry) =>
      // One that somebody pointed elsewhere is theirs now, unless it is for our own subnet.
      isOwned(entry, this.#owner) || this.#owner.claims.at(entry.destination) !== undefined
    );
  }

  /** Entries of a table that does not serve the cluster, which ours may be among. */
  async #listStrays(
    routeTableId: string,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const { instanceId } = this.#options;
    if (instanceId !== undefined) return await this.#listOwn(routeTableId, instanceId, options);
    const listed = await this.#reader.readTable(routeTableId, options);
    const owner = this.#owner;
    return listed.filter((entry) => owner.instanceId === undefined && isStray(entry, owner));
  }

  /**
   * Searches one table where nothing of ours belongs, if a search is due: one per `list`, so that
   * a VPC with many tables costs no burst of calls. Trouble there can wait.
   */
  async #sweepNext(options: CallOptions): Promise<readonly CloudRoute[]> {
    const { now, log } = this.#options;
    if (now() >= this.#sweepAt) {
      this.#sweepAt = now() + SWEEP_MS;
      this.#unswept = new Set(this.#scope.otherTableIds);
    }
    const [routeTableId] = this.#unswept;
    if (routeTableId === undefined) return [];
    this.#unswept.delete(routeTableId);
    if (!this.#scope.otherTableIds.includes(routeTableId)) return [];
    try {
      const stale = await this.#listStrays(routeTableId, options);
      // Looked at again until they are gone.
      if (stale.length > 0) this.#unswept.add(routeTableId);
      return stale;
    } catch (error) {
      options.signal.throwIfAborted();
      log.debug("Cannot search a route table for stale entries", {
        table: routeTableId,
        error: describeError(error),
      });
      return [];
    }
  }
}

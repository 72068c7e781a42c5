import type { Prefix } from "../../net/mod.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import { Backoff, delay } from "../../util/time.ts";
import type { RouteEntry, VpcClient } from "./client.ts";
import { AliApiError, type RetryCause } from "./errors.ts";
import {
  type CloudRoute,
  formatCloudRoute,
  isOwned,
  type Owner,
  routeEntryKind,
  routeEntryName,
  type Step,
  stepAway,
  stepTowards,
  toCloudRoute,
} from "./route_entry.ts";

/** Options of {@linkcode RouteTable}. */
export interface RouteTableOptions {
  readonly vpc: VpcClient;
  /** The whole pod network. */
  readonly network: Prefix;
  readonly instanceId: string;
  readonly log: Logger;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
  /** @default {delay} */
  readonly delay?: typeof delay;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
}

/** What the Table is to look at. */
export interface RouteTableScope {
  /** The tables that are to hold our entry. */
  readonly routeTableIds: readonly string[];
  /** Other tables of the VPC, where entries of ours can only be stale. */
  readonly otherTableIds: readonly string[];
  /** The subnets of our lease. */
  readonly destinations: readonly Prefix[];
}

/** A foreign entry stands where ours should be. */
export class RouteConflictError extends Error {
  override name = "RouteConflictError";
}

/**
 * How long the list may lag behind an accepted write. Within it, a write is not repeated because
 * the list does not show it yet.
 */
const LIST_LAG_MS = 60_000;
/** How long an entry may stay between two states, or the service busy with others. */
const PATIENCE_MS = 20 * 60_000;
/** How often tables are searched where nothing of ours belongs. */
const SWEEP_MS = 60 * 60_000;
const FIRST_SWEEP_MS = 2 * 60_000;
/** A waiting host says so again after this. */
const REMIND_MS = 5 * 60_000;

/** While another host's write is under way, which the service reports in several ways. */
const TURN = { initialMs: 2_500, maxMs: 20_000 };

/** Upper bounds of waits by their cause, first and largest. */
const WAITS: Readonly<Record<RetryCause, { initialMs: number; maxMs: number }>> = {
  // One write of the VPC takes seconds; with many hosts waiting, most tries are in vain.
  task: TURN,
  changing: TURN,
  // Limits are counted per minute and account.
  throttled: { initialMs: 8_000, maxMs: 60_000 },
  busy: { initialMs: 2_000, maxMs: 30_000 },
  instance: { initialMs: 5_000, maxMs: 30_000 },
  cen: { initialMs: 5_000, maxMs: 30_000 },
  nonce: { initialMs: 1_000, maxMs: 5_000 },
};

/** A write that was accepted, or whose outcome is not known. */
interface SentWrite {
  readonly write: "create" | "modify" | "delete";
  readonly at: number;
}

/**
 * The VPC's route tables, as far as they concern this host. `list` costs one call per table while
 * everything is right (its name filter finds all entries of this instance), two if our entry is
 * not among them. `apply` ends when the list shows the entry Available, or it is known why not;
 * while other hosts have the VPC it waits for its turn, up to 20 minutes.
 */
export class RouteTable implements Table<CloudRoute> {
  readonly kind: Kind<CloudRoute>;
  readonly #options: Required<RouteTableOptions>;
  readonly #sent = new Map<string, SentWrite>();
  #scope: RouteTableScope = { routeTableIds: [], otherTableIds: [], destinations: [] };
  #sweepAt: number;
  #unswept = new Set<string>();
  /** Tables that the last `list` left out. */
  readonly #unread = new Set<string>();
  #acceptUnnamed = false;
  /** Re-pointing in place is denied or unknown here: delete and create instead. */
  #modifyUnusable = false;

  constructor(options: RouteTableOptions) {
    this.#options = { now: () => performance.now(), delay, random: Math.random, ...options };
    // The first rounds have more urgent calls to make.
    this.#sweepAt = this.#options.now() + FIRST_SWEEP_MS * (0.5 + this.#options.random());
    this.kind = routeEntryKind(() => this.#owner());
  }

  /** Says what to look at from the next `list` on. */
  setScope(scope: RouteTableScope): void {
    this.#scope = scope;
  }

  /** No subnet is ours until the next scope says so; also ends waits for a turn to write one. */
  disown(): void {
    this.#scope = { ...this.#scope, destinations: [] };
  }

  /**
   * The entries of this instance and those at our subnets. A table that cannot be read is left out
   * as long as another can, so that it does not hold up the others: `apply` then names the fault.
   */
  async list(options: { signal: AbortSignal }): Promise<readonly CloudRoute[]> {
    const found: CloudRoute[] = [];
    const faults: unknown[] = [];
    const { routeTableIds, destinations } = this.#scope;
    this.#unread.clear();
    for (const routeTableId of routeTableIds) {
      try {
        const named = await this.#listNamed(routeTableId, options);
        found.push(...named);
        for (const destination of destinations) {
          if (named.some((entry) => entry.destination.equals(destination))) continue;
          const entry = await this.#read(routeTableId, destination, options);
          if (entry !== undefined) found.push(entry);
        }
      } catch (error) {
        options.signal.throwIfAborted();
        this.#options.log.debug("Cannot read route table", {
          table: routeTableId,
          error: describeError(error),
        });
        this.#unread.add(routeTableId);
        faults.push(error);
      }
    }
    if (faults.length > 0 && faults.length === routeTableIds.length) throw faults[0];
    found.push(...await this.#sweepNext(options));
    return found;
  }

  async apply(
    changes: readonly Change<CloudRoute>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<CloudRoute>[]> {
    options.signal.throwIfAborted();
    const byTable = Map.groupBy(
      changes,
      (change) => (change.op === "remove" ? change.actual : change.desired).routeTableId,
    );
    // Tables wait for their turns side by side, so that a bad one does not hold up the others.
    const failed = await Promise.all([...byTable.values()].map(async (group) => {
      const failures: FailedChange<CloudRoute>[] = [];
      for (const change of group) {
        try {
          await this.#converge(change, options);
        } catch (thrown) {
          options.signal.throwIfAborted();
          const error = thrown instanceof Error ? thrown : new Error(String(thrown));
          failures.push({ change, error });
        }
      }
      return failures;
    }));
    return failed.flat();
  }

  #owner(): Owner {
    const { network, instanceId } = this.#options;
    return {
      network,
      instanceId,
      destinations: this.#scope.destinations,
      acceptUnnamed: this.#acceptUnnamed,
    };
  }

  /** Entries that carry this instance's name; the filter's answer is checked. */
  async #listNamed(
    routeTableId: string,
    options: { signal: AbortSignal },
  ): Promise<readonly CloudRoute[]> {
    const { vpc, network, instanceId } = this.#options;
    const name = routeEntryName(network, instanceId);
    const entries = await vpc.describeRouteEntryList(
      routeTableId,
      { type: "Custom", name },
      options,
    );
    const owner = this.#owner();
    return entries.map(toCloudRoute).filter((entry) =>
      entry.name === name &&
      // One that somebody pointed elsewhere is theirs now, unless it is for our own subnet.
      (isOwned(entry, owner) || owner.destinations.some((own) => own.equals(entry.destination)))
    );
  }

  /**
   * Searches one table where nothing of ours belongs, if a search is due: one per `list`, so that
   * a VPC with many tables costs no burst of calls. Trouble there can wait.
   */
  async #sweepNext(options: { signal: AbortSignal }): Promise<readonly CloudRoute[]> {
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
      const stale = await this.#listNamed(routeTableId, options);
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

  /** The entry of exactly this destination; a custom one hides a dynamic one. */
  async #read(
    routeTableId: string,
    destination: Prefix,
    options: { signal: AbortSignal },
  ): Promise<CloudRoute | undefined> {
    const entries: readonly RouteEntry[] = await this.#options.vpc.describeRouteEntryList(
      routeTableId,
      { destination },
      options,
    );
    const same = entries.filter((entry) => entry.destination.equals(destination));
    const entry = same.find((each) => each.type === "Custom") ?? same[0];
    return entry && toCloudRoute(entry);
  }

  /**
   * Reads the entry, takes the step it asks for, and reads again, until it is as wanted. Every
   * uncertainty (time-out, duplicate, lagging list) ends in another look, never in a guess.
   */
  async #converge(
    change: Change<CloudRoute>,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const target = change.op === "remove" ? change.actual : change.desired;
    const goal = change.op === "remove"
      ? `remove route ${formatCloudRoute(change.actual)}`
      : `create route ${target.destination} in ${target.routeTableId}`;
    const wait = new Waits(this.#options, goal);
    const token = new LogicalCreate();
    for (let looks = 1;; looks++) {
      let actual: CloudRoute | undefined;
      // The list has just found nothing there; should that be wrong, the create is refused.
      if (looks > 1 || change.op !== "add" || this.#unread.has(target.routeTableId)) {
        try {
          actual = await this.#read(target.routeTableId, target.destination, options);
        } catch (error) {
          await wait.after(error, options);
          continue;
        }
      }
      const step = change.op === "remove"
        ? stepAway(actual, this.#owner())
        : stepTowards(change.desired, actual, this.#owner());
      if (step.do === "done") return void this.#sent.delete(this.kind.key(target));
      if (step.do === "conflict") throw conflictError(step.actual);
      if (step.do === "wait" || this.#isOnItsWay(target, step)) {
        await wait.poll(step.do === "wait" ? step.status : "not listed yet", options);
        continue;
      }
      if (step.do === "modify" && !step.repoint) {
        if (!await this.#rename(target, step.entryId, wait, options)) return;
      } else await this.#write(target, step, token, wait, options);
    }
  }

  /**
   * Names an entry that leads here already. It serves as it is, so whatever stands in the way is
   * not waited out: `false` leaves the name to a later round, or for ever if it is denied.
   */
  async #rename(
    target: CloudRouteSpec,
    entryId: string,
    wait: Waits,
    options: { signal: AbortSignal },
  ): Promise<boolean> {
    const { vpc, network, instanceId, log } = this.#options;
    try {
      const name = routeEntryName(network, instanceId);
      await vpc.modifyRouteEntry(entryId, { name }, options);
    } catch (error) {
      options.signal.throwIfAborted();
      if (isUnavailable(error)) {
        this.#acceptUnnamed = true;
        log.warn("Cannot name a route entry as flanneld's own; it is used as it is", {
          error: error.message,
        });
      } else log.debug("Cannot name a route entry yet", { error: describeError(error) });
      return false;
    }
    this.#remember(target, "modify");
    await wait.poll("accepted", options);
    return true;
  }

  /** Does a write, as often as the service asks for patience; ends when a new look is due. */
  async #write(
    target: CloudRouteSpec,
    step: Extract<Step, { do: "create" | "modify" | "delete" }>,
    token: LogicalCreate,
    wait: Waits,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { vpc, network, instanceId, log } = this.#options;
    const name = routeEntryName(network, instanceId);
    const write = step.do === "modify" && step.repoint && this.#modifyUnusable ? "delete" : step.do;
    for (;;) {
      this.#requireOwn(target, step);
      try {
        if (step.do === "create") {
          await vpc.createRouteEntry({
            ...options,
            routeTableId: target.routeTableId,
            destination: target.destination,
            instanceId: target.instanceId,
            name,
            clientToken: token.current(),
          });
          token.renew();
        } else if (write === "delete") {
          await vpc.deleteRouteEntry(step.entryId, options);
        } else {
          await vpc.modifyRouteEntry(
            step.entryId,
            { instanceId: target.instanceId, name },
            options,
          );
        }
        this.#remember(target, write);
        await wait.poll("accepted", options);
        return;
      } catch (thrown) {
        options.signal.throwIfAborted();
        if (!(thrown instanceof AliApiError)) throw wait.failure(thrown);
        const { reaction } = thrown;
        if (reaction.do === "settle") {
          // `exists`: the list is behind, or another try of ours succeeded. `gone`: likewise.
          if (reaction.as === "exists") token.renew();
          this.#remember(target, write);
          await wait.poll("settling", options);
          return;
        }
        if (write === "modify" && isUnavailable(thrown)) {
          this.#modifyUnusable = true;
          log.warn("Cannot re-point a route entry in place; it is deleted and created anew", {
            error: thrown.message,
          });
          return;
        }
        if (reaction.do === "stop" && reaction.cause === "quota" && write === "create") {
          const used = await countEntries(vpc, target.routeTableId, options);
          throw new Error(tableFull(used, thrown), { cause: thrown });
        }
        await wait.after(thrown, options);
        // It may be our own entry that changes; one that is to be created is not there yet.
        const ours = reaction.do === "retry" && reaction.cause === "changing" && write !== "create";
        if (thrown.outcomeUnknown || ours) return;
      }
    }
  }

  /** While a write waited for its turn, the lease may have gone to another host. */
  #requireOwn({ destination }: CloudRouteSpec, step: Step): void {
    if (step.do === "delete") return;
    if (this.#scope.destinations.some((own) => own.equals(destination))) return;
    throw new Error(`this host does not hold the lease of ${destination} any more`);
  }

  #remember(target: CloudRouteSpec, write: SentWrite["write"]): void {
    this.#sent.set(this.kind.key(target), { write, at: this.#options.now() });
  }

  /** Whether the same write was sent a short while ago, so that the list is what is behind. */
  #isOnItsWay(target: CloudRouteSpec, step: Step): boolean {
    const sent = this.#sent.get(this.kind.key(target));
    if (sent === undefined || this.#options.now() - sent.at > LIST_LAG_MS) return false;
    return sent.write === step.do || (sent.write === "delete" && step.do === "modify");
  }
}

/** Whether an action is denied or unknown here, whatever it is asked to do. */
function isUnavailable(error: unknown): error is AliApiError {
  return error instanceof AliApiError && error.reaction.do === "stop" &&
    (error.reaction.cause === "denied" || error.reaction.cause === "request");
}

/** The token that makes all tries of one create one create (64 ASCII characters at most). */
class LogicalCreate {
  #token: string | undefined;

  current(): string {
    return this.#token ??= `flanneld-${crypto.randomUUID()}`;
  }

  /** The create has been answered for good; another one would be another create. */
  renew(): void {
    this.#token = undefined;
  }
}

/** The waits of one change: paced by their cause, spread by jitter, bounded in all. */
class Waits {
  /** `create route 10.24.7.0/24 in vtb-1`. */
  readonly goal: string;
  readonly #options: Required<RouteTableOptions>;
  readonly #startedAt: number;
  /** By the bounds of the wait: causes that share them count as one. */
  readonly #causes = new Map<object, { readonly backoff: Backoff; readonly since: number }>();
  readonly #poll: Backoff;
  #saidAt = -Infinity;

  constructor(options: Required<RouteTableOptions>, goal: string) {
    this.#options = options;
    this.goal = goal;
    this.#startedAt = options.now();
    this.#poll = new Backoff({
      initialMs: 2_000,
      maxMs: 10_000,
      factor: 1.5,
      random: options.random,
    });
  }

  /** Waits until the entry is worth another look. */
  async poll(state: string, options: { signal: AbortSignal }): Promise<void> {
    const waitedMs = this.#options.now() - this.#startedAt;
    if (waitedMs > PATIENCE_MS) {
      throw new Error(`the entry is still "${state}" after ${minutes(waitedMs)}`);
    }
    await this.#options.delay(this.#poll.next(), options);
  }

  /** Waits out a failed call, or throws it if waiting cannot help (any more). */
  async after(error: unknown, options: { signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    if (!(error instanceof AliApiError) || error.reaction.do !== "retry") throw this.failure(error);
    const { cause, budgetSeconds } = error.reaction;
    const now = this.#options.now();
    let known = this.#causes.get(WAITS[cause]);
    if (known === undefined) {
      const backoff = new Backoff({ ...WAITS[cause], random: this.#options.random });
      known = { backoff, since: now };
      this.#causes.set(WAITS[cause], known);
    }
    if (now - known.since > budgetSeconds * 1000 || now - this.#startedAt > PATIENCE_MS) {
      throw this.failure(error);
    }
    if (now - this.#saidAt > REMIND_MS) {
      this.#saidAt = now;
      this.#options.log.info(`Waiting to ${this.goal}`, { reason: error.code });
    }
    await this.#options.delay(known.backoff.next(), options);
  }

  /** The error that ends the change. */
  failure(cause: unknown): Error {
    const waitedMs = this.#options.now() - this.#startedAt;
    const waited = waitedMs < 60_000 ? "" : `given up after ${minutes(waitedMs)}: `;
    return new Error(`${waited}${describeError(cause)}`, { cause });
  }
}

function minutes(milliseconds: number): string {
  return `${Math.max(1, Math.round(milliseconds / 60_000))} min`;
}

/** The reason only: whoever reports the failed change names the wanted entry. */
function conflictError(actual: CloudRoute): RouteConflictError {
  return new RouteConflictError(
    `${formatCloudRoute(actual)} stands in its place and is not flanneld's; remove it, or give ` +
      "this host another subnet",
  );
}

/** Entries that count against the quota; `undefined` if they cannot be counted now. */
export async function countEntries(
  vpc: VpcClient,
  routeTableId: string,
  options: { signal: AbortSignal },
): Promise<number | undefined> {
  try {
    return await vpc.countCustomRouteEntries(routeTableId, options);
  } catch {
    options.signal.throwIfAborted();
    return undefined;
  }
}

/** `route table is full (200 of 200); raise …`, for what cannot be created in it. */
export function tableFull(used: number | undefined, refusal: AliApiError): string {
  // The service does not say its limit, but a table that takes no more has reached it.
  const fill = used === undefined ? "" : ` (${used} of ${used})`;
  return `route table is full${fill}; ${refusal.advice}`;
}

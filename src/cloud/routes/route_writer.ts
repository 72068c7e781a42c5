/** Writes entries one by one, until each is seen to be right. @module */
import { describeError } from "../../errors.ts";
import type { Change } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import { deadline } from "../../util/time.ts";
import { Turns } from "../../util/turns.ts";
import { CloudApiError, isUnavailable } from "./cloud_error.ts";
import type { Accepted, CallOptions, CloudRoute, RouteApi, WriteOptions } from "./provider.ts";
import {
  describeConflict,
  formatCloudRoute,
  isNeeded,
  keyOf,
  type Place,
  routeMark,
  type Step,
  stepAway,
  stepTowards,
} from "./route_entry.ts";
import type { RouteContext, RouteReader } from "./route_reader.ts";
import { Waits } from "./waits.ts";

/** A foreign entry stands where ours should be. */
class RouteConflictError extends Error {
  override name = "RouteConflictError";
}

/** The fence has rejected: nothing more may be written. */
export class FenceError extends Error {
  override name = "FenceError";
}

export class OutdatedError extends Error {
  override name = "OutdatedError";
}

/** An entry that serves as it is was not given its mark. */
export class UnmarkedError extends Error {
  override name = "UnmarkedError";
}

/** The table takes no more entries. */
export class TableFullError extends Error {
  override name = "TableFullError";
}

/**
 * How long the list may lag behind an accepted write. Within it, a write is not repeated because
 * the list does not show it yet.
 */
const LIST_LAG_MS = 60_000;

/** A write of ours keeps others waiting while it settles, but not beyond so many looks. */
export const LOOKS_IN_TURN = 8;

/** A write that was accepted, or whose outcome is not known. */
interface SentWrite {
  readonly write: "create" | "repoint" | "rename" | "delete";
  readonly at: number;
}

/**
 * Brings single entries to where they should be. The writes of all tables take turns, of which there
 * are as many as the cloud serves at a time.
 */
export class RouteWriter {
  readonly #options: RouteContext;
  readonly #reader: RouteReader;
  readonly #turns: Turns;
  readonly #sent = new Map<string, SentWrite>();
  #canRepoint: boolean;
  #canMark: boolean;

  constructor(options: RouteContext, reader: RouteReader) {
    const { api } = options;
    this.#options = options;
    this.#reader = reader;
    this.#turns = new Turns(api.writesAtOnce);
    this.#canRepoint = api.repoint !== undefined;
    this.#canMark = api.rename !== undefined;
  }

  /** Whether an entry that is there can be given a mark. */
  get canMark(): boolean {
    return this.#canMark;
  }

  /**
   * Reads the entry, takes the step it asks for, and reads again, until it is as wanted. Every
   * uncertainty (time-out, duplicate, lagging list) ends in another look, never in a guess.
   * `looked` says that a list has just been read that shows nothing at the place of an `add`;
   * should that be wrong, the create is refused.
   */
  async converge(
    change: Change<CloudRoute>,
    options: CallOptions & { readonly looked: boolean },
  ): Promise<void> {
    const { owner } = this.#options;
    const target = change.op === "remove" ? change.actual : change.desired;
    const wait = this.waits(
      change.op === "remove"
        ? `remove route ${formatCloudRoute(change.actual)}`
        : `create route ${target.destination} in ${target.routeTableId}`,
    );
    const token = new LogicalCreate();
    using turn = this.turn();
    for (let looks = 1;; looks++) {
      if (looks > LOOKS_IN_TURN) turn.release();
      let actual: CloudRoute | undefined;
      if (looks > 1 || change.op !== "add" || !options.looked) {
        try {
          actual = await this.#reader.read(target, options);
        } catch (error) {
          turn.release();
          await wait.after(error, options);
          continue;
        }
      }
      const step = change.op === "remove"
        ? stepAway(actual, owner())
        : stepTowards(change.desired, actual, owner());
      if (step.do === "done") return this.forget(target);
      if (change.op === "remove") this.requireUnneeded(target);
      if (step.do === "conflict") throw conflictError(step.actual);
      if (step.do === "wait" || this.isOnItsWay(target, step)) {
        await wait.poll(step.do === "wait" ? step.status : "not listed yet", options);
        continue;
      }
      // What is changed must be what was seen, and others' writes may have gone before this one.
      if (await turn.take(options) && step.do !== "create") continue;
      if (step.do === "rename") await this.#rename(target, step.entry, wait, options);
      else await this.#write(target, step, { token, wait, turn }, options);
    }
  }

  turn(): Turn {
    return new Turn(this.#turns);
  }

  waits(goal: string): Waits {
    return new Waits({ ...this.#options, goal });
  }

  /**
   * To be awaited right before a write; `check` says whether it is still wanted. @throws
   * {FenceError}
   */
  guard(check: () => void): (options: CallOptions) => Promise<void> {
    return async ({ signal }) => {
      try {
        await this.#options.fence?.({ signal });
      } catch (error) {
        signal.throwIfAborted();
        throw new FenceError(describeError(error), { cause: error });
      }
      check();
    };
  }

  /** @throws {Error} If the entry is not to lead there any more. */
  requireClaimed({ destination, instanceId }: CloudRouteSpec): void {
    const owner = this.#options.owner();
    if (owner.claims.at(destination) === instanceId) return;
    throw new OutdatedError(
      owner.instanceId === undefined
        ? `${instanceId} does not hold the lease of ${destination} any more`
        : `this host does not hold the lease of ${destination} any more`,
    );
  }

  /** @throws {Error} If a lease has come for the place. */
  requireUnneeded(route: CloudRouteSpec): void {
    const owner = this.#options.owner();
    if (owner.instanceId !== undefined) return;
    if (isNeeded(route, owner)) throw new OutdatedError(`${route.destination} is leased`);
    if (owner.mayTake(route)) return;
    throw new OutdatedError(`${route.instanceId} may use ${route.destination} again`);
  }

  /**
   * Marks an entry that leads here already. It serves as it is, so whatever stands in the way is
   * not waited out: the mark is left to a later round, or for ever if it is denied.
   *
   * @throws {UnmarkedError}
   */
  async #rename(
    target: CloudRouteSpec,
    entry: CloudRoute,
    wait: Waits,
    { signal }: CallOptions,
  ): Promise<void> {
    const { api, mark, log } = this.#options;
    try {
      const beforeSend = this.guard(() => this.requireClaimed(target));
      const name = routeMark(mark, target.instanceId);
      await this.#finish(await api.rename?.(entry, name, { signal, beforeSend }), { signal });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof FenceError) throw error;
      if (isUnavailable(error)) {
        this.#canMark = false;
        log.warn("Cannot name a route entry as flanneld's own; it is used as it is", {
          error: error.message,
        });
      } else log.debug("Cannot name a route entry yet", { error: describeError(error) });
      throw new UnmarkedError(describeError(error));
    }
    this.remember(target, "rename");
    await wait.poll("accepted", { signal });
  }

  /** Does a write, as often as the cloud asks for patience; ends when a new look is due. */
  async #write(
    target: CloudRouteSpec,
    step: Extract<Step, { do: "create" | "repoint" | "rename" | "delete" }>,
    { token, wait, turn }: {
      readonly token: LogicalCreate;
      readonly wait: Waits;
      readonly turn: Turn;
    },
    options: CallOptions,
  ): Promise<void> {
    const { view, log } = this.#options;
    const { signal } = options;
    const { routeTableId } = target;
    const write = step.do === "repoint" && !this.#canRepoint ? "delete" : step.do;
    const beforeSend = this.guard(() =>
      step.do === "delete" ? this.requireUnneeded(target) : this.requireClaimed(target)
    );
    for (;;) {
      await turn.take(options);
      try {
        const entry = step.do === "create" ? undefined : step.entry;
        const operation = await this.#send(target, entry, write, token, { signal, beforeSend });
        await this.#finish(operation, { signal });
        if (write === "create") view.notFull(routeTableId);
        this.remember(target, write);
        if (operation === undefined) await wait.poll("accepted", options);
        return;
      } catch (thrown) {
        signal.throwIfAborted();
        if (thrown instanceof FenceError || thrown instanceof OutdatedError) throw thrown;
        if (!(thrown instanceof CloudApiError)) throw wait.failure(thrown);
        const { reaction } = thrown;
        if (reaction.do === "exists" || reaction.do === "gone") {
          // `exists`: the list is behind, or another try of ours succeeded. `gone`: likewise.
          if (reaction.do === "exists") token.renew();
          this.remember(target, write);
          await wait.poll("settling", options);
          return;
        }
        if (write === "repoint" && isUnavailable(thrown)) {
          this.#canRepoint = false;
          log.warn("Cannot re-point a route entry in place; it is deleted and created again", {
            error: thrown.message,
          });
          return;
        }
        if (reaction.do === "quota" && write === "create") {
          throw await this.tableIsFull(routeTableId, thrown, options);
        }
        turn.release();
        await wait.after(thrown, options);
        // It may be our own entry that changes; one that is to be created is not there yet.
        const ours = reaction.do === "retry" && reaction.cause === "changing" && write !== "create";
        if (thrown.outcomeUnknown || ours) return;
      }
    }
  }

  async #send(
    target: CloudRouteSpec,
    entry: CloudRoute | undefined,
    write: SentWrite["write"],
    token: LogicalCreate,
    options: WriteOptions,
  ): Promise<Accepted> {
    const { api } = this.#options;
    const { instanceId } = target;
    const mark = routeMark(this.#options.mark, instanceId);
    if (entry === undefined) {
      const accepted = await api.create({ ...target, mark }, {
        ...options,
        token: token.current(),
      });
      token.renew();
      return accepted;
    }
    return write === "delete"
      ? await api.remove(entry, options)
      : await api.repoint?.(entry, { instanceId, mark }, options);
  }

  /** Waits for what a cloud has only accepted, but not for longer than for a turn. */
  async #finish(operation: Accepted, { signal }: CallOptions): Promise<void> {
    if (operation === undefined) return;
    using limit = deadline(this.#options.patienceMs, { signal });
    await operation.finished(limit);
  }

  /** The error of what does not fit into a table, which the view shows as full from now on. */
  async tableIsFull(
    routeTableId: string,
    refusal: CloudApiError,
    options: CallOptions,
  ): Promise<TableFullError> {
    const { api, view, now } = this.#options;
    const used = await countEntries(api, routeTableId, options);
    view.full(routeTableId, { used, at: now() });
    return new TableFullError(tableFull(used, refusal), { cause: refusal });
  }

  /** Notes that a write was accepted, or may have been. */
  remember(target: Place, write: SentWrite["write"]): void {
    this.#sent.set(keyOf(target), { write, at: this.#options.now() });
  }

  /** The write is done, as far as can be seen. */
  forget(target: Place): void {
    this.#sent.delete(keyOf(target));
  }

  /** Whether the same write was sent a short while ago, so that the list is what is behind. */
  isOnItsWay(target: Place, step: Step): boolean {
    const sent = this.#sent.get(keyOf(target));
    if (sent === undefined || this.#options.now() - sent.at > LIST_LAG_MS) return false;
    const isModify = (write: string) => write === "repoint" || write === "rename";
    return sent.write === step.do ||
      (isModify(step.do) && (isModify(sent.write) || sent.write === "delete"));
  }
}

/** One change's turn, which it may give back and ask for again. */
export class Turn implements Disposable {
  readonly #turns: Turns;
  #held: Disposable | undefined;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /** Waits for the turn unless it is held; returns whether others went first. */
  async take(options: CallOptions): Promise<boolean> {
    if (this.#held !== undefined) return false;
    const waits = this.#turns.taken;
    this.#held = await this.#turns.take(options);
    return waits;
  }

  release(): void {
    this.#held?.[Symbol.dispose]();
    this.#held = undefined;
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** The token that makes all tries of one create one create. */
class LogicalCreate {
  #token: string | undefined;

  current(): string {
    return this.#token ??= crypto.randomUUID();
  }

  /** The create has its final result; another one would be another create. */
  renew(): void {
    this.#token = undefined;
  }
}

/** The reason only: whoever reports the failed change names the wanted entry. */
export function conflictError(actual: CloudRoute): RouteConflictError {
  return new RouteConflictError(describeConflict(actual));
}

/** Entries that count against the quota; `undefined` if they cannot be counted now. */
export async function countEntries(
  api: Pick<RouteApi, "count">,
  routeTableId: string,
  options: CallOptions,
): Promise<number | undefined> {
  try {
    return await api.count(routeTableId, options);
  } catch {
    options.signal.throwIfAborted();
    return undefined;
  }
}

/** `route table is full (200 of 200); raise …`, for what cannot be created in it. */
export function tableFull(used: number | undefined, refusal: CloudApiError): string {
  // The service does not say its limit, but a table that takes no more has reached it.
  const fill = used === undefined ? "" : ` (${used} of ${used})`;
  return `route table is full${fill}; ${refusal.advice}`;
}

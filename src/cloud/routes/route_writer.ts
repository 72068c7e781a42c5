import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Change } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { delay } from "../../util/time.ts";
import { Turns } from "../../util/turns.ts";
import type { VpcClient } from "../ali/client.ts";
import { AliApiError } from "../ali/errors.ts";
import {
  type CloudRoute,
  type ClusterMark,
  describeConflict,
  formatCloudRoute,
  isNeeded,
  keyOf,
  type Owner,
  type Place,
  routeEntryName,
  type Step,
  stepAway,
  stepTowards,
} from "./route_entry.ts";
import type { RouteReader } from "./route_reader.ts";
import type { RouteViewKeeper } from "./route_view.ts";
import { Waits } from "./waits.ts";

/** Options of {@linkcode RouteWriter}. */
export interface RouteWriterOptions {
  readonly vpc: VpcClient;
  readonly mark: ClusterMark;
  readonly reader: RouteReader;
  readonly view: RouteViewKeeper;
  /** Who asks, at this moment: leases come and go while a write waits for its turn. */
  readonly owner: () => Owner;
  readonly fence: ((options: { signal: AbortSignal }) => Promise<void>) | undefined;
  /** How long one change waits for others before the next round looks at all of them anew. */
  readonly patienceMs: number;
  readonly log: Logger;
  readonly now: () => number;
  readonly delay: typeof delay;
  readonly random: () => number;
}

/** A foreign entry stands where ours should be. */
class RouteConflictError extends Error {
  override name = "RouteConflictError";
}

/** The fence has rejected: nothing more may be written. */
export class FenceError extends Error {
  override name = "FenceError";
}

/** What was to be written is not wanted any more. */
export class OutdatedError extends Error {
  override name = "OutdatedError";
}

/** An entry that serves as it is was not given its name. */
export class UnnamedError extends Error {
  override name = "UnnamedError";
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

/** A write of ours keeps others from the VPC while it settles, but not beyond so many looks. */
export const LOOKS_IN_TURN = 8;

/** A write that was accepted, or whose outcome is not known. */
interface SentWrite {
  readonly write: "create" | "modify" | "delete";
  readonly at: number;
}

/**
 * Brings single entries to where they should be. The writes of all tables take turns, because a
 * VPC serves one at a time.
 */
export class RouteWriter {
  readonly #options: RouteWriterOptions;
  readonly #turns = new Turns();
  readonly #sent = new Map<string, SentWrite>();
  /** Re-pointing in place is denied or unknown here: delete and create instead. */
  #modifyUnusable = false;
  #namingUnusable = false;

  constructor(options: RouteWriterOptions) {
    this.#options = options;
  }

  /** Naming an entry is denied or unknown here. */
  get namingUnusable(): boolean {
    return this.#namingUnusable;
  }

  /**
   * Reads the entry, takes the step it asks for, and reads again, until it is as wanted. Every
   * uncertainty (time-out, duplicate, lagging list) ends in another look, never in a guess.
   * `looked` says that a list has just been read that shows nothing at the place of an `add`;
   * should that be wrong, the create is refused.
   */
  async converge(
    change: Change<CloudRoute>,
    options: { signal: AbortSignal; looked: boolean },
  ): Promise<void> {
    const { reader, owner } = this.#options;
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
          actual = await reader.read(target, options);
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
      if (step.do === "modify" && !step.repoint) {
        await this.#rename(target, step.entryId, wait, options);
      } else await this.#write(target, step, { token, wait, turn }, options);
    }
  }

  /** A turn to write, not taken yet. */
  turn(): Turn {
    return new Turn(this.#turns);
  }

  /** The waits of something that is to be done. */
  waits(goal: string): Waits {
    return new Waits({ ...this.#options, goal });
  }

  /**
   * To be awaited right before a write is sent; `check` says, without waiting, whether it is still
   * wanted.
   *
   * @throws {FenceError}
   */
  guard(check: () => void): (options: { signal: AbortSignal }) => Promise<void> {
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
   * Names an entry that leads here already. It serves as it is, so whatever stands in the way is
   * not waited out: the name is left to a later round, or for ever if it is denied.
   *
   * @throws {UnnamedError}
   */
  async #rename(
    target: CloudRouteSpec,
    entryId: string,
    wait: Waits,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { vpc, mark, log } = this.#options;
    const { signal } = options;
    try {
      const name = routeEntryName(mark, target.instanceId);
      const beforeSend = this.guard(() => this.requireClaimed(target));
      await vpc.modifyRouteEntry(entryId, { name }, { signal, beforeSend });
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof FenceError) throw error;
      if (isUnavailable(error)) {
        this.#namingUnusable = true;
        log.warn("Cannot name a route entry as flanneld's own; it is used as it is", {
          error: error.message,
        });
      } else log.debug("Cannot name a route entry yet", { error: describeError(error) });
      throw new UnnamedError(describeError(error));
    }
    this.remember(target, "modify");
    await wait.poll("accepted", options);
  }

  /** Does a write, as often as the service asks for patience; ends when a new look is due. */
  async #write(
    target: CloudRouteSpec,
    step: Extract<Step, { do: "create" | "modify" | "delete" }>,
    { token, wait, turn }: {
      readonly token: LogicalCreate;
      readonly wait: Waits;
      readonly turn: Turn;
    },
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { vpc, mark, view, log } = this.#options;
    const { signal } = options;
    const { routeTableId, destination, instanceId } = target;
    const name = routeEntryName(mark, instanceId);
    const write = step.do === "modify" && step.repoint && this.#modifyUnusable ? "delete" : step.do;
    const beforeSend = this.guard(() =>
      step.do === "delete" ? this.requireUnneeded(target) : this.requireClaimed(target)
    );
    for (;;) {
      await turn.take(options);
      try {
        if (step.do === "create") {
          await vpc.createRouteEntry({
            signal,
            beforeSend,
            routeTableId,
            destination,
            instanceId,
            name,
            clientToken: token.current(),
          });
          token.renew();
          view.notFull(routeTableId);
        } else if (write === "delete") {
          await vpc.deleteRouteEntry(step.entryId, { signal, beforeSend });
        } else {
          await vpc.modifyRouteEntry(step.entryId, { instanceId, name }, { signal, beforeSend });
        }
        this.remember(target, write);
        await wait.poll("accepted", options);
        return;
      } catch (thrown) {
        signal.throwIfAborted();
        if (thrown instanceof FenceError || thrown instanceof OutdatedError) throw thrown;
        if (!(thrown instanceof AliApiError)) throw wait.failure(thrown);
        const { reaction } = thrown;
        if (reaction.do === "settle") {
          // `exists`: the list is behind, or another try of ours succeeded. `gone`: likewise.
          if (reaction.as === "exists") token.renew();
          this.remember(target, write);
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

  /** The error of what does not fit into a table, which the view shows as full from now on. */
  async tableIsFull(
    routeTableId: string,
    refusal: AliApiError,
    options: { signal: AbortSignal },
  ): Promise<TableFullError> {
    const { vpc, view, now } = this.#options;
    const used = await countEntries(vpc, routeTableId, options);
    view.full(routeTableId, { ...(used === undefined ? {} : { used }), at: now() });
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
    return sent.write === step.do || (sent.write === "delete" && step.do === "modify");
  }
}

/** One change's turn, which it may give back and ask for again. */
export class Turn implements Disposable {
  readonly #turns: Turns;
  #held: Disposable | undefined;

  constructor(turns: Turns) {
    this.#turns = turns;
  }

  /** Waits for the turn unless it is held; answers whether others went first. */
  async take(options: { signal: AbortSignal }): Promise<boolean> {
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

/** Whether an action is denied or unknown here, whatever it is asked to do. */
export function isUnavailable(error: unknown): error is AliApiError {
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

/** The reason only: whoever reports the failed change names the wanted entry. */
export function conflictError(actual: CloudRoute): RouteConflictError {
  return new RouteConflictError(describeConflict(actual));
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

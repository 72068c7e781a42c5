/** Writes entries many at a time, in clouds that take them so. @module */
import type { Change, FailedChange } from "../../reconcile/table.ts";
import { CloudApiError, isUnavailable, mayConcernOne, reactionTo } from "./cloud_error.ts";
import type { CallOptions, CloudRoute, RouteBatchApi, WriteOptions } from "./provider.ts";
import { keyOf, routeMark, type Step, stepAway, stepTowards } from "./route_entry.ts";
import type { RouteContext, RouteReader } from "./route_reader.ts";
import {
  conflictError,
  FenceError,
  LOOKS_IN_TURN,
  OutdatedError,
  type RouteWriter,
  type Turn,
} from "./route_writer.ts";
import type { Waits } from "./waits.ts";

/** What else batches work with. */
interface BatchContext extends RouteContext {
  readonly reader: RouteReader;
  readonly writer: RouteWriter;
}

export type Add = Extract<Change<CloudRoute>, { op: "add" }>;
export type Removal = Extract<Change<CloudRoute>, { op: "remove" }>;

/** What became of changes; those in neither list are done. */
export interface BatchOutcome<Of extends Add | Removal> {
  readonly failed: readonly FailedChange<CloudRoute>[];
  /** To be done one by one. */
  readonly left: readonly Of[];
}

interface Writing<Of> {
  readonly write: "create" | "delete";
  readonly place: (change: Of) => CloudRoute;
  /** @throws {OutdatedError} If it is not wanted any more. */
  readonly check: (change: Of) => void;
  /** Sends them in one call; returns why each was refused. */
  readonly send: (changes: readonly Of[], options: WriteOptions) => Promise<
    readonly (CloudApiError | undefined)[]
  >;
  readonly step: (change: Of, actual: CloudRoute | undefined) => Step;
}

/** Batches that were refused as such are tried again after this: a policy may be mended. */
const UNUSABLE_MS = 60 * 60_000;

/** So few entries are looked at with one call. */
const FEW = 20;

/**
 * Creates and deletes the entries of one table in batches. A batch's turn ends when each of its
 * entries is where it should be, is known to be refused, or is left to be looked at by itself.
 */
export class RouteBatches {
  readonly #options: BatchContext;
  readonly #unusableUntil = new Map<string, number>();

  constructor(options: BatchContext) {
    this.#options = options;
  }

  /** Creates entries where a list has just shown none. */
  create(
    routeTableId: string,
    adds: readonly Add[],
    options: CallOptions,
  ): Promise<BatchOutcome<Add>> {
    const { mark, writer, owner } = this.#options;
    return this.#run(routeTableId, adds, {
      write: "create",
      place: ({ desired }) => desired,
      check: ({ desired }) => writer.requireClaimed(desired),
      send: (changes, callOptions) =>
        this.#api.create(
          changes.map(({ desired: { destination, instanceId } }) => ({
            routeTableId,
            destination,
            instanceId,
            mark: routeMark(mark, instanceId),
          })),
          callOptions,
        ),
      step: ({ desired }, actual) => stepTowards(desired, actual, owner()),
    }, options);
  }

  /** Deletes entries that a list has just shown. */
  remove(
    routeTableId: string,
    removals: readonly Removal[],
    options: CallOptions,
  ): Promise<BatchOutcome<Removal>> {
    const { writer, owner } = this.#options;
    return this.#run(routeTableId, removals, {
      write: "delete",
      place: ({ actual }) => actual,
      check: ({ actual }) => writer.requireUnneeded(actual),
      send: (changes, callOptions) =>
        this.#api.delete(changes.map(({ actual }) => actual), callOptions),
      step: (_, actual) => stepAway(actual, owner()),
    }, options);
  }

  async #run<Of extends Add | Removal>(
    routeTableId: string,
    changes: readonly Of[],
    writing: Writing<Of>,
    options: CallOptions,
  ): Promise<BatchOutcome<Of>> {
    const failed: FailedChange<CloudRoute>[] = [];
    const left: Of[] = [];
    const queue: (readonly Of[])[] = [];
    const { maxEntries } = this.#api;
    for (let at = 0; at < changes.length; at += maxEntries) {
      queue.push(changes.slice(at, at + maxEntries));
    }
    for (let part = queue.shift(); part !== undefined; part = queue.shift()) {
      if (part.length < 2 || !this.#isUsable(writing.write)) {
        left.push(...part);
        continue;
      }
      const batch = new Batch(routeTableId, part, writing, this.#options);
      try {
        await batch.run(options);
      } catch (thrown) {
        options.signal.throwIfAborted();
        if (thrown instanceof FenceError) throw thrown;
        if (isUnavailable(thrown)) {
          this.#giveUp(writing.write, thrown);
          left.push(...batch.unsent);
        } else if (reactionTo(thrown) === "quota" && batch.unsent.length <= 2) {
          // There is room for one more, or for none.
          left.push(...batch.unsent, ...queue.splice(0).flat());
        } else if (thrown instanceof CloudApiError && mayConcernOne(thrown)) {
          // Whichever entry it is about, the others must not suffer for it.
          const half = Math.ceil(batch.unsent.length / 2);
          queue.unshift(batch.unsent.slice(0, half), batch.unsent.slice(half));
        } else {
          // It would befall the next batch as well.
          const error = thrown instanceof Error ? thrown : new Error(String(thrown));
          const doomed = [...batch.unsent, ...queue.splice(0).flat()];
          failed.push(...doomed.map((change) => ({ change, error })));
        }
      }
      failed.push(...batch.failed);
      left.push(...batch.left);
    }
    return { failed, left };
  }

  #isUsable(write: "create" | "delete"): boolean {
    return this.#options.now() >= (this.#unusableUntil.get(write) ?? -Infinity);
  }

  get #api(): RouteBatchApi {
    return this.#options.api.batches!;
  }

  #giveUp(write: "create" | "delete", error: CloudApiError): void {
    const { log, now } = this.#options;
    const level = this.#unusableUntil.has(write) ? "debug" : "warn";
    this.#unusableUntil.set(write, now() + UNUSABLE_MS);
    log[level]("Cannot write route entries in batches; they are written one by one, slowly", {
      action: this.#api.actions[write],
      error: error.message,
    });
  }
}

/** Whether the call is not to be made again as it was. */
function isFinal(error: CloudApiError): boolean {
  return isUnavailable(error) || mayConcernOne(error);
}

/** One call's worth of changes, until each is settled. */
class Batch<Of extends Add | Removal> {
  /** Not taken by the service (yet). */
  unsent: Of[];
  readonly failed: FailedChange<CloudRoute>[] = [];
  readonly left: Of[] = [];
  readonly #routeTableId: string;
  readonly #writing: Writing<Of>;
  readonly #options: BatchContext;
  readonly #wait: Waits;
  /** Taken, or there by somebody else's hand; not seen as they should be yet. */
  #unsettled: Of[] = [];
  /** A reply was lost: the service may have taken more than it says. */
  #uncertain = false;

  constructor(
    routeTableId: string,
    changes: readonly Of[],
    writing: Writing<Of>,
    options: BatchContext,
  ) {
    this.#routeTableId = routeTableId;
    this.unsent = [...changes];
    this.#writing = writing;
    this.#options = options;
    this.#wait = options.writer.waits(
      `${writing.write} ${changes.length} routes in ${routeTableId}`,
    );
  }

  /** @throws What ends the batch; those in {@linkcode Batch.unsent} then were not tried. */
  async run(options: CallOptions): Promise<void> {
    using turn = this.#options.writer.turn();
    let ending: unknown;
    try {
      await this.#sendAll(turn, options);
    } catch (thrown) {
      options.signal.throwIfAborted();
      if (thrown instanceof FenceError) throw thrown;
      ending = thrown;
    }
    await this.#settle(turn, options);
    if (ending instanceof RefusedForRoom) {
      throw await this.#options.writer.tableIsFull(this.#routeTableId, ending.refusal, options);
    }
    if (ending !== undefined) throw ending;
  }

  /** Sends the batch, and what is left of it, as often as the service asks for patience. */
  async #sendAll(turn: Turn, options: CallOptions): Promise<void> {
    while (this.unsent.length > 0) {
      await turn.take(options);
      this.#dropOutdated();
      if (this.unsent.length === 0) return;
      try {
        this.#takeIn(await this.#send(options));
      } catch (thrown) {
        options.signal.throwIfAborted();
        if (thrown instanceof OutdatedError) continue;
        if (!(thrown instanceof CloudApiError) || isFinal(thrown)) throw thrown;
        const settles = ["exists", "gone"].includes(thrown.reaction.do);
        if (!settles) {
          turn.release();
          await this.#wait.after(thrown, options);
        }
        this.#uncertain ||= thrown.outcomeUnknown;
        if (settles || thrown.outcomeUnknown) await this.#lookAgain(options);
        // Those that are not there although the service says so are looked at one by one.
        if (settles) this.left.push(...this.unsent.splice(0));
      }
    }
  }

  #send({ signal }: CallOptions): Promise<readonly (CloudApiError | undefined)[]> {
    const { writer } = this.#options;
    const { check, send } = this.#writing;
    const sent = this.unsent;
    return send(sent, { signal, beforeSend: writer.guard(() => sent.forEach(check)) });
  }

  /** Leases have changed while the batch waited. */
  #dropOutdated(): void {
    this.unsent = this.unsent.filter((change) => {
      try {
        this.#writing.check(change);
        return true;
      } catch (error) {
        if (!(error instanceof OutdatedError)) throw error;
        this.failed.push({ change, error });
        return false;
      }
    });
  }

  /**
   * Parts what the service took from what it refused.
   *
   * @throws {RefusedForRoom} If the table takes no more.
   * @throws {CloudApiError} If some are to be sent again.
   */
  #takeIn(refusals: readonly (CloudApiError | undefined)[]): void {
    const { writer, view } = this.#options;
    const { place, write } = this.#writing;
    const again: Of[] = [];
    let full: CloudApiError | undefined;
    let retry: CloudApiError | undefined;
    for (const [at, change] of this.unsent.entries()) {
      const error = refusals[at];
      const reaction = error?.reaction.do;
      if (error === undefined) {
        writer.remember(place(change), write);
        this.#unsettled.push(change);
      } else if (reaction === "exists" || reaction === "gone") {
        // After a lost reply, it is most likely our own entry, which a list may not show yet.
        if (this.#uncertain) writer.remember(place(change), write);
        this.#unsettled.push(change);
      } else if (reaction === "fatal" || reaction === "denied") {
        this.failed.push({ change, error });
      } else {
        again.push(change);
        if (reaction === "quota") full = error;
        else retry = error;
      }
    }
    if (write === "create" && refusals.includes(undefined)) view.notFull(this.#routeTableId);
    this.unsent = again;
    if (full !== undefined) throw new RefusedForRoom(full);
    if (retry !== undefined) throw retry;
  }

  /** Nobody knows what became of the call: what is not there is asked for again. */
  async #lookAgain(options: CallOptions): Promise<void> {
    const seen = await this.#look(this.unsent, options);
    const again: Of[] = [];
    for (const change of this.unsent) {
      const { step, place, write } = this.#writing;
      const done = step(change, seen.get(keyOf(place(change)))).do !== write;
      (done ? this.#unsettled : again).push(change);
    }
    this.unsent = again;
  }

  /** Looks until each entry that was taken is as it should be. */
  async #settle(turn: Turn, options: CallOptions): Promise<void> {
    const { place, step, write } = this.#writing;
    const { writer } = this.#options;
    for (let looks = 1; this.#unsettled.length > 0; looks++) {
      if (looks > LOOKS_IN_TURN) turn.release();
      let seen: ReadonlyMap<string, CloudRoute>;
      try {
        await this.#wait.poll("accepted", options);
        await this.#awaitSample(options);
        seen = await this.#look(this.#unsettled, options);
      } catch (thrown) {
        options.signal.throwIfAborted();
        const error = thrown instanceof Error ? thrown : new Error(String(thrown));
        this.failed.push(...this.#unsettled.map((change) => ({ change, error })));
        return;
      }
      this.#unsettled = this.#unsettled.filter((change) => {
        const next = step(change, seen.get(keyOf(place(change))));
        if (next.do === "wait") return true;
        if (next.do === "done") writer.forget(place(change));
        else if (next.do === "conflict") {
          this.failed.push({ change, error: conflictError(next.actual) });
        } else if (next.do === write && writer.isOnItsWay(place(change), next)) return true;
        else this.left.push(change);
        return false;
      });
    }
  }

  /** One entry tells when a batch is through, and costs one call. */
  async #awaitSample(options: CallOptions): Promise<void> {
    if (this.#unsettled.length <= FEW) return;
    const sample = this.#unsettled.at(-1)!;
    const place = this.#writing.place(sample);
    for (;;) {
      const seen = await this.#waited(() => this.#options.reader.read(place, options), options);
      const next = this.#writing.step(sample, seen);
      if (next.do !== "wait" && !this.#options.writer.isOnItsWay(place, next)) return;
      await this.#wait.poll(next.do === "wait" ? next.status : "not listed yet", options);
    }
  }

  #look(
    changes: readonly Of[],
    options: CallOptions,
  ): Promise<ReadonlyMap<string, CloudRoute>> {
    const places = changes.map(this.#writing.place);
    const { reader } = this.#options;
    return this.#waited(() => reader.readMany(this.#routeTableId, places, options), options);
  }

  /** Reads, and waits out what may pass. */
  async #waited<Result>(
    read: () => Promise<Result>,
    options: CallOptions,
  ): Promise<Result> {
    for (;;) {
      try {
        return await read();
      } catch (error) {
        await this.#wait.after(error, options);
      }
    }
  }
}

/** The service took what the table had room for. */
class RefusedForRoom extends Error {
  readonly refusal: CloudApiError;

  constructor(refusal: CloudApiError) {
    super(refusal.message);
    this.refusal = refusal;
  }
}

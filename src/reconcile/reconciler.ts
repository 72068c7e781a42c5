/**
 * Brings Tables to their desired state. One file, since a round, and what is kept of it for the next
 * one, are a single algorithm.
 *
 * @module
 */
import { causeCode, describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { KindId } from "../state/mod.ts";
import type { Finding, Instant, ReconcilerStatus, TableStatus } from "../status/model.ts";
import { ProblemLog } from "../status/problems.ts";
import { inSlices } from "../util/slices.ts";
import { Backoff, delay } from "../util/time.ts";
import { Wakeup } from "../util/wakeup.ts";
import {
  diffChangesInSteps,
  type Difference,
  diffInSteps,
  formatChange,
  indexDesired,
} from "./diff.ts";
import type { Change, Table } from "./table.ts";
import { Wanted } from "../state/wanted.ts";

/** Changes logged one by one in a round; beyond that, one line gives the number. */
const LOGGED_CHANGES = 20;
/** Problems kept for the status. */
const REPORTED_PROBLEMS = 100;
/** A problem that comes back within this time is not told again. */
const QUIET_MS = 600_000;

/** The longest pause between rounds that follow each other. */
const MAX_SETTLE_MS = 1_000;

/** One Table with what should be in it. */
export interface Stage<Spec> {
  readonly table: Table<Spec>;
  /**
   * Read anew each round. A list is another object whenever it may have changed. `undefined`: not
   * known yet, so nothing is changed.
   */
  desired(): readonly Spec[] | Wanted<Spec> | undefined;
  /** Its objects carry those of later stages, which go with them: links and what is on them. */
  readonly carriesLater?: boolean;
}

/** A stage of any spec. Only the reconciler looks inside, and it never mixes two stages' specs. */
// deno-lint-ignore no-explicit-any
export type AnyStage = Stage<any>;

/** Something that was seen to happen to an object of a Table. */
export interface ObjectNews {
  readonly kind: KindId;
  readonly key: string;
  /** Whether it has gone; else it has come or changed. */
  readonly gone: boolean;
  /** The object, as its Table would list it. Of what has gone it may be missing. */
  readonly object?: unknown;
}

/** Options of {@linkcode Reconciler}. */
export interface ReconcilerOptions {
  /** For logs and status: `kernel`, `firewall`, `cloud`. */
  readonly name: string;
  /**
   * In the order of creation (links before addresses before routes); removals run in reverse.
   */
  readonly stages: readonly AnyStage[];
  /** Time between rounds when nobody asks for one. */
  readonly resyncMs: number;
  /**
   * Pause before a requested round, in which further requests fold into it. @default {20}
   */
  readonly settleMs?: number;
  /**
   * Runs at the start of each round, to bring what the stages desire up to date. If it fails, the
   * round changes nothing and counts as failed.
   */
  readonly prepare?: (options: { signal: AbortSignal }) => Promise<unknown>;
  readonly log: Logger;
  /** Called before something missing or wrong is written, which may take a while. */
  readonly onPending?: (reason: string) => void;
  readonly onReport?: (report: ReconcilerStatus) => void;
  /** A monotonic clock in milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/** What is known of a Table between rounds. */
class StageState {
  readonly stage: AnyStage;
  /** What was desired when the Table was listed last; `undefined`: list it in the next round. */
  listedFor: unknown;
  /** Something was told while the Table was looked at. */
  hasNews = false;
  /** Keys of objects that are said to have gone. */
  doubtful = new Set<string>();
  /** By key what could not be made as it should, with `""` for the Table as a whole. */
  failures = new Map<string, Failure>();
  known = false;
  desired = 0;
  actual: number | undefined;

  /** Since when the Table is in sync, or is not. */
  #since: Instant;
  #inSync = false;
  lastChangeAt: Instant | undefined;
  lastRoundMs: number | undefined;

  constructor(stage: AnyStage, now: Instant) {
    this.stage = stage;
    this.#since = now;
  }

  get kind(): AnyStage["table"]["kind"] {
    return this.stage.table.kind;
  }

  /** When the first of what has failed is due again; not before the Table as a whole is. */
  get dueAt(): Instant {
    const whole = this.failures.get("");
    if (whole) return whole.dueAt;
    let first = Infinity;
    for (const { dueAt } of this.failures.values()) first = Math.min(first, dueAt);
    return first;
  }

  /** Unless all goes well from now on, the Table is listed in the next round. */
  beginLook(): void {
    this.listedFor = undefined;
    this.hasNews = false;
  }

  endLook(desired: unknown): void {
    this.listedFor = this.hasNews ? undefined : desired;
  }

  /** What is wrong. */
  *findings(): Generator<Finding> {
    for (const { problem } of this.failures.values()) yield problem;
  }

  report(problems: ProblemLog, now: Instant): TableStatus {
    const { known, desired, actual, failures, lastChangeAt, lastRoundMs } = this;
    const inSync = known && failures.size === 0;
    if (inSync !== this.#inSync) this.#since = now;
    this.#inSync = inSync;
    return {
      kind: this.kind.id,
      desired: known ? desired : undefined,
      actual,
      problems: [...this.findings().take(REPORTED_PROBLEMS).map((each) => problems.dated(each))],
      inSync,
      since: this.#since,
      lastChangeAt,
      lastRoundMs,
    };
  }
}

/** What could not be done, and when it is to be tried again. */
interface Failure {
  readonly problem: Finding;
  readonly backoff: Backoff;
  readonly dueAt: number;
}

/**
 * Brings Tables to their desired state, again and again. A full round lists each Table, compares,
 * and changes what differs and is ours. It runs at once, when asked ({@linkcode
 * Reconciler.request}) and on every resync. In between, rounds look only at what has changed: the
 * keys in the journal of a {@linkcode Wanted}, objects that were seen to go ({@linkcode
 * Reconciler.observe}), and Tables whose list of desired objects is another one. What fails is
 * tried again with a jittered back-off of its own, after its Table was listed again, and keeps
 * nothing else from being set right. A round with nothing to do writes and logs nothing.
 *
 * Such a partial round takes for granted that an object is there as it was written last. Own
 * successful writes and the listings keep that true. What others do comes as events, in their own
 * time; an event may tell of something older than the last write. Therefore none is ever taken for
 * proof that an object is right: one that says what we know already changes nothing; of one whose
 * object has gone, the object is written or removed again, needed or not; after any other the Table
 * is listed.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #now: () => number;
  readonly #wakeup = new Wakeup();
  readonly #states: readonly StageState[];
  /** Kinds to be listed in the next round. */
  #requested = new Set<KindId>();
  #requestedAll = true;
  #unprepared: Failure | undefined;
  readonly #problems: ProblemLog;
  #report: ReconcilerStatus = {
    inSync: false,
    changed: 0,
    problems: [],
    problemCount: 0,
    unseen: false,
    tables: [],
  };
  /** The desired state changed after the present round began. */
  #outdated = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    this.#states = options.stages.map((stage) => new StageState(stage, this.#now()));
    this.#problems = new ProblemLog(options.log, {
      none: `All of ${options.name} is in order again`,
      quietMs: QUIET_MS,
      now: this.#now,
    });
  }

  get name(): string {
    return this.#options.name;
  }

  /** How things stood after the last round. */
  get report(): ReconcilerStatus {
    return this.#report;
  }

  /**
   * Asks for a round soon. Requests made meanwhile fold into one. All Tables are listed, or, with
   * `kinds`, those of these; the others are looked at as far as something is known to have changed.
   */
  request(kinds?: Iterable<KindId>): void {
    if (kinds === undefined) this.#requestedAll = true;
    else for (const kind of kinds) this.#requested.add(kind);
    this.#wakeup.wake();
  }

  /**
   * Asks for a round because the desired state is another one: no round that began before counts
   * as in sync. All Tables are listed, unless `listing` says that stages tell by themselves what has
   * changed.
   */
  desiredChanged({ listing = true }: { readonly listing?: boolean } = {}): void {
    this.#outdated = true;
    this.request(listing ? undefined : []);
  }

  /** Takes notice of `news`. Tells whether they are worth a round, which is then to be asked for. */
  observe({ kind, key, object, gone }: ObjectNews): boolean {
    const state = this.#states.find((each) => each.kind.id === kind);
    if (!state) return false;
    if (state.listedFor === undefined) {
      // It is to be listed anyway; if that has begun already, once more.
      state.hasNews = true;
      return true;
    }
    const desired = state.stage.desired();
    if (desired instanceof Wanted && !state.failures.has(key)) {
      const there = desired.taken(key);
      if (there === undefined) {
        // Nothing of ours is there: what goes is no loss, what comes may have to go.
        if (gone || object === undefined || !state.kind.owns(object)) return false;
      } else if (object === undefined ? gone : state.kind.equal(there, object)) {
        if (gone) state.doubtful.add(key);
        return gone;
      }
    }
    state.listedFor = undefined;
    return true;
  }

  /** Runs rounds until `signal` aborts; rejects with its reason then. */
  async run({ signal }: { signal: AbortSignal }): Promise<never> {
    const unknown = new Backoff({ initialMs: 1_000, maxMs: 30_000 });
    let resyncAt = 0;
    while (true) {
      const all = this.#requestedAll || this.#now() >= resyncAt;
      const kinds = all ? undefined : this.#requested;
      this.#requestedAll = false;
      this.#requested = new Set();
      const begin = this.#now();
      const report = await this.round({ signal, ...(kinds ? { kinds } : {}) });
      const end = this.#now();
      if (this.#unprepared) {
        // Nothing was looked at.
        this.#requestedAll ||= all;
        kinds?.forEach((kind) => this.#requested.add(kind));
        resyncAt = Math.max(resyncAt, this.#unprepared.dueAt);
      } else if (all) resyncAt = end + jitter(this.#options.resyncMs);
      const dueAt = this.#nextDueAt();
      if (report.inSync || dueAt < Infinity) unknown.reset();
      else resyncAt = Math.min(resyncAt, end + unknown.next());
      await this.#wakeup.sleep(Math.min(resyncAt, dueAt) - end, { signal });
      // Requests that come faster than rounds can follow must leave the processor to others.
      const busyMs = this.#now() - end < 1 ? end - begin : 0;
      await delay(Math.max(this.#options.settleMs ?? 20, Math.min(busyMs, MAX_SETTLE_MS)), {
        signal,
      });
    }
  }

  /** When the first of what has failed is due again. */
  #nextDueAt(): number {
    if (this.#unprepared) return this.#unprepared.dueAt;
    return Math.min(Infinity, ...this.#states.map((state) => state.dueAt));
  }

  /**
   * One round that lists all Tables, or those of `kinds` and what else has to be. Rejects on abort
   * only; trouble is in the report.
   */
  async round(
    { signal, kinds }: { signal: AbortSignal; kinds?: ReadonlySet<KindId> },
  ): Promise<ReconcilerStatus> {
    this.#outdated = false;
    let changed = 0;
    try {
      await this.#options.prepare?.({ signal });
      this.#unprepared = undefined;
    } catch (error) {
      signal.throwIfAborted();
      this.#unprepared = this.#failure(
        this.#unprepared,
        failure("read-failed", this.name, error),
      );
      return this.#conclude(changed);
    }
    const removals: (() => Promise<number>)[] = [];
    let all = kinds === undefined;
    for (const state of this.#states) {
      const { stage } = state;
      const begin = this.#now();
      const isNamed = all || kinds?.has(state.kind.id) === true;
      const difference = await this.#guarded(state, () => this.#compare(state, isNamed, signal), {
        signal,
      });
      if (!difference) continue;
      const { writes } = difference;
      const [missing] = writes;
      if (missing) {
        this.#options.onPending?.(`Not in place yet: ${formatChange(state.kind, missing)}`);
      }
      const apply = async (changes: readonly Change<unknown>[]) =>
        await this.#guarded(state, () => this.#apply(state, changes, signal), { signal }) ?? 0;
      changed += await apply(writes);
      state.lastRoundMs = this.#now() - begin;
      removals.unshift(() => apply(difference.removals));
      if (stage.carriesLater && writes.length > 0) all = true;
    }
    for (const remove of removals) changed += await remove();
    return this.#conclude(changed);
  }

  /** What `work` returns; if it fails, that is noted, and the Table is listed when it is due again. */
  async #guarded<T>(
    state: StageState,
    work: () => Promise<T>,
    { signal }: { signal: AbortSignal },
  ): Promise<T | undefined> {
    try {
      return await work();
    } catch (error) {
      signal.throwIfAborted();
      state.listedFor = undefined;
      const isReading = error instanceof ListError;
      state.failures.set(
        "",
        this.#failure(
          state.failures.get(""),
          isReading
            ? failure("read-failed", state.kind.name, error.cause)
            : failure("write-failed", state.kind.name, error),
        ),
      );
      return undefined;
    }
  }

  /** What is to be changed about a Table, if it is to be looked at. */
  async #compare(
    state: StageState,
    isNamed: boolean,
    signal: AbortSignal,
  ): Promise<Difference<unknown> | undefined> {
    const { stage: { table }, kind, failures } = state;
    const desired: readonly unknown[] | Wanted<unknown> | undefined = state.stage.desired();
    state.known = desired !== undefined;
    if (desired === undefined) {
      failures.clear();
      return undefined;
    }
    const now = this.#now();
    const isDue = state.dueAt <= now;
    const isAnother = desired !== state.listedFor;
    if (!isNamed && !isDue) {
      if (failures.has("")) return undefined; // the Table is not due yet
      if (!isAnother && !(desired instanceof Wanted)) return undefined;
    }
    // What changes from now on counts for the next time.
    const changes = desired instanceof Wanted ? desired.takeChanges() : new Map<string, unknown>();
    const { doubtful } = state;
    state.doubtful = new Set();
    if (desired instanceof Wanted && !isNamed && !isDue && !isAnother) {
      if (changes.size === 0 && doubtful.size === 0) return undefined;
      // What is there in the place of an object that failed is not known.
      if (failures.size === 0 || !changes.keys().some((key) => failures.has(key))) {
        state.beginLook();
        const steps = diffChangesInSteps(kind, desired, changes, doubtful);
        const difference = await inSlices(steps, { signal });
        state.endLook(desired);
        state.desired = desired.size;
        for (const key of doubtful) if (desired.get(key) !== undefined) state.actual!--;
        return difference;
      }
    }
    state.beginLook();
    let actual: Iterable<unknown>;
    try {
      actual = await (table.scan?.({ signal }) ?? table.list({ signal }));
    } catch (cause) {
      throw new ListError("Cannot list", { cause });
    }
    // What is desired may hang on what the listing has just found.
    const wanted = desired instanceof Wanted
      ? desired
      : indexDesired(kind, state.stage.desired() as readonly unknown[] ?? desired);
    const difference = await inSlices(diffInSteps(kind, wanted, actual), { signal });
    state.endLook(desired);
    state.desired = wanted.size;
    state.actual = difference.found;
    const former = failures;
    state.failures = new Map();
    for (const conflict of difference.conflicts) {
      const key = kind.key(conflict.desired);
      state.failures.set(
        key,
        this.#failure(former.get(key), {
          code: "conflict",
          object: `${kind.name} ${key}`,
          message: `Cannot set ${kind.name} ${kind.format(conflict.desired)}: ` +
            `${kind.format(conflict.actual)} stands in its place and is not ours`,
          ...(kind.adviseConflict ? { remedy: kind.adviseConflict(conflict.actual) } : {}),
        }),
      );
    }
    // What has failed a moment ago waits, unless all is to be looked at.
    const isTime = (change: Change<unknown>) => {
      const key = keyOf(kind, change);
      const failure = former.get(key);
      if (!failure) return true;
      state.failures.set(key, failure);
      return isNamed || isAnother || changes.has(key) || failure.dueAt <= now;
    };
    return {
      ...difference,
      writes: former.size === 0 ? difference.writes : difference.writes.filter(isTime),
      removals: former.size === 0 ? difference.removals : difference.removals.filter(isTime),
    };
  }

  /** Makes `changes`; returns how many were made. */
  async #apply(
    state: StageState,
    changes: readonly Change<unknown>[],
    signal: AbortSignal,
  ): Promise<number> {
    if (changes.length === 0) return 0;
    const { stage: { table }, kind, failures } = state;
    const failed = await table.apply(changes, { signal });
    const failedChanges = new Set(failed.map(({ change }) => change));
    const made = changes.filter((change) => !failedChanges.has(change));
    if (failures.size > 0) { for (const change of made) failures.delete(keyOf(kind, change)); }
    for (const { change, error, serves } of failed) {
      const key = keyOf(kind, change);
      if (serves) failures.delete(key);
      else {
        const context = `Cannot ${formatChange(kind, change)}`;
        const finding = failure("write-failed", `${kind.name} ${key}`, error, context);
        failures.set(key, this.#failure(failures.get(key), finding));
      }
    }
    if (state.actual !== undefined) {
      for (const { op } of made) state.actual += op === "add" ? 1 : op === "remove" ? -1 : 0;
    }
    if (made.length > 0) state.lastChangeAt = this.#now();
    this.#logChanges(kind, made);
    return made.length;
  }

  #failure(former: Failure | undefined, problem: Finding): Failure {
    const backoff = former?.backoff ?? new Backoff({ initialMs: 1_000, maxMs: 30_000 });
    const pauseMs = Math.min(backoff.next(), this.#options.resyncMs);
    return { problem, backoff, dueAt: this.#now() + pauseMs };
  }

  #conclude(changed: number): ReconcilerStatus {
    const found = this.#unprepared
      ? [this.#unprepared.problem]
      : this.#states.flatMap((state) => [...state.findings()]);
    this.#problems.set(found);
    const known = this.#states.every((state) => state.known);
    const now = this.#now();
    this.#report = {
      inSync: known && found.length === 0 && !this.#outdated,
      changed,
      problems: this.#problems.first(REPORTED_PROBLEMS),
      problemCount: this.#problems.count,
      unseen: found.length > 0 && found.every(({ code }) => code === "read-failed"),
      tables: this.#unprepared
        ? this.#report.tables
        : this.#states.map((state) => state.report(this.#problems, now)),
    };
    this.#options.onReport?.(this.#report);
    return this.#report;
  }

  #logChanges(kind: Table<unknown>["kind"], changes: readonly Change<unknown>[]): void {
    const { log } = this.#options;
    for (const change of changes.slice(0, LOGGED_CHANGES)) {
      log.info(formatChange(kind, change));
    }
    if (changes.length > LOGGED_CHANGES) {
      log.info(`and ${changes.length - LOGGED_CHANGES} more changes of this kind`, {
        kind: kind.name,
      });
    }
  }
}

function failure(
  code: Finding["code"],
  object: string,
  error: unknown,
  context?: string,
): Finding {
  const cause = causeCode(error);
  const message = describeError(error, context);
  return { code, object, message, ...(cause === undefined ? {} : { cause }) };
}

/** A Table could not be listed. */
class ListError extends Error {}

function keyOf(kind: Table<unknown>["kind"], change: Change<unknown>): string {
  return kind.key(change.op === "remove" ? change.actual : change.desired);
}

/** 90–110 % of `milliseconds`, so that the resyncs of many hosts spread. */
function jitter(milliseconds: number): number {
  return milliseconds * (0.9 + Math.random() * 0.2);
}

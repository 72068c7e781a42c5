import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { KindId } from "../state/mod.ts";
import { RecentTexts } from "../util/recent_texts.ts";
import { inSlices } from "../util/slices.ts";
import { Backoff, delay } from "../util/time.ts";
import { Wakeup } from "../util/wakeup.ts";
import { diffInSteps, formatChange } from "./diff.ts";
import type { Change, Table } from "./table.ts";

/** Changes logged one by one in a round; beyond that, one line gives the number. */
const LOGGED_CHANGES = 20;
/** New problems logged in a round. */
const LOGGED_PROBLEMS = 5;
/** Problems kept for the status. */
const REPORTED_PROBLEMS = 100;

/** The longest pause between rounds that follow each other. */
const MAX_SETTLE_MS = 1_000;

/** One Table with what should be in it. */
export interface Stage<Spec> {
  readonly table: Table<Spec>;
  /** Read anew each round. `undefined`: not known yet, so nothing is changed. */
  desired(): readonly Spec[] | undefined;
  /** Its objects carry those of later stages, which go with them: links and what is on them. */
  readonly carriesLater?: boolean;
}

/** A stage of any spec. Only the reconciler looks inside, and it never mixes two stages' specs. */
// deno-lint-ignore no-explicit-any
export type AnyStage = Stage<any>;

/** The outcome of a round. */
export interface RoundReport {
  /** Every stage was known, nothing was left to change, nothing failed, nothing is in the way. */
  readonly inSync: boolean;
  /** Objects written or removed in this round. */
  readonly changed: number;
  /** One sentence per failure and conflict, naming the object; of very many, the first ones. */
  readonly problems: readonly string[];
  /**
   * Whether the problems are all of reading: what is wrong could not be seen, and what was right
   * before may still be.
   */
  readonly unseen: boolean;
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
   * Runs at the start of each round, to gather what the stages' desired state depends on; `true`
   * says that all of that may have changed. If it fails, the round changes nothing and counts as
   * failed.
   */
  readonly prepare?: (options: { signal: AbortSignal }) => Promise<boolean | void>;
  readonly log: Logger;
  /** Called before something missing or wrong is written, which may take a while. */
  readonly onPending?: (reason: string) => void;
  readonly onReport?: (report: RoundReport) => void;
}

/**
 * Brings Tables to their desired state, again and again: a round lists each Table, compares, and
 * changes what differs and is ours. It runs at once, when asked ({@linkcode Reconciler.request}),
 * on every resync, and, after a failure, with jittered back-off. A failed object does not keep
 * the others from being set right. A round with nothing to do writes and logs nothing.
 */
export class Reconciler {
  readonly #options: ReconcilerOptions;
  readonly #wakeup = new Wakeup();
  /** Kinds to look at in the next round; all of them, if nobody named one. */
  readonly #requested = new Set<KindId>();
  #requestedAll = false;
  #report: RoundReport = { inSync: false, changed: 0, problems: [], unseen: false };
  readonly #recentProblems = new RecentTexts();
  /** A problem was logged and its end was not. */
  #troubled = false;
  /** The desired state changed after the present round began. */
  #outdated = false;

  constructor(options: ReconcilerOptions) {
    this.#options = options;
  }

  get name(): string {
    return this.#options.name;
  }

  /** The last round's outcome. */
  get report(): RoundReport {
    return this.#report;
  }

  /**
   * Asks for a round soon. Requests made meanwhile fold into one. With `kinds`, only
   * Tables of these are looked at, unless the last round left something undone.
   */
  request(kinds?: Iterable<KindId>): void {
    if (kinds === undefined) this.#requestedAll = true;
    else for (const kind of kinds) this.#requested.add(kind);
    this.#wakeup.wake();
  }

  /**
   * Like {@linkcode Reconciler.request}, because the desired state is another one: no round that
   * began before counts as in sync.
   */
  desiredChanged(): void {
    this.#outdated = true;
    this.request();
  }

  /** Runs rounds until `signal` aborts; rejects with its reason then. */
  async run({ signal }: { signal: AbortSignal }): Promise<never> {
    const retry = new Backoff({ initialMs: 1_000, maxMs: 30_000 });
    let inSync = false;
    while (true) {
      const all = this.#requestedAll || this.#requested.size === 0 || !inSync;
      const kinds = all ? undefined : new Set(this.#requested);
      this.#requestedAll = false;
      this.#requested.clear();
      const begin = performance.now();
      const report = await this.round({ signal, ...(kinds ? { kinds } : {}) });
      const end = performance.now();
      inSync = report.inSync;
      if (report.inSync) retry.reset();
      const pauseMs = report.inSync
        ? jitter(this.#options.resyncMs)
        : Math.min(retry.next(), this.#options.resyncMs);
      await this.#wakeup.sleep(pauseMs, { signal });
      // Requests that come faster than rounds can follow must leave the processor to others.
      const busyMs = performance.now() - end < 1 ? end - begin : 0;
      await delay(Math.max(this.#options.settleMs ?? 20, Math.min(busyMs, MAX_SETTLE_MS)), {
        signal,
      });
    }
  }

  /**
   * One round, over all stages or those of `kinds`. Rejects on abort only; trouble is in the
   * report.
   */
  async round(
    { signal, kinds }: { signal: AbortSignal; kinds?: ReadonlySet<KindId> },
  ): Promise<RoundReport> {
    this.#outdated = false;
    const problems: string[] = [];
    let unread = 0;
    let changed = 0;
    let known = true;
    const removals: { stage: AnyStage; changes: readonly Change<unknown>[] }[] = [];
    const attempt = async (stage: AnyStage, changes: readonly Change<unknown>[]) => {
      if (changes.length === 0) return;
      const { kind } = stage.table;
      const failed = await stage.table.apply(changes, { signal });
      const failures = new Set(failed.map(({ change }) => change));
      for (const { change, error, serves } of failed) {
        if (!serves) problems.push(describeError(error, `Cannot ${formatChange(kind, change)}`));
      }
      this.#logChanges(kind, changes.filter((change) => !failures.has(change)));
      changed += changes.length - failed.length;
    };
    let stages = this.#options.stages;
    let due = kinds;
    try {
      if (await this.#options.prepare?.({ signal }) === true) due = undefined;
    } catch (error) {
      signal.throwIfAborted();
      problems.push(describeError(error));
      unread++;
      stages = [];
    }
    for (const stage of stages) {
      if (due && !due.has(stage.table.kind.id)) continue;
      try {
        const desired = stage.desired();
        if (desired === undefined) {
          known = false;
          continue;
        }
        const { kind } = stage.table;
        let actual: readonly unknown[];
        try {
          actual = await stage.table.list({ signal });
        } catch (error) {
          unread++;
          throw error;
        }
        const difference = await inSlices(diffInSteps(kind, desired, actual), { signal });
        for (const conflict of difference.conflicts) {
          problems.push(
            `Cannot set ${kind.name} ${kind.format(conflict.desired)}: ` +
              `${kind.format(conflict.actual)} stands in its place and is not ours` +
              (kind.adviseConflict ? `; ${kind.adviseConflict(conflict.actual)}` : ""),
          );
        }
        removals.unshift({ stage, changes: difference.removals });
        const [missing] = difference.writes;
        if (missing) this.#options.onPending?.(`Not in place yet: ${formatChange(kind, missing)}`);
        await attempt(stage, difference.writes);
        if (stage.carriesLater && difference.writes.length > 0) due = undefined;
      } catch (error) {
        signal.throwIfAborted();
        problems.push(describeError(error));
      }
    }
    for (const { stage, changes } of removals) {
      try {
        await attempt(stage, changes);
      } catch (error) {
        signal.throwIfAborted();
        problems.push(describeError(error));
      }
    }
    this.#logProblems(problems);
    const inSync = known && problems.length === 0 && !this.#outdated;
    const unseen = unread > 0 && unread === problems.length;
    this.#report = { inSync, changed, problems: shorten(problems), unseen };
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

  /**
   * One line when a problem appears and one when all are gone; nothing while they last, or come
   * and go every few minutes.
   */
  #logProblems(problems: readonly string[]): void {
    const { log, name } = this.#options;
    const news = problems.filter((problem) => this.#recentProblems.isNews(problem));
    for (const problem of news.slice(0, LOGGED_PROBLEMS)) log.warn(problem);
    if (news.length > 0) this.#troubled = true;
    if (problems.length > 0 || !this.#troubled) return;
    this.#troubled = false;
    log.info(`All of ${name} is in order again`);
  }
}

/** The first problems, and the number of the others. */
function shorten(problems: readonly string[]): readonly string[] {
  const more = problems.length - REPORTED_PROBLEMS;
  return more <= 0 ? problems : [...problems.slice(0, REPORTED_PROBLEMS), `and ${more} more`];
}

/** 90–110 % of `milliseconds`, so that the resyncs of many hosts spread. */
function jitter(milliseconds: number): number {
  return milliseconds * (0.9 + Math.random() * 0.2);
}

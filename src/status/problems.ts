/**
 * Logs each problem once when it appears and once when it is over. A problem's code and object are
 * its identity; its message may differ from one check to the next.
 *
 * @module
 */
import { causeCode, describeError } from "../errors.ts";
import type { LogFields, Logger } from "../log.ts";
import { LineBudget } from "../util/line_budget.ts";
import { formatDuration } from "../util/time.ts";
import type { Finding, Instant, Problem } from "./model.ts";

/** Problems logged one by one per update; beyond that, one line gives the number. */
const LOGGED_AT_ONCE = 10;
/** Different causes of one problem that are logged. */
const LOGGED_CAUSES = 5;
/** Problems remembered after they are over, where `quietMs` is set. */
const REMEMBERED = 10_000;

export interface ProblemLogOptions {
  /** The line for a problem. @default message and remedy */
  readonly one?: (problem: Problem) => string;
  /** The name of the log field that holds the object. @default no field */
  readonly field?: string;
  /** Follows the number of those not logged one by one. @default "more problems" */
  readonly more?: string;
  /** The line for one that is over, and its fields. @default none */
  readonly over?: (
    problem: Problem,
    course: { readonly lastedMs: number; readonly times: number },
  ) => readonly [message: string, fields?: LogFields];
  /** The line once all are over. @default none */
  readonly none?: string;
  /** One that returns within this time is not logged again. @default {0} */
  readonly quietMs?: number;
  /** At most this many lines in ten minutes, where others can cause any number. @default no limit */
  readonly maxLines?: number;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => Instant;
}

interface Known {
  readonly problem: Problem;
  /** Causes that were logged. */
  readonly causes: readonly (string | undefined)[];
  /** Whether it was logged, so that its end is, too. */
  readonly isLogged: boolean;
  readonly times: number;
}

/** The present problems of one part of the daemon; see the module. */
export class ProblemLog {
  readonly #log: Logger;
  readonly #options: ProblemLogOptions;
  readonly #now: () => Instant;
  readonly #budget: LineBudget | undefined;
  readonly #findings = new Map<string, readonly Finding[]>();
  #known: ReadonlyMap<string, Known> = new Map();
  /** Identities of those that are over to when that was, the oldest first. */
  readonly #recent = new Map<string, Instant>();
  /** A problem was logged and `none` was not. */
  #isTroubled = false;

  constructor(log: Logger, options: ProblemLogOptions = {}) {
    this.#log = log;
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
    const { maxLines: lines } = options;
    this.#budget = lines === undefined ? undefined : new LineBudget({ lines, now: this.#now });
  }

  /** All of them, in the order of the findings. */
  get problems(): readonly Problem[] {
    return this.first(Infinity);
  }

  get count(): number {
    return this.#known.size;
  }

  /** The first `limit` problems. */
  first(limit: number): readonly Problem[] {
    return [...this.#known.values().take(limit).map(({ problem }) => problem)];
  }

  /** `finding` with the time since when it has been known. */
  dated(finding: Finding): Problem {
    return this.#known.get(identityOf(finding))?.problem ?? { ...finding, since: this.#now() };
  }

  /** Replaces all findings of `source` by `findings`. */
  set(findings: readonly Finding[], source = ""): void {
    if (findings.length === 0) {
      if (!this.#findings.delete(source)) return;
    } else this.#findings.set(source, findings);
    const now = this.#now();
    const before = this.#known;
    const known = new Map<string, Known>();
    const news: Problem[] = [];
    for (const [identity, finding] of merge([...this.#findings.values()].flat())) {
      const former = before.get(identity);
      const isLogged = former?.isLogged ?? !this.#isRecent(identity, now);
      const problem = { ...finding, since: former?.problem.since ?? now };
      let causes = former?.causes ?? [];
      if (!causes.includes(finding.cause) && causes.length < LOGGED_CAUSES) {
        causes = [...causes, finding.cause];
        if (isLogged) news.push(problem);
      }
      known.set(identity, { problem, causes, isLogged, times: (former?.times ?? 0) + 1 });
    }
    this.#known = known;
    this.#logNews(news);
    for (const [identity, former] of before) {
      if (!known.has(identity)) this.#end(identity, former, now);
    }
    if (known.size > 0 || !this.#isTroubled) return;
    this.#isTroubled = false;
    if (this.#options.none !== undefined) this.#say("info", this.#options.none);
  }

  #logNews(news: readonly Problem[]): void {
    if (news.length === 0) return;
    this.#isTroubled = true;
    const { one = sentenceOf, field, more = "more problems" } = this.#options;
    for (const problem of news.slice(0, LOGGED_AT_ONCE)) {
      this.#say("warn", one(problem), field === undefined ? {} : { [field]: problem.object });
    }
    if (news.length > LOGGED_AT_ONCE) {
      this.#say("warn", `and ${news.length - LOGGED_AT_ONCE} ${more}`);
    }
  }

  #end(identity: string, { problem, isLogged, times }: Known, now: Instant): void {
    const { over, quietMs = 0 } = this.#options;
    if (over !== undefined && isLogged) {
      this.#say("info", ...over(problem, { lastedMs: now - problem.since, times }));
    }
    if (quietMs === 0) return;
    this.#recent.delete(identity);
    this.#recent.set(identity, now);
  }

  #isRecent(identity: string, now: Instant): boolean {
    const { quietMs = 0 } = this.#options;
    for (const [oldest, endedAt] of this.#recent) {
      if (now - endedAt <= quietMs && this.#recent.size <= REMEMBERED) break;
      this.#recent.delete(oldest);
    }
    return this.#recent.has(identity);
  }

  #say(level: "warn" | "info", message: string, fields?: LogFields): void {
    const left = this.#budget?.take();
    if (left === "no") return this.#log.debug(message, fields);
    this.#log[level](message, fields);
    if (left === "last") {
      this.#log.warn("This changes too often: it is logged again in ten minutes, see /status");
    }
  }
}

/** `findings` by identity; messages of the same identity are joined. */
function merge(findings: readonly Finding[]): ReadonlyMap<string, Finding> {
  const merged = new Map<string, Finding>();
  for (const finding of findings) {
    const identity = identityOf(finding);
    const former = merged.get(identity);
    merged.set(
      identity,
      former === undefined || former.message === finding.message
        ? finding
        : { ...former, message: `${former.message}; ${finding.message}` },
    );
  }
  return merged;
}

/** Message and remedy: `…; set net.ipv4.ip_forward=1`. */
export function sentenceOf({ message, remedy }: Pick<Finding, "message" | "remedy">): string {
  if (remedy === undefined) return message;
  return /^[A-Z]/.test(remedy) ? `${message}. ${remedy}` : `${message}; ${remedy}`;
}

/** Equal for two findings of one problem. */
export function identityOf({ code, object }: Pick<Finding, "code" | "object">): string {
  return `${code} ${object}`;
}

export interface OutageOptions extends Pick<Finding, "code" | "object"> {
  /** Precedes the reason: `Etcd is unreachable`. */
  readonly failed: string;
  /** Follows the reason: `; trying again`. @default none */
  readonly andThen?: string;
  /** Logged on recovery, before `after 62 s`: `Etcd is reachable again`. */
  readonly recovered: string;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => Instant;
}

/**
 * For loops that retry: logs one line when something starts to fail, one for each further cause of
 * the same outage, and one on recovery, with the outage's length and the number of failures. Other
 * failures are logged at `debug` level.
 */
export class Outage {
  readonly #log: Logger;
  readonly #options: OutageOptions;
  readonly #problems: ProblemLog;

  constructor(log: Logger, options: OutageOptions) {
    this.#log = log;
    this.#options = options;
    this.#problems = new ProblemLog(log, {
      one: ({ message }) => this.#line(message),
      over: (_, { lastedMs, times }) => [
        `${options.recovered} after ${formatDuration(lastedMs)}`,
        { failures: times },
      ],
      ...(options.now ? { now: options.now } : {}),
    });
  }

  /** The present failure. */
  get problem(): Problem | undefined {
    return this.#problems.first(1)[0];
  }

  /** Call on each failure. */
  failing(error: unknown): Problem {
    const { code, object } = this.#options;
    const message = describeError(error);
    if (this.problem !== undefined) this.#log.debug(this.#line(message));
    const cause = causeCode(error);
    this.#problems.set([{ code, object, message, ...(cause === undefined ? {} : { cause }) }]);
    return this.problem!;
  }

  /** Call on each success. */
  working(): void {
    this.#problems.set([]);
  }

  #line(reason: string): string {
    const { failed, andThen = "" } = this.#options;
    return `${failed}: ${reason}${andThen}`;
  }
}

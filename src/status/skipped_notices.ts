import type { LogFields, Logger } from "../log.ts";
import { LineBudget } from "../util/line_budget.ts";

/** Something that is left out. */
export interface Skipped {
  readonly key: string;
  /** A sentence that names it. */
  readonly reason: string;
}

/** How a {@linkcode SkippedNotices} words it. */
export interface SkippedWords {
  /** `Peer is left out` */
  readonly one: string;
  /** `more peers are left out` */
  readonly more: string;
  /** `No peer is left out any more` */
  readonly none: string;
}

/** At most this many are logged one by one at a time. */
const LOGGED = 10;

/**
 * At most this many lines are written in ten minutes: what is left out is for others to bring
 * about, by a thousand writes of one key too.
 */
const BUDGET = 30;

/** At most this many are on the status page. */
const LISTED = 100;

/**
 * Says once of each thing that is left out why, as long as that does not come in floods, and lists
 * them for the status page.
 */
export class SkippedNotices {
  readonly #log: Logger;
  readonly #words: SkippedWords;
  readonly #budget: LineBudget;
  #reasons: ReadonlyMap<string, string> = new Map();

  constructor(log: Logger, words: SkippedWords, options: { now?: () => number } = {}) {
    this.#log = log;
    this.#words = words;
    this.#budget = new LineBudget({ lines: BUDGET, ...options });
  }

  /** How many are left out. */
  get count(): number {
    return this.#reasons.size;
  }

  /** Takes what is left out now; several reasons of one key are told together. */
  update(skipped: readonly Skipped[]): void {
    if (skipped.length === 0 && this.#reasons.size === 0) return;
    const reasons = new Map<string, string>();
    for (const { key, reason } of skipped) {
      const former = reasons.get(key);
      reasons.set(key, former === undefined ? reason : `${former}; ${reason}`);
    }
    const fresh = [...reasons].filter(([key, reason]) => this.#reasons.get(key) !== reason);
    for (const [key, reason] of fresh.slice(0, LOGGED)) {
      this.#say("warn", `${this.#words.one}: ${reason}`, { key });
    }
    if (fresh.length > LOGGED) {
      this.#say("warn", `and ${fresh.length - LOGGED} ${this.#words.more}`);
    }
    if (reasons.size === 0) this.#say("info", this.#words.none);
    this.#reasons = reasons;
  }

  #say(level: "warn" | "info", message: string, fields?: LogFields): void {
    const left = this.#budget.take();
    if (left === "no") return this.#log.debug(message, fields);
    this.#log[level](message, fields);
    if (left === "last") {
      this.#log.warn("This changes too often: it is logged again in ten minutes, see /status");
    }
  }

  /** Key to reason of some of them, and how many there are. */
  list(): { readonly count: number; readonly reasons: Readonly<Record<string, string>> } {
    return {
      count: this.#reasons.size,
      reasons: Object.fromEntries([...this.#reasons].slice(0, LISTED)),
    };
  }
}

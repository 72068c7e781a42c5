/** Limits for log lines about what others can cause at any rate. @module */
import type { LogFields, Logger } from "../log.ts";

export interface LineBudgetOptions {
  /** Lines in any stretch of {@linkcode LineBudgetOptions.windowMs}. */
  readonly lines: number;
  /** @default {600_000} */
  readonly windowMs?: number;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/** Limits the lines about events that others can cause at any rate. */
export class LineBudget {
  readonly #options: Required<LineBudgetOptions>;
  /** When the lines of the last window were written, the oldest first. */
  #written: number[] = [];

  constructor(options: LineBudgetOptions) {
    this.#options = { windowMs: 600_000, now: () => performance.now(), ...options };
  }

  /**
   * Whether one more line may be written, which it then counts. `last` means that the next ones will
   * be suppressed for a while, so that the line can say so.
   */
  take(): "yes" | "last" | "no" {
    const { lines, windowMs, now } = this.#options;
    const time = now();
    this.#written = this.#written.filter((at) => time - at < windowMs);
    if (this.#written.length >= lines) return "no";
    this.#written.push(time);
    return this.#written.length === lines ? "last" : "yes";
  }
}

/** Lines an hour. */
const LINES = 6;
const HOUR_MS = 3_600_000;

/** A log of what others do, with a few lines an hour; the last one says that there are no more. */
export class BudgetedLog {
  readonly #log: Logger;
  readonly #budget: LineBudget;

  constructor(log: Logger, options: Pick<LineBudgetOptions, "now"> = {}) {
    this.#log = log;
    this.#budget = new LineBudget({ lines: LINES, windowMs: HOUR_MS, ...options });
  }

  /** Returns whether it was written. */
  write(level: "info" | "warn" | "error", message: string, fields: LogFields): boolean {
    const take = this.#budget.take();
    if (take === "no") return false;
    const more = take === "last" ? "; what comes next is not logged, until an hour has passed" : "";
    this.#log[level](message + more, fields);
    return true;
  }
}

/**
 * Logs an outage once when it begins and once when it is over.
 *
 * @module
 */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { steadyText } from "./steady_text.ts";

/** What a {@linkcode StateReporter} says. */
export interface StateReporterOptions {
  /** Said on failure, before the reason: `Etcd is unreachable`. */
  readonly failed: string;
  /** Said on failure after the reason: `; trying again`. @default none */
  readonly andThen?: string;
  /** Said on recovery, before `after 62 s`: `Etcd is reachable again`. */
  readonly recovered: string;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/** An outage that changes its reason more often than this is logged no more until it ends. */
const MAX_REASONS = 5;

/**
 * For loops that try again and again: logs one line when something starts to fail, one per further
 * reason of the same outage, and one when it works again, with the outage's length and the number
 * of failures. Everything between is written at `debug` level only.
 */
export class StateReporter {
  readonly #log: Logger;
  readonly #options: StateReporterOptions;
  readonly #now: () => number;
  #outage: { since: number; failures: number; reasons: Set<string> } | undefined;

  constructor(log: Logger, options: StateReporterOptions) {
    this.#log = log;
    this.#options = options;
    this.#now = options.now ?? (() => performance.now());
  }

  /** To be called on each failure; returns its reason as one line. */
  failing(error: unknown): string {
    const reason = describeError(error);
    const steady = steadyText(reason);
    this.#outage ??= { since: this.#now(), failures: 0, reasons: new Set() };
    const { reasons } = this.#outage;
    this.#outage.failures++;
    const isNews = !reasons.has(steady) && reasons.size < MAX_REASONS;
    if (isNews) reasons.add(steady);
    const { failed, andThen = "" } = this.#options;
    this.#log[isNews ? "warn" : "debug"](`${failed}: ${reason}${andThen}`);
    return reason;
  }

  /** To be called on each success. */
  working(): void {
    if (this.#outage === undefined) return;
    const { since, failures } = this.#outage;
    this.#outage = undefined;
    this.#log.info(`${this.#options.recovered} after ${formatDuration(this.#now() - since)}`, {
      failures,
    });
  }
}

/** `0 s`, `62 s`, `12 min`, `5 h`. */
export function formatDuration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

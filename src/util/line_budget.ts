/** Options of {@linkcode LineBudget}. */
export interface LineBudgetOptions {
  /** Lines in any stretch of {@linkcode LineBudgetOptions.windowMs}. */
  readonly lines: number;
  /** @default {600_000} */
  readonly windowMs?: number;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/** Limits how often something is logged that others can bring about as often as they like. */
export class LineBudget {
  readonly #options: Required<LineBudgetOptions>;
  /** When the lines of the last window were written, the oldest first. */
  #written: number[] = [];

  constructor(options: LineBudgetOptions) {
    this.#options = { windowMs: 600_000, now: () => performance.now(), ...options };
  }

  /**
   * Whether one more line may be written; it counts as written then. `last` says that there will be
   * no further one for a while, so that the line can tell.
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

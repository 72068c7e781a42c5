/**
 * Elapsed time, by whichever of two clocks advanced further: the time of day may be set back, and
 * the monotonic clock stops while a virtual machine is suspended.
 *
 * @module
 */

/** The clocks of a {@linkcode Stopwatch}. */
export interface Clocks {
  /** Milliseconds since the epoch. @default {Date.now} */
  readonly now?: () => number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly monotonicNow?: () => number;
}

/** Runs from its construction on. */
export class Stopwatch {
  readonly #now: () => number;
  readonly #monotonicNow: () => number;
  readonly #startedAt: { readonly wallMs: number; readonly monotonicMs: number };

  constructor({ now = Date.now, monotonicNow = () => performance.now() }: Clocks) {
    this.#now = now;
    this.#monotonicNow = monotonicNow;
    this.#startedAt = { wallMs: now(), monotonicMs: monotonicNow() };
  }

  get elapsedMs(): number {
    const { wallMs, monotonicMs } = this.#startedAt;
    return Math.max(this.#now() - wallMs, this.#monotonicNow() - monotonicMs);
  }
}

/** A time to wait, from its construction on. */
export class Countdown {
  readonly #milliseconds: number;
  readonly #since: Stopwatch;

  constructor(milliseconds: number, clocks: Clocks) {
    this.#milliseconds = milliseconds;
    this.#since = new Stopwatch(clocks);
  }

  /** Not positive once it is over. */
  get leftMs(): number {
    return this.#milliseconds - this.#since.elapsedMs;
  }
}

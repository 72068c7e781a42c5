/** How long what expires in the store lasts. @module */
import { type Clocks, Stopwatch } from "../../util/stopwatch.ts";

export interface LifetimeOptions {
  readonly seconds: number;
  /** Renewing is due this long before the end, or somewhat earlier. */
  readonly renewMarginSeconds: number;
  readonly clocks: Clocks;
  /**
   * What has run since it began; since the request was sent, where it must be over here before it
   * is over in the store. @default {since now}
   */
  readonly since?: Stopwatch;
  /** Hosts that came together renew apart, by this. @default {Math.random} */
  readonly random?: (() => number) | undefined;
}

/** By the clocks of {@linkcode Stopwatch}. */
export class Lifetime {
  readonly #durationMs: number;
  readonly #marginMs: number;
  readonly #since: Stopwatch;
  readonly #clocks: Clocks;

  constructor(options: LifetimeOptions) {
    const { clocks, random = Math.random } = options;
    this.#clocks = clocks;
    this.#since = options.since ?? new Stopwatch(clocks);
    this.#durationMs = options.seconds * 1_000;
    // Hosts that booted together must not all come back in the same second.
    const marginMs = options.renewMarginSeconds * 1_000;
    const spreadMs = Math.max(0, Math.min(marginMs, this.#durationMs - marginMs)) / 4;
    this.#marginMs = marginMs + random() * spreadMs;
  }

  /** Milliseconds since the epoch. */
  get endsAt(): number {
    return (this.#clocks.now ?? Date.now)() + this.leftMs;
  }

  /** Not positive once it is over. */
  get leftMs(): number {
    return this.#durationMs - this.#since.elapsedMs;
  }

  get isOver(): boolean {
    return this.leftMs <= 0;
  }

  /** Not positive once renewing is due. */
  get untilRenewalMs(): number {
    return this.leftMs - this.#marginMs;
  }

  get renewalIsDue(): boolean {
    return this.untilRenewalMs <= 0;
  }
}

/** Keeps a process below a cloud's rate limits. @module */
import { delay } from "../util/time.ts";

export interface RateLimiterOptions {
  /** Calls that may go at once after a quiet time. */
  readonly burst: number;
  /** Calls per second in the long run. */
  readonly perSecond: number;
  /** @default {performance.now} */
  readonly now?: () => number;
  /** @default {delay} */
  readonly delay?: typeof delay;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
}

/**
 * A token bucket for the calls of one process. Cloud limits are per account and shared by every
 * host, so a host must stay far below them even when it misbehaves. Waits carry jitter.
 */
export class RateLimiter {
  readonly #options: Required<RateLimiterOptions>;
  #tokens: number;
  #updatedAt: number;
  #pausedUntil = 0;

  constructor(options: RateLimiterOptions) {
    this.#options = { now: () => performance.now(), delay, random: Math.random, ...options };
    this.#tokens = options.burst;
    this.#updatedAt = this.#options.now();
  }

  /** Resolves when a call may be made. */
  async take(options: { signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    const { now, burst, perSecond, random } = this.#options;
    const time = now();
    this.#tokens = Math.min(burst, this.#tokens + (time - this.#updatedAt) / 1000 * perSecond);
    this.#updatedAt = time;
    // Taken at once, even below zero: callers queue up in the order they came.
    this.#tokens--;
    const owedMs = this.#tokens < 0 ? -this.#tokens / perSecond * 1000 : 0;
    const waitMs = Math.max(owedMs, this.#pausedUntil - time);
    if (waitMs <= 0) return;
    await this.#options.delay(waitMs * (1 + random() / 4), options);
  }

  /** Holds back every call for about `milliseconds`: the service said that it has had enough. */
  pause(milliseconds: number): void {
    const until = this.#options.now() + milliseconds * (1 + this.#options.random() / 2);
    this.#pausedUntil = Math.max(this.#pausedUntil, until);
  }
}

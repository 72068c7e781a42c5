/** Waiting: abortable delays and jittered back-off. @module */
import { childSignal } from "./child_signal.ts";

/** Resolves after `milliseconds`; rejects with `signal.reason` as soon as `signal` aborts. */
export function delay(milliseconds: number, options: { signal: AbortSignal }): Promise<void> {
  const { signal } = options;
  if (signal.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const onAbort = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal.removeEventListener("abort", onAbort);
      resolve();
    }, milliseconds);
    signal.addEventListener("abort", onAbort, { once: true });
  });
}

export interface BackoffOptions {
  /** Upper bound of the first wait. */
  readonly initialMs: number;
  /** Upper bound of any wait. */
  readonly maxMs: number;
  /** Growth per failure. @default {2} */
  readonly factor?: number;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
}

/**
 * Exponential back-off with jitter: the n-th wait is drawn evenly from the upper half of
 * `min(maxMs, initialMs * factor^n)`, so that many hosts that failed together do not return
 * together, and none returns at once.
 */
export class Backoff {
  readonly #options: Required<BackoffOptions>;
  #failures = 0;

  constructor(options: BackoffOptions) {
    this.#options = { factor: 2, random: Math.random, ...options };
  }

  /** Number of waits handed out since the last {@linkcode Backoff.reset}. */
  get failures(): number {
    return this.#failures;
  }

  /** The next wait in milliseconds. */
  next(): number {
    const { initialMs, maxMs, factor, random } = this.#options;
    const bound = Math.min(maxMs, initialMs * factor ** Math.min(this.#failures, 50));
    this.#failures++;
    return bound / 2 + random() * bound / 2;
  }

  /** Waits {@linkcode Backoff.next} milliseconds. */
  wait(options: { signal: AbortSignal }): Promise<void> {
    return delay(this.next(), options);
  }

  /** To be called on success: the next wait is a first one again. */
  reset(): void {
    this.#failures = 0;
  }
}

/**
 * A signal that aborts with `signal`, with a `TimeoutError` after `milliseconds`, and on disposal,
 * which stops the timer.
 */
export function deadline(
  milliseconds: number,
  options: { signal: AbortSignal },
): { readonly signal: AbortSignal } & Disposable {
  const child = childSignal(options.signal);
  const timer = setTimeout(
    () => child.abort(new DOMException(`No answer within ${milliseconds} ms`, "TimeoutError")),
    milliseconds,
  );
  return {
    signal: child.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      child[Symbol.dispose]();
    },
  };
}

/** `0 s`, `62 s`, `12 min`, `5 h`. */
export function formatDuration(milliseconds: number): string {
  const seconds = milliseconds / 1000;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  return seconds < 7200 ? `${Math.round(seconds / 60)} min` : `${Math.round(seconds / 3600)} h`;
}

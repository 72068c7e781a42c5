import { delay } from "../../src/util/time.ts";
import { patient } from "./slowness.ts";

/** Options of {@linkcode eventually}. */
export interface EventuallyOptions {
  readonly signal: AbortSignal;
  /** Gives up after this, on a machine of usual speed. @default {30_000} */
  readonly timeoutMs?: number;
  /** Wait between two tries. @default {100} */
  readonly intervalMs?: number;
  /** What is waited for, as in "waited for the route". */
  readonly title: string;
}

/**
 * Tries `probe` until it returns something other than `undefined` or `false`.
 *
 * @throws {Error} After `timeoutMs`, with the last error of `probe` as its cause.
 */
export async function eventually<Value>(
  probe: () => Promise<Value | undefined | false> | Value | undefined | false,
  options: EventuallyOptions,
): Promise<Value> {
  const timeoutMs = patient(options.timeoutMs ?? 30_000);
  const until = performance.now() + timeoutMs;
  for (;;) {
    options.signal.throwIfAborted();
    let failure: unknown;
    try {
      const value = await probe();
      if (value !== undefined && value !== false) return value;
    } catch (error) {
      failure = error;
    }
    if (performance.now() > until) {
      throw new Error(
        `Waited ${timeoutMs / 1000} s in vain for ${options.title}`,
        failure === undefined ? undefined : { cause: failure },
      );
    }
    await delay(options.intervalMs ?? 100, options);
  }
}

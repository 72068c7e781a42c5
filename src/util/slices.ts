/** Runs long work in slices, so that it does not block the event loop. @module */
import { delay } from "./time.ts";

/** The longest time that long work keeps the event loop from other work. */
const SLICE_MS = 5;

/** Runs `steps` to its end without a pause, and returns its result. */
export function atOnce<T>(steps: Generator<void, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

/**
 * Runs `steps` to its end and returns its result, with other work let in every few milliseconds,
 * and before it returns, unless it was quick: such calls often follow each other. A step must be
 * much shorter than that. Rejects with `signal.reason` on abort.
 */
export async function inSlices<T>(
  steps: Generator<void, T>,
  { signal }: { signal: AbortSignal },
): Promise<T> {
  let begin = performance.now();
  for (;;) {
    const step = steps.next();
    const lengthMs = performance.now() - begin;
    if (lengthMs >= (step.done ? SLICE_MS / 4 : SLICE_MS)) {
      await delay(0, { signal });
      begin = performance.now();
    }
    if (step.done) return step.value;
  }
}

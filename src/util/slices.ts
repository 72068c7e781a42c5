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
 * Runs `steps` to its end and returns its result, with other work let in every
 * few milliseconds. A step must be much shorter than that. Rejects with `signal.reason` on
 * abort.
 */
export async function inSlices<T>(
  steps: Generator<void, T>,
  { signal }: { signal: AbortSignal },
): Promise<T> {
  let end = performance.now() + SLICE_MS;
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
    if (performance.now() < end) continue;
    await delay(0, { signal });
    end = performance.now() + SLICE_MS;
  }
}

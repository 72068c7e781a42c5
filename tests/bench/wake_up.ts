/// <reference lib="deno.worker" />
/**
 * How long it takes on this machine to wake a sleeping thread and be woken by it: a path in user
 * space has two such round trips in each ping, one in the kernel has none.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";

/** Words that the threads share: whose turn it is. */
const TURN = 0;
const OTHER = 1;
const OURS = 0;
const STOPPED = 2;

if (typeof WorkerGlobalScope !== "undefined") {
  self.onmessage = ({ data }: MessageEvent<Int32Array>) => {
    for (;;) {
      Atomics.wait(data, TURN, OURS);
      if (Atomics.load(data, TURN) === STOPPED) break;
      Atomics.store(data, TURN, OURS);
      Atomics.notify(data, TURN);
    }
    self.close();
  };
}

/** Round trips in milliseconds, `count` of them, 5 ms apart, as pings are. */
export async function measureWakeUps(
  count: number,
  { signal }: { signal: AbortSignal },
): Promise<number[]> {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const worker = new Worker(import.meta.url, { type: "module" });
  worker.postMessage(words);
  await delay(500, { signal });
  const times: number[] = [];
  for (let i = 0; i < count; i++) {
    await delay(5, { signal });
    const startedAt = performance.now();
    Atomics.store(words, TURN, OTHER);
    Atomics.notify(words, TURN);
    Atomics.wait(words, TURN, OTHER, 1_000);
    times.push(performance.now() - startedAt);
  }
  Atomics.store(words, TURN, STOPPED);
  Atomics.notify(words, TURN);
  return times;
}

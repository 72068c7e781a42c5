import assert from "node:assert/strict";
import { Stopwatch } from "./stopwatch.ts";

Deno.test("Stopwatch goes by whichever clock is further", () => {
  const time = { wall: 1_000_000, monotonic: 50 };
  const watch = new Stopwatch({ now: () => time.wall, monotonicNow: () => time.monotonic });
  assert.equal(watch.elapsedMs, 0);
  time.monotonic += 10; // somebody set the time of day back
  time.wall -= 3_600_000;
  assert.equal(watch.elapsedMs, 10);
  time.wall += 3_600_000 + 500; // the machine was suspended
  assert.equal(watch.elapsedMs, 500);
});

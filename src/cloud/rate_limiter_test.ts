import assert from "node:assert/strict";
import { RateLimiter } from "./rate_limiter.ts";

/** A clock that the limiter's own waits move. */
function virtualTime() {
  const waits: number[] = [];
  const time = {
    nowMs: 0,
    waits,
    now: () => time.nowMs,
    delay: (milliseconds: number) => {
      waits.push(milliseconds);
      time.nowMs += milliseconds;
      return Promise.resolve();
    },
    random: () => 0,
  };
  return time;
}

const { signal } = new AbortController();

Deno.test("RateLimiter.take() lets a burst pass and then one call per interval", async () => {
  const time = virtualTime();
  const limiter = new RateLimiter({ burst: 3, perSecond: 2, ...time });
  for (let n = 0; n < 3; n++) await limiter.take({ signal });
  assert.deepEqual(time.waits, []);
  await limiter.take({ signal });
  assert.deepEqual(time.waits, [500]);
  time.nowMs += 60_000;
  for (let n = 0; n < 3; n++) await limiter.take({ signal });
  assert.equal(time.waits.length, 1, "a quiet minute gives the burst back, and no more");
  await limiter.take({ signal });
  assert.equal(time.waits.length, 2);
});

Deno.test("RateLimiter.take() makes concurrent callers wait one after the other", async () => {
  const limiter = new RateLimiter({
    burst: 1,
    perSecond: 1,
    now: () => 0,
    random: () => 0,
    delay: (milliseconds) => {
      waits.push(milliseconds);
      return Promise.resolve();
    },
  });
  const waits: number[] = [];
  await Promise.all([1, 2, 3].map(() => limiter.take({ signal })));
  assert.deepEqual(waits, [1000, 2000]);
});

Deno.test("RateLimiter.pause() holds back every call", async () => {
  const time = virtualTime();
  const limiter = new RateLimiter({ burst: 10, perSecond: 1, ...time });
  limiter.pause(2_000);
  await limiter.take({ signal });
  assert.deepEqual(time.waits, [2_000]);
});

Deno.test("RateLimiter.take() ends on abort", async () => {
  const limiter = new RateLimiter({ burst: 1, perSecond: 0.001 });
  await limiter.take({ signal });
  const controller = new AbortController();
  const waiting = limiter.take(controller);
  controller.abort(new Error("enough"));
  await assert.rejects(waiting, /enough/);
});

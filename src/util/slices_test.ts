import assert from "node:assert/strict";
import { inSlices } from "./slices.ts";

const { signal } = new AbortController();

/** Keeps the processor busy. */
function spin(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

Deno.test("inSlices() lets other work in, and returns the result", async () => {
  function* steps(): Generator<void, string> {
    for (let i = 0; i < 30; i++) {
      spin(1);
      yield;
    }
    return "done";
  }
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  try {
    assert.equal(await inSlices(steps(), { signal }), "done");
    assert.ok(turns >= 2, `${turns} turns`);
  } finally {
    clearInterval(timer);
  }
});

Deno.test("inSlices() ends on abort", async () => {
  function* steps(): Generator<void, never> {
    for (;;) {
      spin(1);
      yield;
    }
  }
  const stop = new AbortController();
  const running = inSlices(steps(), { signal: stop.signal });
  stop.abort(new Error("enough"));
  await assert.rejects(running, /enough/);
});

Deno.test("inSlices() lets other work in between calls that follow each other", async () => {
  function* steps(): Generator<void, void> {
    for (let i = 0; i < 3; i++) {
      spin(1);
      yield;
    }
  }
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  try {
    for (let i = 0; i < 10; i++) await inSlices(steps(), { signal });
  } finally {
    clearInterval(timer);
  }
  assert.ok(turns >= 5, `${turns} turns`);
});

import assert from "node:assert/strict";
import { Condition, Readiness } from "./readiness.ts";

Deno.test("Readiness holds when every condition does, and tells of changes only", () => {
  const seen: string[] = [];
  const readiness = new Readiness(["lease", "cloud"], (it) => void seen.push(it.reasons.join("|")));
  assert.equal(readiness.ready, false);
  readiness.set("lease", undefined);
  readiness.set("lease", undefined);
  readiness.set("cloud", "table is full");
  readiness.set("cloud", "table is full");
  readiness.set("cloud", undefined);
  assert.equal(readiness.ready, true);
  readiness.set("lease", "lost");
  assert.equal(readiness.ready, false);
  assert.equal(readiness.holds("cloud"), true);
  assert.deepEqual(seen, ["cloud: not there yet", "cloud: table is full", "", "lease: lost"]);
});

Deno.test("Condition gives a doubt some time before it counts, however often it is repeated", async () => {
  const readiness = new Readiness(["cloud"], () => {});
  using condition = new Condition(readiness, "cloud");
  condition.doubtful("not seen yet", 60_000);
  assert.deepEqual(readiness.reasons, ["cloud: not seen yet"], "it never held");
  condition.met();
  condition.doubtful("throttled", 60_000);
  assert.equal(readiness.ready, true);
  condition.unmet("the route is gone");
  assert.deepEqual(readiness.reasons, ["cloud: the route is gone"]);
  condition.met();
  condition.doubtful("throttled", 30);
  for (let n = 0; n < 5; n++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    condition.doubtful("throttled again", 60_000);
  }
  assert.deepEqual(readiness.reasons, ["cloud: throttled again"]);
  condition.met();
  assert.equal(readiness.ready, true);
});

Deno.test("Condition is met for good once a doubt was dispelled", async () => {
  const readiness = new Readiness([], () => {});
  using condition = new Condition(readiness, "cloud");
  condition.doubtful("throttled", 10);
  condition.met();
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(readiness.ready, true);
});

import assert from "node:assert/strict";
import type { Finding } from "./model.ts";
import { Readiness, reasonsOf, remarksOf } from "./readiness.ts";

const found = (message: string, code: Finding["code"] = "starting"): Finding => ({
  code,
  object: "it",
  message,
});

Deno.test("Readiness holds when every condition does, and tells of changes only", () => {
  const seen: string[] = [];
  using readiness = new Readiness();
  readiness.statuses.subscribe((statuses) => void seen.push(reasonsOf(statuses).join("|")));
  const cloud = readiness.condition("cloud");
  assert.equal(readiness.ready, true, "a condition counts once it is judged");
  cloud.unmet(found("not there yet"));
  assert.equal(readiness.ready, false);
  cloud.unmet(found("table is full"));
  cloud.unmet(found("table is full"));
  cloud.met();
  cloud.met();
  assert.equal(readiness.ready, true);
  readiness.condition("lease").unmet(found("lost"));
  assert.equal(readiness.ready, false);
  assert.deepEqual(
    [readiness.holds("cloud"), readiness.holds("lease"), readiness.holds("kernel")],
    [true, false, true],
  );
  // @ts-expect-error -- what is no condition does not compile
  readiness.holds("typo");
  assert.deepEqual(seen, ["cloud: not there yet", "cloud: table is full", "", "lease: lost"]);
});

Deno.test("Readiness tells reasons in the order in which they came, and says since when", () => {
  let time = 0;
  using readiness = new Readiness({ now: () => time });
  const kernel = readiness.condition("kernel");
  const lease = readiness.condition("lease");
  time = 1_000;
  lease.unmet(found("lost"));
  time = 2_000;
  kernel.unmet(found("no route"), found("no link", "conflict"));
  time = 3_000;
  kernel.unmet(found("no route at all"));
  kernel.unmet(found("no link", "conflict"), found("no route"));
  assert.deepEqual(reasonsOf(readiness.statuses.value), ["lease: lost", "kernel: no link"]);
  const { state, since, problems } = kernel.status;
  assert.deepEqual([state, since], ["unmet", 2_000]);
  assert.deepEqual(problems.map(({ code, since }) => [code, since]), [
    ["conflict", 3_000],
    ["starting", 2_000],
  ], "each problem has its own time");
  time = 4_000;
  kernel.met([found("slow")]);
  assert.deepEqual([kernel.status.state, kernel.status.since], ["met", 4_000]);
  assert.deepEqual(remarksOf(readiness.statuses.value), ["slow"]);
});

Deno.test("Condition gives a doubt some time before it counts, however often it is repeated", async () => {
  using readiness = new Readiness();
  const reasons = () => reasonsOf(readiness.statuses.value);
  const condition = readiness.condition("cloud");
  condition.unmet(found("not set up yet"));
  condition.doubtful(found("not seen yet"), 60_000);
  assert.deepEqual(reasons(), ["cloud: not seen yet"], "it never held");
  condition.met();
  condition.doubtful(found("throttled"), 60_000);
  assert.equal(readiness.ready, true);
  assert.equal(condition.status.state, "doubtful");
  condition.unmet(found("the route is gone"));
  assert.deepEqual(reasons(), ["cloud: the route is gone"]);
  condition.met();
  condition.doubtful(found("throttled"), 30);
  for (let n = 0; n < 5; n++) {
    await new Promise((resolve) => setTimeout(resolve, 10));
    condition.doubtful(found("throttled again"), 60_000);
  }
  assert.deepEqual(reasons(), ["cloud: throttled again"]);
  condition.met();
  assert.equal(readiness.ready, true);
});

Deno.test("Condition is met for good once a doubt was dispelled", async () => {
  using readiness = new Readiness();
  const changes: readonly string[][] = [];
  readiness.unmet.subscribe((ids) => void (changes as string[][]).push([...ids]));
  const condition = readiness.condition("cloud");
  condition.doubtful(found("throttled"), 10);
  condition.met();
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(readiness.ready, true);
  assert.deepEqual(changes, [], "who waits for what holds is not woken by doubts");
});

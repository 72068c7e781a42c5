import assert from "node:assert/strict";
import { Readiness } from "./readiness.ts";

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

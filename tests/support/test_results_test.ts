import assert from "node:assert/strict";
import { FAILED, Results } from "./test_results.ts";

function counts(passed: number, failed = 0, skipped = 0) {
  return { passed, failed, skipped };
}

Deno.test("Results take the last run of a file, and name those that needed it", () => {
  const results = new Results();
  results.add({ counts: counts(100, 0, 2), reasons: ["u [skipped: needs root]"] });
  results.add({ counts: counts(3, 1), reasons: [], file: "b_test.ts", seconds: 9 });
  results.add({ counts: counts(3, 2), reasons: [], file: "a_test.ts", seconds: 7 });
  results.add({ counts: counts(5), reasons: [], file: "c_test.ts", seconds: 11 });
  assert.deepEqual(results.failedFiles, ["b_test.ts", "a_test.ts"]);
  assert.deepEqual(results.counts, counts(111, 3, 2));
  assert.equal(results.steadiness(), "unsteady: 0 files needed a second run");

  results.add({ counts: counts(4, 0, 1), reasons: ["x"], file: "b_test.ts", seconds: 8 });
  results.add({ counts: counts(4, 1), reasons: [], file: "a_test.ts", seconds: 7 });
  assert.deepEqual(results.failedFiles, ["a_test.ts"]);
  assert.deepEqual(results.counts, counts(113, 1, 3));
  assert.deepEqual(results.reasons, ["x", "u [skipped: needs root]"]);
  assert.equal(results.steadiness(), "unsteady: 1 file needed a second run: b_test.ts");
  assert.equal(results.slowest(), "slowest: c_test.ts 11 s, b_test.ts 8 s, a_test.ts 7 s");
});

Deno.test("Results of what did not come to its end are a failure", () => {
  const results = new Results();
  results.add(FAILED);
  assert.deepEqual(results.counts, counts(0, 1));
  assert.deepEqual(results.failedFiles, [], "there is no file to run again");
});

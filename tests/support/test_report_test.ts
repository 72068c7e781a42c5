import assert from "node:assert/strict";
import { findFailedFiles, parseSkipped, parseSummary } from "./test_report.ts";

Deno.test("parseSummary() counts tests, not their steps, in coloured output", () => {
  const output = "a ... ok | 9 passed\n\n\x1b[0m\x1b[31mFAILED\x1b[0m | 20 passed (1 step) | " +
    "2 failed (5 steps) | 1 ignored (7 steps) | 4 filtered out \x1b[38;5;245m(8ms)\x1b[0m\n\n";
  assert.deepEqual(parseSummary(output), { passed: 20, failed: 2, skipped: 1 });
  assert.deepEqual(parseSummary("ok | 3 passed | 0 failed (2s)\n"), {
    passed: 3,
    failed: 0,
    skipped: 0,
  });
  assert.equal(parseSummary("error: Type checking failed.\n"), undefined);
});

Deno.test("parseSkipped() names test and reason", () => {
  // As Deno 2.9.6 writes it.
  const xml = `<testsuite name="./a_test.ts" tests="7" disabled="2" errors="0" failures="2">
        <testcase name="plain &lt;&amp;&gt; &quot;ok&quot;" classname="./a_test.ts" time="0.000">
        </testcase>
        <testcase name="&lt;x&gt; [skipped: needs root]" classname="./a_test.ts" line="2" col="6">
            <skipped/>
        </testcase>
        <testcase name="steps &gt; two" classname="./a_test.ts" time="0.000" line="3" col="74">
            <skipped/>
        </testcase>
    </testsuite>`;
  assert.deepEqual(parseSkipped(xml), [
    "<x> [skipped: needs root]",
    "steps > two [skipped: no reason given]",
  ]);
});

Deno.test("findFailedFiles() names files with a failed test, and those that were not loaded", () => {
  // As Deno 2.9.6 writes it.
  const output = `\x1b[0m\x1b[38;5;245mrunning 2 tests from ./tests/a_test.ts\x1b[0m
one ... ok (462µs)
two ...
------- output -------
running 3 tests from ./tests/b_test.ts
----- output end -----
two ... \x1b[0m\x1b[31mFAILED\x1b[0m \x1b[0m\x1b[38;5;245m(846µs)\x1b[0m
running 2 tests from ./tests/b_test.ts
two ... ok (1ms)
FAILED to connect, which is as it should be ... ok (1ms)
running 1 test from ./tests/steps_test.ts
steps ...
  fine ... ok (0ms)
  bad ... FAILED (0ms)
steps ... FAILED (due to 1 failed step) (3ms)
running 1 test from ./tests/long_test.ts
long ...'long' has been running for over (1m0s)
 FAILED (1m0s)
Uncaught error from ./tests/broken_test.ts FAILED
running 2 tests from ./tests/leaking_test.ts
leaks ...
Uncaught error from ./tests/leaking_test.ts FAILED
leaks ... cancelled (0ms)
running 1 test from ./tests/last_test.ts
last ... ok (1s)

 ERRORS 

two => ./tests/helper.ts:1:76
error: Error: a daemon said:
a step ... FAILED (1s)
`;
  const files = ["a", "b", "steps", "long", "broken", "leaking", "last"].map((name) =>
    `tests/${name}_test.ts`
  );
  const passed = ["tests/b_test.ts", "tests/last_test.ts"];
  assert.deepEqual(
    findFailedFiles(files, output),
    files.filter((file) => !passed.includes(file)),
  );
  assert.deepEqual(findFailedFiles(files, "error: Type checking failed.\n"), files);
});

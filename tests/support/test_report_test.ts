import assert from "node:assert/strict";
import { parseSkipped, parseSummary } from "./test_report.ts";

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

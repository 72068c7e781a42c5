import assert from "node:assert/strict";
import { createLogger } from "../log.ts";
import { formatDuration, StateReporter } from "./state_reporter.ts";

function setUp() {
  const lines: string[] = [];
  const log = createLogger({
    format: "human",
    verbosity: 0,
    write: (line) => lines.push(line.slice("2026-11-22T04:34:00.123Z ".length)),
  });
  let milliseconds = 0;
  const reporter = new StateReporter(log, {
    failed: "Etcd is unreachable",
    recovered: "Etcd is reachable again",
    now: () => milliseconds,
  });
  return { lines, reporter, sleep: (ms: number) => milliseconds += ms };
}

Deno.test("StateReporter logs one line per change of state", () => {
  const { lines, reporter, sleep } = setUp();
  reporter.working();
  for (let i = 0; i < 31; i++) {
    reporter.failing(new Error("connection refused"));
    sleep(2000);
  }
  reporter.working();
  reporter.working();
  reporter.failing(new Error("connection refused"));
  assert.deepEqual(lines, [
    "WARN  Etcd is unreachable: connection refused",
    "INFO  Etcd is reachable again after 62 s failures=31",
    "WARN  Etcd is unreachable: connection refused",
  ]);
});

Deno.test("StateReporter logs each reason of an outage once, and not without bound", () => {
  const { lines, reporter } = setUp();
  for (let i = 0; i < 10; i++) {
    reporter.failing(new Error("connection refused"));
    reporter.failing(new Error("no leader"));
  }
  assert.equal(lines.length, 2);
  for (let port = 0; port < 100; port++) reporter.failing(new Error(`reset on port ${port}`));
  assert.equal(lines.length, 5);
});

Deno.test("StateReporter takes reasons that differ in a request's id alone for one", () => {
  const { lines, reporter } = setUp();
  const reasons = [1, 2, 3].map(() => `Throttling [HTTP 503, request ${crypto.randomUUID()}]`);
  assert.deepEqual(reasons.map((reason) => reporter.failing(new Error(reason))), reasons);
  assert.equal(lines.length, 1);
});

Deno.test("formatDuration() uses the unit that reads best", () => {
  assert.deepEqual(
    [0, 400, 1_600, 62_000, 720_000, 18_000_000].map(formatDuration),
    ["0 s", "0 s", "2 s", "62 s", "12 min", "5 h"],
  );
});

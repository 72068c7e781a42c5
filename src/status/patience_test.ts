import assert from "node:assert/strict";
import { OperatorError } from "../errors.ts";
import { isShortage, patiently, retryBriefly } from "./patience.ts";
import { recordLog } from "../../tests/support/log.ts";

function setUp() {
  const { lines, log } = recordLog();
  const controller = new AbortController();
  const statuses: string[] = [];
  const options = {
    log,
    signal: controller.signal,
    onStatus: (text: string) => void statuses.push(text),
    initialMs: 2,
    maxMs: 4,
  };
  return { lines, statuses, controller, options };
}

Deno.test("patiently() tries until it succeeds, with one line per cause", async () => {
  const { lines, statuses, options } = setUp();
  const outcomes = ["refused", "refused", "refused", "no leader", "no leader"];
  const result = await patiently("reach etcd", () => {
    const outcome = outcomes.shift();
    return outcome
      ? Promise.reject(Object.assign(new Error(outcome), { code: outcome }))
      : Promise.resolve("there");
  }, options);
  assert.equal(result, "there");
  assert.deepEqual(lines, [
    "WARN  Cannot reach etcd yet: refused; trying again",
    "WARN  Cannot reach etcd yet: no leader; trying again",
    "INFO  Could reach etcd after 0 s failures=5",
  ]);
  assert.deepEqual(
    statuses,
    ["refused", "refused", "refused", "no leader", "no leader"]
      .map((reason) => `Waiting to reach etcd: ${reason}`),
  );
});

Deno.test("patiently() leaves to the operator what needs one, and ends on abort", async () => {
  const { controller, options, lines } = setUp();
  const denied = () => Promise.reject(new OperatorError("Cannot use key: it is disabled"));
  await assert.rejects(patiently("check credentials", denied, options), OperatorError);
  assert.deepEqual(lines, []);
  setTimeout(() => controller.abort(new Error("stopping")), 5);
  const failing = () => Promise.reject(new Error("down"));
  await assert.rejects(patiently("reach etcd", failing, options), /stopping/);
});

Deno.test("retryBriefly() waits a moment's shortage out, and gives up within seconds", async () => {
  const { signal } = new AbortController();
  const emfile = () =>
    new Error("Cannot read x", { cause: new Error("Too many open files (os error 24)") });
  let failures = 2;
  const attempt = () => {
    if (failures-- > 0) throw emfile();
    return "read";
  };
  assert.equal(await retryBriefly(attempt, { signal }), "read");
  failures = Infinity;
  let attempts = 0;
  const startedAt = performance.now();
  const counted = () => {
    attempts++;
    return Promise.resolve(attempt());
  };
  await assert.rejects(retryBriefly(counted, { signal }), /Cannot read x/);
  assert.equal(attempts, 6);
  assert.ok(performance.now() - startedAt > 1_000, "the waits grow");
  await assert.rejects(
    retryBriefly(() => {
      attempts++;
      throw new Error("EISDIR: is a directory");
    }, { signal }),
  );
  assert.equal(attempts, 7, "what will not pass is not tried again");
  await assert.rejects(
    retryBriefly(counted, { signal: AbortSignal.abort(new Error("stopped")) }),
    /^Error: stopped$/,
  );
  assert.equal(attempts, 7);
});

Deno.test("isShortage() knows the kernel's words", () => {
  for (
    const [text, passes] of [
      ["EMFILE: too many open files", true],
      ["Input/output error (os error 5)", true],
      ["Cannot load libnl-3.so.200", false],
      ["Permission denied (os error 13)", false],
    ] as const
  ) assert.equal(isShortage(new Error("Cannot", { cause: new Error(text) })), passes, text);
});

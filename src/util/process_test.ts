import assert from "node:assert/strict";
import { ProgramNotFoundError, runProgram, withSystemDirectories } from "./process.ts";

const { signal } = new AbortController();

Deno.test("runProgram() collects what a program writes, and its exit code", async () => {
  const script = "cat; echo problem >&2; exit 3";
  const input = "ä".repeat(200_000);
  const result = await runProgram("sh", ["-c", script], { signal, stdin: input });
  assert.deepEqual(result, { code: 3, stdout: input, stderr: "problem\n" });
  assert.equal((await runProgram("cat", [], { signal })).stdout, "", "no input is empty input");
});

Deno.test("runProgram() does not mind a program that leaves its input unread", async () => {
  const result = await runProgram("true", [], { signal, stdin: "x".repeat(1 << 20) });
  assert.equal(result.code, 0);
});

Deno.test("runProgram() names a program that is not installed", async () => {
  await assert.rejects(runProgram("flanneld-no-such", [], { signal }), ProgramNotFoundError);
});

Deno.test("runProgram() ends in time, whoever else holds the program's pipes", async () => {
  const startedAt = performance.now();
  const pid = await Deno.makeTempFile();
  try {
    const script = 'sleep 30 & echo $! > "$0"; wait';
    await assert.rejects(
      runProgram("sh", ["-c", script, pid], { signal, timeoutMs: 500, stdin: "x".repeat(1 << 20) }),
      { name: "TimeoutError" },
    );
    assert.ok(performance.now() - startedAt < 15_000);
  } finally {
    Deno.kill(Number(await Deno.readTextFile(pid)));
    await Deno.remove(pid);
  }
});

Deno.test("runProgram() rejects with the reason of an abort", async () => {
  const controller = new AbortController();
  const running = runProgram("sleep", ["30"], { signal: controller.signal });
  controller.abort(new Error("stop"));
  await assert.rejects(running, /^Error: stop$/);
});

Deno.test("withSystemDirectories() puts what is missing last, and nothing twice", () => {
  const all = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
  assert.equal(withSystemDirectories(undefined), all);
  assert.equal(withSystemDirectories(""), all);
  assert.equal(
    withSystemDirectories("/opt/x::/usr/bin:/bin"),
    "/opt/x:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin",
  );
});

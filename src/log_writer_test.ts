import assert from "node:assert/strict";
import fc from "fast-check";
import { LogWriter, type LogWriterOptions } from "./log_writer.ts";
import { delay } from "./util/time.ts";

/** A reader of stderr that the test lets read, or makes fail. */
function setUp(options: LogWriterOptions = {}) {
  let text = "";
  let fault: Error | undefined;
  let gate: PromiseWithResolvers<void> | undefined;
  const decoder = new TextDecoder();
  const writer = new LogWriter({
    ...options,
    async write(bytes) {
      await gate?.promise;
      if (fault) throw fault;
      text += decoder.decode(bytes, { stream: true });
      return bytes.length;
    },
  });
  return {
    writer,
    lines: () => text.split("\n").slice(0, -1),
    stall: () => void (gate ??= Promise.withResolvers<void>()),
    drain() {
      gate?.resolve();
      gate = undefined;
    },
    fail: (error: Error | undefined) => void (fault = error),
  };
}

const PATIENCE = { timeoutMs: 10_000 };

Deno.test("LogWriter writes lines in order, those of one turn together", async () => {
  const { writer, lines } = setUp();
  const all = Array.from({ length: 5_000 }, (_, index) => `line ${index} ü`);
  for (const line of all) writer.write(line);
  await writer.flush(PATIENCE);
  assert.deepEqual(lines(), all);
});

Deno.test("LogWriter never waits for a reader, bounds what waits and counts what is lost", async () => {
  const { writer, lines, stall, drain } = setUp({ maxChars: 100 });
  stall();
  for (let index = 0; index < 50; index++) writer.write(`line ${index}`.padEnd(10));
  await writer.flush({ timeoutMs: 20 });
  assert.deepEqual(lines(), []);
  drain();
  await writer.flush(PATIENCE);
  writer.write("after");
  await writer.flush(PATIENCE);
  assert.deepEqual(lines().map((line) => line.trim()), [
    ...Array.from({ length: 10 }, (_, index) => `line ${index}`),
    "(40 log lines were lost)",
    "after",
  ]);
});

Deno.test("LogWriter loses the lines that cannot be written, and tells of all of them", async () => {
  const { writer, lines, fail } = setUp();
  writer.onLoss = (lost) => writer.write(`lost ${lost}`);
  fail(new Error("No space left on device"));
  for (const line of ["a", "b", "c"]) {
    writer.write(line);
    await writer.flush(PATIENCE);
  }
  fail(undefined);
  writer.write("d");
  await writer.flush(PATIENCE);
  assert.deepEqual(lines(), ["d", "lost 3"]);
});

Deno.test("LogWriter counts on where even the word of a loss is lost", async () => {
  let text = "";
  let count = 0;
  // The 1st and the 3rd write fail: a line, and the word that a line was lost.
  const writer = new LogWriter({
    async write(bytes) {
      await Promise.resolve();
      if ([1, 3].includes(++count)) throw new Error("No space left on device");
      text += new TextDecoder().decode(bytes);
      return bytes.length;
    },
  });
  for (const line of ["a", "b", "c"]) {
    writer.write(line);
    await writer.flush(PATIENCE);
  }
  assert.equal(text, "b\nc\n(1 log lines were lost)\n");
});

Deno.test("LogWriter goes on behind half a line with a line feed, and tries again on EAGAIN", async () => {
  const outcomes: (number | Error)[] = [
    ...[3, new Error("disk full")], // half of the first line
    ...[new Deno.errors.WouldBlock("again"), 4, 100],
  ];
  let text = "";
  const writer = new LogWriter({
    retryMs: 1,
    async write(bytes) {
      await Promise.resolve();
      const outcome = outcomes.shift() ?? bytes.length;
      if (typeof outcome !== "number") throw outcome;
      const piece = bytes.subarray(0, outcome);
      text += new TextDecoder().decode(piece);
      return piece.length;
    },
  });
  writer.write("first line");
  await writer.flush(PATIENCE);
  writer.write("second line");
  await writer.flush(PATIENCE);
  assert.equal(text, "fir\nsecond line\n(1 log lines were lost)\n");
});

Deno.test("LogWriter accounts for every line, whatever the reader does", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom("write", "stall", "drain", "fail", "mend", "turn")),
      async (steps) => {
        const { writer, lines, stall, drain, fail } = setUp({ maxChars: 40 });
        let written = 0;
        for (const step of steps) {
          if (step === "write") writer.write(`line ${written++}`);
          else if (step === "stall") stall();
          else if (step === "drain") drain();
          else if (step === "fail") fail(new Error("no"));
          else if (step === "mend") fail(undefined);
          else await delay(0, new AbortController());
        }
        fail(undefined);
        drain();
        await writer.flush(PATIENCE);
        writer.write("end");
        await writer.flush(PATIENCE);
        const numbers = lines().flatMap((line) => /^line (\d+)$/.exec(line)?.[1] ?? []).map(Number);
        assert.deepEqual(numbers, numbers.toSorted((a, b) => a - b));
        const lost = lines().map((line) => Number(/^\((\d+) log/.exec(line)?.[1] ?? 0))
          .reduce((sum, each) => sum + each, 0);
        assert.equal(numbers.length + lost, written);
      },
    ),
    { numRuns: 200 },
  );
});

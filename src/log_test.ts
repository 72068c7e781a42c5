import assert from "node:assert/strict";
import fc from "fast-check";
import { createLogger } from "./log.ts";
import { Address } from "./net/mod.ts";
import { rememberSecret, Secret } from "./secret.ts";

const clock = () => new Date("2026-11-22T04:34:00.123Z");

function capture(format: "human" | "json", verbosity = 2) {
  const lines: string[] = [];
  const log = createLogger({ format, verbosity, clock, write: (line) => lines.push(line) });
  return { log, lines };
}

Deno.test("createLogger() writes one readable line per event", () => {
  const { log, lines } = capture("human");
  log.info("Flanneld starts", { version: "0.1.0" });
  const etcd = log.child("etcd");
  etcd.warn("Lost connection", { endpoint: "http://10.0.0.5:2379", tries: 3, note: "a b", no: "" });
  etcd.child("watch").error("Cannot watch", {
    error: new Error("refused", { cause: new Error("no route") }),
    address: Address.parse("10.0.0.5"),
    missing: undefined,
    list: [1, "two"],
  });
  assert.deepEqual(lines, [
    "2026-11-22T04:34:00.123Z INFO  Flanneld starts version=0.1.0",
    "2026-11-22T04:34:00.123Z WARN  etcd: Lost connection " +
    'endpoint=http://10.0.0.5:2379 tries=3 note="a b" no=""',
    '2026-11-22T04:34:00.123Z ERROR etcd/watch: Cannot watch error="refused: no route" ' +
    'address=10.0.0.5 list=[1,"two"]',
  ]);
});

Deno.test("createLogger() writes JSON objects, one per line", () => {
  const { log, lines } = capture("json");
  log.child("lease").info("Lease\nacquired", { subnet: "10.3.4.0/24", revision: 12n });
  log.debug("Nothing else");
  assert.deepEqual(lines.map((line) => JSON.parse(line)), [
    {
      time: "2026-11-22T04:34:00.123Z",
      level: "info",
      component: "lease",
      message: "Lease\nacquired",
      fields: { subnet: "10.3.4.0/24", revision: "12" },
    },
    { time: "2026-11-22T04:34:00.123Z", level: "debug", message: "Nothing else" },
  ]);
});

Deno.test("createLogger() writes debug from -v=1 and trace from -v=2", () => {
  for (const [verbosity, expected] of [[-1, 3], [0, 3], [1, 4], [2, 5], [10, 5]] as const) {
    const { log, lines } = capture("human", verbosity);
    for (const level of ["trace", "debug", "info", "warn", "error"] as const) log[level]("x");
    assert.equal(lines.length, expected);
  }
});

Deno.test("createLogger() keeps a hostile text on its line", () => {
  for (const format of ["human", "json"] as const) {
    const { log, lines } = capture(format);
    log.info("a\nb\r\u001b[31m\u2028\u009b", { "k\n": "v\n2026 INFO forged" });
    assert.equal(lines.length, 1);
    // deno-lint-ignore no-control-regex -- looked for on purpose
    assert.doesNotMatch(lines[0]!, /[\u0000-\u001f\u007f-\u009f\u2028\u2029]/);
  }
});

Deno.test("createLogger() prints no secret, however it gets in", () => {
  const awkward = new Secret('canary "quoted" \\ secret');
  rememberSecret("canary-plain");
  const text = awkward.reveal();
  for (const format of ["human", "json"] as const) {
    const { log, lines } = capture(format);
    log.info(`message ${text} canary-plain`);
    log.info("fields", {
      awkward,
      text,
      error: new Error(`refused ${text}`, { cause: "canary-plain" }),
      nested: { list: [text, { deep: "x canary-plain y" }], map: new Map([["k", text]]) },
      url: new URL("http://user:canary-of-url@10.0.0.5/"),
      [`key canary-plain`]: 1,
      cut: "x".repeat(2040) + text,
    });
    log.child("canary-plain").info("component");
    assert.equal(lines.length, 3);
    for (const line of lines) assert.doesNotMatch(line, /canary/);
  }
});

Deno.test("createLogger() shortens what is long, deep or cyclic", () => {
  const cycle: Record<string, unknown> = { name: "loop" };
  cycle.self = cycle;
  let deep: unknown = "bottom";
  for (let i = 0; i < 1000; i++) deep = { deep };
  const { log, lines } = capture("json");
  log.info("x".repeat(1_000_000), {
    cycle,
    deep,
    list: Array.from({ length: 10_000 }, (_, i) => i),
    wide: Object.fromEntries(Array.from({ length: 1000 }, (_, i) => [`k${i}`, i])),
    bytes: new Uint8Array(1000),
  });
  assert.ok(lines[0]!.length < 10_000);
  const { message, fields } = JSON.parse(lines[0]!);
  assert.match(message, /… \(1000000 characters\)$/);
  assert.deepEqual(fields.cycle, { name: "loop", self: "[cycle]" });
  assert.equal(fields.list.at(-1), "… 9950 more");
  assert.equal(fields.bytes, "[1000 bytes]");
});

Deno.test("createLogger() never throws and always writes one line", () => {
  const odd = fc.oneof(
    fc.anything({ withBigInt: true, withDate: true, withMap: true, withSet: true }),
    fc.constantFrom<unknown>(
      Symbol("s"),
      () => 1,
      Object.create(null),
      new Proxy({}, {
        ownKeys() {
          throw new Error("trap");
        },
      }),
      {
        get bad() {
          throw new Error("getter");
        },
      },
      {
        toJSON() {
          throw new Error("toJSON");
        },
      },
      new Date(NaN),
      new Error("", { cause: { message: 1 } }),
    ),
  );
  fc.assert(fc.property(fc.string(), fc.dictionary(fc.string(), odd), (message, fields) => {
    for (const format of ["human", "json"] as const) {
      const { log, lines } = capture(format);
      log.info(message, fields);
      assert.equal(lines.length, 1);
      if (format === "json") JSON.parse(lines[0]!);
    }
  }));
});

Deno.test("createLogger() survives a writer that throws", () => {
  const log = createLogger({
    format: "human",
    verbosity: 0,
    write() {
      throw new Error("EPIPE");
    },
  });
  log.info("nobody reads this");
});

Deno.test("createLogger() goes on when the reader of stderr has gone", async () => {
  const module = new URL("./log.ts", import.meta.url).href;
  const code = `
    const { createLogger } = await import(${JSON.stringify(module)});
    const log = createLogger({ format: "human", verbosity: 0 });
    log.info("first");
    await new Promise((resolve) => setTimeout(resolve, 300));
    for (let i = 0; i < 100; i++) log.info("later " + "x".repeat(1000));
    console.log("still alive");`;
  using child = disposableChild(
    new Deno.Command(Deno.execPath(), {
      args: ["eval", code],
      stdout: "piped",
      stderr: "piped",
      cwd: new URL("..", import.meta.url),
      env: { NO_COLOR: "1" },
    }).spawn(),
  );
  const reader = child.process.stderr.getReader();
  const first = await reader.read();
  assert.match(new TextDecoder().decode(first.value), / INFO {2}first\n/);
  await reader.cancel();
  const stdout = await new Response(child.process.stdout).text();
  assert.equal(stdout, "still alive\n");
  assert.equal((await child.process.status).code, 0);
});

function disposableChild(process: Deno.ChildProcess) {
  return {
    process,
    [Symbol.dispose]() {
      try {
        process.kill("SIGKILL");
      } catch { /* it has ended */ }
    },
  };
}

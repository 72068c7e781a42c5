import assert from "node:assert/strict";
import { OperatorError } from "../errors.ts";
import { createLogger } from "../log.ts";
import { Address } from "../net/mod.ts";
import { rememberSecret } from "../secret.ts";
import { type HealthReport, serveHealth } from "./server.ts";

function setUp(report: () => HealthReport) {
  const controller = new AbortController();
  const lines: string[] = [];
  const log = createLogger({ format: "human", verbosity: 0, write: (line) => lines.push(line) });
  const { signal } = controller;
  const server = serveHealth({ hostname: "127.0.0.1", port: 0, report, signal, log });
  return {
    server,
    lines,
    async get(path: string, init: RequestInit = {}) {
      const response = await fetch(`http://127.0.0.1:${server.port}${path}`, init);
      return { status: response.status, body: await response.text() };
    },
    async [Symbol.asyncDispose]() {
      controller.abort();
      await server.finished;
    },
  };
}

const READY: HealthReport = { ready: true, reasons: [], status: {} };

Deno.test("serveHealth() answers /healthz whatever the state and method", async () => {
  await using health = setUp(() => ({ ...READY, ready: false }));
  for (const method of ["GET", "POST", "PUT", "DELETE"]) {
    assert.deepEqual(await health.get("/healthz", { method }), {
      status: 200,
      body: "flanneld is running",
    });
  }
  assert.deepEqual(await health.get("/healthz", { method: "HEAD" }), { status: 200, body: "" });
  assert.equal((await health.get("/healthz?verbose=1")).status, 200);
});

Deno.test("serveHealth() answers /readyz with the reasons, and may take readiness back", async () => {
  let report: HealthReport = { ...READY, ready: false };
  await using health = setUp(() => report);
  assert.deepEqual(await health.get("/readyz"), {
    status: 503,
    body: "flanneld is not ready yet",
  });
  report = READY;
  assert.deepEqual(await health.get("/readyz"), { status: 200, body: "flanneld is ready" });
  report = { ...READY, ready: false, reasons: ["lease lost", "etcd unreachable"] };
  assert.deepEqual(await health.get("/readyz"), {
    status: 503,
    body: "flanneld is not ready yet\nlease lost\netcd unreachable",
  });
});

Deno.test("serveHealth() tells the report as JSON without secrets", async () => {
  rememberSecret('canary "of" health');
  await using health = setUp(() => ({
    ready: false,
    reasons: ['denied for canary "of" health'],
    status: {
      lease: Address.parse("10.3.4.0"),
      revision: 12n,
      error: new Error('canary "of" health', { cause: new Error("no route") }),
    },
  }));
  const { status, body } = await health.get("/status");
  assert.equal(status, 200);
  assert.deepEqual(JSON.parse(body), {
    ready: false,
    reasons: ["denied for [redacted]"],
    status: { lease: "10.3.4.0", revision: "12", error: "[redacted]: no route" },
  });
  assert.doesNotMatch((await health.get("/readyz")).body, /canary/);
});

Deno.test("serveHealth() answers 404 elsewhere", async () => {
  await using health = setUp(() => READY);
  for (const path of ["/", "/healthz/", "/metrics", "//healthz"]) {
    assert.equal((await health.get(path)).status, 404, path);
  }
});

Deno.test("serveHealth() outlives a report that throws", async () => {
  await using health = setUp(() => {
    throw new Error("not yet");
  });
  assert.equal((await health.get("/readyz")).status, 500);
  assert.equal((await health.get("/healthz")).status, 200);
  assert.match(health.lines[0]!, /Cannot answer a health request error="not yet"/);
});

Deno.test("serveHealth() names flag and port where it cannot listen", async () => {
  await using health = setUp(() => READY);
  const log = createLogger({ format: "human", verbosity: 0, write() {} });
  const { signal } = new AbortController();
  const { port } = health.server;
  const expected: [string, RegExp][] = [
    ["127.0.0.1", /--healthz-port=\d+: the port is taken by another program/],
    ["192.0.2.1", /--healthz-ip=192.0.2.1 --healthz-port=\d+: this host has no such address/],
  ];
  for (const [hostname, message] of expected) {
    assert.throws(
      () => serveHealth({ hostname, port, report: () => READY, signal, log }),
      (error) => error instanceof OperatorError && message.test(error.message),
    );
  }
});

Deno.test("serveHealth() ends at once on abort, even with a request half sent", async () => {
  const controller = new AbortController();
  const log = createLogger({ format: "human", verbosity: 0, write() {} });
  const options = { hostname: "127.0.0.1", port: 0, report: () => READY, log };
  const server = serveHealth({ ...options, signal: controller.signal });
  using connection = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await connection.write(new TextEncoder().encode("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"));
  await connection.read(new Uint8Array(1024));
  await connection.write(new TextEncoder().encode("GET /heal"));
  controller.abort();
  await server.finished;
  const aborted = AbortSignal.abort(new Error("too late"));
  assert.throws(() => serveHealth({ ...options, signal: aborted }), { message: "too late" });
});

Deno.test("serveHealth() listens on IPv6 addresses", async () => {
  const controller = new AbortController();
  const log = createLogger({ format: "human", verbosity: 0, write() {} });
  const { signal } = controller;
  const server = serveHealth({ hostname: "::1", port: 0, report: () => READY, signal, log });
  const response = await fetch(`http://[::1]:${server.port}/readyz`);
  assert.equal(await response.text(), "flanneld is ready");
  controller.abort();
  await server.finished;
});

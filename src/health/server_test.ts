import assert from "node:assert/strict";
import { OperatorError } from "../errors.ts";
import { respond, serveHealth, type ServeHealthOptions } from "./server.ts";
import { recordLog, SILENT } from "../../tests/support/log.ts";

type Served = Pick<ServeHealthOptions, "readyz" | "status">;

function setUp(served: Served = READY) {
  const controller = new AbortController();
  const { lines, log } = recordLog();
  const { signal } = controller;
  const server = serveHealth({
    hostname: "127.0.0.1",
    port: 0,
    hostName: "node-1",
    ...served,
    signal,
    log,
  });
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

const READY: Served = {
  readyz: () => ({ ready: true, text: "flanneld is ready" }),
  status: () => "{}",
};

Deno.test("serveHealth() answers /healthz whatever the state and method", async () => {
  await using health = setUp({ ...READY, readyz: () => ({ ready: false, text: "no" }) });
  for (const method of ["GET", "POST", "PUT", "DELETE"]) {
    assert.deepEqual(await health.get("/healthz", { method }), {
      status: 200,
      body: "flanneld is running",
    });
  }
  assert.deepEqual(await health.get("/healthz", { method: "HEAD" }), { status: 200, body: "" });
  assert.equal((await health.get("/healthz?verbose=1")).status, 200);
});

Deno.test("serveHealth() serves readiness as status and text, and may take it back", async () => {
  let ready = false;
  await using health = setUp({
    ...READY,
    readyz: () => ({ ready, text: ready ? "yes" : "no\nx" }),
  });
  assert.deepEqual(await health.get("/readyz"), { status: 503, body: "no\nx" });
  ready = true;
  assert.deepEqual(await health.get("/readyz"), { status: 200, body: "yes" });
  assert.deepEqual(await health.get("/status"), { status: 200, body: "{}\n" });
});

Deno.test("serveHealth() answers 404 elsewhere", async () => {
  await using health = setUp();
  for (const path of ["/", "/healthz/", "/metrics", "//healthz"]) {
    assert.equal((await health.get(path)).status, 404, path);
  }
});

Deno.test("serveHealth() outlives a report that throws, and logs no request", async () => {
  const fail = () => {
    throw new Error("not yet");
  };
  await using health = setUp({ readyz: fail, status: fail });
  assert.equal((await health.get("/readyz")).status, 500);
  assert.equal((await health.get("/healthz")).status, 200);
  assert.deepEqual(health.lines, []);
});

/** What the server sends for `request`, as text; what comes after its end is not waited for. */
async function exchange(port: number, request: string): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  await connection.write(new TextEncoder().encode(request));
  return await new Response(connection.readable).text();
}

Deno.test("serveHealth() takes any header and logs nothing of it", async () => {
  await using health = setUp();
  const { port } = health.server;
  for (const host of ["[", "[::1", "]:", "a b", "%%%", "x:99999", "", "\u0000", "é", "http://["]) {
    const answer = await exchange(port, `GET /healthz HTTP/1.1\r\nHost: ${host}\r\n\r\n`);
    assert.match(answer, /^HTTP\/1\.1 200 OK\r\n[^]*\r\n\r\nflanneld is running$/, host);
  }
  const refused: [string, number][] = [
    ["\r\n\r\n", 400],
    ["\u0016\u0003\u0001 hello\n\n", 400],
    ["GET /healthz\r\n\r\n", 400],
    ["GET /healthz HTTP/2.0\r\n\r\n", 400],
    ["GET healthz HTTP/1.1\r\n\r\n", 400],
    ["PRI * HTTP/2.0\r\n\r\n", 400],
    [`GET /${"x".repeat(10_000)}`, 431],
    [`GET / HTTP/1.1\r\n${"a: b\r\n".repeat(2_000)}`, 431],
  ];
  for (const [request, status] of refused) {
    assert.match(await exchange(port, request), new RegExp(`^HTTP/1.1 ${status} `), request);
  }
  assert.deepEqual(health.lines, []);
});

Deno.test("serveHealth() takes requests in pieces, in a proxy's form and with a body", async () => {
  await using health = setUp();
  const { port } = health.server;
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  for (const piece of "GET http://[::1]:80/readyz?x=y HTTP/1.0\r\n\r\n") {
    await connection.write(new TextEncoder().encode(piece));
  }
  assert.match(await new Response(connection.readable).text(), /^HTTP\/1.1 200 [^]*is ready$/);
  const body = "x".repeat(50_000);
  assert.deepEqual(await health.get("/healthz", { method: "POST", body }), {
    status: 200,
    body: "flanneld is running",
  });
});

Deno.test("serveHealth() serves /status under no name that others control", async () => {
  await using health = setUp();
  const ask = async (host: string) =>
    Number(
      (await exchange(
        health.server.port,
        `GET /status HTTP/1.1\r\n${host === "none" ? "" : `Host: ${host}\r\n`}\r\n`,
      )).slice(9, 12),
    );
  const own = ["none", "localhost", "LOCALHOST:8089", "127.0.0.1", "10.2.3.4:80", "[::1]:8089"];
  for (const host of [...own, "Node-1", "node-1:80"]) assert.equal(await ask(host), 200, host);
  const foreign = [
    ...["evil.example", "evil.example:8089", "127.0.0.1.evil.example", "localhost.evil.example"],
    ...["localhost:", "[::1", "::1", "2130706433", "0x7f.1", "node-1.", "node-1, localhost"],
    "localhost\r\nHost: evil.example",
  ];
  for (const host of foreign) assert.equal(await ask(host), 403, host);
});

Deno.test("serveHealth() keeps /status from other hosts unless an address was chosen", () => {
  const own = Deno.networkInterfaces().find(({ family, address }) =>
    family === "IPv4" && !address.startsWith("127.")
  );
  const seen: [hostname: string, peer: string, status: number][] = [
    ["0.0.0.0", "127.0.0.1", 200],
    ["0.0.0.0", "::ffff:127.0.0.1", 200],
    ["::", "::1", 200],
    ["::", "::ffff:127.0.0.2", 200],
    ["0.0.0.0", "192.0.2.7", 403],
    ["::", "2001:db8::7", 403],
    ["::", "::ffff:192.0.2.7", 403],
    ["192.0.2.1", "192.0.2.7", 200],
    ["0.0.0.0", own?.address ?? "127.0.0.1", 403],
  ];
  for (const [hostname, remote, status] of seen) {
    const request = { method: "GET", path: "/status", host: undefined };
    const options = { hostname, ...READY };
    assert.equal(respond(request, { remote, local: "10.0.0.1" }, options).status, status, remote);
    assert.equal(
      respond({ ...request, path: "/healthz" }, { remote, local: "" }, options).status,
      200,
    );
  }
  const same = { remote: "10.0.0.1", local: "10.0.0.1" };
  const request = { method: "GET", path: "/status", host: undefined };
  assert.equal(respond(request, same, { hostname: "0.0.0.0", ...READY }).status, 200);
});

Deno.test("serveHealth() serves whoever asks while others hold connections open", async () => {
  await using health = setUp();
  const { port } = health.server;
  const held: Deno.TcpConn[] = [];
  try {
    for (let i = 0; i < 300; i++) {
      const connection = await Deno.connect({ hostname: "127.0.0.1", port });
      await connection.write(new TextEncoder().encode("GET /healthz HTTP/1.1\r\nHo"))
        .catch(() => {/* ended for another's sake */});
      held.push(connection);
      if (i % 30 === 0) assert.equal((await health.get("/readyz")).status, 200);
    }
    assert.equal((await health.get("/readyz")).status, 200);
  } finally {
    for (const connection of held) connection.close();
  }
});

Deno.test("serveHealth() names flag and port where it cannot listen", async () => {
  await using health = setUp();
  const log = SILENT;
  const { signal } = new AbortController();
  const { port } = health.server;
  const expected: [string, RegExp][] = [
    ["127.0.0.1", /--healthz-port=\d+: the port is taken by another program/],
    ["192.0.2.1", /--healthz-ip=192.0.2.1 --healthz-port=\d+: this host has no such address/],
  ];
  for (const [hostname, message] of expected) {
    assert.throws(
      () => serveHealth({ hostname, port, ...READY, signal, log }),
      (error) => error instanceof OperatorError && message.test(error.message),
    );
  }
});

Deno.test("serveHealth() ends at once on abort, even with a request half sent", async () => {
  const controller = new AbortController();
  const log = SILENT;
  const options = { hostname: "127.0.0.1", port: 0, ...READY, log };
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
  const log = SILENT;
  const { signal } = controller;
  const server = serveHealth({ hostname: "::1", port: 0, ...READY, signal, log });
  const response = await fetch(`http://[::1]:${server.port}/readyz`);
  assert.equal(await response.text(), "flanneld is ready");
  controller.abort();
  await server.finished;
});

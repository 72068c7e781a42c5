/** What a wrong endpoint, certificate or server is answered with: in seconds, and what to do. */
import assert from "node:assert/strict";
import tls from "node:tls";
import { openEtcdKeys, type OpenEtcdStoreOptions } from "../../src/store/etcd/open.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { run } from "../support/run.ts";
import { TestCa } from "../support/test_ca.ts";
import { etcdTest, MemoryLogger, Relay } from "./support.ts";

const { signal } = new AbortController();

/** What reading the config ends with, in at most 8 s. */
async function words(
  endpoint: string,
  more: Partial<OpenEtcdStoreOptions> = {},
  ask: "read" | "write" = "read",
): Promise<string> {
  const startedAt = performance.now();
  let message = "it works";
  try {
    await using keys = await openEtcdKeys({
      endpoints: [endpoint],
      api: "v3",
      log: new MemoryLogger(),
      ...more,
    });
    const registry = await keys.chosen({ signal });
    if (ask === "read") await registry.readConfig({ signal });
    else await registry.create("10.3.4.0-24", "{}", { signal, lifetimeSeconds: 60 });
  } catch (error) {
    message = (error as Error).message;
  }
  const tookMs = performance.now() - startedAt;
  assert(tookMs < 8_000, `${message}: after ${tookMs} ms`);
  return message;
}

/** Makes a certificate that signs itself, as guides do with `openssl req -x509`. */
async function selfSigned(ca: TestCa, name: string, ...extensions: string[]) {
  const files = { certFile: `${ca.directory}/${name}.pem`, keyFile: `${ca.directory}/${name}.key` };
  await run("openssl", [
    ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"],
    ...["-subj", `/CN=${name}`, "-days", "2", "-keyout", files.keyFile, "-out", files.certFile],
    ...extensions.flatMap((each) => ["-addext", each]),
  ], { signal });
  return files;
}

function startTls(files: { certFile: string; keyFile: string }, caFile: string) {
  return EtcdServers.start({
    signal,
    flags: ["--enable-v2"],
    tls: { caFile, clientCertificate: false, ...files },
  });
}

/** A server that shows a certificate and says nothing more. */
async function tlsServer(files: { certFile: string; keyFile: string }) {
  const [cert, key] = await Promise.all(
    [files.certFile, files.keyFile].map((file) => Deno.readTextFile(file)),
  );
  const server = tls.createServer({ cert: cert!, key: key!, ALPNProtocols: ["h2"] }, (socket) => {
    socket.on("error", () => {});
  });
  server.on("tlsClientError", () => {});
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as { port: number };
  return { endpoint: `https://127.0.0.1:${port}`, [Symbol.dispose]: () => void server.close() };
}

etcdTest("a self-signed certificate that is its own CA works, with v3 and v2", async () => {
  await using ca = await TestCa.create({ signal });
  const own = await selfSigned(ca, "own", "subjectAltName=IP:127.0.0.1,DNS:localhost");
  const other = await selfSigned(ca, "other", "subjectAltName=IP:127.0.0.1");
  await using etcd = await startTls(own, own.certFile);
  const { port } = etcd.any;
  for (const api of ["v3", "v2"] as const) {
    const ask = (host: string, caFile: string) => words(`https://${host}:${port}`, { api, caFile });
    assert.equal(await ask("127.0.0.1", own.certFile), "it works");
    assert.equal(await ask("localhost", own.certFile), "it works");
    assert.match(await ask("127.0.0.1", other.certFile), /not signed by a CA that is trusted: is /);
    assert.match(await ask("127.0.0.1", ca.caFile), /not signed by a CA that is trusted: is /);
  }
}, { needs: ["openssl"] });

etcdTest("TLS needs no directory for temporary files", async () => {
  await using ca = await TestCa.create({ signal });
  const { caFile } = ca;
  const server = await ca.issue("server", { subjectAltNames: ["IP:127.0.0.1"] });
  await using etcd = await startTls(server, caFile);
  const former = Deno.env.get("TMPDIR");
  try {
    for (const directory of ["/nonexistent", `/tmp/${"x".repeat(200)}`, "/proc"]) {
      Deno.env.set("TMPDIR", directory);
      assert.equal(await words(etcd.any.endpoint, { caFile }), "it works", directory);
    }
  } finally {
    if (former === undefined) Deno.env.delete("TMPDIR");
    else Deno.env.set("TMPDIR", former);
  }
}, { needs: ["openssl"] });

etcdTest("a CA file is trusted alone, and whole: bundles and intermediates work", async () => {
  await using ca = await TestCa.create({ signal });
  await using otherCa = await TestCa.create({ signal });
  const leaf = await ca.issue("leaf", { subjectAltNames: ["IP:127.0.0.1"] });
  // An honest leaf that signs another one is no CA.
  const forged = { certFile: `${ca.directory}/forged.pem`, keyFile: `${ca.directory}/forged.key` };
  const csr = `${ca.directory}/forged.csr`;
  const extensions = `${ca.directory}/forged.ext`;
  await Deno.writeTextFile(extensions, "subjectAltName=IP:127.0.0.1");
  await run("openssl", [
    ...["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj"],
    ...["/CN=forged", "-keyout", forged.keyFile, "-out", csr],
  ], { signal });
  await run("openssl", [
    ...["x509", "-req", "-in", csr, "-CA", leaf.certFile, "-CAkey", leaf.keyFile],
    ...["-CAcreateserial", "-days", "2", "-extfile", extensions, "-out", forged.certFile],
  ], { signal });
  await Deno.writeTextFile(
    forged.certFile,
    await Deno.readTextFile(forged.certFile) + await Deno.readTextFile(leaf.certFile),
  );
  const bundle = `${ca.directory}/bundle.pem`;
  await Deno.writeTextFile(
    bundle,
    await Deno.readTextFile(otherCa.caFile) + await Deno.readTextFile(ca.caFile),
  );
  await using etcd = await startTls(leaf, ca.caFile);
  using forger = await tlsServer(forged);
  for (const api of ["v3", "v2"] as const) {
    assert.equal(await words(etcd.any.endpoint, { api, caFile: bundle }), "it works");
    const { caFile } = ca;
    assert.match(await words(forger.endpoint, { api, caFile }), /not signed by a CA that is tr/);
  }
}, { needs: ["openssl"] });

etcdTest("a certificate without the name that is asked for is refused with its names", async () => {
  await using ca = await TestCa.create({ signal });
  const { caFile } = ca;
  const bare = await ca.issue("node1");
  using server = await tlsServer(bare);
  for (const api of ["v3", "v2"] as const) {
    assert.match(
      await words(server.endpoint, { api, caFile }),
      /not valid for 127.0.0.1, it has only the common name node1: issue one with subjectAltName=IP:127.0.0.1$/,
    );
  }
}, { needs: ["openssl"] });

etcdTest("an encrypted, foreign or damaged key is refused at once", async () => {
  await using ca = await TestCa.create({ signal });
  const mine = await ca.issue("mine");
  const yours = await ca.issue("yours");
  const encrypted = `${ca.directory}/encrypted.key`;
  await run("openssl", [
    ...["pkcs8", "-topk8", "-in", mine.keyFile, "-passout", "pass:s3cret", "-out", encrypted],
  ], { signal });
  const older = `${ca.directory}/older.key`;
  await run("openssl", [
    ...["ec", "-in", mine.keyFile, "-aes256", "-passout", "pass:s3cret", "-out", older],
  ], { signal });
  const damaged = `${ca.directory}/damaged.key`;
  const text = await Deno.readTextFile(mine.keyFile);
  await Deno.writeTextFile(damaged, text.replace(/\n[A-Za-z0-9+/]{8}/, "\nAAAAAAAA"));
  const { certFile } = mine;
  const ask = (keyFile: string) => words("https://127.0.0.1:1", { certFile, keyFile });
  for (const keyFile of [encrypted, older]) {
    assert.match(
      await ask(keyFile),
      /\.key: it is encrypted, .* openssl pkey -in \S+ -out NEW_FILE/,
    );
  }
  assert.match(await ask(yours.keyFile), /yours.key is the key of another one$/);
  assert.match(await ask(damaged), /one of them is damaged/);
  assert.match(await ask(certFile), /holds no PEM block "PRIVATE KEY"/);
}, { needs: ["openssl"] });

etcdTest("http:// to TLS, https:// to plain, and the port of members are named", async () => {
  await using ca = await TestCa.create({ signal });
  const { caFile } = ca;
  const server = await ca.issue("server", { subjectAltNames: ["IP:127.0.0.1"] });
  await using secure = await startTls(server, caFile);
  await using plain = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const [s, p] = [secure.any, plain.any];
  for (const api of ["v3", "v2", "auto"] as const) {
    const toTls = await words(`http://127.0.0.1:${s.port}`, { api });
    assert.match(toTls, /the server speaks TLS there: use https:\/\//, `${api}: ${toTls}`);
    const toPlain = await words(`https://127.0.0.1:${p.port}`, { api, caFile });
    assert.match(
      toPlain,
      /the server does not speak TLS there[:,] use http:/,
      `${api}: ${toPlain}`,
    );
  }
  // etcd serves v3 to its own members as well, so that works; v2 it does not.
  assert.equal(await words(p.peerUrl), "it works");
  assert.match(await words(p.peerUrl, { api: "v2" }), /the v2 API is not served there \(HTTP/);
  using _relay = new Relay(p.peerPort, { port: 2380, hostname: "127.0.0.9" });
  assert.match(
    await words("http://127.0.0.9:2380", { api: "v2" }),
    /2380 is for etcd's own members, its clients' port is 2379 \(HTTP status 404/,
  );
}, { needs: ["openssl"] });

etcdTest("etcd v2 behind something else: who answered, with which words", async () => {
  let answer: () => Response = () => new Response();
  await using server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, (request) => {
    if (!new URL(request.url).pathname.startsWith("/v2/")) return new Response("", { status: 404 });
    return answer();
  });
  const url = `http://127.0.0.1:${server.addr.port}`;
  const cases: readonly (readonly [() => Response, "read" | "write", RegExp])[] = [
    [
      () => new Response("Not Implemented", { status: 501, headers: { server: "proxy/1" } }),
      "write",
      /refuses to write, as a read-only proxy does: name etcd's own members \(HTTP status 501 of proxy\/1, "Not Implemented"\)$/,
    ],
    [
      () => Response.redirect("http://elsewhere.example/login?token=s3cret", 302),
      "read",
      /it redirects to http:\/\/elsewhere.example: name etcd's own members \(HTTP status 302\)$/,
    ],
    [
      () =>
        new Response("<html><style>b{}</style><h1>Welcome\n to</h1> \u001b[1mnginx</html>", {
          headers: { "content-type": "text/html" },
        }),
      "read",
      /what answers there is not etcd's v2 API \(HTTP status 200, "Welcome to \[1mnginx"\)$/,
    ],
    [
      () => new Response("<h1>502 Bad Gateway</h1>", { status: 502 }),
      "read",
      /etcd is not behind it at present \(HTTP status 502, "502 Bad Gateway"\)$/,
    ],
    [
      () => Response.json({ hello: 1 }),
      "read",
      /is not etcd's v2 API \(HTTP status 200, "{"hello"/,
    ],
    [() => new Response("no", { status: 404 }), "read", /the v2 API is not served there \(HTTP st/],
  ];
  for (const [each, ask, pattern] of cases) {
    answer = each;
    const message = await words(url, { api: "v2" }, ask);
    assert.match(message, pattern);
    assert.doesNotMatch(message, /s3cret/);
  }
});

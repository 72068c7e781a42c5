import assert from "node:assert/strict";
import { OperatorError } from "../../errors.ts";
import { cannedServer, type SeenRequest } from "../../../tests/support/canned_server.ts";
import { runProgram } from "../../util/process.ts";
import { Metadata, MetadataUnavailableError } from "./metadata.ts";

const { signal } = new AbortController();
const TOKEN_PATH = "/latest/api/token";

function status(code: number): Response {
  return new Response("<html>", { status: code });
}

/** A service that demands tokens; `tokens` are the valid ones. */
function hardened(tokens: Set<string>) {
  let issued = 0;
  return ({ method, path, headers }: SeenRequest) => {
    if (path === TOKEN_PATH && method === "PUT") {
      const ttl = Number(headers.get("x-aliyun-ecs-metadata-token-ttl-seconds"));
      if (!(ttl >= 1 && ttl <= 21_600)) return status(400);
      const token = `token-${++issued}`;
      tokens.add(token);
      return new Response(token);
    }
    const token = headers.get("x-aliyun-ecs-metadata-token");
    if (token === null) return status(403);
    if (!tokens.has(token)) return status(401);
    if (path.endsWith("/eipv4")) return status(404);
    return new Response("cn-hangzhou\n");
  };
}

/** The oldest service: no tokens at all. */
function plain({ method }: SeenRequest): Response {
  return method === "GET" ? new Response("cn-hangzhou") : status(405);
}

Deno.test("Metadata.get() uses a token, keeps it for half its time, and replaces a refused one", async () => {
  const tokens = new Set<string>();
  await using server = cannedServer(hardened(tokens));
  let nowMs = 0;
  const metadata = new Metadata({ endpoint: server.url, now: () => nowMs });
  const puts = () => server.seen.filter(({ method }) => method === "PUT").length;
  assert.equal(await metadata.get("region-id", { signal }), "cn-hangzhou");
  assert.equal(await metadata.get("eipv4", { signal }), undefined);
  assert.equal(puts(), 1);
  tokens.clear();
  assert.equal(await metadata.get("region-id", { signal }), "cn-hangzhou");
  assert.equal(puts(), 2);
  nowMs += 3 * 3_600_000 + 1;
  await metadata.get("region-id", { signal });
  assert.equal(puts(), 3);
});

Deno.test("Metadata.get() falls back to requests without token where that is allowed", async () => {
  await using server = cannedServer(plain);
  const metadata = new Metadata({ endpoint: server.url });
  assert.equal(await metadata.get("region-id", { signal }), "cn-hangzhou");
  await metadata.get("zone-id", { signal });
  assert.equal(server.seen.filter(({ method }) => method === "PUT").length, 1, "asked only once");
  const strict = new Metadata({
    endpoint: server.url,
    allowV1: false,
    patienceMs: 3_000,
    timeoutMs: 1_000,
  });
  await assert.rejects(strict.get("region-id", { signal }), /without one are not allowed/);
});

Deno.test("Metadata.get() repeats after 429 and 5xx, and says so when they do not end", async () => {
  let refusals = 2;
  await using server = cannedServer((request) =>
    request.method === "GET" && refusals-- > 0 ? status(429) : plain(request)
  );
  const metadata = new Metadata({ endpoint: server.url, patienceMs: 5_000, timeoutMs: 500 });
  assert.equal(await metadata.get("region-id", { signal }), "cn-hangzhou");
  await using broken = cannedServer(() => status(503));
  const patient = new Metadata({ endpoint: broken.url, patienceMs: 3_000, timeoutMs: 1_000 });
  await assert.rejects(patient.get("region-id", { signal }), (error) => {
    assert(error instanceof MetadataUnavailableError);
    assert.match(error.message, /503/);
    return true;
  });
});

Deno.test("Metadata.get() names URL and likely causes of silence, within its patience", async () => {
  const late = Promise.withResolvers<void>();
  await using server = cannedServer(async () => {
    await late.promise;
    return status(500);
  });
  const metadata = new Metadata({ endpoint: server.url, patienceMs: 700, timeoutMs: 150 });
  const start = performance.now();
  await assert.rejects(metadata.get("instance-id", { signal }), (error) => {
    assert(error instanceof MetadataUnavailableError);
    assert(error.message.includes(`${server.url}/latest/meta-data/instance-id: no answer`));
    assert.match(error.message, /no ECS instance.*classic-network.*switched off/);
    return true;
  });
  assert(performance.now() - start < 5_000);
  late.resolve();
});

Deno.test("Metadata.get() reports a refusal to this host", async () => {
  await using server = cannedServer(() => status(403));
  const metadata = new Metadata({ endpoint: server.url });
  await assert.rejects(metadata.get("region-id", { signal }), OperatorError);
});

Deno.test("Metadata.get() ends on abort", async () => {
  const late = Promise.withResolvers<void>();
  await using server = cannedServer(async () => {
    await late.promise;
    return status(500);
  });
  const metadata = new Metadata({ endpoint: server.url });
  const controller = new AbortController();
  const pending = metadata.get("region-id", controller);
  setTimeout(() => controller.abort(new Error("going down")), 20);
  await assert.rejects(pending, /going down/);
  late.resolve();
});

Deno.test("Metadata.getMatching() takes nothing that does not belong there", async () => {
  await using server = cannedServer(({ path, method }) =>
    method === "PUT"
      ? status(404)
      : path.endsWith("mac")
      ? new Response("../../etc/passwd\n")
      : path.endsWith("big")
      ? new Response("x".repeat(100_000))
      : status(404)
  );
  const metadata = new Metadata({ endpoint: server.url, patienceMs: 3_000, timeoutMs: 1_000 });
  await assert.rejects(metadata.getMatching("mac", /^[0-9a-f:]+$/, { signal }), /is not what/);
  await assert.rejects(metadata.getMatching("vpc-id", /./, { signal }), /it is absent/);
  await assert.rejects(metadata.get("big", { signal }), /longer than/);
});

Deno.test("Metadata never goes through a proxy of the environment", async () => {
  await using proxy = cannedServer(() => new Response("from-proxy"));
  await using server = cannedServer(plain);
  const script = `
    import { Metadata } from ${JSON.stringify(import.meta.resolve("./metadata.ts"))};
    const metadata = new Metadata({ endpoint: ${JSON.stringify(server.url)} });
    console.log(await metadata.get("region-id", { signal: AbortSignal.timeout(10_000) }));
  `;
  const { stdout, stderr, code } = await runProgram(
    Deno.execPath(),
    ["run", "-A", "--no-check", "-"],
    {
      stdin: script,
      signal,
      env: {
        HTTP_PROXY: proxy.url,
        http_proxy: proxy.url,
        ALL_PROXY: proxy.url,
        NO_PROXY: "",
        no_proxy: "",
        NODE_USE_ENV_PROXY: "1",
      },
    },
  );
  assert.equal(code, 0, stderr);
  assert.equal(stdout.trim(), "cn-hangzhou");
  assert.equal(proxy.seen.length, 0);
});

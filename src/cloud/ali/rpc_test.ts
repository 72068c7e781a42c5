import assert from "node:assert/strict";
import * as v from "valibot";
import { Secret } from "../../secret.ts";
import { RateLimiter } from "../rate_limiter.ts";
import { apiError, cannedServer, json } from "../../../tests/support/canned_server.ts";
import type { Credentials, CredentialsProvider } from "./credentials.ts";
import { AliApiError } from "./errors.ts";
import { PopRpc } from "./rpc.ts";

const ID = "LTAI5tCanaryKeyId01";
const SECRET = "canary-access-key-secret";
const TOKEN = "canary-security-token+/=";
const REPLY = v.object({ Value: v.string() });

/** Credentials that change each time they are refused. */
class TurningCredentials implements CredentialsProvider {
  renewals = 0;
  #current = this.#make();

  #make(): Credentials {
    return {
      accessKeyId: new Secret(`${ID}${this.renewals}`),
      accessKeySecret: new Secret(SECRET),
      securityToken: new Secret(TOKEN),
    };
  }

  get(): Promise<Credentials> {
    return Promise.resolve(this.#current);
  }

  invalidate(): boolean {
    this.renewals++;
    this.#current = this.#make();
    return true;
  }
}

function open(
  endpoint: string | (() => Promise<string>),
  options: { timeoutMs?: number; credentials?: CredentialsProvider } = {},
) {
  return new PopRpc({
    service: "vpc",
    endpoint: typeof endpoint === "string" ? () => Promise.resolve(endpoint) : endpoint,
    apiVersion: "2016-04-28",
    credentials: new TurningCredentials(),
    limiter: new RateLimiter({ burst: 100, perSecond: 100 }),
    timeoutMs: 5_000,
    ...options,
  });
}

const { signal } = new AbortController();

/** The error of one call, which must leak nothing. */
async function failure(
  endpoint: string,
  options: { action?: string; timeoutMs?: number } = {},
): Promise<AliApiError> {
  await using rpc = open(endpoint, options);
  const error = await rpc.call(options.action ?? "DescribeX", { A: "b" }, REPLY, { signal })
    .then(() => assert.fail("no error"), (thrown) => thrown);
  assert(error instanceof AliApiError, Deno.inspect(error));
  const text = Deno.inspect(error, { depth: 10 }) + JSON.stringify(error);
  assert(!text.includes(SECRET) && !text.includes(TOKEN) && !text.includes(ID), text);
  return error;
}

Deno.test("Rpc.call() posts parameters in the body, without undefined ones, lists numbered", async () => {
  await using server = cannedServer(() => json({ Value: "x", OwnerId: 1234567890123456 }));
  await using rpc = open(server.url);
  const reply = await rpc.call(
    "describeThing",
    { RegionId: "cn-hangzhou", Absent: undefined, Size: 50, DryRun: true, Ids: ["a", "b"] },
    REPLY,
    { signal },
  );
  assert.deepEqual({ ...reply }, { Value: "x" });
  const [request] = server.seen;
  assert.equal(request?.method, "POST");
  assert.equal(request?.path, "/");
  const { params } = request!;
  assert.equal(params["Size"], "50");
  assert.equal(params["DryRun"], "true");
  assert.equal(params["Ids.1"], "a");
  assert.equal(params["Ids.2"], "b");
  assert.equal(params["SecurityToken"], TOKEN);
  assert(!("Absent" in params) && !request!.body.includes("undefined"));
  assert(!request!.body.includes(SECRET));
});

Deno.test("Rpc.call() turns an API error into code, status and request id", async () => {
  await using server = cannedServer(() => apiError("TaskConflict", "too frequent"));
  const error = await failure(server.url, { action: "CreateX" });
  assert.equal(error.code, "TaskConflict");
  assert.equal(error.status, 400);
  assert.match(error.message, /request REQ-1/);
  assert.equal(error.action, "vpc:CreateX");
  assert(error.reaction.do === "retry");
  assert.equal(error.outcomeUnknown, false);
  assert.equal(server.seen.length, 1, "whether to repeat is the caller's affair");
});

Deno.test("Rpc.call() removes secrets that a message repeats", async () => {
  await using server = cannedServer(({ body }) =>
    apiError("SignatureDoesNotMatch", `server string to sign is:${body} ${TOKEN} ${ID}0`)
  );
  const error = await failure(server.url);
  assert.match(error.message, /AccessKeySecret does not belong/);
});

Deno.test("Rpc.call() names bad answers instead of failing on them", async (t) => {
  const cases: [name: string, answer: () => Response, code: string][] = [
    ["HTML", () => new Response("<html>502</html>", { status: 502 }), "UnreadableAnswer"],
    ["nothing", () => new Response(null, { status: 204 }), "UnreadableAnswer"],
    ["null", () => json(null), "UnreadableAnswer"],
    ["a hostile key", () => new Response('{"__proto__": 1}'), "UnreadableAnswer"],
    ["500 without a code", () => json({ Value: "x" }, 500), "HTTP500"],
    ["a missing field", () => json({ Other: 1 }), "UnexpectedAnswer"],
    ["another type", () => json({ Value: { deep: true } }), "UnexpectedAnswer"],
    ["a number", () => json(7), "UnexpectedAnswer"],
    ["a strange code", () => json({ Code: { a: 1 }, Message: 7 }, 400), "UnreadableAnswer"],
  ];
  for (const [name, answer, code] of cases) {
    await t.step(name, async () => {
      await using server = cannedServer(answer);
      const read = await failure(server.url);
      assert.equal(read.code, code);
      assert.equal(read.outcomeUnknown, false);
    });
  }
  await using server = cannedServer(() => json({ Other: 1 }));
  assert.match((await failure(server.url)).message, /Value/, "the missing field is named");
});

Deno.test("Rpc.call() says when a write may have happened", async () => {
  await using bad = cannedServer(() => new Response("<html>", { status: 502 }));
  assert.equal((await failure(bad.url, { action: "CreateX" })).outcomeUnknown, true);
  await using broken = cannedServer(() => apiError("InternalError", "", 500));
  assert.equal((await failure(broken.url, { action: "CreateX" })).outcomeUnknown, true);
  const refused = await failure("http://127.0.0.1:9", { action: "CreateX" });
  assert.equal(refused.code, "NoConnection");
  assert.match(refused.message, /ECONNREFUSED/);
  assert(refused.reaction.do === "retry");
});

Deno.test("Rpc.call() notices at once that an answer was cut short", async () => {
  // By hand: no server of Deno's can be made to break its promise of a length.
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const served = (async () => {
    using connection = await listener.accept();
    await connection.read(new Uint8Array(8192));
    const head = "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n";
    await connection.write(new TextEncoder().encode(`${head}{"Value":`));
  })();
  const port = (listener.addr as Deno.NetAddr).port;
  const startedAt = performance.now();
  const error = await failure(`http://127.0.0.1:${port}`, { action: "CreateX" });
  await served;
  assert.equal(error.code, "NoConnection");
  assert(error.outcomeUnknown);
  assert(performance.now() - startedAt < 4_000, "long before the time-out");
});

Deno.test("Rpc.call() gives up waiting for an answer", async () => {
  const late = Promise.withResolvers<void>();
  await using server = cannedServer(async () => {
    await late.promise;
    return json({ Value: "late" });
  });
  const error = await failure(server.url, { timeoutMs: 200 });
  late.resolve();
  assert.equal(error.code, "Timeout");
});

Deno.test("Rpc.call() ends at once on abort", async () => {
  const late = Promise.withResolvers<void>();
  await using server = cannedServer(async () => {
    await late.promise;
    return json({ Value: "late" });
  });
  await using rpc = open(server.url);
  const controller = new AbortController();
  const call = rpc.call("CreateX", {}, REPLY, controller);
  while (server.seen.length === 0) await new Promise((done) => setTimeout(done, 5));
  controller.abort(new Error("going down"));
  await assert.rejects(call, /going down/);
  late.resolve();
});

Deno.test("Rpc.call() renews refused credentials once", async (t) => {
  await t.step("and succeeds with the new ones", async () => {
    await using server = cannedServer(({ params }) =>
      params["AccessKeyId"] === `${ID}0`
        ? apiError("InvalidSecurityToken.Expired")
        : json({ Value: "x" })
    );
    const credentials = new TurningCredentials();
    await using rpc = open(server.url, { credentials });
    assert.equal((await rpc.call("DescribeX", {}, REPLY, { signal })).Value, "x");
    assert.equal(credentials.renewals, 1);
  });
  await t.step("and fails if those are refused, too", async () => {
    await using server = cannedServer(() => apiError("InvalidAccessKeyId.NotFound", "", 404));
    const credentials = new TurningCredentials();
    await using rpc = open(server.url, { credentials });
    await assert.rejects(rpc.call("DescribeX", {}, REPLY, { signal }), /InvalidAccessKeyId/);
    assert.equal(credentials.renewals, 1);
    assert.equal(server.seen.length, 2);
  });
});

Deno.test("Rpc.call() draws a new nonce where one was used", async () => {
  await using server = cannedServer((_, number) =>
    number < 3 ? apiError("SignatureNonceUsed") : json({ Value: "x" })
  );
  await using rpc = open(server.url);
  await rpc.call("DescribeX", {}, REPLY, { signal });
  const nonces = server.seen.map(({ params }) => params["SignatureNonce"]);
  assert.equal(new Set(nonces).size, 3);
});

Deno.test("Rpc.call() asks beforeSend before each sending, and sends nothing if it rejects", async () => {
  await using server = cannedServer((_, number) =>
    number < 3 ? apiError("SignatureNonceUsed") : json({ Value: "x" })
  );
  await using rpc = open(server.url);
  const sentBefore: number[] = [];
  const beforeSend = () => {
    sentBefore.push(server.seen.length);
    return Promise.resolve();
  };
  await rpc.call("CreateX", {}, REPLY, { signal, beforeSend });
  assert.deepEqual(sentBefore, [0, 1, 2]);
  const over = new Error("The term is over");
  await assert.rejects(
    rpc.call("CreateX", {}, REPLY, { signal, beforeSend: () => Promise.reject(over) }),
    (error) => error === over,
  );
  assert.equal(server.seen.length, 3);
});

Deno.test("the library signs as the service's documentation shows", async () => {
  // The vector of "Request signatures" (RPC, HMAC-SHA1), recomputed with two other programs.
  const { default: Client } = await import("@alicloud/pop-core/lib/rpc.js");
  await using server = cannedServer(() => json({ Value: "x" }));
  const client = new (Client as unknown as new (config: object) => {
    keepAliveAgent: { destroy(): void };
    request(action: string, parameters: object, options: object): Promise<unknown>;
  })({
    endpoint: server.url,
    apiVersion: "2014-05-26",
    accessKeyId: "testid",
    accessKeySecret: "testsecret",
  });
  await client.request("DescribeRegions", {
    Format: "XML",
    SignatureNonce: "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf",
    Timestamp: "2016-02-23T12:46:24Z",
  }, { method: "GET" });
  client.keepAliveAgent.destroy();
  assert.equal(server.seen[0]?.params["Signature"], "OLeaidS1JvxuMvnyHOwuJ+uX5qY=");
});

Deno.test("an Rpc looks its endpoint up at the first call, once, and makes none when closed", async () => {
  await using server = cannedServer(() => json({ Value: "x" }));
  let looks = 0;
  const endpoint = () => {
    looks++;
    return Promise.resolve(server.url);
  };
  const rpc = open(endpoint);
  assert.equal(looks, 0);
  await Promise.all(["A", "B"].map((action) => rpc.call(action, {}, REPLY, { signal })));
  assert.deepEqual([looks, server.seen.length], [1, 2]);
  await rpc[Symbol.asyncDispose]();
  const message = "The client of vpc is closed";
  await assert.rejects(rpc.call("C", {}, REPLY, { signal }), { message });
  await open(endpoint)[Symbol.asyncDispose]();
  assert.equal(looks, 1, "never opened");
});

Deno.test("an Rpc looks its endpoint up anew after that failed, and lets an impatient caller go", async () => {
  await using server = cannedServer(() => json({ Value: "x" }));
  const { promise, resolve } = Promise.withResolvers<string>();
  let tries = 0;
  await using rpc = open(() => ++tries === 1 ? Promise.reject(new Error("no such host")) : promise);
  await assert.rejects(rpc.call("A", {}, REPLY, { signal }), { message: "no such host" });
  const impatient = AbortSignal.abort(new Error("not needed any more"));
  await assert.rejects(rpc.call("B", {}, REPLY, { signal: impatient }), {
    message: "not needed any more",
  });
  const patient = rpc.call("C", {}, REPLY, { signal });
  resolve(server.url);
  await patient;
  assert.deepEqual([tries, server.seen.length], [2, 1]);
});

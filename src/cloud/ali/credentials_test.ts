import assert from "node:assert/strict";
import { OperatorError } from "../../errors.ts";
import { redact, Secret } from "../../secret.ts";
import { apiError, cannedServer, json } from "../../../tests/support/canned_server.ts";
import { CredentialsChain, type CredentialsChainOptions } from "./credentials.ts";
import { Metadata } from "./metadata.ts";

const { signal } = new AbortController();
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

/** A metadata service with one role whose keys it renews some time before they end. */
class FakeRole {
  nowMs = Date.parse("2026-11-22T00:00:00Z");
  lifetimeMs = 6 * HOUR;
  renewBeforeMs = 30 * MINUTE;
  broken = false;
  role: string | undefined = "node-role";
  readonly sessions: { id: string; expiresAtMs: number }[] = [];

  answer = ({ method, path }: { method: string; path: string }): Response => {
    if (method === "PUT") return new Response("metadata-token");
    if (this.broken) return new Response("", { status: 400 });
    if (this.role === undefined) return new Response("", { status: 404 });
    if (path.endsWith("/security-credentials/")) return new Response(`${this.role}\n`);
    if (!path.endsWith(`/${this.role}`)) return new Response("", { status: 404 });
    let last = this.sessions.at(-1);
    if (last === undefined || last.expiresAtMs - this.nowMs <= this.renewBeforeMs) {
      last = {
        id: `STS.session${this.sessions.length}`,
        expiresAtMs: this.nowMs + this.lifetimeMs,
      };
      this.sessions.push(last);
    }
    return json({
      AccessKeyId: last.id,
      AccessKeySecret: `secret-of-${last.id}`,
      SecurityToken: `token-of-${last.id}`,
      Expiration: new Date(last.expiresAtMs).toISOString().replace(".000Z", "Z"),
      LastUpdated: "2026-11-22T00:00:00Z",
      Code: "Success",
    });
  };
}

function chain(
  url: string,
  options: Partial<CredentialsChainOptions> & { environment?: Record<string, string> } = {},
): CredentialsChain {
  const { environment = {}, ...rest } = options;
  return new CredentialsChain({
    config: {},
    env: (name) => environment[name],
    metadata: new Metadata({ endpoint: url, patienceMs: 3_000, timeoutMs: 1_000 }),
    stsEndpoint: () => Promise.resolve(url),
    random: () => 0.5,
    ...rest,
  });
}

Deno.test("CredentialsChain takes the sources in order", async () => {
  const fake = new FakeRole();
  await using server = cannedServer(fake.answer);
  const config = {
    accessKeyId: new Secret("LTAIconfig"),
    accessKeySecret: new Secret("sc-config"),
  };
  const upstream = { ACCESS_KEY_ID: "LTAIupstream", ACCESS_KEY_SECRET: "sc-upstream" };
  const sdk = {
    ALIBABA_CLOUD_ACCESS_KEY_ID: "STS.sdk",
    ALIBABA_CLOUD_ACCESS_KEY_SECRET: "sc-sdk",
    ALIBABA_CLOUD_SECURITY_TOKEN: "sdk-token",
  };
  const now = () => fake.nowMs;
  const cases: [id: string, source: RegExp, options: Parameters<typeof chain>[1]][] = [
    ["LTAIconfig", /config/, { config, environment: { ...upstream, ...sdk } }],
    ["LTAIupstream", /^ACCESS_KEY_ID/, { environment: { ...upstream, ...sdk } }],
    ["STS.sdk", /^ALIBABA_CLOUD_/, { environment: { ...sdk, ACCESS_KEY_ID: "half a pair" } }],
    ["STS.session0", /RAM role/, { now }],
    ["STS.session0", /RAM role/, { now, config: { ramRole: "node-role" } }],
    ["STS.session0", /RAM role/, { now, environment: { ALIBABA_CLOUD_ECS_METADATA: "node-role" } }],
  ];
  for (const [id, source, options] of cases) {
    using credentials = chain(server.url, options);
    const found = await credentials.get({ signal });
    assert.equal(found.accessKeyId.reveal(), id);
    assert.match(credentials.source ?? "", source);
    if (id === "STS.sdk") assert.equal(found.securityToken?.reveal(), "sdk-token");
  }
});

Deno.test("CredentialsChain lists each source and its reason if none works", async () => {
  const fake = new FakeRole();
  fake.role = undefined;
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { environment: { ACCESS_KEY_ID: "LTAIhalf0" } });
  await assert.rejects(credentials.get({ signal }), (error) => {
    assert(error instanceof OperatorError);
    for (
      const part of [
        "backend config: it has no AccessKeyID and AccessKeySecret",
        "ACCESS_KEY_ID/ACCESS_KEY_SECRET: ACCESS_KEY_SECRET is not set",
        "ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET are not set",
        "RRSA (OIDC): ALIBABA_CLOUD_ROLE_ARN",
        "instance RAM role: this instance has no RAM role",
      ]
    ) assert(error.message.includes(part), `${part} in ${error.message}`);
    assert.doesNotMatch(error.message, /LTAIhalf0/);
    return true;
  });
});

Deno.test("CredentialsChain may be asked again where a source may work later", async () => {
  const fake = new FakeRole();
  fake.broken = true;
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { now: () => fake.nowMs });
  await assert.rejects(credentials.get({ signal }), (error) => !(error instanceof OperatorError));
  fake.broken = false;
  await credentials.get({ signal });
});

Deno.test("CredentialsChain gives valid keys at every moment of a day, and asks seldom", async () => {
  const fake = new FakeRole();
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { now: () => fake.nowMs });
  const end = fake.nowMs + 24 * HOUR;
  let outage = 0;
  for (; fake.nowMs < end; fake.nowMs += 5 * MINUTE) {
    // The service is out of order for some minutes now and then, also when keys are due.
    fake.broken = outage++ % 7 === 6;
    const { accessKeyId, expiresAt } = await credentials.get({ signal });
    assert(expiresAt! > fake.nowMs, `${accessKeyId.reveal()} has expired`);
  }
  assert(fake.sessions.length >= 4, "three renewals at least");
  const reads = server.seen.filter(({ path }) => path.endsWith("/node-role")).length;
  assert(reads < 25, `${reads} reads of the keys in a day`);
});

Deno.test("CredentialsChain shares one renewal among callers", async () => {
  const fake = new FakeRole();
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { now: () => fake.nowMs });
  await Promise.all(Array.from({ length: 20 }, () => credentials.get({ signal })));
  assert.equal(server.seen.filter(({ path }) => path.endsWith("/node-role")).length, 1);
});

Deno.test("CredentialsChain.get() ends on abort without ending the others' renewal", async () => {
  const gate = Promise.withResolvers<void>();
  const fake = new FakeRole();
  await using server = cannedServer(async (request) => {
    if (request.path.endsWith("/node-role")) await gate.promise;
    return fake.answer(request);
  });
  using credentials = chain(server.url, {
    now: () => fake.nowMs,
    metadata: new Metadata({ endpoint: server.url }),
  });
  const controller = new AbortController();
  const impatient = credentials.get(controller);
  const patient = credentials.get({ signal });
  controller.abort(new Error("going down"));
  await assert.rejects(impatient, /going down/);
  gate.resolve();
  assert.equal((await patient).accessKeyId.reveal(), "STS.session0");
});

Deno.test("CredentialsChain.invalidate() fetches others once, and knows keys that have none", async () => {
  const fake = new FakeRole();
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { now: () => fake.nowMs });
  const first = await credentials.get({ signal });
  fake.sessions.push({ id: "STS.rotated", expiresAtMs: fake.nowMs + 6 * HOUR });
  assert(credentials.invalidate(first));
  const second = await credentials.get({ signal });
  assert.equal(second.accessKeyId.reveal(), "STS.rotated");
  assert(credentials.invalidate(first), "an old refusal does not count against new keys");
  assert.equal(await credentials.get({ signal }), second);
  using fixed = chain(server.url, {
    environment: { ACCESS_KEY_ID: "LTAIfixed", ACCESS_KEY_SECRET: "sc-fixed" },
  });
  assert.equal(fixed.invalidate(await fixed.get({ signal })), false);
});

Deno.test("CredentialsChain goes on redacting what later keys have in common with old ones", async () => {
  let nowMs = Date.parse("2026-11-22T00:00:00Z");
  let session = 0;
  await using server = cannedServer(({ method }) =>
    method === "PUT" ? new Response("metadata-token-2") : json({
      AccessKeyId: "STS.kept-for-all",
      AccessKeySecret: "secret-kept-for-all",
      SecurityToken: `changing-token-${session++}`,
      Expiration: new Date(nowMs + HOUR).toISOString(),
      Code: "Success",
    })
  );
  using credentials = chain(server.url, { now: () => nowMs, config: { ramRole: "node-role" } });
  for (let renewal = 0; renewal < 4; renewal++, nowMs += 65 * MINUTE) {
    await credentials.get({ signal });
  }
  assert.equal(redact("changing-token-0"), "changing-token-0");
  assert.equal(redact("secret-kept-for-all"), "[redacted]");
  assert.equal(redact("STS.kept-for-all"), "[redacted]");
});

Deno.test("CredentialsChain forgets the secrets of keys that ended long ago", async () => {
  const fake = new FakeRole();
  await using server = cannedServer(fake.answer);
  using credentials = chain(server.url, { now: () => fake.nowMs });
  for (let n = 0; n < 4; n++, fake.nowMs += 6 * HOUR) await credentials.get({ signal });
  assert.equal(redact("token-of-STS.session0"), "token-of-STS.session0");
  assert.doesNotMatch(redact("STS.session3"), /session3/);
});

Deno.test("CredentialsChain refuses keys that lack a field, without quoting any", async () => {
  const cases: [body: unknown, field: RegExp][] = [
    [{ Code: "Failed" }, /AccessKeyId/],
    [
      { AccessKeyId: "a", AccessKeySecret: "", SecurityToken: "t", Expiration: "" },
      /AccessKeySecret/,
    ],
    [
      { AccessKeyId: "a", AccessKeySecret: "canary", SecurityToken: "t", Expiration: "soon" },
      /Expiration/,
    ],
    [
      {
        AccessKeyId: "a",
        AccessKeySecret: "canary",
        SecurityToken: "t",
        Expiration: "2026-11-23T00:00:00Z",
        Code: "Failed",
      },
      /Code/,
    ],
    [
      {
        AccessKeyId: "a",
        AccessKeySecret: "canary",
        SecurityToken: "t",
        Expiration: "2020-11-23T00:00:00Z",
        Code: "Success",
      },
      /expired already/,
    ],
    ["not JSON", /answer/],
  ];
  for (const [body, expected] of cases) {
    await using server = cannedServer(({ method, path }) =>
      method === "PUT"
        ? new Response("metadata-token")
        : path.endsWith("/")
        ? new Response("node-role")
        : json(body)
    );
    using credentials = chain(server.url);
    await assert.rejects(credentials.get({ signal }), (error) => {
      assert(error instanceof Error);
      assert.match(error.message, expected);
      assert.doesNotMatch(error.message, /canary/);
      return true;
    });
  }
});

Deno.test("CredentialsChain exchanges an OIDC token, read anew each time", async () => {
  const environment = {
    ALIBABA_CLOUD_ROLE_ARN: "acs:ram::1:role/r",
    ALIBABA_CLOUD_OIDC_PROVIDER_ARN: "acs:ram::1:oidc-provider/p",
    ALIBABA_CLOUD_OIDC_TOKEN_FILE: "/var/run/token",
  };
  let nowMs = Date.parse("2026-11-22T00:00:00Z");
  let number = 0;
  await using server = cannedServer(({ params }) =>
    json({
      RequestId: "r",
      Credentials: {
        AccessKeyId: `STS.${++number}`,
        AccessKeySecret: "sc-oidc-secret",
        SecurityToken: "oidc-session",
        Expiration: new Date(nowMs + Number(params["DurationSeconds"]) * 1000).toISOString(),
      },
    })
  );
  using credentials = chain(server.url, {
    environment,
    now: () => nowMs,
    readTextFile: (path) => Promise.resolve(`${path}-${number}\n`),
  });
  assert.equal((await credentials.get({ signal })).accessKeyId.reveal(), "STS.1");
  assert.equal(credentials.source, "RRSA (OIDC)");
  nowMs += 50 * MINUTE;
  assert.equal((await credentials.get({ signal })).accessKeyId.reveal(), "STS.2");
  assert.deepEqual(server.seen.map(({ params }) => params["OIDCToken"]), [
    "/var/run/token-0",
    "/var/run/token-1",
  ]);
  const [first] = server.seen;
  assert.equal(first?.params["Action"], "AssumeRoleWithOIDC");
  assert.equal(first?.params["Timestamp"], "2026-11-22T00:00:00Z");
  assert(!("Signature" in first!.params), "there is nothing to sign with");
});

Deno.test("CredentialsChain reports a refused OIDC token and goes on to the instance role", async () => {
  const fake = new FakeRole();
  fake.role = undefined;
  await using server = cannedServer((request) =>
    request.method === "POST"
      ? apiError("AuthenticationFail.NoPermission", "OIDCToken=canary-token is bad")
      : fake.answer(request)
  );
  using credentials = chain(server.url, {
    environment: {
      ALIBABA_CLOUD_ROLE_ARN: "acs:ram::1:role/r",
      ALIBABA_CLOUD_OIDC_PROVIDER_ARN: "acs:ram::1:oidc-provider/p",
      ALIBABA_CLOUD_OIDC_TOKEN_FILE: "/var/run/token",
    },
    readTextFile: () => Promise.resolve("canary-token"),
  });
  await assert.rejects(credentials.get({ signal }), (error) => {
    assert(error instanceof OperatorError);
    assert.match(error.message, /AssumeRoleWithOIDC.*AuthenticationFail.*instance RAM role/);
    assert.doesNotMatch(error.message, /canary-token/);
    return true;
  });
});

import assert from "node:assert/strict";
import { EXAMPLE, exampleConfig } from "./example.ts";
import { startSimulator } from "./mod.ts";
import { sign, stringToSign } from "./signature.ts";
import { isoSeconds } from "./sts_actions.ts";
import { type Body, codeOf, failureOf, TestBench } from "./testing.ts";

/** Sends parameters as they are, without any client in between. */
async function send(
  bench: TestBench,
  sent: { query?: Record<string, string>; form?: Record<string, string> },
): Promise<{ status: number; body: Body }> {
  const query = new URLSearchParams(sent.query ?? {});
  const response = await fetch(`${bench.simulator.vpcEndpoint}/?${query}`, {
    method: sent.form ? "POST" : "GET",
    ...(sent.form ? { body: new URLSearchParams(sent.form) } : {}),
  });
  return { status: response.status, body: await response.json() };
}

function signed(bench: TestBench, change: Record<string, string> = {}): Record<string, string> {
  const params: Record<string, string> = {
    Action: "DescribeVpcs",
    Version: "2016-04-28",
    Format: "JSON",
    RegionId: EXAMPLE.regionId,
    AccessKeyId: EXAMPLE.accessKeyId,
    SignatureMethod: "HMAC-SHA1",
    SignatureVersion: "1.0",
    SignatureNonce: crypto.randomUUID(),
    Timestamp: isoSeconds(bench.clock.ms),
    ...change,
  };
  const text = stringToSign("POST", new Map(Object.entries(params)));
  return { ...params, Signature: sign(text, EXAMPLE.accessKeySecret) };
}

Deno.test("the gate names the first common parameter that is missing", async () => {
  await using bench = await TestBench.start();
  for (
    const name of ["Action", "Version", "AccessKeyId", "SignatureNonce", "Timestamp", "Signature"]
  ) {
    const { [name]: _, ...form } = signed(bench);
    const { status, body } = await send(bench, { form });
    assert.deepEqual([status, body.Code], [400, `Missing${name}`]);
  }
});

Deno.test("errors have the service's members and a request id of their own", async () => {
  await using bench = await TestBench.start();
  const one = await send(bench, { query: { Action: "DescribeVpcs" } });
  const other = await send(bench, { query: { Action: "DescribeVpcs" } });
  const members = ["Code", "HostId", "Message", "Recommend", "RequestId"];
  assert.deepEqual(Object.keys(one.body).toSorted(), members);
  assert.notEqual(one.body.RequestId, other.body.RequestId);
});

Deno.test("parameters in URL and form count together, and are signed together", async () => {
  await using bench = await TestBench.start();
  const { Action, SignatureNonce, ...form } = signed(bench);
  const query = { Action: Action!, SignatureNonce: SignatureNonce! };
  const { status, body } = await send(bench, { query, form });
  assert.deepEqual([status, body.TotalCount], [200, 1]);
});

Deno.test("GET and POST of pop-core are both understood, odd characters included", async () => {
  await using bench = await TestBench.start();
  for (const method of ["GET", "POST"] as const) {
    const params = { VpcId: "vpc-main,it's (odd)*~!é+/ =&" };
    const body = await bench.vpc("DescribeVpcs", params, { method });
    assert.deepEqual(body.Vpcs.Vpc.map((vpc: Body) => vpc.VpcId), ["vpc-main"]);
  }
});

Deno.test("a wrong secret is answered with the string that the server signed", async () => {
  await using bench = await TestBench.start();
  bench.caller = { ...bench.caller, accessKeySecret: "wrong" };
  const failure = await failureOf(bench.vpc("DescribeVpcs"));
  assert.deepEqual([failure.status, failure.code], [400, "SignatureDoesNotMatch"]);
  assert.match(failure.message, /server string to sign is:POST&%2F&AccessKeyId%3D/);
});

Deno.test("unknown action, version and key are refused in the service's words", async () => {
  await using bench = await TestBench.start();
  const codes = [await codeOf(bench.vpc("NoSuchAction")), await codeOf(bench.vpc("NoSuchAction"))];
  assert.deepEqual(codes, ["InvalidApi.NotFound", "InvalidAction.NotFound"]);
  const wrongService = await send(bench, { form: signed(bench, { Version: "2014-05-26" }) });
  assert.equal(wrongService.body.Code, "InvalidVersion");
  bench.cloud.setAccessKey(EXAMPLE.accessKeyId, { active: false });
  assert.equal(await codeOf(bench.vpc("DescribeVpcs")), "InvalidAccessKeyId.Inactive");
  bench.cloud.removeAccessKey(EXAMPLE.accessKeyId);
  const failure = await failureOf(bench.vpc("DescribeVpcs"));
  assert.deepEqual([failure.status, failure.code], [404, "InvalidAccessKeyId.NotFound"]);
});

Deno.test("a changed secret is in force at once", async () => {
  await using bench = await TestBench.start();
  bench.cloud.setAccessKey(EXAMPLE.accessKeyId, { secret: "rotated" });
  assert.equal(await codeOf(bench.vpc("DescribeVpcs")), "SignatureDoesNotMatch");
  bench.caller = { ...bench.caller, accessKeySecret: "rotated" };
  assert.equal((await bench.vpc("DescribeVpcs")).TotalCount, 1);
});

Deno.test("timestamps off by more than 15 minutes, or in another form, are refused", async () => {
  await using bench = await TestBench.start();
  const at = (ms: number) => ({ Timestamp: isoSeconds(bench.clock.ms + ms) });
  for (const ms of [-14 * 60_000, 14 * 60_000]) await bench.vpc("DescribeVpcs", at(ms));
  for (const ms of [-16 * 60_000, 16 * 60_000]) {
    assert.equal(await codeOf(bench.vpc("DescribeVpcs", at(ms))), "InvalidTimeStamp.Expired");
  }
  const local = { Timestamp: "2026-01-15 12:00:00" };
  assert.equal(await codeOf(bench.vpc("DescribeVpcs", local)), "InvalidTimeStamp.Format");
});

Deno.test("a nonce works once", async () => {
  await using bench = await TestBench.start();
  const once = { SignatureNonce: "again-and-again" };
  await bench.vpc("DescribeVpcs", once);
  assert.equal(await codeOf(bench.vpc("DescribeVpcs", once)), "SignatureNonceUsed");
  bench.clock.advance(16 * 60_000);
  await bench.vpc("DescribeVpcs", once);
});

Deno.test("a role's session needs its own token, and only until it expires", async () => {
  await using bench = await TestBench.start();
  const { cloud } = bench;
  const session = cloud.credentials.openSession(EXAMPLE.roleName, 3_600_000);
  const other = cloud.credentials.openSession(EXAMPLE.roleName, 3_600_000);
  const { accessKeyId, accessKeySecret, securityToken } = session;
  const call = (token?: string) =>
    bench.vpc("DescribeVpcs", {}, {
      caller: { accessKeyId, accessKeySecret, ...(token ? { securityToken: token } : {}) },
    });
  assert.equal((await call(securityToken)).TotalCount, 1);
  assert.equal(await codeOf(call()), "MissingSecurityToken");
  assert.equal(await codeOf(call("nonsense")), "InvalidSecurityToken.Malformed");
  assert.equal(
    await codeOf(call(other.securityToken)),
    "InvalidSecurityToken.MismatchWithAccessKey",
  );
  bench.clock.advance(3_600_000);
  assert.equal(await codeOf(call(securityToken)), "InvalidSecurityToken.Expired");
});

Deno.test("a permanent key with somebody's token is refused", async () => {
  await using bench = await TestBench.start();
  const { securityToken } = bench.cloud.credentials.openSession(EXAMPLE.roleName, 3_600_000);
  bench.caller = { ...bench.caller, securityToken };
  assert.equal(
    await codeOf(bench.vpc("DescribeVpcs")),
    "InvalidSecurityToken.MismatchWithAccessKey",
  );
});

Deno.test("RAM denies per action, per key, and in either spelling", async () => {
  await using bench = await TestBench.start();
  bench.cloud.denyAction("vpc:CreateRouteEntry");
  const failure = await failureOf(bench.create("10.24.1.0/24"));
  assert.deepEqual([failure.status, failure.code], [403, "Forbidden.RAM"]);
  await bench.list();
  bench.cloud.setBehaviour({ denial: "NoPermission" });
  const detailed = await failureOf(bench.create("10.24.1.0/24"));
  assert.equal(detailed.code, "NoPermission");
  assert.equal(detailed.body.AccessDeniedDetail.AuthAction, "vpc:CreateRouteEntry");
  bench.cloud.permitAction("vpc:CreateRouteEntry");
  await bench.create("10.24.1.0/24");
  bench.cloud.setAccessKey(EXAMPLE.accessKeyId, { allow: ["vpc:Describe*"] });
  assert.equal(await codeOf(bench.create("10.24.2.0/24")), "NoPermission");
  await bench.list();
});

Deno.test("throttling counts per account and action in windows, for all callers", async () => {
  await using bench = await TestBench.start({
    behaviour: { throttle: { windowMs: 60_000, limits: { DescribeVpcs: 2 } } },
    config: {
      accessKeys: [
        { id: EXAMPLE.accessKeyId, secret: EXAMPLE.accessKeySecret },
        { id: "second", secret: "second" },
        { id: "elsewhere", secret: "elsewhere", accountId: "9999999999999999" },
      ],
    },
  });
  const as = (name: string) => ({ caller: { accessKeyId: name, accessKeySecret: name } });
  await bench.vpc("DescribeVpcs");
  await bench.vpc("DescribeVpcs", {}, as("second"));
  assert.equal(await codeOf(bench.vpc("DescribeVpcs")), "Throttling.User");
  assert.equal(await codeOf(bench.vpc("DescribeVpcs", {}, as("second"))), "Throttling.Api");
  await bench.vpc("DescribeVpcs", {}, as("elsewhere"));
  await bench.vpc("DescribeVRouters");
  bench.clock.advance(60_000);
  await bench.vpc("DescribeVpcs");
});

Deno.test("another account's and another region's resources are out of sight", async () => {
  await using bench = await TestBench.start({
    config: { accessKeys: [{ id: "stranger", secret: "s", accountId: "9999999999999999" }] },
  });
  bench.caller = { accessKeyId: "stranger", accessKeySecret: "s" };
  assert.equal((await bench.vpc("DescribeVpcs")).TotalCount, 0);
  assert.equal(await codeOf(bench.create("10.24.1.0/24")), "InvalidRouteTableId.NotFound");
  assert.equal(await codeOf(bench.list()), "InvalidRouteTable.NotFound");
});

Deno.test("RegionId is required where the service requires it, and must exist", async () => {
  await using bench = await TestBench.start();
  const { RegionId: _, ...form } = signed(bench);
  const { Signature: __, ...unsigned } = form;
  const text = stringToSign("POST", new Map(Object.entries(unsigned)));
  const Signature = sign(text, EXAMPLE.accessKeySecret);
  const { body } = await send(bench, { form: { ...unsigned, Signature } });
  assert.equal(body.Code, "MissingRegionId");
  const nowhere = bench.vpc("DescribeVpcs", { RegionId: "cn-nowhere" });
  assert.equal(await codeOf(nowhere), "InvalidRegionId.NotFound");
  const elsewhere = await bench.vpc("DescribeVpcs", { RegionId: "cn-shanghai" });
  assert.deepEqual(elsewhere.Vpcs.Vpc.map((vpc: Body) => vpc.VpcId), [EXAMPLE.otherVpcId]);
});

Deno.test("a URL above 8 kB is refused by the proxy in front", async () => {
  await using bench = await TestBench.start();
  const params = { VpcId: "x".repeat(9000) };
  const failure = await failureOf(bench.vpc("DescribeVpcs", params, { method: "GET" }));
  assert.equal(failure.code, undefined);
  await bench.vpc("DescribeVpcs", params);
});

Deno.test("AssumeRoleWithOIDC takes an unsigned call with a good token", async () => {
  await using bench = await TestBench.start();
  const token = bench.cloud.issueOidcToken({ subject: "node", lifetimeMs: 600_000 });
  const assume = async (change: Record<string, string> = {}) => {
    const params = {
      Action: "AssumeRoleWithOIDC",
      Version: "2015-04-01",
      Format: "JSON",
      Timestamp: isoSeconds(bench.clock.ms),
    };
    const form = {
      OIDCProviderArn: EXAMPLE.oidcProviderArn,
      RoleArn: EXAMPLE.roleArn,
      OIDCToken: token,
      RoleSessionName: "flanneld",
      DurationSeconds: "900",
      ...change,
    };
    const url = `${bench.simulator.stsEndpoint}/?${new URLSearchParams(params)}`;
    const response = await fetch(url, { method: "POST", body: new URLSearchParams(form) });
    return await response.json();
  };
  const { Credentials } = await assume();
  const { AccessKeyId, AccessKeySecret, SecurityToken, Expiration } = Credentials;
  assert.equal(Expiration, isoSeconds(bench.clock.ms + 900_000));
  const caller = {
    accessKeyId: AccessKeyId,
    accessKeySecret: AccessKeySecret,
    securityToken: SecurityToken,
  };
  const identity = await bench.sts("GetCallerIdentity", {}, { caller });
  assert.equal(identity.IdentityType, "AssumedRoleUser");
  assert.equal(
    (await assume({ OIDCToken: `${token}x` })).Code,
    "AuthenticationFail.OIDCToken.Invalid",
  );
  assert.equal((await assume({ RoleArn: "acs:ram::1:role/none" })).Code, "EntityNotExist.Role");
  assert.equal((await assume({ DurationSeconds: "60" })).Code, "InvalidParameter.DurationSeconds");
  bench.clock.advance(600_000);
  assert.equal((await assume()).Code, "AuthenticationFail.OIDCToken.Expired");
});

Deno.test("each request is recorded without secrets", async () => {
  await using bench = await TestBench.start();
  const session = bench.cloud.credentials.openSession(EXAMPLE.roleName, 3_600_000);
  const { accessKeyId, accessKeySecret, securityToken } = session;
  bench.caller = { accessKeyId, accessKeySecret, securityToken };
  await bench.create("10.24.1.0/24");
  await failureOf(bench.create("10.24.2.0/24"));
  await fetch(`${bench.simulator.metadataEndpoint(EXAMPLE.instanceIds[0])}/latest/meta-data/mac`)
    .then((response) => response.text());
  const [created, refused, metadata] = bench.simulator.requests;
  assert.deepEqual(
    [created!.action, created!.code, created!.performed, created!.accessKeyId, created!.status],
    ["CreateRouteEntry", "OK", true, accessKeyId, 200],
  );
  assert.equal(created!.params["DestinationCidrBlock"], "10.24.1.0/24");
  assert.deepEqual([refused!.performed, refused!.status], [false, 400]);
  assert.match(refused!.code, /Conflict|Status/);
  assert.deepEqual([metadata!.service, metadata!.action], [
    "metadata",
    "GET /latest/meta-data/mac",
  ]);
  const text = JSON.stringify(bench.simulator.requests);
  for (const secret of [accessKeySecret, securityToken]) assert.ok(!text.includes(secret));
});

Deno.test("plain HTTP can be refused, and HTTPS is spoken with a certificate", async () => {
  await using bench = await TestBench.start({ behaviour: { requireTls: true } });
  const failure = await failureOf(bench.vpc("DescribeVpcs"));
  assert.deepEqual([failure.status, failure.code], [404, "InvalidProtocol.NeedSsl"]);
  const read = (name: string) =>
    Deno.readTextFileSync(new URL(`fixtures/${name}`, import.meta.url));
  const tls = { cert: read("server.pem"), key: read("server.key") };
  await using secure = await startSimulator({ config: exampleConfig(), tls });
  using client = Deno.createHttpClient({ caCerts: [read("ca.pem")] });
  const response = await fetch(`${secure.vpcEndpoint}/?Action=DescribeVpcs`, { client });
  assert.equal((await response.json()).Code, "MissingVersion");
});

import assert from "node:assert/strict";
import { EXAMPLE } from "./example.ts";
import { TestBench } from "./testing.ts";

interface Answer {
  readonly status: number;
  readonly text: string;
}

/** Reads metadata as `instanceId`; `path` is below /latest/. */
async function read(
  bench: TestBench,
  path: string,
  options: { instanceId?: string } & RequestInit = {},
): Promise<Answer> {
  const { instanceId = EXAMPLE.instanceIds[0], ...init } = options;
  const response = await fetch(
    `${bench.simulator.metadataEndpoint(instanceId)}/latest/${path}`,
    init,
  );
  return { status: response.status, text: await response.text() };
}

function putToken(bench: TestBench, ttl: string, headers: Record<string, string> = {}) {
  return read(bench, "api/token", {
    method: "PUT",
    headers: { "X-aliyun-ecs-metadata-token-ttl-seconds": ttl, ...headers },
  });
}

const TOKEN = "X-aliyun-ecs-metadata-token";

Deno.test("every documented path has its value in its documented form", async () => {
  await using bench = await TestBench.start();
  const macPath = "network/interfaces/macs/00:16:3e:00:00:11";
  const expected: Record<string, string> = {
    "region-id": "cn-hangzhou",
    "zone-id": "cn-hangzhou-b",
    "instance-id": "i-node-1",
    "vpc-id": "vpc-main",
    "vswitch-id": "vsw-b",
    "owner-account-id": EXAMPLE.accountId,
    "vpc-cidr-block": "192.168.0.0/16",
    "vswitch-cidr-block": "192.168.1.0/24",
    mac: "00:16:3e:00:00:11",
    "private-ipv4": "192.168.1.11",
    eipv4: "47.96.1.1",
    "public-ipv4": "47.96.1.1",
    "network/interfaces/macs/": "00:16:3e:00:00:11/",
    [`${macPath}/network-interface-id`]: "eni-node-1",
    [`${macPath}/vpc-id`]: "vpc-main",
    [`${macPath}/vswitch-id`]: "vsw-b",
    [`${macPath}/primary-ip-address`]: "192.168.1.11",
    [`${macPath}/private-ipv4s`]: '["192.168.1.11"]',
    [`${macPath}/netmask`]: "255.255.255.0",
    [`${macPath}/gateway`]: "192.168.1.253",
    [`${macPath}/vswitch-cidr-block`]: "192.168.1.0/24",
    [`${macPath}/vpc-cidr-block`]: "192.168.0.0/16",
    [`${macPath}/ipv6s`]: "[2408:4005:3c5:6e01::11]",
    [`${macPath}/vpc-ipv6-cidr-blocks`]: "[2408:4005:3c5:6e00::/56]",
    [`${macPath}/vswitch-ipv6-cidr-block`]: "2408:4005:3c5:6e01::/64",
    [`${macPath}/ipv6-gateway`]: "2408:4005:3c5:6e01:ffff:ffff:ffff:fffd",
    "ram/security-credentials/": EXAMPLE.roleName,
    "Ram/security-credentials/": EXAMPLE.roleName,
  };
  for (const [path, value] of Object.entries(expected)) {
    assert.deepEqual(await read(bench, `meta-data/${path}`), { status: 200, text: value }, path);
  }
  const { text } = await read(bench, "meta-data/");
  assert.ok(text.split("\n").includes("network/") && text.split("\n").includes("vpc-id"));
});

Deno.test("what an instance does not have is not found", async () => {
  await using bench = await TestBench.start();
  const instanceId = EXAMPLE.instanceIds[1]; // no public address, no role, no IPv6 address
  for (const path of ["eipv4", "ram/security-credentials/", "no-such-item", "mac/deeper"]) {
    assert.equal((await read(bench, `meta-data/${path}`, { instanceId })).status, 404, path);
  }
});

Deno.test("delegated prefixes are listed where there are any", async () => {
  await using bench = await TestBench.start();
  bench.cloud.addInstance({
    id: "i-prefix",
    vSwitchId: "vsw-b",
    privateIp: "192.168.1.20",
    mac: "00:16:3e:00:00:20",
    ipv4Prefixes: ["192.168.1.64/28"],
    ipv6Prefixes: ["2408:4005:3c5:6e01:1::/80"],
  });
  const options = { instanceId: "i-prefix" };
  const path = "meta-data/network/interfaces/macs/00:16:3e:00:00:20";
  assert.equal((await read(bench, `${path}/ipv4-prefixes`, options)).text, "192.168.1.64/28");
  assert.equal(
    (await read(bench, `${path}/ipv6-prefixes`, options)).text,
    "2408:4005:3c5:6e01:1::/80",
  );
});

Deno.test("tokens are issued with a TTL in range, and hold until it has passed", async () => {
  await using bench = await TestBench.start();
  for (const ttl of ["0", "21601", "soon"]) assert.equal((await putToken(bench, ttl)).status, 400);
  assert.equal((await putToken(bench, "60", { "X-Forwarded-For": "10.0.0.1" })).status, 403);
  const { text: token } = await putToken(bench, "60");
  const get = (value: string, instanceId?: string) =>
    read(bench, "meta-data/mac", {
      headers: { [TOKEN]: value },
      ...(instanceId ? { instanceId } : {}),
    });
  assert.equal((await get(token)).status, 200);
  assert.equal((await get(`${token}x`)).status, 401);
  assert.equal((await get(token, EXAMPLE.instanceIds[1])).status, 401, "another instance's");
  bench.clock.advance(60_000);
  assert.equal((await get(token)).status, 401);
});

Deno.test("a hardened instance answers only with a token", async () => {
  await using bench = await TestBench.start();
  bench.cloud.setInstance(EXAMPLE.instanceIds[0], { httpTokens: "required" });
  assert.equal((await read(bench, "meta-data/mac")).status, 403);
  const { text: token } = await putToken(bench, "21600");
  const { status } = await read(bench, "meta-data/mac", { headers: { [TOKEN]: token } });
  assert.equal(status, 200);
});

Deno.test("bursts are limited per instance", async () => {
  await using bench = await TestBench.start({ behaviour: { metadata: { burst: 2 } } });
  const status = async (instanceId?: string) =>
    (await read(bench, "meta-data/mac", instanceId ? { instanceId } : {})).status;
  assert.deepEqual([await status(), await status(), await status()], [200, 200, 429]);
  assert.equal(await status(EXAMPLE.instanceIds[1]), 200);
  bench.clock.advance(1000);
  assert.equal(await status(), 200);
});

Deno.test("a role's credentials work, and are renewed shortly before they expire", async () => {
  await using bench = await TestBench.start();
  bench.cloud.setRole(EXAMPLE.roleName, { lifetimeMs: 3_600_000, renewBeforeMs: 600_000 });
  const credentials = async () => {
    const path = `meta-data/ram/security-credentials/${EXAMPLE.roleName}`;
    return JSON.parse((await read(bench, path)).text);
  };
  const first = await credentials();
  assert.equal(first.Code, "Success");
  assert.equal(Date.parse(first.Expiration) - Date.parse(first.LastUpdated), 3_600_000);
  const caller = {
    accessKeyId: first.AccessKeyId,
    accessKeySecret: first.AccessKeySecret,
    securityToken: first.SecurityToken,
  };
  await bench.vpc("DescribeVpcs", {}, { caller });
  bench.clock.advance(2_900_000);
  assert.equal((await credentials()).AccessKeyId, first.AccessKeyId);
  bench.clock.advance(200_000);
  const second = await credentials();
  assert.notEqual(second.AccessKeyId, first.AccessKeyId);
  await bench.vpc("DescribeVpcs", {}, { caller });
  bench.cloud.rotateRole(EXAMPLE.roleName, { revoke: true });
  assert.notEqual((await credentials()).AccessKeyId, second.AccessKeyId);
  await assert.rejects(bench.vpc("DescribeVpcs", {}, { caller }), {
    code: "InvalidSecurityToken.Expired",
  });
});

Deno.test("unreachable means that no answer comes, not that the connection is refused", async () => {
  await using bench = await TestBench.start({ behaviour: { metadata: { reachable: false } } });
  const signal = AbortSignal.timeout(150);
  await assert.rejects(read(bench, "meta-data/mac", { signal }), { name: "TimeoutError" });
});

Deno.test("faults befall metadata requests, too", async () => {
  await using bench = await TestBench.start();
  bench.cloud.addFault({
    match: { service: "metadata", action: "GET */instance-id" },
    times: 1,
    effect: { kind: "html", status: 503 },
  });
  assert.equal((await read(bench, "meta-data/mac")).status, 200);
  assert.equal((await read(bench, "meta-data/instance-id")).status, 503);
  assert.equal((await read(bench, "meta-data/instance-id")).status, 200);
});

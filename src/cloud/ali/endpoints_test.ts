import assert from "node:assert/strict";
import { OperatorError } from "../../errors.ts";
import { chooseEndpoint, endpointHosts, normalizeEndpoint } from "./endpoints.ts";

Deno.test("endpointHosts() prefers the name inside the VPC and knows odd public ones", () => {
  assert.deepEqual(endpointHosts("vpc", "cn-beijing"), [
    "vpc-vpc.cn-beijing.aliyuncs.com",
    "vpc.cn-beijing.aliyuncs.com",
  ]);
  assert.equal(endpointHosts("vpc", "cn-hangzhou")[1], "vpc.aliyuncs.com");
  assert.equal(endpointHosts("ecs", "cn-hangzhou")[1], "ecs-cn-hangzhou.aliyuncs.com");
  assert.equal(endpointHosts("sts", "cn-hangzhou")[1], "sts.cn-hangzhou.aliyuncs.com");
});

Deno.test("chooseEndpoint() takes the public name where the other is unknown", async () => {
  const asked: string[] = [];
  const known = (names: readonly string[]) => (host: string) => {
    asked.push(host);
    return names.includes(host) ? Promise.resolve() : Promise.reject(new Error("ENOTFOUND"));
  };
  const inside = "ecs-vpc.cn-x.aliyuncs.com";
  const outside = "ecs.cn-x.aliyuncs.com";
  const choose = (resolved: readonly string[], connected: readonly string[]) =>
    chooseEndpoint("ecs", "cn-x", { resolve: known(resolved), connect: known(connected) });
  assert.equal(await choose([inside], [inside, outside]), `https://${inside}`);
  assert.equal(await choose([], [outside]), `https://${outside}`);
  assert.deepEqual(asked.splice(0), [inside, inside, inside]);
  // Its address is known, and something on the way has it for another network's.
  assert.equal(await choose([inside], [outside]), `https://${outside}`);
  assert.deepEqual(asked.splice(0), [inside, inside, outside]);
  assert.equal(await choose([inside], []), `https://${inside}`, "then time may mend it");
});

Deno.test("normalizeEndpoint() adds the scheme and drops the trailing slash", () => {
  assert.equal(normalizeEndpoint("vpc.example.com"), "https://vpc.example.com");
  assert.equal(normalizeEndpoint("127.0.0.1:8080/"), "https://127.0.0.1:8080");
  assert.equal(normalizeEndpoint("100.100.100.200", "http"), "http://100.100.100.200");
  assert.equal(normalizeEndpoint("http://[fd00::1]:80/api/"), "http://[fd00::1]/api");
  for (
    const bad of ["", "ftp://x", "https://user:pass@x", "https://x/?a=b", "https://x/#y", "a b"]
  ) {
    assert.throws(() => normalizeEndpoint(bad), OperatorError, bad);
  }
});

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  likelyConfigKeys,
  looksLikeConfig,
  mayHoldConfig,
  nearestConfigs,
  prefixOfConfig,
} from "./missing_config.ts";
import { configKey } from "./options.ts";

const PREFIX = "/coreos.com/network";

Deno.test("likelyConfigKeys() names the usual slips, and not the key that was asked for", () => {
  const keys = likelyConfigKeys(PREFIX);
  for (const slip of ["coreos.com/network/config", "/coreos.com/network", "/coreos.com/network/"]) {
    assert(keys.includes(slip), slip);
  }
  assert(!keys.includes(configKey(PREFIX)));
  assert(likelyConfigKeys("/other").includes(configKey(PREFIX)));
  assert(likelyConfigKeys("coreos.com/network").includes(configKey(PREFIX)));
  assert(!likelyConfigKeys("/").includes(""));
});

Deno.test("mayHoldConfig() takes configs and the prefix in any case, and no odd names", () => {
  for (
    const key of ["/net/config", "config", "/Coreos.com/Network/Config", "/COREOS.com//network"]
  ) {
    assert(mayHoldConfig(key, PREFIX), key);
  }
  for (
    const key of [
      "/coreos.com/network/config",
      "/coreos.com/network/subnets/10.0.0.0-24",
      "/x/myconfig",
      "/x\n/config",
      `/${"x".repeat(300)}/config`,
    ]
  ) {
    assert(!mayHoldConfig(key, PREFIX), key);
  }
});

Deno.test("nearestConfigs() puts slips of the same prefix first, and names a few", () => {
  assert.deepEqual(
    nearestConfigs(["/a/config", "/b/config", "/c/config", "coreos.com/network"], PREFIX),
    ["coreos.com/network", "/a/config", "/b/config"],
  );
});

Deno.test("looksLikeConfig() knows a network config from others", () => {
  assert(looksLikeConfig('{"Network":"10.0.0.0/8"}'));
  assert(looksLikeConfig('{ "network" : "10.0.0.0/8", }'));
  assert(looksLikeConfig('{"EnableIPv4":false,"IPv6Network":"fc00::/48"}'));
  assert(!looksLikeConfig("Network=x"));
});

Deno.test("prefixOfConfig() is the prefix whose config the key is", () => {
  const cases = [
    ["/config", "/"],
    ["config", undefined], // no prefix but an empty one, which cannot be given, leads there
    ["coreos.com/network/config", "coreos.com/network"],
    ["/a//config", undefined],
    ["/a/Config", undefined],
    ["/a", undefined],
  ] as const;
  for (const [key, prefix] of cases) assert.equal(prefixOfConfig(key), prefix, key);
  fc.assert(fc.property(fc.array(fc.stringMatching(/^[a-z.]{1,3}$/), { minLength: 1 }), (parts) => {
    const key = configKey(`/${parts.join("/")}`);
    assert.equal(configKey(prefixOfConfig(key)!), key);
  }));
});

import assert from "node:assert/strict";
import { ConfigError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Secret } from "../../secret.ts";
import { configKey, type EtcdOptions, parseEtcdOptions, subnetsPrefix } from "./options.ts";

const log = {} as Logger; // not used by what is tested here

function parse(options: Partial<EtcdOptions>) {
  return parseEtcdOptions({ endpoints: ["http://127.0.0.1:2379"], log, ...options });
}

function faults(options: Partial<EtcdOptions>): readonly string[] {
  try {
    parse(options);
  } catch (error) {
    if (error instanceof ConfigError) return error.faults;
    throw error;
  }
  return [];
}

Deno.test("keys are those of upstream, whatever slashes the prefix has", () => {
  for (const prefix of ["/coreos.com/network", "/coreos.com/network/", "//coreos.com/network"]) {
    assert.equal(configKey(prefix), "/coreos.com/network/config");
    assert.equal(subnetsPrefix(prefix), "/coreos.com/network/subnets/");
  }
  assert.equal(configKey("net"), "net/config");
  assert.equal(configKey(""), "config");
  assert.equal(configKey("/"), "/config");
  assert.equal(subnetsPrefix("/"), "/subnets/");
  assert.equal(configKey("coreos.com/network/"), "coreos.com/network/config");
  assert.equal(configKey("//a/./b/../c//"), "/a/c/config");
});

Deno.test("parseEtcdOptions() takes endpoints as upstream's users write them", () => {
  const { endpoints } = parse({
    endpoints: ["http://127.0.0.1:4001", " https://Etcd.example:2379/", "10.0.0.5", "[::1]:2379"],
  });
  assert.deepEqual(endpoints.map(({ url }) => url), [
    "http://127.0.0.1:4001",
    "https://etcd.example:2379",
    "http://10.0.0.5:2379",
    "http://[::1]:2379",
  ]);
  assert.equal(parse({ endpoints: ["http://a:1", "http://a:1/"] }).endpoints.length, 1);
});

Deno.test("parseEtcdOptions() refuses what it cannot use, and shows no password", () => {
  assert.deepEqual(faults({ endpoints: [] }), ["no endpoint is given"]);
  for (
    const endpoint of [
      "",
      "ftp://a",
      "unixs:///run/etcd",
      "http://a:0",
      "http://a:65536",
      "http://[::1",
      "http://a b",
      "http://",
    ]
  ) {
    assert.equal(faults({ endpoints: [endpoint] }).length, 1, endpoint);
  }
  const [fault] = faults({ endpoints: ["http://me:s3cret@a:2379"] });
  assert.match(fault!, /^endpoint 1 cannot be used: it must hold no user and password/);
  assert(!fault!.includes("s3cret"));
  assert.deepEqual(faults({ certFile: "c" }), ["a client certificate is given without its key"]);
  assert.deepEqual(faults({ keyFile: "k" }), ["a client key is given without its certificate"]);
  assert.deepEqual(faults({ username: "u" }), ["a user name is given without a password"]);
  assert.equal(faults({ password: new Secret("s3cret") }).length, 1);
  assert.equal(faults({ endpoints: [], certFile: "c", username: "u" }).length, 3);
});

Deno.test("parseEtcdOptions() takes empty options for absent ones", () => {
  const settings = parse({ caFile: "", certFile: "", keyFile: "", username: "" });
  assert.deepEqual(settings.tls, {});
  assert.equal(settings.credentials, undefined);
  assert.deepEqual(settings.warnings, []);
});

Deno.test("parseEtcdOptions() warns of TLS files that are not used", () => {
  assert.equal(parse({ caFile: "ca.pem" }).warnings.length, 1);
  assert.deepEqual(parse({ endpoints: ["https://a:1"], caFile: "ca.pem" }).warnings, []);
});

Deno.test("parseEtcdOptions() warns of a password that is sent in clear text", () => {
  const credentials = { username: "u", password: new Secret("s3cret") };
  const warnings = (...endpoints: string[]) => parse({ endpoints, ...credentials }).warnings;
  assert.deepEqual(warnings("https://a:1", "http://b:2", "c:3", "http://127.0.0.1:1"), [
    "The etcd password is sent in clear text to http://b:2, http://c:3: use https there",
  ]);
  assert.equal(warnings("http://a:1").length, 1);
  assert.deepEqual(warnings("https://a:1"), []);
  assert.deepEqual(warnings("http://127.0.0.1:1", "http://localhost:1", "http://[::1]:1"), []);
  assert.deepEqual(parse({ endpoints: ["http://a:1"] }).warnings, []);
});

import assert from "node:assert/strict";
import { ConfigError } from "../errors.ts";
import { FieldReader, MTU_BYTES, PORT, VNI } from "./fields.ts";

function reader(object: Record<string, unknown>): FieldReader {
  return new FieldReader(object, { subject: "Backend" });
}

function faultsOf(read: (fields: FieldReader) => void, object: Record<string, unknown>) {
  const fields = reader(object);
  read(fields);
  try {
    fields.finish();
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.faults;
  }
  return [];
}

Deno.test("FieldReader matches names without case, and the last of several counts", () => {
  const fields = reader({ port: 1, PORT: 2, "\u017ftate": "x", vni: null });
  assert.equal(fields.integer("Port", PORT), 2);
  assert.equal(fields.string("State"), "x");
  assert.equal(fields.integer("VNI", VNI), undefined);
  assert.equal(fields.has("VNI"), true);
  assert.deepEqual(fields.finish(), ["Backend.port is given again as PORT, which counts"]);
});

Deno.test("FieldReader takes null, the empty string, and 0 where it says so, for absent", () => {
  const fields = reader({ A: null, B: " \r", C: "", D: null, E: 0, F: 0, G: -0, e: null });
  assert.equal(fields.integer("E", PORT), undefined);
  assert.equal(fields.integer("F", MTU_BYTES), undefined);
  assert.equal(fields.integer("G", PORT), undefined);
  assert.equal(fields.boolean("A"), undefined);
  assert.equal(fields.string("B"), undefined);
  assert.equal(fields.stringList("C"), undefined);
  assert.equal(fields.address("D"), undefined);
  assert.deepEqual(fields.finish(), []);
});

Deno.test("FieldReader reports every fault together and quotes no text", () => {
  const faults = faultsOf((fields) => {
    assert.equal(fields.string("Type"), undefined);
    assert.equal(fields.boolean("Learning"), undefined);
    assert.equal(fields.integer("Port", PORT), undefined);
    assert.equal(fields.integer("MTU", MTU_BYTES), undefined);
    assert.equal(fields.stringList("RouteTableID"), undefined);
    assert.equal(fields.choice("Check", ["disable", "ignore"]), undefined);
    assert.equal(fields.address("Gateway", { family: 4 }), undefined);
    assert.equal(fields.prefix("Network", { family: 6 }), undefined);
  }, {
    Type: 7,
    Learning: "canary-secret",
    Port: 65_536,
    MTU: "canary-secret",
    RouteTableID: ["vtb-1", 2],
    Check: "canary-secret",
    Gateway: "fd00::1",
    Network: "canary-secret",
  });
  assert.deepEqual(faults, [
    "Backend.Type must be a string, not 7",
    "Backend.Learning must be true or false, not a string",
    "Backend.Port must be a whole number from 1 to 65535, not 65536",
    "Backend.MTU must be a whole number from 576 to 65535, not a string",
    "Backend.RouteTableID must be a string or a list of strings, without 2",
    "Backend.Check must be one of: disable, ignore",
    "Backend.Gateway must be an IPv4 address",
    "Backend.Network must be an IPv6 network such as fd00:10::/56",
  ]);
});

Deno.test("FieldReader.integer() takes whole numbers within its bounds only", () => {
  const bounds = { min: 1, max: 10 };
  for (const value of [1, 10, 5]) {
    assert.equal(reader({ N: value }).integer("N", bounds), value);
  }
  for (const value of [0, 11, -1, 1.5, 1e300, NaN, "5", true, [5], {}]) {
    assert.equal(faultsOf((fields) => fields.integer("N", bounds), { N: value }).length, 1);
  }
});

Deno.test("FieldReader lets null change nothing, and drops blanks around a text", () => {
  const fields = reader({ Port: 7, port: null, vni: null, VNI: 9, Type: " vxlan\r" });
  assert.equal(fields.integer("Port", PORT), 7);
  assert.equal(fields.integer("VNI", VNI), 9);
  assert.equal(fields.string("Type"), "vxlan");
  assert.deepEqual(fields.finish(), []);
});

Deno.test("FieldReader names what in a wrong value looks right", () => {
  const faults = faultsOf((fields) => {
    fields.prefix("Network", { family: 4 });
    fields.address("Gateway");
    fields.integer("Port", PORT);
    fields.boolean("GBP");
  }, {
    Network: "10.3.0.0\u20130/16",
    Gateway: "\u201c10.0.0.1\u201d",
    Port: "8472",
    GBP: "true",
  });
  assert.deepEqual(faults, [
    "Backend.Network must be an IPv4 network such as 10.3.0.0/16; it holds U+2013 –, a dash",
    "Backend.Gateway must be an IP address; it holds U+201C “, a curly quote",
    "Backend.Port must be a whole number from 1 to 65535, not a string; leave out its quotes",
    "Backend.GBP must be true or false, not a string; leave out its quotes",
  ]);
  const fields = reader({ "Type\u00a0": "x", "T\u0443pe": "x" });
  fields.string("Type");
  assert.deepEqual(fields.finish(), [
    'Backend."Type\\u{a0}" is not known and has no effect; did you mean Type?',
    'Backend."T\u0443pe" is not known and has no effect; did you mean Type?',
  ]);
});

Deno.test("FieldReader.stringList() takes one text or a list of texts", () => {
  assert.deepEqual(reader({ L: "a" }).stringList("L"), ["a"]);
  assert.deepEqual(reader({ L: ["a", "b"] }).stringList("L"), ["a", "b"]);
  for (const value of [[], [""], ["a", null], {}, 1, [["a"]]]) {
    assert.equal(faultsOf((fields) => fields.stringList("L"), { L: value }).length, 1);
  }
});

Deno.test("FieldReader.secret() cannot be printed", () => {
  const secret = reader({ accesskeysecret: "canary-secret" }).secret("AccessKeySecret");
  assert.equal(secret?.reveal(), "canary-secret");
  assert.equal(JSON.stringify({ secret }), '{"secret":"[redacted]"}');
  const faults = faultsOf((fields) => fields.secret("Key"), { Key: "x".repeat(1_000_000) });
  assert.deepEqual(faults, ["Backend.Key must not have more than 16384 characters"]);
});

Deno.test("FieldReader.finish() warns of members that nothing asked for", () => {
  const fields = reader({ Type: "vxlan", Prot: 8472, Colour: "red", "a\nb": 1 });
  fields.string("Type");
  fields.integer("Port", PORT);
  assert.deepEqual(fields.finish(), [
    "Backend.Prot is not known and has no effect; did you mean Port?",
    "Backend.Colour is not known and has no effect",
    'Backend."a\\nb" is not known and has no effect',
  ]);
});

Deno.test("FieldReader with an empty path names members alone", () => {
  const fields = new FieldReader({ SubnetLen: "x" }, { subject: "network config", path: "" });
  fields.integer("SubnetLen", { min: 0, max: 30 });
  assert.throws(() => fields.finish(), {
    name: "ConfigError",
    message: "Cannot use network config: " +
      "SubnetLen must be a whole number from 0 to 30, not a string",
  });
});

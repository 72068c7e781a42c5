import assert from "node:assert/strict";
import fc from "fast-check";
import { Address } from "../net/mod.ts";
import { encodeLeaseKey, encodeLeaseValue, parseLeaseKey, parseLeaseValue } from "./codec.ts";

Deno.test("parseLeaseKey() reads v4, dual-stack and v6-only keys", () => {
  for (const key of ["10.3.4.0-24", "10.3.4.0-24&fd00:1::-64", "0.0.0.0-0&fd00:1:0:4::-64"]) {
    assert.equal(encodeLeaseKey(parseLeaseKey(key)), key);
  }
  assert.equal(parseLeaseKey("0.0.0.0-0&fd00:1::-64").ipv4, undefined);
});

Deno.test("parseLeaseKey() refuses junk, upstream's invalid cases included", () => {
  const bad = ["", "10.3.4.0", "10.3.4.0-", "10.3.300.0-24", "10.3.4.0-24x", "x10.3.4.0-24"];
  const worse = ["10.3.4.1-24", "10.3.4.0-32", "10.3.4.0-33", "0.0.0.0-0", "&fd00::-64"];
  const v6 = [
    "10.3.4.0-24&",
    "10.3.4.0-24&fd00::",
    "10.3.4.0-24&fd00:::-64",
    "10.3.4.0-24&FD00::-64",
  ];
  const notCanonical = ["10.3.4.0-24&fd00:0:0::-64", "10.3.4.0-024", "010.3.4.0-24", "a/b", "\n"];
  for (const key of [...bad, ...worse, ...v6, ...notCanonical, "10.3.4.0-24&fd00::-128"]) {
    assert.throws(() => parseLeaseKey(key), SyntaxError, key);
  }
});

Deno.test("parseLeaseKey() never throws anything else, and only accepts canonical keys", () => {
  fc.assert(fc.property(fc.string(), (text) => {
    try {
      assert.equal(encodeLeaseKey(parseLeaseKey(text)), text);
    } catch (error) {
      assert.ok(error instanceof SyntaxError);
    }
  }));
});

Deno.test("encodeLeaseValue() writes upstream's bytes", () => {
  assert.equal(
    encodeLeaseValue({ publicIp: Address.parse("1.2.3.4"), backendType: "" }),
    '{"PublicIP":"1.2.3.4","PublicIPv6":null}',
  );
  assert.equal(
    encodeLeaseValue({
      publicIp: Address.parse("192.168.64.3"),
      backendType: "vxlan",
      backendData: { VNI: 1, VtepMAC: "c6:d2:32:6f:8f:44" },
    }),
    '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",' +
      '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
  );
  assert.equal(
    encodeLeaseValue({ publicIpv6: Address.parse("FD00::0001"), backendType: "host-gw" }),
    '{"PublicIP":"0.0.0.0","PublicIPv6":"fd00::1","BackendType":"host-gw"}',
  );
});

Deno.test("parseLeaseValue() accepts any key case, missing and unknown members", () => {
  assert.deepEqual(parseLeaseValue(' {"publicip":"1.2.3.4","Extra":[1],"BackendType":"udp"} '), {
    publicIp: Address.parse("1.2.3.4"),
    backendType: "udp",
  });
  assert.deepEqual(parseLeaseValue("{}"), { backendType: "" });
  const value =
    '{"PublicIP":"1.2.3.4","PublicIPv6":null,"BackendType":"x","BackendData":[{"a":1}]}';
  assert.equal(encodeLeaseValue(parseLeaseValue(value)), value);
});

Deno.test("parseLeaseValue() refuses what is no lease", () => {
  const bad = ["", "null", "[]", "7", '"x"', "{", '{"PublicIP":null}', '{"PublicIP":""}'];
  const addresses = ["fd00::1", "224.0.0.5", "127.0.0.1", "10.0.0.0/8", "1.2.3"];
  const v6 = ["1.2.3.4", "::ffff:1.2.3.4", "ff02::1", "::1", ""];
  for (
    const text of [
      ...bad,
      ...addresses.map((ip) => JSON.stringify({ PublicIP: ip })),
      ...v6.map((ip) => JSON.stringify({ PublicIP: "1.2.3.4", PublicIPv6: ip })),
      '{"PublicIP":{"$ne":1}}',
      '{"BackendType":7}',
    ]
  ) assert.throws(() => parseLeaseValue(text), SyntaxError, text);
});

Deno.test("parseLeaseValue() keeps control characters out of its messages", () => {
  assert.throws(
    () => parseLeaseValue(JSON.stringify({ PublicIP: "\u001b[31m\nlevel=error fake" })),
    // deno-lint-ignore no-control-regex -- control characters are what this is about
    (error: Error) => !/[\u001b\n]/.test(error.message),
  );
});

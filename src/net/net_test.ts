import assert from "node:assert/strict";
import fc from "fast-check";
import ipaddr from "ipaddr.js";
import { Address, InterfaceAddress, MacAddress, Prefix } from "./mod.ts";

const octet = fc.integer({ min: 0, max: 255 });
const addresses = fc.oneof(
  fc.array(octet, { minLength: 4, maxLength: 4 }),
  fc.array(octet, { minLength: 16, maxLength: 16 }),
).map((bytes) => Address.fromBytes(Uint8Array.from(bytes)));
const prefixes = fc.tuple(addresses, fc.nat(128)).map(([address, length]) =>
  new Prefix(address, Math.min(length, address.family === 4 ? 32 : 128))
);

Deno.test("Address round-trips through text and bytes", () => {
  fc.assert(fc.property(addresses, (address) => {
    assert.ok(Address.parse(String(address)).equals(address));
    assert.ok(Address.fromBytes(address.toBytes()).equals(address));
  }));
});

Deno.test("Address has one map key for each value", () => {
  fc.assert(fc.property(addresses, addresses, (a, b) => {
    assert.equal(Address.fromBytes(a.toBytes()).mapKey, a.mapKey);
    assert.equal(a.mapKey === b.mapKey, a.equals(b));
  }));
  assert.notEqual(Address.parse("0.0.0.1").mapKey, Address.parse("::1").mapKey);
});

Deno.test("Address.parse() refuses what is no plain address", () => {
  const bad = [
    "",
    "1.2.3",
    "1.2.3.4.5",
    "256.1.1.1",
    "0x7f.1.1.1",
    "01.2.3.4",
    "1...2",
    "::1%eth0",
  ];
  for (const text of [...bad, "1.2.3.4/24", " 1.2.3.4", "fe80", ":::", "12345::", "1e1.1.1.1"]) {
    assert.throws(() => Address.parse(text), SyntaxError, text);
  }
});

Deno.test("Address prints canonical text", () => {
  for (
    const [text, canonical] of [
      ["FD00:0:0:0:0:0:0:1", "fd00::1"],
      ["2001:db8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["1:0:0:2:0:0:0:3", "1:0:0:2::3"],
      ["1:0:2:0:3:0:4:0", "1:0:2:0:3:0:4:0"],
      ["0::0", "::"],
      ["1::", "1::"],
      ["10.3.0.255", "10.3.0.255"],
    ] as const
  ) assert.equal(String(Address.parse(text)), canonical);
});

Deno.test("Address reads and prints IPv6 as a slower parser does", () => {
  const group = fc.oneof(fc.constant(0), fc.nat(15), fc.nat(0xffff));
  fc.assert(fc.property(fc.array(group, { minLength: 8, maxLength: 8 }), (groups) => {
    const reference = new ipaddr.IPv6(groups);
    const address = Address.fromBytes(Uint8Array.from(reference.toByteArray()));
    assert.equal(String(address), reference.toRFC5952String());
    for (const text of [reference.toNormalizedString(), `${reference}`.toUpperCase()]) {
      assert.ok(Address.parse(text).equals(address), text);
    }
  }));
});

Deno.test("Address classifies special ranges", () => {
  const is = (text: string) => Address.parse(text);
  assert.ok(is("224.0.0.1").isMulticast() && is("ff02::1").isMulticast());
  assert.ok(is("127.9.9.9").isLoopback() && is("::1").isLoopback());
  assert.ok(is("169.254.1.1").isLinkLocal() && is("febf::1").isLinkLocal());
  assert.ok(is("::ffff:1.2.3.4").isIpv4Mapped() && !is("1.2.3.4").isIpv4Mapped());
  assert.ok(!is("10.0.0.1").isMulticast() && !is("fec0::1").isLinkLocal());
});

Deno.test("Prefix drops host bits and knows its bounds", () => {
  const prefix = Prefix.parse("10.3.4.77/23");
  assert.equal(String(prefix), "10.3.4.0/23");
  assert.equal(String(prefix.last), "10.3.5.255");
  assert.equal(prefix.size, 512n);
  assert.equal(String(Prefix.parse("0.0.0.0/0").last), "255.255.255.255");
  for (const text of ["10.0.0.0", "10.0.0.0/33", "10.0.0.0/-1", "10.0.0.0/", "::/129", "x/8"]) {
    assert.throws(() => Prefix.parse(text), SyntaxError, text);
  }
});

Deno.test("Prefix.contains() and overlaps() agree with comparing bounds", () => {
  fc.assert(fc.property(prefixes, prefixes, (a, b) => {
    const same = a.family === b.family;
    const first = (p: Prefix) => p.address.value;
    const inside = same && first(b) >= first(a) && b.last.value <= a.last.value;
    const touching = same && first(a) <= b.last.value && first(b) <= a.last.value;
    assert.equal(a.contains(b), inside);
    assert.equal(a.overlaps(b), touching);
    assert.ok(a.contains(a.address) && a.contains(a.last));
  }));
});

Deno.test("InterfaceAddress keeps its host bits", () => {
  const address = InterfaceAddress.parse("10.24.7.1/24");
  assert.equal(String(address), "10.24.7.1/24");
  assert.equal(String(address.prefix), "10.24.7.0/24");
});

Deno.test("MacAddress reads both notations and prints one", () => {
  assert.equal(String(MacAddress.parse("AA-BB-cc-00-11-22")), "aa:bb:cc:00:11:22");
  const bytes = Uint8Array.of(0, 1, 2, 253, 254, 255);
  assert.deepEqual(MacAddress.fromBytes(bytes).toBytes(), bytes);
  const unicast = (text: string) => MacAddress.parse(text).isUnicast();
  assert.ok(unicast("02:00:00:00:00:01") && unicast("fe:ff:ff:ff:ff:ff"));
  assert.ok(!unicast("01:00:5e:00:00:01") && !unicast("00:00:00:00:00:00"));
  assert.ok(!unicast("ff:ff:ff:ff:ff:ff"));
  for (const text of ["", "aa:bb:cc:dd:ee", "aa:bb:cc:dd:ee:ff:00", "aa:bb-cc:dd:ee:ff", "g"]) {
    assert.throws(() => MacAddress.parse(text), SyntaxError, text);
  }
});

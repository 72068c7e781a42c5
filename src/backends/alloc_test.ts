import assert from "node:assert/strict";
import { Address } from "../net/mod.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import { alloc } from "./alloc.ts";

Deno.test("alloc.parseConfig() has no keys and warns of any", () => {
  assert.deepEqual(alloc.parseConfig({ type: "alloc" }), { config: {}, warnings: [] });
  assert.equal(alloc.parseConfig({ Type: "alloc", Port: 8472 }).warnings.length, 1);
});

Deno.test("alloc publishes what upstream does, and programs nothing", () => {
  const link = { link: "eth0", mtuBytes: 1500 };
  const publicIp = Address.parse("10.0.1.10");
  const publicIpv6 = Address.parse("fd00:10:0:1::a");
  const publish = (addresses: object) =>
    encodeLeaseValue(alloc.announce({}, { ...link, ...addresses }, undefined));
  // As v0.28.9 writes it, with IPv4 and with both families.
  const upstream = '{"PublicIP":"10.0.1.10","PublicIPv6":null}';
  assert.equal(publish({ publicIp }), upstream);
  assert.equal(publish({ publicIp, publicIpv6 }), upstream);
  // Upstream cannot do without IPv4.
  assert.equal(
    publish({ publicIpv6 }),
    '{"PublicIP":"0.0.0.0","PublicIPv6":"fd00:10:0:1::a"}',
  );
  assert.equal(alloc.overheadBytes({}), 0);
});

import assert from "node:assert/strict";
import fc from "fast-check";
import type { FamilyConfig } from "../config/network_config.ts";
import { Address, Prefix } from "../net/mod.ts";
import { chooseSubnet, fitsConfig, freeSubnets, rangeUse } from "./allocate.ts";
import type { LeaseSubnet } from "./lease.ts";

function family(network: string, length: number, min: string, max: string): FamilyConfig {
  return {
    network: Prefix.parse(network),
    subnetLength: length,
    subnetMin: Address.parse(min),
    subnetMax: Address.parse(max),
  };
}

const small = family("10.3.0.0/22", 26, "10.3.0.64", "10.3.3.192");

/** The obvious way: try each base against each lease. */
function slowFree(config: FamilyConfig, taken: readonly Prefix[]): string[] {
  const free: string[] = [];
  const bits = config.network.family === 4 ? 32 : 128;
  const step = 1n << BigInt(bits - config.subnetLength);
  for (let base = config.subnetMin.value; base <= config.subnetMax.value; base += step) {
    const subnet = new Prefix(new Address(config.network.family, base), config.subnetLength);
    if (!taken.some((other) => other.overlaps(subnet))) free.push(String(subnet));
  }
  return free;
}

Deno.test("freeSubnets() and rangeUse() agree with trying every subnet", () => {
  const taken = fc.array(
    fc.tuple(fc.integer({ min: 0, max: 2047 }), fc.integer({ min: 20, max: 32 })).map(
      ([offset, length]) => new Prefix(Address.parse("10.3.0.0").add(BigInt(offset)), length),
    ),
    { maxLength: 12 },
  );
  fc.assert(fc.property(taken, (prefixes) => {
    const expected = slowFree(small, prefixes);
    assert.deepEqual(freeSubnets(small, prefixes, 1000).map(String), expected);
    const use = rangeUse(small, prefixes);
    assert.equal(use.total - use.used, BigInt(expected.length));
  }));
});

Deno.test("freeSubnets() ends at the end of the address space", () => {
  const top = family("255.255.255.0/24", 26, "255.255.255.0", "255.255.255.192");
  assert.deepEqual(freeSubnets(top, []).map(String), slowFree(top, []));
  const topV6 = family(
    "ffff:ffff:ffff:fff0::/60",
    64,
    "ffff:ffff:ffff:fff1::",
    "ffff:ffff:ffff:ffff::",
  );
  assert.equal(freeSubnets(topV6, []).length, 15);
});

Deno.test("chooseSubnet() draws from the first hundred, both families, none left is undefined", () => {
  const ipv4 = family("10.3.0.0/16", 24, "10.3.1.0", "10.3.255.0");
  const ipv6 = family("fd00:1::/56", 64, "fd00:1:0:1::", "fd00:1:0:ff::");
  const first = chooseSubnet({ ipv4, ipv6 }, [], () => 0);
  assert.deepEqual([String(first?.ipv4), String(first?.ipv6)], ["10.3.1.0/24", "fd00:1:0:1::/64"]);
  const last = chooseSubnet({ ipv4 }, [], () => 0.999999);
  assert.equal(String(last?.ipv4), "10.3.100.0/24");
  assert.equal(chooseSubnet({ ipv4 }, [{ ipv4: Prefix.parse("10.0.0.0/8") }], () => 0), undefined);
});

Deno.test("chooseSubnet() gives no two hosts one subnet under two keys", () => {
  const ipv4 = small;
  const ipv6 = family("fd00:3::/60", 64, "fd00:3:0:1::", "fd00:3:0:c::");
  const offsets = (max: number) => fc.array(fc.integer({ min: 0, max }), { maxLength: 14 });
  const leases = fc.tuple(offsets(15), offsets(15)).map(([v4, v6]) => [
    ...v4.map((number) => ({
      ipv4: new Prefix(Address.parse("10.3.0.0").add(BigInt(number) << 6n), 26),
    })),
    ...v6.map((number) => ({
      ipv6: new Prefix(Address.parse("fd00:3::").add(BigInt(number) << 64n), 64),
    })),
  ]);
  const draw = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true });
  const number = (prefix: Prefix, { subnetMin }: FamilyConfig) =>
    (prefix.address.value - subnetMin.value) >> BigInt(prefix.family === 4 ? 6 : 64);
  fc.assert(fc.property(leases, draw, draw, (leases, mine, theirs) => {
    const free = (config: FamilyConfig, name: "ipv4" | "ipv6") =>
      slowFree(config, leases.flatMap((lease: LeaseSubnet) => lease[name] ?? []));
    const [free4, free6] = [free(ipv4, "ipv4"), free(ipv6, "ipv6")];
    const [one, other] = [mine, theirs].map((at) => chooseSubnet({ ipv4, ipv6 }, leases, () => at));
    if (free4.length === 0 || free6.length === 0) return void assert.equal(one, undefined);
    assert.ok(free4.includes(String(one!.ipv4)) && free6.includes(String(one!.ipv6)));
    const hasPair = free4.some((text4) =>
      free6.some((text6) => number(Prefix.parse(text4), ipv4) === number(Prefix.parse(text6), ipv6))
    );
    if (!hasPair) return;
    assert.equal(number(one!.ipv4!, ipv4), number(one!.ipv6!, ipv6));
    assert.equal(one!.ipv4!.equals(other!.ipv4!), one!.ipv6!.equals(other!.ipv6!));
  }));
});

Deno.test("fitsConfig() wants exactly the configured families, length and range", () => {
  const config = { ipv4: small };
  const ipv4 = Prefix.parse("10.3.0.64/26");
  assert.ok(fitsConfig(config, { ipv4 }));
  for (const text of ["10.3.0.64/27", "10.3.0.0/26", "10.4.0.0/26"]) {
    assert.ok(!fitsConfig(config, { ipv4: Prefix.parse(text) }), text);
  }
  assert.ok(!fitsConfig(config, { ipv4, ipv6: Prefix.parse("fd00::/64") }));
  assert.ok(!fitsConfig({ ipv6: small }, { ipv4 }));
});

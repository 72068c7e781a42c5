import assert from "node:assert/strict";
import fc from "fast-check";
import { Address, Prefix } from "../net/mod.ts";
import { parseDotenv, previousNetworks, previousSubnet, renderSubnetEnv } from "./subnet_env.ts";

function prefix(text: string): Prefix {
  return Prefix.parse(text);
}

Deno.test("renderSubnetEnv() writes upstream's lines in upstream's order", () => {
  const ipv4 = { network: prefix("10.42.0.0/16"), subnet: prefix("10.42.0.0/24") };
  const ipv6 = { network: prefix("2001:cafe:42::/56"), subnet: prefix("2001:cafe:42::/64") };
  assert.equal(
    renderSubnetEnv({ families: [ipv4, ipv6], mtuBytes: 1450, masquerade: true }),
    `FLANNEL_NETWORK=10.42.0.0/16
FLANNEL_SUBNET=10.42.0.1/24
FLANNEL_IPV6_NETWORK=2001:cafe:42::/56
FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
`,
  );
  assert.equal(
    renderSubnetEnv({ families: [ipv6], mtuBytes: 1500, masquerade: false }),
    `FLANNEL_IPV6_NETWORK=2001:cafe:42::/56
FLANNEL_IPV6_SUBNET=2001:cafe:42::1/64
FLANNEL_MTU=1500
FLANNEL_IPMASQ=false
`,
  );
});

Deno.test("previousSubnet() reads back what renderSubnetEnv() wrote", () => {
  const subnets = fc.tuple(fc.nat(0xffff), fc.integer({ min: 18, max: 30 })).map(([low, length]) =>
    new Prefix(new Address(4, (10n << 24n) | (BigInt(low) << 4n)), length)
  );
  const subnets6 = fc.nat(0xffff).map((low) =>
    new Prefix(new Address(6, (0xfd00n << 112n) | (BigInt(low) << 64n)), 64)
  );
  fc.assert(
    fc.property(
      fc.option(subnets, { nil: undefined }),
      fc.option(subnets6, { nil: undefined }),
      fc.boolean(),
      (ipv4, ipv6, masquerade) => {
        const text = renderSubnetEnv({
          families: [
            ...(ipv4 ? [{ network: prefix("10.0.0.0/8"), subnet: ipv4 }] : []),
            ...(ipv6 ? [{ network: prefix("fd00::/16"), subnet: ipv6 }] : []),
          ],
          mtuBytes: 1450,
          masquerade,
        });
        const found = previousSubnet(text);
        assert.equal(found?.ipv4?.toString(), ipv4?.toString());
        assert.equal(found?.ipv6?.toString(), ipv6?.toString());
      },
    ),
  );
});

const readings: [text: string, ipv4: string | undefined, ipv6?: string][] = [
  ["", undefined],
  ["FLANNEL_SUBNET=10.42.7.1/24\n", "10.42.7.0/24"],
  ["FLANNEL_SUBNET=10.42.7.1/24", "10.42.7.0/24"],
  ['\r\nexport FLANNEL_SUBNET = "10.42.7.1/24" # ours\r\n', "10.42.7.0/24"],
  ["FLANNEL_SUBNET: '10.42.7.1/24'\n", "10.42.7.0/24"],
  ["FLANNEL_SUBNET=10.42.7.1/24 # comment\n", "10.42.7.0/24"],
  ["FLANNEL_SUBNET=10.42.7.1/24\nFLANNEL_SUBNET=10.42.8.1/24\n", "10.42.8.0/24"],
  ["FLANNEL_SUBNET=nonsense,10.42.7.1/24,300.1.2.3/24\n", "10.42.7.0/24"],
  ["FLANNEL_SUBNET=10.42.7.1/24,10.42.8.1/24\n", undefined],
  ["FLANNEL_SUBNET=nonsense\n", undefined],
  ["FLANNEL_SUBNET=10.42.7.1\n", undefined],
  ["FLANNEL_SUBNET=fd00::1/64\n", undefined],
  ["FLANNEL_SUBNET=fd00::1/64\nFLANNEL_IPV6_SUBNET=fd00::1/64\n", undefined, "fd00::/64"],
  ["#FLANNEL_SUBNET=10.42.7.1/24\n", undefined],
  ["FLANNEL_SUBNET\nFLANNEL_SUBNET=\n=\n\0\n", undefined],
  ['FLANNEL_SUBNET="10.42.7.1/24\n', undefined],
  ["FLANNEL_SUBNET=$(reboot)\nFLANNEL_IPV6_SUBNET=`id`\n", undefined],
];

for (const [text, ipv4, ipv6] of readings) {
  Deno.test(`previousSubnet() of ${JSON.stringify(text)} is ${ipv4 ?? ipv6 ?? "none"}`, () => {
    const found = previousSubnet(text);
    assert.equal(found?.ipv4?.toString(), ipv4);
    assert.equal(found?.ipv6?.toString(), ipv6);
    assert.equal(found === undefined, ipv4 === undefined && ipv6 === undefined);
  });
}

Deno.test("previousSubnet() never throws", () => {
  const line = fc.oneof(
    fc.string(),
    fc.string({ unit: "binary" }),
    fc.string().map((value) => `FLANNEL_SUBNET=${value}`),
    fc.constantFrom("FLANNEL_SUBNET=10.1.2.3/24,", "FLANNEL_IPV6_SUBNET='fd00::/129'", '"'),
  );
  fc.assert(fc.property(fc.array(line), (lines) => {
    previousSubnet(lines.join("\n"));
  }));
});

Deno.test("parseDotenv() expands nothing and drops comments", () => {
  assert.deepEqual(
    Object.fromEntries(parseDotenv(
      'A=1\nB = two words \nC="a \\"b\\" $A"\nD=\'$A #x\'\nE=x#y\nF=#gone\nexport G: 7\n1X=no\n',
    )),
    { A: "1", B: "two words", C: 'a "b" $A', D: "$A #x", E: "x#y", F: "", G: "7" },
  );
});

Deno.test("previousNetworks() names the networks of both families, and nothing that is none", () => {
  const text = "FLANNEL_NETWORK=10.3.0.0/16, junk\nFLANNEL_IPV6_NETWORK=fd00:1::/56\n";
  assert.deepEqual(previousNetworks(text).map(String), ["10.3.0.0/16", "fd00:1::/56"]);
  assert.deepEqual(previousNetworks("FLANNEL_NETWORK=0.0.0.0/0\n"), []);
  assert.deepEqual(previousNetworks(""), []);
});

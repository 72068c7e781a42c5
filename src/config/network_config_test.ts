import assert from "node:assert/strict";
import fc from "fast-check";
import { ConfigError } from "../errors.ts";
import { Address, addressBits, type Family, Prefix } from "../net/mod.ts";
import { redact } from "../secret.ts";
import { type FamilyConfig, parseNetworkConfig } from "./network_config.ts";

const ALLOC = { Backend: { Type: "alloc" } };

function parse(object: unknown) {
  return parseNetworkConfig(JSON.stringify(object));
}

function faultsOf(text: string): readonly string[] {
  try {
    parseNetworkConfig(text);
  } catch (error) {
    assert.ok(error instanceof ConfigError, String(error));
    return error.faults;
  }
  return [];
}

/** `<network> <first>..<last> /<length>` */
function format(config: FamilyConfig | undefined): string | undefined {
  return config &&
    `${config.network} ${config.subnetMin}..${config.subnetMax} /${config.subnetLength}`;
}

Deno.test("parseNetworkConfig() computes upstream's defaults", () => {
  const golden: [Family, string, string][] = [
    [4, "10.3.0.0/16", "10.3.0.0/16 10.3.1.0..10.3.255.0 /24"],
    [4, "10.3.0.0/23", "10.3.0.0/23 10.3.0.128..10.3.1.128 /25"],
    [4, "10.3.0.0/28", "10.3.0.0/28 10.3.0.4..10.3.0.12 /30"],
    [6, "fd00:1::/56", "fd00:1::/56 fd00:1:0:1::..fd00:1:0:ff:: /64"],
    [6, "fd00:1::/64", "fd00:1::/64 fd00:1:0:0:4000::..fd00:1:0:0:c000:: /66"],
    [4, "10.24.7.9/16", "10.24.0.0/16 10.24.1.0..10.24.255.0 /24"],
    [4, "10.3.0.0/22", "10.3.0.0/22 10.3.1.0..10.3.3.0 /24"],
    // The ends of the address space, where a sum of 32 bits would wrap.
    [4, "255.255.0.0/16", "255.255.0.0/16 255.255.1.0..255.255.255.0 /24"],
    [4, "255.255.255.240/28", "255.255.255.240/28 255.255.255.244..255.255.255.252 /30"],
    [4, "0.0.0.0/8", "0.0.0.0/8 0.0.1.0..0.255.255.0 /24"],
    [6, "fdff::/16", "fdff::/16 fdff:0:0:1::..fdff:ffff:ffff:ffff:: /64"],
  ];
  for (const [family, network, expected] of golden) {
    const { config } = parse(
      family === 4
        ? { Network: network, ...ALLOC }
        : { EnableIPv4: false, EnableIPv6: true, IPv6Network: network, ...ALLOC },
    );
    assert.equal(format(family === 4 ? config.ipv4 : config.ipv6), expected);
  }
});

Deno.test("parseNetworkConfig() reads the guide's config", () => {
  const { config, warnings } = parseNetworkConfig(
    '{"Network":"10.24.0.0/16","Backend":{"Type":"ali-vpc"}}',
  );
  assert.equal(format(config.ipv4), "10.24.0.0/16 10.24.1.0..10.24.255.0 /24");
  assert.equal(config.ipv6, undefined);
  assert.equal(config.enableNFTables, false);
  assert.deepEqual(config.backend, { type: "ali-vpc", options: { Type: "ali-vpc" } });
  assert.deepEqual(warnings, []);
});

Deno.test("parseNetworkConfig() reads dual stack with explicit bounds and keys in any case", () => {
  const { config, warnings } = parse({
    ENABLEIPV6: true,
    network: "10.0.0.0/8",
    subnetlen: 20,
    subnetMIN: "10.10.0.0",
    SubnetMax: "10.99.0.0",
    ipv6Network: "fd00::/48",
    IPV6SUBNETLEN: 64,
    ipv6SubnetMin: "fd00:0:0:0::",
    ipv6SubnetMax: "fd00:0:0:f::",
    enableNfTables: true,
    backend: { type: "VXLAN", vni: 7 },
  });
  assert.equal(format(config.ipv4), "10.0.0.0/8 10.10.0.0..10.99.0.0 /20");
  assert.equal(format(config.ipv6), "fd00::/48 fd00::..fd00:0:0:f:: /64");
  assert.equal(config.enableNFTables, true);
  assert.deepEqual(config.backend, { type: "vxlan", options: { type: "VXLAN", vni: 7 } });
  assert.deepEqual(warnings, []);
});

Deno.test("parseNetworkConfig() refuses what upstream refuses, with its words", () => {
  const cases: [Record<string, unknown>, RegExp][] = [
    [{}, /^please define a correct Network parameter in the flannel config$/],
    [{ Network: null }, /please define a correct Network parameter/],
    [{ Network: "0.0.0.0/0" }, /please define a correct Network parameter/],
    [{ Network: "10.3.0.0" }, /^Network must be an IPv4 network such as 10.3.0.0\/16$/],
    [{ Network: "fd00::/48" }, /^Network must be an IPv4 network/],
    [{ Network: 10 }, /^Network must be a string, not 10$/],
    [{ Network: "10.3.0.0/16", SubnetLen: 31 }, /^SubnetLen must be less than \/31$/],
    [
      { Network: "10.3.0.0/16", SubnetLen: 17 },
      /^network must be able to accommodate at least four/,
    ],
    [{ Network: "10.3.0.0/16", SubnetLen: -1 }, /^SubnetLen must be a whole number from 0 to 30/],
    [{ Network: "10.3.0.0/16", SubnetLen: 24.5 }, /^SubnetLen must be a whole number/],
    [{ Network: "10.3.0.0/16", SubnetLen: "24" }, /^SubnetLen must be a whole number/],
    [
      { Network: "10.3.0.0/29" },
      /^network is too small. Minimum useful network prefix is \/28: Network is 10.3.0.0\/29$/,
    ],
    [
      { Network: "10.3.0.0/16", SubnetMin: "10.4.0.0" },
      /^SubnetMin is not in the range of the Network/,
    ],
    [
      { Network: "10.3.0.0/16", SubnetMax: "10.2.255.0" },
      /^SubnetMax is not in the range of the Network/,
    ],
    [
      { Network: "10.3.0.0/16", SubnetMin: "10.3.1.1" },
      /^SubnetMin is not on a SubnetLen boundary: 10.3.1.1/,
    ],
    [
      { Network: "10.3.0.0/16", SubnetMax: "10.3.1.1" },
      /^SubnetMax is not on a SubnetLen boundary: 10.3.1.1/,
    ],
    [{ Network: "10.3.0.0/16", SubnetMin: "fd00::" }, /^SubnetMin must be an IPv4 address$/],
    [
      { Network: "10.3.0.0/16", SubnetMin: "10.3.9.0", SubnetMax: "10.3.8.0" },
      /^SubnetMin 10.3.9.0 is after SubnetMax 10.3.8.0, so there is no subnet to lease$/,
    ],
    [{ Network: "10.3.0.0/16", EnableIPv4: "true" }, /^EnableIPv4 must be true or false/],
    [{ EnableIPv4: false }, /^EnableIPv4 and EnableIPv6 are both false/],
    [{ Network: "10.3.0.0/16", EnableIPv6: "true" }, /^EnableIPv6 must be true or false/],
  ];
  const ipv6Cases: [Record<string, unknown>, RegExp][] = [
    [{}, /^please define a correct IPv6Network parameter in the flannel config$/],
    [{ IPv6Network: "::/0" }, /please define a correct IPv6Network parameter/],
    [{ IPv6Network: "10.3.0.0/16" }, /^IPv6Network must be an IPv6 network/],
    [{ IPv6Network: "fd00::/56", IPv6SubnetLen: 127 }, /SubnetLen must be less than \/127$/],
    [
      { IPv6Network: "fd00::/125" },
      /^IPv6Network is too small. Minimum useful network prefix is \/124/,
    ],
    [
      { IPv6Network: "fd00::/56", IPv6SubnetMin: "fd01::" },
      /^IPv6SubnetMin is not in the range of the IPv6Network/,
    ],
    [
      { IPv6Network: "fd00::/56", IPv6SubnetMax: "fd00::1" },
      /^IPv6SubnetMax is not on a SubnetLen boundary: fd00::1/,
    ],
  ];
  for (const [object, expected] of ipv6Cases) {
    cases.push([{ EnableIPv4: false, EnableIPv6: true, ...object }, expected]);
  }
  for (const [object, expected] of cases) {
    const faults = faultsOf(JSON.stringify({ ...object, ...ALLOC }));
    assert.equal(faults.length, 1, JSON.stringify([object, faults]));
    assert.match(faults[0]!, expected);
  }
});

Deno.test("parseNetworkConfig() refuses networks that no pod can use, and warns of odd ones", () => {
  const cases: readonly (readonly [object, RegExp, "refused" | "warned"])[] = [
    [{ Network: "127.0.0.0/8" }, /^Network 127\.0\.0\.0\/8 has subnets in the loopback/, "refused"],
    [{ Network: "127.16.0.0/16" }, /in the loopback addresses 127\.0\.0\.0\/8,/, "refused"],
    [{ Network: "224.0.0.0/8" }, /in the multicast addresses 224\.0\.0\.0\/4,/, "refused"],
    [{ Network: "64.0.0.0/2" }, /in the loopback addresses/, "refused"],
    [{ Network: "192.0.0.0/2", SubnetMax: "224.0.0.0" }, /in the multicast/, "refused"],
    [{ IPv6Network: "fe80::/48" }, /^IPv6Network fe80::\/48 has .* the link-local/, "refused"],
    [{ IPv6Network: "ff05::/48" }, /in the multicast addresses ff00::\/8/, "refused"],
    [{ IPv6Network: "::/48", IPv6SubnetLen: 64, IPv6SubnetMin: "::" }, /^$/, "warned"],
    [{ IPv6Network: "::/120", IPv6SubnetLen: 126, IPv6SubnetMax: "::8" }, /^$/, "warned"],
    [{ Network: "0.0.0.0/8" }, /reserved addresses 0\.0\.0\.0\/8, which many programs/, "warned"],
    [{ Network: "240.0.0.0/8" }, /reserved addresses 240\.0\.0\.0\/4/, "warned"],
    [{ Network: "169.254.0.0/16" }, /link-local addresses 169\.254\.0\.0\/16/, "warned"],
    [{ Network: "64.0.0.0/2", SubnetMax: "126.255.255.0" }, /^$/, "warned"],
    [{ Network: "192.0.0.0/2", SubnetMax: "223.255.255.0" }, /^$/, "warned"],
  ];
  for (const [given, pattern, what] of cases) {
    const families = "Network" in given ? {} : { EnableIPv4: false, EnableIPv6: true };
    const text = JSON.stringify({ ...families, ...given, Backend: { Type: "vxlan" } });
    if (what === "refused") {
      const faults = faultsOf(text);
      assert.equal(faults.length, 1, text);
      assert.match(faults[0]!, pattern);
    } else {
      const { warnings } = parseNetworkConfig(text);
      assert.match(warnings.join(), pattern, text);
    }
  }
});

Deno.test("parseNetworkConfig() takes IPv4 bounds written as IPv6, as Go reads them", () => {
  const { ipv4 } = parseNetworkConfig(JSON.stringify({
    Network: "10.24.0.0/16",
    SubnetMin: "::ffff:10.24.5.0",
    SubnetMax: "::ffff:0a18:0900",
    Backend: { Type: "vxlan" },
  })).config;
  assert.deepEqual([ipv4?.subnetMin, ipv4?.subnetMax].map(String), ["10.24.5.0", "10.24.9.0"]);
});

Deno.test("parseNetworkConfig() takes the zero values that upstream takes for absent", () => {
  const { config } = parse({
    Network: "10.3.0.0/16",
    SubnetLen: 0,
    SubnetMin: "0.0.0.0",
    ...ALLOC,
  });
  assert.equal(format(config.ipv4), "10.3.0.0/16 10.3.1.0..10.3.255.0 /24");
});

Deno.test("parseNetworkConfig() gives the type udp only where Backend is absent", () => {
  const { config, warnings } = parse({ Network: "10.3.0.0/16" });
  assert.deepEqual(config.backend, { type: "udp", options: { Type: "udp" } });
  assert.deepEqual(warnings, [
    "Backend is not given, which means type udp, as in upstream flannel",
  ]);
  const missing = 'Backend.Type is missing; give one such as "vxlan" or "ali-vpc"';
  for (
    const [Backend, fault] of [
      [null, missing],
      [{}, missing],
      [{ Type: "" }, missing],
      [{ Type: null }, missing],
      [{ Type: 1 }, "Backend.Type must be a string, not 1"],
      ["vxlan", 'Backend must be an object such as {"Type":"vxlan"}, not a string'],
      [[], 'Backend must be an object such as {"Type":"vxlan"}, not a list'],
    ]
  ) {
    assert.deepEqual(faultsOf(JSON.stringify({ Network: "10.3.0.0/16", Backend })), [fault]);
  }
});

Deno.test("parseNetworkConfig() reports all faults together, the backend's among them", () => {
  const text = JSON.stringify({
    Network: "10.3.0.0/29",
    EnableIPv6: true,
    IPv6Network: "fd00::/125",
    EnableNFTables: 1,
    Backend: { Type: "vxlan", Port: 99_999 },
  });
  assert.throws(
    () =>
      parseNetworkConfig(text, {
        readBackend(backend) {
          assert.equal(backend.type, "vxlan");
          throw new ConfigError("Backend", ["Backend.Port is wrong"]);
        },
      }),
    (error: unknown) => {
      assert.ok(error instanceof ConfigError);
      assert.equal(error.faults.length, 4);
      assert.equal(error.faults.at(-1), "Backend.Port is wrong");
      return true;
    },
  );
});

Deno.test("parseNetworkConfig() warns of unknown names, repeats and switched-off families", () => {
  const text = `{"Netwrok":"10.9.0.0/16","Network":"10.4.0.0/16","network":"10.5.0.0/16",
    "Network":"10.3.0.0/16","IPv6Network":"fd00::/56","Colour":"red","Backend":{"Type":"alloc"}}`;
  const { config, warnings } = parseNetworkConfig(text, {
    readBackend: () => ["from the backend"],
  });
  assert.equal(config.ipv4?.network.toString(), "10.3.0.0/16");
  assert.deepEqual(warnings, [
    "network is given again as Network, which counts",
    '"Network" is given more than once; the last one counts',
    "IPv6Network has no effect while EnableIPv6 is false",
    "from the backend",
    "Netwrok is not known and has no effect; did you mean Network?",
    "Colour is not known and has no effect",
  ]);
});

Deno.test("parseNetworkConfig() keeps the backend's secrets from being printed", () => {
  const names = ["AccessKeySecret", "accesskeysecret", "SecurityToken", "PSK", "Password"];
  for (const name of names) {
    const secret = `canary-${crypto.randomUUID()}`;
    const { config } = parse({ Network: "10.3.0.0/16", Backend: { Type: "x", [name]: secret } });
    assert.equal(config.backend.options[name], secret);
    assert.equal(redact(`denied for ${secret}`), "denied for [redacted]");
  }
});

Deno.test("parseNetworkConfig() refuses text that is not one JSON object, quoting none of it", () => {
  for (const text of ["", " \n", "null", "[]", '"canary"', "7", '{"a":1}}', '{"a":canary}', "{"]) {
    const faults = faultsOf(text);
    assert.equal(faults.length, 1, text);
    assert.doesNotMatch(faults[0]!, /canary/);
  }
});

Deno.test("parseNetworkConfig() of any text throws nothing but ConfigError", () => {
  fc.assert(fc.property(fc.oneof(fc.string(), fc.json()), (text) => void faultsOf(text)));
});

/** A value near the ones that are right. */
function anyValue(family: Family): fc.Arbitrary<unknown> {
  const address = fc.bigInt({ min: 0n, max: (1n << BigInt(addressBits(family))) - 1n })
    .map((value) => new Address(family, value));
  const prefix = fc.tuple(address, fc.nat({ max: addressBits(family) }))
    .map(([base, length]) => new Prefix(base, length));
  return fc.oneof(
    { weight: 3, arbitrary: prefix.map(String) },
    { weight: 2, arbitrary: prefix.map((each) => String(each.address)) },
    { weight: 2, arbitrary: prefix.map((each) => String(each.last)) },
    fc.nat({ max: addressBits(family) + 1 }),
    fc.jsonValue({ maxDepth: 2 }),
  );
}

Deno.test("parseNetworkConfig() returns only configs that can be leased from", () => {
  let accepted = 0;
  const families = ([4, 6] as const).map((family) => {
    const bits = addressBits(family);
    const prefix = family === 4 ? "" : "IPv6";
    return fc.tuple(
      fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n }),
      fc.nat({ max: bits }),
      fc.option(fc.nat({ max: bits })),
      fc.bigInt({ min: 0n, max: (1n << BigInt(bits)) - 1n }),
    ).map(([base, length, subnetLength, offset]) => {
      const network = new Prefix(new Address(family, base), length);
      const inside = new Address(family, network.address.value + offset % network.size);
      const min = new Prefix(inside, subnetLength ?? length).address;
      return {
        [`EnableIPv${family}`]: true,
        [`${prefix}Network`]: String(network),
        ...(subnetLength === null ? {} : { [`${prefix}SubnetLen`]: subnetLength }),
        ...(offset % 2n === 0n ? { [`${prefix}SubnetMin`]: String(min) } : {}),
      };
    });
  });
  const noise = fc.dictionary(
    fc.constantFrom("Network", "SubnetMin", "subnetmax", "IPv6SubnetLen", "IPv6SubnetMax"),
    fc.oneof(anyValue(4), anyValue(6)),
    { maxKeys: 1 },
  );
  const object = fc.tuple(...families, fc.oneof({ weight: 3, arbitrary: fc.constant({}) }, noise));
  fc.assert(
    fc.property(object, (parts) => {
      const text = JSON.stringify(Object.assign({}, ...parts, ALLOC));
      if (faultsOf(text).length > 0) return;
      accepted++;
      const { config } = parseNetworkConfig(text);
      for (const each of [config.ipv4!, config.ipv6!]) {
        const { network, subnetLength, subnetMin, subnetMax } = each;
        const longest = addressBits(network.family) - 2;
        assert.ok(network.length > 0);
        assert.ok(subnetLength >= network.length + 2 && subnetLength <= longest);
        assert.ok(subnetMin.value <= subnetMax.value);
        for (const bound of [subnetMin, subnetMax]) {
          const subnet = new Prefix(bound, subnetLength);
          assert.ok(network.contains(subnet));
          assert.ok(subnet.address.equals(bound));
        }
      }
    }),
    { numRuns: 2_000 },
  );
  assert.ok(accepted > 20, `only ${accepted} configs were accepted`);
});

Deno.test("parseNetworkConfig() takes for absent what Go takes for absent, in every key", () => {
  const { config, warnings } = parseNetworkConfig(`{
    "EnableIPv4": null, "EnableIPv6": null, "EnableNFTables": null,
    "Network": " 10.3.0.0/16 ", "network": null, "SubnetLen": 0, "SubnetMin": "", "SubnetMax": null,
    "IPv6Network": "", "IPv6SubnetLen": null, "IPv6SubnetMin": null, "IPv6SubnetMax": "",
    "Backend": {"Type": "vxlan", "Type": null}, "backend": null
  }`);
  assert.equal(format(config.ipv4), "10.3.0.0/16 10.3.1.0..10.3.255.0 /24");
  assert.equal(config.ipv6, undefined);
  assert.equal(config.enableNFTables, false);
  assert.equal(config.backend.type, "vxlan");
  assert.deepEqual(warnings, []);
});

Deno.test("parseNetworkConfig() takes numbers in any form that is whole", () => {
  const { config } = parseNetworkConfig(
    '{"Network":"10.3.0.0/16","SubnetLen":2.5e1,"Backend":{"Type":"alloc"}}',
  );
  assert.equal(config.ipv4?.subnetLength, 25);
});

Deno.test("parseNetworkConfig() says where bytes are no UTF-8, and goes on as upstream does", () => {
  const { warnings } = parseNetworkConfig(
    '{"Network":"10.3.0.0/16",\n"Note":"\ufffd","Backend":{"Type":"alloc"}}',
  );
  assert.deepEqual(warnings, [
    "The text holds bytes that are no UTF-8, at line 2, column 9",
    "Note is not known and has no effect",
  ]);
});

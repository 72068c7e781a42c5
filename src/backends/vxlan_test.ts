import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import fc from "fast-check";
import { parseNetworkConfig } from "../config/network_config.ts";
import { ConfigError } from "../errors.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { Address, MacAddress, Prefix } from "../net/mod.ts";
import type { DesiredState, UnderlayPath } from "../state/mod.ts";
import { podMtuBytes } from "./backend.ts";
import { vxlan, type VxlanConfig } from "./vxlan.ts";

const address = (text: string) => Address.parse(text);
const prefix = (text: string) => Prefix.parse(text);
const mac = (n: number) => `02:00:00:00:00:${n.toString(16).padStart(2, "0")}`;

const host = {
  link: "eth0",
  mtuBytes: 1500,
  address: address("10.0.0.10"),
  addressV6: address("2001:db8::10"),
  publicIp: address("192.0.2.10"),
  publicIpv6: address("2001:db8::10"),
};
const facts = {
  macs: { 4: MacAddress.parse(mac(1)), 6: MacAddress.parse(mac(2)) },
  paths: new Map<string, UnderlayPath>(),
};

function network(families: "v4" | "v6" | "dual" = "v4") {
  return parseNetworkConfig(JSON.stringify({
    ...(families === "v6" ? { EnableIPv4: false } : { Network: "10.244.0.0/16" }),
    ...(families === "v4" ? {} : { EnableIPv6: true, IPv6Network: "fd00:1::/56" }),
    Backend: { Type: "vxlan" },
  })).config;
}

function configOf(options: Record<string, unknown> = {}): VxlanConfig {
  return vxlan.parseConfig({ Type: "vxlan", ...options }).config;
}

const own: Lease = {
  key: "own",
  subnet: { ipv4: prefix("10.244.9.0/24"), ipv6: prefix("fd00:1:0:9::/64") },
  attributes: { publicIp: host.publicIp, publicIpv6: host.publicIpv6, backendType: "vxlan" },
};

/** Lease number `n`, of both families, with more or other attributes. */
function peer(n: number, attributes: Partial<Lease["attributes"]> = {}): Lease {
  return {
    key: `10.244.${n}.0-24`,
    subnet: { ipv4: prefix(`10.244.${n}.0/24`), ipv6: prefix(`fd00:1:0:${n}::/64`) },
    attributes: {
      publicIp: address(`192.0.2.${n}`),
      publicIpv6: address(`2001:db8::${n}`),
      backendType: "vxlan",
      backendData: { VNI: 1, VtepMAC: mac(n) },
      backendV6Data: { VNI: 1, VtepMAC: mac(100 + n) },
      ...attributes,
    },
  };
}

function plan(peers: readonly Lease[], options: {
  readonly families?: "v4" | "v6" | "dual";
  readonly config?: VxlanConfig;
  readonly paths?: ReadonlyMap<string, UnderlayPath>;
} = {}): DesiredState {
  const { families, config = configOf(), paths = facts.paths } = options;
  return planAll(vxlan, {
    config,
    network: network(families),
    host,
    facts: { ...facts, paths },
    own,
    peers,
  });
}

/** Neighbours, entries and routes as one line each. */
function lines({ neighbors = [], fdb = [], routes = [] }: DesiredState): string[] {
  return [
    ...neighbors.map(({ link, address, mac }) => `neigh ${address} lladdr ${mac} dev ${link}`),
    ...fdb.map(({ link, mac, remote }) => `fdb ${mac} dst ${remote} dev ${link}`),
    ...routes.map(({ destination, gateway, link, onlink }) =>
      `route ${destination} via ${gateway} dev ${link}${onlink ? " onlink" : ""}`
    ),
  ];
}

Deno.test("vxlan.parseConfig() has upstream's defaults and reads every key without case", () => {
  assert.deepEqual(vxlan.parseConfig({ Type: "vxlan" }), {
    config: {
      vni: 1,
      port: 8472,
      gbp: false,
      learning: false,
      directRouting: false,
      checksumOffload: "auto",
    },
    warnings: [],
  });
  assert.deepEqual(
    vxlan.parseConfig({
      type: "VXLAN",
      vni: 4096,
      PORT: 4789,
      gbp: true,
      learning: true,
      Directrouting: true,
      mtu: 8951,
      checksumoffload: "Off",
    }),
    {
      config: {
        vni: 4096,
        port: 4789,
        gbp: true,
        learning: true,
        directRouting: true,
        mtuBytes: 8951,
        checksumOffload: "off",
      },
      warnings: [],
    },
  );
  assert.equal(configOf({ Port: 0 }).port, 8472, "0 is the kernel's own");
  assert.equal(configOf({ MTU: 0 }).mtuBytes, undefined, "0 is Go's nothing");
  assert.equal(configOf({ MTU: null, VNI: null, Port: null, GBP: null }).vni, 1);
  const { warnings } = vxlan.parseConfig({ MacPrefix: "0E-2A", Name: "x", VIN: 3 });
  assert.equal(warnings.length, 3);
  assert.match(warnings.join("\n"), /MacPrefix.*Windows[^]*Name.*Windows[^]*VIN.*VNI/);
});

Deno.test("vxlan.parseConfig() names every fault", () => {
  assert.throws(
    () =>
      configOf({
        VNI: 2 ** 24,
        Port: 65_536,
        GBP: "yes",
        Learning: 1,
        DirectRouting: null,
        MTU: 100,
        ChecksumOffload: "perhaps",
      }),
    (error) => {
      assert.ok(error instanceof ConfigError);
      assert.equal(error.faults.length, 6, error.message);
      for (const key of ["VNI", "Port", "GBP", "Learning", "MTU", "ChecksumOffload"]) {
        assert.match(error.message, new RegExp(`Backend\\.${key} must`));
      }
      return true;
    },
  );
});

Deno.test("vxlan.checkNetwork() refuses what makes no link name, or no IPv6 link", () => {
  const check = (options: Record<string, unknown>, families: "v4" | "v6" | "dual") =>
    vxlan.checkNetwork!(configOf(options), network(families));
  assert.deepEqual(check({ VNI: 9_999_999 }, "v4"), []);
  assert.deepEqual(check({ VNI: 9_999 }, "dual"), []);
  assert.match(check({ VNI: 10_000_000 }, "v4").join(), /flannel\.10000000 too long.*9999999/);
  assert.match(check({ VNI: 10_000 }, "v6").join(), /flannel-v6\.10000 too long.*at most 9999/);
  assert.deepEqual(check({ MTU: 1350 }, "dual"), []);
  assert.match(check({ MTU: 1349 }, "dual").join(), /at least 1350/);
  assert.deepEqual(check({ MTU: 1349 }, "v4"), []);
});

Deno.test("vxlan leaves pods what upstream leaves them", () => {
  const mtu = (options: Record<string, unknown>, families: "v4" | "v6" | "dual") =>
    podMtuBytes(vxlan, configOf(options), network(families), host);
  assert.equal(mtu({}, "v4"), 1450);
  assert.equal(mtu({}, "dual"), 1450);
  assert.equal(mtu({}, "v6"), 1430, "with IPv6 alone nothing else needs to be kept");
  assert.equal(mtu({ MTU: 9001 }, "v4"), 8951, "MTU stands for the external one");
});

Deno.test("vxlan.announce() writes upstream's bytes", () => {
  const lease = vxlan.announce(configOf(), { ...host, publicIpv6: undefined! }, {
    ...facts,
    macs: { 4: MacAddress.parse("c6:d2:32:6f:8f:44") },
  });
  assert.equal(
    encodeLeaseValue({ ...lease, publicIp: address("192.168.64.3") }),
    '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan",' +
      '"BackendData":{"VNI":1,"VtepMAC":"c6:d2:32:6f:8f:44"}}',
  );
  assert.equal(
    encodeLeaseValue(vxlan.announce(configOf({ VNI: 42 }), host, facts)),
    '{"PublicIP":"192.0.2.10","PublicIPv6":"2001:db8::10","BackendType":"vxlan",' +
      `"BackendData":{"VNI":42,"VtepMAC":"${mac(1)}"},` +
      `"BackendV6Data":{"VNI":42,"VtepMAC":"${mac(2)}"}}`,
  );
});

Deno.test("vxlan.plan() makes upstream's devices", () => {
  const { links, addresses, sysctls, offloads } = plan([], {
    families: "dual",
    config: configOf({ VNI: 7, Port: 4789, Learning: true, GBP: true }),
  });
  const shared = { vni: 7, port: 4789, underlay: "eth0", learning: true, gbp: true };
  assert.deepEqual(links, [
    {
      name: "flannel.7",
      kind: "vxlan",
      mtuBytes: 1450,
      mac: facts.macs[4],
      // The interface's address, not the public one.
      vxlan: { ...shared, local: host.address },
    },
    {
      name: "flannel-v6.7",
      kind: "vxlan",
      mtuBytes: 1430,
      mac: facts.macs[6],
      vxlan: { ...shared, local: host.addressV6 },
    },
  ]);
  assert.deepEqual(
    addresses?.map(({ link, address }) => `${address} dev ${link}`),
    ["10.244.9.0/32 dev flannel.7", "fd00:1:0:9::/128 dev flannel-v6.7"],
  );
  assert.deepEqual(sysctls, [
    { name: "net/ipv6/conf/flannel.7/accept_ra", value: "0" },
    { name: "net/ipv6/conf/flannel-v6.7/accept_ra", value: "0" },
  ]);
  assert.equal(offloads, undefined, "auto leaves the kernel's setting alone");
});

Deno.test("vxlan.plan() sets the offload that the facts say", () => {
  const { offloads } = planAll(vxlan, {
    config: configOf(),
    network: network("dual"),
    host,
    facts: { ...facts, txChecksum: false },
    own,
    peers: [],
  });
  assert.deepEqual(offloads, [
    { link: "flannel.1", txChecksum: false },
    { link: "flannel-v6.1", txChecksum: false },
  ]);
});

Deno.test("vxlan.plan() wants a neighbour, an entry and a route per peer and family", () => {
  assert.deepEqual(lines(plan([peer(3)])), [
    `neigh 10.244.3.0 lladdr ${mac(3)} dev flannel.1`,
    `fdb ${mac(3)} dst 192.0.2.3 dev flannel.1`,
    "route 10.244.3.0/24 via 10.244.3.0 dev flannel.1 onlink",
  ]);
  assert.deepEqual(lines(plan([peer(3)], { families: "v6" })), [
    `neigh fd00:1:0:3:: lladdr ${mac(103)} dev flannel-v6.1`,
    `fdb ${mac(103)} dst 2001:db8::3 dev flannel-v6.1`,
    "route fd00:1:0:3::/64 via fd00:1:0:3:: dev flannel-v6.1 onlink",
  ]);
  assert.equal(lines(plan([peer(3), peer(4)], { families: "dual" })).length, 12);
});

const junk: [title: string, attributes: Partial<Lease["attributes"]>, reason: RegExp][] = [
  ["another backend", { backendType: "host-gw" }, /its backend is host-gw, not vxlan/],
  ["no backend", { backendType: "" }, /of a type that leases do not tell/],
  ["no public address", { publicIp: undefined! }, /publishes no IPv4 address/],
  [
    "an address of its subnet",
    { publicIp: address("10.244.3.9") },
    /covers its own public address/,
  ],
  [
    "an address of our subnet",
    { publicIp: address("10.244.9.9") },
    /inside this host's own subnet/,
  ],
  ["our interface's address", { publicIp: host.address }, /this host's own/],
  ["our public address", { publicIp: host.publicIp }, /this host's own/],
  ["no data", { backendData: undefined! }, /publishes no MAC/],
  ["data that is null", { backendData: null }, /publishes no MAC/],
  ["data that is text", { backendData: "xx" }, /no object/],
  ["data that is a list", { backendData: [{ VtepMAC: mac(3) }] }, /no object/],
  ["data without a MAC", { backendData: { VNI: 1 } }, /no VtepMAC/],
  ["a MAC that is a number", { backendData: { VtepMAC: 7 } }, /no VtepMAC/],
  ["a MAC that is none", { backendData: { VtepMAC: "\u001b[31m" } }, /is not a MAC address/],
  ["a group MAC", { backendData: { VtepMAC: "01:00:5e:00:00:01" } }, /no host's/],
  ["a zero MAC", { backendData: { VtepMAC: "00:00:00:00:00:00" } }, /no host's/],
  ["our own MAC", { backendData: { VtepMAC: mac(1) } }, /also that of this host/],
];

for (const [title, attributes, reason] of junk) {
  Deno.test(`vxlan.plan() leaves out a peer with ${title}, and names it`, () => {
    const others = plan([peer(5), peer(7)]);
    const { skippedPeers, ...state } = plan([peer(5), peer(3, attributes), peer(7)]);
    assert.deepEqual(lines(state), lines(others));
    assert.deepEqual(skippedPeers?.map(({ key }) => key), ["10.244.3.0-24"]);
    assert.match(skippedPeers![0]!.reason, reason);
    // deno-lint-ignore no-control-regex -- that is what must not be there
    assert.doesNotMatch(skippedPeers![0]!.reason, /[\u0000-\u001f]/);
  });
}

Deno.test("vxlan.plan() reads a peer's data without case", () => {
  assert.equal(
    lines(plan([peer(3, { backendData: { vtepmac: mac(3).toUpperCase() } })])).length,
    3,
  );
});

Deno.test("vxlan.plan() keeps one family of a peer whose other is bad", () => {
  const { skippedPeers, ...state } = plan([peer(3, { backendData: {} })], { families: "dual" });
  assert.equal(lines(state).length, 3);
  assert.equal(skippedPeers?.length, 1);
});

Deno.test("vxlan.plan() lets one of several peers with a MAC win, in any order", () => {
  const twins = [3, 4, 5].map((n) => peer(n, { backendData: { VtepMAC: mac(3) } }));
  const peers = [...twins, peer(6)];
  const expected = lines(plan([peer(3), peer(6)])).toSorted();
  fc.assert(fc.property(fc.shuffledSubarray(peers, { minLength: peers.length }), (shuffled) => {
    const { skippedPeers, ...state } = plan(shuffled);
    assert.deepEqual(lines(state).toSorted(), expected);
    assert.deepEqual(skippedPeers?.map(({ key }) => key).toSorted(), [
      "10.244.4.0-24",
      "10.244.5.0-24",
    ]);
    assert.match(skippedPeers![0]!.reason, /also that of 10\.244\.3\.0-24 \(192\.0\.2\.3\)/);
  }));
});

Deno.test("vxlan.plan() takes two subnets behind one host and MAC for what they are", () => {
  const second = peer(4, {
    publicIp: address("192.0.2.3"),
    backendData: { VNI: 1, VtepMAC: mac(3) },
  });
  const { skippedPeers, ...state } = plan([peer(3), second]);
  assert.equal(skippedPeers, undefined);
  assert.equal(state.fdb?.length, 1);
  assert.equal(state.neighbors?.length, 2);
  assert.equal(state.routes?.length, 2);
});

Deno.test("vxlan.plan() routes directly where the kernel does, and waits where it is not known", () => {
  const config = configOf({ DirectRouting: true });
  const paths = new Map<string, UnderlayPath>([
    ["192.0.2.3", { direct: true, link: "eth1" }],
    ["192.0.2.4", { direct: false, reason: "through gateway 192.0.2.1 on eth0" }],
    ["192.0.2.5", { direct: false, link: "wg0", reason: "link wg0 is point-to-point" }],
  ]);
  const state = plan([peer(3), peer(4), peer(5), peer(6)], { config, paths });
  assert.deepEqual(lines(state), [
    `neigh 10.244.4.0 lladdr ${mac(4)} dev flannel.1`,
    `neigh 10.244.5.0 lladdr ${mac(5)} dev flannel.1`,
    `fdb ${mac(4)} dst 192.0.2.4 dev flannel.1`,
    `fdb ${mac(5)} dst 192.0.2.5 dev flannel.1`,
    "route 10.244.3.0/24 via 192.0.2.3 dev eth1",
    "route 10.244.4.0/24 via 10.244.4.0 dev flannel.1 onlink",
    "route 10.244.5.0/24 via 10.244.5.0 dev flannel.1 onlink",
  ]);
  assert.deepEqual(lines(plan([peer(3)], { paths })).length, 3, "unless it is off");
});

Deno.test("vxlan.plan() stands any lease", () => {
  const attributes = fc.record({
    publicIp: fc.option(
      fc.constantFrom("192.0.2.3", "192.0.2.4", "10.0.0.10", "10.244.1.1").map(address),
    ).map((each) => each ?? undefined!),
    backendType: fc.constantFrom("vxlan", "vxlan", "host-gw", ""),
    backendData: fc.oneof(
      fc.jsonValue() as fc.Arbitrary<Json>,
      fc.record({ VtepMAC: fc.constantFrom(mac(1), mac(3), mac(4), "", "x") }),
    ),
  });
  fc.assert(fc.property(fc.array(attributes, { maxLength: 8 }), (list) => {
    const peers = list.map((attributes, i) => peer(i + 20, attributes));
    const { fdb = [], neighbors = [], routes = [], skippedPeers = [] } = plan(peers);
    const unique = (values: readonly unknown[]) => new Set(values.map(String)).size;
    assert.equal(unique(fdb.map(({ mac }) => mac)), fdb.length);
    assert.equal(neighbors.length, routes.length);
    const macs = new Set(fdb.map(({ mac }) => mac.toString()));
    assert.ok(
      neighbors.every(({ mac }) => macs.has(mac.toString())),
      "each leads somewhere",
    );
    assert.equal(
      unique([...routes.map(({ destination }) => destination)]) +
        unique(skippedPeers.map(({ key }) => key)),
      peers.length,
      "each peer is reached or named",
    );
  }));
});

import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import * as fc from "fast-check";
import { ConfigError } from "../errors.ts";
import type { FamilyConfig } from "../config/network_config.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { DesiredState } from "../state/mod.ts";
import { aliVpc, readAliVpcClaim } from "./ali_vpc.ts";

const host = { link: "eth0", mtuBytes: 1500, publicIp: Address.parse("192.168.1.11") };
const network = {};
const facts = {
  instanceId: "i-a",
  networkInterfaceId: "eni-a",
  vpcId: "vpc-1",
  vSwitchId: "vsw-1",
  routeTableIds: ["vtb-1", "vtb-2"],
};
const DEFAULTS = {
  resyncSeconds: 60,
  sourceDestCheck: "disable",
  overflow: "none",
  vni: 1,
  port: 8472,
  routeGraceSeconds: 600,
};
const own: Lease = {
  key: "10.24.7.0-24",
  subnet: { ipv4: Prefix.parse("10.24.7.0/24") },
  attributes: { publicIp: host.publicIp, backendType: "" },
};

Deno.test("aliVpc.parseConfig() fills in defaults", () => {
  assert.deepEqual(aliVpc.parseConfig({ Type: "ali-vpc" }), {
    config: { ...DEFAULTS, routeTableIds: [] },
    warnings: [],
  });
});

Deno.test("aliVpc.parseConfig() reads every key without case", () => {
  const { config, warnings } = aliVpc.parseConfig({
    type: "Ali-VPC",
    accesskeyid: "LTAI0000",
    ACCESSKEYSECRET: "very secret",
    securityToken: "a token",
    ramRole: "node-role",
    routeTableId: [" vtb-1 ", "vtb-2", "vtb-1"],
    regionId: "cn-hangzhou",
    VPCID: "vpc-1",
    resyncSeconds: 30,
    sourceDestCheck: "Ignore",
    overFlow: "VXLAN",
    vni: 7,
    port: 4789,
    routeQuota: 400,
    routeGraceSeconds: 60,
  });
  assert.deepEqual(warnings, []);
  assert.equal(config.accessKeyId?.reveal(), "LTAI0000");
  assert.equal(config.accessKeySecret?.reveal(), "very secret");
  assert.equal(config.securityToken?.reveal(), "a token");
  assert.equal(config.ramRole, "node-role");
  assert.deepEqual(config.routeTableIds, ["vtb-1", "vtb-2"]);
  assert.equal(config.regionId, "cn-hangzhou");
  assert.equal(config.vpcId, "vpc-1");
  assert.equal(config.resyncSeconds, 30);
  assert.equal(config.sourceDestCheck, "ignore");
  assert.equal(config.overflow, "vxlan");
  assert.equal(config.vni, 7);
  assert.equal(config.port, 4789);
  assert.equal(config.routeQuota, 400);
  assert.equal(config.routeGraceSeconds, 60);
  assert.doesNotMatch(`${Deno.inspect(config)} ${JSON.stringify(config)}`, /very secret|a token/);
});

Deno.test("aliVpc.parseConfig() takes one table as text, as upstream's empty keys as absent", () => {
  const { config } = aliVpc.parseConfig({
    Type: "ali-vpc",
    RouteTableID: "vtb-1",
    AccessKeyID: "",
    AccessKeySecret: "",
  });
  assert.deepEqual(config, { ...DEFAULTS, routeTableIds: ["vtb-1"] });
});

Deno.test("aliVpc.parseConfig() takes half an AccessKey for none, as upstream does, and says so", () => {
  for (const [given, other] of [["ID", "Secret"], ["Secret", "ID"]]) {
    const { config, warnings } = aliVpc.parseConfig({ [`AccessKey${given}`]: "canary" });
    assert.deepEqual(config, { ...DEFAULTS, routeTableIds: [] });
    assert.deepEqual(warnings, [
      `Backend.AccessKey${given} has no effect without Backend.AccessKey${other}; credentials ` +
      "are looked for elsewhere",
    ]);
  }
  // A token belongs to a key, so without a whole one it is a fault.
  assert.throws(() => aliVpc.parseConfig({ AccessKeyID: "LTAI0000", SecurityToken: "token" }));
});

Deno.test("aliVpc.parseConfig() names every fault and quotes no secret", () => {
  assert.throws(
    () =>
      aliVpc.parseConfig({
        AccessKeyID: ["canary-id"],
        AccessKeySecret: "only-the-secret",
        SecurityToken: ["canary-token"],
        RouteTableID: 7,
        RegionID: "cn hangzhou",
        VpcID: "vtb-1",
        ResyncSeconds: 0,
        SourceDestCheck: true,
        RamRole: "a/b",
        Overflow: "ipip",
        VNI: -1,
        Port: 65_536,
        RouteQuota: 0,
        RouteGraceSeconds: 59,
      }),
    (error) => {
      assert(error instanceof ConfigError);
      for (
        const key of [
          "AccessKeyID",
          "SecurityToken",
          "RouteTableID",
          "RegionID",
          "VpcID",
          "ResyncSeconds",
          "SourceDestCheck",
          "RamRole",
          "Overflow",
          "VNI",
          "Port",
          "RouteQuota",
          "RouteGraceSeconds",
        ]
      ) {
        assert.match(error.message, new RegExp(key), `${key} is not named`);
      }
      assert.doesNotMatch(error.message, /only-the-secret|canary-/);
      return true;
    },
  );
  for (const bad of [["vtb-1", "rtb-2"], [], ["vtb-1", ""], { id: "vtb-1" }]) {
    assert.throws(() => aliVpc.parseConfig({ RouteTableID: bad }), /RouteTableID/);
  }
});

Deno.test("aliVpc.parseConfig() warns of an unknown key with the nearest one", () => {
  const { warnings } = aliVpc.parseConfig({ Type: "ali-vpc", RouteTabelID: "vtb-1" });
  assert.equal(warnings.length, 1);
  assert.match(warnings[0]!, /RouteTabelID.*RouteTableID/);
});

Deno.test("aliVpc.announce() publishes the address as upstream does, and whose it is", () => {
  const { config } = aliVpc.parseConfig({ Type: "ali-vpc" });
  const attributes = aliVpc.announce(config, host, facts);
  assert.equal(
    encodeLeaseValue(attributes),
    '{"PublicIP":"192.168.1.11","PublicIPv6":null,"BackendData":{"InstanceID":"i-a",' +
      '"NetworkInterfaceID":"eni-a","VpcID":"vpc-1","VSwitchID":"vsw-1"}}',
  );
  const { routeTableIds: _, ...claim } = facts;
  assert.deepEqual(readAliVpcClaim({ attributes }), claim);
});

Deno.test("readAliVpcClaim() takes hosts of upstream as they are, and names what it cannot read", () => {
  const good = {
    instanceid: "i-1",
    NETWORKINTERFACEID: "eni-1",
    VpcId: "vpc-1",
    VSwitchID: "vsw-1",
  };
  const read = (backendData: Json | undefined, backendType = "") =>
    readAliVpcClaim({
      attributes: { backendType, ...(backendData === undefined ? {} : { backendData }) },
    });
  const claim = {
    instanceId: "i-1",
    networkInterfaceId: "eni-1",
    vpcId: "vpc-1",
    vSwitchId: "vsw-1",
  };
  assert.deepEqual(read(good), claim);
  assert.deepEqual(read({ ...good, Later: [1] }), claim, "newer versions may say more");
  assert.equal(read(undefined), undefined);
  assert.equal(read(null), undefined);
  assert.equal(read(good, "vxlan"), undefined);
  for (const bad of ["i-1", 7, true, [good]] as Json[]) {
    assert.match(String(read(bad)), /no object/);
  }
  for (const bad of ["i-1\n", "", "x", "i-1 OR 1", "i-".padEnd(200, "a"), 7, null, {}] as Json[]) {
    assert.equal(
      read({ ...good, instanceid: bad }),
      "its backend data has no usable InstanceID",
      JSON.stringify(bad),
    );
  }
  assert.match(String(read({})), /InstanceID, NetworkInterfaceID, VpcID, VSwitchID/);
});

Deno.test("aliVpc.plan() wants the own subnet in each table and the check off", () => {
  const { config } = aliVpc.parseConfig({ Type: "ali-vpc" });
  const peer: Lease = {
    ...own,
    key: "10.24.9.0-24",
    subnet: { ipv4: Prefix.parse("10.24.9.0/24") },
  };
  assert.deepEqual(planAll(aliVpc, { config, network, host, facts, own, peers: [peer] }), {
    cloudRoutes: [
      { routeTableId: "vtb-1", destination: own.subnet.ipv4, instanceId: "i-a" },
      { routeTableId: "vtb-2", destination: own.subnet.ipv4, instanceId: "i-a" },
    ],
    sourceDestChecks: [{ networkInterfaceId: "eni-a", enabled: false }],
  });
});

Deno.test("aliVpc.plan() leaves the check alone where the operator wants that", () => {
  const { config } = aliVpc.parseConfig({ Type: "ali-vpc", SourceDestCheck: "ignore" });
  assert.deepEqual(
    planAll(aliVpc, { config, network, host, facts, own, peers: [] }).sourceDestChecks,
    [],
  );
});

/** Host `n` of a cluster: 10.0.1.n, 10.24.n.0/24; of upstream's kind with data `null`. */
function lease(n: number, backendData: Json = claimData(n)): Lease {
  return {
    key: `10.24.${n}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.24.${n}.0/24`) },
    attributes: {
      publicIp: Address.parse(`10.0.1.${n}`),
      backendType: "",
      ...(backendData === null ? {} : { backendData }),
    },
  };
}

function claimData(n: number): Json {
  return {
    InstanceID: `i-${n}`,
    NetworkInterfaceID: `eni-${n}`,
    VpcID: "vpc-1",
    VSwitchID: "vsw-1",
  };
}

/** What host `n` plans. */
function planOf(
  n: number,
  leases: readonly Lease[],
  overflow: { readonly keys: readonly string[]; readonly vtep: boolean } | undefined,
  backend: Readonly<Record<string, unknown>> = { Overflow: "vxlan" },
) {
  const { config } = aliVpc.parseConfig({ Type: "ali-vpc", ...backend });
  const address = Address.parse(`10.0.1.${n}`);
  return planAll(aliVpc, {
    config,
    network: { ...network, ipv4: { network: Prefix.parse("10.24.0.0/16") } as FamilyConfig },
    host: { link: "eth0", mtuBytes: 1500, address, publicIp: address },
    facts: {
      ...facts,
      instanceId: `i-${n}`,
      ...(overflow ? { overflow: { ...overflow, keys: new Set(overflow.keys) } } : {}),
    },
    own: leases.find(({ key }) => key === lease(n).key)!,
    peers: leases.filter(({ key }) => key !== lease(n).key),
  });
}

/** The kernel's part of a plan, one line per object. */
function kernelLines(state: DesiredState): string[] {
  const { links = [], addresses = [], sysctls = [], neighbors = [], fdb = [], routes = [] } = state;
  return [
    ...links.map(({ name, mtuBytes, mac, vxlan }) =>
      `link ${name} mtu ${mtuBytes} mac ${mac} id ${vxlan?.vni} dev ${vxlan?.underlay} ` +
      `local ${vxlan?.local} port ${vxlan?.port}`
    ),
    ...addresses.map(({ link, address }) => `address ${address} dev ${link}`),
    ...sysctls.map(({ name, value, accepts, raisedBy }) =>
      `sysctl ${name}=${value} or ${accepts}, raised by ${raisedBy}`
    ),
    ...neighbors.map(({ link, address, mac }) => `neighbour ${address} at ${mac} dev ${link}`),
    ...fdb.map(({ link, mac, remote }) => `fdb ${mac} to ${remote} dev ${link}`),
    ...routes.map(({ destination, gateway, link, onlink }) =>
      `route ${destination} via ${gateway} dev ${link}${onlink ? " onlink" : ""}`
    ),
  ];
}

Deno.test("aliVpc.plan() leads to hosts without route entries through a VXLAN device", () => {
  const leases = [1, 2, 3, 4].map((n) => lease(n));
  const overflow = { keys: ["10.24.3.0-24"], vtep: true };
  const rpFilter = (link: string) =>
    `sysctl net/ipv4/conf/${link}/rp_filter=2 or 0, raised by net/ipv4/conf/all/rp_filter`;
  const device = (n: number) => [
    `link flannel.1 mtu 1450 mac 0e:a1:0a:00:01:0${n} id 1 dev eth0 local 10.0.1.${n} port 8472`,
    `address 10.24.${n}.0/32 dev flannel.1`,
    rpFilter("flannel.1"),
    rpFilter("eth0"),
  ];
  assert.deepEqual(kernelLines(planOf(1, leases, overflow)), [
    ...device(1),
    "neighbour 10.24.3.0 at 0e:a1:0a:00:01:03 dev flannel.1",
    "fdb 0e:a1:0a:00:01:03 to 10.0.1.3 dev flannel.1",
    "route 10.24.3.0/24 via 10.24.3.0 dev flannel.1 onlink",
  ]);
  const others = [1, 2, 4];
  assert.deepEqual(kernelLines(planOf(3, leases, overflow)), [
    ...device(3),
    ...others.map((n) => `neighbour 10.24.${n}.0 at 0e:a1:0a:00:01:0${n} dev flannel.1`),
    ...others.map((n) => `fdb 0e:a1:0a:00:01:0${n} to 10.0.1.${n} dev flannel.1`),
    ...others.map((n) => `route 10.24.${n}.0/24 via 10.24.${n}.0 dev flannel.1 onlink`),
  ]);
  // With nobody left to reach through it, the device waits for those who still send by it.
  assert.deepEqual(kernelLines(planOf(1, leases, { keys: [], vtep: true })), device(1));
  // The route entry is wanted as ever: whoever writes it knows whether there is room.
  assert.equal(planOf(3, leases, overflow).cloudRoutes?.length, 2);
  assert.match(
    kernelLines(planOf(1, leases, overflow, { Overflow: "vxlan", VNI: 7, Port: 4789 }))[0]!,
    /^link flannel\.7 .* id 7 .* port 4789$/,
  );
});

Deno.test("aliVpc.plan() wants nothing of the kernel unless a host needs it, and it may", () => {
  const leases = [1, 2].map((n) => lease(n));
  const keys = ["10.24.2.0-24"];
  for (
    const state of [
      planOf(1, leases, undefined),
      planOf(1, leases, { keys, vtep: false }),
      planOf(1, leases, { keys, vtep: true }, {}),
      planOf(1, leases, { keys, vtep: true }, { Overflow: "none" }),
    ]
  ) assert.deepEqual(Object.keys(state), ["cloudRoutes", "sourceDestChecks"]);
});

Deno.test("aliVpc.plan() leaves upstream's hosts to the VPC, and names them where that is one-way", () => {
  const leases = [lease(1), lease(2, null), lease(3, { InstanceID: 3 }), lease(4)];
  const inTable = planOf(1, leases, { keys: ["10.24.4.0-24"], vtep: true });
  assert.deepEqual(inTable.routes?.map(({ destination }) => String(destination)), ["10.24.4.0/24"]);
  assert.equal(inTable.skippedPeers, undefined);
  const overflowing = planOf(4, leases, { keys: ["10.24.4.0-24"], vtep: true });
  assert.deepEqual(
    overflowing.routes?.map(({ destination }) => String(destination)),
    ["10.24.1.0/24"],
  );
  assert.deepEqual(overflowing.skippedPeers?.map(({ key, reason }) => `${key}: ${reason}`), [
    "10.24.2.0-24: it is no host of ours, so it does not know this one's VXLAN device",
    "10.24.3.0-24: its backend data has no usable InstanceID, NetworkInterfaceID, VpcID, VSwitchID",
  ]);
});

Deno.test("aliVpc.plan() gives the device the offload that the facts say", () => {
  const { config } = aliVpc.parseConfig({ Overflow: "vxlan" });
  const state = planAll(aliVpc, {
    config,
    network: { ...network, ipv4: { network: Prefix.parse("10.24.0.0/16") } as FamilyConfig },
    host: { ...host, address: host.publicIp },
    facts: { ...facts, overflow: { keys: new Set<string>(), vtep: true }, txChecksum: false },
    own,
    peers: [],
  });
  assert.deepEqual(state.offloads, [{ link: "flannel.1", txChecksum: false }]);
});

Deno.test("aliVpc.checkNetwork() refuses what makes no link name, where one is made", () => {
  const families = { ipv4: { network: Prefix.parse("10.24.0.0/16") } as FamilyConfig };
  const faults = (backend: Readonly<Record<string, unknown>>) =>
    aliVpc.checkNetwork!(aliVpc.parseConfig(backend).config, families);
  assert.deepEqual(faults({ VNI: 16_000_000 }), []);
  assert.deepEqual(faults({ VNI: 9_999_999, Overflow: "vxlan" }), []);
  assert.match(faults({ VNI: 16_000_000, Overflow: "vxlan" }).join(), /at most 9999999/);
});

Deno.test("aliVpc.plan() of any two hosts agrees on the way between them", () => {
  const kinds = fc.constantFrom("routed", "overflow", "upstream", "garbage", "gone");
  fc.assert(fc.property(fc.array(kinds, { minLength: 2, maxLength: 9 }), (cluster) => {
    const numbered = cluster.map((kind, index) => ({ kind, n: index + 1 }));
    const isOurs = ({ kind }: { kind: string }) => kind === "routed" || kind === "overflow";
    const leases = numbered.filter(({ kind }) => kind !== "gone").map(({ kind, n }) =>
      kind === "upstream"
        ? lease(n, null)
        : kind === "garbage"
        ? lease(n, { InstanceID: [] })
        : lease(n)
    );
    const keys = numbered.filter(({ kind }) => kind === "overflow" || kind === "gone")
      .map(({ n }) => lease(n).key);
    const ours = numbered.filter(isOurs);
    const plans = new Map(
      ours.map(({ n }) => [n, planOf(n, leases, { keys, vtep: true })] as const),
    );
    const macs = new Set([...plans.values()].map(({ links }) => String(links?.[0]?.mac)));
    assert.equal(macs.size, ours.length, "a device's MAC is its own");
    for (const { n, kind } of ours) {
      const { neighbors = [], fdb = [], routes = [], skippedPeers = [] } = plans.get(n)!;
      const wanted = ours.filter((peer) =>
        peer.n !== n && (kind === "overflow" || peer.kind === "overflow")
      ).map((peer) => peer.n);
      assert.deepEqual(routes.map(({ destination }) => destination.address.toBytes()[2]), wanted);
      assert.deepEqual(neighbors.map(({ address }) => address.toBytes()[2]), wanted);
      assert.deepEqual(fdb.map(({ remote }) => remote.toBytes()[3]), wanted);
      for (const peer of wanted) {
        // And the other end answers to what is sent there.
        const mac = String(plans.get(peer)!.links?.[0]?.mac);
        assert.ok(neighbors.some((each) => String(each.mac) === mac));
        const back = plans.get(peer)!.routes!.map(({ destination }) => String(destination));
        assert.ok(back.includes(`10.24.${n}.0/24`), `${peer} does not answer ${n}`);
      }
      const strangers = leases.length - ours.length;
      assert.equal(skippedPeers.length, kind === "overflow" ? strangers : 0);
    }
  }));
});

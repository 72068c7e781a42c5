import assert from "node:assert/strict";
import { ConfigError } from "../errors.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import { aliVpc, readAliVpcClaim } from "./ali_vpc.ts";

const host = { link: "eth0", mtuBytes: 1500, publicIp: Address.parse("192.168.1.11") };
const network = { enableNFTables: false, backend: { type: "ali-vpc", options: {} } };
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

Deno.test("aliVpc.parseConfig() names every fault and quotes no secret", () => {
  assert.throws(
    () =>
      aliVpc.parseConfig({
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
      assert.doesNotMatch(error.message, /only-the-secret|canary-token/);
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
  assert.deepEqual(aliVpc.plan({ config, network, host, facts, own, peers: [peer] }), {
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
    aliVpc.plan({ config, network, host, facts, own, peers: [] }).sourceDestChecks,
    [],
  );
});

import type { CloudConfig } from "./config.ts";

/** Ids of {@linkcode exampleConfig}, for tests to name. */
export const EXAMPLE = {
  regionId: "cn-hangzhou",
  accountId: "1234567890123456",
  accessKeyId: "LTAI5tExampleKeyId000001",
  accessKeySecret: "example-secret-not-to-be-logged",
  roleName: "flanneld-node",
  roleArn: "acs:ram::1234567890123456:role/flanneld-node",
  oidcProviderArn: "acs:ram::1234567890123456:oidc-provider/ack-rrsa",
  vpcId: "vpc-main",
  systemTableId: "vtb-main",
  /** Bound to the second vSwitch. */
  customTableId: "vtb-custom-h",
  gatewayTableId: "vtb-gateway",
  vSwitchIds: ["vsw-b", "vsw-h"],
  /** `i-node-1` and `i-node-2` in the first vSwitch, `i-node-3` in the second. */
  instanceIds: ["i-node-1", "i-node-2", "i-node-3"],
  foreignInstanceId: "i-nat",
  otherVpcId: "vpc-other",
  otherInstanceId: "i-other",
} as const;

/**
 * A cloud as a user's is: one VPC with two blocks, two vSwitches in two zones, the system table, a
 * custom table bound to the second vSwitch, further tables (more than one page of them) and a
 * gateway table, routes of other people and services, and a second VPC in another region that must
 * never be touched. `change` replaces whole members.
 */
export function exampleConfig(change: Partial<CloudConfig> = {}): CloudConfig {
  return {
    regionId: EXAMPLE.regionId,
    accountId: EXAMPLE.accountId,
    vpcs: [
      {
        id: EXAMPLE.vpcId,
        cidr: "192.168.0.0/16",
        secondaryCidrs: ["172.31.0.0/16"],
        userCidrs: ["100.32.0.0/16"],
        ipv6Cidr: "2408:4005:3c5:6e00::/56",
        gateways: [
          { id: "ngw-1", type: "NatGateway" },
          { id: "vpn-1", type: "VpnGateway" },
          { id: "ri-1", type: "RouterInterface" },
          { id: "ri-2", type: "RouterInterface" },
          { id: "tr-attach-1", type: "Attachment" },
        ],
      },
      { id: EXAMPLE.otherVpcId, regionId: "cn-shanghai", cidr: "10.0.0.0/8" },
    ],
    routeTables: [
      // More than one page of ten, and the system table is not on the first.
      ...Array.from({ length: 10 }, (_, n) => ({
        id: `vtb-spare-${n}`,
        vpcId: EXAMPLE.vpcId,
        name: `spare ${n}`,
      })),
      {
        id: EXAMPLE.systemTableId,
        vpcId: EXAMPLE.vpcId,
        type: "System",
        entries: [
          {
            destination: "0.0.0.0/0",
            nextHops: [{ type: "Instance", id: EXAMPLE.foreignInstanceId }],
            name: "internet",
          },
          { destination: "10.99.0.0/16", nextHops: [{ type: "VpnGateway", id: "vpn-1" }] },
          {
            destination: "10.98.0.0/16",
            nextHops: [
              { type: "RouterInterface", id: "ri-1", weight: 100 },
              { type: "RouterInterface", id: "ri-2", weight: 100 },
            ],
          },
          {
            destination: "10.97.0.0/16",
            nextHops: [{ type: "Attachment", id: "tr-attach-1" }],
            serviceType: "TR",
          },
          {
            destination: "10.96.0.0/16",
            type: "CEN",
            nextHops: [{ type: "Attachment", id: "tr-attach-1" }],
          },
          {
            destination: "10.95.1.0/24",
            nextHops: [{ type: "Instance", id: EXAMPLE.foreignInstanceId }],
            name: "somebody else's",
          },
        ],
      },
      {
        id: EXAMPLE.customTableId,
        vpcId: EXAMPLE.vpcId,
        name: "zone h",
        entries: [
          { destination: "0.0.0.0/0", nextHops: [{ type: "NatGateway", id: "ngw-1" }] },
        ],
      },
      { id: EXAMPLE.gatewayTableId, vpcId: EXAMPLE.vpcId, gatewayId: "ipv4gw-1" },
    ],
    vSwitches: [
      {
        id: EXAMPLE.vSwitchIds[0],
        vpcId: EXAMPLE.vpcId,
        zoneId: "cn-hangzhou-b",
        cidr: "192.168.1.0/24",
        ipv6Cidr: "2408:4005:3c5:6e01::/64",
        routeTableId: EXAMPLE.systemTableId,
      },
      {
        id: EXAMPLE.vSwitchIds[1],
        vpcId: EXAMPLE.vpcId,
        zoneId: "cn-hangzhou-h",
        cidr: "192.168.2.0/24",
        ipv6Cidr: "2408:4005:3c5:6e02::/64",
        routeTableId: EXAMPLE.customTableId,
      },
      { id: "vsw-other", vpcId: EXAMPLE.otherVpcId, cidr: "10.1.0.0/16" },
    ],
    instances: [
      {
        id: EXAMPLE.instanceIds[0],
        vSwitchId: EXAMPLE.vSwitchIds[0],
        privateIp: "192.168.1.11",
        publicIp: "47.96.1.1",
        ipv6s: ["2408:4005:3c5:6e01::11"],
        mac: "00:16:3e:00:00:11",
        ramRole: EXAMPLE.roleName,
      },
      {
        id: EXAMPLE.instanceIds[1],
        vSwitchId: EXAMPLE.vSwitchIds[0],
        privateIp: "192.168.1.12",
        mac: "00:16:3e:00:00:12",
      },
      {
        id: EXAMPLE.instanceIds[2],
        vSwitchId: EXAMPLE.vSwitchIds[1],
        privateIp: "192.168.2.13",
        mac: "00:16:3e:00:00:13",
        ramRole: EXAMPLE.roleName,
      },
      {
        id: EXAMPLE.foreignInstanceId,
        vSwitchId: EXAMPLE.vSwitchIds[0],
        privateIp: "192.168.1.254",
        mac: "00:16:3e:00:00:fe",
        sourceDestCheck: false,
      },
      { id: EXAMPLE.otherInstanceId, vSwitchId: "vsw-other", privateIp: "10.1.0.5" },
    ],
    accessKeys: [{ id: EXAMPLE.accessKeyId, secret: EXAMPLE.accessKeySecret }],
    roles: [{ name: EXAMPLE.roleName, oidcProviderArns: [EXAMPLE.oidcProviderArn] }],
    ...change,
  };
}

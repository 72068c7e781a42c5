import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import { parseNetworkConfig } from "../config/network_config.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import type { Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type UnderlayPath } from "../state/mod.ts";
import { hostGw } from "./host_gw.ts";

const address = (text: string) => Address.parse(text);
const host = {
  link: "eth0",
  mtuBytes: 1500,
  address: address("192.0.2.10"),
  addressV6: address("2001:db8::10"),
  publicIp: address("192.0.2.10"),
  publicIpv6: address("2001:db8::10"),
};
const { config: network } = parseNetworkConfig(JSON.stringify({
  Network: "10.244.0.0/16",
  EnableIPv6: true,
  IPv6Network: "fd00:1::/56",
  Backend: { Type: "host-gw" },
}));

function lease(n: number, attributes: Partial<Lease["attributes"]> = {}): Lease {
  return {
    key: `10.244.${n}.0-24`,
    subnet: {
      ipv4: Prefix.parse(`10.244.${n}.0/24`),
      ipv6: Prefix.parse(`fd00:1:0:${n}::/64`),
    },
    attributes: {
      publicIp: address(`192.0.2.${n}`),
      publicIpv6: address(`2001:db8::${n}`),
      backendType: "host-gw",
      ...attributes,
    },
  };
}

function plan(peers: readonly Lease[], paths: Record<string, UnderlayPath>) {
  return planAll(hostGw, {
    config: {},
    network,
    host,
    facts: { paths: new Map(Object.entries(paths)) },
    own: lease(10),
    peers,
  });
}

Deno.test("hostGw has no keys, and takes nothing from the MTU", () => {
  assert.deepEqual(hostGw.parseConfig({ type: "host-gw" }), { config: {}, warnings: [] });
  assert.equal(hostGw.parseConfig({ Type: "host-gw", DirectRouting: true }).warnings.length, 1);
  assert.equal(hostGw.overheadBytes({}), 0);
});

Deno.test("hostGw.announce() writes upstream's bytes", () => {
  const facts = { paths: new Map() };
  assert.equal(
    encodeLeaseValue(hostGw.announce({}, host, facts)),
    '{"PublicIP":"192.0.2.10","PublicIPv6":"2001:db8::10","BackendType":"host-gw"}',
  );
  const { addressV6: _, publicIpv6: __, ...v4 } = host;
  assert.equal(
    encodeLeaseValue(hostGw.announce({}, v4, facts)),
    '{"PublicIP":"192.0.2.10","PublicIPv6":null,"BackendType":"host-gw"}',
  );
});

Deno.test("hostGw.announce() refuses a public address that is not the interface's", () => {
  assert.throws(
    () => hostGw.announce({}, { ...host, publicIp: address("198.51.100.1") }, { paths: new Map() }),
    /public address 198\.51\.100\.1 differs from 192\.0\.2\.10 of interface eth0/,
  );
});

Deno.test("hostGw.plan() routes each family of on-link peers, names the others", () => {
  const direct = { direct: true, link: "eth0" } as const;
  const { routes, skippedPeers, ...rest } = plan([
    lease(1),
    lease(2),
    lease(3),
    lease(4),
    lease(5, { backendType: "vxlan" }),
    lease(6),
  ], {
    "192.0.2.1": direct,
    "2001:db8::1": direct,
    "192.0.2.2": { direct: false, reason: "through gateway 192.0.2.254 on eth0" },
    "2001:db8::2": direct,
    "192.0.2.3": { direct: true, link: "eth1" },
    "2001:db8::3": { direct: false, reason: "there is no route to it" },
    // As upstream, a tunnel as external interface: whatever is behind it takes the packets.
    "192.0.2.4": { direct: false, link: "eth0", reason: "link eth0 is point-to-point" },
    "2001:db8::4": direct,
  });
  assert.deepEqual(rest, {});
  assert.deepEqual(
    routes?.map(({ destination, gateway, link, protocol, onlink }) =>
      `${destination} via ${gateway} dev ${link} ${protocol === ROUTE_PROTOCOL} ${onlink}`
    ).toSorted(),
    [
      "10.244.1.0/24 via 192.0.2.1 dev eth0 true undefined",
      "10.244.4.0/24 via 192.0.2.4 dev eth0 true undefined",
      "fd00:1:0:1::/64 via 2001:db8::1 dev eth0 true undefined",
      "fd00:1:0:2::/64 via 2001:db8::2 dev eth0 true undefined",
      "fd00:1:0:4::/64 via 2001:db8::4 dev eth0 true undefined",
    ],
  );
  assert.deepEqual(skippedPeers?.map(({ key, reason }) => `${key}: ${reason}`).toSorted(), [
    "10.244.2.0-24: 192.0.2.2 cannot be next hop on eth0: through gateway 192.0.2.254 on eth0",
    "10.244.3.0-24: 192.0.2.3 cannot be next hop on eth0: it is on link eth1",
    "10.244.3.0-24: 2001:db8::3 cannot be next hop on eth0: there is no route to it",
    "10.244.5.0-24: its backend is vxlan, not host-gw",
    "10.244.5.0-24: its backend is vxlan, not host-gw",
  ]);
});

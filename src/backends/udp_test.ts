import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import { parseNetworkConfig } from "../config/network_config.ts";
import { ConfigError } from "../errors.ts";
import type { Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import { podMtuBytes } from "./backend.ts";
import { udp } from "./udp.ts";

const HOST = {
  link: "eth0",
  mtuBytes: 1500,
  address: Address.parse("192.0.2.1"),
  publicIp: Address.parse("198.51.100.1"),
  addressV6: Address.parse("2001:db8::1"),
  publicIpv6: Address.parse("2001:db8::1"),
};
const { config: IPV4 } = parseNetworkConfig('{"Network":"10.24.0.0/16"}');
const { config: DUAL } = parseNetworkConfig(
  '{"Network":"10.24.0.0/16","EnableIPv6":true,"IPv6Network":"fd00:24::/48"}',
);

function lease(number: number, attributes: Partial<Lease["attributes"]> = {}): Lease {
  return {
    key: `10.24.${number}.0-24&fd00:24:0:${number}::-64`,
    subnet: {
      ipv4: Prefix.parse(`10.24.${number}.0/24`),
      ipv6: Prefix.parse(`fd00:24:0:${number}::/64`),
    },
    attributes: {
      publicIp: Address.parse(`192.0.2.${number}`),
      publicIpv6: Address.parse(`2001:db8::${number}`),
      backendType: "",
      ...attributes,
    },
  };
}

function plan(network: typeof IPV4, peers: readonly Lease[], options = {}) {
  const { config } = udp.parseConfig(options);
  return planAll(udp, { config, network, host: HOST, facts: undefined, own: lease(1), peers });
}

Deno.test("udp.parseConfig() has upstream's default, and knows its own keys", () => {
  assert.deepEqual(udp.parseConfig({ Type: "udp" }), {
    config: { port: 8285, allowAnySource: false, natTraversal: false },
    warnings: [],
  });
  assert.deepEqual(
    udp.parseConfig({ port: 9000, allowanysource: true, nattraversal: true }).config,
    { port: 9000, allowAnySource: true, natTraversal: true },
  );
  assert.equal(udp.parseConfig({ Port: 0 }).config.port, 8285, "0 is Go's nothing");
  assert.throws(() => udp.parseConfig({ Port: -1, NATTraversal: "yes" }), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.equal(error.faults.length, 2);
    return true;
  });
});

Deno.test("udp publishes the public addresses alone, as upstream does", () => {
  const { config } = udp.parseConfig({});
  assert.deepEqual(udp.announce(config, HOST, undefined), {
    publicIp: HOST.publicIp,
    publicIpv6: HOST.publicIpv6,
    backendType: "",
  });
});

Deno.test("udp leaves room for the outer headers of the largest family", () => {
  const { config } = udp.parseConfig({});
  assert.equal(podMtuBytes(udp, config, IPV4, HOST), 1472);
  assert.equal(podMtuBytes(udp, config, DUAL, HOST), 1452);
});

Deno.test("udp.plan() is upstream's device and route, and each peer's address at the own port", () => {
  const state = plan(IPV4, [lease(2), lease(3)], { Port: 9000 });
  assert.deepEqual(state.links, [{ name: "flannel0", kind: "tun", mtuBytes: 1472 }]);
  assert.deepEqual(state.addresses?.map(({ link, address }) => `${link} ${address}`), [
    "flannel0 10.24.1.0/32",
  ]);
  assert.deepEqual(
    state.routes?.map(({ destination, link, scope }) => `${destination} ${link} ${scope}`),
    ["10.24.0.0/16 flannel0 undefined"],
  );
  // Bound where traffic leaves from, whatever others call it.
  assert.deepEqual(state.udpSockets, [{ address: HOST.address, port: 9000 }]);
  assert.deepEqual(
    state.forwarding?.map(({ destination, address, port }) => `${destination} ${address} ${port}`),
    ["10.24.2.0/24 192.0.2.2 9000", "10.24.3.0/24 192.0.2.3 9000"],
  );
});

Deno.test("udp.plan() carries IPv6 over IPv6", () => {
  const state = plan(DUAL, [lease(2)]);
  assert.equal(state.links?.[0]?.mtuBytes, 1452);
  assert.deepEqual(state.addresses?.map(({ address }) => `${address}`), [
    "10.24.1.0/32",
    "fd00:24:0:1::/128",
  ]);
  assert.deepEqual(
    state.forwarding?.map(({ destination, address }) => `${destination} ${address}`),
    ["10.24.2.0/24 192.0.2.2", "fd00:24:0:2::/64 2001:db8::2"],
  );
  assert.deepEqual(state.udpSockets?.map(({ address }) => `${address}`), [
    "192.0.2.1",
    "2001:db8::1",
  ]);
});

Deno.test("udp.plan() leaves out peers it cannot reach, and says why", () => {
  const state = plan(IPV4, [lease(2, { backendType: "vxlan" }), lease(3), {
    ...lease(4),
    attributes: { backendType: "" },
  }]);
  assert.deepEqual(state.forwarding?.map(({ destination }) => `${destination}`), ["10.24.3.0/24"]);
  assert.equal(state.skippedPeers?.length, 2);
});

import assert from "node:assert/strict";
import { type NetworkConfig, parseNetworkConfig } from "../config/network_config.ts";
import { type Link, type LinkAddress, type Route, TABLE_MAIN } from "../kernel/netlink.ts";
import { Address, InterfaceAddress, Prefix } from "../net/mod.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
import { linkAlias } from "../kernel/kernel_tables.ts";
import { type HostFacts, nameServers, planHostNeeds } from "./host_needs.ts";

const ALIAS = linkAlias("/run/flannel/subnet.env");

const links: readonly Link[] = [
  ["lo", undefined],
  ["eth0", undefined],
  ["eth1", undefined],
  ["docker0", "bridge"],
  ["cni0", "bridge"],
  ["flannel.1", "vxlan"],
  ["flannel.2", "vxlan"],
  ["cali1", "veth"],
].map(([name, kind], index) => ({
  index: index + 1,
  name: name!,
  mtuBytes: 1500,
  up: true,
  running: true,
  loopback: name === "lo",
  withoutNeighbors: false,
  ...(kind === undefined ? {} : { kind }),
  ...(name === "flannel.2" ? { alias: linkAlias("/run/other/subnet.env") } : {}),
}));

const indexOf = (name: string) => links.find((link) => link.name === name)!.index;

function address(link: string, text: string): LinkAddress {
  return {
    linkIndex: indexOf(link),
    address: InterfaceAddress.parse(text),
    scope: "universe",
    permanent: true,
    temporary: false,
    deprecated: false,
    tentative: false,
    dadFailed: false,
  } as LinkAddress;
}

function route(text: string, link: string, more: Partial<Route> = {}): Route {
  return {
    destination: Prefix.parse(text),
    type: "unicast",
    table: TABLE_MAIN,
    protocol: 3,
    scope: "universe",
    tos: 0,
    metric: 0,
    linkIndex: indexOf(link),
    onlink: false,
    dead: false,
    nextHops: [],
    others: [],
    ...more,
  };
}

function needs(
  json: Record<string, unknown>,
  facts: Partial<HostFacts>,
  own?: string,
): { needs(subnet: string): string | undefined; occupied(subnet: string): string | undefined } {
  const network: NetworkConfig =
    parseNetworkConfig(JSON.stringify({ ...json, Backend: { Type: "vxlan" } })).config;
  const planned = planHostNeeds(
    { links, addresses: [], routes: [], services: [], ...facts },
    {
      network,
      own: own === undefined ? undefined : { ipv4: Prefix.parse(own) },
      externalLink: "eth0",
      alias: ALIAS,
    },
  );
  return {
    needs: (subnet) => planned.needs.find(Prefix.parse(subnet))?.what,
    occupied: (subnet) => planned.occupied.find(Prefix.parse(subnet))?.what,
  };
}

const NETWORK = { Network: "10.24.0.0/16" };

Deno.test("a connected network is needed, whether it is larger or smaller than a subnet", () => {
  const found = needs(NETWORK, {
    addresses: [
      address("lo", "127.0.0.1/8"),
      address("eth0", "192.0.2.7/24"),
      address("docker0", "10.24.16.1/20"),
      address("eth1", "10.24.5.129/25"),
      address("eth1", "10.24.7.3/32"),
    ],
  });
  assert.equal(found.needs("10.24.17.0/24"), "10.24.16.0/20 of docker0");
  assert.equal(found.needs("10.24.5.0/24"), "10.24.5.128/25 of eth1");
  assert.equal(found.needs("10.24.7.0/24"), "10.24.7.3 of eth1");
  assert.equal(found.needs("10.24.6.0/24"), undefined);
});

Deno.test("of a network that holds all there is to lease, the addresses in use alone are needed", () => {
  const flat = {
    Network: "10.0.0.0/8",
    SubnetLen: 20,
    SubnetMin: "10.10.0.0",
    SubnetMax: "10.99.0.0",
  };
  const facts = {
    addresses: [address("eth0", "10.240.0.3/8")],
    routes: [route("0.0.0.0/0", "eth0", { gateway: Address.parse("10.20.0.1") })],
    services: [{ address: Address.parse("10.30.0.2"), what: "the name server 10.30.0.2" }],
  };
  const found = needs(flat, facts);
  assert.equal(found.needs("10.10.0.0/20"), undefined);
  assert.equal(found.needs("10.240.0.0/20"), "10.240.0.3 of eth0");
  assert.equal(found.needs("10.20.0.0/20"), "the gateway 10.20.0.1 of the default route");
  assert.equal(found.needs("10.30.0.0/20"), "the name server 10.30.0.2");
  assert.equal(found.needs("10.0.0.0/8"), "10.0.0.0/8 of eth0");
  const bridge = needs(flat, { addresses: [address("docker0", "10.240.0.3/8")] });
  assert.equal(bridge.needs("10.10.0.0/20"), "10.0.0.0/8 of docker0", "containers are anywhere");
});

Deno.test("the pods' own bridge and routes, and flannel's own links, are nobody else's", () => {
  const facts = {
    addresses: [
      address("cni0", "10.24.5.1/24"),
      address("flannel.1", "10.24.5.0/32"),
      address("flannel.2", "10.24.9.0/32"),
    ],
    routes: [
      route("10.24.5.7/32", "cali1", { scope: "link" }),
      route("10.24.6.0/24", "flannel.1", { gateway: Address.parse("10.24.6.0"), onlink: true }),
      route("10.24.7.128/25", "eth0", { protocol: ROUTE_PROTOCOL }),
    ],
  };
  const served = needs(NETWORK, facts, "10.24.5.0/24");
  for (const subnet of ["10.24.5.0/24", "10.24.6.0/24", "10.24.7.0/24"]) {
    assert.equal(served.occupied(subnet), undefined, subnet);
  }
  assert.equal(served.needs("10.24.9.0/24"), "10.24.9.0 of flannel.2", "another daemon's");
  const services = [{ address: Address.parse("10.24.5.1"), what: "the name server 10.24.5.1" }];
  const local = needs(NETWORK, { ...facts, services }, "10.24.5.0/24");
  assert.equal(local.needs("10.24.5.0/24"), undefined, "it is on the bridge");
  // The bridge of a subnet that was lost lingers while its pods live.
  assert.equal(needs(NETWORK, facts, "10.24.8.0/24").needs("10.24.5.0/24"), "10.24.5.0/24 of cni0");
  // A bridge with a mask too wide is still that of the own pods.
  const wide = { addresses: [address("cni0", "10.24.5.1/16")] };
  assert.equal(needs(NETWORK, wide, "10.24.5.0/24").needs("10.24.6.0/24"), undefined);
});

Deno.test("routes into the network count where they are more specific than a subnet", () => {
  const gateway = Address.parse("192.0.2.9");
  const found = needs(NETWORK, {
    routes: [
      route("10.0.0.0/8", "eth0", { gateway }),
      route("10.24.5.64/26", "eth1", { gateway }),
      route("10.24.6.0/24", "eth1", { gateway }),
      route("10.24.7.0/24", "eth1", { scope: "link" }),
    ],
  });
  assert.equal(found.needs("10.24.4.0/24"), undefined, "a larger one yields");
  assert.equal(found.needs("10.24.5.0/24"), "the route to 10.24.5.64/26");
  assert.equal(found.needs("10.24.6.0/24"), undefined, "upstream's route to a peer looks like it");
  assert.equal(found.occupied("10.24.6.0/24"), "the route to 10.24.6.0/24");
  assert.equal(found.needs("10.24.7.0/24"), "the route to 10.24.7.0/24");
});

Deno.test("nameServers() reads resolv.conf", () => {
  const text =
    "# nameserver 192.0.2.1\nsearch x\nnameserver 10.0.0.2\r\n nameserver fd00::53%eth0\n" +
    "nameserver junk\nnameserver 127.0.0.53\n";
  assert.deepEqual(nameServers(text, Address.tryParse).map(String), [
    "10.0.0.2",
    "fd00::53",
    "127.0.0.53",
  ]);
});

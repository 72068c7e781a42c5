import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import { parseNetworkConfig } from "../config/network_config.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import type { Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { UnderlayPath } from "../state/mod.ts";
import { ipip } from "./ipip.ts";

const address = (text: string) => Address.parse(text);
const host = {
  link: "eth0",
  mtuBytes: 1500,
  address: address("192.0.2.10"),
  publicIp: address("198.51.100.10"),
};
const { config: network } = parseNetworkConfig(
  '{"Network":"10.244.0.0/16","Backend":{"Type":"ipip"}}',
);

function lease(n: number): Lease {
  return {
    key: `10.244.${n}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.244.${n}.0/24`) },
    attributes: { publicIp: address(`192.0.2.${n}`), backendType: "ipip" },
  };
}

function plan(directRouting: boolean, paths: ReadonlyMap<string, UnderlayPath>) {
  return planAll(ipip, {
    config: { directRouting },
    network,
    host,
    facts: { paths },
    own: lease(9),
    peers: [lease(1), lease(2), lease(3)],
  });
}

Deno.test("ipip has upstream's key, overhead and lease, and carries IPv4 alone", () => {
  assert.deepEqual(ipip.parseConfig({ Type: "ipip" }).config, { directRouting: false });
  assert.deepEqual(ipip.parseConfig({ directrouting: true }).config, { directRouting: true });
  assert.throws(() => ipip.parseConfig({ DirectRouting: "yes" }), /DirectRouting/);
  assert.deepEqual(ipip.families, [4]);
  assert.equal(ipip.overheadBytes({ directRouting: false }), 20);
  assert.equal(
    encodeLeaseValue(ipip.announce({ directRouting: false }, host, { paths: new Map() })),
    '{"PublicIP":"198.51.100.10","PublicIPv6":null,"BackendType":"ipip"}',
  );
});

Deno.test("ipip.plan() wants one tunnel and a route per peer", () => {
  const { links, addresses, routes, skippedPeers } = plan(false, new Map());
  assert.deepEqual(links, [{
    name: "flannel.ipip",
    kind: "ipip",
    mtuBytes: 1480,
    ipip: { local: host.address },
  }]);
  assert.deepEqual(addresses?.map(({ address }) => String(address)), ["10.244.9.0/32"]);
  assert.deepEqual(
    routes?.map(({ destination, gateway, link, onlink }) =>
      `${destination} via ${gateway} dev ${link} ${onlink}`
    ),
    [1, 2, 3].map((n) => `10.244.${n}.0/24 via 192.0.2.${n} dev flannel.ipip true`),
  );
  assert.equal(skippedPeers, undefined);
});

Deno.test("ipip.plan() routes directly where the kernel does, onlink as upstream", () => {
  const { routes } = plan(
    true,
    new Map<string, UnderlayPath>([
      ["192.0.2.1", { direct: true, link: "eth1" }],
      ["192.0.2.2", { direct: false, reason: "through gateway 192.0.2.254 on eth0" }],
    ]),
  );
  assert.deepEqual(
    routes?.map(({ destination, link, onlink }) => `${destination} dev ${link} ${onlink}`),
    ["10.244.1.0/24 dev eth1 true", "10.244.2.0/24 dev flannel.ipip true"],
  );
});

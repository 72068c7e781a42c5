import assert from "node:assert/strict";
import { parseNetworkConfig } from "../config/network_config.ts";
import type { Lease } from "../lease/lease.ts";
import { Address, Prefix } from "../net/mod.ts";
import type { UnderlayPath } from "../state/mod.ts";
import { type Backend, bindPlan, hostGw, ipip, NetworkPlan, udp, vxlan } from "./mod.ts";

const PEERS = 4_000;

function peer(n: number, backendType: string): Lease {
  const [high, low] = [1 + (n >> 8), n & 255];
  return {
    key: `10.${high}.${low}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.${high}.${low}.0/24`) },
    attributes: {
      publicIp: Address.parse(`172.16.${high}.${low}`),
      backendType,
      backendData: { VtepMAC: `02:00:00:00:${[high, low].map((x) => hex(x)).join(":")}` },
    },
  };
}

const hex = (byte: number) => byte.toString(16).padStart(2, "0");

// Each is planned with the facts of all.
// deno-lint-ignore no-explicit-any
const planned: readonly Backend<any, any>[] = [vxlan, hostGw, ipip, udp];

for (const backend of planned) {
  const { type } = backend;
  const leaseType = type === "udp" ? "" : type;
  Deno.test(`A plan of ${type} for thousands of peers has a pause every few hundred`, () => {
    const all = Array.from({ length: PEERS }, (_, n) => peer(n, leaseType));
    const paths = new Map<string, UnderlayPath>(
      all.map(({ attributes }) => [`${attributes.publicIp}`, { direct: true, link: "eth0" }]),
    );
    const network = parseNetworkConfig(
      `{"Network":"10.0.0.0/8","Backend":{"Type":"${type}"}}`,
    ).config;
    const byKey = new Map(all.map((each) => [each.key, each]));
    const plan = new NetworkPlan();
    const planning = plan.update({
      bind: bindPlan(backend, {
        config: backend.parseConfig({ Type: type }).config,
        network,
        host: { link: "eth0", mtuBytes: 1500, address: Address.parse("192.0.2.1") },
        facts: { paths, macs: {} },
        own: { ...peer(0, leaseType), subnet: { ipv4: Prefix.parse("10.0.0.0/24") } },
      }),
      network,
      peers: { get: (key) => byKey.get(key), [Symbol.iterator]: () => byKey.values() },
    }, "all");
    let pauses = 0;
    while (!planning.next().done) pauses++;
    const { routes, forwarding } = plan.desired;
    assert.ok(routes.size === PEERS || forwarding.size === PEERS, "every peer is in it");
    // Each peer is looked at twice at least: whether it will do, and what it needs.
    assert.ok(pauses >= 2 * Math.floor(PEERS / 300), `${pauses} pauses`);
  });
}

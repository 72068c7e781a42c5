import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import fc from "fast-check";
import { parseNetworkConfig } from "../config/network_config.ts";
import type { Lease } from "../lease/lease.ts";
import { Address, MacAddress, Prefix } from "../net/mod.ts";
import { Desired } from "../state/desired.ts";
import type { UnderlayPath } from "../state/mod.ts";
import { atOnce } from "../util/slices.ts";
import { aliVpc, bindPlan, hostGw, ipip, NetworkPlan, udp, vxlan } from "./mod.ts";
import type { Backend } from "./backend.ts";

const { config: network } = parseNetworkConfig('{"Network":"10.5.0.0/16"}');
const host = {
  link: "eth0",
  mtuBytes: 1500,
  address: Address.parse("192.0.2.1"),
  publicIp: Address.parse("192.0.2.1"),
};
const claim = { instanceId: "i-1", networkInterfaceId: "eni-1", vpcId: "vpc-1", vSwitchId: "v-1" };

interface Peer {
  readonly n: number;
  readonly address: number;
  readonly mac: number;
  readonly inside: boolean;
  readonly odd: boolean;
}

/** Few MACs and addresses, so that peers have them in common; some addresses are pods' too. */
const peer = fc.record({
  n: fc.integer({ min: 2, max: 8 }),
  address: fc.integer({ min: 2, max: 5 }),
  mac: fc.integer({ min: 1, max: 3 }),
  inside: fc.constantFrom(false, false, false, false, true),
  odd: fc.constantFrom(false, false, false, true),
}, { noNullPrototype: true });

function lease(type: string, { n, address, mac, inside, odd }: Peer): Lease {
  const data = type === "vxlan"
    ? { VtepMAC: `02:00:00:00:00:0${mac}` }
    : { InstanceID: `i-${mac}`, NetworkInterfaceID: "eni-a", VpcID: "vpc-a", VSwitchID: "vsw-a" };
  return {
    key: `10.5.${n}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.5.${n}.0/24`) },
    attributes: {
      publicIp: Address.parse(inside ? `10.5.${address + 3}.9` : `192.0.2.${address}`),
      backendType: odd ? "other" : type,
      backendData: data,
    },
  };
}

const paths = new Map<string, UnderlayPath>([
  ["192.0.2.2", { direct: true, link: "eth0" }],
  ["192.0.2.3", { direct: true, link: "eth1" }],
  ["192.0.2.4", { direct: false, reason: "through a gateway" }],
]);
const macs = { 4: MacAddress.parse("02:00:00:00:00:01") };

// deno-lint-ignore no-explicit-any
const planned: readonly [Backend<any, any>, Record<string, unknown>, Record<string, unknown>][] = [
  [vxlan, {}, { paths, macs }],
  [vxlan, { DirectRouting: true }, { paths, macs }],
  [hostGw, {}, { paths }],
  [ipip, { DirectRouting: true }, { paths }],
  [udp, {}, {}],
  [aliVpc, { Overflow: "vxlan" }, {
    ...claim,
    routeTableIds: ["vtb-1"],
    overflow: { keys: new Set(["10.5.3.0-24", "10.5.4.0-24"]), vtep: true },
  }],
];

/** What is wanted, as text without an order. */
function describe({ host, neighbors, fdb, forwarding, routes }: Desired): unknown {
  const keyed = { neighbors, fdb, forwarding, routes };
  return JSON.parse(JSON.stringify({
    host,
    ...Object.fromEntries(
      Object.entries(keyed).map(([name, wanted]) => [name, [...wanted.entries()].toSorted()]),
    ),
  }));
}

for (const [backend, options, facts] of planned) {
  const { type } = backend;
  Deno.test(`A plan of ${type} ${JSON.stringify(options)} kept up to date is one made anew`, () => {
    const { config } = backend.parseConfig({ Type: type, ...options });
    const leaseType = type === "udp" || type === "ali-vpc" ? "" : type;
    const own = lease(leaseType, { n: 1, address: 1, mac: 1, inside: false, odd: false });
    const step = fc.array(fc.oneof(peer, fc.integer({ min: 2, max: 8 })), { maxLength: 4 });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        const plan = new NetworkPlan();
        const peers = new Map<string, Lease>();
        const sources = {
          bind: bindPlan(backend, { config, network, host, facts, own }),
          network,
          peers: { get: (key: string) => peers.get(key), [Symbol.iterator]: () => peers.values() },
        };
        for (const changes of steps) {
          const changed = new Set<string>();
          for (const change of changes) {
            const key = `10.5.${typeof change === "number" ? change : change.n}.0-24`;
            if (typeof change === "number") peers.delete(key);
            else peers.set(key, lease(leaseType, change));
            changed.add(key);
          }
          atOnce(plan.update(sources, changed));
          const anew = planAll(backend, {
            ...{ config, network, host, facts, own },
            peers: [...peers.values()],
          });
          const { skippedPeers = [], ...state } = anew;
          const { neighbors: _n, fdb: _f, forwarding: _w, routes: _r, ...lists } = state;
          const desired = Desired.of(state);
          desired.host = lists;
          const kept = new Desired();
          Object.assign(kept, plan.desired);
          const { routes: _own, ...hostLists } = { routes: [], ...plan.desired.host };
          kept.host = hostLists;
          assert.deepEqual(describe(kept), describe(desired));
          assert.deepEqual(
            [...plan.skipped.values()].flat().map((each) => JSON.stringify(each)).toSorted(),
            skippedPeers.map((each) => JSON.stringify(each)).toSorted(),
          );
        }
      }),
      { numRuns: 300 },
    );
  });
}

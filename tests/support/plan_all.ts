import {
  type Backend,
  bindPlan,
  type Host,
  type NetworkFamilies,
  NetworkPlan,
} from "../../src/backends/mod.ts";
import type { Lease } from "../../src/lease/lease.ts";
import type { DesiredState } from "../../src/state/mod.ts";
import { atOnce } from "../../src/util/slices.ts";

/** The whole desired state of a host at once, as lists. */
export function planAll<Config, Facts>(
  backend: Pick<Backend<Config, Facts>, "planHost" | "planPeer" | "claims">,
  { network, peers, ...known }: {
    readonly config: Config;
    readonly network: NetworkFamilies;
    readonly host: Host;
    readonly facts: Facts;
    readonly own: Lease;
    readonly peers: readonly Lease[];
  },
): DesiredState {
  const plan = new NetworkPlan();
  const byKey = new Map(peers.map((peer) => [peer.key, peer]));
  const sources = {
    bind: bindPlan(backend, { ...known, network }),
    network,
    peers: { get: (key: string) => byKey.get(key), [Symbol.iterator]: () => byKey.values() },
  };
  atOnce(plan.update(sources, "all"));
  const { host, neighbors, fdb, forwarding, routes } = plan.desired;
  const lists = { neighbors, fdb, forwarding, routes };
  return {
    ...host,
    ...Object.fromEntries(
      Object.entries(lists).flatMap(([name, wanted]) =>
        wanted.size > 0 ? [[name, [...wanted]]] : []
      ),
    ),
    ...(plan.skipped.size > 0 ? { skippedPeers: [...plan.skipped.values()].flat() } : {}),
  };
}

/**
 * The `udp` backend's part that needs the world: the packet path, and the record that lets the next
 * run carry packets on at once.
 *
 * @module
 */
import { udp, type UdpConfig } from "../../backends/mod.ts";
import type { BackendRuntime, BackendRuntimeOptions } from "../runtime.ts";
import { TunnelPath } from "./tunnel_path.ts";

/** Opens what the tunnel needs; packets pass once the first plan is in place. */
export async function openUdpRuntime(
  { configured: { network }, formerPath, log }: BackendRuntimeOptions,
  config: UdpConfig,
): Promise<BackendRuntime> {
  const { allowAnySource, natTraversal } = config;
  const families = ([4, 6] as const).filter((family) => network[`ipv${family}`]);
  const settings = { allowAnySource, natTraversal, families };
  const { fdStore, record } = formerPath;
  const path = await formerPath.take(settings) ?? new TunnelPath(settings, fdStore, log);
  return {
    announce: (host) => udp.announce(config, host, undefined),
    *plan(host, own, peers) {
      const state = yield* udp.plan({ config, network, host, facts: undefined, own, peers });
      path.identity = {
        mtuBytes: state.links?.[0]?.mtuBytes ?? 0,
        ...(own.subnet.ipv4 ? { ipv4: own.subnet.ipv4.address } : {}),
        ...(own.subnet.ipv6 ? { ipv6: own.subnet.ipv6.address } : {}),
      };
      const { udpSockets: sockets = [], forwarding = [] } = state;
      record.note({ settings, ...path.identity, sockets, forwarding });
      return state;
    },
    plane: {
      before: (desired) => path.stagesBefore(desired),
      after: (desired) => path.stagesAfter(desired),
      set onDrift(callback: () => void) {
        path.onDrift = callback;
      },
      status: () => ({ ...path.counters() }),
    },
    [Symbol.asyncDispose]: () => path[Symbol.asyncDispose](),
  };
}

/**
 * Backend `host-gw`: plain routes, with each peer as next hop.
 *
 * @module
 */
import { FieldReader } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import type { RouteSpec, SkippedPeer } from "../state/mod.ts";
import type { Backend } from "./backend.ts";
import {
  familySides,
  type PeerPaths,
  peerRoute,
  publicAddresses,
  STEP_PEERS,
  usablePeers,
} from "./peers.ts";

/** `host-gw` has no settings. */
export type HostGwConfig = Readonly<Record<never, never>>;

/** What the plan needs to know about the underlay. */
export interface HostGwFacts {
  readonly paths: PeerPaths;
}

/**
 * `host-gw`: a route to each peer's subnet with the peer itself as next hop, so every peer must be
 * on the external interface's own network. One that is not is left out, with the reason.
 */
export const hostGw: Backend<HostGwConfig, HostGwFacts> = {
  type: "host-gw",
  families: [4, 6],
  exposesPods: true,

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    return { config: {}, warnings: fields.finish() };
  },

  overheadBytes: () => 0,

  announce(_config, host) {
    const { publicIp, address } = host;
    if (publicIp && address && !publicIp.equals(address)) {
      throw new ConfigError("the host", [
        `host-gw needs hosts to reach each other without NAT, but the public address ${publicIp} ` +
        `differs from ${address} of interface ${host.link}; leave --public-ip out, or use vxlan`,
      ]);
    }
    return { ...publicAddresses(host), backendType: "host-gw" };
  },

  *plan({ network, host, facts, own, peers }) {
    const routes: RouteSpec[] = [];
    const skippedPeers: SkippedPeer[] = [];
    for (const side of familySides(network, host, own)) {
      const { usable } = yield* usablePeers(side, "host-gw", peers, skippedPeers);
      let count = 0;
      for (const peer of usable) {
        if (++count % STEP_PEERS === 0) yield;
        const { key, publicAddress } = peer;
        const path = facts.paths.get(publicAddress.toString());
        if (!path) continue; // looked up before the next round
        if (path.link === host.link) {
          routes.push(peerRoute(peer.subnet, publicAddress, host.link));
        } else {
          const reason = path.direct ? `it is on link ${path.link}` : path.reason;
          skippedPeers.push({
            code: "peer-next-hop",
            key,
            reason: `${publicAddress} cannot be next hop on ${host.link}: ${reason}`,
          });
        }
      }
    }
    return { routes, skippedPeers };
  },
};

/**
 * Backend `host-gw`: plain routes, with each peer as next hop.
 *
 * @module
 */
import { FieldReader } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import type { PeerState } from "../state/desired.ts";
import type { Backend } from "./backend.ts";
import {
  isFault,
  joinStates,
  leaveOut,
  lookAtPeer,
  NOTHING,
  type PeerPaths,
  peerRoute,
  publicAddresses,
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

  planHost: () => ({}),

  planPeer({ host, facts, sides }, lease) {
    return joinStates(sides.map((side): PeerState => {
      const peer = lookAtPeer(side, "host-gw", lease);
      if (isFault(peer)) return leaveOut(lease.key, peer);
      const { subnet, publicAddress } = peer;
      const path = facts.paths.get(publicAddress.toString());
      if (!path) return NOTHING; // looked up before the next round
      if (path.link === host.link) return { routes: [peerRoute(subnet, publicAddress, host.link)] };
      const reason = path.direct ? `it is on link ${path.link}` : path.reason;
      return leaveOut(lease.key, [
        "peer-next-hop",
        `${publicAddress} cannot be next hop on ${host.link}: ${reason}`,
      ]);
    }));
  },
};

/**
 * Backend `ipip`: IPv4 packets in IPv4 packets, by the kernel's tunnel device.
 *
 * @module
 */
import { FieldReader } from "../config/fields.ts";
import { addressBits, InterfaceAddress } from "../net/mod.ts";
import type { Backend } from "./backend.ts";
import { isFault, leaveOut, lookAtPeer, NOTHING, type PeerPaths, peerRoute } from "./peers.ts";

/** The `Backend` object of an `ipip` network config, checked. */
export interface IpipConfig {
  /** Whether peers on the underlay's own network get routes without encapsulation. */
  readonly directRouting: boolean;
}

/** What the plan needs to know about the underlay. */
export interface IpipFacts {
  /** Empty unless `DirectRouting` is on. */
  readonly paths: PeerPaths;
}

/** The tunnel's name, upstream's. */
const IPIP_LINK = "flannel.ipip";

/** The outer IPv4 header. */
const OVERHEAD_BYTES = 20;

/**
 * `ipip`: one IPv4-in-IPv4 tunnel without a remote, and per peer a route through it with the peer's
 * public address as next hop, by which the kernel learns the remote.
 */
export const ipip: Backend<IpipConfig, IpipFacts> = {
  type: "ipip",
  families: [4],

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const directRouting = fields.boolean("DirectRouting") ?? false;
    return { config: { directRouting }, warnings: fields.finish() };
  },

  overheadBytes: () => OVERHEAD_BYTES,

  announce(_config, host) {
    return { ...(host.publicIp ? { publicIp: host.publicIp } : {}), backendType: "ipip" };
  },

  planHost({ host, sides: [side] }) {
    if (side?.family !== 4) return {};
    return {
      links: [{
        name: IPIP_LINK,
        kind: "ipip",
        mtuBytes: host.mtuBytes - OVERHEAD_BYTES,
        ipip: { local: side.local },
      }],
      addresses: [{
        link: IPIP_LINK,
        address: new InterfaceAddress(side.subnet.address, addressBits(4)),
      }],
    };
  },

  planPeer({ config, facts, sides: [side] }, lease) {
    if (side?.family !== 4) return NOTHING;
    const peer = lookAtPeer(side, "ipip", lease);
    if (isFault(peer)) return leaveOut(lease.key, peer);
    const { subnet, publicAddress } = peer;
    const path = config.directRouting ? facts.paths.get(publicAddress.toString()) : undefined;
    if (config.directRouting && !path) return NOTHING; // looked up before the next round
    const link = path?.direct ? path.link : IPIP_LINK;
    return { routes: [peerRoute(subnet, publicAddress, link, { onlink: true })] };
  },
};

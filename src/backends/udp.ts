/**
 * Backend `udp`: packets pass through this process, which sends them in UDP datagrams.
 *
 * @module
 */
import { FieldReader, PORT } from "../config/fields.ts";
import { addressBits, type Family, InterfaceAddress, Prefix } from "../net/mod.ts";
import {
  type AddressSpec,
  type DesiredState,
  type ForwardingSpec,
  ROUTE_PROTOCOL,
  type RouteSpec,
  type UdpSocketSpec,
} from "../state/mod.ts";
import type { PeerState } from "../state/desired.ts";
import type { Backend } from "./backend.ts";
import { isFault, joinStates, leaveOut, lookAtPeer, publicAddresses } from "./peers.ts";

/** The `Backend` object of a `udp` network config, checked. */
export interface UdpConfig {
  /** Of this host's socket, and of all peers'. */
  readonly port: number;
  /** Takes datagrams from anywhere with any inner source, as upstream does. */
  readonly allowAnySource: boolean;
  /** Sends to the port that a peer's datagrams come from, and keeps own mappings open. */
  readonly natTraversal: boolean;
}

const DEFAULT_PORT = 8285;

/** Outer IP header and UDP header; there is nothing else on the wire. */
const OVERHEAD_BYTES = { 4: 28, 6: 48 } as const;

/** The device's name; upstream's pattern `flannel%d` gives the same. */
export const UDP_LINK_NAME = "flannel0";

/**
 * `udp`: a TUN device whose packets this process carries, each the payload of one datagram. The
 * kernel routes the whole network there, or the peers' subnets alone where something else lies in
 * the network; which peer a packet goes to is the forwarding table's matter. Wire and lease are
 * upstream's; IPv6 is carried likewise, over IPv6.
 */
export const udp: Backend<UdpConfig> = {
  type: "udp",
  families: [4, 6],
  devices: ["/dev/net/tun"],

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const port = fields.integer("Port", PORT) ?? DEFAULT_PORT;
    const allowAnySource = fields.boolean("AllowAnySource") ?? false;
    const natTraversal = fields.boolean("NATTraversal") ?? false;
    return { config: { port, allowAnySource, natTraversal }, warnings: fields.finish() };
  },

  overheadBytes: () => OVERHEAD_BYTES[4],

  /** One device carries both families, so with IPv6 the larger header counts for all. */
  podMtuBytes: (_config, network, host) => host.mtuBytes - OVERHEAD_BYTES[network.ipv6 ? 6 : 4],

  announce: (_config, host) => ({ ...publicAddresses(host), backendType: "" }),

  planHost({ config, network, host, sides }) {
    const mtuBytes = host.mtuBytes - OVERHEAD_BYTES[network.ipv6 ? 6 : 4];
    const states: DesiredState[] = [{ links: [{ name: UDP_LINK_NAME, kind: "tun", mtuBytes }] }];
    for (const { family, local, subnet, network: whole, occupied } of sides) {
      states.push({
        addresses: [baseAddress(subnet.address, family)],
        udpSockets: [{ address: local, port: config.port } satisfies UdpSocketSpec],
        ...(occupied.list.length === 0 ? { routes: [tunnelRoute(whole)] } : {}),
      });
    }
    return joinStates(states);
  },

  claims({ sides }, peer) {
    return sides.flatMap((side) => {
      const found = lookAtPeer(side, "", peer);
      return isFault(found) || !side.network.contains(found.publicAddress)
        ? []
        : [found.publicAddress.toString()];
    });
  },

  planPeer({ config, sides }, lease, holderOf) {
    return joinStates(sides.map((side): PeerState => {
      const peer = lookAtPeer(side, "", lease);
      if (isFault(peer)) return leaveOut(lease.key, peer);
      const { subnet, publicAddress: address } = peer;
      const forwarding: ForwardingSpec[] = [{ destination: subnet, address, port: config.port }];
      // What the host itself answers to pods comes through the tunnel, too, from its own address.
      // Nothing is routed there by this: datagrams are taken whose source has its peer here.
      if (side.network.contains(address) && holderOf(address.toString()).key === lease.key) {
        const destination = new Prefix(address, addressBits(side.family));
        forwarding.push({ destination, address, port: config.port });
      }
      const isApart = side.occupied.list.length > 0;
      return { forwarding, ...(isApart ? { routes: [tunnelRoute(subnet)] } : {}) };
    }));
  },
};

function tunnelRoute(destination: Prefix): RouteSpec {
  return { destination, type: "unicast", link: UDP_LINK_NAME, protocol: ROUTE_PROTOCOL };
}

function baseAddress(base: InterfaceAddress["address"], family: Family): AddressSpec {
  return { link: UDP_LINK_NAME, address: new InterfaceAddress(base, addressBits(family)) };
}

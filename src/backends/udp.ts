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
  type SkippedPeer,
  type UdpSocketSpec,
} from "../state/mod.ts";
import type { Backend } from "./backend.ts";
import { familySides, joinStates, publicAddresses, STEP_PEERS, usablePeers } from "./peers.ts";

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

  *plan({ config, network, host, own, peers }) {
    const mtuBytes = host.mtuBytes - OVERHEAD_BYTES[network.ipv6 ? 6 : 4];
    const states: DesiredState[] = [{ links: [{ name: UDP_LINK_NAME, kind: "tun", mtuBytes }] }];
    for (const side of familySides(network, host, own)) {
      const { family, local, subnet } = side;
      const skippedPeers: SkippedPeer[] = [];
      const forwarding: ForwardingSpec[] = [];
      const { usable, occupied } = yield* usablePeers(side, "", peers, skippedPeers);
      const destinations = occupied.list.length === 0 ? [side.network] : [];
      const apart = destinations.length === 0;
      let count = 0;
      for (const { subnet, publicAddress } of usable) {
        if (++count % STEP_PEERS === 0) yield;
        forwarding.push({ destination: subnet, address: publicAddress, port: config.port });
        if (apart) destinations.push(subnet);
        if (!side.network.contains(publicAddress)) continue;
        // What the host itself answers to pods comes through the tunnel, too, from its own address.
        // Nothing is routed there by this: datagrams are taken whose source has its peer here.
        const destination = new Prefix(publicAddress, addressBits(family));
        forwarding.push({ destination, address: publicAddress, port: config.port });
      }
      states.push({
        addresses: [baseAddress(subnet.address, family)],
        udpSockets: [{ address: local, port: config.port } satisfies UdpSocketSpec],
        forwarding,
        routes: destinations.map((destination) => ({
          destination,
          type: "unicast",
          link: UDP_LINK_NAME,
          protocol: ROUTE_PROTOCOL,
        })),
        skippedPeers,
      });
    }
    return joinStates(states);
  },
};

function baseAddress(base: InterfaceAddress["address"], family: Family): AddressSpec {
  return { link: UDP_LINK_NAME, address: new InterfaceAddress(base, addressBits(family)) };
}

/**
 * Backend `vxlan`: one VXLAN device per family, with an FDB and neighbour entry for each peer.
 *
 * @module
 */
import { FieldReader, MTU_BYTES, PORT, VNI } from "../config/fields.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { type Family, MacAddress } from "../net/mod.ts";
import type { PeerState } from "../state/desired.ts";
import type { DesiredState, RouteSpec } from "../state/mod.ts";
import type { Backend, FamilySide, PlanContext } from "./backend.ts";
import {
  type Fault,
  isFault,
  joinStates,
  leaveOut,
  lookAtPeer,
  NOTHING,
  type PeerPaths,
  peerRoute,
  publicAddresses,
} from "./peers.ts";
import {
  DEFAULT_VNI,
  DEFAULT_VXLAN_PORT,
  macClaim,
  planTunnel,
  planVtep,
  type TunnelledPeer,
  vniFaults,
  VXLAN_OVERHEAD_BYTES,
  vxlanLinkName,
} from "./vtep.ts";

/** The `Backend` object of a `vxlan` network config, checked. */
export interface VxlanConfig {
  readonly vni: number;
  /** UDP destination port. */
  readonly port: number;
  /** Group based policy. */
  readonly gbp: boolean;
  readonly learning: boolean;
  /** Whether peers on the underlay's own network get routes without encapsulation. */
  readonly directRouting: boolean;
  /** Stands for the external interface's MTU. */
  readonly mtuBytes?: number;
  readonly checksumOffload: "auto" | "on" | "off";
}

/** What the plan needs to know about the host. */
export interface VxlanFacts {
  /** MAC of each family's device: published, and permanent. */
  readonly macs: { readonly [family in Family]?: MacAddress };
  /** Empty unless `DirectRouting` is on. */
  readonly paths: PeerPaths;
  /** What `ChecksumOffload` comes to; `undefined` leaves it as the kernel has it. */
  readonly txChecksum?: boolean;
}

/** The least MTU of a link that carries IPv6 (RFC 8200 section 5). */
const IPV6_MIN_MTU_BYTES = 1280;

/**
 * `vxlan`: one VXLAN device per family, named, addressed and filled as upstream does, and per peer
 * a neighbour (the base of its subnet has its device's MAC), a forwarding entry (that MAC is at
 * its public address) and a route (its subnet is behind that base).
 */
export const vxlan: Backend<VxlanConfig, VxlanFacts> = {
  type: "vxlan",
  families: [4, 6],

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    const vni = fields.integer("VNI", VNI) ?? DEFAULT_VNI;
    // Upstream hands the kernel a port above 0 only.
    const port = Number(fields.raw("Port")) < 0 ? undefined : fields.integer("Port", PORT);
    const gbp = fields.boolean("GBP") ?? false;
    const learning = fields.boolean("Learning") ?? false;
    const directRouting = fields.boolean("DirectRouting") ?? false;
    const mtuBytes = fields.integer("MTU", MTU_BYTES);
    const checksumOffload = fields.choice("ChecksumOffload", ["auto", "on", "off"]) ?? "auto";
    for (const name of ["MacPrefix", "Name"]) {
      if (fields.raw(name) !== undefined) {
        fields.warn(`Backend.${name} has an effect on Windows only`);
      }
    }
    return {
      config: {
        vni,
        port: port ?? DEFAULT_VXLAN_PORT,
        gbp,
        learning,
        directRouting,
        ...(mtuBytes === undefined ? {} : { mtuBytes }),
        checksumOffload,
      },
      warnings: fields.finish(),
    };
  },

  checkNetwork({ vni, mtuBytes }, network) {
    const faults = vniFaults(vni, network);
    const least = IPV6_MIN_MTU_BYTES + VXLAN_OVERHEAD_BYTES[6];
    if (network.ipv6 && mtuBytes !== undefined && mtuBytes < least) {
      faults.push(`Backend.MTU must be at least ${least} with IPv6, not ${mtuBytes}`);
    }
    return faults;
  },

  overheadBytes: () => VXLAN_OVERHEAD_BYTES[4],

  /**
   * Upstream counts 50 bytes for both families and writes that to subnet.env; so do we while there
   * is IPv4. The IPv6 device has the MTU that really fits, so that a pod's larger packets are
   * answered with Packet Too Big on the host itself. With IPv6 alone all 70 are counted.
   */
  podMtuBytes: ({ mtuBytes }, network, host) =>
    (mtuBytes ?? host.mtuBytes) - VXLAN_OVERHEAD_BYTES[network.ipv4 ? 4 : 6],

  announce({ vni }, host, { macs }) {
    return {
      ...publicAddresses(host),
      backendType: "vxlan",
      ...(macs[4] ? { backendData: encodeData(vni, macs[4]) } : {}),
      ...(macs[6] ? { backendV6Data: encodeData(vni, macs[6]) } : {}),
    };
  },

  planHost({ config, host, facts, sides }) {
    return joinStates(sides.map((side): DesiredState => {
      const mac = facts.macs[side.family];
      const device = {
        ...config,
        ...(mac ? { mac } : {}),
        underlay: host.link,
        underlayMtuBytes: config.mtuBytes ?? host.mtuBytes,
      };
      const { txChecksum } = facts;
      return {
        ...planVtep(side, device),
        ...(txChecksum === undefined
          ? {}
          : { offloads: [{ link: vxlanLinkName(side.family, config.vni), txChecksum }] }),
      };
    }));
  },

  claims(context, peer) {
    return context.sides.flatMap((side) => {
      const found = reach(context, side, peer);
      return found && "mac" in found ? [macClaim(side.family, found.mac)] : [];
    });
  },

  planPeer(context, peer, holderOf) {
    return joinStates(context.sides.map((side): PeerState => {
      const found = reach(context, side, peer);
      if (!found || isFault(found)) return found ? leaveOut(peer.key, found) : NOTHING;
      if (!("mac" in found)) return { routes: [found] };
      const { family } = side;
      const link = vxlanLinkName(family, context.config.vni);
      const holder = holderOf(macClaim(family, found.mac));
      return planTunnel(link, context.facts.macs[family], found, holder);
    }));
  },
};

/** How a peer is reached; `undefined`: not known yet, it is looked up before the next round. */
function reach(
  { config, facts }: PlanContext<VxlanConfig, VxlanFacts>,
  side: FamilySide,
  lease: Lease,
): RouteSpec | TunnelledPeer | Fault | undefined {
  const peer = lookAtPeer(side, "vxlan", lease);
  if (isFault(peer)) return peer;
  if (config.directRouting) {
    const path = facts.paths.get(peer.publicAddress.toString());
    if (!path) return undefined;
    if (path.direct) return peerRoute(peer.subnet, peer.publicAddress, path.link);
  }
  const mac = readMac(peer.data);
  return typeof mac === "string" ? ["peer-device", mac] : { ...peer, mac };
}

/** The MAC of a peer's device, if its data has one. */
export function readVtepMac(data: Json | undefined): MacAddress | undefined {
  const mac = readMac(data);
  return typeof mac === "string" ? undefined : mac;
}

function encodeData(vni: number, mac: MacAddress): Json {
  return { VNI: vni, VtepMAC: mac.toString() };
}

/** The device's MAC in a peer's data, or what is wrong with that; keys match without case. */
function readMac(data: Json | undefined): MacAddress | string {
  if (data === undefined || data === null) return "it publishes no MAC of a VXLAN device";
  if (typeof data !== "object" || Array.isArray(data)) return "its backend data is no object";
  let text: unknown;
  for (const [name, value] of Object.entries(data)) {
    if (name.toLowerCase() === "vtepmac") text = value;
  }
  if (typeof text !== "string") return "its backend data has no VtepMAC";
  let mac: MacAddress;
  try {
    mac = MacAddress.parse(text);
  } catch {
    return "the VtepMAC in its backend data is not a MAC address";
  }
  return mac.isUnicast() ? mac : `the VtepMAC in its backend data, ${mac}, is no host's`;
}

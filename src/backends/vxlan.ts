import { FieldReader, MTU_BYTES, VNI } from "../config/fields.ts";
import type { Json } from "../lease/lease.ts";
import { addressBits, type Family, InterfaceAddress, MacAddress } from "../net/mod.ts";
import type {
  DesiredState,
  FdbSpec,
  LinkSpec,
  NeighborSpec,
  RouteSpec,
  SkippedPeer,
} from "../state/mod.ts";
import type { Backend, Host } from "./backend.ts";
import {
  type FamilySide,
  familySides,
  joinStates,
  type PeerPaths,
  peerRoute,
  type PeerSide,
  publicAddresses,
  usablePeers,
} from "./peers.ts";
import { DEFAULT_VNI, DEFAULT_VXLAN_PORT } from "./vtep.ts";

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

/** Outer Ethernet, IP, UDP and VXLAN headers. */
const OVERHEAD_BYTES = { 4: 50, 6: 70 } as const;

/** The least MTU of a link that carries IPv6 (RFC 8200 section 5). */
const IPV6_MIN_MTU_BYTES = 1280;

/** What fits a link's name (IFNAMSIZ - 1). */
const MAX_LINK_NAME_CHARS = 15;

/** `flannel.1`, or `flannel-v6.1`. */
export function vxlanLinkName(family: Family, vni: number): string {
  return family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

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
    const port = fields.integer("Port", { min: 0, max: 65_535 });
    const gbp = fields.boolean("GBP") ?? false;
    const learning = fields.boolean("Learning") ?? false;
    const directRouting = fields.boolean("DirectRouting") ?? false;
    const mtuBytes = fields.integer("MTU", MTU_BYTES);
    const checksumOffload = fields.choice("ChecksumOffload", ["auto", "on", "off"]) ?? "auto";
    for (const name of ["MacPrefix", "Name"]) {
      if (fields.string(name) !== undefined) {
        fields.warn(`Backend.${name} has an effect on Windows only`);
      }
    }
    return {
      config: {
        vni,
        port: port || DEFAULT_VXLAN_PORT,
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
    const faults: string[] = [];
    const families = ([4, 6] as const).filter((family) => network[`ipv${family}`]);
    for (const family of families) {
      const name = vxlanLinkName(family, vni);
      if (name.length <= MAX_LINK_NAME_CHARS) continue;
      const excess = name.length - MAX_LINK_NAME_CHARS;
      const largest = 10 ** (String(vni).length - excess) - 1;
      faults.push(
        `Backend.VNI ${vni} makes the link name ${name} too long; it must be at most ${largest}`,
      );
    }
    const least = IPV6_MIN_MTU_BYTES + OVERHEAD_BYTES[6];
    if (network.ipv6 && mtuBytes !== undefined && mtuBytes < least) {
      faults.push(`Backend.MTU must be at least ${least} with IPv6, not ${mtuBytes}`);
    }
    return faults;
  },

  overheadBytes: () => OVERHEAD_BYTES[4],

  /**
   * Upstream counts 50 bytes for both families and writes that to subnet.env; so do we while there
   * is IPv4. The IPv6 device has the MTU that really fits, so that a pod's larger packets are
   * answered with Packet Too Big on the host itself. With IPv6 alone all 70 are counted.
   */
  podMtuBytes: ({ mtuBytes }, network, host) =>
    (mtuBytes ?? host.mtuBytes) - OVERHEAD_BYTES[network.ipv4 ? 4 : 6],

  announce({ vni }, host, { macs }) {
    return {
      ...publicAddresses(host),
      backendType: "vxlan",
      ...(macs[4] ? { backendData: encodeData(vni, macs[4]) } : {}),
      ...(macs[6] ? { backendV6Data: encodeData(vni, macs[6]) } : {}),
    };
  },

  plan({ config, network, host, facts, own, peers }) {
    return joinStates(
      familySides(network, host, own).map((side) => {
        const skippedPeers: SkippedPeer[] = [];
        const usable = usablePeers(side, "vxlan", peers, skippedPeers);
        return {
          ...planDevice(config, host, side, facts),
          ...planPeers(config, side, facts, usable, skippedPeers),
          skippedPeers,
        };
      }),
    );
  },
};

function planDevice(
  config: VxlanConfig,
  host: Host,
  { family, local, subnet }: FamilySide,
  facts: VxlanFacts,
): DesiredState {
  const name = vxlanLinkName(family, config.vni);
  const mac = facts.macs[family];
  const link: LinkSpec = {
    name,
    kind: "vxlan",
    mtuBytes: (config.mtuBytes ?? host.mtuBytes) - OVERHEAD_BYTES[family],
    ...(mac ? { mac } : {}),
    vxlan: {
      vni: config.vni,
      port: config.port,
      underlay: host.link,
      // Not the public address: behind NAT the host does not have it, and the kernel would drop
      // every packet.
      local,
      learning: config.learning,
      gbp: config.gbp,
    },
  };
  const address = new InterfaceAddress(subnet.address, addressBits(family));
  return {
    links: [link],
    addresses: [{ link: name, address }],
    ...(facts.txChecksum === undefined
      ? {}
      : { offloads: [{ link: name, txChecksum: facts.txChecksum }] }),
    // No router may give the device a default route.
    ...(family === 6 ? { sysctls: [{ name: `net/ipv6/conf/${name}/accept_ra`, value: "0" }] } : {}),
  };
}

function planPeers(
  config: VxlanConfig,
  { family }: FamilySide,
  facts: VxlanFacts,
  peers: readonly PeerSide[],
  skipped: SkippedPeer[],
): DesiredState {
  const link = vxlanLinkName(family, config.vni);
  const neighbors: NeighborSpec[] = [];
  const fdb: FdbSpec[] = [];
  const routes: RouteSpec[] = [];
  const tunnelled: { peer: PeerSide; mac: MacAddress }[] = [];
  for (const peer of peers) {
    const path = config.directRouting ? facts.paths.get(peer.publicAddress.toString()) : undefined;
    if (path?.direct) {
      routes.push(peerRoute(peer.subnet, peer.publicAddress, path.link));
      continue;
    }
    if (config.directRouting && !path) continue; // looked up before the next round
    const mac = readMac(peer.data);
    if (typeof mac === "string") skipped.push({ key: peer.key, reason: mac });
    else tunnelled.push({ peer, mac });
  }
  const holders = macHolders(tunnelled, facts.macs[family]);
  for (const { peer, mac } of tunnelled) {
    const { key, subnet, publicAddress } = peer;
    const holder = holders.get(mac.toString());
    if (holder && !holder.address?.equals(publicAddress)) {
      const reason = `its device's MAC ${mac} is also that of ${holder.name}; ` +
        `restart flanneld there after deleting the link ${link}`;
      skipped.push({ key, reason });
      continue;
    }
    neighbors.push({ link, address: subnet.address, mac });
    if (holder?.key === key) fdb.push({ link, mac, remote: publicAddress });
    routes.push(peerRoute(subnet, subnet.address, link, { onlink: true }));
  }
  return { neighbors, fdb, routes };
}

/** Who has a MAC: the host itself, or the first by key of the peers that publish it. */
interface MacHolder {
  readonly key?: string;
  readonly name: string;
  readonly address?: PeerSide["publicAddress"];
}

/**
 * One holder for each MAC. Of several peers it is the one whose key comes first, on every host and
 * at every time: what matters is that the choice stands still.
 */
function macHolders(
  peers: readonly { readonly peer: PeerSide; readonly mac: MacAddress }[],
  ownMac: MacAddress | undefined,
): Map<string, MacHolder> {
  const holders = new Map<string, MacHolder>();
  if (ownMac) holders.set(ownMac.toString(), { name: "this host" });
  for (const { peer: { key, publicAddress }, mac } of peers) {
    const text = mac.toString();
    const holder = holders.get(text);
    if (holder && (holder.key === undefined || holder.key <= key)) continue;
    holders.set(text, { key, name: `${key} (${publicAddress})`, address: publicAddress });
  }
  return holders;
}

/** The MAC of a peer's device, if its data has one. */
export function readVtepMac(data: Json | undefined): MacAddress | undefined {
  const mac = readMac(data);
  return typeof mac === "string" ? undefined : mac;
}

function encodeData(vni: number, mac: MacAddress): Json {
  return { VNI: vni, VtepMAC: mac.toString() };
}

/** What was made of a lease's data, which stays the same object until it changes. */
const macs = new WeakMap<object, MacAddress | string>();

/** The device's MAC in a peer's data, or what is wrong with that; keys match without case. */
function readMac(data: Json | undefined): MacAddress | string {
  if (data === undefined || data === null) return "it publishes no MAC of a VXLAN device";
  if (typeof data !== "object" || Array.isArray(data)) return "its backend data is no object";
  let mac = macs.get(data);
  if (mac === undefined) macs.set(data, mac = parseMac(data as Record<string, Json>));
  return mac;
}

function parseMac(data: Record<string, Json>): MacAddress | string {
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

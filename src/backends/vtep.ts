/**
 * The VXLAN device that `vxlan` and the overflow of `ali-vpc` share, and what leads peers' subnets
 * through it.
 *
 * @module
 */
import { addressBits, type Family, InterfaceAddress, type MacAddress } from "../net/mod.ts";
import type {
  DesiredState,
  FdbSpec,
  LinkSpec,
  NeighborSpec,
  RouteSpec,
  SkippedPeer,
} from "../state/mod.ts";
import type { NetworkFamilies } from "./backend.ts";
import { type FamilySide, peerRoute, type PeerSide, STEP_PEERS } from "./peers.ts";

export const DEFAULT_VNI = 1;

/** What Linux uses unless told otherwise; it is older than the assigned 4789. */
export const DEFAULT_VXLAN_PORT = 8472;

/** Outer Ethernet, IP, UDP and VXLAN headers. */
export const VXLAN_OVERHEAD_BYTES = { 4: 50, 6: 70 } as const;

/** What fits a link's name (IFNAMSIZ - 1). */
const MAX_LINK_NAME_CHARS = 15;

/** `flannel.1`, or `flannel-v6.1`. */
export function vxlanLinkName(family: Family, vni: number): string {
  return family === 4 ? `flannel.${vni}` : `flannel-v6.${vni}`;
}

/** What is wrong with `vni` in a network of these families, one sentence each. */
export function vniFaults(vni: number, network: NetworkFamilies): string[] {
  const faults: string[] = [];
  for (const family of ([4, 6] as const).filter((family) => network[`ipv${family}`])) {
    const name = vxlanLinkName(family, vni);
    if (name.length <= MAX_LINK_NAME_CHARS) continue;
    const excess = name.length - MAX_LINK_NAME_CHARS;
    const largest = 10 ** (String(vni).length - excess) - 1;
    faults.push(
      `Backend.VNI ${vni} makes the link name ${name} too long; it must be at most ${largest}`,
    );
  }
  return faults;
}

/** What a family's device is made from. */
export interface Vtep {
  readonly vni: number;
  /** UDP destination port. */
  readonly port: number;
  /** Group based policy. */
  readonly gbp: boolean;
  readonly learning: boolean;
  readonly mac?: MacAddress;
  /** The external interface. */
  readonly underlay: string;
  readonly underlayMtuBytes: number;
}

/** The device of `side`'s family, with the base of the own subnet as its address. */
export function planVtep({ family, local, subnet }: FamilySide, vtep: Vtep): DesiredState {
  const { vni, port, gbp, learning, mac, underlay, underlayMtuBytes } = vtep;
  const name = vxlanLinkName(family, vni);
  const link: LinkSpec = {
    name,
    kind: "vxlan",
    mtuBytes: underlayMtuBytes - VXLAN_OVERHEAD_BYTES[family],
    ...(mac ? { mac } : {}),
    // Not the public address is local: behind NAT the host does not have it, and the kernel would
    // drop every packet.
    vxlan: { vni, port, underlay, local, learning, gbp },
  };
  return {
    links: [link],
    addresses: [{ link: name, address: new InterfaceAddress(subnet.address, addressBits(family)) }],
    // No router may give the device a default route, as upstream sees to with both families.
    sysctls: [{ name: `net/ipv6/conf/${name}/accept_ra`, value: "0" }],
  };
}

/** A peer, and the MAC of its device. */
export interface TunnelledPeer extends PeerSide {
  readonly mac: MacAddress;
}

/**
 * Per peer a neighbour (the base of its subnet has its device's MAC), a forwarding entry (that MAC
 * is at its public address) and a route through `link` (its subnet is behind that base). Peers
 * whose MAC is another's are noted in `skipped`.
 */
export function* planTunnels(
  link: string,
  ownMac: MacAddress | undefined,
  peers: readonly TunnelledPeer[],
  skipped: SkippedPeer[],
): Generator<void, Required<Pick<DesiredState, "neighbors" | "fdb" | "routes">>> {
  const neighbors: NeighborSpec[] = [];
  const fdb: FdbSpec[] = [];
  const routes: RouteSpec[] = [];
  const holders = yield* macHolders(peers, ownMac);
  let count = 0;
  for (const peer of peers) {
    if (++count % STEP_PEERS === 0) yield;
    const { key, subnet, publicAddress, mac } = peer;
    const holder = holders.get(mac.value);
    if (holder === undefined || !holder.publicAddress.equals(publicAddress)) {
      const name = holder ? `${holder.key} (${holder.publicAddress})` : "this host";
      const reason = `its device's MAC ${mac} is also that of ${name}; ` +
        `restart flanneld there after deleting the link ${link}`;
      skipped.push({ key, code: "peer-device", reason });
      continue;
    }
    neighbors.push({ link, address: subnet.address, mac });
    if (holder === peer) fdb.push({ link, mac, remote: publicAddress });
    routes.push(peerRoute(subnet, subnet.address, link, { onlink: true }));
  }
  return { neighbors, fdb, routes };
}

/**
 * One holder for each MAC: the host itself, which is `undefined`, or else the peer whose key comes
 * first, on every host and at every time: what matters is that the choice stands still.
 */
function* macHolders(
  peers: readonly TunnelledPeer[],
  ownMac: MacAddress | undefined,
): Generator<void, ReadonlyMap<number, TunnelledPeer | undefined>> {
  const holders = new Map<number, TunnelledPeer | undefined>();
  let count = 0;
  for (const peer of peers) {
    if (++count % STEP_PEERS === 0) yield;
    const holder = holders.get(peer.mac.value);
    if (holder === undefined || peer.key < holder.key) holders.set(peer.mac.value, peer);
  }
  if (ownMac) holders.set(ownMac.value, undefined);
  return holders;
}

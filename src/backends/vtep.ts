/**
 * The VXLAN device that `vxlan` and the overflow of `ali-vpc` share, and what leads peers' subnets
 * through it.
 *
 * @module
 */
import { addressBits, type Family, InterfaceAddress, type MacAddress } from "../net/mod.ts";
import type { Lease } from "../lease/lease.ts";
import type { PeerState } from "../state/desired.ts";
import type { DesiredState, LinkSpec } from "../state/mod.ts";
import type { FamilySide, NetworkFamilies } from "./backend.ts";
import { leaveOut, peerRoute, type PeerSide } from "./peers.ts";

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

/** What only one peer can have: a MAC of a device of `family`. */
export function macClaim(family: Family, mac: MacAddress): string {
  return `${family} ${mac}`;
}

/**
 * A neighbour (the base of the peer's subnet has its device's MAC), a forwarding entry (that MAC is
 * at its public address) and a route through `link` (its subnet is behind that base). A peer whose
 * MAC is another's is left out; `holder` is the peer that holds it.
 */
export function planTunnel(
  link: string,
  ownMac: MacAddress | undefined,
  { key, subnet, publicAddress, mac }: TunnelledPeer,
  holder: Lease,
): PeerState {
  const { publicIp, publicIpv6 } = holder.attributes;
  const address = subnet.family === 4 ? publicIp : publicIpv6;
  const isOwn = ownMac?.equals(mac) === true;
  if (isOwn || !address?.equals(publicAddress)) {
    const name = isOwn ? "this host" : `${holder.key} (${address})`;
    return leaveOut(key, [
      "peer-device",
      `its device's MAC ${mac} is also that of ${name}; ` +
      `restart flanneld there after deleting the link ${link}`,
    ]);
  }
  return {
    neighbors: [{ link, address: subnet.address, mac }],
    ...(holder.key === key ? { fdb: [{ link, mac, remote: publicAddress }] } : {}),
    routes: [peerRoute(subnet, subnet.address, link, { onlink: true })],
  };
}

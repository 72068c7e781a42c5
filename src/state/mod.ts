/**
 * The vocabulary of desired state: plain data that a backend's `plan()` returns and that Tables
 * report as actual state. Specs name links instead of interface indexes, since a link may not
 * exist yet. Each spec holds only what flanneld owns about the object, and all of it is compared.
 *
 * @module
 */
import type { Address, Family, InterfaceAddress, MacAddress, Prefix } from "../net/mod.ts";

/** `rtm_protocol` of every route that flanneld installs; stale ones are recognised by it. */
export const ROUTE_PROTOCOL = 0x66; // 102: unassigned in rtnetlink.h and iproute2's rt_protos

/** What IPv6 routes get that name no metric (IP6_RT_PRIO_USER). */
const DEFAULT_METRIC_V6 = 1024;

/** The metric of a route that names none. */
export function defaultMetric(family: Family): number {
  return family === 4 ? 0 : DEFAULT_METRIC_V6;
}

/** An IP route of table main. */
export interface RouteSpec {
  readonly destination: Prefix;
  readonly type: "unicast" | "blackhole";
  /** Next hop; absent for on-link and blackhole routes. */
  readonly gateway?: Address;
  /** Outgoing link; absent for blackhole routes, and where the kernel is to choose it. */
  readonly link?: string;
  /** RTNH_F_ONLINK: the gateway counts as on-link without a route to it. */
  readonly onlink?: boolean;
  readonly scope?: "universe" | "link";
  /** Preferred source address. */
  readonly source?: Address;
  /** RTA_PRIORITY, part of a route's identity; absent: what the kernel gives the family. */
  readonly metric?: number;
  /** `rtm_protocol`; {@linkcode ROUTE_PROTOCOL} in every desired route. */
  readonly protocol: number;
}

/** Identity of a desired route, whose tos is 0. */
export function routeKey({ destination, metric }: RouteSpec): string {
  return metric === undefined || metric === defaultMetric(destination.family)
    ? destination.toString()
    : `${destination} metric ${metric}`;
}

/** A permanent neighbour (ARP or NDP) entry. */
export interface NeighborSpec {
  readonly link: string;
  readonly address: Address;
  readonly mac: MacAddress;
}

/** A permanent forwarding-database entry of a VXLAN device: frames for `mac` go to `remote`. */
export interface FdbSpec {
  readonly link: string;
  readonly mac: MacAddress;
  readonly remote: Address;
}

/** Identity of a neighbour. */
export function neighborKey({ link, address }: Pick<NeighborSpec, "link" | "address">): string {
  return `${link} ${address}`;
}

/**
 * Identity of a forwarding entry. A unicast address has one remote, another one replaces it; group
 * addresses and the all-zeros default may have several (vxlan_core.c, vxlan_fdb_update).
 */
export function fdbKey({ link, mac, remote }: FdbSpec): string {
  return `${link} ${mac}` + (mac.isUnicast() ? "" : ` ${remote}`);
}

/** An address on a link that flanneld owns. */
export interface AddressSpec {
  readonly link: string;
  readonly address: InterfaceAddress;
}

/** A virtual link that flanneld owns. */
export interface LinkSpec {
  readonly name: string;
  readonly kind: "vxlan" | "ipip" | "tun" | "wireguard";
  readonly mtuBytes: number;
  readonly mac?: MacAddress;
  readonly ipip?: {
    readonly local: Address;
  };
  readonly vxlan?: {
    readonly vni: number;
    /** UDP destination port. */
    readonly port: number;
    /** Underlay link. */
    readonly underlay: string;
    readonly local: Address;
    readonly learning: boolean;
    readonly gbp: boolean;
  };
}

/** A kernel parameter of a link that flanneld owns, or of the external interface. */
export interface SysctlSpec {
  /** Path below /proc/sys, as `net/ipv6/conf/flannel-v6.1/accept_ra`. */
  readonly name: string;
  readonly value: string;
  /** Other values that are right too, and stay. */
  readonly accepts?: readonly string[];
  /** A parameter whose number counts instead where it is higher, as `conf/all/rp_filter` does. */
  readonly raisedBy?: string;
}

/** Whether the network stack leaves checksums of packets sent through `link` to it. */
export interface OffloadSpec {
  readonly link: string;
  readonly txChecksum: boolean;
}

/** How the kernel would send to an address of the underlay at present. */
export type UnderlayPath =
  /** To a neighbour on `link`. */
  | { readonly direct: true; readonly link: string }
  /**
   * `reason` tells what stands between: `through gateway 192.0.2.1 on eth0`. `link` is given where
   * there is no gateway either.
   */
  | { readonly direct: false; readonly link?: string; readonly reason: string };

/** What is wrong about a peer that is left out; codes of problems, see `src/status/model.ts`. */
export type PeerFault =
  | "peer-backend"
  | "peer-subnet"
  | "peer-address"
  | "peer-overlap"
  | "peer-device"
  | "peer-next-hop"
  | "peer-stranger";

/** A peer for which a plan wants less than for others, and why. */
export interface SkippedPeer {
  /** The lease's key. */
  readonly key: string;
  readonly code: PeerFault;
  readonly reason: string;
}

/** Where the user-space tunnel sends packets for `destination`. */
export interface ForwardingSpec {
  readonly destination: Prefix;
  /** The peer's public address. */
  readonly address: Address;
  readonly port: number;
}

/** Identity of a tunnel's forwarding. */
export function forwardingKey({ destination }: Pick<ForwardingSpec, "destination">): string {
  return destination.toString();
}

/** A bound UDP socket of this process. */
export interface UdpSocketSpec {
  readonly address: Address;
  readonly port: number;
}

/** A route entry of a cloud's route table: `destination` leads to `instanceId`. */
export interface CloudRouteSpec {
  readonly routeTableId: string;
  readonly destination: Prefix;
  readonly instanceId: string;
}

/** Whether the cloud drops packets of an interface whose source is not its own address. */
export interface SourceDestCheckSpec {
  readonly networkInterfaceId: string;
  readonly enabled: boolean;
}

/** The kinds of objects that Tables hold. */
export type KindId =
  | "link"
  | "offload"
  | "sysctl"
  | "address"
  | "neighbor"
  | "fdb"
  | "tun-queue"
  | "udp-socket"
  | "packet-path"
  | "forwarding"
  | "route"
  | "route-entry"
  | "source-dest-check"
  | "rule-set"
  | "subnet-file"
  | "cni-conf-file";

/** Everything a backend wants to hold. Absent lists are empty. */
export interface DesiredState {
  readonly links?: readonly LinkSpec[];
  readonly offloads?: readonly OffloadSpec[];
  readonly sysctls?: readonly SysctlSpec[];
  readonly addresses?: readonly AddressSpec[];
  readonly neighbors?: readonly NeighborSpec[];
  readonly fdb?: readonly FdbSpec[];
  readonly udpSockets?: readonly UdpSocketSpec[];
  readonly forwarding?: readonly ForwardingSpec[];
  readonly routes?: readonly RouteSpec[];
  readonly cloudRoutes?: readonly CloudRouteSpec[];
  readonly sourceDestChecks?: readonly SourceDestCheckSpec[];
  /** Peers that cannot be reached as they are; for log and status. */
  readonly skippedPeers?: readonly SkippedPeer[];
}

/**
 * What the backends that program the kernel have in common: one walk over families and peers, and
 * how a packet gets to a peer's public address.
 *
 * @module
 */
import type { NetworkConfig } from "../config/network_config.ts";
import type { Json, Lease } from "../lease/lease.ts";
import type { Address, Family, Prefix } from "../net/mod.ts";
import {
  type DesiredState,
  ROUTE_PROTOCOL,
  type RouteSpec,
  type SkippedPeer,
  type UnderlayPath,
} from "../state/mod.ts";
import type { Host } from "./backend.ts";

/** Peers looked at between two steps; some tenths of a millisecond. */
export const STEP_PEERS = 256;

/** The paths to peers, by the text of their public address. One that is missing is not known yet. */
export type PeerPaths = ReadonlyMap<string, UnderlayPath>;

/** One family's side of host, lease and network. */
export interface FamilySide {
  readonly family: Family;
  /** The whole network. */
  readonly network: Prefix;
  /** The own subnet. */
  readonly subnet: Prefix;
  /** The address of the external interface. */
  readonly local: Address;
  /** The address that peers use. */
  readonly publicAddress: Address | undefined;
}

/** A peer's share of one family. */
export interface PeerSide {
  /** The lease's key. */
  readonly key: string;
  readonly subnet: Prefix;
  readonly publicAddress: Address;
  /** `BackendData` or `BackendV6Data`, not looked at yet. */
  readonly data: Json | undefined;
}

/** The families of the network for which the host has an address and a subnet, IPv4 first. */
export function familySides(
  network: Pick<NetworkConfig, "ipv4" | "ipv6">,
  host: Host,
  own: Lease,
): FamilySide[] {
  const sides: FamilySide[] = [];
  if (network.ipv4 && own.subnet.ipv4 && host.address) {
    sides.push({
      family: 4,
      network: network.ipv4.network,
      subnet: own.subnet.ipv4,
      local: host.address,
      publicAddress: host.publicIp,
    });
  }
  if (network.ipv6 && own.subnet.ipv6 && host.addressV6) {
    sides.push({
      family: 6,
      network: network.ipv6.network,
      subnet: own.subnet.ipv6,
      local: host.addressV6,
      publicAddress: host.publicIpv6,
    });
  }
  return sides;
}

/** The addresses that a lease publishes; `host` has those of the network's families alone. */
export function publicAddresses(host: Host): Pick<Host, "publicIp" | "publicIpv6"> {
  return {
    ...(host.publicIp ? { publicIp: host.publicIp } : {}),
    ...(host.publicIpv6 ? { publicIpv6: host.publicIpv6 } : {}),
  };
}

/**
 * The peers of `side`'s family that a backend of `backendType` can work with. The others are noted
 * in `skipped`, each with what is wrong about it: none of them keeps the rest from working.
 */
export function* usablePeers(
  side: FamilySide,
  backendType: string,
  peers: readonly Lease[],
  skipped: SkippedPeer[],
): Generator<void, PeerSide[]> {
  const { family, network, local, publicAddress: ownPublic } = side;
  const usable: PeerSide[] = [];
  let count = 0;
  for (const { key, subnet: subnets, attributes } of peers) {
    if (++count % STEP_PEERS === 0) yield;
    const subnet = family === 4 ? subnets.ipv4 : subnets.ipv6;
    const address = family === 4 ? attributes.publicIp : attributes.publicIpv6;
    const reason = attributes.backendType !== backendType
      ? `its backend is ${attributes.backendType || "of a type that leases do not tell"}, ` +
        `not ${backendType}`
      : subnet === undefined
      ? `it has no IPv${family} subnet`
      : address === undefined
      ? `it publishes no IPv${family} address`
      : network.contains(address)
      ? `its public address ${address} lies inside the flannel network ${network}`
      : address.equals(local) || ownPublic?.equals(address)
      ? `its public address ${address} is this host's own`
      : undefined;
    if (reason !== undefined) skipped.push({ key, reason });
    else {
      const data = family === 4 ? attributes.backendData : attributes.backendV6Data;
      usable.push({ key, subnet: subnet!, publicAddress: address!, data });
    }
  }
  return usable;
}

/** The route to a peer's subnet. */
export function peerRoute(
  destination: Prefix,
  gateway: Address,
  link: string,
  { onlink }: { readonly onlink?: true } = {},
): RouteSpec {
  return onlink
    ? { destination, type: "unicast", gateway, link, onlink, protocol: ROUTE_PROTOCOL }
    : { destination, type: "unicast", gateway, link, protocol: ROUTE_PROTOCOL };
}

/** `states` as one; their lists joined in order. */
export function joinStates(states: readonly DesiredState[]): DesiredState {
  const joined: Record<string, readonly unknown[]> = {};
  for (const state of states) {
    for (const [name, list] of Object.entries(state) as [string, readonly unknown[]][]) {
      joined[name] = joined[name]?.concat(list) ?? list;
    }
  }
  return joined as DesiredState;
}

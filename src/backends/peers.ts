/**
 * What the backends that program the kernel have in common: one walk over families and peers, and
 * how a packet gets to a peer's public address.
 *
 * @module
 */
import type { NetworkConfig } from "../config/network_config.ts";
import type { Json, Lease } from "../lease/lease.ts";
import { type Address, addressBits, type Family, type Place, Places, Prefix } from "../net/mod.ts";
import {
  type DesiredState,
  type PeerFault,
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
  /** What of the network the host itself needs. */
  readonly needs: Places;
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
      needs: host.needs?.within(network.ipv4.network) ?? Places.none,
    });
  }
  if (network.ipv6 && own.subnet.ipv6 && host.addressV6) {
    sides.push({
      family: 6,
      network: network.ipv6.network,
      subnet: own.subnet.ipv6,
      local: host.addressV6,
      publicAddress: host.publicIpv6,
      needs: host.needs?.within(network.ipv6.network) ?? Places.none,
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

/** What {@linkcode usablePeers} found. */
export interface UsablePeers {
  readonly usable: readonly PeerSide[];
  /** What of the network is no pod's: other hosts' addresses, and what the host itself needs. */
  readonly occupied: Places;
}

/**
 * The peers of `side`'s family that a backend of `backendType` can work with. The others are noted
 * in `skipped`, each with what is wrong about it: none of them keeps the rest from working. Hosts
 * may have addresses inside the network; a subnet that covers one of them leads nowhere, since what
 * is to reach that host would go to the subnet's pods instead.
 */
export function* usablePeers(
  side: FamilySide,
  backendType: string,
  peers: readonly Lease[],
  skipped: SkippedPeer[],
): Generator<void, UsablePeers> {
  const { family, local, publicAddress: ownPublic } = side;
  const occupied = (yield* hostsInside(side, peers)).concat(side.needs);
  const usable: PeerSide[] = [];
  let count = 0;
  for (const { key, subnet: subnets, attributes } of peers) {
    if (++count % STEP_PEERS === 0) yield;
    const subnet = family === 4 ? subnets.ipv4 : subnets.ipv6;
    const address = family === 4 ? attributes.publicIp : attributes.publicIpv6;
    const fault: Fault | undefined = attributes.backendType !== backendType
      ? [
        "peer-backend",
        `its backend is ${attributes.backendType || "of a type that leases do not tell"}, ` +
        `not ${backendType}`,
      ]
      : subnet === undefined
      ? ["peer-subnet", `it has no IPv${family} subnet of ${side.network}`]
      : address === undefined
      ? ["peer-address", `it publishes no IPv${family} address`]
      : address.equals(local) || ownPublic?.equals(address)
      ? ["peer-address", `its public address ${address} is this host's own`]
      : side.subnet.contains(address)
      ? [
        "peer-address",
        `its public address ${address} lies inside this host's own subnet ${side.subnet}`,
      ]
      : subnet.contains(address)
      ? ["peer-overlap", `its subnet ${subnet} covers its own public address ${address}`]
      : coverage(subnet, occupied);
    if (fault !== undefined) {
      const [code, reason] = fault;
      skipped.push({ key, code, reason });
    } else {
      const data = family === 4 ? attributes.backendData : attributes.backendV6Data;
      usable.push({ key, subnet: subnet!, publicAddress: address!, data });
    }
  }
  return { usable, occupied };
}

type Fault = readonly [code: PeerFault, reason: string];

function coverage(subnet: Prefix, occupied: Places): Fault | undefined {
  const place = occupied.find(subnet);
  return place && ["peer-overlap", `its subnet ${subnet} overlaps ${place.what}`];
}

/** The public addresses of hosts that lie inside the network. */
function* hostsInside(
  { family, network, local, publicAddress }: FamilySide,
  peers: readonly Lease[],
): Generator<void, Places> {
  const places: Place[] = [];
  const note = (address: Address | undefined, whose: string) => {
    if (!address || !network.contains(address)) return;
    const prefix = new Prefix(address, addressBits(family));
    places.push({ prefix, what: `${address}, the address of ${whose}` });
  };
  note(local, "this host");
  note(publicAddress, "this host");
  let count = 0;
  for (const { key, attributes: { publicIp, publicIpv6 } } of peers) {
    if (++count % STEP_PEERS === 0) yield;
    note(family === 4 ? publicIp : publicIpv6, key);
  }
  return places.length === 0 ? Places.none : new Places(places);
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

/**
 * What the backends that program the kernel have in common: one walk over families and peers, and
 * how a packet gets to a peer's public address.
 *
 * @module
 */
import type { Json, Lease } from "../lease/lease.ts";
import { type Address, addressBits, type Place, Places, Prefix } from "../net/mod.ts";
import type { PeerState } from "../state/desired.ts";
import { type PeerFault, ROUTE_PROTOCOL, type RouteSpec, type UnderlayPath } from "../state/mod.ts";
import type { FamilySide, Host, NetworkFamilies } from "./backend.ts";

/** The paths to peers, by the text of their public address. One that is missing is not known yet. */
export type PeerPaths = ReadonlyMap<string, UnderlayPath>;

/** A peer's share of one family. */
export interface PeerSide {
  /** The lease's key. */
  readonly key: string;
  readonly subnet: Prefix;
  readonly publicAddress: Address;
  /** `BackendData` or `BackendV6Data`, not looked at yet. */
  readonly data: Json | undefined;
}

/**
 * The families of the network for which the host has an address and a subnet, IPv4 first. `inside`
 * are addresses of other hosts in the network.
 */
export function familySides(
  network: NetworkFamilies,
  host: Host,
  own: Lease,
  inside: readonly Place[],
): FamilySide[] {
  return ([4, 6] as const).flatMap((family): FamilySide[] => {
    const whole = network[`ipv${family}`]?.network;
    const subnet = own.subnet[`ipv${family}`];
    const [local, publicAddress] = family === 4
      ? [host.address, host.publicIp]
      : [host.addressV6, host.publicIpv6];
    if (!whole || !subnet || !local) return [];
    const places = [local, publicAddress].flatMap((address) =>
      hostInside(whole, address, "this host")
    );
    places.push(...inside.filter(({ prefix }) => prefix.family === family));
    const occupied = (places.length === 0 ? Places.none : new Places(places))
      .concat(host.needs?.within(whole));
    return [{ family, network: whole, subnet, local, publicAddress, occupied }];
  });
}

/** The public addresses of a peer that lie inside the network. */
export function addressesInside(network: NetworkFamilies, { key, attributes }: Lease): Place[] {
  const { publicIp, publicIpv6 } = attributes;
  return [
    ...hostInside(network.ipv4?.network, publicIp, key),
    ...hostInside(network.ipv6?.network, publicIpv6, key),
  ];
}

function hostInside(network: Prefix | undefined, address: Address | undefined, whose: string) {
  if (!address || !network?.contains(address)) return [];
  const prefix = new Prefix(address, addressBits(address.family));
  return [{ prefix, what: `${address}, the address of ${whose}` }];
}

/** The addresses that a lease publishes; `host` has those of the network's families alone. */
export function publicAddresses(host: Host): Pick<Host, "publicIp" | "publicIpv6"> {
  return {
    ...(host.publicIp ? { publicIp: host.publicIp } : {}),
    ...(host.publicIpv6 ? { publicIpv6: host.publicIpv6 } : {}),
  };
}

/**
 * What a backend of `backendType` can work with of a peer, or what is wrong about that. Hosts may
 * have addresses inside the network; a subnet that covers one of them leads nowhere, since what is
 * to reach that host would go to the subnet's pods instead.
 */
export function lookAtPeer(
  side: FamilySide,
  backendType: string,
  { key, subnet: subnets, attributes }: Lease,
): PeerSide | Fault {
  const { family } = side;
  const subnet = subnets[`ipv${family}`];
  const address = family === 4 ? attributes.publicIp : attributes.publicIpv6;
  if (attributes.backendType !== backendType) {
    return [
      "peer-backend",
      `its backend is ${attributes.backendType || "of a type that leases do not tell"}, ` +
      `not ${backendType}`,
    ];
  }
  if (subnet === undefined) {
    return ["peer-subnet", `it has no IPv${family} subnet of ${side.network}`];
  }
  if (address === undefined) return ["peer-address", `it publishes no IPv${family} address`];
  const fault = addressFault(side, address) ?? coverage(subnet, address, side.occupied);
  const data = family === 4 ? attributes.backendData : attributes.backendV6Data;
  return fault ?? { key, subnet, publicAddress: address, data };
}

/** Whether {@linkcode lookAtPeer} has found something wrong. */
export function isFault(found: object): found is Fault {
  return Array.isArray(found);
}

/** What is wrong about a peer. */
export type Fault = readonly [code: PeerFault, reason: string];

function addressFault(side: FamilySide, address: Address): Fault | undefined {
  if (address.equals(side.local) || side.publicAddress?.equals(address)) {
    return ["peer-address", `its public address ${address} is this host's own`];
  }
  if (!side.subnet.contains(address)) return undefined;
  return [
    "peer-address",
    `its public address ${address} lies inside this host's own subnet ${side.subnet}`,
  ];
}

function coverage(subnet: Prefix, address: Address, occupied: Places): Fault | undefined {
  if (subnet.contains(address)) {
    return ["peer-overlap", `its subnet ${subnet} covers its own public address ${address}`];
  }
  const place = occupied.find(subnet);
  return place && ["peer-overlap", `its subnet ${subnet} overlaps ${place.what}`];
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
export function joinStates<State extends PeerState>(states: readonly State[]): State {
  if (states.length === 1) return states[0]!;
  const joined: Record<string, readonly unknown[]> = {};
  for (const state of states) {
    for (const [name, list] of Object.entries(state) as [string, readonly unknown[]][]) {
      joined[name] = joined[name]?.concat(list) ?? list;
    }
  }
  return joined as unknown as State;
}

/** The state of a peer that is left out. */
export function leaveOut(key: string, [code, reason]: Fault): PeerState {
  return { skippedPeers: [{ key, code, reason }] };
}

/** A peer of which nothing is wanted, and nothing is to be told. */
export const NOTHING: PeerState = {};

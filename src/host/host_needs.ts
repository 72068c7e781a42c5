/**
 * The addresses that this host needs for itself: its own networks, gateways, name servers and
 * stores. A pod subnet that overlapped them would cut the host off.
 *
 * @module
 */
import type { FamilyConfig, NetworkConfig } from "../config/network_config.ts";
import type { Link, LinkAddress, Route } from "../kernel/netlink.ts";
import { LINK_ALIAS_PREFIX } from "../kernel/link_table.ts";
import { FLANNEL_LINK } from "../kernel/route_adoption.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import { type Address, addressBits, type Place, Places, Prefix } from "../net/mod.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";

/** `rtm_protocol` of routes that come with addresses. */
const RTPROT_KERNEL = 2;

/** What the needs are derived from. */
export interface HostFacts {
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  /** Table main. */
  readonly routes: readonly Route[];
  /** Addresses that it must reach, such as `the name server 10.0.0.2`. */
  readonly services: readonly { readonly address: Address; readonly what: string }[];
}

/** What {@linkcode planHostNeeds} takes besides the facts. */
export interface HostNeedsContext {
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  /** The subnet that this host serves: bridges with an address in it are the pods'. */
  readonly own: LeaseSubnet | undefined;
  readonly externalLink: string;
  /** The alias of this daemon's links. */
  readonly alias: string;
}

/** Prefixes that are not for pods. */
export interface HostNeeds {
  /** No peer's subnet may overlap these. */
  readonly needs: Places;
  /** Nor may a subnet that this host leases overlap these. */
  readonly occupied: Places;
}

/**
 * Derives the needs from the facts. Connected networks count, with two exceptions: the pods' own
 * bridge, and one that contains all leasable subnets, as a flat 10.0.0.0/8 does; of the latter only
 * addresses known to be in use count.
 */
export function planHostNeeds(facts: HostFacts, context: HostNeedsContext): HostNeeds {
  const { network, own, externalLink, alias } = context;
  const needs: Place[] = [];
  const exact: Place[] = [];
  let hasPods = false;
  const links = new Map(facts.links.map((link) => [link.index, link]));
  const isFlannels = ({ name, alias: given }: Link) =>
    FLANNEL_LINK.test(name) && !(given?.startsWith(LINK_ALIAS_PREFIX) && given !== alias);
  const serves = (place: Address | Prefix) =>
    [own?.ipv4, own?.ipv6].some((subnet) => subnet?.contains(place));

  for (const { linkIndex, address: { address, prefix } } of facts.addresses) {
    const link = links.get(linkIndex);
    if (!link || isFlannels(link) || isLocal(address)) continue;
    const isExternal = link.name === externalLink;
    if (!isExternal && isPodLink(link, prefix) && serves(address)) {
      hasPods = true;
      continue;
    }
    needs.push({ prefix: Prefix.host(address), what: `${address} of ${link.name}` });
    if (prefix.length === addressBits(address.family)) continue;
    const family = network[`ipv${address.family}`];
    const yields = (isExternal || link.kind !== "bridge") && family !== undefined &&
      containsRange(prefix, family);
    needs.push({ prefix, what: `${prefix} of ${link.name}`, ...(yields ? { yields } : {}) });
  }

  const gateways = new Map<string, Place>();
  for (const route of facts.routes) {
    const hops = [route, ...route.nextHops];
    const link = links.get(hops.find(({ linkIndex }) => linkIndex)?.linkIndex ?? 0);
    if (route.protocol === ROUTE_PROTOCOL || (link && isFlannels(link))) continue;
    const { destination } = route;
    // Pods' routes, which some plugins set one by one.
    if (destination.length > 0 && serves(destination)) continue;
    for (const { gateway } of hops) {
      if (!gateway || isLocal(gateway)) continue;
      const what = `the gateway ${gateway} of ${
        destination.length === 0 ? "the default route" : `the route to ${destination}`
      }`;
      if (!gateways.has(`${gateway}`)) {
        gateways.set(`${gateway}`, { prefix: Prefix.host(gateway), what });
      }
    }
    const family = network[`ipv${destination.family}`];
    if (
      route.protocol === RTPROT_KERNEL || destination.length === 0 ||
      isLocal(destination.address) ||
      !family?.network.overlaps(destination)
    ) continue;
    const place: Place = { prefix: destination, what: `the route to ${destination}`, yields: true };
    // One to a whole subnet may be upstream's, which is replaced if a peer has the subnet.
    const isPeers = destination.length <= family.subnetLength &&
      hops.some(({ gateway }) => gateway);
    (isPeers ? exact : needs).push(place);
  }
  for (const { address, what } of facts.services) {
    // A name server on the pods' bridge, or in a pod.
    if (isLocal(address) || (hasPods && serves(address))) continue;
    needs.push({ prefix: Prefix.host(address), what });
  }
  needs.push(...gateways.values());
  const places = new Places(needs);
  return { needs: places, occupied: places.concat(new Places(exact)) };
}

/** Whether `prefix` contains all leasable subnets, so that none can avoid it. */
function containsRange(prefix: Prefix, { subnetMin, subnetMax, subnetLength }: FamilyConfig) {
  return prefix.contains(subnetMin) && prefix.contains(new Prefix(subnetMax, subnetLength));
}

/** Whether a link looks like the bridge of this host's pods. */
function isPodLink({ kind }: Link, prefix: Prefix): boolean {
  return kind === "bridge" || kind === "openvswitch" || kind === "dummy" || kind === "macvlan" ||
    kind === "ipvlan" || (kind !== undefined && prefix.length === addressBits(prefix.family));
}

/** No pod subnet can contain it. */
function isLocal(address: Address): boolean {
  return address.isLoopback() || address.isLinkLocal() || address.isMulticast() ||
    address.isUnspecified();
}

/** The name servers in the text of a resolv.conf. */
export function nameServers(text: string, parse: (text: string) => Address | undefined): Address[] {
  return text.split(/\r?\n/).flatMap((line) => {
    const address = /^\s*nameserver\s+([^\s#;%]+)/.exec(line)?.[1];
    const parsed = address && parse(address);
    return parsed ? [parsed] : [];
  });
}

/**
 * Which addresses of a link may be published, and which one is the host's own, not a virtual IP
 * that comes and goes.
 *
 * @module
 */
import { RTPROT_KERNEL } from "../../ffi/libnl_route/constants.ts";
import { type Address, addressBits, type Family } from "../net/mod.ts";
import { present } from "../util/present.ts";
import type { Link, LinkAddress, Route } from "./netlink.ts";

/** The kernel's lists, as read at one moment. */
export interface InterfaceFacts {
  readonly links: readonly Link[];
  readonly addresses: readonly LinkAddress[];
  /** Table main. */
  readonly routes: readonly Route[];
  /** The route to `canReach`; absent if there is none. */
  readonly routeToCanReach?: Route;
}

/** One path of a default route. */
export interface DefaultPath {
  readonly linkIndex: number;
  readonly metric: number;
  readonly weight: number;
  readonly gateway?: Address;
  readonly source?: Address;
}

/** The paths of the default routes of `family`, best first: lowest metric, then highest weight. */
export function defaultPaths(family: Family, routes: readonly Route[]): readonly DefaultPath[] {
  const paths = routes
    .filter(({ destination, type }) =>
      destination.family === family && destination.length === 0 && type === "unicast"
    )
    .flatMap((route): DefaultPath[] => {
      const { metric, source } = route;
      const hops = route.nextHops.length > 0
        ? route.nextHops
        : route.linkIndex === undefined
        ? []
        : [{ ...route, linkIndex: route.linkIndex, weight: 1 }];
      return hops.filter(({ dead }) => !dead).map(({ linkIndex, weight, gateway }) =>
        present({ linkIndex, metric, weight, gateway, source })
      );
    });
  // Sorting is stable: equals stay in the kernel's order.
  return paths.toSorted((a, b) => a.metric - b.metric || b.weight - a.weight);
}

/** Duplicate address detection takes about a second (RFC 4862 section 5.4). */
export const TENTATIVE = "tentative";

/** Why an address is unusable; `undefined` if it is not. */
export function unfitness({ address: { address }, ...state }: LinkAddress): string | undefined {
  if (address.isLoopback() || address.isMulticast() || address.isUnspecified()) {
    return "not a unicast address of the network";
  }
  if (state.dadFailed) return "a duplicate of another host's";
  if (state.tentative) return TENTATIVE;
  if (state.deprecated) return "deprecated";
  if (state.temporary) return "temporary";
  return undefined;
}

/** An address without a subnet, such as virtual IPs have. */
export function isHostLength({ address: { prefix } }: LinkAddress): boolean {
  return prefix.length === addressBits(prefix.family);
}

/**
 * The addresses of `family` that may be used, best first. Where the link's default route names a
 * source, the host's own address is that one. Otherwise addresses that may be virtual IPs, which
 * keepalived or kube-vip put beside it and take to another host at any time, come last:
 *
 * - a permanent one without a subnet;
 * - a permanent IPv4 address beside one that DHCP gave to this host in the same subnet, even
 *   with a wrong prefix length;
 * - a secondary IPv4 address, that is one added to a subnet that the link had an address in.
 *
 * Then, as the kernel chooses, one in the subnet of the gateway; then, as upstream, one without
 * end of validity; then the kernel's order.
 */
export function usableAddresses(
  link: Link,
  family: Family,
  { addresses, routes }: InterfaceFacts,
): readonly LinkAddress[] {
  const [path] = defaultPaths(family, routes).filter(({ linkIndex }) => linkIndex === link.index);
  const usable = addresses.filter((each) =>
    each.linkIndex === link.index && each.address.address.family === family &&
    unfitness(each) === undefined
  );
  const isBeside = (each: LinkAddress) => ({ permanent, address }: LinkAddress) =>
    !permanent && (address.prefix.overlaps(each.address.prefix) ||
      (isHostLength(each) && address.prefix.length === each.address.prefix.length));
  const isBesideLeased = (each: LinkAddress) =>
    family === 4 && each.permanent && usable.some(isBeside(each));
  const rank = (each: LinkAddress): readonly boolean[] => [
    !(path?.source && each.address.address.equals(path.source)),
    each.address.address.isLinkLocal(),
    each.scope === "host" || (each.scope === "link" && !each.address.address.isLinkLocal()),
    each.permanent && isHostLength(each),
    isBesideLeased(each),
    each.secondary,
    !(path?.gateway && each.address.prefix.contains(path.gateway)),
    !each.permanent,
  ];
  return usable
    .map((each) => ({ each, rank: rank(each).map(Number).join("") }))
    .toSorted((a, b) => a.rank < b.rank ? -1 : a.rank > b.rank ? 1 : 0)
    .map(({ each }) => each);
}

/**
 * Whether `address`, which the kernel would send from, may be a virtual IP: the link has a better
 * one, and no route but the kernel's own has this one as its source.
 */
export function isVirtual(address: Address, link: Link, facts: InterfaceFacts): boolean {
  const [best] = usableAddresses(link, address.family, facts);
  return best !== undefined && !best.address.address.equals(address) &&
    best.address.prefix.contains(address) &&
    !facts.routes.some(({ protocol, source }) =>
      protocol !== RTPROT_KERNEL && source?.equals(address)
    );
}

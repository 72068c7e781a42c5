/** Which foreign routes may be replaced or removed as if they were ours. @module */
import type { Address } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type RouteSpec } from "../state/mod.ts";

/** `rtm_protocol` of routes whose creator set none, such as upstream flannel's. */
const RTPROT_BOOT = 3;
/** `rtm_protocol` of routes that an administrator made. */
const RTPROT_STATIC = 4;

/** Link names of upstream's backends. */
export const FLANNEL_LINK =
  /^(?:flannel(?:-v6)?\.\d+|flannel\.ipip|flannel\d+|flannel-wg(?:-v6)?)$/;

/** What {@linkcode isAdoptable} depends on besides the route. */
export interface AdoptionContext {
  /** The desired route to the same destination. */
  readonly desired: RouteSpec | undefined;
  /** Whether another host of the network has this address. */
  readonly isPeer: (address: Address) => boolean;
  /** Whether a link is this daemon's now. */
  readonly isOwnLink: (name: string) => boolean;
  /** Whether this process had its own route there before. */
  readonly wasOurs: boolean;
}

/**
 * Whether `actual`, a route inside the network that does not have our protocol, may still be treated
 * as ours. There are three cases; every other route is foreign:
 *
 * - a route that was put over one of ours while we ran: it is replaced, as any drift is;
 * - an upstream flanneld's route to a peer's subnet, over a flannel link or via a host of the
 *   network: it is replaced in place, so that an upgrade loses no packet;
 * - an upstream flanneld's route over a link that is ours now, to the subnet of a peer that has
 *   gone: it is removed. No other software makes such routes.
 */
export function isAdoptable(actual: RouteSpec, context: AdoptionContext): boolean {
  const { desired, isPeer, isOwnLink, wasOurs } = context;
  const { protocol, type, link, gateway } = actual;
  if (desired?.protocol === ROUTE_PROTOCOL && desired.metric === undefined) {
    if (wasOurs) return protocol === RTPROT_BOOT || protocol === RTPROT_STATIC;
    if (protocol !== RTPROT_BOOT || type !== "unicast") return false;
    return (link !== undefined && FLANNEL_LINK.test(link)) ||
      (gateway !== undefined && isPeer(gateway));
  }
  return protocol === RTPROT_BOOT && type === "unicast" && link !== undefined &&
    isOwnLink(link) && actual.onlink === true && gateway !== undefined &&
    (gateway.equals(actual.destination.address) || link === "flannel.ipip");
}

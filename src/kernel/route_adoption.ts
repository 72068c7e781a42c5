import type { Address } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type RouteSpec } from "../state/mod.ts";

/** `rtm_protocol` of routes for which their maker named none, upstream flannel among them. */
const RTPROT_BOOT = 3;

/** The links of all of upstream's backends. */
const FLANNEL_LINK = /^(?:flannel(?:-v6)?\.\d+|flannel\.ipip|flannel\d+|flannel-wg(?:-v6)?)$/;

/**
 * Whether `actual` is a route that an upstream flanneld left for what `desired` is about, so that
 * it may be replaced in place and an upgrade loses no packet. It must lead to exactly the same
 * destination without protocol of its own, and either be the desired one but for that, or lead to
 * a link of flannel's, or to `isPeer`: a host of the network.
 */
export function isAdoptable(
  actual: RouteSpec,
  desired: RouteSpec | undefined,
  isPeer: (address: Address) => boolean,
): boolean {
  if (actual.protocol !== RTPROT_BOOT || actual.type !== "unicast") return false;
  if (desired?.protocol !== ROUTE_PROTOCOL || desired.metric !== undefined) return false;
  if (!desired.destination.equals(actual.destination)) return false;
  if (actual.link !== undefined && FLANNEL_LINK.test(actual.link)) return true;
  return actual.gateway !== undefined && isPeer(actual.gateway);
}

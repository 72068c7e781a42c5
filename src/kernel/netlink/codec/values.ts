/** What the nouns' messages have in common: flags, families, scopes, addresses. @module */
import { AF_INET, AF_INET6 } from "../../../../ffi/libc/constants.ts";
import * as nl from "../../../../ffi/libnl/constants.ts";
import type { Attributes } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import { Address, type Family, MacAddress } from "../../../net/mod.ts";
import type { RouteScope } from "../../netlink.ts";

/** nlmsg_flags by verb. */
export const FLAGS = {
  list: nl.NLM_F_REQUEST | nl.NLM_F_DUMP,
  get: nl.NLM_F_REQUEST,
  add: nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_EXCL,
  replace: nl.NLM_F_REQUEST | nl.NLM_F_CREATE | nl.NLM_F_REPLACE,
  set: nl.NLM_F_REQUEST,
  remove: nl.NLM_F_REQUEST,
} as const;

/** `rtm_scope` and `ifa_scope` by name. */
export const SCOPES: ReadonlyMap<RouteScope, number> = new Map([
  ["universe", rt.RT_SCOPE_UNIVERSE],
  ["site", rt.RT_SCOPE_SITE],
  ["link", rt.RT_SCOPE_LINK],
  ["host", rt.RT_SCOPE_HOST],
  ["nowhere", rt.RT_SCOPE_NOWHERE],
]);
export const SCOPE_NAMES = new Map([...SCOPES].map(([name, number]) => [number, name]));

/** The socket address family of `family`. */
export function addressFamily(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

/** The IP version of an address family, `undefined` for any other. */
export function familyOf(addressFamily: number): Family | undefined {
  return addressFamily === AF_INET ? 4 : addressFamily === AF_INET6 ? 6 : undefined;
}

// A dump has thousands of addresses, so they are read in place.

/** The address in attribute `type`; `undefined` if it is absent or has another size. */
export function readAddress(attributes: Attributes, type: number): Address | undefined {
  const at = attributes.offset(type);
  if (at < 0) return undefined;
  const size = attributes.size(type);
  if (size !== 4 && size !== 16) return undefined;
  return Address.read(attributes.view, at, size === 4 ? 4 : 6);
}

/** The MAC address in attribute `type`. */
export function readMac(attributes: Attributes, type: number): MacAddress | undefined {
  const at = attributes.offset(type);
  return at >= 0 && attributes.size(type) === 6 ? MacAddress.read(attributes.view, at) : undefined;
}

/**
 * Requests for links, built by libnl-route: they are few and deeply nested. Routes, addresses and
 * neighbours come by the thousand and are encoded without it.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { AF_INET, AF_INET6, AF_LLC } from "../libnl/constants.ts";
import { Attributes } from "../libnl/messages.ts";
import type { CObject } from "../libnl/open.ts";
import { nlattr, nlmsghdr } from "../libnl/structs.ts";
import {
  IFF_UP,
  IFLA_INFO_DATA,
  IFLA_LINKINFO,
  IFLA_VXLAN_PORT,
  RTNL_LINK_VXLAN_F_GBP,
} from "./constants.ts";
import type { LibnlRoute } from "./open.ts";
import { ifinfomsg } from "./structs.ts";

/** A C string. */
function cString(text: string): Uint8Array<ArrayBuffer> {
  return new TextEncoder().encode(`${text}\0`);
}

type Bytes = Uint8Array<ArrayBuffer>;

/** Properties of a link; absent ones are left alone. Addresses are in network order. */
export interface RawLink {
  readonly index?: number;
  readonly name?: string;
  readonly kind?: string | undefined;
  readonly mtuBytes?: number | undefined;
  readonly mac?: Bytes | undefined;
  /** `true` sets IFF_UP. */
  readonly up?: true | undefined;
  readonly txQueueLength?: number;
  /** At most 255 bytes. */
  readonly alias?: string | undefined;
  readonly ipip?: { readonly local: Bytes } | undefined;
  readonly vxlan?: {
    readonly vni?: number | undefined;
    readonly port?: number | undefined;
    readonly underlayIndex?: number | undefined;
    readonly local?: Bytes | undefined;
    readonly learning?: boolean | undefined;
    readonly gbp?: boolean | undefined;
  } | undefined;
}

function withAddress<T>(
  route: LibnlRoute,
  family: number,
  bytes: Bytes,
  use: (address: CObject<"nl_addr">) => T,
): T {
  const object = route.libnl.buildAddress(family, bytes);
  try {
    return use(object); // libnl-route's setters take a reference or a copy of their own
  } finally {
    route.libnl.putAddress(object);
  }
}

function withLink<T>(
  route: LibnlRoute,
  link: RawLink,
  use: (link: CObject<"rtnl_link">) => T,
): T {
  const { symbols, libnl } = route;
  // libnl aborts the process (an assertion) when the setters of one kind are called for another.
  for (const kind of ["vxlan", "ipip"] as const) {
    if (link[kind] && link.kind !== kind) {
      throw new TypeError(`Cannot set ${kind} parameters of a link of kind ${link.kind}`);
    }
  }
  const object = route.owned<"rtnl_link">("rtnl_link_alloc", symbols.rtnl_link_alloc());
  try {
    if (link.index !== undefined) symbols.rtnl_link_set_ifindex(object, link.index);
    if (link.name !== undefined) symbols.rtnl_link_set_name(object, cString(link.name));
    if (link.mtuBytes !== undefined) symbols.rtnl_link_set_mtu(object, link.mtuBytes);
    if (link.up) symbols.rtnl_link_set_flags(object, IFF_UP);
    if (link.txQueueLength !== undefined) {
      symbols.rtnl_link_set_txqlen(object, link.txQueueLength);
    }
    if (link.alias !== undefined) symbols.rtnl_link_set_ifalias(object, cString(link.alias));
    if (link.mac !== undefined) {
      withAddress(route, AF_LLC, link.mac, (address) => {
        symbols.rtnl_link_set_addr(object, address);
      });
    }
    if (link.kind !== undefined) {
      libnl.check("rtnl_link_set_type", symbols.rtnl_link_set_type(object, cString(link.kind)));
    }
    if (link.vxlan) setVxlan(route, object, link.vxlan);
    if (link.ipip) setIpip(route, object, link.ipip);
    return use(object);
  } finally {
    symbols.rtnl_link_put(object);
  }
}

function setVxlan(
  route: LibnlRoute,
  link: CObject<"rtnl_link">,
  vxlan: NonNullable<RawLink["vxlan"]>,
): void {
  const { symbols, libnl } = route;
  const { vni, port, underlayIndex, local, learning, gbp } = vxlan;
  if (vni !== undefined) {
    libnl.check("rtnl_link_vxlan_set_id", symbols.rtnl_link_vxlan_set_id(link, vni));
  }
  if (underlayIndex !== undefined) {
    const result = symbols.rtnl_link_vxlan_set_link(link, underlayIndex);
    libnl.check("rtnl_link_vxlan_set_link", result);
  }
  if (local !== undefined) {
    withAddress(route, local.length === 4 ? AF_INET : AF_INET6, local, (address) => {
      const result = symbols.rtnl_link_vxlan_set_local(link, address);
      libnl.check("rtnl_link_vxlan_set_local", result);
    });
  }
  if (port !== undefined) {
    libnl.check("rtnl_link_vxlan_set_port", symbols.rtnl_link_vxlan_set_port(link, port));
  }
  if (learning !== undefined) {
    const result = symbols.rtnl_link_vxlan_set_learning(link, learning ? 1 : 0);
    libnl.check("rtnl_link_vxlan_set_learning", result);
  }
  if (gbp) {
    const result = symbols.rtnl_link_vxlan_set_flags(link, RTNL_LINK_VXLAN_F_GBP, 1);
    libnl.check("rtnl_link_vxlan_set_flags", result);
  }
}

function setIpip(
  route: LibnlRoute,
  link: CObject<"rtnl_link">,
  { local }: NonNullable<RawLink["ipip"]>,
): void {
  const { symbols, libnl } = route;
  // In network order, as it stands in the packet.
  const address = new DataView(local.buffer, local.byteOffset).getUint32(0, LITTLE_ENDIAN);
  libnl.check("rtnl_link_ipip_set_local", symbols.rtnl_link_ipip_set_local(link, address));
  // Explicit, since the kernel turns path MTU discovery on by default (ipip_netlink_parms).
  libnl.check("rtnl_link_ipip_set_pmtudisc", symbols.rtnl_link_ipip_set_pmtudisc(link, 0));
}

/** RTM_NEWLINK that creates `link`. */
export function buildLinkAdd(route: LibnlRoute, link: RawLink, flags: number) {
  const message = withLink(route, link, (object) =>
    route.buildMessage(
      "rtnl_link_build_add_request",
      (place) => route.symbols.rtnl_link_build_add_request(object, flags, place),
    ));
  if (link.vxlan?.port !== undefined) narrowVxlanPort(message, link.vxlan.port);
  return message;
}

/**
 * libnl 3.7 writes the port in four bytes (vxlan.c, vxlan_put_attrs). The kernel takes the first
 * two, and logs a warning about the length.
 */
function narrowVxlanPort(message: Uint8Array<ArrayBuffer>, port: number): void {
  const view = new DataView(message.buffer, message.byteOffset, message.length);
  const start = nlmsghdr.size + ifinfomsg.size;
  const link = new Attributes(IFLA_LINKINFO).parse(view, start, view.byteLength);
  const info = new Attributes(IFLA_INFO_DATA).parseNested(link, IFLA_LINKINFO);
  const value = new Attributes(IFLA_VXLAN_PORT).parseNested(info, IFLA_INFO_DATA)
    .bytes(IFLA_VXLAN_PORT);
  if (value?.length !== 4) return;
  // The other two become padding.
  const at = value.byteOffset - message.byteOffset;
  view.setUint16(at - nlattr.size + nlattr.nla_len, nlattr.size + 2, LITTLE_ENDIAN);
  view.setUint16(at, port);
}

/** RTM_NEWLINK that changes the link of index `link.index`. */
export function buildLinkChange(route: LibnlRoute, link: RawLink & { readonly index: number }) {
  return withLink(
    route,
    { index: link.index },
    (original) =>
      withLink(route, link, (changes) =>
        route.buildMessage(
          "rtnl_link_build_change_request",
          (place) => route.symbols.rtnl_link_build_change_request(original, changes, 0, place),
        )),
  );
}

/** RTM_DELLINK. */
export function buildLinkRemove(route: LibnlRoute, index: number) {
  return withLink(route, { index }, (object) =>
    route.buildMessage(
      "rtnl_link_build_delete_request",
      (place) => route.symbols.rtnl_link_build_delete_request(object, place),
    ));
}

/**
 * Requests for links, built by libnl-route: they are few and deeply nested. Routes, addresses and
 * neighbours come by the thousand and are encoded without it.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import * as sys from "../libc/constants.ts";
import { Attributes } from "../libnl/messages.ts";
import { nlattr, nlmsghdr } from "../libnl/structs.ts";
import * as rt from "./constants.ts";
import type { LibnlRoute, LibnlRouteSymbols } from "./open.ts";
import { ifinfomsg } from "./structs.ts";

type Bytes = Uint8Array<ArrayBuffer>;

function cString(text: string | undefined): Bytes | undefined {
  return text === undefined ? undefined : new TextEncoder().encode(`${text}\0`);
}

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

type Setter = keyof LibnlRouteSymbols & `rtnl_link_${string}set_${string}`;

/** An `rtnl_link` with the properties of `link`; freed by `stack`. */
function makeLink(route: LibnlRoute, link: RawLink, stack: DisposableStack) {
  const { symbols, libnl } = route;
  // libnl aborts the process (an assertion) when the setters of one kind are called for another.
  for (const kind of ["vxlan", "ipip"] as const) {
    if (link[kind] && link.kind !== kind) {
      throw new TypeError(`Cannot set ${kind} parameters of a link of kind ${link.kind}`);
    }
  }
  const object = libnl.owned<"rtnl_link">("rtnl_link_alloc", symbols.rtnl_link_alloc());
  stack.defer(() => symbols.rtnl_link_put(object));
  /** Sets what is given; some setters return a code, others nothing. */
  const set = (setter: Setter, value: unknown, ...more: number[]) => {
    if (value === undefined) return;
    const call = symbols[setter] as (...values: unknown[]) => number | undefined;
    libnl.check(setter, call(object, value, ...more) ?? 0);
  };
  // Setters take a reference to an address, or a copy.
  const address = (family: number, bytes: Bytes | undefined) =>
    bytes && stack.adopt(libnl.buildAddress(family, bytes), (each) => libnl.putAddress(each));
  const { vxlan, ipip } = link;
  set("rtnl_link_set_ifindex", link.index);
  set("rtnl_link_set_name", cString(link.name));
  set("rtnl_link_set_mtu", link.mtuBytes);
  set("rtnl_link_set_flags", link.up && rt.IFF_UP);
  set("rtnl_link_set_txqlen", link.txQueueLength);
  set("rtnl_link_set_ifalias", cString(link.alias));
  set("rtnl_link_set_addr", address(sys.AF_LLC, link.mac));
  set("rtnl_link_set_type", cString(link.kind));
  if (vxlan) {
    const { local, learning } = vxlan;
    set("rtnl_link_vxlan_set_id", vxlan.vni);
    set("rtnl_link_vxlan_set_link", vxlan.underlayIndex);
    set(
      "rtnl_link_vxlan_set_local",
      address(local?.length === 4 ? sys.AF_INET : sys.AF_INET6, local),
    );
    set("rtnl_link_vxlan_set_port", vxlan.port);
    set("rtnl_link_vxlan_set_learning", learning === undefined ? undefined : Number(learning));
    set("rtnl_link_vxlan_set_flags", vxlan.gbp ? rt.RTNL_LINK_VXLAN_F_GBP : undefined, 1);
  }
  if (ipip) {
    // In network order, as in the packet.
    const view = new DataView(ipip.local.buffer, ipip.local.byteOffset);
    set("rtnl_link_ipip_set_local", view.getUint32(0, LITTLE_ENDIAN));
    // Explicit, since the kernel turns path MTU discovery on by default (ipip_netlink_parms).
    set("rtnl_link_ipip_set_pmtudisc", 0);
  }
  return object;
}

/** RTM_NEWLINK that creates `link`. */
export function buildLinkAdd(route: LibnlRoute, link: RawLink) {
  using stack = new DisposableStack();
  const object = makeLink(route, link, stack);
  const call = "rtnl_link_build_add_request";
  const message = route.buildMessage(call, (place) => route.symbols[call](object, 0, place));
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
  const link = new Attributes(rt.IFLA_LINKINFO).parse(view, start, view.byteLength);
  const info = new Attributes(rt.IFLA_INFO_DATA).parseNested(link, rt.IFLA_LINKINFO);
  const value = new Attributes(rt.IFLA_VXLAN_PORT).parseNested(info, rt.IFLA_INFO_DATA)
    .bytes(rt.IFLA_VXLAN_PORT);
  if (value?.length !== 4) return;
  // The other two become padding.
  const at = value.byteOffset - message.byteOffset;
  view.setUint16(at - nlattr.size + nlattr.nla_len, nlattr.size + 2, LITTLE_ENDIAN);
  view.setUint16(at, port);
}

/** RTM_NEWLINK that changes the link of index `link.index`. */
export function buildLinkChange(route: LibnlRoute, link: RawLink & { readonly index: number }) {
  using stack = new DisposableStack();
  const original = makeLink(route, { index: link.index }, stack);
  const changes = makeLink(route, link, stack);
  const call = "rtnl_link_build_change_request";
  return route.buildMessage(
    call,
    (place) => route.symbols[call](original, changes, 0, place),
  );
}

/** RTM_DELLINK. */
export function buildLinkRemove(route: LibnlRoute, index: number) {
  using stack = new DisposableStack();
  const object = makeLink(route, { index }, stack);
  const call = "rtnl_link_build_delete_request";
  return route.buildMessage(call, (place) => route.symbols[call](object, place));
}

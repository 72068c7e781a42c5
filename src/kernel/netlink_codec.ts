/**
 * Between the nouns of `netlink.ts` and rtnetlink messages (rtnetlink(7), <linux/rtnetlink.h>).
 * Encoders write one message; decoders return `undefined` for an object that the caller's filter or
 * the noun's definition leaves out.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import {
  AF_BRIDGE,
  AF_INET,
  AF_INET6,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
} from "../../ffi/libnl/constants.ts";
import { Attributes, type MessageBounds, MessageWriter } from "../../ffi/libnl/messages.ts";
import {
  FIB_RULE_INVERT,
  FR_ACT_BLACKHOLE,
  FR_ACT_PROHIBIT,
  FR_ACT_TO_TBL,
  FR_ACT_UNREACHABLE,
  FRA_DST,
  FRA_FWMARK,
  FRA_FWMASK,
  FRA_IIFNAME,
  FRA_OIFNAME,
  FRA_PRIORITY,
  FRA_PROTOCOL,
  FRA_SRC,
  FRA_TABLE,
  IFA_ADDRESS,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_NODAD,
  IFA_F_PERMANENT,
  IFA_F_TEMPORARY,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LOCAL,
  IFF_LOOPBACK,
  IFF_NOARP,
  IFF_POINTOPOINT,
  IFF_RUNNING,
  IFF_UP,
  IFLA_ADDRESS,
  IFLA_EXT_MASK,
  IFLA_IFALIAS,
  IFLA_IFNAME,
  IFLA_INFO_DATA,
  IFLA_INFO_KIND,
  IFLA_IPTUN_LOCAL,
  IFLA_IPTUN_REMOTE,
  IFLA_LINKINFO,
  IFLA_MASTER,
  IFLA_MTU,
  IFLA_VXLAN_COLLECT_METADATA,
  IFLA_VXLAN_GBP,
  IFLA_VXLAN_GROUP,
  IFLA_VXLAN_GROUP6,
  IFLA_VXLAN_ID,
  IFLA_VXLAN_L2MISS,
  IFLA_VXLAN_L3MISS,
  IFLA_VXLAN_LEARNING,
  IFLA_VXLAN_LINK,
  IFLA_VXLAN_LOCAL,
  IFLA_VXLAN_LOCAL6,
  IFLA_VXLAN_PORT,
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NTF_SELF,
  NUD_PERMANENT,
  RT_SCOPE_HOST,
  RT_SCOPE_LINK,
  RT_SCOPE_NOWHERE,
  RT_SCOPE_SITE,
  RT_SCOPE_UNIVERSE,
  RT_TABLE_COMPAT,
  RTA_DST,
  RTA_ENCAP,
  RTA_FLOW,
  RTA_GATEWAY,
  RTA_IIF,
  RTA_METRICS,
  RTA_MULTIPATH,
  RTA_NH_ID,
  RTA_OIF,
  RTA_PREFSRC,
  RTA_PRIORITY,
  RTA_SRC,
  RTA_TABLE,
  RTA_VIA,
  RTEXT_FILTER_SKIP_STATS,
  RTM_DELADDR,
  RTM_DELNEIGH,
  RTM_DELROUTE,
  RTM_F_CLONED,
  RTM_GETADDR,
  RTM_GETLINK,
  RTM_GETNEIGH,
  RTM_GETROUTE,
  RTM_GETRULE,
  RTM_NEWADDR,
  RTM_NEWNEIGH,
  RTM_NEWROUTE,
  RTN_ANYCAST,
  RTN_BLACKHOLE,
  RTN_BROADCAST,
  RTN_LOCAL,
  RTN_MULTICAST,
  RTN_PROHIBIT,
  RTN_THROW,
  RTN_UNICAST,
  RTN_UNREACHABLE,
  RTNH_F_DEAD,
  RTNH_F_ONLINK,
} from "../../ffi/libnl_route/constants.ts";
import {
  fib_rule_hdr,
  ifaddrmsg,
  ifinfomsg,
  ndmsg,
  rtmsg,
  rtnexthop,
  rtvia,
} from "../../ffi/libnl_route/structs.ts";
import { Address, addressBits, type Family, InterfaceAddress, MacAddress } from "../net/mod.ts";
import { Prefix } from "../net/mod.ts";
import type {
  FdbEntry,
  IpipParameters,
  Link,
  LinkAddress,
  Neighbor,
  NextHop,
  Route,
  RouteLookup,
  RouteScope,
  RouteType,
  Rule,
  RuleRefusal,
  VxlanParameters,
} from "./netlink.ts";

const ROUTE_TYPES: ReadonlyMap<RouteType, number> = new Map([
  ["unicast", RTN_UNICAST],
  ["local", RTN_LOCAL],
  ["broadcast", RTN_BROADCAST],
  ["anycast", RTN_ANYCAST],
  ["multicast", RTN_MULTICAST],
  ["blackhole", RTN_BLACKHOLE],
  ["unreachable", RTN_UNREACHABLE],
  ["prohibit", RTN_PROHIBIT],
  ["throw", RTN_THROW],
]);
const ROUTE_TYPE_NAMES = new Map([...ROUTE_TYPES].map(([name, number]) => [number, name]));

const SCOPES: ReadonlyMap<RouteScope, number> = new Map([
  ["universe", RT_SCOPE_UNIVERSE],
  ["site", RT_SCOPE_SITE],
  ["link", RT_SCOPE_LINK],
  ["host", RT_SCOPE_HOST],
  ["nowhere", RT_SCOPE_NOWHERE],
]);
const SCOPE_NAMES = new Map([...SCOPES].map(([name, number]) => [number, name]));

/** The socket address family of `family`. */
export function addressFamily(family: Family): number {
  return family === 4 ? AF_INET : AF_INET6;
}

/** The IP version of an address family, `undefined` for any other. */
function familyOf(addressFamily: number): Family | undefined {
  return addressFamily === AF_INET ? 4 : addressFamily === AF_INET6 ? 6 : undefined;
}

// A dump has thousands of addresses, so they are read where they lie.

function readAddress(attributes: Attributes, type: number): Address | undefined {
  const at = attributes.offset(type);
  if (at < 0) return undefined;
  const size = attributes.size(type);
  if (size !== 4 && size !== 16) return undefined;
  return Address.read(attributes.view, at, size === 4 ? 4 : 6);
}

function readMac(attributes: Attributes, type: number): MacAddress | undefined {
  const at = attributes.offset(type);
  return at >= 0 && attributes.size(type) === 6 ? MacAddress.read(attributes.view, at) : undefined;
}

// Links

/** RTM_GETLINK of every link. */
export function encodeLinkDump(writer: MessageWriter, sequence: number): void {
  writer.start(RTM_GETLINK, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  writer.reserve(ifinfomsg.size);
  writer.attributeUint32(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
  writer.finish();
}

const linkAttributes = new Attributes(IFLA_EXT_MASK);
const linkInfoAttributes = new Attributes(IFLA_INFO_DATA);
const vxlanAttributes = new Attributes(IFLA_VXLAN_COLLECT_METADATA);
const ipipAttributes = new Attributes(IFLA_IPTUN_REMOTE);

/** An RTM_NEWLINK message. */
export function decodeLink(view: DataView<ArrayBuffer>, message: MessageBounds): Link | undefined {
  const { start, end } = message;
  // Bridges report their ports a second time, as family AF_BRIDGE.
  if (view.getUint8(start + ifinfomsg.ifi_family) === AF_BRIDGE) return undefined;
  const flags = view.getUint32(start + ifinfomsg.ifi_flags, LITTLE_ENDIAN);
  const attributes = linkAttributes.parse(view, start + ifinfomsg.size, end);
  const mac = readMac(attributes, IFLA_ADDRESS);
  const masterIndex = attributes.uint32(IFLA_MASTER);
  const alias = attributes.string(IFLA_IFALIAS);
  const info = linkInfoAttributes.parseNested(attributes, IFLA_LINKINFO);
  const kind = info.string(IFLA_INFO_KIND);
  return {
    index: view.getInt32(start + ifinfomsg.ifi_index, LITTLE_ENDIAN),
    name: attributes.string(IFLA_IFNAME) ?? "",
    mtuBytes: attributes.uint32(IFLA_MTU) ?? 0,
    ...(mac ? { mac } : {}),
    up: (flags & IFF_UP) !== 0,
    running: (flags & IFF_RUNNING) !== 0,
    loopback: (flags & IFF_LOOPBACK) !== 0,
    withoutNeighbors: (flags & (IFF_POINTOPOINT | IFF_NOARP)) !== 0,
    ...(alias ? { alias } : {}),
    ...(masterIndex ? { masterIndex } : {}),
    ...(kind === undefined ? {} : { kind }),
    ...(kind === "vxlan"
      ? { vxlan: decodeVxlan(vxlanAttributes.parseNested(info, IFLA_INFO_DATA)) }
      : {}),
    ...(kind === "ipip"
      ? { ipip: decodeIpip(ipipAttributes.parseNested(info, IFLA_INFO_DATA)) }
      : {}),
  };
}

function decodeVxlan(attributes: Attributes): VxlanParameters {
  const underlayIndex = attributes.uint32(IFLA_VXLAN_LINK);
  const local = readAddress(attributes, IFLA_VXLAN_LOCAL) ??
    readAddress(attributes, IFLA_VXLAN_LOCAL6);
  const remote = readAddress(attributes, IFLA_VXLAN_GROUP) ??
    readAddress(attributes, IFLA_VXLAN_GROUP6);
  const modes = [
    ["l2miss", IFLA_VXLAN_L2MISS],
    ["l3miss", IFLA_VXLAN_L3MISS],
    ["external", IFLA_VXLAN_COLLECT_METADATA],
  ] as const;
  return {
    vni: attributes.uint32(IFLA_VXLAN_ID) ?? 0,
    port: attributes.uint16BigEndian(IFLA_VXLAN_PORT) ?? 0,
    ...(underlayIndex ? { underlayIndex } : {}),
    ...(local && !local.isUnspecified() ? { local } : {}),
    learning: attributes.uint8(IFLA_VXLAN_LEARNING) === 1,
    gbp: attributes.has(IFLA_VXLAN_GBP),
    ...(remote && !remote.isUnspecified() ? { remote } : {}),
    otherModes: modes.filter(([, type]) => attributes.uint8(type) === 1).map(([name]) => name),
  };
}

function decodeIpip(attributes: Attributes): IpipParameters {
  const local = readAddress(attributes, IFLA_IPTUN_LOCAL);
  const remote = readAddress(attributes, IFLA_IPTUN_REMOTE);
  return {
    ...(local && !local.isUnspecified() ? { local } : {}),
    ...(remote && !remote.isUnspecified() ? { remote } : {}),
  };
}

// Addresses

/** RTM_GETADDR of every address of both families. */
export function encodeAddressDump(writer: MessageWriter, sequence: number): void {
  writer.start(RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  writer.reserve(ifaddrmsg.size);
  writer.finish();
}

const addressAttributes = new Attributes(IFA_FLAGS);

/** An RTM_NEWADDR message. */
export function decodeAddress(
  view: DataView<ArrayBuffer>,
  message: MessageBounds,
): LinkAddress | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + ifaddrmsg.ifa_family));
  if (!family) return undefined;
  const attributes = addressAttributes.parse(view, start + ifaddrmsg.size, end);
  // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a point-to-point link, and the
  // only one that IPv6 gives without a peer.
  const address = readAddress(attributes, IFA_LOCAL) ?? readAddress(attributes, IFA_ADDRESS);
  if (!address) return undefined;
  const flags = attributes.uint32(IFA_FLAGS) ?? view.getUint8(start + ifaddrmsg.ifa_flags);
  return {
    linkIndex: view.getUint32(start + ifaddrmsg.ifa_index, LITTLE_ENDIAN),
    address: new InterfaceAddress(address, view.getUint8(start + ifaddrmsg.ifa_prefixlen)),
    scope: SCOPE_NAMES.get(view.getUint8(start + ifaddrmsg.ifa_scope)) ?? "other",
    permanent: (flags & IFA_F_PERMANENT) !== 0,
    // One flag, with another meaning and another name (IFA_F_SECONDARY) in each family.
    temporary: family === 6 && (flags & IFA_F_TEMPORARY) !== 0,
    secondary: family === 4 && (flags & IFA_F_TEMPORARY) !== 0,
    deprecated: (flags & IFA_F_DEPRECATED) !== 0,
    tentative: (flags & IFA_F_TENTATIVE) !== 0,
    dadFailed: (flags & IFA_F_DADFAILED) !== 0,
  };
}

/** RTM_NEWADDR or RTM_DELADDR. */
export function encodeAddress(
  writer: MessageWriter,
  verb: "add" | "remove",
  { linkIndex, address }: Pick<LinkAddress, "linkIndex" | "address">,
  sequence: number,
): void {
  const flags = NLM_F_REQUEST | (verb === "add" ? NLM_F_CREATE | NLM_F_EXCL : 0);
  writer.start(verb === "add" ? RTM_NEWADDR : RTM_DELADDR, flags, sequence);
  const at = writer.reserve(ifaddrmsg.size);
  writer.setUint8(at + ifaddrmsg.ifa_family, addressFamily(address.address.family));
  writer.setUint8(at + ifaddrmsg.ifa_prefixlen, address.prefix.length);
  writer.setUint8(at + ifaddrmsg.ifa_scope, RT_SCOPE_UNIVERSE);
  writer.setUint32(at + ifaddrmsg.ifa_index, linkIndex);
  const bytes = address.address.toBytes();
  writer.attribute(IFA_LOCAL, bytes);
  if (address.address.family === 4) {
    // With IFA_LOCAL alone IPv4 takes the address as its own peer too, which is what is meant;
    // IFA_ADDRESS says so explicitly, as iproute2 does, and lets RTM_DELADDR match exactly.
    writer.attribute(IFA_ADDRESS, bytes);
  } else if (verb === "add") {
    // On a link that only flanneld uses there is nobody to detect duplicates with, and the wait
    // would leave the address unusable for seconds.
    writer.attributeUint32(IFA_FLAGS, IFA_F_NODAD);
  }
  writer.finish();
}

// Routes

/** RTM_GETROUTE of one family; the kernel filters by table where it can. */
export function encodeRouteDump(
  writer: MessageWriter,
  filter: { readonly family: Family; readonly table: number },
  sequence: number,
): void {
  writer.start(RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  const at = writer.reserve(rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(filter.family));
  setTable(writer, at, filter.table);
  writer.finish();
}

/** RTM_GETROUTE of the route to one address. */
export function encodeRouteGet(
  writer: MessageWriter,
  address: Address,
  sequence: number,
  { from, inputLinkIndex }: RouteLookup = {},
): void {
  writer.start(RTM_GETROUTE, NLM_F_REQUEST, sequence);
  const at = writer.reserve(rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(address.family));
  writer.setUint8(at + rtmsg.rtm_dst_len, addressBits(address.family));
  if (from) writer.setUint8(at + rtmsg.rtm_src_len, addressBits(address.family));
  writer.attribute(RTA_DST, address.toBytes());
  if (from) writer.attribute(RTA_SRC, from.toBytes());
  if (inputLinkIndex !== undefined) writer.attributeUint32(RTA_IIF, inputLinkIndex);
  writer.finish();
}

/** Table numbers of more than 8 bits have an attribute. */
function setTable(writer: MessageWriter, header: number, table: number): void {
  writer.setUint8(header + rtmsg.rtm_table, table < 256 ? table : RT_TABLE_COMPAT);
  if (table >= 256) writer.attributeUint32(RTA_TABLE, table);
}

/** RTM_NEWROUTE or RTM_DELROUTE. @throws {TypeError} For a route that cannot be written. */
export function encodeRoute(
  writer: MessageWriter,
  verb: "add" | "replace" | "remove",
  route: Route,
  sequence: number,
): void {
  const type = ROUTE_TYPES.get(route.type);
  const scope = SCOPES.get(route.scope);
  if (verb !== "remove" && (route.nextHops.length > 0 || route.others.length > 0)) {
    throw new TypeError(
      `Cannot ${verb} route ${route.destination}: it has several next hops or ` +
        `properties that are not known`,
    );
  }
  if (type === undefined || scope === undefined) {
    throw new TypeError(`Cannot ${verb} route ${route.destination}: type or scope is not known`);
  }
  const flags = {
    add: NLM_F_CREATE | NLM_F_EXCL,
    replace: NLM_F_CREATE | NLM_F_REPLACE,
    remove: 0,
  }[verb];
  const { destination, gateway } = route;
  writer.start(
    verb === "remove" ? RTM_DELROUTE : RTM_NEWROUTE,
    NLM_F_REQUEST | flags,
    sequence,
  );
  const at = writer.reserve(rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(destination.family));
  writer.setUint8(at + rtmsg.rtm_dst_len, destination.length);
  writer.setUint8(at + rtmsg.rtm_tos, route.tos);
  writer.setUint8(at + rtmsg.rtm_protocol, route.protocol);
  // A scope in a removal is a condition as well; `nowhere` matches any.
  writer.setUint8(at + rtmsg.rtm_scope, verb === "remove" ? RT_SCOPE_NOWHERE : scope);
  writer.setUint8(at + rtmsg.rtm_type, type);
  if (route.onlink) writer.setUint32(at + rtmsg.rtm_flags, RTNH_F_ONLINK);
  setTable(writer, at, route.table);
  if (destination.length > 0) writer.attribute(RTA_DST, destination.address.toBytes());
  if (gateway?.family === destination.family) {
    writer.attribute(RTA_GATEWAY, gateway.toBytes());
  } else if (gateway) {
    const via = new Uint8Array(rtvia.size + addressBits(gateway.family) / 8);
    new DataView(via.buffer).setUint16(
      rtvia.rtvia_family,
      addressFamily(gateway.family),
      LITTLE_ENDIAN,
    );
    via.set(gateway.toBytes(), rtvia.rtvia_addr);
    writer.attribute(RTA_VIA, via);
  }
  if (route.linkIndex !== undefined) writer.attributeUint32(RTA_OIF, route.linkIndex);
  if (route.source) writer.attribute(RTA_PREFSRC, route.source.toBytes());
  // Written even when it is the default: without it, an IPv6 removal matches any metric.
  writer.attributeUint32(RTA_PRIORITY, route.metric);
  writer.finish();
}

const routeAttributes = new Attributes(RTA_NH_ID);
const nextHopAttributes = new Attributes(RTA_ENCAP);

/** An RTM_NEWROUTE message, if it is a route of the family and table asked for. */
export function decodeRoute(
  view: DataView<ArrayBuffer>,
  message: MessageBounds,
  filter: { readonly family?: Family; readonly table?: number } = {},
): Route | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + rtmsg.rtm_family));
  const flags = view.getUint32(start + rtmsg.rtm_flags, LITTLE_ENDIAN);
  // Where the kernel has no IPv6, a dump of it is answered with all families (rtnl_dump_all).
  if (!family || (filter.family ?? family) !== family) return undefined;
  const attributes = routeAttributes.parse(view, start + rtmsg.size, end);
  const table = attributes.uint32(RTA_TABLE) ?? view.getUint8(start + rtmsg.rtm_table);
  if (filter.table !== undefined) {
    // Cached exceptions (RTM_F_CLONED) are no configuration.
    if (table !== filter.table || (flags & RTM_F_CLONED) !== 0) return undefined;
  }
  const destination = readAddress(attributes, RTA_DST) ?? Address.unspecified(family);
  const linkIndex = attributes.uint32(RTA_OIF);
  const source = readAddress(attributes, RTA_PREFSRC);
  const others: string[] = [];
  if (attributes.has(RTA_METRICS)) others.push("metrics");
  if (attributes.has(RTA_ENCAP)) others.push("encap");
  if (attributes.has(RTA_FLOW)) others.push("realms");
  if (attributes.has(RTA_SRC)) others.push("from");
  if (attributes.has(RTA_NH_ID)) others.push(`nhid ${attributes.uint32(RTA_NH_ID)}`);
  const gateway = decodeGateway(attributes);
  return {
    destination: new Prefix(destination, view.getUint8(start + rtmsg.rtm_dst_len)),
    type: ROUTE_TYPE_NAMES.get(view.getUint8(start + rtmsg.rtm_type)) ?? "other",
    table,
    protocol: view.getUint8(start + rtmsg.rtm_protocol),
    scope: SCOPE_NAMES.get(view.getUint8(start + rtmsg.rtm_scope)) ?? "other",
    tos: view.getUint8(start + rtmsg.rtm_tos),
    metric: attributes.uint32(RTA_PRIORITY) ?? 0,
    onlink: (flags & RTNH_F_ONLINK) !== 0,
    dead: (flags & RTNH_F_DEAD) !== 0,
    ...(gateway ? { gateway } : {}),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    ...(source ? { source } : {}),
    nextHops: decodeNextHops(view, attributes.bytes(RTA_MULTIPATH)),
    others,
  };
}

/** The destination of an RTM_NEWROUTE or RTM_DELROUTE message; `undefined` for a default route. */
export function decodeRouteDestination(
  view: DataView<ArrayBuffer>,
  { start, end }: MessageBounds,
): Prefix | undefined {
  const attributes = routeAttributes.parse(view, start + rtmsg.size, end);
  const destination = readAddress(attributes, RTA_DST);
  return destination && new Prefix(destination, view.getUint8(start + rtmsg.rtm_dst_len));
}

function decodeGateway(attributes: Attributes): Address | undefined {
  const gateway = readAddress(attributes, RTA_GATEWAY);
  if (gateway) return gateway;
  const via = attributes.bytes(RTA_VIA)?.subarray(rtvia.rtvia_addr);
  return via?.length === 4 || via?.length === 16 ? Address.fromBytes(via) : undefined;
}

function decodeNextHops(
  view: DataView<ArrayBuffer>,
  bytes: Uint8Array | undefined,
): readonly NextHop[] {
  const nextHops: NextHop[] = [];
  if (!bytes) return nextHops;
  const start = bytes.byteOffset - view.byteOffset;
  const end = start + bytes.length;
  for (let at = start; at + rtnexthop.size <= end;) {
    const length = view.getUint16(at + rtnexthop.rtnh_len, LITTLE_ENDIAN);
    if (length < rtnexthop.size || at + length > end) {
      throw new RangeError(`Cannot read next hop: length ${length} in ${end - at} bytes`);
    }
    const flags = view.getUint8(at + rtnexthop.rtnh_flags);
    const gateway = decodeGateway(
      nextHopAttributes.parse(view, at + rtnexthop.size, at + length),
    );
    nextHops.push({
      ...(gateway ? { gateway } : {}),
      linkIndex: view.getInt32(at + rtnexthop.rtnh_ifindex, LITTLE_ENDIAN),
      onlink: (flags & RTNH_F_ONLINK) !== 0,
      dead: (flags & RTNH_F_DEAD) !== 0,
      weight: view.getUint8(at + rtnexthop.rtnh_hops) + 1,
    });
    at += (length + 3) & ~3;
  }
  return nextHops;
}

// Neighbours and forwarding entries

/** RTM_GETNEIGH of one family on one link; the kernel filters where it can. */
export function encodeNeighborDump(
  writer: MessageWriter,
  filter: { readonly family: Family; readonly linkIndex: number },
  sequence: number,
): void {
  writer.start(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  const at = writer.reserve(ndmsg.size);
  writer.setUint8(at + ndmsg.ndm_family, addressFamily(filter.family));
  writer.attributeUint32(NDA_IFINDEX, filter.linkIndex);
  writer.finish();
}

/** RTM_GETNEIGH of the forwarding database of one link. */
export function encodeFdbDump(writer: MessageWriter, linkIndex: number, sequence: number): void {
  writer.start(RTM_GETNEIGH, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  const at = writer.reserve(ndmsg.size);
  writer.setUint8(at + ndmsg.ndm_family, AF_BRIDGE);
  writer.setUint32(at + ndmsg.ndm_ifindex, linkIndex);
  writer.finish();
}

/** RTM_NEWNEIGH or RTM_DELNEIGH of a neighbour or a forwarding entry. */
export function encodeNeighbor(
  writer: MessageWriter,
  verb: "add" | "replace" | "remove",
  entry: Neighbor | FdbEntry,
  sequence: number,
): void {
  const flags = {
    add: NLM_F_CREATE | NLM_F_EXCL,
    replace: NLM_F_CREATE | NLM_F_REPLACE,
    remove: 0,
  }[verb];
  writer.start(
    verb === "remove" ? RTM_DELNEIGH : RTM_NEWNEIGH,
    NLM_F_REQUEST | flags,
    sequence,
  );
  const at = writer.reserve(ndmsg.size);
  const fdb = "remote" in entry;
  const address = fdb ? entry.remote : entry.address;
  writer.setUint8(at + ndmsg.ndm_family, fdb ? AF_BRIDGE : addressFamily(address.family));
  writer.setUint32(at + ndmsg.ndm_ifindex, entry.linkIndex);
  writer.setUint16(at + ndmsg.ndm_state, NUD_PERMANENT);
  if (fdb) writer.setUint8(at + ndmsg.ndm_flags, NTF_SELF);
  writer.attribute(NDA_DST, address.toBytes());
  if (fdb || verb !== "remove") writer.attribute(NDA_LLADDR, entry.mac.toBytes());
  writer.finish();
}

const neighborAttributes = new Attributes(NDA_IFINDEX);

/** What an RTM_NEWNEIGH message says, if it is a permanent entry of `linkIndex`. */
function decodePermanent(
  view: DataView<ArrayBuffer>,
  { start, end }: MessageBounds,
  linkIndex: number,
): { mac: MacAddress; address: Address } | undefined {
  if (view.getInt32(start + ndmsg.ndm_ifindex, LITTLE_ENDIAN) !== linkIndex) return undefined;
  const state = view.getUint16(start + ndmsg.ndm_state, LITTLE_ENDIAN);
  if ((state & NUD_PERMANENT) === 0) return undefined;
  const attributes = neighborAttributes.parse(view, start + ndmsg.size, end);
  const mac = readMac(attributes, NDA_LLADDR);
  const address = readAddress(attributes, NDA_DST);
  return mac && address ? { mac, address } : undefined;
}

/** An RTM_NEWNEIGH message, if it is a permanent neighbour on `linkIndex`. */
export function decodeNeighbor(
  view: DataView<ArrayBuffer>,
  message: MessageBounds,
  linkIndex: number,
): Neighbor | undefined {
  if (!familyOf(view.getUint8(message.start + ndmsg.ndm_family))) return undefined;
  const entry = decodePermanent(view, message, linkIndex);
  return entry && { linkIndex, address: entry.address, mac: entry.mac };
}

/** An RTM_NEWNEIGH message, if it is a permanent forwarding entry of `linkIndex` with a remote. */
export function decodeFdbEntry(
  view: DataView<ArrayBuffer>,
  message: MessageBounds,
  linkIndex: number,
): FdbEntry | undefined {
  if (view.getUint8(message.start + ndmsg.ndm_family) !== AF_BRIDGE) return undefined;
  if ((view.getUint8(message.start + ndmsg.ndm_flags) & NTF_SELF) === 0) return undefined;
  const entry = decodePermanent(view, message, linkIndex);
  return entry && { linkIndex, mac: entry.mac, remote: entry.address };
}

// Policy rules

/** RTM_GETRULE of one family. */
export function encodeRuleDump(writer: MessageWriter, family: Family, sequence: number): void {
  writer.start(RTM_GETRULE, NLM_F_REQUEST | NLM_F_DUMP, sequence);
  const at = writer.reserve(fib_rule_hdr.size);
  writer.setUint8(at + fib_rule_hdr.family, addressFamily(family));
  writer.finish();
}

const ruleAttributes = new Attributes(FRA_PROTOCOL);

const RULE_REFUSALS: ReadonlyMap<number, RuleRefusal> = new Map([
  [FR_ACT_BLACKHOLE, "blackhole"],
  [FR_ACT_UNREACHABLE, "unreachable"],
  [FR_ACT_PROHIBIT, "prohibit"],
]);

/** An RTM_NEWRULE message, if the rule leads to a table or refuses. */
export function decodeRule(view: DataView<ArrayBuffer>, message: MessageBounds): Rule | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + fib_rule_hdr.family));
  const action = view.getUint8(start + fib_rule_hdr.action);
  const refusal = RULE_REFUSALS.get(action);
  if (!family || (action !== FR_ACT_TO_TBL && !refusal)) return undefined;
  const isInverted =
    (view.getUint32(start + fib_rule_hdr.flags, LITTLE_ENDIAN) & FIB_RULE_INVERT) !== 0;
  const attributes = ruleAttributes.parse(view, start + fib_rule_hdr.size, end);
  const from = readAddress(attributes, FRA_SRC);
  const to = readAddress(attributes, FRA_DST);
  const mark = attributes.uint32(FRA_FWMARK);
  const mask = attributes.uint32(FRA_FWMASK);
  const inputLink = attributes.string(FRA_IIFNAME);
  const outputLink = attributes.string(FRA_OIFNAME);
  return {
    family,
    priority: attributes.uint32(FRA_PRIORITY) ?? 0,
    table: attributes.uint32(FRA_TABLE) ?? view.getUint8(start + fib_rule_hdr.table),
    protocol: attributes.uint8(FRA_PROTOCOL) ?? 0,
    ...(from ? { from: new Prefix(from, view.getUint8(start + fib_rule_hdr.src_len)) } : {}),
    ...(to ? { to: new Prefix(to, view.getUint8(start + fib_rule_hdr.dst_len)) } : {}),
    ...(mark === undefined ? {} : { mark }),
    ...(mask === undefined ? {} : { mask }),
    ...(inputLink === undefined ? {} : { inputLink }),
    ...(outputLink === undefined ? {} : { outputLink }),
    ...(refusal ? { refusal } : {}),
    ...(isInverted ? { inverted: true } : {}),
  };
}

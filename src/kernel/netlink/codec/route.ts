/** Routes as rtnetlink messages (RTM_*ROUTE). @module */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { Attributes, type Message, type MessageWriter } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import { IPPROTO_UDP } from "../../../../ffi/tun/constants.ts";
import { rtmsg, rtnexthop, rtvia } from "../../../../ffi/libnl_route/structs.ts";
import { Address, addressBits, type Family, Prefix } from "../../../net/mod.ts";
import type { NextHop, Route, RouteLookup, RouteType } from "../../netlink.ts";
import { addressFamily, familyOf, FLAGS, readAddress, SCOPE_NAMES, SCOPES } from "./values.ts";

const ROUTE_TYPES: ReadonlyMap<RouteType, number> = new Map([
  ["unicast", rt.RTN_UNICAST],
  ["local", rt.RTN_LOCAL],
  ["broadcast", rt.RTN_BROADCAST],
  ["anycast", rt.RTN_ANYCAST],
  ["multicast", rt.RTN_MULTICAST],
  ["blackhole", rt.RTN_BLACKHOLE],
  ["unreachable", rt.RTN_UNREACHABLE],
  ["prohibit", rt.RTN_PROHIBIT],
  ["throw", rt.RTN_THROW],
]);
const ROUTE_TYPE_NAMES = new Map([...ROUTE_TYPES].map(([name, number]) => [number, name]));

/** RTM_GETROUTE of one family; the kernel filters by table where it can. */
export function encodeRouteDump(
  writer: MessageWriter,
  filter: { readonly family: Family; readonly table: number },
  sequence: number,
): void {
  const at = writer.start(rt.RTM_GETROUTE, FLAGS.list, sequence, rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(filter.family));
  setTable(writer, at, filter.table);
}

/** RTM_GETROUTE of the route to one address. */
export function encodeRouteGet(
  writer: MessageWriter,
  address: Address,
  sequence: number,
  { from, inputLinkIndex, udpPort }: RouteLookup = {},
): void {
  const at = writer.start(rt.RTM_GETROUTE, FLAGS.get, sequence, rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(address.family));
  writer.setUint8(at + rtmsg.rtm_dst_len, addressBits(address.family));
  if (from) writer.setUint8(at + rtmsg.rtm_src_len, addressBits(address.family));
  writer.attribute(rt.RTA_DST, address.toBytes());
  if (from) writer.attribute(rt.RTA_SRC, from.toBytes());
  if (inputLinkIndex !== undefined) writer.attributeUint32(rt.RTA_IIF, inputLinkIndex);
  if (udpPort !== undefined) {
    writer.attribute(rt.RTA_IP_PROTO, Uint8Array.of(IPPROTO_UDP));
    writer.attribute(rt.RTA_DPORT, Uint8Array.of(udpPort >> 8, udpPort & 255));
  }
}

/** Table numbers of more than 8 bits have an attribute. */
function setTable(writer: MessageWriter, header: number, table: number): void {
  writer.setUint8(header + rtmsg.rtm_table, table < 256 ? table : rt.RT_TABLE_COMPAT);
  if (table >= 256) writer.attributeUint32(rt.RTA_TABLE, table);
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
        `unknown properties`,
    );
  }
  if (type === undefined || scope === undefined) {
    throw new TypeError(`Cannot ${verb} route ${route.destination}: unknown type or scope`);
  }
  const { destination, gateway } = route;
  const message = verb === "remove" ? rt.RTM_DELROUTE : rt.RTM_NEWROUTE;
  const at = writer.start(message, FLAGS[verb], sequence, rtmsg.size);
  writer.setUint8(at + rtmsg.rtm_family, addressFamily(destination.family));
  writer.setUint8(at + rtmsg.rtm_dst_len, destination.length);
  writer.setUint8(at + rtmsg.rtm_tos, route.tos);
  writer.setUint8(at + rtmsg.rtm_protocol, route.protocol);
  // A scope in a removal is a condition as well; `nowhere` matches any.
  writer.setUint8(at + rtmsg.rtm_scope, verb === "remove" ? rt.RT_SCOPE_NOWHERE : scope);
  writer.setUint8(at + rtmsg.rtm_type, type);
  if (route.onlink) writer.setUint32(at + rtmsg.rtm_flags, rt.RTNH_F_ONLINK);
  setTable(writer, at, route.table);
  if (destination.length > 0) writer.attribute(rt.RTA_DST, destination.address.toBytes());
  if (gateway?.family === destination.family) {
    writer.attribute(rt.RTA_GATEWAY, gateway.toBytes());
  } else if (gateway) {
    const via = new Uint8Array(rtvia.size + addressBits(gateway.family) / 8);
    new DataView(via.buffer).setUint16(
      rtvia.rtvia_family,
      addressFamily(gateway.family),
      LITTLE_ENDIAN,
    );
    via.set(gateway.toBytes(), rtvia.rtvia_addr);
    writer.attribute(rt.RTA_VIA, via);
  }
  if (route.linkIndex !== undefined) writer.attributeUint32(rt.RTA_OIF, route.linkIndex);
  if (route.source) writer.attribute(rt.RTA_PREFSRC, route.source.toBytes());
  // Even the default: without it, an IPv6 removal matches any metric.
  writer.attributeUint32(rt.RTA_PRIORITY, route.metric);
}

/** One list for all that have none. */
const NONE: readonly never[] = [];

const routeAttributes = new Attributes(rt.RTA_NH_ID);
/** What a {@linkcode Route} cannot express, by name. */
const OTHERS: readonly (readonly [attribute: number, name: string])[] = [
  [rt.RTA_METRICS, "metrics"],
  [rt.RTA_ENCAP, "encap"],
  [rt.RTA_FLOW, "realms"],
  [rt.RTA_SRC, "from"],
];
const nextHopAttributes = new Attributes(rt.RTA_ENCAP);

/** An RTM_NEWROUTE message, if it is a route of the family and table asked for. */
export function decodeRoute(
  view: DataView<ArrayBuffer>,
  message: Message,
  filter: { readonly family?: Family; readonly table?: number } = {},
): Route | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + rtmsg.rtm_family));
  const flags = view.getUint32(start + rtmsg.rtm_flags, LITTLE_ENDIAN);
  // Where the kernel has no IPv6, its dump returns all families (rtnl_dump_all).
  if (!family || (filter.family ?? family) !== family) return undefined;
  const attributes = routeAttributes.parse(view, start + rtmsg.size, end);
  const table = attributes.uint32(rt.RTA_TABLE) ?? view.getUint8(start + rtmsg.rtm_table);
  if (filter.table !== undefined) {
    // Cached exceptions (RTM_F_CLONED) are not configuration.
    if (table !== filter.table || (flags & rt.RTM_F_CLONED) !== 0) return undefined;
  }
  const destination = readAddress(attributes, rt.RTA_DST) ?? Address.unspecified(family);
  const linkIndex = attributes.uint32(rt.RTA_OIF);
  const source = readAddress(attributes, rt.RTA_PREFSRC);
  const gateway = decodeGateway(attributes);
  const route: { -readonly [Name in keyof Route]: Route[Name] } = {
    destination: new Prefix(destination, view.getUint8(start + rtmsg.rtm_dst_len)),
    type: ROUTE_TYPE_NAMES.get(view.getUint8(start + rtmsg.rtm_type)) ?? "other",
    table,
    protocol: view.getUint8(start + rtmsg.rtm_protocol),
    scope: SCOPE_NAMES.get(view.getUint8(start + rtmsg.rtm_scope)) ?? "other",
    tos: view.getUint8(start + rtmsg.rtm_tos),
    metric: attributes.uint32(rt.RTA_PRIORITY) ?? 0,
    onlink: (flags & rt.RTNH_F_ONLINK) !== 0,
    dead: (flags & rt.RTNH_F_DEAD) !== 0,
    nextHops: decodeNextHops(view, attributes.bytes(rt.RTA_MULTIPATH)),
    others: describeOthers(attributes),
  };
  // Not spread: thousands are read at a time.
  if (gateway) route.gateway = gateway;
  if (linkIndex !== undefined) route.linkIndex = linkIndex;
  if (source) route.source = source;
  return route;
}

function describeOthers(attributes: Attributes): readonly string[] {
  let others: readonly string[] = NONE;
  for (const [type, name] of OTHERS) if (attributes.has(type)) others = [...others, name];
  if (attributes.has(rt.RTA_NH_ID)) others = [...others, `nhid ${attributes.uint32(rt.RTA_NH_ID)}`];
  return others;
}

function decodeGateway(attributes: Attributes): Address | undefined {
  const gateway = readAddress(attributes, rt.RTA_GATEWAY);
  if (gateway) return gateway;
  const via = attributes.bytes(rt.RTA_VIA)?.subarray(rtvia.rtvia_addr);
  return via?.length === 4 || via?.length === 16 ? Address.fromBytes(via) : undefined;
}

function decodeNextHops(
  view: DataView<ArrayBuffer>,
  bytes: Uint8Array | undefined,
): readonly NextHop[] {
  if (!bytes) return NONE;
  const nextHops: NextHop[] = [];
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
      onlink: (flags & rt.RTNH_F_ONLINK) !== 0,
      dead: (flags & rt.RTNH_F_DEAD) !== 0,
      weight: view.getUint8(at + rtnexthop.rtnh_hops) + 1,
    });
    at += (length + 3) & ~3;
  }
  return nextHops;
}

/** Neighbours and forwarding entries as rtnetlink messages (RTM_*NEIGH). @module */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { AF_BRIDGE } from "../../../../ffi/libc/constants.ts";
import { Attributes, type Message, type MessageWriter } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import { ndmsg } from "../../../../ffi/libnl_route/structs.ts";
import type { Address, Family, MacAddress } from "../../../net/mod.ts";
import type { FdbEntry, Neighbor } from "../../netlink.ts";
import { addressFamily, familyOf, FLAGS, readAddress, readMac } from "./values.ts";

/** RTM_GETNEIGH of one family on one link; the kernel filters where it can. */
export function encodeNeighborDump(
  writer: MessageWriter,
  filter: { readonly family: Family; readonly linkIndex: number },
  sequence: number,
): void {
  const at = writer.start(rt.RTM_GETNEIGH, FLAGS.list, sequence, ndmsg.size);
  writer.setUint8(at + ndmsg.ndm_family, addressFamily(filter.family));
  writer.attributeUint32(rt.NDA_IFINDEX, filter.linkIndex);
}

/** RTM_GETNEIGH of the forwarding database of one link. */
export function encodeFdbDump(writer: MessageWriter, linkIndex: number, sequence: number): void {
  const at = writer.start(rt.RTM_GETNEIGH, FLAGS.list, sequence, ndmsg.size);
  writer.setUint8(at + ndmsg.ndm_family, AF_BRIDGE);
  writer.setUint32(at + ndmsg.ndm_ifindex, linkIndex);
}

/** RTM_NEWNEIGH or RTM_DELNEIGH of a neighbour or a forwarding entry. */
export function encodeNeighbor(
  writer: MessageWriter,
  verb: "add" | "replace" | "remove",
  entry: Neighbor | FdbEntry,
  sequence: number,
): void {
  const type = verb === "remove" ? rt.RTM_DELNEIGH : rt.RTM_NEWNEIGH;
  const at = writer.start(type, FLAGS[verb], sequence, ndmsg.size);
  const fdb = "remote" in entry;
  const address = fdb ? entry.remote : entry.address;
  writer.setUint8(at + ndmsg.ndm_family, fdb ? AF_BRIDGE : addressFamily(address.family));
  writer.setUint32(at + ndmsg.ndm_ifindex, entry.linkIndex);
  writer.setUint16(at + ndmsg.ndm_state, rt.NUD_PERMANENT);
  if (fdb) writer.setUint8(at + ndmsg.ndm_flags, rt.NTF_SELF);
  writer.attribute(rt.NDA_DST, address.toBytes());
  if (fdb || verb !== "remove") writer.attribute(rt.NDA_LLADDR, entry.mac.toBytes());
}

const neighborAttributes = new Attributes(rt.NDA_IFINDEX);

/** What an RTM_NEWNEIGH message says, if it is a permanent entry of `linkIndex`. */
function decodePermanent(
  view: DataView<ArrayBuffer>,
  { start, end }: Message,
  linkIndex: number,
): { mac: MacAddress; address: Address } | undefined {
  if (view.getInt32(start + ndmsg.ndm_ifindex, LITTLE_ENDIAN) !== linkIndex) return undefined;
  const state = view.getUint16(start + ndmsg.ndm_state, LITTLE_ENDIAN);
  if ((state & rt.NUD_PERMANENT) === 0) return undefined;
  const attributes = neighborAttributes.parse(view, start + ndmsg.size, end);
  const mac = readMac(attributes, rt.NDA_LLADDR);
  const address = readAddress(attributes, rt.NDA_DST);
  return mac && address ? { mac, address } : undefined;
}

/** An RTM_NEWNEIGH message, if it is a permanent neighbour on `linkIndex`. */
export function decodeNeighbor(
  view: DataView<ArrayBuffer>,
  message: Message,
  linkIndex: number,
): Neighbor | undefined {
  if (!familyOf(view.getUint8(message.start + ndmsg.ndm_family))) return undefined;
  const entry = decodePermanent(view, message, linkIndex);
  return entry && { linkIndex, address: entry.address, mac: entry.mac };
}

/** The address that an RTM_NEWNEIGH or RTM_DELNEIGH message is about. */
export function decodeNeighborAddress(
  view: DataView<ArrayBuffer>,
  { start, end }: Message,
): Address | undefined {
  return readAddress(neighborAttributes.parse(view, start + ndmsg.size, end), rt.NDA_DST);
}

/** An RTM_NEWNEIGH message, if it is a permanent forwarding entry of `linkIndex` with a remote. */
export function decodeFdbEntry(
  view: DataView<ArrayBuffer>,
  message: Message,
  linkIndex: number,
): FdbEntry | undefined {
  if (view.getUint8(message.start + ndmsg.ndm_family) !== AF_BRIDGE) return undefined;
  if ((view.getUint8(message.start + ndmsg.ndm_flags) & rt.NTF_SELF) === 0) return undefined;
  const entry = decodePermanent(view, message, linkIndex);
  return entry && { linkIndex, mac: entry.mac, remote: entry.address };
}

/**
 * Neighbours and forwarding entries as rtnetlink messages (RTM_*NEIGH).
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import {
  AF_BRIDGE,
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REPLACE,
  NLM_F_REQUEST,
} from "../../../../ffi/libnl/constants.ts";
import {
  Attributes,
  type MessageBounds,
  type MessageWriter,
} from "../../../../ffi/libnl/messages.ts";
import {
  NDA_DST,
  NDA_IFINDEX,
  NDA_LLADDR,
  NTF_SELF,
  NUD_PERMANENT,
  RTM_DELNEIGH,
  RTM_GETNEIGH,
  RTM_NEWNEIGH,
} from "../../../../ffi/libnl_route/constants.ts";
import { ndmsg } from "../../../../ffi/libnl_route/structs.ts";
import type { Address, Family, MacAddress } from "../../../net/mod.ts";
import type { FdbEntry, Neighbor } from "../../netlink.ts";
import { addressFamily, familyOf, readAddress, readMac } from "./values.ts";

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

/** The address that an RTM_NEWNEIGH or RTM_DELNEIGH message is about. */
export function decodeNeighborAddress(
  view: DataView<ArrayBuffer>,
  { start, end }: MessageBounds,
): Address | undefined {
  return readAddress(neighborAttributes.parse(view, start + ndmsg.size, end), NDA_DST);
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

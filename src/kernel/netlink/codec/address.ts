/** Addresses of links as rtnetlink messages (RTM_*ADDR). @module */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { Attributes, type Message, type MessageWriter } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import { ifaddrmsg } from "../../../../ffi/libnl_route/structs.ts";
import { InterfaceAddress } from "../../../net/mod.ts";
import type { LinkAddress } from "../../netlink.ts";
import { addressFamily, familyOf, FLAGS, readAddress, SCOPE_NAMES } from "./values.ts";

/** RTM_GETADDR of every address of both families. */
export function encodeAddressDump(writer: MessageWriter, sequence: number): void {
  writer.start(rt.RTM_GETADDR, FLAGS.list, sequence, ifaddrmsg.size);
}

const addressAttributes = new Attributes(rt.IFA_FLAGS);

/** An RTM_NEWADDR message. */
export function decodeAddress(
  view: DataView<ArrayBuffer>,
  message: Message,
): LinkAddress | undefined {
  const { start, end } = message;
  const family = familyOf(view.getUint8(start + ifaddrmsg.ifa_family));
  if (!family) return undefined;
  const attributes = addressAttributes.parse(view, start + ifaddrmsg.size, end);
  // IFA_LOCAL is the address itself; IFA_ADDRESS is the peer's on a point-to-point link, and the
  // only one that IPv6 gives without a peer.
  const address = readAddress(attributes, rt.IFA_LOCAL) ?? readAddress(attributes, rt.IFA_ADDRESS);
  if (!address) return undefined;
  const flags = attributes.uint32(rt.IFA_FLAGS) ?? view.getUint8(start + ifaddrmsg.ifa_flags);
  return {
    linkIndex: view.getUint32(start + ifaddrmsg.ifa_index, LITTLE_ENDIAN),
    address: new InterfaceAddress(address, view.getUint8(start + ifaddrmsg.ifa_prefixlen)),
    scope: SCOPE_NAMES.get(view.getUint8(start + ifaddrmsg.ifa_scope)) ?? "other",
    permanent: (flags & rt.IFA_F_PERMANENT) !== 0,
    // The same bit is IFA_F_SECONDARY in IPv4.
    temporary: family === 6 && (flags & rt.IFA_F_TEMPORARY) !== 0,
    secondary: family === 4 && (flags & rt.IFA_F_TEMPORARY) !== 0,
    deprecated: (flags & rt.IFA_F_DEPRECATED) !== 0,
    tentative: (flags & rt.IFA_F_TENTATIVE) !== 0,
    dadFailed: (flags & rt.IFA_F_DADFAILED) !== 0,
  };
}

/** RTM_NEWADDR or RTM_DELADDR. */
export function encodeAddress(
  writer: MessageWriter,
  verb: "add" | "remove",
  { linkIndex, address }: Pick<LinkAddress, "linkIndex" | "address">,
  sequence: number,
): void {
  const type = verb === "add" ? rt.RTM_NEWADDR : rt.RTM_DELADDR;
  const at = writer.start(type, FLAGS[verb], sequence, ifaddrmsg.size);
  writer.setUint8(at + ifaddrmsg.ifa_family, addressFamily(address.address.family));
  writer.setUint8(at + ifaddrmsg.ifa_prefixlen, address.prefix.length);
  writer.setUint8(at + ifaddrmsg.ifa_scope, rt.RT_SCOPE_UNIVERSE);
  writer.setUint32(at + ifaddrmsg.ifa_index, linkIndex);
  const bytes = address.address.toBytes();
  writer.attribute(rt.IFA_LOCAL, bytes);
  if (address.address.family === 4) {
    // Without a peer both are equal; explicit, as in iproute2, so that RTM_DELADDR matches exactly.
    writer.attribute(rt.IFA_ADDRESS, bytes);
  } else if (verb === "add") {
    // On a link that only flanneld uses there are no duplicates, and detection would leave the
    // address unusable for seconds.
    writer.attributeUint32(rt.IFA_FLAGS, rt.IFA_F_NODAD);
  }
}

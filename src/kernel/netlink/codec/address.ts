/**
 * Addresses of links as rtnetlink messages (RTM_*ADDR).
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import {
  NLM_F_CREATE,
  NLM_F_DUMP,
  NLM_F_EXCL,
  NLM_F_REQUEST,
} from "../../../../ffi/libnl/constants.ts";
import {
  Attributes,
  type MessageBounds,
  type MessageWriter,
} from "../../../../ffi/libnl/messages.ts";
import {
  IFA_ADDRESS,
  IFA_F_DADFAILED,
  IFA_F_DEPRECATED,
  IFA_F_NODAD,
  IFA_F_PERMANENT,
  IFA_F_TEMPORARY,
  IFA_F_TENTATIVE,
  IFA_FLAGS,
  IFA_LOCAL,
  RT_SCOPE_UNIVERSE,
  RTM_DELADDR,
  RTM_GETADDR,
  RTM_NEWADDR,
} from "../../../../ffi/libnl_route/constants.ts";
import { ifaddrmsg } from "../../../../ffi/libnl_route/structs.ts";
import { InterfaceAddress } from "../../../net/mod.ts";
import type { LinkAddress } from "../../netlink.ts";
import { addressFamily, familyOf, readAddress, SCOPE_NAMES } from "./values.ts";

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
    // The same bit is IFA_F_SECONDARY in IPv4.
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
    // Without a peer both are equal; explicit, as in iproute2, so that RTM_DELADDR matches exactly.
    writer.attribute(IFA_ADDRESS, bytes);
  } else if (verb === "add") {
    // On a link that only flanneld uses there are no duplicates, and detection would leave the
    // address unusable for seconds.
    writer.attributeUint32(IFA_FLAGS, IFA_F_NODAD);
  }
  writer.finish();
}

/** Links as rtnetlink messages (RTM_*LINK). @module */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import { AF_BRIDGE } from "../../../../ffi/libc/constants.ts";
import { Attributes, type Message, type MessageWriter } from "../../../../ffi/libnl/messages.ts";
import * as rt from "../../../../ffi/libnl_route/constants.ts";
import type { LibnlRoute } from "../../../../ffi/libnl_route/open.ts";
import {
  buildLinkAdd,
  buildLinkChange,
  buildLinkRemove,
  type RawLink,
} from "../../../../ffi/libnl_route/requests.ts";
import { ifinfomsg } from "../../../../ffi/libnl_route/structs.ts";
import type { Address, MacAddress } from "../../../net/mod.ts";
import { present } from "../../../util/present.ts";
import type { IpipParameters, Link, NetlinkRequest, VxlanParameters } from "../../netlink.ts";
import { FLAGS, readAddress, readMac } from "./values.ts";

/** RTM_GETLINK of every link. */
export function encodeLinkDump(writer: MessageWriter, sequence: number): void {
  writer.start(rt.RTM_GETLINK, FLAGS.list, sequence, ifinfomsg.size);
  writer.attributeUint32(rt.IFLA_EXT_MASK, rt.RTEXT_FILTER_SKIP_STATS);
}

const linkAttributes = new Attributes(rt.IFLA_EXT_MASK);
const linkInfoAttributes = new Attributes(rt.IFLA_INFO_DATA);
const vxlanAttributes = new Attributes(rt.IFLA_VXLAN_COLLECT_METADATA);
const ipipAttributes = new Attributes(rt.IFLA_IPTUN_REMOTE);

/** An RTM_NEWLINK message. */
export function decodeLink(view: DataView<ArrayBuffer>, message: Message): Link | undefined {
  const { start, end } = message;
  // Bridges report their ports a second time, as family AF_BRIDGE.
  if (view.getUint8(start + ifinfomsg.ifi_family) === AF_BRIDGE) return undefined;
  const flags = view.getUint32(start + ifinfomsg.ifi_flags, LITTLE_ENDIAN);
  const attributes = linkAttributes.parse(view, start + ifinfomsg.size, end);
  const info = linkInfoAttributes.parseNested(attributes, rt.IFLA_LINKINFO);
  const kind = info.string(rt.IFLA_INFO_KIND);
  const parameters = (into: Attributes) => into.parseNested(info, rt.IFLA_INFO_DATA);
  return present({
    index: view.getInt32(start + ifinfomsg.ifi_index, LITTLE_ENDIAN),
    name: attributes.string(rt.IFLA_IFNAME) ?? "",
    mtuBytes: attributes.uint32(rt.IFLA_MTU) ?? 0,
    mac: readMac(attributes, rt.IFLA_ADDRESS),
    up: (flags & rt.IFF_UP) !== 0,
    running: (flags & rt.IFF_RUNNING) !== 0,
    loopback: (flags & rt.IFF_LOOPBACK) !== 0,
    withoutNeighbors: (flags & (rt.IFF_POINTOPOINT | rt.IFF_NOARP)) !== 0,
    alias: attributes.string(rt.IFLA_IFALIAS) || undefined,
    masterIndex: attributes.uint32(rt.IFLA_MASTER) || undefined,
    kind,
    vxlan: kind === "vxlan" ? decodeVxlan(parameters(vxlanAttributes)) : undefined,
    ipip: kind === "ipip" ? decodeIpip(parameters(ipipAttributes)) : undefined,
  });
}

/** Modes of a VXLAN device that flanneld never asks for. */
const OTHER_MODES = [
  ["l2miss", rt.IFLA_VXLAN_L2MISS],
  ["l3miss", rt.IFLA_VXLAN_L3MISS],
  ["external", rt.IFLA_VXLAN_COLLECT_METADATA],
] as const;

function decodeVxlan(attributes: Attributes): VxlanParameters {
  return present({
    vni: attributes.uint32(rt.IFLA_VXLAN_ID) ?? 0,
    port: attributes.uint16BigEndian(rt.IFLA_VXLAN_PORT) ?? 0,
    underlayIndex: attributes.uint32(rt.IFLA_VXLAN_LINK) || undefined,
    local: readEnd(attributes, rt.IFLA_VXLAN_LOCAL, rt.IFLA_VXLAN_LOCAL6),
    learning: attributes.uint8(rt.IFLA_VXLAN_LEARNING) === 1,
    gbp: attributes.has(rt.IFLA_VXLAN_GBP),
    remote: readEnd(attributes, rt.IFLA_VXLAN_GROUP, rt.IFLA_VXLAN_GROUP6),
    otherModes: OTHER_MODES.filter(([, type]) => attributes.uint8(type) === 1)
      .map(([name]) => name),
  });
}

function decodeIpip(attributes: Attributes): IpipParameters {
  return present({
    local: readEnd(attributes, rt.IFLA_IPTUN_LOCAL),
    remote: readEnd(attributes, rt.IFLA_IPTUN_REMOTE),
  });
}

/** A tunnel's end, in the attribute of its family; `undefined` where it is left open. */
function readEnd(attributes: Attributes, ...types: readonly number[]): Address | undefined {
  const address = types.map((type) => readAddress(attributes, type)).find(Boolean);
  return address?.isUnspecified() ? undefined : address;
}

type LinkRequest = NetlinkRequest & { readonly noun: "link" };

/** RTM_NEWLINK or RTM_DELLINK. */
export function encodeLink(
  writer: MessageWriter,
  library: LibnlRoute,
  request: LinkRequest,
  sequence: number,
): void {
  writer.append(buildLink(library, request), FLAGS[request.verb], sequence);
}

function buildLink(library: LibnlRoute, { verb, value }: LinkRequest): Uint8Array {
  switch (verb) {
    case "remove":
      return buildLinkRemove(library, value.index);
    case "set": {
      const { name: _, mac, vxlan, ...rest } = value;
      const kind = vxlan && "vxlan";
      return buildLinkChange(library, { ...rest, kind, ...toRaw({ mac, vxlan }) });
    }
    case "add": {
      const { mac, vxlan, ipip, ...rest } = value;
      // Tunnels have no queue of their own: packets wait where they leave the host.
      const link = { ...rest, up: true, txQueueLength: 0 } as const;
      return buildLinkAdd(library, {
        ...link,
        ...toRaw({ mac, vxlan }),
        ipip: ipip && { local: ipip.local.toBytes() },
      });
    }
  }
}

function toRaw(
  { mac, vxlan }: { mac: MacAddress | undefined; vxlan: Partial<VxlanParameters> | undefined },
): Pick<RawLink, "mac" | "vxlan"> {
  return {
    mac: mac?.toBytes(),
    vxlan: vxlan && {
      ...vxlan,
      underlayIndex: vxlan.underlayIndex || undefined,
      local: vxlan.local?.toBytes(),
    },
  };
}

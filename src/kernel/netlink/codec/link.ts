/**
 * Links as rtnetlink messages (RTM_*LINK).
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../../ffi/byte_order.ts";
import {
  AF_BRIDGE,
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
  RTEXT_FILTER_SKIP_STATS,
  RTM_GETLINK,
} from "../../../../ffi/libnl_route/constants.ts";
import type { LibnlRoute } from "../../../../ffi/libnl_route/open.ts";
import {
  buildLinkAdd,
  buildLinkChange,
  buildLinkRemove,
  type RawLink,
} from "../../../../ffi/libnl_route/requests.ts";
import { ifinfomsg } from "../../../../ffi/libnl_route/structs.ts";
import type { IpipParameters, Link, NetlinkRequest, VxlanParameters } from "../../netlink.ts";
import { readAddress, readMac } from "./values.ts";

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

/** RTM_NEWLINK or RTM_DELLINK. */
export function encodeLink(
  writer: MessageWriter,
  library: LibnlRoute,
  request: NetlinkRequest & { readonly noun: "link" },
  sequence: number,
): void {
  const flags = request.verb === "add" ? NLM_F_CREATE | NLM_F_EXCL : 0;
  writer.append(buildLink(library, request, flags), NLM_F_REQUEST | flags, sequence);
}

function buildLink(
  library: LibnlRoute,
  request: NetlinkRequest & { readonly noun: "link" },
  flags: number,
): Uint8Array {
  switch (request.verb) {
    case "remove":
      return buildLinkRemove(library, request.value.index);
    case "set": {
      const { index, mtuBytes, mac, up, alias, vxlan } = request.value;
      return buildLinkChange(library, {
        index,
        mtuBytes,
        mac: mac?.toBytes(),
        up,
        alias,
        kind: vxlan && "vxlan",
        vxlan: vxlan && rawVxlan(vxlan),
      });
    }
    case "add": {
      const { name, kind, mtuBytes, mac, vxlan, ipip } = request.value;
      return buildLinkAdd(library, {
        name,
        kind,
        mtuBytes,
        up: true,
        // Tunnels have no queue of their own: packets wait where they leave the host.
        txQueueLength: 0,
        mac: mac?.toBytes(),
        ipip: ipip && { local: ipip.local.toBytes() },
        vxlan: vxlan && rawVxlan(vxlan),
      }, flags);
    }
  }
}

function rawVxlan(vxlan: Partial<VxlanParameters>): RawLink["vxlan"] {
  const { vni, port, learning, gbp, underlayIndex, local } = vxlan;
  return {
    vni,
    port,
    learning,
    gbp,
    underlayIndex: underlayIndex || undefined,
    local: local?.toBytes(),
  };
}

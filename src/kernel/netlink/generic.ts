/**
 * Generic netlink: families of messages that kernel modules register by name, with a number that
 * differs from boot to boot.
 *
 * @module
 */
import {
  CTRL_ATTR_FAMILY_ID,
  CTRL_ATTR_FAMILY_NAME,
  CTRL_ATTR_VERSION,
  CTRL_CMD_GETFAMILY,
  GENL_ID_CTRL,
  NETLINK_GENERIC,
  NLM_F_DUMP,
  NLM_F_REQUEST,
} from "../../../ffi/libnl/constants.ts";
import { Attributes, type MessageBounds, type MessageWriter } from "../../../ffi/libnl/messages.ts";
import { genlmsghdr } from "../../../ffi/libnl/structs.ts";
import { only } from "./replies.ts";
import { type NetlinkOptions, NetlinkTransport } from "./transport.ts";

/** A family, such as `wireguard`; `id` is the type of its messages. */
export interface GenericFamily {
  readonly id: number;
  readonly name: string;
  readonly version: number;
}

/** Starts a message of family `family`; its attributes follow. */
export function startGeneric(
  writer: MessageWriter,
  { family, command, version, flags = 0, sequence }: {
    readonly family: number;
    readonly command: number;
    readonly version: number;
    readonly flags?: number;
    readonly sequence: number;
  },
): void {
  writer.start(family, NLM_F_REQUEST | flags, sequence);
  const at = writer.reserve(genlmsghdr.size);
  writer.setUint8(at + genlmsghdr.cmd, command);
  writer.setUint8(at + genlmsghdr.version, version);
}

/** Opens generic netlink. @throws {LibraryNotFoundError} If libnl is missing. */
export function openGenericNetlink(options: NetlinkOptions = {}): NetlinkTransport {
  return NetlinkTransport.open(NETLINK_GENERIC, options);
}

const query = { family: GENL_ID_CTRL, command: CTRL_CMD_GETFAMILY, version: 1 };

/** The family `name`. @throws {NetlinkError} ENOENT if the kernel has none of that name. */
export function getFamily(
  transport: NetlinkTransport,
  name: string,
  options: { signal: AbortSignal },
): Promise<GenericFamily> {
  return transport.get(
    {
      operation: `Cannot find generic netlink family ${name}`,
      encode(writer, sequence) {
        startGeneric(writer, { ...query, sequence });
        writer.attribute(CTRL_ATTR_FAMILY_NAME, new TextEncoder().encode(`${name}\0`));
        writer.finish();
      },
    },
    only(GENL_ID_CTRL, decodeFamily),
    options,
  );
}

/** All families that are registered now; modules register theirs when they are loaded. */
export function listFamilies(
  transport: NetlinkTransport,
  options: { signal: AbortSignal },
): Promise<readonly GenericFamily[]> {
  return transport.dump(
    {
      operation: "Cannot list generic netlink families",
      encode(writer, sequence) {
        startGeneric(writer, { ...query, flags: NLM_F_DUMP, sequence });
        writer.finish();
      },
    },
    only(GENL_ID_CTRL, decodeFamily),
    options,
  );
}

const familyAttributes = new Attributes(CTRL_ATTR_VERSION);

function decodeFamily(
  view: DataView<ArrayBuffer>,
  { start, end }: MessageBounds,
): GenericFamily | undefined {
  const attributes = familyAttributes.parse(view, start + genlmsghdr.size, end);
  const id = attributes.uint16(CTRL_ATTR_FAMILY_ID);
  const name = attributes.string(CTRL_ATTR_FAMILY_NAME);
  if (id === undefined || name === undefined) return undefined;
  return { id, name, version: attributes.uint32(CTRL_ATTR_VERSION) ?? 0 };
}

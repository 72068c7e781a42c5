/**
 * Generic netlink over the transport: families of messages that kernel modules register by name,
 * with a number that differs from boot to boot. It shows that the transport knows no rtnetlink, so
 * that a backend such as WireGuard's can bring a protocol of its own.
 *
 * @module
 */
import { NLM_F_DUMP, NLM_F_REQUEST } from "../../ffi/libnl/constants.ts";
import { Attributes, type Message, type MessageWriter } from "../../ffi/libnl/messages.ts";
import { only } from "../../src/kernel/netlink/replies.ts";
import { NetlinkTransport } from "../../src/kernel/netlink/transport.ts";

/** <linux/netlink.h> */
const NETLINK_GENERIC = 16;

/** <linux/genetlink.h>: the controller, which knows the families. */
export const GENL_ID_CTRL = 16;
const CTRL_CMD_GETFAMILY = 3;
const CTRL_ATTR_FAMILY_ID = 1;
const CTRL_ATTR_FAMILY_NAME = 2;
const CTRL_ATTR_VERSION = 3;
const genlmsghdr = { size: 4, cmd: 0, version: 1 } as const;

/** A family, such as `wireguard`; `id` is the type of its messages. */
export interface GenericFamily {
  readonly id: number;
  readonly name: string;
  readonly version: number;
}

/** Starts a message of family `family`; its attributes follow. */
function startGeneric(
  writer: MessageWriter,
  { family, command, version, flags = 0, sequence }: {
    readonly family: number;
    readonly command: number;
    readonly version: number;
    readonly flags?: number;
    readonly sequence: number;
  },
): void {
  const at = writer.start(family, NLM_F_REQUEST | flags, sequence, genlmsghdr.size);
  writer.setUint8(at + genlmsghdr.cmd, command);
  writer.setUint8(at + genlmsghdr.version, version);
}

/** Opens generic netlink. @throws {LibraryNotFoundError} If libnl is missing. */
export function openGenericNetlink(): NetlinkTransport {
  return NetlinkTransport.open(NETLINK_GENERIC);
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
      },
    },
    only(GENL_ID_CTRL, decodeFamily),
    options,
  );
}

const familyAttributes = new Attributes(CTRL_ATTR_VERSION);

function decodeFamily(
  view: DataView<ArrayBuffer>,
  { start, end }: Message,
): GenericFamily | undefined {
  const attributes = familyAttributes.parse(view, start + genlmsghdr.size, end);
  const id = attributes.uint16(CTRL_ATTR_FAMILY_ID);
  const name = attributes.string(CTRL_ATTR_FAMILY_NAME);
  if (id === undefined || name === undefined) return undefined;
  return { id, name, version: attributes.uint32(CTRL_ATTR_VERSION) ?? 0 };
}

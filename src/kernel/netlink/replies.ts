/** Reading of netlink replies: outcomes of requests, and messages of dumps. @module */
import { LITTLE_ENDIAN } from "../../../ffi/byte_order.ts";
import * as nl from "../../../ffi/libnl/constants.ts";
import { Attributes, type Message, messagesIn } from "../../../ffi/libnl/messages.ts";
import { nlmsgerr, nlmsghdr } from "../../../ffi/libnl/structs.ts";

/** What a message says; `undefined` if it is not what was asked for. */
export type Decode<T> = (view: DataView<ArrayBuffer>, message: Message) => T | undefined;

/** `decode` for messages of `type` alone. */
export function only<T>(type: number, decode: Decode<T>): Decode<T> {
  return (view, message) => message.type === type ? decode(view, message) : undefined;
}

/** How a request went: the kernel's error number, 0 for success. */
export interface Outcome {
  readonly errno: number;
  readonly detail?: string | undefined;
}

/** The bytes of a datagram of a dump. */
export type Datagram = DataView<ArrayBuffer>;

/** What `decode` makes of the messages. A datagram of them takes some tenths of a millisecond. */
export function* decodeInSteps<T>(
  datagrams: readonly Datagram[],
  decode: Decode<T>,
): Generator<void, T[]> {
  const values: T[] = [];
  for (const datagram of datagrams) {
    values.push(...decodeLazily([datagram], decode));
    yield;
  }
  return values;
}

/** What `decode` makes of the messages, one by one: of thousands few are there at a time. */
export function* decodeLazily<T>(
  datagrams: readonly Datagram[],
  decode: Decode<T>,
): Generator<T, void> {
  for (const view of datagrams) {
    for (const message of messagesIn(view)) {
      const value = message.type === nl.NLMSG_DONE ? undefined : decode(view, message);
      if (value !== undefined) yield value;
    }
  }
}

const ackAttributes = new Attributes(nl.NLMSGERR_ATTR_MSG);

/** The outcome in an NLMSG_ERROR message. */
export function readOutcome(view: DataView<ArrayBuffer>, message: Message): Outcome {
  const errno = -view.getInt32(message.start + nlmsgerr.error, LITTLE_ENDIAN);
  if (errno === 0 || (message.flags & nl.NLM_F_ACK_TLVS) === 0) return { errno };
  // Attributes follow the request's header, or the whole request unless it was left out.
  const request = message.start + nlmsgerr.msg;
  const length = (message.flags & nl.NLM_F_CAPPED) !== 0
    ? nlmsghdr.size
    : view.getUint32(request + nlmsghdr.nlmsg_len, LITTLE_ENDIAN);
  const start = request + ((length + 3) & ~3);
  return {
    errno,
    detail: ackAttributes.parse(view, start, message.end).string(nl.NLMSGERR_ATTR_MSG),
  };
}

/**
 * Netlink messages as bytes: writing requests, parsing replies. Layouts are those of
 * <linux/netlink.h>; what a message says is left to the caller.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { NLA_TYPE_MASK, NLMSG_ALIGNTO } from "./constants.ts";
import { nlattr, nlmsghdr } from "./structs.ts";

function align(length: number): number {
  return (length + NLMSG_ALIGNTO - 1) & ~(NLMSG_ALIGNTO - 1);
}

/** Builds messages one after the other in one block of memory, which grows as needed. */
export class MessageWriter {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView<ArrayBuffer>;
  #end = 0;
  #start = 0;

  constructor(initialBytes = 4096) {
    this.#bytes = new Uint8Array(initialBytes);
    this.#view = new DataView(this.#bytes.buffer);
  }

  /** What was written; borrowed, valid until the next write. */
  get bytes(): Uint8Array<ArrayBuffer> {
    return this.#bytes.subarray(0, this.#end);
  }

  /** Discards what was written, keeps the memory. */
  clear(): void {
    this.#end = 0;
  }

  /**
   * Starts a message: a `nlmsghdr`, whose length is kept as the message grows, and `headerBytes` of
   * zeros for its family's header, whose offset is returned.
   */
  start(type: number, flags: number, sequence: number, headerBytes: number): number {
    const at = this.#start = this.#end;
    this.reserve(nlmsghdr.size);
    this.setUint16(at + nlmsghdr.nlmsg_type, type);
    this.setUint16(at + nlmsghdr.nlmsg_flags, flags);
    this.setUint32(at + nlmsghdr.nlmsg_seq, sequence);
    return this.reserve(headerBytes);
  }

  /** Adds a complete message made elsewhere, with other flags and sequence number. */
  append(message: Uint8Array, flags: number, sequence: number): void {
    const at = this.#start = this.#end;
    this.reserve(message.length);
    this.#bytes.set(message, at);
    this.setUint16(at + nlmsghdr.nlmsg_flags, flags);
    this.setUint32(at + nlmsghdr.nlmsg_seq, sequence);
  }

  /** Adds `flags` to the message that was started last. */
  addFlags(flags: number): void {
    const at = this.#start + nlmsghdr.nlmsg_flags;
    this.setUint16(at, this.#view.getUint16(at, LITTLE_ENDIAN) | flags);
  }

  /** Appends `size` zero bytes, aligned, to the message and returns their offset. */
  reserve(size: number): number {
    const at = this.#end;
    const end = at + align(size);
    if (end > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, end));
      larger.set(this.#bytes.subarray(0, at));
      this.#bytes = larger;
      this.#view = new DataView(larger.buffer);
    }
    this.#bytes.fill(0, at, end);
    this.#end = end;
    this.setUint32(this.#start + nlmsghdr.nlmsg_len, end - this.#start);
    return at;
  }

  setUint8(at: number, value: number): void {
    this.#view.setUint8(at, value);
  }

  setUint16(at: number, value: number): void {
    this.#view.setUint16(at, value, LITTLE_ENDIAN);
  }

  setUint32(at: number, value: number): void {
    this.#view.setUint32(at, value, LITTLE_ENDIAN);
  }

  #attribute(type: number, size: number): number {
    const at = this.reserve(nlattr.size + size);
    this.setUint16(at + nlattr.nla_len, nlattr.size + size);
    this.setUint16(at + nlattr.nla_type, type);
    return at + nlattr.size;
  }

  attribute(type: number, value: Uint8Array): void {
    const at = this.#attribute(type, value.length);
    this.#bytes.set(value, at); // which may be other memory than before
  }

  attributeUint32(type: number, value: number): void {
    this.setUint32(this.#attribute(type, 4), value);
  }
}

/** One message of a datagram; `start` and `end` bound what follows its header. */
export interface Message {
  readonly type: number;
  readonly flags: number;
  readonly sequence: number;
  readonly start: number;
  readonly end: number;
}

/** The messages of one datagram in order. @throws {RangeError} If a length does not fit. */
export function* messagesIn(view: DataView): Generator<Message, void> {
  for (let at = 0; at + nlmsghdr.size <= view.byteLength;) {
    const length = view.getUint32(at + nlmsghdr.nlmsg_len, LITTLE_ENDIAN);
    if (length < nlmsghdr.size || at + length > view.byteLength) {
      throw new RangeError(
        `Cannot read netlink message: length ${length} in ${view.byteLength - at} bytes`,
      );
    }
    yield {
      type: view.getUint16(at + nlmsghdr.nlmsg_type, LITTLE_ENDIAN),
      flags: view.getUint16(at + nlmsghdr.nlmsg_flags, LITTLE_ENDIAN),
      sequence: view.getUint32(at + nlmsghdr.nlmsg_seq, LITTLE_ENDIAN),
      start: at + nlmsghdr.size,
      end: at + length,
    };
    at += align(length);
  }
}

const decoder = new TextDecoder();

/**
 * The attributes of one message by type, as nla_parse(3) finds them: the last of a type wins. One
 * object is reused for all messages, since a dump has thousands.
 */
export class Attributes {
  readonly #offsets: Int32Array;
  readonly #lengths: Int32Array;
  #view: DataView<ArrayBuffer> = new DataView(new ArrayBuffer(0));

  /** @param maxType Attributes of a higher type are ignored. */
  constructor(maxType: number) {
    this.#offsets = new Int32Array(maxType + 1);
    this.#lengths = new Int32Array(maxType + 1);
  }

  /** Reads the attributes in `[start, end)`. @throws {RangeError} If a length does not fit. */
  parse(view: DataView<ArrayBuffer>, start: number, end: number): this {
    this.#view = view;
    this.#offsets.fill(-1);
    for (let at = start; at + nlattr.size <= end;) {
      const length = view.getUint16(at + nlattr.nla_len, LITTLE_ENDIAN);
      if (length < nlattr.size || at + length > end) {
        throw new RangeError(
          `Cannot read netlink attribute: length ${length} in ${end - at} bytes`,
        );
      }
      const type = view.getUint16(at + nlattr.nla_type, LITTLE_ENDIAN) & NLA_TYPE_MASK;
      if (type < this.#offsets.length) {
        this.#offsets[type] = at + nlattr.size;
        this.#lengths[type] = length - nlattr.size;
      }
      at += align(length);
    }
    return this;
  }

  /** Reads the attributes nested in attribute `type` of `outer`; none if it is absent. */
  parseNested(outer: Attributes, type: number): this {
    const at = outer.#offsets[type]!;
    return this.parse(outer.#view, at, at < 0 ? at : at + outer.#lengths[type]!);
  }

  has(type: number): boolean {
    return this.#offsets[type]! >= 0;
  }

  #number(type: number, size: number, read: (view: DataView, at: number) => number) {
    const at = this.#offsets[type]!;
    if (at < 0) return undefined;
    if (this.#lengths[type]! < size) {
      throw new RangeError(
        `Cannot read netlink attribute ${type}: ${this.#lengths[type]} bytes instead of ${size}`,
      );
    }
    return read(this.#view, at);
  }

  uint8(type: number): number | undefined {
    return this.#number(type, 1, (view, at) => view.getUint8(at));
  }

  uint16(type: number): number | undefined {
    return this.#number(type, 2, (view, at) => view.getUint16(at, LITTLE_ENDIAN));
  }

  uint32(type: number): number | undefined {
    return this.#number(type, 4, (view, at) => view.getUint32(at, LITTLE_ENDIAN));
  }

  /** A 16-bit number in network order, such as a port. */
  uint16BigEndian(type: number): number | undefined {
    return this.#number(type, 2, (view, at) => view.getUint16(at, false));
  }

  /** What was parsed. */
  get view(): DataView<ArrayBuffer> {
    return this.#view;
  }

  /** Where in the view the value lies; negative if it is absent. */
  offset(type: number): number {
    return this.#offsets[type]!;
  }

  /** The value's length in bytes, of an attribute that is there. */
  size(type: number): number {
    return this.#lengths[type]!;
  }

  /** The value's bytes; borrowed, valid until the datagram's memory is used again. */
  bytes(type: number): Uint8Array<ArrayBuffer> | undefined {
    const at = this.#offsets[type]!;
    return at < 0 ? undefined : new Uint8Array(
      this.#view.buffer,
      this.#view.byteOffset + at,
      this.#lengths[type]!,
    );
  }

  /** A NUL-terminated text. */
  string(type: number): string | undefined {
    const bytes = this.bytes(type);
    if (!bytes) return undefined;
    const end = bytes.indexOf(0);
    return decoder.decode(end < 0 ? bytes : bytes.subarray(0, end));
  }
}

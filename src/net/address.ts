/** IPv4 and IPv6 addresses. @module */
import ipaddr from "ipaddr.js";

/** The IP version. */
export type Family = 4 | 6;

/** Number of bits of an address of `family`. */
export function addressBits(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

const MAX_VALUE = { 4: (1n << 32n) - 1n, 6: (1n << 128n) - 1n } as const;

/** Four decimal octets without leading zeros; their size is checked apart. */
const DOTTED_DECIMAL = /^(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})\.(0|[1-9]\d{0,2})$/;

/**
 * An IPv4 or IPv6 address. Tens of thousands are read and compared at a time, so IPv4 does without
 * big integers wherever it can.
 */
export class Address {
  readonly family: Family;
  /** An IPv4 address as an unsigned number; 0 for IPv6. */
  readonly ipv4: number;
  /** An IPv6 address as an unsigned number; 0 for IPv4. */
  readonly ipv6: bigint;
  #text: string | undefined;

  /** @throws {RangeError} If `value` does not fit the family. */
  constructor(family: Family, value: bigint | number) {
    if (value < 0 || value > MAX_VALUE[family]) {
      throw new RangeError(`Cannot make an IPv${family} address: ${value} is out of range`);
    }
    this.family = family;
    this.ipv4 = family === 4 ? Number(value) : 0;
    this.ipv6 = family === 6 ? BigInt(value) : 0n;
  }

  /**
   * The address as a key of a Map or Set of either family. For IPv4 a number, which is cheaper than
   * text; for IPv6 text, since big integers are hashed by their low 64 bits, which are zero in the
   * base of any /64, so that all of these would collide.
   */
  get mapKey(): number | string {
    return this.family === 4 ? this.ipv4 : this.toString();
  }

  /** The address as an unsigned number of 32 or 128 bits. */
  get value(): bigint {
    return this.family === 4 ? BigInt(this.ipv4) : this.ipv6;
  }

  /**
   * The address in `text`: four decimal octets, or RFC 4291 text without a zone.
   *
   * @throws {SyntaxError} If `text` is anything else.
   */
  static parse(text: string): Address {
    const octets = DOTTED_DECIMAL.exec(text);
    if (octets) {
      const [a, b, c, d] = [+octets[1]!, +octets[2]!, +octets[3]!, +octets[4]!];
      if (a < 256 && b < 256 && c < 256 && d < 256) {
        return new Address(4, a * 2 ** 24 + (b << 16) + (c << 8) + d);
      }
    }
    const groups = text.includes(":") && !text.includes("%") ? parseGroups(text) : undefined;
    if (groups) return new Address(6, groupsToValue(groups));
    throw new SyntaxError(`Cannot parse IP address: "${text}" is neither IPv4 nor IPv6`);
  }

  /** Like {@linkcode Address.parse}, but `undefined` for other text. */
  static tryParse(text: string): Address | undefined {
    try {
      return Address.parse(text);
    } catch {
      return undefined;
    }
  }

  /** The address in 4 or 16 bytes, network byte order. @throws {RangeError} On any other length. */
  static fromBytes(bytes: Uint8Array): Address {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new RangeError(`Cannot make an address: ${bytes.length} bytes instead of 4 or 16`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return Address.read(view, 0, bytes.length === 4 ? 4 : 6);
  }

  /** The address of `family` that lies at `at`, network byte order. */
  static read(view: DataView, at: number, family: Family): Address {
    return family === 4
      ? new Address(4, view.getUint32(at))
      : new Address(6, (view.getBigUint64(at) << 64n) | view.getBigUint64(at + 8));
  }

  /** The unspecified address, `0.0.0.0` or `::`. */
  static unspecified(family: Family): Address {
    return new Address(family, 0n);
  }

  /** The address with all but its first `length` bits zero. */
  truncate(length: number): Address {
    if (this.family === 4) {
      // A shift by 32 is one by 0.
      const base = length === 0 ? 0 : (this.ipv4 & (-1 << (32 - length))) >>> 0;
      return base === this.ipv4 ? this : new Address(4, base);
    }
    const hostBits = BigInt(128 - length);
    const base = (this.ipv6 >> hostBits) << hostBits;
    return base === this.ipv6 ? this : new Address(6, base);
  }

  /** Whether the first `length` bits are those of `other`, an address of the same family. */
  sharesBits(other: Address, length: number): boolean {
    return this.family === 4
      // A shift by 32 is one by 0.
      ? length === 0 || (this.ipv4 ^ other.ipv4) >>> (32 - length) === 0
      : (this.ipv6 ^ other.ipv6) >> BigInt(128 - length) === 0n;
  }

  /** The 4 or 16 bytes, network byte order. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(addressBits(this.family) / 8);
    const view = new DataView(bytes.buffer);
    if (this.family === 4) {
      view.setUint32(0, this.ipv4);
    } else {
      view.setBigUint64(0, this.ipv6 >> 64n);
      view.setBigUint64(8, this.ipv6 & 0xffff_ffff_ffff_ffffn);
    }
    return bytes;
  }

  /** Dotted decimal, or RFC 5952 text (lower case, compressed, no embedded IPv4). */
  toString(): string {
    // IPv4 text is quick to make, and tens of thousands would be kept.
    return this.family === 4 ? dottedDecimal(this.ipv4) : this.#text ??= compressed(this.ipv6);
  }

  toJSON(): string {
    return this.toString();
  }

  equals(other: Address): boolean {
    return this.family === other.family &&
      this.ipv4 === other.ipv4 && this.ipv6 === other.ipv6;
  }

  /** The address `offset` after this one. @throws {RangeError} If that leaves the family's range. */
  add(offset: bigint): Address {
    return new Address(this.family, this.value + offset);
  }

  isUnspecified(): boolean {
    return this.ipv4 === 0 && this.ipv6 === 0n;
  }

  isLoopback(): boolean {
    return this.family === 4 ? this.ipv4 >>> 24 === 127 : this.ipv6 === 1n;
  }

  isMulticast(): boolean {
    return this.family === 4 ? this.ipv4 >>> 28 === 0xe : this.ipv6 >> 120n === 0xffn;
  }

  /** 169.254.0.0/16 or fe80::/10. */
  isLinkLocal(): boolean {
    return this.family === 4 ? this.ipv4 >>> 16 === 0xa9fe : this.ipv6 >> 118n === 0x3fan;
  }

  /** An IPv6 address of ::ffff:0:0/96 (RFC 4291 section 2.5.5.2). */
  isIpv4Mapped(): boolean {
    return this.family === 6 && this.ipv6 >> 32n === 0xffffn;
  }

  /** The IPv4 address in an IPv4-mapped one, as Go reads it; any other unchanged. */
  unmapped(): Address {
    return this.isIpv4Mapped() ? new Address(4, this.ipv6 & 0xffff_ffffn) : this;
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

/** The eight groups of an IPv6 address; `undefined` for other text. */
function parseGroups(text: string): readonly number[] | undefined {
  try {
    return ipaddr.IPv6.parse(text).parts;
  } catch {
    return undefined;
  }
}

function groupsToValue(groups: readonly number[]): bigint {
  let value = 0n;
  // Two at a time: each step makes a new big integer.
  for (let i = 0; i < 8; i += 2) {
    value = (value << 32n) | BigInt(groups[i]! * 2 ** 16 + groups[i + 1]!);
  }
  return value;
}

/** RFC 5952 section 4: the first of the longest runs of zero groups is left out. */
function compressed(value: bigint): string {
  const groups: number[] = [];
  let start = 8;
  let length = 1; // a single group stays
  let run = 0;
  for (let shift = 96n; shift >= 0n; shift -= 32n) {
    const pair = Number((value >> shift) & 0xffff_ffffn);
    groups.push(pair >>> 16, pair & 0xffff);
  }
  for (let i = 0; i < 8; i++) {
    run = groups[i] === 0 ? run + 1 : 0;
    if (run <= length) continue;
    length = run;
    start = i + 1 - run;
  }
  let text = "";
  for (let i = 0; i < 8; i++) {
    if (i === start) {
      text += "::";
      i += length - 1;
    } else {
      if (i > 0 && i !== start + length) text += ":";
      text += groups[i]!.toString(16);
    }
  }
  return text;
}

function dottedDecimal(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** Whether both are the same address, or both are missing. */
export function sameAddress(a: Address | undefined, b: Address | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.equals(b);
}

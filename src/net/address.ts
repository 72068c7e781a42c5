import ipaddr from "ipaddr.js";

/** The IP version. */
export type Family = 4 | 6;

/** Number of bits of an address of `family`. */
export function addressBits(family: Family): 32 | 128 {
  return family === 4 ? 32 : 128;
}

/** An IPv4 or IPv6 address. */
export class Address {
  readonly family: Family;
  /** The address as an unsigned number of 32 or 128 bits. */
  readonly value: bigint;
  #text: string | undefined;

  /** @throws {RangeError} If `value` does not fit the family. */
  constructor(family: Family, value: bigint) {
    if (value < 0n || value >> BigInt(addressBits(family)) !== 0n) {
      throw new RangeError(`Cannot make an IPv${family} address: ${value} is out of range`);
    }
    this.family = family;
    this.value = value;
  }

  /**
   * The address in `text`: four decimal octets, or RFC 4291 text without a zone.
   *
   * @throws {SyntaxError} If `text` is anything else.
   */
  static parse(text: string): Address {
    if (ipaddr.IPv4.isValidFourPartDecimal(text)) {
      return Address.fromBytes(new Uint8Array(ipaddr.IPv4.parse(text).octets));
    }
    if (!text.includes("%") && text.includes(":") && ipaddr.IPv6.isValid(text)) {
      return Address.fromBytes(new Uint8Array(ipaddr.IPv6.parse(text).toByteArray()));
    }
    throw new SyntaxError(`Cannot parse IP address: "${text}" is neither IPv4 nor IPv6`);
  }

  /** Like {@linkcode Address.parse}, with `undefined` for text that is no address. */
  static tryParse(text: string): Address | undefined {
    try {
      return Address.parse(text);
    } catch {
      return undefined;
    }
  }

  /**
   * The address in 4 or 16 bytes, network byte order.
   *
   * @throws {RangeError} On any other length.
   */
  static fromBytes(bytes: Uint8Array): Address {
    if (bytes.length !== 4 && bytes.length !== 16) {
      throw new RangeError(`Cannot make an address: ${bytes.length} bytes instead of 4 or 16`);
    }
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    // Thousands are read at a time, so there are as few steps as can be.
    return bytes.length === 4
      ? new Address(4, BigInt(view.getUint32(0)))
      : new Address(6, (view.getBigUint64(0) << 64n) | view.getBigUint64(8));
  }

  /** The unspecified address, `0.0.0.0` or `::`. */
  static unspecified(family: Family): Address {
    return new Address(family, 0n);
  }

  /** The 4 or 16 bytes, network byte order. */
  toBytes(): Uint8Array<ArrayBuffer> {
    const bytes = new Uint8Array(addressBits(this.family) / 8);
    const view = new DataView(bytes.buffer);
    if (this.family === 4) {
      view.setUint32(0, Number(this.value));
    } else {
      view.setBigUint64(0, this.value >> 64n);
      view.setBigUint64(8, this.value & 0xffff_ffff_ffff_ffffn);
    }
    return bytes;
  }

  /** Dotted decimal, or RFC 5952 text (lower case, compressed, no embedded IPv4). */
  toString(): string {
    return this.#text ??= this.family === 4
      ? dottedDecimal(Number(this.value))
      : new ipaddr.IPv6([...this.toBytes()]).toRFC5952String();
  }

  toJSON(): string {
    return this.toString();
  }

  equals(other: Address): boolean {
    return this.family === other.family && this.value === other.value;
  }

  /** The address `offset` after this one. @throws {RangeError} If that leaves the family's range. */
  add(offset: bigint): Address {
    return new Address(this.family, this.value + offset);
  }

  isUnspecified(): boolean {
    return this.value === 0n;
  }

  isLoopback(): boolean {
    return this.family === 4 ? this.value >> 24n === 127n : this.value === 1n;
  }

  isMulticast(): boolean {
    return this.family === 4 ? this.value >> 28n === 0xen : this.value >> 120n === 0xffn;
  }

  /** 169.254.0.0/16 or fe80::/10. */
  isLinkLocal(): boolean {
    return this.family === 4 ? this.value >> 16n === 0xa9fen : this.value >> 118n === 0x3fan;
  }

  /** An IPv6 address of ::ffff:0:0/96 (RFC 4291 section 2.5.5.2). */
  isIpv4Mapped(): boolean {
    return this.family === 6 && this.value >> 32n === 0xffffn;
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

function dottedDecimal(value: number): string {
  return `${value >>> 24}.${(value >>> 16) & 255}.${(value >>> 8) & 255}.${value & 255}`;
}

/** IP prefixes, and addresses of interfaces. @module */
import { Address, addressBits, type Family } from "./address.ts";

/** An IP prefix: a network address without host bits, and a length in bits. */
export class Prefix {
  /** The network address; its host bits are zero. */
  readonly address: Address;
  /** Length in bits, 0..32 or 0..128. */
  readonly length: number;
  #text: string | undefined;

  /**
   * The prefix of `length` bits that holds `address`; host bits are dropped.
   *
   * @throws {RangeError} If `length` does not fit the family.
   */
  constructor(address: Address, length: number) {
    const bits = addressBits(address.family);
    if (!Number.isInteger(length) || length < 0 || length > bits) {
      throw new RangeError(
        `Cannot make a prefix of ${address}: length ${length} is not in 0..${bits}`,
      );
    }
    this.address = address.truncate(length);
    this.length = length;
  }

  /**
   * The prefix in CIDR text such as `10.3.0.0/16`; host bits are dropped.
   *
   * @throws {SyntaxError} If `text` is not an address, a slash and a length that fits.
   */
  static parse(text: string): Prefix {
    return InterfaceAddress.parse(text).prefix;
  }

  /** Like {@linkcode Prefix.parse}, with `undefined` for text that is no prefix. */
  static tryParse(text: string): Prefix | undefined {
    try {
      return Prefix.parse(text);
    } catch {
      return undefined;
    }
  }

  /** Like {@linkcode Prefix.tryParse}; an address alone is the prefix of just that address. */
  static tryParseOrHost(text: string): Prefix | undefined {
    const address = Address.tryParse(text);
    return address ? Prefix.host(address) : Prefix.tryParse(text);
  }

  /** The prefix of `address` alone. */
  static host(address: Address): Prefix {
    return new Prefix(address, addressBits(address.family));
  }

  get family(): Family {
    return this.address.family;
  }

  /** Number of addresses. */
  get size(): bigint {
    return 1n << BigInt(addressBits(this.family) - this.length);
  }

  /** The last address (for IPv4, the broadcast address). */
  get last(): Address {
    return new Address(this.family, this.address.value + this.size - 1n);
  }

  /** Whether `other`, an address or a whole prefix, lies inside. */
  contains(other: Address | Prefix): boolean {
    const address = other instanceof Prefix ? other.address : other;
    if (address.family !== this.family) return false;
    if (other instanceof Prefix && other.length < this.length) return false;
    return address.sharesBits(this.address, this.length);
  }

  /** Whether the two share an address. */
  overlaps(other: Prefix): boolean {
    return this.length <= other.length ? this.contains(other) : other.contains(this);
  }

  equals(other: Prefix): boolean {
    return this.length === other.length && this.address.equals(other.address);
  }

  toString(): string {
    return this.#text ??= `${this.address}/${this.length}`;
  }

  toJSON(): string {
    return this.toString();
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

/** An address of an interface: `10.24.7.1/24`. */
export class InterfaceAddress {
  readonly address: Address;
  readonly prefix: Prefix;

  /** @throws {RangeError} If `length` does not fit the family. */
  constructor(address: Address, length: number) {
    this.address = address;
    this.prefix = new Prefix(address, length);
  }

  /** @throws {SyntaxError} If `text` is not an address, a slash and a length that fits. */
  static parse(text: string): InterfaceAddress {
    const match = /^([^/]+)\/(\d{1,3})$/.exec(text);
    const address = match && Address.tryParse(match[1]!);
    if (!match || !address || Number(match[2]) > addressBits(address.family)) {
      throw new SyntaxError(`Cannot parse prefix: "${text}" is not in CIDR notation`);
    }
    return new InterfaceAddress(address, Number(match[2]));
  }

  equals(other: InterfaceAddress): boolean {
    return this.address.equals(other.address) && this.prefix.length === other.prefix.length;
  }

  toString(): string {
    return `${this.address}/${this.prefix.length}`;
  }

  toJSON(): string {
    return this.toString();
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.toString();
  }
}

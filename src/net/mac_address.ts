/** Each byte in two hexadecimal digits. */
const HEX = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"));

/** An EUI-48 address. `toString()` is lower case with colons, as the kernel prints it. */
export class MacAddress {
  readonly #text: string;

  private constructor(text: string) {
    this.#text = text;
  }

  /**
   * The address in six colon- or dash-separated hexadecimal octets.
   *
   * @throws {SyntaxError} If `text` is anything else.
   */
  static parse(text: string): MacAddress {
    if (!/^[0-9a-f]{2}(?:([:-])[0-9a-f]{2})(?:\1[0-9a-f]{2}){4}$/i.test(text)) {
      throw new SyntaxError(`Cannot parse MAC address: "${text}" is not six hexadecimal octets`);
    }
    return new MacAddress(text.toLowerCase().replaceAll("-", ":"));
  }

  /** @throws {RangeError} Unless `bytes` has length 6. */
  static fromBytes(bytes: Uint8Array): MacAddress {
    if (bytes.length !== 6) {
      throw new RangeError(`Cannot make a MAC address: ${bytes.length} bytes instead of 6`);
    }
    const [a, b, c, d, e, f] = bytes;
    return new MacAddress(
      `${HEX[a!]}:${HEX[b!]}:${HEX[c!]}:${HEX[d!]}:${HEX[e!]}:${HEX[f!]}`,
    );
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    return Uint8Array.from(this.#text.split(":"), (octet) => parseInt(octet, 16));
  }

  /** Whether it is one host's: no group address, and not all zeros. */
  isUnicast(): boolean {
    return (parseInt(this.#text[1]!, 16) & 1) === 0 && this.#text !== "00:00:00:00:00:00";
  }

  equals(other: MacAddress): boolean {
    return this.#text === other.#text;
  }

  toString(): string {
    return this.#text;
  }

  toJSON(): string {
    return this.#text;
  }

  [Symbol.for("Deno.customInspect")](): string {
    return this.#text;
  }
}

/** Field offsets of IP packets, and the memory that packets lie in. @module */
import { sumBytes, updateChecksum } from "./checksum.ts";
import { instantiateSum } from "./checksum_module.ts";

/** IPv4 header, RFC 791. */
export const IPV4 = {
  HEADER_BYTES: 20,
  TOS: 1,
  TOTAL_LENGTH: 2,
  ID: 4,
  FRAGMENT: 6,
  TTL: 8,
  PROTOCOL: 9,
  CHECKSUM: 10,
  SOURCE: 12,
  DESTINATION: 16,
  DONT_FRAGMENT: 0x4000,
  FRAGMENT_OFFSET: 0x1fff,
} as const;

/** IPv6 header, RFC 8200. */
export const IPV6 = {
  HEADER_BYTES: 40,
  PAYLOAD_LENGTH: 4,
  NEXT_HEADER: 6,
  HOP_LIMIT: 7,
  SOURCE: 8,
  DESTINATION: 24,
} as const;

/** TCP header, RFC 9293. */
export const TCP = {
  HEADER_BYTES: 20,
  SEQUENCE: 4,
  ACKNOWLEDGEMENT: 8,
  DATA_OFFSET: 12,
  FLAGS: 13,
  CHECKSUM: 16,
  FIN: 0x01,
  SYN: 0x02,
  RST: 0x04,
  PSH: 0x08,
  ACK: 0x10,
  URG: 0x20,
  ECE: 0x40,
  CWR: 0x80,
} as const;

/** UDP header, RFC 768. */
export const UDP = { HEADER_BYTES: 8, LENGTH: 4, CHECKSUM: 6 } as const;

export const PROTOCOL = { ICMP: 1, TCP: 6, UDP: 17, ICMPV6: 58, NONE: 59 } as const;

/** The largest IP packet. */
export const MAX_PACKET_BYTES = 65_535;

/** WebAssembly's unit of memory. */
const WASM_PAGE_BYTES = 65_536;

/** A block of memory with the views through which packets in it are read and written. */
export class PacketMemory {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly view: DataView<ArrayBuffer>;
  readonly #words: Int32Array<ArrayBuffer>;
  /** See {@linkcode sumBytes}. */
  readonly sum: (offset: number, length: number) => number;

  /** @param sizeBytes Rounded up to whole pages of 64 KiB. */
  constructor(sizeBytes: number) {
    const pages = Math.ceil(sizeBytes / WASM_PAGE_BYTES);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    this.bytes = new Uint8Array(memory.buffer as ArrayBuffer);
    this.view = new DataView(this.bytes.buffer);
    this.#words = new Int32Array(this.bytes.buffer);
    this.sum = instantiateSum(memory) ??
      ((offset, length) => sumBytes(this.bytes, offset, length));
  }

  /**
   * The sum of the pseudo-header that TCP and UDP checksums cover (RFC 9293 section 3.1, RFC 8200
   * section 8.1), without the length. `ip` is where the IP header begins.
   */
  pseudoSum(ip: number, protocol: number): number {
    return this.bytes[ip]! >> 4 === 4
      ? this.sum(ip + IPV4.SOURCE, 8) + protocol
      : this.sum(ip + IPV6.SOURCE, 32) + protocol;
  }

  /** Length of the header of the IP packet at `ip`, if it begins so and fits `length`; else 0. */
  headerBytes(ip: number, length: number): number {
    const version = this.bytes[ip]! >> 4;
    if (version !== 4 && version !== 6) return 0;
    const headerBytes = version === 4 ? (this.bytes[ip]! & 0xf) * 4 : IPV6.HEADER_BYTES;
    return headerBytes >= IPV4.HEADER_BYTES && headerBytes <= length ? headerBytes : 0;
  }

  /** The length of a whole packet, as its header states it. */
  statedLength(ip: number, ipv4: boolean): number {
    return ipv4
      ? this.view.getUint16(ip + IPV4.TOTAL_LENGTH)
      : IPV6.HEADER_BYTES + this.view.getUint16(ip + IPV6.PAYLOAD_LENGTH);
  }

  /** Decrements the TTL or hop limit, which must not be 0. */
  decrementTtl(ip: number, ipv4: boolean): void {
    const { bytes, view } = this;
    if (!ipv4) {
      bytes[ip + IPV6.HOP_LIMIT]!--;
      return;
    }
    const before = view.getUint16(ip + IPV4.TTL);
    const after = before - 0x100;
    view.setUint16(ip + IPV4.TTL, after);
    const checksum = view.getUint16(ip + IPV4.CHECKSUM);
    view.setUint16(ip + IPV4.CHECKSUM, updateChecksum(checksum, before, after));
  }

  /** Copies a header: for so few bytes, copyWithin() costs more. */
  copyHeader(to: number, from: number, length: number): void {
    if (((to | from | length) & 3) === 0) {
      const words = this.#words;
      const end = (from + length) >> 2;
      for (let source = from >> 2, target = to >> 2; source < end;) {
        words[target++] = words[source++]!;
      }
    } else {
      const { bytes } = this;
      for (let i = 0; i < length; i++) bytes[to + i] = bytes[from + i]!;
    }
  }

  /** Writes an IPv4 header's checksum. */
  sealIpv4Header(ip: number): void {
    const length = (this.bytes[ip]! & 0xf) * 4;
    this.view.setUint16(ip + IPV4.CHECKSUM, 0);
    this.view.setUint16(ip + IPV4.CHECKSUM, ~this.sum(ip, length) & 0xffff);
  }
}

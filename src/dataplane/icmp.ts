/** ICMP errors about packets that the tunnel cannot carry. @module */
import { fold32 } from "./checksum.ts";
import { IPV4, IPV6, type PacketMemory, PROTOCOL } from "./packet.ts";

/** What is wrong with a packet. */
export type IcmpProblem = "no-peer" | "time-exceeded" | "too-long";

/** TTL of the errors, as upstream flannel's. */
const TTL = 8;
/** ICMP header, the same in RFC 792 and RFC 4443. */
const ICMP_BYTES = 8;
/** Bytes of the packet's payload that an IPv4 error repeats (RFC 792). */
const QUOTED_PAYLOAD_BYTES = 8;
/** The longest IPv6 error (RFC 4443 section 3). */
const IPV6_MINIMUM_MTU = 1280;
/** The longest error of either family. */
export const MAX_ICMP_BYTES = IPV6_MINIMUM_MTU;

/** Type and code by family (RFC 792, RFC 4443). */
const CODES: Readonly<Record<4 | 6, Readonly<Record<IcmpProblem, readonly [number, number]>>>> = {
  4: { "no-peer": [3, 0], "time-exceeded": [11, 0], "too-long": [3, 4] },
  6: { "no-peer": [1, 0], "time-exceeded": [3, 0], "too-long": [2, 0] },
};
/** Requests and replies; all other ICMP messages are errors, which get no error in return. */
const ICMP4_QUERIES: ReadonlySet<number> = new Set([0, 8, 13, 14]);

export interface IcmpErrorOptions {
  readonly problem: IcmpProblem;
  /** For "too-long": the MTU to report. */
  readonly mtuBytes: number;
  /** The error's source address: one word for IPv4, four for IPv6; 0 for none. */
  readonly source: Int32Array;
}

/**
 * Writes at `at` the ICMP error about the packet of `length` bytes at `ip`, with its IP header.
 *
 * @returns The error's length; 0 if no error may be sent about the packet: later fragments, ICMP
 * errors, broken headers, senders that cannot be replied to (RFC 1122 section 3.2.2, RFC 4443
 * section 2.4). ICMP of any kind without a peer gets none, as in upstream flannel.
 */
export function writeIcmpError(
  memory: PacketMemory,
  ip: number,
  length: number,
  at: number,
  { problem, mtuBytes, source }: IcmpErrorOptions,
): number {
  const { bytes, view } = memory;
  const ipv4 = bytes[ip]! >> 4 === 4;
  const headerBytes = memory.headerBytes(ip, length);
  if (headerBytes === 0 || source.every((word) => word === 0)) return 0;
  const mayReport = ipv4 ? mayReport4 : mayReport6;
  if (!mayReport(memory, ip, length, headerBytes, problem)) return 0;

  const quoted = ipv4
    ? Math.min(length, headerBytes + QUOTED_PAYLOAD_BYTES)
    : Math.min(length, IPV6_MINIMUM_MTU - IPV6.HEADER_BYTES - ICMP_BYTES);
  const icmp = at + (ipv4 ? IPV4.HEADER_BYTES : IPV6.HEADER_BYTES);
  const icmpBytes = ICMP_BYTES + quoted;
  bytes.fill(0, at, icmp + ICMP_BYTES);
  bytes.copyWithin(icmp + ICMP_BYTES, ip, ip + quoted);
  if (ipv4) {
    bytes[at] = 0x45;
    bytes[at + IPV4.TOS] = 0xc0; // internetwork control, RFC 1812 section 4.3.2.5
    view.setUint16(at + IPV4.TOTAL_LENGTH, IPV4.HEADER_BYTES + icmpBytes);
    bytes[at + IPV4.TTL] = TTL;
    bytes[at + IPV4.PROTOCOL] = PROTOCOL.ICMP;
    view.setInt32(at + IPV4.SOURCE, source[0]!);
    view.setInt32(at + IPV4.DESTINATION, view.getInt32(ip + IPV4.SOURCE));
    memory.sealIpv4Header(at);
  } else {
    bytes[at] = 0x60;
    view.setUint16(at + IPV6.PAYLOAD_LENGTH, icmpBytes);
    bytes[at + IPV6.NEXT_HEADER] = PROTOCOL.ICMPV6;
    bytes[at + IPV6.HOP_LIMIT] = TTL;
    for (let i = 0; i < 4; i++) view.setInt32(at + IPV6.SOURCE + 4 * i, source[i]!);
    bytes.copyWithin(at + IPV6.DESTINATION, ip + IPV6.SOURCE, ip + IPV6.SOURCE + 16);
  }
  bytes.set(CODES[ipv4 ? 4 : 6][problem], icmp);
  // A 16-bit MTU for IPv4 (RFC 1191 section 4), which is the low half of this.
  if (problem === "too-long") view.setUint32(icmp + 4, mtuBytes);
  const pseudoSum = ipv4 ? 0 : memory.pseudoSum(at, PROTOCOL.ICMPV6) + icmpBytes;
  view.setUint16(icmp + 2, ~fold32(pseudoSum + memory.sum(icmp, icmpBytes)) & 0xffff);
  return icmp - at + icmpBytes;
}

function mayReport4(
  { bytes, view }: PacketMemory,
  ip: number,
  length: number,
  headerBytes: number,
  problem: IcmpProblem,
): boolean {
  if (headerBytes >= 60) return false;
  if ((view.getUint16(ip + IPV4.FRAGMENT) & IPV4.FRAGMENT_OFFSET) !== 0) return false;
  if (bytes[ip + IPV4.PROTOCOL] === PROTOCOL.ICMP) {
    if (problem === "no-peer" || length <= headerBytes) return false;
    if (!ICMP4_QUERIES.has(bytes[ip + headerBytes]!)) return false;
  }
  const sender = bytes[ip + IPV4.SOURCE]!;
  return sender !== 0 && sender !== 127 && sender < 224 && bytes[ip + IPV4.DESTINATION]! < 224;
}

function mayReport6(
  { bytes }: PacketMemory,
  ip: number,
  length: number,
  headerBytes: number,
  problem: IcmpProblem,
): boolean {
  if (bytes[ip + IPV6.NEXT_HEADER] === PROTOCOL.ICMPV6) {
    if (problem === "no-peer" || length <= headerBytes) return false;
    if (bytes[ip + headerBytes]! < 128) return false; // an error itself
  }
  const sender = bytes[ip + IPV6.SOURCE]!;
  // Multicast may only trigger "packet too big".
  return sender !== 0 && sender !== 0xff &&
    (bytes[ip + IPV6.DESTINATION] !== 0xff || problem === "too-long");
}

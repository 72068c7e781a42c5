/** ICMP errors about packets that the tunnel cannot carry. @module */
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

const ICMP4 = {
  UNREACHABLE: 3,
  NET_UNREACHABLE: 0,
  FRAGMENTATION_NEEDED: 4,
  TIME_EXCEEDED: 11,
} as const;
const ICMP6 = { UNREACHABLE: 1, NO_ROUTE: 0, TOO_BIG: 2, TIME_EXCEEDED: 3 } as const;
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
  options: IcmpErrorOptions,
): number {
  return memory.bytes[ip]! >> 4 === 4
    ? writeIcmp4(memory, ip, length, at, options)
    : writeIcmp6(memory, ip, length, at, options);
}

function writeIcmp4(
  memory: PacketMemory,
  ip: number,
  length: number,
  at: number,
  { problem, mtuBytes, source }: IcmpErrorOptions,
): number {
  const { bytes, view } = memory;
  const headerBytes = (bytes[ip]! & 0xf) * 4;
  if (source[0] === 0 || headerBytes < IPV4.HEADER_BYTES || headerBytes >= 60) return 0;
  if (length < headerBytes) return 0;
  if ((view.getUint16(ip + IPV4.FRAGMENT) & IPV4.FRAGMENT_OFFSET) !== 0) return 0;
  if (bytes[ip + IPV4.PROTOCOL] === PROTOCOL.ICMP) {
    if (problem === "no-peer" || length <= headerBytes) return 0;
    if (!ICMP4_QUERIES.has(bytes[ip + headerBytes]!)) return 0;
  }
  const sender = bytes[ip + IPV4.SOURCE]!;
  if (sender === 0 || sender === 127 || sender >= 224) return 0;
  if (bytes[ip + IPV4.DESTINATION]! >= 224) return 0;

  const quoted = Math.min(length, headerBytes + QUOTED_PAYLOAD_BYTES);
  const total = IPV4.HEADER_BYTES + ICMP_BYTES + quoted;
  const icmp = at + IPV4.HEADER_BYTES;
  bytes.fill(0, at, at + IPV4.HEADER_BYTES + ICMP_BYTES);
  bytes.copyWithin(icmp + ICMP_BYTES, ip, ip + quoted);
  bytes[at] = 0x45;
  bytes[at + IPV4.TOS] = 0xc0; // internetwork control, RFC 1812 section 4.3.2.5
  view.setUint16(at + IPV4.TOTAL_LENGTH, total);
  bytes[at + IPV4.TTL] = TTL;
  bytes[at + IPV4.PROTOCOL] = PROTOCOL.ICMP;
  view.setInt32(at + IPV4.SOURCE, source[0]!);
  view.setInt32(at + IPV4.DESTINATION, view.getInt32(ip + IPV4.SOURCE));
  memory.sealIpv4Header(at);
  if (problem === "time-exceeded") {
    bytes[icmp] = ICMP4.TIME_EXCEEDED;
  } else {
    bytes[icmp] = ICMP4.UNREACHABLE;
    bytes[icmp + 1] = problem === "no-peer" ? ICMP4.NET_UNREACHABLE : ICMP4.FRAGMENTATION_NEEDED;
    if (problem === "too-long") view.setUint16(icmp + 6, mtuBytes); // RFC 1191 section 4
  }
  view.setUint16(icmp + 2, ~memory.sum(icmp, ICMP_BYTES + quoted) & 0xffff);
  return total;
}

function writeIcmp6(
  memory: PacketMemory,
  ip: number,
  length: number,
  at: number,
  { problem, mtuBytes, source }: IcmpErrorOptions,
): number {
  const { bytes, view } = memory;
  if (length < IPV6.HEADER_BYTES || !source.some((word) => word !== 0)) return 0;
  if (bytes[ip + IPV6.NEXT_HEADER] === PROTOCOL.ICMPV6) {
    if (problem === "no-peer" || length <= IPV6.HEADER_BYTES) return 0;
    if (bytes[ip + IPV6.HEADER_BYTES]! < 128) return 0; // an error itself
  }
  const sender = bytes[ip + IPV6.SOURCE]!;
  if (sender === 0 || sender === 0xff) return 0;
  // Multicast may only trigger "packet too big".
  if (bytes[ip + IPV6.DESTINATION] === 0xff && problem !== "too-long") return 0;

  const quoted = Math.min(length, IPV6_MINIMUM_MTU - IPV6.HEADER_BYTES - ICMP_BYTES);
  const icmp = at + IPV6.HEADER_BYTES;
  const icmpBytes = ICMP_BYTES + quoted;
  bytes.fill(0, at, icmp + ICMP_BYTES);
  bytes.copyWithin(icmp + ICMP_BYTES, ip, ip + quoted);
  bytes[at] = 0x60;
  view.setUint16(at + IPV6.PAYLOAD_LENGTH, icmpBytes);
  bytes[at + IPV6.NEXT_HEADER] = PROTOCOL.ICMPV6;
  bytes[at + IPV6.HOP_LIMIT] = TTL;
  for (let i = 0; i < 4; i++) view.setInt32(at + IPV6.SOURCE + 4 * i, source[i]!);
  bytes.copyWithin(at + IPV6.DESTINATION, ip + IPV6.SOURCE, ip + IPV6.SOURCE + 16);
  if (problem === "time-exceeded") bytes[icmp] = ICMP6.TIME_EXCEEDED;
  else if (problem === "no-peer") {
    bytes[icmp] = ICMP6.UNREACHABLE;
    bytes[icmp + 1] = ICMP6.NO_ROUTE;
  } else {
    bytes[icmp] = ICMP6.TOO_BIG;
    view.setUint32(icmp + 4, mtuBytes);
  }
  const sum = memory.pseudoSum(at, PROTOCOL.ICMPV6) + icmpBytes + memory.sum(icmp, icmpBytes);
  view.setUint16(icmp + 2, ~((sum & 0xffff) + (sum >>> 16)) & 0xffff);
  return IPV6.HEADER_BYTES + icmpBytes;
}

/**
 * Splits a large packet of the kernel's (TSO, USO) into wire packets, as its own tcp_gso_segment
 * and __udp_gso_segment would. Each gets a new header; the payload stays where it is.
 *
 * @module
 */
import { fold32 } from "./checksum.ts";
import { IPV4, IPV6, type PacketMemory, PROTOCOL, TCP, UDP } from "./packet.ts";

/** Receives the packets of a split. */
export interface SegmentSink {
  /** The place in the same memory for the next header, of `length` bytes. */
  headerSpace(length: number): number;
  /** One packet: a header at the place just reserved, and its payload. */
  segment(header: number, headerLength: number, payload: number, payloadLength: number): void;
}

/** What a large packet is. */
export interface LargePacket {
  /** Where its IP header begins. */
  offset: number;
  /** From its IP header to its end. */
  length: number;
  /** Where its TCP or UDP header begins. */
  transport: number;
  /** Payload bytes of each packet but the last. */
  segmentBytes: number;
}

/** Longer headers are not credible. */
export const MAX_HEADER_BYTES = 120;

/**
 * Splits a large TCP packet, or a run of UDP datagrams that came as one. Its TTL must be final; its
 * checksum fields are ignored.
 *
 * @returns Whether it was one; nothing is written otherwise.
 */
export function segment(
  memory: PacketMemory,
  protocol: typeof PROTOCOL.TCP | typeof PROTOCOL.UDP,
  { offset, length, transport, segmentBytes }: LargePacket,
  sink: SegmentSink,
): boolean {
  const { bytes, view } = memory;
  const tcp = protocol === PROTOCOL.TCP;
  const end = offset + length;
  const leastBytes = tcp ? TCP.HEADER_BYTES : UDP.HEADER_BYTES;
  if (transport + leastBytes > end || segmentBytes === 0) return false;
  const transportBytes = tcp ? (bytes[transport + TCP.DATA_OFFSET]! >> 4) * 4 : leastBytes;
  const payloadStart = transport + transportBytes;
  const headerBytes = payloadStart - offset;
  if (transportBytes < leastBytes || payloadStart > end || headerBytes > MAX_HEADER_BYTES) {
    return false;
  }
  const ipv4 = bytes[offset]! >> 4 === 4;
  const ipBytes = transport - offset;
  const flags = tcp ? bytes[transport + TCP.FLAGS]! : 0;
  // Signed, as only such numbers need no memory of their own.
  const sequence = tcp ? view.getInt32(transport + TCP.SEQUENCE) : 0;
  const id = ipv4 ? view.getUint16(offset + IPV4.ID) : 0;
  // What all checksums share; each adds its sequence number, flags and lengths.
  if (tcp) {
    view.setUint32(transport + TCP.SEQUENCE, 0);
    bytes[transport + TCP.FLAGS] = 0;
    view.setUint16(transport + TCP.CHECKSUM, 0);
  } else {
    view.setUint16(transport + UDP.LENGTH, 0);
    view.setUint16(transport + UDP.CHECKSUM, 0);
  }
  const sharedSum = memory.pseudoSum(offset, protocol) + memory.sum(transport, transportBytes);
  const ipSum = ipv4 ? unsealedIpv4Sum(memory, offset, ipBytes) : 0;

  for (let payload = payloadStart, index = 0; payload < end || index === 0; index++) {
    const payloadBytes = Math.min(segmentBytes, end - payload);
    const header = sink.headerSpace(headerBytes);
    memory.copyHeader(header, offset, headerBytes);
    const at = header + ipBytes;
    writeIpHeader(memory, header, headerBytes + payloadBytes, ipv4, (id + index) & 0xffff, ipSum);
    const statedBytes = transportBytes + payloadBytes;
    const sum = sharedSum + statedBytes + memory.sum(payload, payloadBytes);
    if (tcp) {
      const segmentSequence = (sequence + index * segmentBytes) | 0;
      let segmentFlags = flags;
      if (payload + payloadBytes < end) segmentFlags &= ~(TCP.FIN | TCP.PSH);
      if (index > 0) segmentFlags &= ~TCP.CWR;
      view.setInt32(at + TCP.SEQUENCE, segmentSequence);
      bytes[at + TCP.FLAGS] = segmentFlags;
      const own = (segmentSequence >>> 16) + (segmentSequence & 0xffff) + segmentFlags;
      view.setUint16(at + TCP.CHECKSUM, ~fold32(sum + own) & 0xffff);
    } else {
      view.setUint16(at + UDP.LENGTH, statedBytes);
      // Zero would mean "no checksum" (RFC 768).
      view.setUint16(at + UDP.CHECKSUM, (~fold32(sum + statedBytes) & 0xffff) || 0xffff);
    }
    sink.segment(header, headerBytes, payload, payloadBytes);
    payload += payloadBytes;
  }
  return true;
}

/**
 * Writes the checksum that the kernel left to the device: over everything from `start`, into the
 * word at `start + checksumOffset`, which holds the pseudo-header's sum (linux/virtio_net.h).
 *
 * @returns Whether the place lies within the packet.
 */
export function finishChecksum(
  memory: PacketMemory,
  packet: number,
  length: number,
  start: number,
  checksumOffset: number,
): boolean {
  const from = packet + start;
  const place = from + checksumOffset;
  if (start >= length || place + 2 > packet + length) return false;
  // The word's present value is part of the sum, which the field must complement.
  const checksum = ~memory.sum(from, packet + length - from) & 0xffff;
  // Only UDP knows a zero that means "no checksum"; ones' complement has a second zero for it.
  memory.view.setUint16(
    place,
    checksum === 0 && checksumOffset === UDP.CHECKSUM ? 0xffff : checksum,
  );
  return true;
}

/** The sum of an IPv4 header without the fields that differ per packet, which it zeroes. */
function unsealedIpv4Sum(memory: PacketMemory, offset: number, ipBytes: number): number {
  const { view } = memory;
  view.setUint16(offset + IPV4.TOTAL_LENGTH, 0);
  view.setUint16(offset + IPV4.ID, 0);
  view.setUint16(offset + IPV4.CHECKSUM, 0);
  return memory.sum(offset, ipBytes);
}

function writeIpHeader(
  { view }: PacketMemory,
  header: number,
  packetBytes: number,
  ipv4: boolean,
  id: number,
  ipSum: number,
): void {
  if (ipv4) {
    view.setUint16(header + IPV4.TOTAL_LENGTH, packetBytes);
    view.setUint16(header + IPV4.ID, id);
    view.setUint16(header + IPV4.CHECKSUM, ~fold32(ipSum + packetBytes + id) & 0xffff);
  } else {
    view.setUint16(header + IPV6.PAYLOAD_LENGTH, packetBytes - IPV6.HEADER_BYTES);
  }
}

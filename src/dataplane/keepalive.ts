/**
 * Keepalives for NAT traversal: an IPv4 packet from the sender's subnet base to the peer's, which
 * upstream flannel drops silently because its TTL expires. It has no payload; its protocol is "no
 * next header" (59).
 *
 * @module
 */
import { IPV4, IPV6, type PacketMemory, PROTOCOL } from "./packet.ts";

/** How often NAT mappings are refreshed (RFC 4787 requires NATs to keep them for 120 s). */
export const KEEPALIVE_INTERVAL_MS = 25_000;

/** The least time between two rounds, however often peers come and go. */
export const KEEPALIVE_PAUSE_MS = 5_000;

/** Writes a keepalive at `at`, between addresses as words. Returns its length. */
export function writeKeepalive(
  memory: PacketMemory,
  at: number,
  source: Int32Array,
  destination: Int32Array,
): number {
  const { bytes, view } = memory;
  const ipv4 = source.length === 1;
  const length = ipv4 ? IPV4.HEADER_BYTES : IPV6.HEADER_BYTES;
  bytes.fill(0, at, at + length);
  const from = at + (ipv4 ? IPV4.SOURCE : IPV6.SOURCE);
  const to = at + (ipv4 ? IPV4.DESTINATION : IPV6.DESTINATION);
  for (let i = 0; i < source.length; i++) {
    view.setInt32(from + 4 * i, source[i]!);
    view.setInt32(to + 4 * i, destination[i]!);
  }
  if (ipv4) {
    bytes[at] = 0x45;
    view.setUint16(at + IPV4.TOTAL_LENGTH, length);
    bytes[at + IPV4.TTL] = 1;
    bytes[at + IPV4.PROTOCOL] = PROTOCOL.NONE;
    memory.sealIpv4Header(at);
  } else {
    bytes[at] = 0x60;
    bytes[at + IPV6.NEXT_HEADER] = PROTOCOL.NONE;
    bytes[at + IPV6.HOP_LIMIT] = 1;
  }
  return length;
}

/** Whether the packet is a keepalive. */
export function isKeepalive({ bytes }: PacketMemory, ip: number, length: number): boolean {
  return bytes[ip]! >> 4 === 4
    ? length === IPV4.HEADER_BYTES && bytes[ip + IPV4.PROTOCOL] === PROTOCOL.NONE
    : length === IPV6.HEADER_BYTES && bytes[ip + IPV6.NEXT_HEADER] === PROTOCOL.NONE;
}

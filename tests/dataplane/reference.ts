/**
 * The slow, obvious version of what the packet path does: packets as arrays of their own, split and
 * checked a byte at a time, sharing no code with it.
 *
 * @module
 */

/** Ones' complement sum of 16-bit words, RFC 1071, without any shortcut. */
export function referenceSum(bytes: Uint8Array, start = 0): number {
  let sum = start;
  for (let i = 0; i < bytes.length; i += 2) {
    sum += bytes[i]! * 256 + (i + 1 < bytes.length ? bytes[i + 1]! : 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

function word(value: number): number[] {
  return [(value >> 8) & 0xff, value & 0xff];
}

function long(value: number): number[] {
  return [...word(value >>> 16), ...word(value & 0xffff)];
}

/** A packet to be built. */
export interface PacketFields {
  readonly version: 4 | 6;
  readonly protocol: 6 | 17;
  readonly source: readonly number[];
  readonly destination: readonly number[];
  readonly sourcePort: number;
  readonly destinationPort: number;
  readonly tos: number;
  readonly ttl: number;
  readonly id: number;
  readonly dontFragment: boolean;
  /** IPv4 options, a multiple of 4 bytes. */
  readonly ipOptions: readonly number[];
  readonly sequence: number;
  readonly acknowledgement: number;
  readonly flags: number;
  readonly window: number;
  readonly urgent: number;
  /** A multiple of 4 bytes. */
  readonly tcpOptions: readonly number[];
  readonly payload: readonly number[];
}

/** A packet of TCP to take what differs from. */
export const SAMPLE_PACKET: PacketFields = {
  version: 4,
  protocol: 6,
  source: [10, 24, 2, 7],
  destination: [10, 24, 1, 9],
  sourcePort: 1000,
  destinationPort: 2000,
  tos: 0,
  ttl: 64,
  id: 5,
  dontFragment: true,
  ipOptions: [],
  sequence: 1,
  acknowledgement: 2,
  flags: 0x10,
  window: 3,
  urgent: 0,
  tcpOptions: [],
  payload: Array.from({ length: 100 }, (_, i) => i),
};

/** The bytes of a packet with right checksums, field by field. */
export function buildPacket(fields: PacketFields): Uint8Array<ArrayBuffer> {
  const { version, protocol, payload } = fields;
  const header = protocol === 6
    ? [
      ...word(fields.sourcePort),
      ...word(fields.destinationPort),
      ...long(fields.sequence),
      ...long(fields.acknowledgement),
      (5 + fields.tcpOptions.length / 4) << 4,
      fields.flags,
      ...word(fields.window),
      ...word(0),
      ...word(fields.urgent),
      ...fields.tcpOptions,
    ]
    : [
      ...word(fields.sourcePort),
      ...word(fields.destinationPort),
      ...word(8 + payload.length),
      ...word(0),
    ];
  const transport = Uint8Array.from([...header, ...payload]);
  const pseudo = Uint8Array.from([
    ...fields.source,
    ...fields.destination,
    ...long(transport.length),
    ...long(protocol),
  ]);
  let checksum = 0xffff - referenceSum(transport, referenceSum(pseudo));
  if (protocol === 17 && checksum === 0) checksum = 0xffff;
  transport.set(word(checksum), protocol === 6 ? 16 : 6);
  if (version === 6) {
    return Uint8Array.from([
      0x60 | (fields.tos >> 4),
      (fields.tos & 0xf) << 4,
      ...word(fields.id), // as a flow label
      ...word(transport.length),
      protocol,
      fields.ttl,
      ...fields.source,
      ...fields.destination,
      ...transport,
    ]);
  }
  const ip = Uint8Array.from([
    0x40 | (5 + fields.ipOptions.length / 4),
    fields.tos,
    ...word(20 + fields.ipOptions.length + transport.length),
    ...word(fields.id),
    ...word(fields.dontFragment ? 0x4000 : 0),
    fields.ttl,
    protocol,
    ...word(0),
    ...fields.source,
    ...fields.destination,
    ...fields.ipOptions,
  ]);
  ip.set(word(0xffff - referenceSum(ip)), 10);
  return Uint8Array.from([...ip, ...transport]);
}

/** What the packets of a large one must be: each built anew from its own fields. */
export function splitFields(fields: PacketFields, segmentBytes: number): PacketFields[] {
  const { payload, protocol } = fields;
  const count = Math.max(1, Math.ceil(payload.length / segmentBytes));
  return Array.from({ length: count }, (_, i) => {
    let flags = fields.flags;
    if (i < count - 1) flags &= ~0x09; // FIN, PSH
    if (i > 0) flags &= ~0x80; // CWR
    return {
      ...fields,
      payload: payload.slice(i * segmentBytes, (i + 1) * segmentBytes),
      sequence: (fields.sequence + i * segmentBytes) >>> 0,
      ...(fields.version === 4 ? { id: (fields.id + i) & 0xffff } : {}),
      ...(protocol === 6 ? { flags } : {}),
    };
  });
}

/** Whether all checksums of a packet are right, by its own bytes alone. */
export function isIntact(packet: Uint8Array): boolean {
  const ipv4 = packet[0]! >> 4 === 4;
  const headerBytes = ipv4 ? (packet[0]! & 15) * 4 : 40;
  if (ipv4 && referenceSum(packet.subarray(0, headerBytes)) !== 0xffff) return false;
  const protocol = ipv4 ? packet[9]! : packet[6]!;
  if (protocol !== 6 && protocol !== 17) return true;
  const transport = packet.subarray(headerBytes);
  const addresses = ipv4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
  const pseudo = Uint8Array.from([...addresses, ...long(transport.length), ...long(protocol)]);
  return referenceSum(transport, referenceSum(pseudo)) === 0xffff;
}

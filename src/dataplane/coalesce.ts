/**
 * Joins consecutive packets of a flow into a large packet that the kernel handles as one (GRO in
 * user space), the inverse of `segment.ts`. Packets are joined only if splitting the result yields
 * the very same bytes, and only if their checksums are right, since a large packet gets new ones.
 *
 * @module
 */
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../ffi/tun/constants.ts";
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { fold32 } from "./checksum.ts";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { IPV4, IPV6, MAX_PACKET_BYTES, type PacketMemory, PROTOCOL, TCP, UDP } from "./packet.ts";

/** A packet to be written: a `virtio_net_hdr` and pieces of memory, in order. */
export interface PacketWriter {
  /**
   * @param header The `virtio_net_hdr`.
   * @param pieces Pairs of offset and length; the first `count` pairs count.
   * @param packets How many packets went into this one.
   */
  write(header: Uint8Array, pieces: Int32Array, count: number, packets: number): void;
}

/** Large packets in the making at a time: one per interleaved flow. */
const MAX_OPEN = 8;
/** Pieces of a large packet; the kernel's own limit is higher (UIO_MAXIOV, 1024). */
const MAX_PIECES = 128;
/** Datagrams of a large UDP packet: UDP_MAX_SEGMENTS of older kernels. */
const MAX_DATAGRAMS = 64;
/** TCP flags that a packet to be joined may have. */
const JOINABLE_FLAGS = TCP.ACK | TCP.PSH | TCP.ECE;

/** A packet that may grow. Objects are reused. */
class OpenPacket {
  readonly header = new Uint8Array(virtio_net_hdr.size);
  readonly headerView = new DataView(this.header.buffer);
  readonly pieces = new Int32Array(MAX_PIECES * 2);
  pieceCount = 0;
  /** Offsets of the first packet, its transport header and its payload. */
  ip = 0;
  transport = 0;
  payload = 0;
  protocol = 0;
  ipv4 = true;
  /** Payload bytes of each packet but the last. */
  segmentBytes = 0;
  /** IP header and all payloads so far. */
  totalBytes = 0;
  packets = 0;
  /** What the next packet must have; signed, as only such numbers need no memory of their own. */
  nextSequence = 0;
  nextId = 0;
  /** Whether more packets may be joined. */
  growing = false;
  /** Whether the first packet's checksums have been verified. */
  verified = false;
  /** Sums that every packet of the flow shares, from the first, once it is verified. */
  pseudoSum = 0;
  changingSum = 0;
  psh = 0;
}

export interface CoalescerOptions {
  /** Whether the kernel takes large TCP packets. */
  readonly tcp: boolean;
  /** Whether the kernel takes large UDP packets. */
  readonly udp: boolean;
}

/**
 * Joins packets of one memory. Packets of a flow keep their order; {@linkcode Coalescer.flush} must
 * be called before the memory is used for others.
 */
export class Coalescer {
  readonly #memory: PacketMemory;
  readonly #writer: PacketWriter;
  readonly #options: CoalescerOptions;
  readonly #open = Array.from({ length: MAX_OPEN }, () => new OpenPacket());
  #openCount = 0;
  /** The held packet that the last packet was joined to. */
  #last: OpenPacket | undefined;
  readonly #plainHeader = new Uint8Array(virtio_net_hdr.size);
  readonly #plainPieces = new Int32Array(2);

  constructor(memory: PacketMemory, writer: PacketWriter, options: CoalescerOptions) {
    this.#memory = memory;
    this.#writer = writer;
    this.#options = options;
  }

  /**
   * Takes an IP packet of `length` bytes at `ip`, whose IP header's lengths agree with it. It is
   * written at once, or later as part of a larger one.
   */
  add(ip: number, length: number): void {
    const { bytes } = this.#memory;
    const ipv4 = bytes[ip]! >> 4 === 4;
    const protocol = ipv4 ? bytes[ip + IPV4.PROTOCOL]! : bytes[ip + IPV6.NEXT_HEADER]!;
    const tcp = protocol === PROTOCOL.TCP;
    if (!(tcp ? this.#options.tcp : protocol === PROTOCOL.UDP && this.#options.udp)) {
      this.#writePlain(ip, length);
      return;
    }
    const ipBytes = ipv4 ? (bytes[ip]! & 0xf) * 4 : IPV6.HEADER_BYTES;
    const transport = ip + ipBytes;
    if (length < ipBytes + (tcp ? TCP.HEADER_BYTES : UDP.HEADER_BYTES)) {
      this.#writePlain(ip, length);
      return;
    }
    const index = this.#find(ip, transport, ipv4, protocol);
    if (index >= 0) {
      const packet = this.#open[index]!;
      if (packet.growing && this.#join(packet, ip, transport, length, 0)) return;
      // Later packets of this flow must not overtake held ones.
      this.#close(index);
    }
    if (!this.#mayStart(ip, transport, length, ipv4, protocol)) {
      this.#writePlain(ip, length);
      return;
    }
    if (this.#openCount === MAX_OPEN) this.#close(0);
    this.#start(ip, transport, length, ipv4, protocol);
  }

  /**
   * Joins the packet to the held packet of its predecessor, if {@linkcode Coalescer.add} would do
   * so; returns whether it was joined. `hops` is the excess of its TTL: its header is not written,
   * so the TTL need not be decremented first. It must have the same sender.
   */
  addNext(ip: number, length: number, hops: number): boolean {
    const packet = this.#last;
    if (packet === undefined || !packet.growing) return false;
    const { bytes } = this.#memory;
    const { ipv4 } = packet;
    const transport = ip + packet.transport - packet.ip;
    if (ip + length < transport + UDP.HEADER_BYTES) return false;
    return this.#memory.statedLength(ip, ipv4) === length &&
      bytes[ip + (ipv4 ? IPV4.PROTOCOL : IPV6.NEXT_HEADER)] === packet.protocol &&
      this.#isSameFlow(packet, ip, transport) && this.#join(packet, ip, transport, length, hops);
  }

  /** To be called before packets from another sender. */
  forgetLast(): void {
    this.#last = undefined;
  }

  /** Writes all held packets. */
  flush(): void {
    this.#last = undefined;
    for (let i = 0; i < this.#openCount; i++) this.#write(this.#open[i]!);
    this.#openCount = 0;
  }

  /** The held packet of the same flow, or -1. */
  #find(ip: number, transport: number, ipv4: boolean, protocol: number): number {
    for (let i = this.#openCount - 1; i >= 0; i--) {
      const packet = this.#open[i]!;
      if (packet.protocol !== protocol || packet.ipv4 !== ipv4) continue;
      if (this.#isSameFlow(packet, ip, transport)) return i;
    }
    return -1;
  }

  /** Whether ports and addresses are those of `packet`. */
  #isSameFlow(packet: OpenPacket, ip: number, transport: number): boolean {
    const { view } = this.#memory;
    if (view.getInt32(packet.transport) !== view.getInt32(transport)) return false;
    const from = packet.ipv4 ? IPV4.SOURCE : IPV6.SOURCE;
    const to = packet.ipv4 ? IPV4.HEADER_BYTES : IPV6.HEADER_BYTES;
    for (let at = from; at < to; at += 4) {
      if (view.getInt32(packet.ip + at) !== view.getInt32(ip + at)) return false;
    }
    return true;
  }

  /** Whether others may be joined to this packet. */
  #mayStart(
    ip: number,
    transport: number,
    length: number,
    ipv4: boolean,
    protocol: number,
  ): boolean {
    const { bytes, view } = this.#memory;
    if (ipv4) {
      if (transport - ip !== IPV4.HEADER_BYTES) return false;
      if ((view.getUint16(ip + IPV4.FRAGMENT) & ~IPV4.DONT_FRAGMENT) !== 0) return false;
    }
    if (protocol === PROTOCOL.UDP) {
      const udpBytes = view.getUint16(transport + UDP.LENGTH);
      return udpBytes > UDP.HEADER_BYTES && transport - ip + udpBytes === length &&
        view.getUint16(transport + UDP.CHECKSUM) !== 0;
    }
    const tcpBytes = (bytes[transport + TCP.DATA_OFFSET]! >> 4) * 4;
    const flags = bytes[transport + TCP.FLAGS]!;
    return tcpBytes >= TCP.HEADER_BYTES && transport - ip + tcpBytes < length &&
      (flags & TCP.ACK) !== 0 && (flags & ~JOINABLE_FLAGS) === 0 &&
      (bytes[transport + TCP.DATA_OFFSET]! & 0xf) === 0;
  }

  #start(ip: number, transport: number, length: number, ipv4: boolean, protocol: number): void {
    const { bytes, view } = this.#memory;
    const packet = this.#open[this.#openCount++]!;
    this.#last = packet;
    const tcp = protocol === PROTOCOL.TCP;
    packet.ip = ip;
    packet.transport = transport;
    packet.payload = transport +
      (tcp ? (bytes[transport + TCP.DATA_OFFSET]! >> 4) * 4 : UDP.HEADER_BYTES);
    packet.protocol = protocol;
    packet.ipv4 = ipv4;
    packet.segmentBytes = ip + length - packet.payload;
    packet.totalBytes = length;
    packet.packets = 1;
    packet.pieces[0] = ip;
    packet.pieces[1] = length;
    packet.pieceCount = 1;
    packet.nextId = ipv4 ? (view.getUint16(ip + IPV4.ID) + 1) & 0xffff : 0;
    packet.verified = false;
    packet.psh = 0;
    if (tcp) {
      packet.nextSequence = (view.getInt32(transport + TCP.SEQUENCE) + packet.segmentBytes) | 0;
      packet.growing = (bytes[transport + TCP.FLAGS]! & TCP.PSH) === 0;
    } else {
      packet.growing = true;
    }
  }

  /** Joins a packet of the same flow, with `hops` too much, to `packet` if it is the very next one. */
  #join(
    packet: OpenPacket,
    ip: number,
    transport: number,
    length: number,
    hops: number,
  ): boolean {
    const { bytes, view } = this.#memory;
    const tcp = packet.protocol === PROTOCOL.TCP;
    const headerBytes = packet.payload - packet.ip;
    if (transport - ip !== packet.transport - packet.ip || length <= headerBytes) return false;
    const payloadBytes = length - headerBytes;
    if (
      payloadBytes > packet.segmentBytes || packet.pieceCount === MAX_PIECES ||
      packet.totalBytes + payloadBytes > MAX_PACKET_BYTES
    ) return false;
    if (packet.ipv4) {
      // Version, header length, type of service; flags; TTL.
      if (view.getUint16(ip) !== view.getUint16(packet.ip)) return false;
      if (view.getUint16(ip + IPV4.FRAGMENT) !== view.getUint16(packet.ip + IPV4.FRAGMENT)) {
        return false;
      }
      if (bytes[ip + IPV4.TTL]! - hops !== bytes[packet.ip + IPV4.TTL]) return false;
      if (view.getUint16(ip + IPV4.ID) !== packet.nextId) return false;
    } else if (
      // Version, traffic class, flow label; hop limit.
      view.getInt32(ip) !== view.getInt32(packet.ip) ||
      bytes[ip + IPV6.HOP_LIMIT]! - hops !== bytes[packet.ip + IPV6.HOP_LIMIT]
    ) return false;

    let flags = 0;
    if (tcp) {
      const first = packet.transport;
      flags = bytes[transport + TCP.FLAGS]!;
      if (view.getInt32(transport + TCP.SEQUENCE) !== packet.nextSequence) return false;
      if (view.getInt32(transport + 8) !== view.getInt32(first + 8)) return false; // acknowledgement
      // Data offset, flags apart from PSH, window.
      const changed = view.getInt32(transport + 12) ^ view.getInt32(first + 12);
      if ((changed & ~(TCP.PSH << 16)) !== 0) return false;
      // Urgent pointer and options; the checksum between them does differ.
      if (view.getUint16(transport + 18) !== view.getUint16(first + 18)) return false;
      for (let at = TCP.HEADER_BYTES; at < packet.payload - first; at += 4) {
        if (view.getInt32(transport + at) !== view.getInt32(first + at)) return false;
      }
    } else {
      if (packet.packets === MAX_DATAGRAMS) return false;
      if (view.getUint16(transport + UDP.LENGTH) !== UDP.HEADER_BYTES + payloadBytes) return false;
      if (view.getUint16(transport + UDP.CHECKSUM) === 0) return false;
    }

    if (!packet.verified && !this.#verify(packet)) {
      packet.growing = false;
      return false;
    }
    // The rest of the IPv4 header equals the first packet's, whose checksum is right.
    if (packet.ipv4 && this.#changingSum(ip, hops) !== packet.changingSum) return false;
    if (!this.#isIntact(packet, transport, ip + length)) return false;

    packet.pieces[packet.pieceCount * 2] = ip + headerBytes;
    packet.pieces[packet.pieceCount * 2 + 1] = payloadBytes;
    packet.pieceCount++;
    packet.packets++;
    packet.totalBytes += payloadBytes;
    packet.nextId = (packet.nextId + 1) & 0xffff;
    packet.nextSequence = (packet.nextSequence + payloadBytes) | 0;
    packet.psh = flags & TCP.PSH;
    packet.growing = payloadBytes === packet.segmentBytes && packet.psh === 0;
    this.#last = packet;
    return true;
  }

  /** Whether the first and so far only packet of `packet` has right checksums. */
  #verify(packet: OpenPacket): boolean {
    const { ip, transport } = packet;
    if (packet.ipv4) {
      if (this.#memory.sum(ip, IPV4.HEADER_BYTES) !== 0xffff) return false;
      packet.changingSum = this.#changingSum(ip, 0);
    }
    packet.pseudoSum = this.#memory.pseudoSum(ip, packet.protocol);
    packet.verified = this.#isIntact(packet, transport, ip + packet.pieces[1]!);
    return packet.verified;
  }

  /**
   * The sum of what differs between the IPv4 headers of packets that may be joined. Each hop
   * decrements the TTL, the high half of its word, and so adds as much to the checksum.
   */
  #changingSum(ip: number, hops: number): number {
    const { view } = this.#memory;
    return fold32(
      view.getUint16(ip + IPV4.TOTAL_LENGTH) + view.getUint16(ip + IPV4.ID) +
        view.getUint16(ip + IPV4.CHECKSUM) + hops * 0x100,
    );
  }

  #isIntact({ pseudoSum }: OpenPacket, transport: number, end: number): boolean {
    const length = end - transport;
    return fold32(pseudoSum + length + this.#memory.sum(transport, length)) === 0xffff;
  }

  /** Writes one held packet; the others keep their order. */
  #close(index: number): void {
    const packet = this.#open[index]!;
    this.#write(packet);
    this.#openCount--;
    for (let i = index; i < this.#openCount; i++) this.#open[i] = this.#open[i + 1]!;
    this.#open[this.#openCount] = packet;
  }

  #write(packet: OpenPacket): void {
    if (packet.packets === 1) {
      this.#writer.write(this.#plainHeader, packet.pieces, 1, 1);
      return;
    }
    const memory = this.#memory;
    const { bytes, view } = memory;
    const { ip, transport, payload, ipv4, totalBytes, header, headerView } = packet;
    const tcp = packet.protocol === PROTOCOL.TCP;
    const transportBytes = totalBytes - (transport - ip);
    if (ipv4) {
      view.setUint16(ip + IPV4.TOTAL_LENGTH, totalBytes);
      memory.sealIpv4Header(ip);
    } else {
      view.setUint16(ip + IPV6.PAYLOAD_LENGTH, transportBytes);
    }
    const checksumOffset = tcp ? TCP.CHECKSUM : UDP.CHECKSUM;
    view.setUint16(transport + checksumOffset, fold32(packet.pseudoSum + transportBytes));
    if (tcp) bytes[transport + TCP.FLAGS]! |= packet.psh;
    else view.setUint16(transport + UDP.LENGTH, transportBytes);
    header[virtio_net_hdr.flags] = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header[virtio_net_hdr.gso_type] = !tcp
      ? VIRTIO_NET_HDR_GSO_UDP_L4
      : ipv4
      ? VIRTIO_NET_HDR_GSO_TCPV4
      : VIRTIO_NET_HDR_GSO_TCPV6;
    headerView.setUint16(virtio_net_hdr.hdr_len, payload - ip, LITTLE_ENDIAN);
    headerView.setUint16(virtio_net_hdr.gso_size, packet.segmentBytes, LITTLE_ENDIAN);
    headerView.setUint16(virtio_net_hdr.csum_start, transport - ip, LITTLE_ENDIAN);
    headerView.setUint16(virtio_net_hdr.csum_offset, checksumOffset, LITTLE_ENDIAN);
    this.#writer.write(header, packet.pieces, packet.pieceCount, packet.packets);
  }

  #writePlain(ip: number, length: number): void {
    this.#last = undefined;
    this.#plainPieces[0] = ip;
    this.#plainPieces[1] = length;
    this.#writer.write(this.#plainHeader, this.#plainPieces, 1, 1);
  }
}

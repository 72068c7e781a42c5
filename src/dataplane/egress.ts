/** From the TUN device to peers. @module */
import { iovec } from "../../ffi/libc/structs.ts";
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../../ffi/tun/constants.ts";
import { addressOf, Errno, type PacketIo } from "../../ffi/tun/packet_io.ts";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { type ForwardingReader, SLOT } from "./forwarding_reader.ts";
import { type IcmpProblem, MAX_ICMP_BYTES } from "./icmp.ts";
import type { IcmpSender } from "./icmp_sender.ts";
import { IPV4, IPV6, MAX_PACKET_BYTES, PacketMemory, PROTOCOL } from "./packet.ts";
import {
  finishChecksum,
  type LargePacket,
  MAX_HEADER_BYTES,
  segment,
  type SegmentSink,
} from "./segment.ts";
import { SendBatch, type SendBatchOptions, setAddress, setSize } from "./send_batch.ts";
import { CONTROL, COUNTER } from "./shared_state.ts";

/** Reads and bytes per batch: enough to amortise system calls, few enough to stay in the cache. */
const MAX_READS = 64;
const PACKET_AREA_BYTES = 384 * 1024;
/** The largest read: a header and a packet, which must be aligned. */
const READ_BYTES = virtio_net_hdr.size + MAX_PACKET_BYTES;
/** Room for rewritten headers. */
const HEADER_AREA_BYTES = 1024 * MAX_HEADER_BYTES;

export interface EgressOptions {
  readonly io: Pick<PacketIo, "readv"> & SendBatchOptions["io"];
  readonly reader: ForwardingReader;
  readonly counters: Float64Array;
  readonly control: Int32Array;
  readonly icmp: IcmpSender;
  readonly eventfd: number;
  readonly onNotice: (text: string) => void;
}

/** The result of a round: nothing there, perhaps more to come, all taken, device gone. */
export type PumpResult = "idle" | "more" | "drained" | "gone";

/** Reads the TUN device and sends to peers. */
export class Egress implements SegmentSink {
  readonly #options: EgressOptions;
  readonly #memory = new PacketMemory(PACKET_AREA_BYTES + HEADER_AREA_BYTES + MAX_ICMP_BYTES);
  readonly #address: number;
  readonly #readVector = new Uint8Array(iovec.size);
  readonly #readVectorView = new DataView(this.#readVector.buffer);
  readonly #batch4: SendBatch;
  readonly #batch6: SendBatch;
  #nextHeader = PACKET_AREA_BYTES;
  /** Reused for each large packet. */
  readonly #large: LargePacket = { offset: 0, length: 0, transport: 0, segmentBytes: 0 };
  /** The peer of the current packet. */
  #slot = -1;

  constructor(options: EgressOptions) {
    this.#options = options;
    this.#address = addressOf(this.#memory.bytes);
    setSize(this.#readVectorView, iovec.iov_len, READ_BYTES);
    const memoryAddress = this.#address;
    this.#batch4 = new SendBatch({ ...options, family: 4, memoryAddress });
    this.#batch6 = new SendBatch({ ...options, family: 6, memoryAddress });
  }

  /** The sockets to send through; -1 for none. See {@linkcode SendBatch.setSocket}. */
  setSockets(ipv4: number, ipv6: number, sendsRuns: boolean): void {
    this.#batch4.setSocket(ipv4, sendsRuns);
    this.#batch6.setSocket(ipv6, sendsRuns);
  }

  /** Reads what the device has, up to a batch, and sends it. */
  pump(tun: number): PumpResult {
    const { io, counters } = this.#options;
    let at = 0;
    let reads = 0;
    let left: PumpResult = "more";
    while (reads < MAX_READS) {
      // The packet itself begins at a multiple of 4.
      at = ((at + virtio_net_hdr.size + 3) & ~3) - virtio_net_hdr.size;
      if (at + READ_BYTES > PACKET_AREA_BYTES) break;
      setAddress(this.#readVectorView, iovec.iov_base, this.#address + at);
      const length = io.readv(tun, this.#readVector, 1);
      if (length < 0) {
        const errno = io.errno();
        if (errno === Errno.EINTR) continue;
        if (errno === Errno.EAGAIN || errno === Errno.EBADFD) {
          left = errno === Errno.EBADFD ? "gone" : reads > 0 ? "drained" : "idle";
          break;
        }
        // A packet that the kernel failed to copy (tun_put_user); those behind it are sound.
        counters[COUNTER.dropTunError]!++;
        reads++;
        continue;
      }
      reads++;
      counters[COUNTER.tunReads]!++;
      this.#forward(at, length);
      at += length;
    }
    if (reads > 0) {
      this.#batch4.flush();
      this.#batch6.flush();
      this.#nextHeader = PACKET_AREA_BYTES;
    }
    return left;
  }

  headerSpace(length: number): number {
    const batch = this.#batch();
    batch.reserve();
    if (this.#nextHeader + length > PACKET_AREA_BYTES + HEADER_AREA_BYTES) {
      this.#batch4.flush();
      this.#batch6.flush();
      this.#nextHeader = PACKET_AREA_BYTES;
    }
    const header = this.#nextHeader;
    this.#nextHeader += (length + 3) & ~3;
    return header;
  }

  segment(header: number, headerLength: number, payload: number, payloadLength: number): void {
    this.#batch().add(this.#slot, header, headerLength, payload, payloadLength);
  }

  #batch(): SendBatch {
    return this.#options.reader.words[this.#slot + SLOT.PEER_FAMILY] === 4
      ? this.#batch4
      : this.#batch6;
  }

  /** Handles one read: a `virtio_net_hdr` at `at` and a packet. */
  #forward(at: number, readBytes: number): void {
    const { reader, counters, control } = this.#options;
    const { bytes, view } = this.#memory;
    const ip = at + virtio_net_hdr.size;
    let length = readBytes - virtio_net_hdr.size;
    const ipv4 = bytes[ip]! >> 4 === 4;
    const headerBytes = this.#memory.headerBytes(ip, length);
    if (headerBytes === 0) {
      counters[COUNTER.dropMalformed]!++;
      return;
    }
    const gso = bytes[at + virtio_net_hdr.gso_type]! & ~VIRTIO_NET_HDR_GSO_ECN;
    if (gso === VIRTIO_NET_HDR_GSO_NONE) {
      // The kernel's packets are as long as their header says; a raw socket's may not be.
      const stated = this.#memory.statedLength(ip, ipv4);
      if (stated < headerBytes || stated > length) {
        counters[COUNTER.dropMalformed]!++;
        return;
      }
      length = stated;
    }
    const to = ip + (ipv4 ? IPV4.DESTINATION : IPV6.DESTINATION);
    const slot = reader.lookup(view, to, ipv4);
    if (slot < 0 && bytes[to]! >= (ipv4 ? 224 : 0xff)) {
      // Multicast, which every link gets unasked (RFC 4861), has no peer and expects no reply.
      counters[COUNTER.dropMulticast]!++;
      return;
    }
    if (slot < 0) {
      this.#refuse(ip, length, "no-peer", COUNTER.dropNoPeer);
      return;
    }
    if (bytes[ip + (ipv4 ? IPV4.TTL : IPV6.HOP_LIMIT)]! <= 1) {
      this.#refuse(ip, length, "time-exceeded", COUNTER.dropTtl);
      return;
    }
    this.#slot = slot;
    const mtu = control[CONTROL.MTU]!;
    const needsChecksum = (bytes[at + virtio_net_hdr.flags]! & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0;
    const start = view.getUint16(at + virtio_net_hdr.csum_start, LITTLE_ENDIAN);

    if (gso === VIRTIO_NET_HDR_GSO_NONE) {
      const mayNotFragment = !ipv4 ||
        (view.getUint16(ip + IPV4.FRAGMENT) & IPV4.DONT_FRAGMENT) !== 0;
      if (length > mtu && mayNotFragment) {
        this.#refuse(ip, length, "too-long", COUNTER.dropTooLong);
        return;
      }
      this.#memory.decrementTtl(ip, ipv4);
      if (needsChecksum) {
        const place = view.getUint16(at + virtio_net_hdr.csum_offset, LITTLE_ENDIAN);
        if (!finishChecksum(this.#memory, ip, length, start, place)) {
          counters[COUNTER.dropMalformed]!++;
          return;
        }
      }
      const batch = this.#batch();
      batch.reserve();
      batch.add(slot, ip, length, 0, 0);
      return;
    }

    const large = this.#large;
    large.offset = ip;
    large.length = length;
    // hdr_len is a hint and may be wrong (Linux, Documentation/networking/tuntap.rst and
    // virtio-v1.2 5.1.6.2); the checksum needs the start of the transport header.
    large.transport = ip + start;
    large.segmentBytes = view.getUint16(at + virtio_net_hdr.gso_size, LITTLE_ENDIAN);
    if (!needsChecksum || start < headerBytes) {
      counters[COUNTER.dropMalformed]!++;
      return;
    }
    const tcp = gso === (ipv4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6);
    const segmentHeader = tcp ? (bytes[large.transport + 12]! >> 4) * 4 : 8;
    if (start + segmentHeader + large.segmentBytes > mtu && mtu > 0) {
      this.#refuse(ip, length, "too-long", COUNTER.dropTooLong);
      return;
    }
    this.#memory.decrementTtl(ip, ipv4);
    const done = tcp
      ? segment(this.#memory, PROTOCOL.TCP, large, this)
      : gso === VIRTIO_NET_HDR_GSO_UDP_L4 && segment(this.#memory, PROTOCOL.UDP, large, this);
    if (!done) counters[COUNTER.dropMalformed]!++;
  }

  #refuse(ip: number, length: number, problem: IcmpProblem, counter: number): void {
    const { icmp, counters } = this.#options;
    counters[counter]!++;
    icmp.report(this.#memory, ip, length, PACKET_AREA_BYTES + HEADER_AREA_BYTES, problem);
  }
}

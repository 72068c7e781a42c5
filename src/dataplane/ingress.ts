/** From peers to the TUN device. @module */
import {
  cmsghdr,
  iovec,
  mmsghdr,
  msghdr,
  sockaddr_in,
  sockaddr_in6,
} from "../../ffi/libc/structs.ts";
import { MSG_DONTWAIT, MSG_TRUNC } from "../../ffi/libc/constants.ts";
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { SOL_UDP, UDP_GRO } from "../../ffi/tun/constants.ts";
import { addressOf, Errno, type PacketIo } from "../../ffi/tun/packet_io.ts";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { Coalescer, type PacketWriter } from "./coalesce.ts";
import type { PumpResult } from "./egress.ts";
import { type ForwardingReader, SLOT } from "./forwarding_reader.ts";
import { MAX_ICMP_BYTES } from "./icmp.ts";
import type { IcmpSender } from "./icmp_sender.ts";
import { isKeepalive, KEEPALIVE_INTERVAL_MS } from "./keepalive.ts";
import { IPV4, IPV6, PacketMemory } from "./packet.ts";
import { setAddress, setSize } from "./send_batch.ts";
import { COUNTER } from "./shared_state.ts";

/** Messages per recvmmsg(2): many while they are short, few while they are long runs. */
const MAX_MESSAGES = 64;
const FEW_MESSAGES = 8;
const LONG_BYTES = 8 * 1024;
/** The largest message. Buffers of small ones never touch most of their pages. */
const MESSAGE_BYTES = 64 * 1024;
const NAME_BYTES = 32;
/** Space for a control message with an int (CMSG_SPACE). */
const CONTROL_BYTES = cmsghdr.size + 8;
/** Pieces per written packet, besides the header. */
const MAX_PIECES = 128;

export interface IngressOptions {
  readonly io: PacketIo;
  readonly reader: ForwardingReader;
  readonly counters: Float64Array;
  readonly icmp: IcmpSender;
  readonly offloads: { readonly tcp: boolean; readonly udp: boolean };
  readonly allowAnySource: boolean;
  readonly natTraversal: boolean;
  /** A clock in seconds. @default {since 1970, without its steps} */
  readonly nowSeconds?: () => number;
}

/**
 * How long the port in use must have been silent before another port is accepted for a peer.
 * Nothing authenticates datagrams: if the latest always won, a single forged one would divert a
 * peer's traffic. Two keepalives may be lost before that.
 */
const PORT_SILENCE_SECONDS = Math.ceil((2 * KEEPALIVE_INTERVAL_MS) / 1_000) + 5;

/** Receives from peers and writes to the TUN device. */
export class Ingress implements PacketWriter {
  readonly #options: IngressOptions;
  readonly #memory = new PacketMemory(MAX_MESSAGES * MESSAGE_BYTES + MAX_ICMP_BYTES);
  readonly #address: number;
  readonly #coalescer: Coalescer;
  readonly #messages = new Uint8Array(MAX_MESSAGES * mmsghdr.size);
  readonly #messageView = new DataView(this.#messages.buffer);
  readonly #names = new Uint8Array(MAX_MESSAGES * NAME_BYTES);
  readonly #nameView = new DataView(this.#names.buffer);
  readonly #controls = new Uint8Array(MAX_MESSAGES * CONTROL_BYTES);
  readonly #controlView = new DataView(this.#controls.buffer);
  readonly #vectors = new Uint8Array(MAX_MESSAGES * iovec.size);
  readonly #pieces = new Uint8Array((1 + MAX_PIECES) * iovec.size);
  readonly #pieceView = new DataView(this.#pieces.buffer);
  readonly #header = new Uint8Array(virtio_net_hdr.size);
  #batchSize = MAX_MESSAGES;
  #tun = -1;
  #gone = false;
  #nowSeconds = 0;
  /** The sender of the current message. */
  #senderFamily = 4;
  #senderPort = 0;
  readonly #sender = new Int32Array(4);

  constructor(options: IngressOptions) {
    this.#options = options;
    this.#address = addressOf(this.#memory.bytes);
    this.#coalescer = new Coalescer(this.#memory, this, options.offloads);
    const names = addressOf(this.#names);
    const controls = addressOf(this.#controls);
    const vectors = addressOf(this.#vectors);
    const vectorView = new DataView(this.#vectors.buffer);
    for (let i = 0; i < MAX_MESSAGES; i++) {
      const at = i * mmsghdr.size;
      setAddress(vectorView, i * iovec.size + iovec.iov_base, this.#address + i * MESSAGE_BYTES);
      setSize(vectorView, i * iovec.size + iovec.iov_len, MESSAGE_BYTES);
      setAddress(this.#messageView, at + msghdr.msg_name, names + i * NAME_BYTES);
      setAddress(this.#messageView, at + msghdr.msg_iov, vectors + i * iovec.size);
      setSize(this.#messageView, at + msghdr.msg_iovlen, 1);
      setAddress(this.#messageView, at + msghdr.msg_control, controls + i * CONTROL_BYTES);
      this.#resetMessage(i);
    }
    setAddress(this.#pieceView, iovec.iov_base, addressOf(this.#header));
    setSize(this.#pieceView, iovec.iov_len, virtio_net_hdr.size);
  }

  /** The TUN queue to write to; -1 to drop. */
  set device(tun: number) {
    this.#tun = tun;
    this.#gone = false;
  }

  /** Whether a write found the device gone. */
  get deviceGone(): boolean {
    return this.#gone;
  }

  /** Receives up to a batch from a socket and writes it to the device. */
  pump(socket: number): PumpResult {
    const { io, counters, natTraversal, nowSeconds = clockSeconds } = this.#options;
    const count = io.recvmmsg(socket, this.#messages, this.#batchSize, MSG_DONTWAIT, null);
    // Errors of a UDP socket concern datagrams sent earlier; receiving goes on.
    if (count <= 0) return "idle";
    counters[COUNTER.receiveCalls]!++;
    if (natTraversal) this.#nowSeconds = nowSeconds();
    let total = 0;
    for (let i = 0; i < count; i++) {
      total += this.#takeMessage(i);
      this.#resetMessage(i);
    }
    this.#coalescer.flush();
    const drained = count < this.#batchSize;
    this.#batchSize = total > count * LONG_BYTES ? FEW_MESSAGES : MAX_MESSAGES;
    return drained ? "drained" : "more";
  }

  write(header: Uint8Array, pieces: Int32Array, count: number, packets: number): void {
    const { io, counters } = this.#options;
    if (this.#tun < 0) {
      counters[COUNTER.dropTunError]! += packets;
      return;
    }
    for (let i = 0; i < virtio_net_hdr.size; i++) this.#header[i] = header[i]!;
    let length = 0;
    for (let i = 0; i < count; i++) {
      const at = (1 + i) * iovec.size;
      setAddress(this.#pieceView, at + iovec.iov_base, this.#address + pieces[i * 2]!);
      setSize(this.#pieceView, at + iovec.iov_len, pieces[i * 2 + 1]!);
      length += pieces[i * 2 + 1]!;
    }
    counters[COUNTER.tunWrites]!++;
    if (io.writev(this.#tun, this.#pieces, 1 + count) >= 0) {
      counters[COUNTER.receivedPackets]! += packets;
      counters[COUNTER.receivedBytes]! += length;
      return;
    }
    const errno = io.errno();
    const full = errno === Errno.EAGAIN || errno === Errno.ENOBUFS || errno === Errno.ENOMEM;
    counters[full ? COUNTER.dropTunFull : COUNTER.dropTunError]! += packets;
    if (errno === Errno.EBADFD) this.#gone = true;
  }

  /** Handles message `i`, a datagram or a run of them; returns its length. */
  #takeMessage(i: number): number {
    const { counters } = this.#options;
    const at = i * mmsghdr.size;
    const length = this.#messageView.getUint32(at + mmsghdr.msg_len, LITTLE_ENDIAN);
    const flags = this.#messageView.getInt32(at + msghdr.msg_flags, LITTLE_ENDIAN);
    if ((flags & MSG_TRUNC) !== 0) {
      counters[COUNTER.dropTooLong]!++;
      return length;
    }
    this.#readSender(i);
    const segmentBytes = this.#segmentBytes(i, length);
    if (segmentBytes < length) counters[COUNTER.receivedDatagramRuns]!++;
    const start = i * MESSAGE_BYTES;
    const end = start + length;
    if (length === 0) counters[COUNTER.dropMalformed]!++;
    this.#coalescer.forgetLast();
    for (let packet = start; packet < end; packet += segmentBytes) {
      const packetBytes = Math.min(segmentBytes, end - packet);
      // A run is mostly one flow: what can be joined needs no second check of its sender.
      if (!this.#coalescer.addNext(packet, packetBytes, 1)) this.#deliver(packet, packetBytes);
    }
    return length;
  }

  #readSender(i: number): void {
    const view = this.#nameView;
    const at = i * NAME_BYTES;
    const nameBytes = this.#messageView.getUint32(
      i * mmsghdr.size + msghdr.msg_namelen,
      LITTLE_ENDIAN,
    );
    const sender = this.#sender;
    this.#senderPort = view.getUint16(at + sockaddr_in.sin_port);
    sender.fill(0);
    if (nameBytes === sockaddr_in.size) {
      this.#senderFamily = 4;
      sender[0] = view.getInt32(at + sockaddr_in.sin_addr);
    } else {
      this.#senderFamily = 6;
      for (let word = 0; word < 4; word++) {
        sender[word] = view.getInt32(at + sockaddr_in6.sin6_addr + 4 * word);
      }
    }
  }

  /** The length of each datagram in message `i`; its own if it is a single one. */
  #segmentBytes(i: number, length: number): number {
    const controlBytes = this.#messageView.getUint32(
      i * mmsghdr.size + msghdr.msg_controllen,
      LITTLE_ENDIAN,
    );
    const control = i * CONTROL_BYTES;
    if (
      controlBytes < cmsghdr.size + 4 ||
      this.#controlView.getInt32(control + cmsghdr.cmsg_level, LITTLE_ENDIAN) !== SOL_UDP ||
      this.#controlView.getInt32(control + cmsghdr.cmsg_type, LITTLE_ENDIAN) !== UDP_GRO
    ) return length;
    const size = this.#controlView.getInt32(control + cmsghdr.size, LITTLE_ENDIAN);
    return size > 0 ? size : length;
  }

  /** Resets the lengths of message `i`, which the kernel has overwritten. */
  #resetMessage(i: number): void {
    const at = i * mmsghdr.size;
    const view = this.#messageView;
    view.setUint32(at + msghdr.msg_namelen, sockaddr_in6.size, LITTLE_ENDIAN);
    setSize(view, at + msghdr.msg_controllen, CONTROL_BYTES);
  }

  /** Handles one datagram: an IP packet, perhaps with padding behind it. */
  #deliver(ip: number, datagramBytes: number): void {
    const { counters, icmp, natTraversal } = this.#options;
    const { bytes } = this.#memory;
    const ipv4 = bytes[ip]! >> 4 === 4;
    const headerBytes = this.#memory.headerBytes(ip, datagramBytes);
    const length = this.#memory.statedLength(ip, ipv4);
    if (headerBytes === 0 || length < headerBytes || length > datagramBytes) {
      counters[COUNTER.dropMalformed]!++;
      return;
    }
    if (!this.#isWelcome(ip, ipv4)) return;
    if (natTraversal && isKeepalive(this.#memory, ip, length)) {
      counters[COUNTER.keepalivesReceived]!++;
      return;
    }
    if (bytes[ip + (ipv4 ? IPV4.TTL : IPV6.HOP_LIMIT)]! <= 1) {
      counters[COUNTER.dropTtl]!++;
      icmp.report(this.#memory, ip, length, MAX_MESSAGES * MESSAGE_BYTES, "time-exceeded");
      return;
    }
    this.#memory.decrementTtl(ip, ipv4);
    this.#coalescer.add(ip, length);
  }

  /** Notes that the peer of `slot`, or a forger, has sent the current message. */
  #heard(slot: number): void {
    const { reader, counters } = this.#options;
    const { words } = reader;
    const now = this.#nowSeconds;
    if (reader.portOf(slot) !== this.#senderPort) {
      const heardAt = words[slot + SLOT.HEARD_AT]!;
      if (heardAt !== 0 && now - heardAt <= PORT_SILENCE_SECONDS) {
        counters[COUNTER.portsNotLearnt]!++;
        return;
      }
      Atomics.store(words, slot + SLOT.LEARNT_PORT, this.#senderPort);
      counters[COUNTER.portsLearnt]!++;
    }
    if (words[slot + SLOT.HEARD_AT] !== now) Atomics.store(words, slot + SLOT.HEARD_AT, now);
  }

  /** Whether the packet's source is in the subnet of the peer that sent it. */
  #isWelcome(ip: number, ipv4: boolean): boolean {
    const { reader, counters, allowAnySource, natTraversal } = this.#options;
    if (allowAnySource && !natTraversal) return true;
    const { view } = this.#memory;
    const { words } = reader;
    const from = ip + (ipv4 ? IPV4.SOURCE : IPV6.SOURCE);
    const slot = reader.lookup(view, from, ipv4);
    const sender = this.#sender;
    const address = slot + SLOT.PEER_ADDRESS;
    const known = slot >= 0 && words[slot + SLOT.PEER_FAMILY] === this.#senderFamily &&
      words[address] === sender[0] && words[address + 1] === sender[1] &&
      words[address + 2] === sender[2] && words[address + 3] === sender[3];
    if (known) {
      if (natTraversal) this.#heard(slot);
      return true;
    }
    if (allowAnySource) return true;
    counters[slot < 0 ? COUNTER.dropForeignSource : COUNTER.dropUnknownSender]!++;
    return false;
  }
}

function clockSeconds(): number {
  return Math.floor((performance.timeOrigin + performance.now()) / 1_000) | 0;
}

/** Sending to peers in few system calls. @module */
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { SOL_UDP, UDP_SEGMENT } from "../../ffi/tun/constants.ts";
import { AF_INET, AF_INET6, MSG_DONTWAIT, POLLIN, POLLOUT } from "../../ffi/libc/constants.ts";
import {
  cmsghdr,
  iovec,
  mmsghdr,
  msghdr,
  pollfd,
  sockaddr_in,
  sockaddr_in6,
} from "../../ffi/libc/structs.ts";
import { addressOf, Errno, HIGH_HALF, LOW_HALF, type PacketIo } from "../../ffi/tun/packet_io.ts";
import { type ForwardingReader, SLOT } from "./forwarding_reader.ts";
import { COUNTER } from "./shared_state.ts";

/** Messages per sendmmsg(2). */
const MAX_MESSAGES = 64;
/** Datagrams per message: UDP_MAX_SEGMENTS of older kernels. */
const MAX_DATAGRAMS = 64;
/** The largest UDP payload over IPv4, which limits a whole run. */
const MAX_RUN_BYTES = 65_507;
/** Datagrams per batch. */
const BATCH_DATAGRAMS = 1024;
/** Space for a control message with one 16-bit value (CMSG_SPACE). */
const CONTROL_BYTES = cmsghdr.size + 8;
const NAME_BYTES = 32;
/** How long to wait for a full socket before dropping datagrams. */
const FULL_WAIT_MS = 2;

export interface SendBatchOptions {
  readonly io: Pick<PacketIo, "sendmmsg" | "poll" | "errno">;
  readonly reader: ForwardingReader;
  readonly counters: Float64Array;
  readonly family: 4 | 6;
  /** Address of the memory that packets lie in. */
  readonly memoryAddress: number;
  /** Ends waiting for a full socket. */
  readonly eventfd: number;
  readonly onNotice: (text: string) => void;
}

/**
 * Collects datagrams for peers and sends them together. Consecutive datagrams to one peer that have
 * the same length (the last may be shorter) form one message, which the kernel splits late or not
 * at all (UDP_SEGMENT, Linux 4.18). A datagram has up to two pieces, so that a payload with a new
 * header need not be moved.
 */
export class SendBatch {
  readonly #options: SendBatchOptions;
  readonly #messages = new Uint8Array(MAX_MESSAGES * mmsghdr.size);
  readonly #messageView = new DataView(this.#messages.buffer);
  readonly #names = new Uint8Array(MAX_MESSAGES * NAME_BYTES);
  readonly #nameView = new DataView(this.#names.buffer);
  readonly #controls = new Uint8Array(MAX_MESSAGES * CONTROL_BYTES);
  readonly #controlView = new DataView(this.#controls.buffer);
  readonly #pieces = new Uint8Array(BATCH_DATAGRAMS * 2 * iovec.size);
  readonly #pieceView = new DataView(this.#pieces.buffer);
  readonly #piecesAddress: number;
  readonly #poll = new Uint8Array(2 * pollfd.size);
  readonly #pollView = new DataView(this.#poll.buffer);
  /** Messages for the datagrams of a run that the kernel refused. */
  readonly #singles = new Uint8Array(MAX_DATAGRAMS * mmsghdr.size);
  readonly #singleView = new DataView(this.#singles.buffer);
  /** First piece of each datagram, and datagrams and bytes of each message. */
  readonly #firstPiece = new Int32Array(BATCH_DATAGRAMS);
  readonly #firstDatagram = new Int32Array(MAX_MESSAGES + 1);
  readonly #bytes = new Int32Array(MAX_MESSAGES);
  #fd = -1;
  #messageCount = 0;
  #datagramCount = 0;
  #pieceCount = 0;
  /** The last message: its peer, its datagrams' length, whether more may join. */
  #slot = -1;
  #segmentBytes = 0;
  #open = false;
  #runs = true;

  constructor(options: SendBatchOptions) {
    this.#options = options;
    this.#piecesAddress = addressOf(this.#pieces);
    const namesAddress = addressOf(this.#names);
    const controlsAddress = addressOf(this.#controls);
    const family = options.family === 4 ? AF_INET : AF_INET6;
    const nameBytes = options.family === 4 ? sockaddr_in.size : sockaddr_in6.size;
    for (let i = 0; i < MAX_MESSAGES; i++) {
      const at = i * mmsghdr.size;
      setAddress(this.#messageView, at + msghdr.msg_name, namesAddress + i * NAME_BYTES);
      this.#messageView.setUint32(at + msghdr.msg_namelen, nameBytes, LITTLE_ENDIAN);
      setAddress(this.#messageView, at + msghdr.msg_control, controlsAddress + i * CONTROL_BYTES);
      const control = i * CONTROL_BYTES;
      setSize(this.#controlView, control + cmsghdr.cmsg_len, cmsghdr.size + 2);
      this.#controlView.setInt32(control + cmsghdr.cmsg_level, SOL_UDP, LITTLE_ENDIAN);
      this.#controlView.setInt32(control + cmsghdr.cmsg_type, UDP_SEGMENT, LITTLE_ENDIAN);
      this.#nameView.setUint16(i * NAME_BYTES + sockaddr_in.sin_family, family, LITTLE_ENDIAN);
    }
  }

  /**
   * Sends through `fd` from now on; -1 to drop. `sendsRuns`: whether the socket takes runs, as long
   * as the outgoing link does.
   */
  setSocket(fd: number, sendsRuns: boolean): void {
    this.#fd = fd;
    this.#runs = sendsRuns;
  }

  /** Makes room for one more datagram, if need be by sending. */
  reserve(): void {
    if (this.#messageCount === MAX_MESSAGES || this.#datagramCount === BATCH_DATAGRAMS) {
      this.flush();
    }
  }

  /**
   * Adds a datagram to the peer of `slot`, after {@linkcode reserve}. The pieces lie in the
   * packets' memory; the second may be empty.
   */
  add(slot: number, first: number, firstBytes: number, second: number, secondBytes: number): void {
    const length = firstBytes + secondBytes;
    let message = this.#messageCount - 1;
    const joins = this.#open && slot === this.#slot && length <= this.#segmentBytes &&
      this.#bytes[message]! + length <= MAX_RUN_BYTES &&
      this.#datagramCount - this.#firstDatagram[message]! < MAX_DATAGRAMS;
    if (!joins) {
      message = this.#messageCount++;
      this.#firstDatagram[message] = this.#datagramCount;
      this.#bytes[message] = 0;
      this.#slot = slot;
      this.#segmentBytes = length;
      this.#open = this.#runs;
      this.#setName(message, slot);
    } else if (length < this.#segmentBytes) {
      this.#open = false;
    }
    this.#firstPiece[this.#datagramCount++] = this.#pieceCount;
    this.#setPiece(first, firstBytes);
    if (secondBytes > 0) this.#setPiece(second, secondBytes);
    this.#bytes[message]! += length;
    this.#firstDatagram[this.#messageCount] = this.#datagramCount;
    if (!joins) {
      this.#controlView.setUint16(message * CONTROL_BYTES + cmsghdr.size, length, LITTLE_ENDIAN);
    }
  }

  /** Sends everything; drops and counts what fails. */
  flush(): void {
    const { counters } = this.#options;
    const count = this.#messageCount;
    if (count > 0) {
      for (let i = 0; i < count; i++) {
        const [first, end] = [this.#firstDatagram[i]!, this.#firstDatagram[i + 1]!];
        this.#seal(this.#messageView, i * mmsghdr.size, first, end);
      }
      if (this.#fd < 0) counters[COUNTER.dropSendError]! += this.#datagramCount;
      else this.#sendMessages(count);
    }
    this.#messageCount = 0;
    this.#datagramCount = 0;
    this.#pieceCount = 0;
    this.#open = false;
    this.#slot = -1;
  }

  /** Has the message at `at` consist of the datagrams from `first` up to `end`. */
  #seal(view: DataView, at: number, first: number, end: number): void {
    const piece = this.#firstPiece[first]!;
    const endPiece = end === this.#datagramCount ? this.#pieceCount : this.#firstPiece[end]!;
    setAddress(view, at + msghdr.msg_iov, this.#piecesAddress + piece * iovec.size);
    setSize(view, at + msghdr.msg_iovlen, endPiece - piece);
    setSize(view, at + msghdr.msg_controllen, end - first > 1 ? CONTROL_BYTES : 0);
  }

  #sendMessages(count: number): void {
    const { io, counters } = this.#options;
    let next = 0;
    let waited = false;
    while (next < count) {
      // A view past the first messages is needed only after a partial send.
      const from = next === 0 ? this.#messages : this.#messages.subarray(next * mmsghdr.size);
      counters[COUNTER.sendCalls]!++;
      const sent = io.sendmmsg(this.#fd, from, count - next, MSG_DONTWAIT);
      if (sent > 0) {
        for (let i = next; i < next + sent; i++) this.#countSent(i);
        next += sent;
        continue;
      }
      const errno = io.errno();
      if (errno === Errno.EINTR) continue;
      if (errno === Errno.EAGAIN || errno === Errno.ENOBUFS) {
        if (!waited) {
          waited = true;
          this.#waitForRoom();
          continue;
        }
        // The rest would find the socket just as full.
        counters[COUNTER.dropSocketFull]! += this.#datagramCount - this.#firstDatagram[next]!;
        return;
      }
      const datagrams = this.#firstDatagram[next + 1]! - this.#firstDatagram[next]!;
      const refusedRun = datagrams > 1 &&
        (errno === Errno.EMSGSIZE || errno === Errno.EINVAL || errno === Errno.EIO);
      if (refusedRun) {
        if (errno === Errno.EIO) this.#giveUpRuns();
        this.#sendSingly(next);
      } else {
        counters[reasonOf(errno)]! += datagrams;
      }
      next++;
    }
  }

  #countSent(message: number): void {
    const { counters } = this.#options;
    const datagrams = this.#firstDatagram[message + 1]! - this.#firstDatagram[message]!;
    counters[COUNTER.sentPackets]! += datagrams;
    counters[COUNTER.sentBytes]! += this.#bytes[message]!;
    if (datagrams > 1) counters[COUNTER.sentDatagramRuns]!++;
  }

  /** The kernel's error where the outgoing link cannot compute checksums is EIO (udp_send_skb). */
  #giveUpRuns(): void {
    if (!this.#runs) return;
    this.#runs = false;
    this.#open = false;
    this.#options.onNotice(
      "The external interface cannot send runs of datagrams; sending them one by one, which is " +
        "slower",
    );
  }

  /** Sends a refused run one by one, as when the path MTU has shrunk. */
  #sendSingly(message: number): void {
    const { io, counters } = this.#options;
    const first = this.#firstDatagram[message]!;
    const end = this.#firstDatagram[message + 1]!;
    const source = message * mmsghdr.size;
    for (let datagram = first; datagram < end; datagram++) {
      const at = (datagram - first) * mmsghdr.size;
      this.#singles.set(this.#messages.subarray(source, source + mmsghdr.size), at);
      this.#seal(this.#singleView, at, datagram, datagram + 1);
    }
    for (let next = first; next < end;) {
      const from = this.#singles.subarray((next - first) * mmsghdr.size);
      counters[COUNTER.sendCalls]!++;
      const sent = io.sendmmsg(this.#fd, from, end - next, MSG_DONTWAIT);
      if (sent > 0) {
        for (let i = next - first; i < next - first + sent; i++) {
          const lengthAt = i * mmsghdr.size + mmsghdr.msg_len;
          counters[COUNTER.sentBytes]! += this.#singleView.getUint32(lengthAt, LITTLE_ENDIAN);
        }
        counters[COUNTER.sentPackets]! += sent;
        next += sent;
        continue;
      }
      const errno = io.errno();
      if (errno === Errno.EINTR) continue;
      counters[reasonOf(errno)]!++;
      next++;
    }
  }

  #waitForRoom(): void {
    const { io, eventfd } = this.#options;
    const view = this.#pollView;
    view.setInt32(pollfd.fd, this.#fd, LITTLE_ENDIAN);
    view.setInt16(pollfd.events, POLLOUT, LITTLE_ENDIAN);
    view.setInt32(pollfd.size + pollfd.fd, eventfd, LITTLE_ENDIAN);
    view.setInt16(pollfd.size + pollfd.events, POLLIN, LITTLE_ENDIAN);
    io.poll(this.#poll, 2n, FULL_WAIT_MS);
  }

  #setName(message: number, slot: number): void {
    const { reader, family } = this.#options;
    const { words } = reader;
    const view = this.#nameView;
    const name = message * NAME_BYTES;
    view.setUint16(name + sockaddr_in.sin_port, reader.portOf(slot));
    if (family === 4) {
      view.setInt32(name + sockaddr_in.sin_addr, words[slot + SLOT.PEER_ADDRESS]!);
    } else {
      for (let i = 0; i < 4; i++) {
        view.setInt32(name + sockaddr_in6.sin6_addr + 4 * i, words[slot + SLOT.PEER_ADDRESS + i]!);
      }
    }
  }

  #setPiece(offset: number, length: number): void {
    const at = this.#pieceCount++ * iovec.size;
    setAddress(this.#pieceView, at + iovec.iov_base, this.#options.memoryAddress + offset);
    setSize(this.#pieceView, at + iovec.iov_len, length);
  }
}

/** The counter of datagrams that were not sent for the reason `errno`. */
function reasonOf(errno: number): number {
  if (errno === Errno.EAGAIN || errno === Errno.ENOBUFS) return COUNTER.dropSocketFull;
  return errno === Errno.EMSGSIZE ? COUNTER.dropTooLong : COUNTER.dropSendError;
}

/** Writes a pointer in halves, since a 64-bit write takes a BigInt. */
export function setAddress(view: DataView, at: number, address: number): void {
  view.setUint32(at + LOW_HALF, address >>> 0, LITTLE_ENDIAN);
  view.setUint32(at + HIGH_HALF, Math.floor(address / 0x1_0000_0000), LITTLE_ENDIAN);
}

/** Writes a `size_t` below 2^32. */
export function setSize(view: DataView, at: number, size: number): void {
  view.setUint32(at + LOW_HALF, size, LITTLE_ENDIAN);
  view.setUint32(at + HIGH_HALF, 0, LITTLE_ENDIAN);
}

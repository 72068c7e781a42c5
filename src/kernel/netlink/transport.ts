/**
 * One netlink protocol of one network namespace: requests with their replies, dumps and batches.
 * What messages say is left to the caller.
 *
 * The kernel works through a request while it is sent, which is done on another thread; after that
 * the replies are there.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../../ffi/byte_order.ts";
import * as sys from "../../../ffi/libc/constants.ts";
import { Libc } from "../../../ffi/libc/open.ts";
import * as nl from "../../../ffi/libnl/constants.ts";
import {
  DumpInterruptedError,
  NetlinkError,
  ReceiveOverflowError,
} from "../../../ffi/libnl/errors.ts";
import { type Message, messagesIn, MessageWriter } from "../../../ffi/libnl/messages.ts";
import { type Libnl, type NetlinkSocket, openLibnl } from "../../../ffi/libnl/open.ts";
import { inSlices } from "../../util/slices.ts";
import { Backoff, delay } from "../../util/time.ts";
import { Turns } from "../../util/turns.ts";
import { type Datagram, type Decode, decodeInSteps, decodeLazily, readOutcome } from "./replies.ts";

/** So few quick requests take the kernel less time than another thread takes to begin. */
const QUICK_REQUESTS = 8;

/**
 * Requests of one datagram. Only the last asks for an acknowledgement (errors come anyway), and
 * all errors of a datagram fit the smallest receive buffer: about 2 KiB each of 208 KiB doubled.
 */
const BATCH_REQUESTS = 128;

/** The kernel replies at once; this only keeps a fault in that from hanging the process. */
const RECEIVE_TIMEOUT_MS = 5_000;

const RECEIVE_BUFFER_BYTES = 1 << 20;

/** Attempts at a dump that changes interrupt: each takes milliseconds, changes come in bursts. */
const DUMP_ATTEMPTS = 10;

/** Reading of a long dump pauses after this time. */
const SLICE_MS = 4;

/** An exchange that has begun is not given up, nor one that is to end the use of the socket. */
const UNENDING = new AbortController();

/** Writes one message. */
export type Encode = (writer: MessageWriter, sequence: number) => void;

/** A request, and what it is about, such as `Cannot add route 10.5.7.0/24`. */
export interface Query {
  readonly operation: string;
  readonly encode: Encode;
}

/** How requests of one kind are written, and named in errors. */
export interface RequestFormat<Request> {
  /** @throws For a request that cannot be written. */
  encode(writer: MessageWriter, request: Request, sequence: number): void;
  describe(request: Request): string;
  /** Whether the kernel is done with the request at once, however many objects there are. */
  isQuick(request: Request): boolean;
}

export interface NetlinkOptions {
  /** File of another network namespace to work in, such as `/run/netns/x`. */
  readonly namespace?: string;
}

/** Requests written for one datagram. */
interface Batch {
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** Places in the list of requests by sequence number. */
  readonly indexes: ReadonlyMap<number, number>;
  /** The sequence number that is acknowledged. */
  readonly last: number;
  readonly first: number;
  readonly end: number;
}

/** The request socket of one protocol and namespace, and its libraries. */
export class NetlinkTransport implements AsyncDisposable {
  readonly libc: Libc;
  readonly libnl: Libnl;
  readonly #protocol: number;
  readonly #options: NetlinkOptions;
  #socket: NetlinkSocket | undefined;
  #sequence = 0;
  readonly #turns = new Turns();
  #disposed = false;

  /**
   * @param protocol NETLINK_*.
   * @throws {LibraryNotFoundError} If libnl is missing, naming its packages.
   */
  static open(protocol: number, options: NetlinkOptions = {}): NetlinkTransport {
    using stack = new DisposableStack();
    const libc = stack.use(Libc.open());
    const libnl = stack.use(openLibnl(libc));
    const transport = new NetlinkTransport(libc, libnl, protocol, options);
    stack.move(); // now its own
    return transport;
  }

  private constructor(libc: Libc, libnl: Libnl, protocol: number, options: NetlinkOptions) {
    this.libc = libc;
    this.libnl = libnl;
    this.#protocol = protocol;
    this.#options = options;
    this.#socket = this.#openRequestSocket();
  }

  /** A further socket of the protocol and namespace; the caller disposes of it. */
  openSocket(): NetlinkSocket {
    const { namespace } = this.#options;
    const open = () => this.libnl.openSocket(this.#protocol);
    return namespace ? this.libc.inNetworkNamespace(namespace, open) : open();
  }

  /** The port id that requests are sent from, and that their notifications carry. */
  get portId(): number {
    return this.#requests.portId;
  }

  #openRequestSocket(): NetlinkSocket {
    const socket = this.openSocket();
    try {
      this.libc.setBuffer(socket.fd, "receive", RECEIVE_BUFFER_BYTES);
      this.libc.setSocketTimeout(socket.fd, sys.SO_RCVTIMEO, RECEIVE_TIMEOUT_MS);
      // Linux 4.12: explanations with errors; 4.3: errors without the request; 4.20: dumps filtered
      // by the kernel. Older kernels do without.
      for (const option of [nl.NETLINK_EXT_ACK, nl.NETLINK_CAP_ACK, nl.NETLINK_GET_STRICT_CHK]) {
        this.libc.trySocketOption(socket.fd, sys.SOL_NETLINK, option, 1, "ENOPROTOOPT");
      }
      return socket;
    } catch (error) {
      socket[Symbol.dispose]();
      throw error;
    }
  }

  get #requests(): NetlinkSocket {
    if (this.#disposed) throw new TypeError("Cannot use netlink: it is closed");
    return this.#socket ??= this.#openRequestSocket();
  }

  /**
   * Sends `bytes` and hands each reply to `visit` until it returns true; one exchange at a time.
   * If the transport fails, the socket is closed: late replies would confuse the next request.
   */
  async #exchange(
    bytes: Uint8Array<ArrayBuffer>,
    visit: (view: DataView<ArrayBuffer>, message: Message) => boolean,
    { quick = false } = {},
  ): Promise<void> {
    using _turn = await this.#turns.take(UNENDING);
    const socket = this.#requests;
    try {
      if (quick) socket.sendNow(bytes);
      else await socket.send(bytes);
      let begin = performance.now();
      for (let done = false; !done;) {
        const view = socket.receive();
        if (!view) {
          throw new Error(
            `Cannot read from netlink: the kernel did not reply within ${RECEIVE_TIMEOUT_MS} ms`,
          );
        }
        for (const message of messagesIn(view)) {
          if (message.type === nl.NLMSG_OVERRUN) {
            throw new ReceiveOverflowError("Cannot receive from netlink: messages were lost");
          }
          done = visit(view, message) || done;
        }
        if (done || performance.now() - begin < SLICE_MS) continue;
        await delay(0, UNENDING);
        begin = performance.now();
      }
    } catch (error) {
      this.#socket = undefined;
      socket[Symbol.dispose]();
      throw error;
    }
  }

  #nextSequence(): number {
    this.#sequence = (this.#sequence + 1) >>> 0 || 1;
    return this.#sequence;
  }

  /** The messages of one dump. @throws {DumpInterruptedError} */
  async #dumpOnce({ operation, encode }: Query): Promise<readonly Datagram[]> {
    const datagrams: Datagram[] = [];
    let received: Datagram | undefined;
    const sequence = this.#nextSequence();
    const writer = new MessageWriter();
    encode(writer, sequence);
    let interrupted = false;
    let errno = 0;
    await this.#exchange(writer.bytes, (view, message) => {
      if (message.sequence !== sequence) return false;
      if ((message.flags & nl.NLM_F_DUMP_INTR) !== 0) interrupted = true;
      if (message.type === nl.NLMSG_DONE || message.type === nl.NLMSG_ERROR) {
        // Both carry an int: 0 or a negative error number.
        const size = message.end - message.start;
        errno = size >= 4 ? -view.getInt32(message.start, LITTLE_ENDIAN) : 0;
        return true;
      }
      if (view !== received) {
        // The socket reuses this memory for the next datagram.
        const end = view.byteOffset + view.byteLength;
        datagrams.push(new DataView(view.buffer.slice(view.byteOffset, end)));
        received = view;
      }
      return false;
    });
    if (errno > 0) throw new NetlinkError(operation, errno);
    if (interrupted) {
      throw new DumpInterruptedError(`${operation}: it changed while it was read`);
    }
    return datagrams;
  }

  /**
   * What `decode` makes of the messages of a dump.
   *
   * @throws {NetlinkError}
   * @throws {DumpInterruptedError} If it was interrupted again and again.
   */
  async dump<T>(query: Query, decode: Decode<T>, options: { signal: AbortSignal }): Promise<T[]> {
    return await inSlices(decodeInSteps(await this.#dumpWhole(query, options), decode), options);
  }

  /** Like {@linkcode NetlinkTransport.dump}; messages are decoded while the result is gone through. */
  async scan<T>(
    query: Query,
    decode: Decode<T>,
    options: { signal: AbortSignal },
  ): Promise<Iterable<T>> {
    return decodeLazily(await this.#dumpWhole(query, options), decode);
  }

  /** The messages of a dump, which is repeated if it was interrupted. */
  async #dumpWhole(
    query: Query,
    { signal }: { signal: AbortSignal },
  ): Promise<readonly Datagram[]> {
    const backoff = new Backoff({ initialMs: 2, maxMs: 100 });
    for (;;) {
      signal.throwIfAborted();
      try {
        return await this.#dumpOnce(query);
      } catch (error) {
        const again = error instanceof DumpInterruptedError ||
          error instanceof ReceiveOverflowError;
        if (!again || backoff.failures + 1 >= DUMP_ATTEMPTS) throw error;
      }
      await backoff.wait({ signal });
    }
  }

  /** What `decode` makes of the one reply to each query, or the kernel's error. */
  async getAll<T>(
    queries: readonly Query[],
    decode: Decode<T>,
    { signal }: { signal: AbortSignal },
  ): Promise<readonly (T | Error)[]> {
    const replies: (T | Error)[] = [];
    for (let first = 0; first < queries.length; first += BATCH_REQUESTS) {
      signal.throwIfAborted();
      replies.push(...await this.#getBatch(queries.slice(first, first + BATCH_REQUESTS), decode));
    }
    return replies;
  }

  async #getBatch<T>(
    queries: readonly Query[],
    decode: Decode<T>,
  ): Promise<readonly (T | Error)[]> {
    const writer = new MessageWriter();
    const waiting = new Map<number, number>();
    queries.forEach(({ encode }, i) => {
      const sequence = this.#nextSequence();
      waiting.set(sequence, i);
      encode(writer, sequence);
    });
    const replies = queries.map(({ operation }): T | Error =>
      new Error(`${operation}: the reply is not understood`)
    );
    await this.#exchange(writer.bytes, (view, message) => {
      const index = waiting.get(message.sequence);
      if (index === undefined) return false;
      if (message.type === nl.NLMSG_ERROR) {
        const { errno, detail } = readOutcome(view, message);
        replies[index] = new NetlinkError(queries[index]!.operation, errno, detail);
      } else {
        replies[index] = decode(view, message) ?? replies[index]!;
      }
      waiting.delete(message.sequence);
      return waiting.size === 0;
    });
    return replies;
  }

  /** {@linkcode NetlinkTransport.getAll} for one query. @throws {NetlinkError} */
  async get<T>(query: Query, decode: Decode<T>, options: { signal: AbortSignal }): Promise<T> {
    const [reply] = await this.getAll([query], decode, options);
    if (reply instanceof Error) throw reply;
    return reply!;
  }

  /**
   * Tries each request in order and returns, at the same place, its error or `undefined`. Throws
   * only if the kernel cannot be talked to, or on abort (between batches).
   */
  async change<Request>(
    requests: readonly Request[],
    format: RequestFormat<Request>,
    { signal }: { signal: AbortSignal },
  ): Promise<readonly (Error | undefined)[]> {
    const errors = requests.map((): Error | undefined => undefined);
    const writers = [new MessageWriter(), new MessageWriter()] as const;
    let batch = this.#encodeBatch(writers[0], requests, format, 0, errors);
    for (let i = 1; batch.first < requests.length; i++) {
      signal.throwIfAborted();
      const sending = this.#sendBatch(batch, requests, format, errors);
      // The next one is written while the kernel works through this one.
      batch = this.#encodeBatch(writers[i % 2]!, requests, format, batch.end, errors);
      await sending;
    }
    return errors;
  }

  /** Writes the next of `requests`, for one datagram; notes which cannot be written. */
  #encodeBatch<Request>(
    writer: MessageWriter,
    requests: readonly Request[],
    format: RequestFormat<Request>,
    first: number,
    errors: (Error | undefined)[],
  ): Batch {
    writer.clear();
    const indexes = new Map<number, number>();
    const end = Math.min(first + BATCH_REQUESTS, requests.length);
    let last = 0;
    for (let i = first; i < end; i++) {
      const sequence = this.#nextSequence();
      try {
        format.encode(writer, requests[i]!, sequence);
        indexes.set(sequence, i);
        last = sequence;
      } catch (error) {
        errors[i] = error instanceof Error ? error : new Error(String(error));
      }
    }
    if (indexes.size > 0) writer.addFlags(nl.NLM_F_ACK);
    return { bytes: writer.bytes, indexes, last, first, end };
  }

  /** Sends what was written as one datagram and notes its requests' errors. */
  async #sendBatch<Request>(
    { bytes, indexes, last }: Batch,
    requests: readonly Request[],
    format: RequestFormat<Request>,
    errors: (Error | undefined)[],
  ): Promise<void> {
    if (indexes.size === 0) return;
    let acknowledged = 0;
    try {
      await this.#exchange(bytes, (view, message) => {
        const index = indexes.get(message.sequence);
        if (message.type !== nl.NLMSG_ERROR || index === undefined) return false;
        acknowledged = message.sequence;
        const { errno, detail } = readOutcome(view, message);
        if (errno !== 0) {
          const operation = `Cannot ${format.describe(requests[index]!)}`;
          errors[index] = new NetlinkError(operation, errno, detail);
        }
        return message.sequence === last;
      }, { quick: indexes.size <= QUICK_REQUESTS && requests.every(format.isQuick) });
    } catch (cause) {
      // The kernel worked through the datagram before it replied; which requests failed is unknown.
      for (const [sequence, index] of indexes) {
        if (errors[index] !== undefined || sequence <= acknowledged) continue;
        const request = format.describe(requests[index]!);
        errors[index] = new Error(`Cannot tell whether this worked: ${request}`, { cause });
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    using _turn = await this.#turns.take(UNENDING); // another thread may be using the socket
    this.#socket?.[Symbol.dispose]();
    this.libnl[Symbol.dispose]();
    this.libc[Symbol.dispose]();
  }
}

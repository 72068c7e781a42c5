/** Netlink sockets and message objects of libnl-3. @module */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { errnoText } from "../libc/errors.ts";
import type { FileDescriptor, Libc } from "../libc/open.ts";
import { openSharedLibrary } from "../shared_library.ts";
import * as nl from "./constants.ts";
import { LibnlError, ReceiveOverflowError } from "./errors.ts";
import { nlmsghdr, sockaddr_nl } from "./structs.ts";
import { libnlSymbols } from "./symbols.ts";

declare const brand: unique symbol;
/** A pointer to a C struct of that name; its maker frees it. */
export type CObject<Struct extends string> = Deno.PointerObject & { readonly [brand]: Struct };

/**
 * The largest datagram that is accepted. The kernel fills dumps up to 32 KiB (af_netlink.c,
 * netlink_dump); the rest is room for a single link with very many attributes.
 */
const MAX_DATAGRAM_BYTES = 65_536;

type Symbols = Deno.DynamicLibrary<typeof libnlSymbols>["symbols"];

/** libnl-3. */
export class Libnl implements Disposable {
  readonly #libc: Libc;
  readonly #library: Deno.DynamicLibrary<typeof libnlSymbols>;

  /** `libc` stays the caller's. See {@linkcode openLibnl}. */
  constructor(libc: Libc, library: Deno.DynamicLibrary<typeof libnlSymbols>) {
    this.#libc = libc;
    this.#library = library;
  }

  /** `result` unless negative. @throws {LibnlError} */
  check(call: string, result: number): number {
    if (result >= 0) return result;
    const text = this.#library.symbols.nl_geterror(result)!; // libnl's own, never freed
    throw new LibnlError(call, -result, Deno.UnsafePointerView.getCString(text));
  }

  /**
   * As {@linkcode Libnl.check}, right after a function that made a system call on this thread, since
   * libnl has no text for errors such as too many open files.
   */
  checkCall(call: string, result: number): number {
    if (result !== -nl.NLE_FAILURE) return this.check(call, result);
    throw new LibnlError(call, nl.NLE_FAILURE, errnoText(this.#libc.lastError(call).errno));
  }

  /** `object` unless null. @throws {LibnlError} When out of memory. */
  owned<Struct extends string>(call: string, object: Deno.PointerValue): CObject<Struct> {
    this.check(call, object ? 0 : -nl.NLE_NOMEM);
    return object as CObject<Struct>;
  }

  /** Opens a socket of `protocol` (NETLINK_*). @throws {LibnlError} */
  openSocket(protocol: number): NetlinkSocket {
    const { symbols } = this.#library;
    using stack = new DisposableStack();
    const socket = this.owned<"nl_sock">("nl_socket_alloc", symbols.nl_socket_alloc());
    stack.defer(() => symbols.nl_socket_free(socket));
    this.checkCall("nl_connect", symbols.nl_connect(socket, protocol));
    const size = symbols.nl_socket_set_msg_buf_size(socket, BigInt(MAX_DATAGRAM_BYTES));
    this.check("nl_socket_set_msg_buf_size", size);
    // Peeking at the size of each datagram would double the system calls; the buffer is large enough.
    symbols.nl_socket_disable_msg_peek(socket);
    stack.move(); // now the socket's own
    return new NetlinkSocket(this, this.#libc, symbols, socket);
  }

  /**
   * The `nl_addr` of `bytes` in network order, or a link-layer address for `AF_LLC`. Owned by the
   * caller: {@linkcode Libnl.putAddress}.
   */
  buildAddress(family: number, bytes: Uint8Array<ArrayBuffer>): CObject<"nl_addr"> {
    const { nl_addr_build } = this.#library.symbols;
    return this.owned("nl_addr_build", nl_addr_build(family, bytes, BigInt(bytes.length)));
  }

  putAddress(address: CObject<"nl_addr">): void {
    this.#library.symbols.nl_addr_put(address);
  }

  /** Frees an `nl_msg` and returns a copy of its message. */
  takeMessage(message: Deno.PointerObject): Uint8Array<ArrayBuffer> {
    const { symbols } = this.#library;
    try {
      const header = symbols.nlmsg_hdr(message)!;
      const view = new Deno.UnsafePointerView(header);
      const bytes = new Uint8Array(view.getUint32(nlmsghdr.nlmsg_len));
      view.copyInto(bytes);
      return bytes;
    } finally {
      symbols.nlmsg_free(message);
    }
  }

  /** Closes the library handle; every socket and object must be disposed of before. */
  [Symbol.dispose](): void {
    this.#library.close();
  }
}

/**
 * Opens libnl-3.
 *
 * @param libc Outlives what is returned.
 * @throws {LibraryNotFoundError} Naming the packages.
 */
export function openLibnl(libc: Libc): Libnl {
  const packages = { debian: "libnl-3-200", fedora: "libnl3" };
  return new Libnl(libc, openSharedLibrary("libnl-3.so.200", libnlSymbols, packages));
}

/** A netlink socket. Sends and receives whole datagrams. */
export class NetlinkSocket implements Disposable {
  readonly #libnl: Libnl;
  readonly #libc: Libc;
  readonly #symbols: Symbols;
  readonly #socket: CObject<"nl_sock">;
  readonly #source = new Uint8Array(sockaddr_nl.size);
  readonly #sourceView = new DataView(this.#source.buffer);
  readonly #pointer = new BigUint64Array(1);
  readonly #bytes = new Uint8Array(MAX_DATAGRAM_BYTES);
  /** What another thread is reading from, kept from garbage collection. */
  #sending: Uint8Array<ArrayBuffer> | undefined;
  readonly fd: FileDescriptor;
  /** The port id that the kernel gave this socket; replies to its requests and notifications of them carry it. */
  readonly portId: number;
  #disposed = false;

  /** See {@linkcode Libnl.openSocket}. */
  constructor(
    libnl: Libnl,
    libc: Libc,
    symbols: Symbols,
    socket: CObject<"nl_sock">,
  ) {
    this.#libnl = libnl;
    this.#libc = libc;
    this.#symbols = symbols;
    this.#socket = socket;
    this.fd = symbols.nl_socket_get_fd(socket) as FileDescriptor;
    this.portId = symbols.nl_socket_get_local_port(socket);
  }

  #assertOpen(): void {
    // The C object is freed: using it would crash the process.
    if (this.#disposed) throw new TypeError("Cannot use netlink socket: it is closed");
  }

  /** Joins multicast group `group` (RTNLGRP_*). */
  join(group: number): void {
    this.#assertOpen();
    const result = this.#symbols.nl_socket_add_membership(this.#socket, group);
    this.#libnl.checkCall("nl_socket_add_membership", result);
  }

  /** Makes {@linkcode NetlinkSocket.receive} return at once when nothing is there. */
  setNonblocking(): void {
    this.#assertOpen();
    const result = this.#symbols.nl_socket_set_nonblocking(this.#socket);
    this.#libnl.checkCall("nl_socket_set_nonblocking", result);
  }

  /**
   * Sends one datagram of one or more messages to the kernel, which has handled it when this
   * resolves. The call runs on another thread: until then `bytes` must not change, and the socket
   * must not be used.
   */
  async send(bytes: Uint8Array<ArrayBuffer>): Promise<void> {
    this.#assertOpen();
    this.#sending = bytes;
    const result = await this.#symbols.nl_sendto(this.#socket, bytes, BigInt(bytes.length));
    this.#sending = undefined;
    this.#libnl.check("nl_sendto", result);
  }

  /**
   * Like {@linkcode NetlinkSocket.send}, on this thread: for what the kernel does in less time than
   * another thread takes to begin.
   */
  sendNow(bytes: Uint8Array<ArrayBuffer>): void {
    this.#assertOpen();
    this.#libc.write(this.fd, bytes);
  }

  /**
   * The next datagram from the kernel; `undefined` when there is none (after the receive timeout,
   * or at once on a non-blocking socket). Borrowed: valid until the next call.
   *
   * @throws {ReceiveOverflowError} If datagrams were lost.
   * @throws {LibnlError}
   */
  receive(): DataView<ArrayBuffer> | undefined {
    this.#assertOpen();
    for (;;) {
      const length = this.#symbols.nl_recv(
        this.#socket,
        this.#source,
        new Uint8Array(this.#pointer.buffer),
        null,
      );
      if (length === -nl.NLE_AGAIN) return undefined;
      // libnl has one code for ENOBUFS and ENOMEM; either way, an unknown number of messages is lost.
      if (length === -nl.NLE_NOMEM || length === -nl.NLE_MSG_TRUNC) {
        throw new ReceiveOverflowError("Cannot receive from netlink: messages were lost");
      }
      this.#libnl.checkCall("nl_recv", length);
      if (length === 0) continue;
      const memory = Deno.UnsafePointer.create(this.#pointer[0]!)!;
      try {
        Deno.UnsafePointerView.copyInto(memory, this.#bytes.subarray(0, length));
      } finally {
        this.#libc.free(memory); // allocated by nl_recv for its caller
      }
      // Another process may send to our port; only the kernel is port 0.
      if (this.#sourceView.getUint32(sockaddr_nl.nl_pid, LITTLE_ENDIAN) !== 0) continue;
      return new DataView(this.#bytes.buffer, 0, length);
    }
  }

  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#symbols.nl_socket_free(this.#socket);
  }
}

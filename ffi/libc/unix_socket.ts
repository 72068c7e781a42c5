/**
 * Unix sockets (unix(7)): their addresses, datagrams that may carry a descriptor, and names held by
 * one process at a time.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import * as sys from "./constants.ts";
import { SystemCallError } from "./errors.ts";
import type { FileDescriptor, Libc } from "./open.ts";
import { cmsghdr, iovec, msghdr, sockaddr_un } from "./structs.ts";

/** Connections that wait at a name for {@linkcode AbstractName.refresh}. */
const BACKLOG = 128;

/**
 * The `struct sockaddr_un` of an absolute path or, after `@`, of a name in the abstract namespace,
 * cut to its length as abstract names need it; `undefined` for anything else, or if it is too long.
 */
export function unixAddress(path: string): Uint8Array<ArrayBuffer> | undefined {
  if (!/^[/@]./.test(path) || path.includes("\0")) return undefined;
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > sockaddr_un.size - sockaddr_un.sun_path) return undefined;
  const address = new Uint8Array(sockaddr_un.sun_path + name.length);
  new DataView(address.buffer).setUint16(sockaddr_un.sun_family, sys.AF_UNIX, LITTLE_ENDIAN);
  address.set(name, sockaddr_un.sun_path);
  return address;
}

/** Sends datagrams to one unix socket. */
export class UnixSender implements Disposable {
  readonly #libc: Libc;
  readonly #address: Uint8Array<ArrayBuffer>;
  readonly #fd: FileDescriptor;
  readonly #flags: number;
  #open = true;

  /** @param waitMs How long a message waits for room in a full queue. @default {0} */
  constructor(libc: Libc, address: Uint8Array<ArrayBuffer>, waitMs = 0) {
    this.#libc = libc;
    this.#address = address;
    this.#fd = libc.socket(sys.AF_UNIX, sys.SOCK_DGRAM | sys.SOCK_CLOEXEC, 0);
    this.#flags = sys.MSG_NOSIGNAL | (waitMs > 0 ? 0 : sys.MSG_DONTWAIT);
    if (waitMs > 0) libc.setSocketTimeout(this.#fd, sys.SO_SNDTIMEO, waitMs);
  }

  /** Sends `text`, with a copy of `descriptor` if given; returns whether it was taken. */
  send(text: string, descriptor?: FileDescriptor): boolean {
    if (!this.#open) return false;
    const data = new TextEncoder().encode(text);
    // One block: the call keeps alive what it is handed, not what that points to.
    const pieceAt = msghdr.size;
    const controlAt = pieceAt + iovec.size;
    const addressAt = controlAt + CONTROL_BYTES;
    const dataAt = addressAt + this.#address.length;
    const block = new Uint8Array(dataAt + data.length);
    const view = new DataView(block.buffer);
    const start = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(block)));
    const point = (at: number, to: number) =>
      view.setBigUint64(at, start + BigInt(to), LITTLE_ENDIAN);
    const size = (at: number, bytes: number) => view.setBigUint64(at, BigInt(bytes), LITTLE_ENDIAN);
    block.set(this.#address, addressAt);
    block.set(data, dataAt);
    point(pieceAt + iovec.iov_base, dataAt);
    size(pieceAt + iovec.iov_len, data.length);
    point(msghdr.msg_name, addressAt);
    view.setUint32(msghdr.msg_namelen, this.#address.length, LITTLE_ENDIAN);
    point(msghdr.msg_iov, pieceAt);
    size(msghdr.msg_iovlen, 1);
    if (descriptor !== undefined) {
      size(controlAt + cmsghdr.cmsg_len, cmsghdr.size + 4);
      view.setInt32(controlAt + cmsghdr.cmsg_level, sys.SOL_SOCKET, LITTLE_ENDIAN);
      view.setInt32(controlAt + cmsghdr.cmsg_type, sys.SCM_RIGHTS, LITTLE_ENDIAN);
      view.setInt32(controlAt + cmsghdr.size, descriptor, LITTLE_ENDIAN);
      point(msghdr.msg_control, controlAt);
      size(msghdr.msg_controllen, CONTROL_BYTES);
    }
    try {
      return this.#libc.sendmsg(this.#fd, block, this.#flags) === data.length;
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      return false;
    }
  }

  [Symbol.dispose](): void {
    if (this.#open) this.#libc.close(this.#fd);
    this.#open = false;
  }
}

/** CMSG_SPACE of one descriptor. */
const CONTROL_BYTES = cmsghdr.size + 8;

/**
 * A name in the abstract namespace, held by this process. It is released when the process ends, even
 * by SIGKILL; it needs no file, and each network namespace has its own names.
 */
export interface AbstractName extends Disposable {
  /** Closes the connections of processes that asked for the holder; to be called now and then. */
  refresh(): void;
}

/** The holder of a name; `pid` is 0 for a process in another PID namespace. */
export interface NameHolder {
  readonly pid: number;
  readonly uid: number;
}

/** Takes `name`, of at most 107 bytes; `undefined` if another process holds it. */
export function takeAbstractName(libc: Libc, name: string): AbstractName | undefined {
  const fd = libc.socket(sys.AF_UNIX, sys.SOCK_STREAM | sys.SOCK_CLOEXEC | sys.SOCK_NONBLOCK, 0);
  try {
    libc.bind(fd, abstractAddress(name));
    libc.listen(fd, BACKLOG);
  } catch (error) {
    libc.close(fd);
    if (error instanceof SystemCallError && error.code === "EADDRINUSE") return undefined;
    throw error;
  }
  let open = true;
  return {
    refresh() {
      for (let asker; open && (asker = libc.accept(fd)) !== undefined;) libc.close(asker);
    },
    [Symbol.dispose]() {
      if (open) libc.close(fd);
      open = false;
    },
  };
}

/** The holder of `name`; `undefined` if there is none, or its backlog is full. */
export function holderOfAbstractName(libc: Libc, name: string): NameHolder | undefined {
  const fd = libc.socket(sys.AF_UNIX, sys.SOCK_STREAM | sys.SOCK_CLOEXEC | sys.SOCK_NONBLOCK, 0);
  try {
    libc.connect(fd, abstractAddress(name));
    return libc.peerCredentials(fd);
  } catch (error) {
    if (!(error instanceof SystemCallError)) throw error;
    return undefined;
  } finally {
    libc.close(fd);
  }
}

function abstractAddress(name: string): Uint8Array<ArrayBuffer> {
  const address = unixAddress(`@${name}`);
  if (!address) throw new RangeError("The name is too long for an abstract socket");
  return address;
}

/**
 * The service manager's file-descriptor store (systemd.service(5), FileDescriptorStoreMax): open
 * descriptors that outlive the process, so that packets wait in their queues meanwhile.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../../ffi/byte_order.ts";
import { type FileDescriptor, Libc } from "../../ffi/libc/open.ts";
import { addressOf } from "../../ffi/tun/packet_io.ts";
import { cmsghdr, iovec, msghdr } from "../../ffi/tun/structs.ts";
import { setAddress, setSize } from "./send_batch.ts";

// <sys/un.h>, <sys/socket.h>, <fcntl.h>
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const SUN_PATH_BYTES = 108;

/** The first descriptor that a service manager hands over (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3;

/** The store, as sd_pid_notify_with_fds(3) reaches it. Without a service manager it does nothing. */
export class FdStore implements Disposable {
  readonly #libc = Libc.open();
  readonly #socket: FileDescriptor | undefined;
  readonly #address: Uint8Array<ArrayBuffer> | undefined;
  readonly #received = new Map<string, FileDescriptor>();
  #held: readonly Uint8Array[] = [];

  /**
   * @param environment `NOTIFY_SOCKET`, `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.
   * @param pid This process.
   */
  constructor(environment: Readonly<Record<string, string | undefined>>, pid: number) {
    this.#address = unixAddress(environment["NOTIFY_SOCKET"]);
    if (this.#address) {
      this.#socket = this.#libc.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    }
    if (environment["LISTEN_PID"] !== String(pid)) return;
    const count = Number(environment["LISTEN_FDS"]);
    if (!Number.isInteger(count) || count < 1 || count > 1024) return;
    const names = (environment["LISTEN_FDNAMES"] ?? "").split(":");
    for (let i = 0; i < count; i++) {
      const fd = (FIRST_DESCRIPTOR + i) as FileDescriptor;
      this.#libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
      const name = names[i] ?? "";
      // Of several of one name only the newest can be in use.
      const former = this.#received.get(name);
      if (former !== undefined) this.#libc.close(former);
      this.#received.set(name, fd);
    }
  }

  /** Takes a descriptor that an earlier run stored; the caller closes it. */
  take(name: string): FileDescriptor | undefined {
    const fd = this.#received.get(name);
    this.#received.delete(name);
    return fd;
  }

  /** Leaves an open descriptor to whoever {@linkcode FdStore.take}s it next. */
  giveBack(name: string, fd: FileDescriptor): void {
    this.#received.set(name, fd);
  }

  /** Stores `fd` under `name`, in place of what was there. Answers whether the manager took it. */
  put(name: string, fd: FileDescriptor): boolean {
    this.remove(name);
    // FDPOLL=0: a TUN queue of a device that was removed stays until we remove it ourselves.
    return this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fd);
  }

  /** Forgets what is stored under `name`. */
  remove(name: string): boolean {
    return this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Closes the descriptors that nobody took, and has the manager close them too. */
  discardRest(): void {
    for (const [name, fd] of this.#received) {
      this.#libc.close(fd);
      this.remove(name);
    }
    this.#received.clear();
  }

  #send(text: string, fd?: FileDescriptor): boolean {
    if (this.#socket === undefined || this.#address === undefined) return false;
    const data = new TextEncoder().encode(text);
    const pieces = new Uint8Array(iovec.size);
    const pieceView = new DataView(pieces.buffer);
    setAddress(pieceView, iovec.iov_base, addressOf(data));
    setSize(pieceView, iovec.iov_len, data.length);
    const control = new Uint8Array(cmsghdr.size + 8);
    const controlView = new DataView(control.buffer);
    setSize(controlView, cmsghdr.cmsg_len, cmsghdr.size + 4);
    controlView.setInt32(cmsghdr.cmsg_level, SOL_SOCKET, LITTLE_ENDIAN);
    controlView.setInt32(cmsghdr.cmsg_type, SCM_RIGHTS, LITTLE_ENDIAN);
    controlView.setInt32(cmsghdr.size, fd ?? -1, LITTLE_ENDIAN);
    const message = new Uint8Array(msghdr.size);
    const view = new DataView(message.buffer);
    setAddress(view, msghdr.msg_name, addressOf(this.#address));
    view.setUint32(msghdr.msg_namelen, this.#address.length, LITTLE_ENDIAN);
    setAddress(view, msghdr.msg_iov, addressOf(pieces));
    setSize(view, msghdr.msg_iovlen, 1);
    if (fd !== undefined) {
      setAddress(view, msghdr.msg_control, addressOf(control));
      setSize(view, msghdr.msg_controllen, control.length);
    }
    try {
      return this.#libc.sendmsg(this.#socket, message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
    } catch {
      return false;
    } finally {
      // The message points to these; they must live until the call is over.
      this.#held = [data, pieces, control];
    }
  }

  /** Closes what is ours; the manager keeps what is stored. */
  [Symbol.dispose](): void {
    for (const fd of this.#received.values()) this.#libc.close(fd);
    this.#received.clear();
    if (this.#socket !== undefined) this.#libc.close(this.#socket);
    this.#libc[Symbol.dispose]();
  }
}

/** `struct sockaddr_un` of a path or, after `@`, an abstract name. */
function unixAddress(path: string | undefined): Uint8Array<ArrayBuffer> | undefined {
  if (path === undefined || !/^[/@]./.test(path) || path.includes("\0")) return undefined;
  const name = new TextEncoder().encode(path.startsWith("@") ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > SUN_PATH_BYTES) return undefined;
  const address = new Uint8Array(2 + name.length);
  new DataView(address.buffer).setUint16(0, AF_UNIX, LITTLE_ENDIAN);
  address.set(name, 2);
  return address;
}

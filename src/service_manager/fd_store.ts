/**
 * The service manager's file-descriptor store (systemd.service(5), FileDescriptorStoreMax): open
 * descriptors that outlive the process, so that packets wait in their queues meanwhile.
 *
 * @module
 */
import { F_SETFD, FD_CLOEXEC } from "../../ffi/libc/constants.ts";
import { type FileDescriptor, Libc } from "../../ffi/libc/open.ts";
import { unixAddress, UnixSender } from "../../ffi/libc/unix_socket.ts";

/** The first descriptor that a service manager hands over (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3;

/** The store, as sd_pid_notify_with_fds(3) reaches it. Without a service manager it does nothing. */
export class FdStore implements Disposable {
  readonly #libc = Libc.open();
  readonly #sender: UnixSender | undefined;
  readonly #received = new Map<string, FileDescriptor>();

  /**
   * @param environment `NOTIFY_SOCKET`, `LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`.
   * @param pid This process.
   */
  constructor(environment: Readonly<Record<string, string | undefined>>, pid: number) {
    const address = unixAddress(environment["NOTIFY_SOCKET"] ?? "");
    if (address) this.#sender = new UnixSender(this.#libc, address);
    if (environment["LISTEN_PID"] !== String(pid)) return;
    const count = Number(environment["LISTEN_FDS"]);
    if (!Number.isInteger(count) || count < 1 || count > 1024) return;
    const names = (environment["LISTEN_FDNAMES"] ?? "").split(":");
    for (let i = 0; i < count; i++) {
      const fd = (FIRST_DESCRIPTOR + i) as FileDescriptor;
      this.#libc.fcntl(fd, F_SETFD, FD_CLOEXEC);
      const name = names[i] ?? "";
      // Of several with one name only the newest can be in use.
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

  /** Leaves an open descriptor for the next {@linkcode FdStore.take}. */
  giveBack(name: string, fd: FileDescriptor): void {
    this.#received.set(name, fd);
  }

  /** Stores `fd` under `name`, in place of what was there; returns whether the manager took it. */
  put(name: string, fd: FileDescriptor): boolean {
    this.remove(name);
    // FDPOLL=0: a TUN queue of a device that was removed stays until we remove it ourselves.
    return this.#send(`FDSTORE=1\nFDNAME=${name}\nFDPOLL=0`, fd);
  }

  /** Has the manager forget what is stored under `name`. */
  remove(name: string): boolean {
    return this.#send(`FDSTOREREMOVE=1\nFDNAME=${name}`);
  }

  /** Closes the descriptors that were not taken, here and in the store. */
  discardRest(): void {
    for (const [name, fd] of this.#received) {
      this.#libc.close(fd);
      this.remove(name);
    }
    this.#received.clear();
  }

  #send(text: string, fd?: FileDescriptor): boolean {
    return this.#sender?.send(text, fd) ?? false;
  }

  /** Closes what is ours; the manager keeps what is stored. */
  [Symbol.dispose](): void {
    for (const fd of this.#received.values()) this.#libc.close(fd);
    this.#received.clear();
    this.#sender?.[Symbol.dispose]();
    this.#libc[Symbol.dispose]();
  }
}

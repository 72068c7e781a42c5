/**
 * The libc calls that flanneld makes outside the packet path, with errors as exceptions.
 *
 * @module
 */
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { openLibc } from "../shared_library.ts";
import * as sys from "./constants.ts";
import { SystemCallError } from "./errors.ts";
import { pollfd, sock_filter, sock_fprog, timeval, ucred } from "./structs.ts";
import { libcSymbols } from "./symbols.ts";

/** A file descriptor of the kernel; not one of Deno's resource ids. */
export type FileDescriptor = number & { readonly __fileDescriptor: unique symbol };

/** An instruction of classic BPF, <linux/filter.h>: jumps count instructions to skip. */
export type BpfInstruction = readonly [code: number, ifTrue: number, ifFalse: number, k: number];

type Library = Deno.DynamicLibrary<typeof libcSymbols>;

/**
 * libc for the thread that opened it: `errno` is per thread, and read through a view made once, since
 * looking it up after each call could clobber it.
 */
export class Libc implements Disposable {
  readonly #library: Library;
  readonly #errno: Deno.UnsafePointerView;
  #disposed = false;

  /** The open library, shared by all who use it: to open it takes some 10 ms. */
  static #shared: Library | undefined;
  static #users = 0;

  /** Opens libc. @throws {LibraryNotFoundError} Where the system has no glibc. */
  static open(): Libc {
    Libc.#shared ??= openLibc(libcSymbols);
    Libc.#users++;
    return new Libc(Libc.#shared);
  }

  private constructor(library: Library) {
    this.#library = library;
    this.#errno = new Deno.UnsafePointerView(library.symbols.__errno_location()!);
  }

  get #symbols(): Library["symbols"] {
    if (this.#disposed) throw new TypeError("Cannot call libc: it is closed");
    return this.#library.symbols;
  }

  /** Why `call`, a C function of any library, failed; to be read right after it. */
  lastError(call: string): SystemCallError {
    return new SystemCallError(call, this.#errno.getInt32());
  }

  #check(call: string, result: number | bigint): number {
    if (result < 0) throw this.lastError(call);
    return Number(result);
  }

  close(fd: FileDescriptor): void {
    this.#check("close", this.#symbols.close(fd));
  }

  /** A non-blocking eventfd(2) with count 0; the caller closes it. */
  eventfd(): FileDescriptor {
    const fd = this.#symbols.eventfd(0, sys.EFD_CLOEXEC | sys.EFD_NONBLOCK);
    return this.#check("eventfd", fd) as FileDescriptor;
  }

  /** Wakes the poll on `eventfd`. */
  signalEventfd(eventfd: FileDescriptor): void {
    this.write(eventfd, new Uint8Array(new BigUint64Array([1n]).buffer));
  }

  /**
   * Waits, without blocking this thread, until one of `fds` is readable, in error or hung up.
   * Returns their `revents`, in order. `fds` must stay open meanwhile; to end it early, include an
   * eventfd.
   */
  async pollReadable(fds: readonly FileDescriptor[]): Promise<number[]> {
    const set = new DataView(new ArrayBuffer(fds.length * pollfd.size));
    fds.forEach((fd, i) => {
      set.setInt32(i * pollfd.size + pollfd.fd, fd, LITTLE_ENDIAN);
      set.setInt16(i * pollfd.size + pollfd.events, sys.POLLIN, LITTLE_ENDIAN);
    });
    const bytes = new Uint8Array(set.buffer);
    // errno of a non-blocking FFI call is lost. A valid set can only fail with EINTR (poll(2)); that
    // and anything unforeseen means "nothing is readable"; the caller's recv will show.
    const ready = await this.#symbols.poll(bytes, BigInt(fds.length), -1);
    if (ready < 0) return fds.map(() => 0);
    return fds.map((_, i) => set.getInt16(i * pollfd.size + pollfd.revents, LITTLE_ENDIAN));
  }

  /** open(2) of an existing file; the descriptor is closed on exec. The caller closes it. */
  openFile(path: string, flags: number): FileDescriptor {
    const name = new TextEncoder().encode(`${path}\0`);
    return this.#check("open", this.#symbols.open(name, flags | sys.O_CLOEXEC)) as FileDescriptor;
  }

  /** ioctl(2) whose argument is a pointer to `argument`, which the kernel may write to. */
  ioctl(fd: FileDescriptor, request: number, argument: Uint8Array<ArrayBuffer>): void {
    const pointer = Deno.UnsafePointer.of(argument);
    this.#check("ioctl", this.#symbols.ioctl(fd, BigInt(request), pointer));
  }

  /** ioctl(2) whose argument is a number. */
  ioctlNumber(fd: FileDescriptor, request: number, argument: number): void {
    // The number travels in the register of the pointer.
    const register = Deno.UnsafePointer.create(BigInt(argument));
    this.#check("ioctl", this.#symbols.ioctl(fd, BigInt(request), register));
  }

  /** fcntl(2) with an integer argument; returns its result. */
  fcntl(fd: FileDescriptor, command: number, argument = 0): number {
    return this.#check("fcntl", this.#symbols.fcntl(fd, command, argument));
  }

  /** socket(2); the caller closes it. */
  socket(domain: number, type: number, protocol: number): FileDescriptor {
    return this.#check("socket", this.#symbols.socket(domain, type, protocol)) as FileDescriptor;
  }

  /** bind(2) to a `struct sockaddr` of any family. */
  bind(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
    this.#check("bind", this.#symbols.bind(fd, address, address.length));
  }

  /** listen(2) */
  listen(fd: FileDescriptor, backlog: number): void {
    this.#check("listen", this.#symbols.listen(fd, backlog));
  }

  /** connect(2) to a `struct sockaddr` of any family. */
  connect(fd: FileDescriptor, address: Uint8Array<ArrayBuffer>): void {
    this.#check("connect", this.#symbols.connect(fd, address, address.length));
  }

  /** accept4(2) of a non-blocking socket: the next connection, if there is one. The caller closes it. */
  accept(fd: FileDescriptor): FileDescriptor | undefined {
    const accepted = this.#symbols.accept4(fd, null, null, sys.SOCK_CLOEXEC | sys.SOCK_NONBLOCK);
    return accepted < 0 ? undefined : accepted as FileDescriptor;
  }

  /** The process at the other end of a unix socket, as it was when that end was set up. */
  peerCredentials(fd: FileDescriptor): { readonly pid: number; readonly uid: number } {
    const bytes = new Uint8Array(ucred.size);
    const length = new Uint32Array([bytes.length]);
    const size = new Uint8Array(length.buffer);
    const result = this.#symbols.getsockopt(fd, sys.SOL_SOCKET, sys.SO_PEERCRED, bytes, size);
    this.#check("getsockopt", result);
    const view = new DataView(bytes.buffer);
    return {
      pid: view.getInt32(ucred.pid, LITTLE_ENDIAN),
      uid: view.getUint32(ucred.uid, LITTLE_ENDIAN),
    };
  }

  /** write(2); returns how many bytes were taken. What a netlink socket is written goes to the kernel. */
  write(fd: FileDescriptor, bytes: Uint8Array<ArrayBuffer>): number {
    return this.#check("write", this.#symbols.write(fd, bytes, BigInt(bytes.length)));
  }

  /** sendmsg(2) of a `struct msghdr`; what it points to must be held by the caller. */
  sendmsg(fd: FileDescriptor, message: Uint8Array<ArrayBuffer>, flags: number): number {
    return this.#check("sendmsg", this.#symbols.sendmsg(fd, message, flags));
  }

  /** Sets an integer socket option. */
  setSocketOption(fd: FileDescriptor, level: number, option: number, value: number): void {
    this.#setOption(fd, level, option, new Uint8Array(new Int32Array([value]).buffer));
  }

  #setOption(
    fd: FileDescriptor,
    level: number,
    option: number,
    value: Uint8Array<ArrayBuffer>,
    size = value.length,
  ): void {
    this.#check("setsockopt", this.#symbols.setsockopt(fd, level, option, value, size));
  }

  /**
   * Asks for a receive or send buffer of `sizeBytes` (the kernel doubles it, socket(7)), beyond
   * net.core.rmem_max or wmem_max where permitted.
   */
  setBuffer(fd: FileDescriptor, direction: "receive" | "send", sizeBytes: number): void {
    const [force, plain] = direction === "receive"
      ? [sys.SO_RCVBUFFORCE, sys.SO_RCVBUF]
      : [sys.SO_SNDBUFFORCE, sys.SO_SNDBUF];
    if (!this.trySocketOption(fd, sys.SOL_SOCKET, force, sizeBytes, "EPERM")) {
      this.setSocketOption(fd, sys.SOL_SOCKET, plain, sizeBytes);
    }
  }

  /** {@linkcode Libc.setSocketOption}, unless that fails with `code`; returns whether it did not. */
  trySocketOption(
    fd: FileDescriptor,
    level: number,
    option: number,
    value: number,
    code: string,
  ): boolean {
    try {
      this.setSocketOption(fd, level, option, value);
      return true;
    } catch (error) {
      if (!(error instanceof SystemCallError) || error.code !== code) throw error;
      return false;
    }
  }

  /** Lets a blocking call on `fd` fail with EAGAIN after `milliseconds`: SO_RCVTIMEO, SO_SNDTIMEO. */
  setSocketTimeout(fd: FileDescriptor, option: number, milliseconds: number): void {
    const value = new DataView(new ArrayBuffer(timeval.size));
    value.setBigInt64(timeval.tv_sec, BigInt(Math.floor(milliseconds / 1000)), LITTLE_ENDIAN);
    value.setBigInt64(timeval.tv_usec, BigInt(milliseconds % 1000) * 1000n, LITTLE_ENDIAN);
    this.#setOption(fd, sys.SOL_SOCKET, option, new Uint8Array(value.buffer));
  }

  /**
   * Lets the kernel drop each datagram of `fd` for which a classic BPF program returns 0 (socket(7),
   * SO_ATTACH_FILTER). Programs load words in network order, whatever the datagram was written in.
   */
  attachFilter(fd: FileDescriptor, instructions: readonly BpfInstruction[]): void {
    // One block for the program and its code: the call keeps alive what it is handed, not what
    // that points to.
    const block = new DataView(
      new ArrayBuffer(sock_fprog.size + instructions.length * sock_filter.size),
    );
    instructions.forEach(([op, jt, jf, k], i) => {
      const at = sock_fprog.size + i * sock_filter.size;
      block.setUint16(at + sock_filter.code, op, LITTLE_ENDIAN);
      block.setUint8(at + sock_filter.jt, jt);
      block.setUint8(at + sock_filter.jf, jf);
      block.setUint32(at + sock_filter.k, k, LITTLE_ENDIAN);
    });
    const bytes = new Uint8Array(block.buffer);
    const address = BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(bytes)));
    block.setUint16(sock_fprog.len, instructions.length, LITTLE_ENDIAN);
    block.setBigUint64(sock_fprog.filter, address + BigInt(sock_fprog.size), LITTLE_ENDIAN);
    this.#setOption(fd, sys.SOL_SOCKET, sys.SO_ATTACH_FILTER, bytes, sock_fprog.size);
  }

  /** Frees memory that a C library handed over. */
  free(memory: Deno.PointerValue): void {
    this.#symbols.free(memory);
  }

  /**
   * Runs `action` with this thread in the network namespace of the file `path`
   * (`/run/netns/x`, `/proc/1/ns/net`), then switches back. Sockets stay in the namespace they were
   * made in. `action` must be synchronous. Needs CAP_SYS_ADMIN.
   */
  inNetworkNamespace<T>(path: string, action: () => T): T {
    const enter = (fd: FileDescriptor) =>
      this.#check("setns", this.#symbols.setns(fd, sys.CLONE_NEWNET));
    return this.#withFile("/proc/thread-self/ns/net", sys.O_RDONLY, (home) => {
      this.#withFile(path, sys.O_RDONLY, enter);
      try {
        return action();
      } finally {
        enter(home);
      }
    });
  }

  #withFile<T>(path: string, flags: number, use: (fd: FileDescriptor) => T): T {
    const fd = this.openFile(path, flags);
    try {
      return use(fd);
    } finally {
      this.close(fd);
    }
  }

  /**
   * A kernel file as text, at most 1 MiB of it. Deno's own functions require all permissions to read
   * below /proc and /sys.
   *
   * @throws {SystemCallError} ENOENT and others.
   */
  readKernelFile(path: string): string {
    return this.#withFile(path, sys.O_RDONLY, (fd) => {
      const decoder = new TextDecoder();
      const bytes = new Uint8Array(16_384);
      let text = "";
      while (text.length < 1 << 20) {
        const length = this.#check("read", this.#symbols.read(fd, bytes, BigInt(bytes.length)));
        if (length === 0) break;
        text += decoder.decode(bytes.subarray(0, length), { stream: true });
      }
      return text;
    });
  }

  /**
   * Drops the resident pages of this program's machine code and constants, most of which only
   * start-up needed; those in use are faulted back in from the page cache.
   */
  releaseProgramPages(): void {
    let maps: string;
    try {
      maps = this.readKernelFile("/proc/self/smaps");
    } catch (error) {
      // A kernel without CONFIG_PROC_PAGE_MONITOR.
      if (error instanceof SystemCallError && error.code === "ENOENT") return;
      throw error;
    }
    for (const { start, sizeBytes } of unchangedMappings(maps, Deno.execPath())) {
      const pointer = Deno.UnsafePointer.create(start);
      this.#check("madvise", this.#symbols.madvise(pointer, BigInt(sizeBytes), sys.MADV_DONTNEED));
    }
  }

  /**
   * Writes `text` to an existing kernel file with a single write(2), as those files require.
   *
   * @throws {SystemCallError} ENOENT, EROFS and others.
   */
  writeKernelFile(path: string, text: string): void {
    this.#withFile(path, sys.O_WRONLY, (fd) => this.write(fd, new TextEncoder().encode(text)));
  }

  /**
   * An in-memory file (memfd_create(2)) with `content`; the caller closes it. `name` is what
   * /proc/self/maps shows.
   */
  memoryFile(name: string, content: Uint8Array<ArrayBuffer>): FileDescriptor {
    const created = this.#symbols.memfd_create(
      new TextEncoder().encode(`${name}\0`),
      sys.MFD_CLOEXEC,
    );
    const fd = this.#check("memfd_create", created) as FileDescriptor;
    try {
      for (let rest = content; rest.length > 0;) rest = rest.subarray(this.write(fd, rest));
      return fd;
    } catch (error) {
      this.close(fd);
      throw error;
    }
  }

  /** Returns free heap memory to the kernel (malloc_trim(3)); returns whether any was. */
  mallocTrim(keepBytes = 0): boolean {
    return this.#symbols.malloc_trim(BigInt(keepBytes)) === 1;
  }

  /** The last to be disposed closes the library; nothing made by it may be in use, no poll may be pending. */
  [Symbol.dispose](): void {
    if (this.#disposed) return;
    this.#disposed = true;
    if (--Libc.#users > 0) return;
    Libc.#shared = undefined;
    this.#library.close();
  }
}

/**
 * The mappings of the file `program` in the text of proc_pid_smaps(5) that may only be read or
 * executed, and that hold nothing but what the file does: no relocated address, no breakpoint.
 */
export function unchangedMappings(
  smaps: string,
  program: string,
): { readonly start: bigint; readonly sizeBytes: number }[] {
  return smaps.split(/\n(?=[0-9a-f]+-)/).flatMap((text) => {
    const match = /^([0-9a-f]+)-([0-9a-f]+) r-[x-]p \S+ \S+ \d+ +(.*)\n/.exec(text);
    const isUnchanged = /^Anonymous: +0 kB$/m.test(text) && /^Swap: +0 kB$/m.test(text);
    if (match?.[3] !== program || !isUnchanged) return [];
    const [start, end] = [BigInt(`0x${match[1]}`), BigInt(`0x${match[2]}`)];
    return [{ start, sizeBytes: Number(end - start) }];
  });
}

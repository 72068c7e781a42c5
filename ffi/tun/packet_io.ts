/** The system calls of the packet path, without exceptions or garbage. @module */
import { openLibc } from "../shared_library.ts";
import { LITTLE_ENDIAN } from "../byte_order.ts";
import { packetSymbols } from "./symbols.ts";

/** Error numbers that the packet path distinguishes, <asm-generic/errno.h>. */
export const Errno = {
  EINTR: 4,
  EIO: 5,
  EAGAIN: 11,
  ENOMEM: 12,
  EINVAL: 22,
  EBADFD: 77,
  EMSGSIZE: 90,
  ENOBUFS: 105,
} as const;

type Calls = Deno.DynamicLibrary<typeof packetSymbols>["symbols"];

/**
 * The calls of the packet path for one thread. They return -1 on failure, as C does, and
 * {@linkcode PacketIo.errno} says why; nothing is thrown or allocated. Buffers hold structs of
 * `structs.ts` with addresses from {@linkcode addressOf}, whose memory the caller must hold.
 */
export class PacketIo implements Disposable {
  readonly #library: Deno.DynamicLibrary<typeof packetSymbols>;
  readonly #errno: Deno.UnsafePointerView;
  readonly poll: Calls["poll"];
  readonly read: Calls["read"];
  readonly readv: Calls["readv"];
  readonly writev: Calls["writev"];
  readonly recvmmsg: Calls["recvmmsg"];
  readonly sendmmsg: Calls["sendmmsg"];
  readonly sendto: Calls["sendto"];
  readonly schedYield: Calls["sched_yield"];

  /** Opens libc for the calling thread, whose `errno` is read through a view made once. */
  constructor() {
    this.#library = openLibc(packetSymbols);
    const { symbols } = this.#library;
    this.#errno = new Deno.UnsafePointerView(symbols.__errno_location()!);
    this.poll = symbols.poll;
    this.read = symbols.read;
    this.readv = symbols.readv;
    this.writev = symbols.writev;
    this.recvmmsg = symbols.recvmmsg;
    this.sendmmsg = symbols.sendmmsg;
    this.sendto = symbols.sendto;
    this.schedYield = symbols.sched_yield;
  }

  /**
   * Lowers the calling thread's nice value to `nice` (setpriority(2), which on Linux acts on
   * threads), unless it is lower already. Returns whether that is permitted.
   */
  lowerNice(nice: number): boolean {
    const PRIO_PROCESS = 0;
    const { getpriority, setpriority } = this.#library.symbols;
    return getpriority(PRIO_PROCESS, 0) <= nice || setpriority(PRIO_PROCESS, 0, nice) === 0;
  }

  /** Why the last call returned -1. */
  errno(): number {
    return this.#errno.getInt32();
  }

  [Symbol.dispose](): void {
    this.#library.close();
  }
}

/**
 * The address of `memory` as a number (user space ends below 2^53 on every 64-bit Linux). `memory`
 * must not be resized or dropped while the address is in use.
 */
export function addressOf(memory: Uint8Array<ArrayBuffer>): number {
  return Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(memory)));
}

/** Offsets of the low and the high half of a 64-bit field, in bytes. */
export const LOW_HALF = LITTLE_ENDIAN ? 0 : 4;
export const HIGH_HALF = 4 - LOW_HALF;

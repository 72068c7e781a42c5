/**
 * A pair of connected datagram sockets: one end stands in for a TUN queue, whose reads and writes
 * are whole packets too, the other is the kernel's side.
 *
 * @module
 */
import type { FileDescriptor } from "../../ffi/libc/open.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

/** See the module. */
export class FakeDevice implements Disposable {
  readonly #libc = Deno.dlopen("libc.so.6", {
    socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
    read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    close: { parameters: ["i32"], result: "i32" },
  });
  readonly #buffer = new Uint8Array(70_000);
  readonly #kernelSide: number;
  /** For the code under test. */
  readonly fd: FileDescriptor;

  constructor() {
    const pair = new Int32Array(2);
    const type = SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
    if (this.#libc.symbols.socketpair(AF_UNIX, type, 0, pair) < 0) throw new Error("no sockets");
    this.fd = pair[0]! as FileDescriptor;
    this.#kernelSide = pair[1]!;
  }

  /** The next packet that was written, `virtio_net_hdr` and all; `undefined` if there is none. */
  receive(): Uint8Array<ArrayBuffer> | undefined {
    const { symbols } = this.#libc;
    const length = symbols.read(this.#kernelSide, this.#buffer, BigInt(this.#buffer.length));
    return length < 0n ? undefined : this.#buffer.slice(0, Number(length));
  }

  /** Hands over a packet, `virtio_net_hdr` and all. Answers whether it fitted. */
  send(packet: Uint8Array<ArrayBuffer>): boolean {
    return this.#libc.symbols.write(this.#kernelSide, packet, BigInt(packet.length)) >= 0n;
  }

  [Symbol.dispose](): void {
    this.#libc.symbols.close(this.fd);
    this.#libc.symbols.close(this.#kernelSide);
    this.#libc.close();
  }
}

/**
 * The receiving end of systemd's notification protocol (sd_notify(3)), for programs under test.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";

const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;
/** sizeof(struct sockaddr_un): a 16-bit family and 108 bytes of path (linux/un.h). */
const SOCKADDR_UN_BYTES = 110;
const MAX_PATH_BYTES = 107;
const MAX_MESSAGE_BYTES = 8192;

// Deno's own datagram unix sockets are behind a flag that `deno test` would have to be given.
const SYMBOLS = {
  /** int socket(int domain, int type, int protocol) */
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  /** int bind(int fd, const struct sockaddr *addr, socklen_t len) */
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  /** ssize_t recv(int fd, void *buf, size_t len, int flags) */
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  /** int close(int fd) */
  close: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** One message: its assignments, such as READY → 1, and when it was read (`performance.now()`). */
export interface Notification {
  readonly fields: ReadonlyMap<string, string>;
  readonly receivedAtMs: number;
}

/** Listens on a datagram socket at a path, as the service manager does. */
export class NotifySocket implements Disposable {
  readonly path: string;
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;
  readonly #descriptor: number;
  readonly #buffer = new Uint8Array(MAX_MESSAGE_BYTES);
  readonly #received: Notification[] = [];
  #closed = false;

  /** @throws {Error} If the socket cannot be made, for one because the path is over 107 bytes. */
  constructor(path: string) {
    const bytes = new TextEncoder().encode(path);
    if (bytes.length > MAX_PATH_BYTES) {
      throw new RangeError(`Cannot listen on ${path}: the path is longer than 107 bytes`);
    }
    this.path = path;
    this.#library = Deno.dlopen("libc.so.6", SYMBOLS);
    const { symbols } = this.#library;
    this.#descriptor = symbols.socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    const address = new Uint8Array(SOCKADDR_UN_BYTES);
    new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX;
    address.set(bytes, 2);
    if (this.#descriptor < 0 || symbols.bind(this.#descriptor, address, address.length) !== 0) {
      this[Symbol.dispose]();
      throw new Error(`Cannot listen on ${path} for notifications`);
    }
  }

  /** Messages received so far, oldest first; still there after disposal. */
  messages(): readonly Notification[] {
    while (!this.#closed) {
      const length = Number(
        this.#library.symbols.recv(this.#descriptor, this.#buffer, BigInt(MAX_MESSAGE_BYTES), 0),
      );
      if (length < 0) return this.#received;
      const text = new TextDecoder().decode(this.#buffer.subarray(0, length));
      const fields = new Map<string, string>();
      for (const line of text.split("\n")) {
        const at = line.indexOf("=");
        if (at > 0) fields.set(line.slice(0, at), line.slice(at + 1));
      }
      this.#received.push({ fields, receivedAtMs: performance.now() });
    }
    return this.#received;
  }

  /** The first message whose `field` matches; waits for it, looking every 10 ms. */
  async waitFor(
    field: string,
    pattern: RegExp,
    options: { signal: AbortSignal },
  ): Promise<Notification> {
    for (let next = 0;;) {
      const messages = this.messages();
      for (; next < messages.length; next++) {
        if (pattern.test(messages[next]!.fields.get(field) ?? "")) return messages[next]!;
      }
      await delay(10, options);
    }
  }

  [Symbol.dispose](): void {
    if (this.#closed) return;
    this.#closed = true;
    if (this.#descriptor >= 0) this.#library.symbols.close(this.#descriptor);
    this.#library.close();
    try {
      Deno.removeSync(this.path);
    } catch { /* removed with its directory */ }
  }
}

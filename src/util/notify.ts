import { redact } from "../secret.ts";

/** Tells the service manager about the daemon's state. No call throws. */
export interface Notifier extends Disposable {
  /** Why nothing is told although a socket was named; for the log. */
  readonly problem: string | undefined;
  /** `READY=1`: start-up is complete. Answers whether the service manager took it. */
  ready(): boolean;
  /** `STATUS=…`: one line for `systemctl status`; secrets are redacted. */
  status(text: string): boolean;
  /** `STOPPING=1`: the daemon is on its way out. */
  stopping(): boolean;
  /** `WATCHDOG=1`: the daemon is not stuck. */
  alive(): boolean;
}

// <sys/socket.h>, <sys/un.h>, values of Linux
const AF_UNIX = 1;
const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_SNDTIMEO = 21;
const MSG_NOSIGNAL = 0x4000;
const SUN_PATH_BYTES = 108;
const SUN_PATH_OFFSET = 2;

/** How long a full queue of the service manager may hold up the daemon, per message. */
const SEND_TIMEOUT_MICROSECONDS = 200_000;
const MAX_STATUS_CHARS = 500;
/** Timers that are set for longer fire at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/**
 * Deno has datagrams over unix sockets behind an unstable flag only, and none to abstract
 * addresses; hence libc, which works alike in sources and compiled.
 */
const SYMBOLS = {
  // int socket(int domain, int type, int protocol)
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  // int setsockopt(int fd, int level, int name, const void *value, socklen_t length)
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  // ssize_t sendto(int fd, const void *data, size_t length, int flags,
  //                const struct sockaddr *address, socklen_t length)
  sendto: { parameters: ["i32", "buffer", "usize", "i32", "buffer", "u32"], result: "isize" },
  // int close(int fd)
  close: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/**
 * Opens the notification socket at `socketPath`, the value of `NOTIFY_SOCKET`: a path, or `@` and
 * a name in the abstract namespace (sd_notify(3)). Without it, or where it cannot be used, the
 * notifier does nothing.
 */
export function openNotifier(socketPath: string | undefined): Notifier {
  if (socketPath === undefined || socketPath === "") return makeNotifier(() => false);
  const address = socketAddress(socketPath);
  if (address === undefined) {
    return makeNotifier(() => false, {
      problem: "Cannot notify the service manager: " +
        `NOTIFY_SOCKET is neither a path nor "@" and a name, of at most 107 bytes`,
    });
  }
  try {
    return makeNotifier(...openSocket(address));
  } catch (error) {
    return makeNotifier(() => false, {
      problem: `Cannot notify the service manager: ${error instanceof Error ? error.message : ""}`,
    });
  }
}

/** `struct sockaddr_un`, cut to the name's length as abstract names need it. */
function socketAddress(path: string): Uint8Array<ArrayBuffer> | undefined {
  const isAbstract = path.startsWith("@");
  if ((!isAbstract && !path.startsWith("/")) || path.includes("\0")) return undefined;
  const name = new TextEncoder().encode(isAbstract ? `\0${path.slice(1)}` : `${path}\0`);
  if (name.length > SUN_PATH_BYTES || path === "@") return undefined;
  const address = new Uint8Array(SUN_PATH_OFFSET + name.length);
  new Uint16Array(address.buffer, 0, 1)[0] = AF_UNIX; // host byte order
  address.set(name, SUN_PATH_OFFSET);
  return address;
}

type Send = (text: string) => boolean;

function openSocket(address: Uint8Array<ArrayBuffer>): [Send, { close: () => void }] {
  using stack = new DisposableStack();
  const libc = stack.adopt(Deno.dlopen("libc.so.6", SYMBOLS), (library) => library.close());
  const fd = libc.symbols.socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw new Error("no socket is to be had");
  stack.defer(() => libc.symbols.close(fd));
  const timeout = new BigInt64Array([0n, BigInt(SEND_TIMEOUT_MICROSECONDS)]); // struct timeval
  libc.symbols.setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, timeout, timeout.byteLength);
  const kept = stack.move();
  function send(text: string): boolean {
    if (kept.disposed) return false;
    const data = new TextEncoder().encode(text);
    const sent = libc.symbols.sendto(
      fd,
      data,
      BigInt(data.length),
      MSG_NOSIGNAL,
      address,
      address.length,
    );
    return Number(sent) === data.length;
  }
  return [send, { close: () => kept.dispose() }];
}

function makeNotifier(
  send: Send,
  { problem, close }: { problem?: string; close?: () => void } = {},
): Notifier {
  return {
    problem,
    ready: () => send("READY=1"),
    status(text) {
      // deno-lint-ignore no-control-regex -- a line feed would start another assignment
      const line = redact(text).replaceAll(/[\u0000-\u001f\u007f]+/g, " ");
      return send(`STATUS=${line.slice(0, MAX_STATUS_CHARS)}`);
    },
    stopping: () => send("STOPPING=1"),
    alive: () => send("WATCHDOG=1"),
    [Symbol.dispose]: () => close?.(),
  };
}

/**
 * Tells the service manager again and again that the event loop turns, where it wants to hear that
 * (`WatchdogSec=`, sd_watchdog_enabled(3)): it restarts a daemon that has been silent for too long.
 * Three messages fit into that time. Ends when disposed.
 */
export function feedWatchdog(
  notifier: Notifier,
  environment: Readonly<Record<string, string | undefined>>,
  pid: number = Deno.pid,
): Disposable {
  const { WATCHDOG_USEC: limit = "", WATCHDOG_PID: meant = "" } = environment;
  const limitMs = /^\d{1,15}$/.test(limit) ? Number(limit) / 1_000 : 0;
  if (limitMs === 0 || (meant !== "" && meant !== String(pid))) return { [Symbol.dispose]() {} };
  notifier.alive();
  const timer = setInterval(
    () => notifier.alive(),
    Math.min(Math.max(1, limitMs / 3), LONGEST_TIMER_MS),
  );
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/**
 * Places for a daemon's stderr that take nothing: a full pipe, a full socket, a full disk, a pipe
 * whose reader has gone.
 *
 * @module
 */
import { run } from "../support/run.ts";

const AF_UNIX = 1;
const SOCK_STREAM = 1;
const MSG_DONTWAIT = 0x40;

const SYMBOLS = {
  /** int socketpair(int domain, int type, int protocol, int fds[2]) */
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  /** ssize_t send(int fd, const void *data, size_t length, int flags) */
  send: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  /** ssize_t recv(int fd, void *data, size_t length, int flags) */
  recv: { parameters: ["i32", "buffer", "usize", "i32"], result: "isize" },
  /** int close(int fd) */
  close: { parameters: ["i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

/** A place that takes nothing. */
export interface UnreadStderr extends Disposable {
  /** What bash redirects stderr with. */
  readonly redirection: string;
  /** Reads all that is in it, from now on for ever, and returns what has come; where it can be. */
  readonly drain?: () => string;
}

/** A pipe that is full; its reader lives and does not read. */
export async function fullPipe(
  path: string,
  options: { readonly signal: AbortSignal },
): Promise<UnreadStderr> {
  await run("mkfifo", [path], options);
  const file = await Deno.open(path, { read: true, write: true });
  // It ends with EAGAIN.
  await run("dd", [
    ...["if=/dev/zero", `of=${path}`, "bs=4096", "count=1024", "oflag=nonblock"],
    ...["status=none"],
  ], options).catch(() => {});
  return {
    redirection: `2>${path}`,
    [Symbol.dispose]: () => file.close(),
  };
}

/** A stream socket that is full, as journald's is when journald hangs. */
export function fullSocket(): UnreadStderr {
  const libc = Deno.dlopen("libc.so.6", SYMBOLS);
  const pair = new Int32Array(2);
  // Without SOCK_CLOEXEC: the daemon is to inherit it.
  if (libc.symbols.socketpair(AF_UNIX, SOCK_STREAM, 0, pair) !== 0) {
    libc.close();
    throw new Error("Cannot make a pair of sockets");
  }
  const [ours, theirs] = [pair[0]!, pair[1]!];
  const junk = new Uint8Array(4096);
  while (libc.symbols.send(theirs, junk, BigInt(junk.length), MSG_DONTWAIT) > 0n);
  return {
    redirection: `2>&${theirs} ${theirs}>&- ${ours}>&-`,
    drain() {
      let text = "";
      for (;;) {
        const count = Number(libc.symbols.recv(ours, junk, BigInt(junk.length), MSG_DONTWAIT));
        if (count <= 0) return text.replaceAll("\0", "");
        text += new TextDecoder().decode(junk.subarray(0, count));
      }
    },
    [Symbol.dispose]() {
      for (const fd of pair) libc.symbols.close(fd);
      libc.close();
    },
  };
}

/** A disk without space. */
export function fullDisk(): UnreadStderr {
  return { redirection: "2>/dev/full", [Symbol.dispose]() {} };
}

/** A pipe whose reader has gone. */
export function readerGone(): UnreadStderr {
  return { redirection: "2> >(exec true)", [Symbol.dispose]() {} };
}

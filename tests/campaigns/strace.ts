/**
 * System calls of a daemon as strace(1) sees them: which there are, and what happens where one of
 * them fails or is the last.
 *
 * @module
 */
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import { sendSignal } from "../support/process_table.ts";
import { denoEnvironment } from "../lab/mod.ts";

/** What happens at a call: the daemon is killed before it, or so many calls from it on fail. */
export type Effect = "kill" | { readonly error: string; readonly calls: number };

/** A kind of calls that are counted together, by each thread for itself. */
export interface CallKind {
  readonly syscall: string;
  /** Only calls with this file count. */
  readonly path?: string;
}

/** A call of the daemon and what happens there. */
export interface Point extends CallKind {
  /** The first thread that makes so many calls of the kind is hit. */
  readonly n: number;
  readonly effect: Effect;
}

/** Calls of a kind that a run has made: those from `first` to `last` are worth a hit. */
export interface CallRange extends CallKind {
  readonly first: number;
  readonly last: number;
}

/** The errors that stand for a machine that is short of something, by the call that meets them. */
const ERRORS: Readonly<Record<string, readonly string[]>> = {
  openat: ["EMFILE", "ENOMEM", "ENOSPC", "EIO"],
  read: ["EIO"],
  write: ["ENOSPC", "EIO"],
  fsync: ["EIO", "ENOSPC"],
  rename: ["ENOSPC", "EIO"],
  chmod: ["EIO"],
  ftruncate: ["EIO", "ENOSPC"],
  flock: ["ENOLCK", "EIO"],
  unlink: ["EIO"],
  mkdir: ["ENOSPC"],
  statx: ["EIO", "ENOMEM"],
  readlink: ["EIO"],
  socket: ["EMFILE", "ENOMEM"],
  bind: ["ENOMEM"],
  connect: ["ENOMEM"],
  setsockopt: ["ENOMEM"],
  sendto: ["ENOMEM", "ENOBUFS"],
  sendmsg: ["ENOMEM", "ENOBUFS"],
  recvfrom: ["ENOMEM", "EIO"],
  recvmsg: ["ENOMEM", "EIO"],
  ioctl: ["ENOMEM", "EIO"],
  clone3: ["ENOMEM", "EAGAIN"],
  pipe2: ["EMFILE"],
  execve: ["ENOMEM", "EIO"],
  mmap: ["ENOMEM"],
};

/** What the words for an error are, as whoever reports it may spell them. */
export const ERROR_WORDS: Readonly<Record<string, RegExp>> = {
  EMFILE: /EMFILE|too many open files/i,
  ENOMEM: /ENOMEM|not enough memory|cannot allocate memory|out of memory/i,
  ENOBUFS: /ENOBUFS|no buffer space|out of memory/i,
  ENOSPC: /ENOSPC|no space left/i,
  EIO: /EIO\b|i\/o error|input\/output error/i,
  ENOLCK: /ENOLCK|No locks available/i,
  EAGAIN: /EAGAIN|temporarily unavailable|try again/i,
};

/** Calls that are told apart by their file. */
const FILE_CALLS = [
  ...["openat", "read", "write", "fsync", "rename", "chmod", "ftruncate", "flock", "unlink"],
  ...["mkdir", "statx", "readlink", "ioctl"],
  // Where there are no others, as on arm64.
  ...["renameat", "renameat2", "fchmodat", "unlinkat", "mkdirat", "readlinkat"],
];
const SOCKET_CALLS = [
  ...["socket", "bind", "connect", "setsockopt", "sendto", "sendmsg", "recvfrom", "recvmsg"],
];
const CHILD_CALLS = ["clone3", "pipe2", "execve"];
const SYSCALLS = [...FILE_CALLS, ...SOCKET_CALLS, ...CHILD_CALLS, "mmap"];

/** Calls by what they are about, each with its share of the points, so that rare ones get some. */
const GROUPS: readonly (readonly [share: number, has: (kind: CallKind) => boolean])[] = [
  [4, ({ path }) => path !== undefined && !isOfKernel(path)],
  [1, ({ path }) => path !== undefined && isOfKernel(path)],
  [4, ({ syscall }) => SOCKET_CALLS.includes(syscall)],
  [2, ({ syscall }) => CHILD_CALLS.includes(syscall)],
  [1, ({ syscall }) => syscall === "mmap"],
];

/** The words before a program's own that have it traced, from its first call on. */
export function traced(output: string, point?: Point): string[] {
  // With a filter, other calls cost nothing; but no signal can be given at its stops, and without
  // the tracer they fail.
  const filter = point === undefined ? ["--seccomp-bpf"] : [];
  return ["strace", "-D", "-f", "-qq", ...filter, ...traceWords(output, point)];
}

/**
 * Ends the tracing of `pid`, so that nothing more is hit: each child that it starts counts anew.
 * The traced processes go on.
 */
export function release(pid: number): void {
  try {
    const status = Deno.readTextFileSync(`/proc/${pid}/status`);
    const tracer = Number(/^TracerPid:\s+(\d+)$/m.exec(status)?.[1] ?? 0);
    if (tracer > 0) sendSignal(tracer, "SIGKILL");
  } catch {
    // It has ended.
  }
}

/** Traces process `pid` from now on; ends with it. */
export async function attach(
  pid: number,
  output: string,
  options: { readonly signal: AbortSignal; readonly point?: Point },
): Promise<LoggedProcess> {
  const { signal, point } = options;
  const args = ["-f", "-p", `${pid}`, ...traceWords(output, point)];
  const tracer = startLogged({ program: "strace", args }, {
    title: "strace",
    logFile: `${output}.log`,
    env: denoEnvironment(),
  });
  try {
    await tracer.waitForLine(/attached/, { signal });
    return tracer;
  } catch (error) {
    await tracer.kill();
    throw error;
  }
}

function traceWords(output: string, point: Point | undefined): string[] {
  const words = ["-y", "-s", "48", "-e", "signal=SIGKILL", "-o", output];
  if (point === undefined) {
    return [...words, "-e", `trace=${SYSCALLS.map((name) => `?${name}`)}`];
  }
  const { syscall, path, n, effect } = point;
  const when = effect === "kill" ? `${n}` : `${n}..${n + effect.calls - 1}`;
  const what = effect === "kill" ? "signal=SIGKILL" : `error=${effect.error}`;
  return [
    ...words,
    ...["-e", `trace=${syscall}`, "-e", `inject=${syscall}:${what}:when=${when}`],
    ...(path === undefined ? [] : ["-P", path]),
  ];
}

/**
 * The calls in a trace, by kind. What comes before a line with `begin` in it is not worth a hit.
 *
 * @param isOfInterest Whether calls with this file are a kind of their own.
 */
export function readCalls(
  text: string,
  options: { readonly begin?: string; readonly isOfInterest: (path: string) => boolean },
): CallRange[] {
  const counts = new Map<string, Map<string, number>>();
  /** The most that a thread had made by then. */
  const before = new Map<string, number>();
  const kinds = new Map<string, CallKind>();
  let begun = options.begin === undefined;
  for (const line of text.split("\n")) {
    const call = /^(\d+)\s+([a-z0-9_]+)\((.*)$/.exec(line);
    if (!call) continue;
    const [, thread = "", syscall = "", rest = ""] = call;
    if (!begun && rest.includes(options.begin!)) begun = true;
    const isFileCall = FILE_CALLS.includes(syscall);
    const path = pathOf(rest);
    if (isFileCall && (path === undefined || !options.isOfInterest(path))) continue;
    const kind = { syscall, ...(isFileCall ? { path: path! } : {}) };
    const key = `${syscall} ${kind.path ?? ""}`;
    kinds.set(key, kind);
    const byThread = counts.get(key) ?? new Map<string, number>();
    counts.set(key, byThread);
    const count = (byThread.get(thread) ?? 0) + 1;
    byThread.set(thread, count);
    if (!begun) before.set(key, Math.max(before.get(key) ?? 0, count));
  }
  return [...kinds].map(([key, kind]) => ({
    ...kind,
    first: (before.get(key) ?? 0) + 1,
    last: Math.max(...counts.get(key)!.values()),
  })).filter(({ first, last }) => first <= last);
}

/** The file of a call's arguments: named, or behind its descriptor. */
function pathOf(rest: string): string | undefined {
  const match = /^(?:AT_FDCWD(?:<[^>]*>)?, |\d+<([^>]*)>)?(?:"([^"]*)")?/.exec(rest);
  return match?.[1] ?? match?.[2];
}

/** Draws a group, a kind of it, and one of its calls. */
export function drawPoint(calls: readonly CallRange[], random: () => number): Point {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)]!;
  const groups = GROUPS.flatMap(([share, has]) => {
    const kinds = calls.filter(has);
    return kinds.length > 0 ? Array.from({ length: share }, () => kinds) : [];
  });
  const { syscall, path, first, last } = pick(pick(groups));
  const errors = ERRORS[syscall] ?? ERRORS[syscall.replace(/^f(?=chmod)|at2?$/g, "")];
  const effect = errors === undefined || random() < 0.5
    ? "kill"
    : { error: pick(errors), calls: pick([1, 1, 3]) };
  return {
    syscall,
    ...(path === undefined ? {} : { path }),
    n: first + Math.floor(random() * (last - first + 1)),
    effect,
  };
}

/** The calls that were hit, as strace(1) wrote them down. */
export function readHits(text: string): string[] {
  const lines = text.split("\n");
  const failed = lines.filter((line) => line.includes("(INJECTED)"));
  const killed = lines.flatMap((line, index) =>
    /\+\+\+ killed by SIGKILL/.test(line)
      ? [lines.slice(0, index).findLast((each) => /^\d+\s+[a-z]/.test(each)) ?? ""]
      : []
  );
  return [...failed, ...killed.slice(0, 1)].map((line) => line.replace(/^\d+\s+/, ""));
}

/** A point for people. */
export function describePoint({ syscall, path, n, effect }: Point): string {
  const where = path === undefined ? "" : ` of ${path.replace(/^\/tmp\/[^/]*\//, "")}`;
  const what = effect === "kill" ? "kill" : `${effect.error} × ${effect.calls}`;
  return `${what} at ${syscall}#${n}${where}`;
}

function isOfKernel(path: string): boolean {
  return /^\/(?:proc|dev)\//.test(path);
}

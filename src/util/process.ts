/**
 * Runs programs: with an environment of their own, no shell, a time limit and an AbortSignal.
 *
 * @module
 */
import { abortable } from "./abortable.ts";
import { deadline } from "./time.ts";

/** How long a killed program is waited for; one that waits for a device may outlive that. */
const KILLED_MS = 1_000;

/** Where system programs are, which the PATH of `su`, of cron and of `env -i` leaves out. */
const SYSTEM_DIRECTORIES = [
  "/usr/local/sbin",
  "/usr/sbin",
  "/sbin",
  "/usr/local/bin",
  "/usr/bin",
  "/bin",
];

/** `path`, the value of PATH, followed by those of the system's directories that it lacks. */
export function withSystemDirectories(path: string | undefined): string {
  const present = (path ?? "").split(":").filter((directory) => directory !== "");
  return [...new Set([...present, ...SYSTEM_DIRECTORIES])].join(":");
}

export interface RunOptions {
  readonly signal: AbortSignal;
  /** Text for standard input; without it, standard input is empty. */
  readonly stdin?: string;
  /** The program is killed after this. @default {30_000} */
  readonly timeoutMs?: number;
  /** Variables beside those of this process. */
  readonly env?: Readonly<Record<string, string>>;
  /** The whole environment in place of this process's own, which may hold secrets. */
  readonly wholeEnv?: Readonly<Record<string, string>>;
}

/** How a program ended. */
export interface RunResult {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** The program is not installed. */
export class ProgramNotFoundError extends Error {
  override name = "ProgramNotFoundError";
}

/**
 * Runs a program with an argument vector (never a shell) and collects its output. A non-zero exit
 * is a value, not an error.
 *
 * @throws {ProgramNotFoundError} If there is no such program.
 * @throws `signal.reason` on abort, `TimeoutError` after `timeoutMs`; the program is killed then.
 */
export async function runProgram(
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<RunResult> {
  const { env, wholeEnv } = options;
  using limit = deadline(options.timeoutMs ?? 30_000, options);
  limit.signal.throwIfAborted();
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...args],
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      ...(wholeEnv ? { clearEnv: true } : {}),
      env: { ...wholeEnv, ...env },
    }).spawn();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new ProgramNotFoundError(`Cannot run ${program}: it is not installed`, { cause });
    }
    if (cause instanceof Error) throw new Error(`Cannot run ${program}`, { cause });
    throw cause;
  }
  const kill = () => {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
  };
  limit.signal.addEventListener("abort", kill, { once: true });
  try {
    const feeding = options.stdin === undefined
      ? undefined
      : new Blob([options.stdin]).stream().pipeTo(child.stdin, limit)
        .catch(() => {}); // it ended without reading everything; its exit code tells
    const [{ code }, stdout, stderr] = await Promise.all([
      child.status,
      readText(child.stdout, limit),
      readText(child.stderr, limit),
      feeding,
    ]);
    limit.signal.throwIfAborted();
    return { code, stdout, stderr };
  } catch (error) {
    using patience = deadline(KILLED_MS, { signal: new AbortController().signal });
    await abortable(child.status, patience).catch(() => {});
    throw error;
  } finally {
    limit.signal.removeEventListener("abort", kill);
  }
}

/**
 * All that `stream` gives. Rejects with `signal.reason` on abort, though another process that the
 * program has started may still hold the other end open.
 */
async function readText(
  stream: ReadableStream<Uint8Array<ArrayBuffer>>,
  { signal }: { signal: AbortSignal },
): Promise<string> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  const sink = new WritableStream<Uint8Array<ArrayBuffer>>({
    write: (chunk) => void chunks.push(chunk),
  });
  await stream.pipeTo(sink, { signal });
  return await new Blob(chunks).text();
}

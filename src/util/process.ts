import { deadline } from "./time.ts";

/** Options of {@linkcode runProgram}. */
export interface RunOptions {
  readonly signal: AbortSignal;
  /** Text for standard input; without it, standard input is empty. */
  readonly stdin?: string;
  /** The program is killed after this. @default {30_000} */
  readonly timeoutMs?: number;
  readonly env?: Readonly<Record<string, string>>;
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
  using limit = deadline(options.timeoutMs ?? 30_000, options);
  limit.signal.throwIfAborted();
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command(program, {
      args: [...args],
      stdin: options.stdin === undefined ? "null" : "piped",
      stdout: "piped",
      stderr: "piped",
      ...(options.env ? { env: { ...options.env } } : {}),
    }).spawn();
  } catch (cause) {
    if (cause instanceof Deno.errors.NotFound) {
      throw new ProgramNotFoundError(`Cannot run ${program}: it is not installed`, { cause });
    }
    throw cause;
  }
  const kill = () => {
    try {
      child.kill("SIGKILL");
    } catch { /* it has ended */ }
  };
  limit.signal.addEventListener("abort", kill, { once: true });
  try {
    const feed = options.stdin === undefined ? undefined : (async () => {
      const writer = child.stdin.getWriter();
      try {
        await writer.write(new TextEncoder().encode(options.stdin));
        await writer.close();
      } catch { /* it ended without reading everything; its exit code tells */ }
    })();
    const [output] = await Promise.all([child.output(), feed]);
    limit.signal.throwIfAborted();
    return {
      code: output.code,
      stdout: new TextDecoder().decode(output.stdout),
      stderr: new TextDecoder().decode(output.stderr),
    };
  } finally {
    limit.signal.removeEventListener("abort", kill);
  }
}

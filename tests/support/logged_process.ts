import { deadline } from "../../src/util/time.ts";
import { residentBytes, sendSignal } from "./process_table.ts";
import { patient } from "./slowness.ts";

/** Options of {@linkcode startLogged}. */
export interface StartLoggedOptions {
  /** What the process is called in errors. */
  readonly title: string;
  /** Its output, both streams, is appended to this file. */
  readonly logFile: string;
  /** The whole environment; nothing is inherited. */
  readonly env: Readonly<Record<string, string>>;
  /** Keeps its standard input open, without anything to read, for as long as we live. */
  readonly holdStdin?: boolean;
}

/** Starts a program whose output is logged to a file and can be asked for. */
export function startLogged(
  command: { readonly program: string; readonly args: readonly string[] },
  options: StartLoggedOptions,
): LoggedProcess {
  const child = new Deno.Command(command.program, {
    args: [...command.args],
    env: { ...options.env },
    clearEnv: true,
    stdin: options.holdStdin ? "piped" : "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  return new LoggedProcess(child, options);
}

/** A running program and what it has written. Disposing kills it and waits for its end. */
export class LoggedProcess implements AsyncDisposable {
  readonly title: string;
  readonly pid: number;
  readonly logFile: string;
  /** Milliseconds on the clock of `performance.now()` at which it was started. */
  readonly startedAt = performance.now();
  /** How it ended, once all its output has been read. */
  readonly status: Promise<Deno.CommandStatus>;
  readonly #child: Deno.ChildProcess;
  readonly #holdsStdin: boolean;
  readonly #lines: string[] = [];
  readonly #waiters = new Set<() => void>();
  #ended: Deno.CommandStatus | undefined;

  constructor(child: Deno.ChildProcess, options: StartLoggedOptions) {
    this.title = options.title;
    this.pid = child.pid;
    this.logFile = options.logFile;
    this.#child = child;
    this.#holdsStdin = options.holdStdin ?? false;
    this.status = this.#collect();
  }

  /** How it ended; `undefined` while it runs. */
  get ended(): Deno.CommandStatus | undefined {
    return this.#ended;
  }

  /** Lines written so far, oldest first, of both streams. */
  get lines(): readonly string[] {
    return this.#lines;
  }

  /** The last lines written, for a message to a person. */
  tail(count = 15): string {
    return this.#lines.slice(-count).map((line) => `  ${this.title}: ${line}`).join("\n");
  }

  /** VmRSS in bytes. */
  residentBytes(): number {
    return residentBytes(this.pid);
  }

  /** Sends a signal; no error if the process has ended. */
  signal(signal: Deno.Signal): void {
    if (this.#ended === undefined) sendSignal(this.pid, signal);
  }

  /** Asks it to end, waits, and kills it if it has not ended within `graceMs`. */
  async stop(options: { graceMs?: number } = {}): Promise<Deno.CommandStatus> {
    this.signal("SIGTERM");
    const timer = setTimeout(() => this.signal("SIGKILL"), patient(options.graceMs ?? 10_000));
    try {
      return await this.status;
    } finally {
      clearTimeout(timer);
    }
  }

  /** Kills it outright, as `kill -9` does. */
  kill(): Promise<Deno.CommandStatus> {
    this.signal("SIGKILL");
    return this.status;
  }

  /**
   * The first line, among those from `from` on, that matches; waits for it to be written.
   *
   * @throws {Error} If the process ends before such a line, or after `timeoutMs` (60 s).
   * @throws `signal.reason` on abort.
   */
  async waitForLine(
    pattern: RegExp,
    options: { signal: AbortSignal; from?: number; timeoutMs?: number },
  ): Promise<string> {
    const { signal } = options;
    const timeoutMs = patient(options.timeoutMs ?? 60_000);
    using limit = deadline(timeoutMs, { signal });
    for (let next = options.from ?? 0;;) {
      for (; next < this.#lines.length; next++) {
        if (pattern.test(this.#lines[next]!)) return this.#lines[next]!;
      }
      signal.throwIfAborted();
      if (this.#ended || limit.signal.aborted) {
        const why = this.#ended ? `it exited with ${this.#ended.code}` : `${timeoutMs} ms are over`;
        throw new Error(
          `Cannot find ${pattern} in the log of ${this.title}: ${why}; its end:\n${this.tail()}`,
        );
      }
      await this.#moreOutput(limit.signal);
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  async #collect(): Promise<Deno.CommandStatus> {
    using file = await Deno.open(this.logFile, { append: true, create: true });
    const read = async (stream: ReadableStream<Uint8Array>) => {
      const decoder = new TextDecoder();
      let rest = "";
      for await (const chunk of stream) {
        file.writeSync(chunk);
        const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop()!;
        this.#append(lines);
      }
      if (rest !== "") this.#append([rest]);
    };
    const [status] = await Promise.all([
      this.#child.status,
      read(this.#child.stdout),
      read(this.#child.stderr),
    ]);
    if (this.#holdsStdin) await this.#child.stdin.abort().catch(() => {/* closed with it */});
    this.#ended = status;
    this.#wake();
    return status;
  }

  #append(lines: readonly string[]): void {
    this.#lines.push(...lines);
    this.#wake();
  }

  #wake(): void {
    for (const wake of [...this.#waiters]) wake();
  }

  /** Resolves when there is more output, when the process has ended, or on abort. */
  #moreOutput(signal: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = () => {
        this.#waiters.delete(wake);
        signal.removeEventListener("abort", wake);
        resolve();
      };
      this.#waiters.add(wake);
      signal.addEventListener("abort", wake, { once: true });
    });
  }
}

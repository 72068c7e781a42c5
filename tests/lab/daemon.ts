import { deadline } from "../../src/util/time.ts";
import { LoggedProcess, startLogged } from "../support/logged_process.ts";
import type { NetworkNamespace } from "../support/namespace.ts";
import { NotifySocket } from "../support/notify_socket.ts";
import { patient } from "../support/slowness.ts";
import { daemonCommand, type DaemonProgram, denoEnvironment } from "./program.ts";

/** Options of {@linkcode startDaemon}. */
export interface StartDaemonOptions {
  readonly title: string;
  readonly program: DaemonProgram;
  readonly namespace: NetworkNamespace;
  /** Directory for the notification socket. */
  readonly directory: string;
  readonly logFile: string;
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Starts a daemon in a namespace, as a service manager would. */
export function startDaemon(options: StartDaemonOptions): Daemon {
  const notify = new NotifySocket(`${options.directory}/notify-${crypto.randomUUID().slice(0, 8)}`);
  try {
    const command = daemonCommand(options.program, options.flags);
    const process = startLogged(options.namespace.command(command.program, command.args), {
      title: options.title,
      logFile: options.logFile,
      env: { ...denoEnvironment(), ...options.env, NOTIFY_SOCKET: notify.path },
    });
    return new Daemon(process, notify);
  } catch (error) {
    notify[Symbol.dispose]();
    throw error;
  }
}

/** A running daemon: its process, its log and what it tells the service manager. */
export class Daemon implements AsyncDisposable {
  readonly process: LoggedProcess;
  readonly #notify: NotifySocket;

  constructor(process: LoggedProcess, notify: NotifySocket) {
    this.process = process;
    this.#notify = notify;
  }

  /** STATUS texts so far, oldest first. */
  statuses(): string[] {
    return this.#notify.messages().map(({ fields }) => fields.get("STATUS"))
      .filter((status) => status !== undefined);
  }

  /** Whether `READY=1` has come. */
  isReady(): boolean {
    return this.#notify.messages().some(({ fields }) => fields.get("READY") === "1");
  }

  /**
   * Waits for `READY=1`; returns the milliseconds it took from the start of the process. All that
   * it had logged by then is in the log.
   *
   * @throws {Error} With the last lines of the log, if the daemon ends first or time runs out.
   */
  async ready(options: { signal: AbortSignal; timeoutMs?: number }): Promise<number> {
    const { process } = this;
    const ended = new AbortController();
    process.status.then(({ code }) => ended.abort(new Error(`it exited with ${code}`)));
    using limit = deadline(patient(options.timeoutMs ?? 60_000), {
      signal: AbortSignal.any([options.signal, ended.signal]),
    });
    try {
      const message = await this.#notify.waitFor("READY", /^1$/, limit);
      // The log is another way than the notification: what was written first may arrive last.
      await process.waitForLine(/Ready: the subnet is usable/, limit);
      return message.receivedAtMs - process.startedAt;
    } catch (cause) {
      options.signal.throwIfAborted();
      const status = this.statuses().at(-1) ?? "none";
      throw new Error(
        `${process.title} did not get ready (last status: ${status}); its log ends so:\n` +
          process.tail(),
        { cause },
      );
    }
  }

  /** SIGTERM, and SIGKILL after `graceMs`; returns how it ended. */
  async stop(options: { graceMs?: number } = {}): Promise<Deno.CommandStatus> {
    const status = await this.process.stop(options);
    this.#close();
    return status;
  }

  /** SIGKILL; returns when it has ended. */
  async kill(): Promise<Deno.CommandStatus> {
    const status = await this.process.kill();
    this.#close();
    return status;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
  }

  #close(): void {
    this.#notify.messages();
    this.#notify[Symbol.dispose]();
  }
}

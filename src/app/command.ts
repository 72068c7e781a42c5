/**
 * The command line: picks the action, sets up logging and signals, and decides the exit code.
 *
 * @module
 */
import denoConfig from "../../deno.json" with { type: "json" };
import { cleanEnvironment } from "../cli/environment.ts";
import { writeDockerOptions } from "../host/docker_opts.ts";
import { hideArguments } from "../host/hide_arguments.ts";
import {
  type CommandLine,
  type PrintCommand,
  readCommandLine,
  SECRET_FLAGS,
} from "../cli/parse.ts";
import { paintHelp, paintLog, styleOf } from "../cli/style.ts";
import { usage } from "../cli/usage.ts";
import { describeError, OperatorError, UsageError } from "../errors.ts";
import { createLogger } from "../log.ts";
import { LogWriter } from "../log_writer.ts";
import { backends as allBackends } from "../runtime/mod.ts";
import type { BackendEntry } from "../runtime/runtime.ts";
import { redact } from "../secret.ts";
import { withSystemDirectories } from "../util/process.ts";
import { feedWatchdog, openNotifier } from "../service_manager/notify.ts";
import { cleanUp } from "./cleanup.ts";
import { runDaemon } from "./daemon.ts";
import { takeInstanceLock } from "../host/instance_lock.ts";
import { Progress, terminalColumns } from "./progress.ts";
import { hearLibraries } from "../host/libraries.ts";

/** How long an orderly end may take before the process ends anyway. */
const STOP_LIMIT_MS = 1_800;
/** How long the last log lines may take to be written. */
const LAST_LINES_MS = 250;

/**
 * Runs the command line `args` and returns the exit code: 0 after a signal, help and version; 1
 * when an operator is needed; 2 for a wrong command line or environment.
 */
export async function runCommand(
  args: readonly string[],
  { backends = allBackends }: { readonly backends?: readonly BackendEntry[] } = {},
): Promise<number> {
  const hideProblem = hideArguments(SECRET_FLAGS);
  const environment = cleanEnvironment(Deno.env.toObject());
  Deno.env.set("PATH", withSystemDirectories(environment["PATH"])); // for iptables and nft
  const style = styleOf(Deno.stderr, environment);
  const complain = (line: string) =>
    write(Deno.stderr, `${style.error("flanneld:")} ${redact(line)}\n`);
  let command;
  try {
    command = await readCommandLine(args, environment);
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    error.message.split("\n").forEach(complain);
    return 2;
  }
  if (prints(command)) {
    const text = await textOf(command);
    const isHelp = command.action === "help";
    write(Deno.stdout, isHelp ? paintHelp(text, styleOf(Deno.stdout, environment)) : text);
    return 0;
  }
  if (command.action === "cni") return await (await import("../cni/mod.ts")).servePlugin();
  if (command.action === "self-test") {
    const { selfTest } = await import("./self_check.ts");
    return await selfTest({ backends, say: (line) => write(Deno.stdout, `${line}\n`) }) ? 0 : 1;
  }

  if (command.action === "check-config") {
    const { checkConfig } = await import("./check_config.ts");
    const say = (line: string) => write(Deno.stdout, `${line}\n`);
    return await checkConfig(command.file, { backends, say, complain }) ? 0 : 1;
  }
  if (command.action === "docker-opts") {
    try {
      for (const warning of await writeDockerOptions(command.options, environment)) {
        write(Deno.stderr, `flanneld: ${warning}\n`);
      }
      return 0;
    } catch (error) {
      const what = error instanceof OperatorError ? undefined : "Cannot write Docker's options";
      complain(describeError(error, what));
      return 1;
    }
  }

  const { options, warnings } = command;
  const writer = new LogWriter();
  const { logFormat: format, verbosity } = options;
  const progress = new Progress(writer.write, {
    columns: format === "human" ? terminalColumns(environment) : undefined,
  });
  const log = createLogger({
    format,
    verbosity,
    write: (line) => progress.log(format === "human" ? paintLog(line, style) : line),
  });
  writer.onLoss = (lost) => log.warn("Log lines were lost: stderr did not take them", { lost });
  for (const warning of warnings) log.warn(warning);
  if (hideProblem !== undefined) log.warn(hideProblem);
  using notifier = progress.following(openNotifier(environment["NOTIFY_SOCKET"]));
  if (notifier.problem !== undefined) log.warn(notifier.problem);
  using _watchdog = feedWatchdog(notifier, environment);

  using _libraries = hearLibraries(log);

  const stop = new AbortController();
  let stopTimer: ReturnType<typeof setTimeout> | undefined;
  const onSignal = (name: Deno.Signal) => {
    if (stop.signal.aborted) Deno.exit(0); // a second signal ends at once
    log.info(`${name} received: stopping; the data plane stays as it is`);
    notifier.stopping();
    stopTimer = setTimeout(() => Deno.exit(0), STOP_LIMIT_MS);
    stop.abort(new Stopped());
  };
  // For good: a second signal in the last moment of the process must not end it as if it had failed.
  Deno.addSignalListener("SIGINT", () => onSignal("SIGINT"));
  Deno.addSignalListener("SIGTERM", () => onSignal("SIGTERM"));
  try {
    using lock = await takeInstanceLock({
      ...{ options, action: command.action, args, log },
      signal: stop.signal,
    });
    if (command.action === "cleanup") {
      const { release } = command;
      await cleanUp({ options, environment, backends, release, log, signal: stop.signal });
      await lock.removeFile();
      return 0;
    }
    await runDaemon({
      options,
      backends,
      environment,
      log,
      notifier,
      signal: stop.signal,
      version: denoConfig.version,
    });
    return 0;
  } catch (error) {
    if (stop.signal.aborted) return 0;
    progress.end();
    notifier.status(describeError(error));
    log.error(describeError(error));
    if (!(error instanceof OperatorError) && error instanceof Error && error.stack) {
      log.debug("This is a fault of flanneld", { stack: error.stack });
    }
    return 1;
  } finally {
    await writer.flush({ timeoutMs: LAST_LINES_MS });
    clearTimeout(stopTimer);
  }
}

function prints(command: CommandLine): command is PrintCommand {
  return ["help", "version", "man", "completion"].includes(command.action);
}

async function textOf(command: PrintCommand): Promise<string> {
  switch (command.action) {
    case "help":
      return usage();
    case "version":
      return `flanneld ${denoConfig.version} (Deno ${Deno.version.deno})\n`;
    case "completion":
      return (await import("../cli/completion.ts")).completion(command.shell);
    case "man":
      return (await import("../cli/manual_page.ts")).manualPage(denoConfig.version);
  }
}

/** Why everything ends: somebody asked for it. */
class Stopped extends Error {
  override message = "flanneld was asked to stop";
}

function write(stream: { writeSync(bytes: Uint8Array): number }, text: string): void {
  let bytes = new TextEncoder().encode(text);
  while (bytes.length > 0) bytes = bytes.subarray(stream.writeSync(bytes));
}

/**
 * What the tests of the running daemon share.
 *
 * @module
 */
import assert from "node:assert/strict";
import { runProgram, type RunResult } from "../../src/util/process.ts";
import {
  type Daemon,
  daemonCommand,
  type DaemonProgram,
  daemonProgram,
  denoEnvironment,
  type Host,
  type HostDaemonOptions,
  type Lab,
  type LabOptions,
  labTest,
  type LabTestOptions,
  openLab,
} from "../lab/mod.ts";

/** Where daemons serve their health when a test asks for it. */
export const HEALTH_PORT = 8471;
export const HEALTH_FLAGS = [`--healthz-ip=127.0.0.1`, `--healthz-port=${HEALTH_PORT}`];

/** A network whose daemons need no cloud. */
export const ALLOC_CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "alloc" } };

/** A lab without a cloud, with `config` in its etcd. */
export async function openAllocLab(
  options: Omit<LabOptions, "cloud"> & { readonly config?: unknown },
): Promise<Lab> {
  const lab = await openLab({ hosts: 1, ...options, cloud: false });
  try {
    await lab.writeConfig(options.config ?? ALLOC_CONFIG, options);
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/**
 * Declares a test whose parts, added by the function it returns, run at the same time: for those
 * that mostly wait. Each part opens a lab of its own, and is given a signal as by `labTest()`.
 */
export function labTestsAtOnce(
  title: string,
  options: LabTestOptions = {},
): (name: string, body: (context: { readonly signal: AbortSignal }) => Promise<void>) => void {
  const parts: { name: string; body: Parameters<ReturnType<typeof labTestsAtOnce>>[1] }[] = [];
  labTest(title, async ({ signal, step }) => {
    const passed = await Promise.all(
      parts.map(({ name, body }) => step(name, () => body({ signal }))),
    );
    assert.ok(passed.length > 0 && passed.every(Boolean));
  }, options);
  return (name, body) => void parts.push({ name, body });
}

/** The daemon behind a program that takes something from it: `words` come before its own. */
export async function behind(
  lab: Lab,
  name: string,
  words: readonly string[],
): Promise<DaemonProgram> {
  const command = daemonCommand(daemonProgram(), []);
  const quoted = [...words, command.program, ...command.args].map((word) => `'${word}'`).join(" ");
  const path = `${lab.directory}/flanneld-${name}`;
  await Deno.writeTextFile(path, `#!/bin/sh\nexec ${quoted} "$@"\n`, { mode: 0o755 });
  return { kind: "binary", path };
}

/** Starts a daemon on `host` and waits until it is ready. */
export async function startReady(
  host: Host,
  options: HostDaemonOptions & { readonly signal: AbortSignal },
): Promise<Daemon> {
  const daemon = await host.startDaemon(options);
  await daemon.ready(options);
  return daemon;
}

/** Runs the daemon as a command, outside any namespace; for what ends before it touches a thing. */
export async function runFlanneld(
  flags: readonly string[],
  options: { readonly signal: AbortSignal; readonly env?: Readonly<Record<string, string>> },
): Promise<RunResult> {
  const { program, args } = daemonCommand(daemonProgram(), flags);
  return await runProgram("env", [
    "-i",
    ...Object.entries({ ...denoEnvironment(), ...options.env }).map(([key, value]) =>
      `${key}=${value}`
    ),
    program,
    ...args,
  ], { signal: options.signal, timeoutMs: 30_000 });
}

/** Asks the health server of `host`, from inside its namespace. */
export async function askHealth(
  host: Host,
  path: string,
  options: { readonly signal: AbortSignal },
): Promise<{ readonly status: number; readonly body: string }> {
  // Not every machine has curl; bash can connect by itself.
  const script = 'exec 3<>"/dev/tcp/127.0.0.1/$1"; ' +
    'printf "GET %s HTTP/1.0\\r\\n\\r\\n" "$2" >&3; cat <&3';
  const text = await host.namespace.run("bash", ["-c", script, "ask", `${HEALTH_PORT}`, path], {
    ...options,
    timeoutMs: 10_000,
  });
  const match = /^HTTP\/1\.[01] (\d{3}) [^]*?\r\n\r\n([^]*)$/.exec(text);
  if (!match) throw new Error(`Cannot read the answer of ${host.label}: ${text}`);
  return { status: Number(match[1]), body: match[2]! };
}

/** What `/status` says. */
export async function askStatus(
  host: Host,
  options: { readonly signal: AbortSignal },
  // deno-lint-ignore no-explicit-any -- a test names what it expects
): Promise<any> {
  return JSON.parse((await askHealth(host, "/status", options)).body);
}

/** The lines of a daemon's log that match. */
export function linesOf(daemon: Daemon, pattern: RegExp): string[] {
  return daemon.process.lines.filter((line) => pattern.test(line));
}

/**
 * Daemons in surroundings that a shell line makes: a stderr that nobody reads, few descriptors.
 *
 * @module
 */
import { V8_FLAGS } from "../../dist/compile.ts";
import { daemonCommand, type DaemonProgram, daemonProgram, type Host } from "../lab/mod.ts";

/**
 * The daemon under test behind bash commands, such as `ulimit -n 96`; `redirection` is what
 * follows its command line, such as `2>/dev/full`.
 */
export async function wrapProgram(
  host: Host,
  { commands = "", redirection = "" }: { commands?: string; redirection?: string },
): Promise<DaemonProgram> {
  const path = `${host.directory}/flanneld-${crypto.randomUUID().slice(0, 8)}`;
  const { program, args } = daemonCommand(daemonProgram(), []);
  // As compiled, so that memory may be compared.
  if (args[0] === "run") args.splice(1, 0, `--v8-flags=${V8_FLAGS}`);
  const words = [program, ...args].map((word) => `'${word.replaceAll("'", `'\\''`)}'`).join(" ");
  const script = `#!/bin/bash\n${commands}\nexec ${words} "$@" ${redirection}\n`;
  await Deno.writeTextFile(path, script, { mode: 0o700 });
  return { kind: "binary", path };
}

/** How many descriptors process `pid` has open. */
export function openDescriptors(pid: number): number {
  return [...Deno.readDirSync(`/proc/${pid}/fd`)].length;
}

/** The routes of `host` by their destinations. */
export async function routesOf(
  host: Host,
  options: { readonly signal: AbortSignal },
): Promise<Set<string>> {
  const text = await host.namespace.run("ip", ["-4", "route", "show"], options);
  return new Set(text.split("\n").map((line) => line.split(" ")[0]!));
}

/** How a daemon ended on SIGTERM. */
export interface Ending {
  readonly code: number;
  readonly tookMs: number;
}

/** Sends SIGTERM and waits for the end. */
export async function terminate(host: Host): Promise<Ending> {
  const { process } = host.daemon;
  const sentAt = performance.now();
  process.signal("SIGTERM");
  const { code } = await process.status;
  return { code, tookMs: performance.now() - sentAt };
}

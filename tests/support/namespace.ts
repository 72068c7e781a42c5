import { runProgram, type RunResult } from "../../src/util/process.ts";
import { delay } from "../../src/util/time.ts";
import { listPids, networkNamespaceOf, sendSignal, startTicks } from "./process_table.ts";
import { run, type RunCheckedOptions } from "./run.ts";
import { patient } from "./slowness.ts";

/** Every namespace and directory made here begins with this; nothing else is ever removed. */
const PREFIX = "flab";

/** Where iproute2 keeps the names of network namespaces. */
const NAMESPACE_DIRECTORY = "/run/netns";

/** `flab-<pid of the owner>-<its start in clock ticks, base 36>-<serial number>` */
const SET_NAME = /^flab-(\d+)-([0-9a-z]+)-\d+(?=-|$)/;

let serial = 0;

/** A network namespace with a name, as `ip netns` knows it. */
export class NetworkNamespace {
  readonly name: string;

  constructor(name: string) {
    this.name = name;
  }

  /**
   * The command that runs `program` inside. The program takes the place of `ip`, so that the
   * process id of the spawned command is the program's own.
   */
  command(program: string, args: readonly string[]): { program: string; args: string[] } {
    return { program: "ip", args: ["netns", "exec", this.name, program, ...args] };
  }

  /** Runs `program` inside; it has to succeed. Returns its standard output. */
  run(program: string, args: readonly string[], options: RunCheckedOptions): Promise<string> {
    const command = this.command(program, args);
    return run(command.program, command.args, options);
  }

  /** Runs `program` inside; its exit code is for the caller to judge. */
  try(program: string, args: readonly string[], options: RunCheckedOptions): Promise<RunResult> {
    const command = this.command(program, args);
    const timeoutMs = patient(options.timeoutMs ?? 30_000);
    return runProgram(command.program, command.args, { ...options, timeoutMs });
  }

  /** Runs `ip` commands inside, in order, in one process; the first that fails ends it. */
  async ip(commands: readonly string[], options: { signal: AbortSignal }): Promise<void> {
    if (commands.length === 0) return;
    await run("ip", ["-n", this.name, "-batch", "-"], {
      ...options,
      stdin: commands.join("\n") + "\n",
    });
  }

  /** Applies an nftables script inside, as one transaction. */
  async nft(script: string, options: { signal: AbortSignal }): Promise<void> {
    await this.run("nft", ["-f", "-"], { ...options, stdin: script });
  }

  /** Sets sysctl keys below `/proc/sys`, given as paths such as `net/ipv4/ip_forward`. */
  async sysctl(
    values: Readonly<Record<string, string>>,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const byValue = Map.groupBy(Object.entries(values), ([, value]) => value);
    for (const [value, entries] of byValue) {
      const files = entries.map(([key]) => `/proc/sys/${key}`);
      // Written by a program inside, since /proc/sys/net shows the namespace of who opens it.
      await this.run("tee", files, { ...options, stdin: value });
    }
  }
}

/** Options of {@linkcode openNamespaces}. */
export interface OpenNamespacesOptions {
  readonly signal: AbortSignal;
}

/**
 * Makes a set of network namespaces with a private directory beside it. Disposing the set ends
 * every process inside, then removes namespaces and directory. If this process is killed, a
 * small companion process does the same; and sets whose owner is gone are removed here first.
 *
 * @throws {Error} Without root.
 */
export async function openNamespaces(options: OpenNamespacesOptions): Promise<NamespaceSet> {
  await removeLeftovers(options);
  const name = `${PREFIX}-${Deno.pid}-${startTicks("self")!.toString(36)}-${++serial}`;
  const directory = `${temporaryDirectory()}/${name}`;
  const janitor = startJanitor();
  try {
    await Deno.mkdir(directory, { mode: 0o700 });
  } catch (error) {
    await janitor.dismiss();
    throw error;
  }
  return new NamespaceSet(name, directory, janitor);
}

/** Namespaces that live and die together; see {@linkcode openNamespaces}. */
export class NamespaceSet implements AsyncDisposable {
  /** Common beginning of the names. */
  readonly name: string;
  /** A directory of mode 0700 for sockets, logs and state. */
  readonly directory: string;
  readonly #janitor: Janitor;

  constructor(name: string, directory: string, janitor: Janitor) {
    this.name = name;
    this.directory = directory;
    this.#janitor = janitor;
  }

  /** Makes one namespace per label, with nothing but a loopback that is down. */
  async add<Label extends string>(
    labels: readonly Label[],
    options: { signal: AbortSignal },
  ): Promise<NetworkNamespace[]> {
    const namespaces = labels.map((label) => new NetworkNamespace(`${this.name}-${label}`));
    await run("ip", ["-batch", "-"], {
      ...options,
      stdin: namespaces.map(({ name }) => `netns add ${name}\n`).join(""),
    });
    return namespaces;
  }

  /** Removes one namespace of the set and whatever runs in it. */
  async remove(namespace: NetworkNamespace): Promise<void> {
    await removeNamespaces([namespace.name]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await removeSets([this.name]);
    await this.#janitor.dismiss();
  }
}

/**
 * Removes the namespaces, the processes in them and the directories of every set whose owner is
 * gone. Sets of living processes stay.
 *
 * @returns The names of the sets removed.
 */
export async function removeLeftovers(_options: { signal: AbortSignal }): Promise<string[]> {
  const sets = new Set<string>();
  for (const name of [...namesIn(NAMESPACE_DIRECTORY), ...namesIn(temporaryDirectory())]) {
    const match = SET_NAME.exec(name);
    if (!match) continue;
    const [set, pid, start] = match;
    if (startTicks(Number(pid))?.toString(36) !== start) sets.add(set);
  }
  await removeSets([...sets]);
  return [...sets];
}

/** Names of the sets that process `pid` made and that are still there. */
export function setsOf(pid: number): string[] {
  const names = [...namesIn(NAMESPACE_DIRECTORY), ...namesIn(temporaryDirectory())];
  const sets = names.map((name) => SET_NAME.exec(name)).filter((match) => match !== null);
  return [...new Set(sets.filter((match) => Number(match[1]) === pid).map((match) => match[0]))];
}

async function removeSets(sets: readonly string[]): Promise<void> {
  if (sets.length === 0) return;
  const belongs = (name: string) => sets.includes(SET_NAME.exec(name)?.[0] ?? "");
  await removeNamespaces(namesIn(NAMESPACE_DIRECTORY).filter(belongs));
  for (const set of sets) {
    try {
      await Deno.remove(`${temporaryDirectory()}/${set}`, { recursive: true });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

async function removeNamespaces(names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  await killProcessesIn(names);
  // Not abortable: this is what runs after an abort. `-force` goes on past a name that is gone,
  // as happens where two processes tidy up after the same third.
  await runProgram("ip", ["-force", "-batch", "-"], {
    signal: new AbortController().signal,
    stdin: names.map((name) => `netns del ${name}\n`).join(""),
    timeoutMs: patient(60_000),
  });
  const left = namesIn(NAMESPACE_DIRECTORY).filter((name) => names.includes(name));
  if (left.length > 0) throw new Error(`Cannot remove network namespaces ${left.join(", ")}`);
}

/** Kills what runs in the namespaces; returns when nothing does. */
async function killProcessesIn(names: readonly string[]): Promise<void> {
  const inodes = new Set<number>();
  for (const name of names) {
    const inode = namespaceInode(name);
    if (inode !== undefined) inodes.add(inode);
  }
  const own = networkNamespaceOf(Deno.pid);
  if (own !== undefined) inodes.delete(own);
  for (let round = 0; round < 100; round++) {
    const pids = listPids().filter((pid) => inodes.has(networkNamespaceOf(pid) ?? -1));
    if (pids.length === 0) return;
    for (const pid of pids) sendSignal(pid, "SIGKILL");
    await delay(20, { signal: new AbortController().signal });
  }
  throw new Error(`Cannot end the processes in ${names.join(", ")}: they do not die`);
}

interface Janitor {
  /** Ends the companion without it doing anything. */
  dismiss(): Promise<void>;
}

/**
 * Starts the companion that tidies up if this process dies without disposing: it waits for the
 * end of its standard input, which the kernel closes with us however we end.
 */
function startJanitor(): Janitor {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--cached-only", new URL("./janitor.ts", import.meta.url).pathname],
    stdin: "piped",
    stdout: "null",
    stderr: "null",
  }).spawn();
  return {
    async dismiss() {
      sendSignal(child.pid, "SIGKILL");
      await child.stdin.abort().catch(() => {/* the pipe is gone with the reader */});
      await child.status;
    },
  };
}

/** Inode of the namespace called `name`; `undefined` if somebody else has just removed it. */
function namespaceInode(name: string): number | undefined {
  try {
    return Deno.lstatSync(`${NAMESPACE_DIRECTORY}/${name}`).ino ?? undefined;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

function temporaryDirectory(): string {
  return Deno.env.get("TMPDIR")?.replace(/\/+$/, "") || "/tmp";
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

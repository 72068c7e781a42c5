/**
 * One flanneld per subnet file and per network: two would treat each other's lease, rules
 * and subnet.env as drift, and `cleanup` would undo what a running daemon needs.
 *
 * Both locks end with their process, `kill -9` included. The subnet file's is a flock(2) beside it,
 * seen by all that share the file. The network's is a name in the abstract namespace of unix
 * sockets: host-wide where daemons share the host's network, whatever files a container sees, and
 * apart in network namespaces of their own.
 *
 * @module
 */
import { createHash } from "node:crypto";
import { basename, dirname, join } from "node:path";
import {
  type AbstractName,
  holderOfAbstractName,
  type NameHolder,
  takeAbstractName,
} from "../../ffi/libc/unix_socket.ts";
import { Libc } from "../../ffi/libc/open.ts";
import type { Options } from "../cli/options.ts";
import { SECRET_FLAGS } from "../cli/parse.ts";
import { describeError, OperatorError } from "../errors.ts";
import { followLinks, ifPresent } from "./atomic_file.ts";
import type { Logger } from "../log.ts";
import { joinPath } from "../util/go_path.ts";
import { delay } from "../util/time.ts";

export interface InstanceLockOptions {
  readonly options: Pick<Options, "subnetFile" | "etcdPrefix">;
  readonly action: "run" | "cleanup";
  readonly args: readonly string[];
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** How long a predecessor may take to end. @default {3_000} */
  readonly patienceMs?: number;
}

const PATIENCE_MS = 3_000;
const RETRY_MS = 100;
/** Attempts if the locked file was removed meanwhile. */
const MAX_TRIES = 5;
/** How often connections of processes that asked for the holder are closed. */
const REFRESH_MS = 60_000;
/** Longer commands are shown by their beginning and end. */
const SHOWN_CHARS = { start: 40, end: 240 };
const MAX_NAME_BYTES = 100;

/** Held by the only process of its kind; disposing releases it. */
export interface InstanceLock extends Disposable {
  /** Removes the lock's file, while it is held. */
  removeFile(): Promise<void>;
}

/** A conflicting process: what it shares with this one, and who it is. */
interface Conflict {
  readonly shared: string;
  readonly holder: Process;
}

/** A process; without `pid` if it is not visible from here. */
interface Process {
  readonly pid?: number | undefined;
  readonly command?: string | undefined;
}

/**
 * Takes both locks, waiting briefly for a predecessor that is about to end.
 *
 * @throws {OperatorError} If another flanneld runs, naming its process and what both share.
 */
export async function takeInstanceLock(context: InstanceLockOptions): Promise<InstanceLock> {
  const { options: { subnetFile, etcdPrefix }, action, args, log, signal } = context;
  const until = performance.now() + (context.patienceMs ?? PATIENCE_MS);
  const libc = Libc.open();
  using stack = new DisposableStack();
  stack.use(libc);
  const fileLock = stack.use(new FileLock(await lockPath(subnetFile), log));
  const nameLock = stack.use(new NameLock(libc, lockName(etcdPrefix), log));
  while (true) {
    const conflicts: Conflict[] = [];
    const words = await fileLock.take(args);
    if (words !== undefined) {
      conflicts.push({ shared: `subnet file ${subnetFile}`, holder: readHolder(libc, words) });
    }
    const holder = nameLock.take();
    if (holder !== undefined) {
      const { pid } = holder;
      conflicts.push({
        shared: `etcd prefix ${etcdPrefix}`,
        holder: pid > 0 ? { pid, command: commandOf(libc, pid) } : {},
      });
    }
    if (conflicts.length === 0) break;
    if (performance.now() >= until) throw new OperatorError(refusal(action, conflicts));
    await delay(RETRY_MS, { signal });
  }
  const kept = stack.move();
  return {
    removeFile: () => fileLock.remove(),
    [Symbol.dispose]: () => kept.dispose(),
  };
}

function refusal(action: "run" | "cleanup", conflicts: readonly Conflict[]): string {
  const seen = new Set<number | undefined>();
  const holders = conflicts.map(({ holder }) => holder)
    .filter(({ pid }) => !seen.has(pid) && seen.add(pid)).map(describeProcess).join(" and ");
  const shared = conflicts.map((conflict) => conflict.shared).join(" and ");
  return action === "cleanup"
    ? `Cannot clean up: a flanneld with the same ${shared} is running (${holders}), which needs ` +
      "what would be removed; stop it first"
    : `Cannot start: a flanneld with the same ${shared} is running on this host (${holders}); ` +
      "stop it first, or give this one its own --subnet-file and --etcd-prefix";
}

/** The lock beside the subnet file; skipped where that directory is not writable. */
class FileLock implements Disposable {
  readonly #path: string;
  readonly #log: Logger;
  #file: Deno.FsFile | undefined;
  #impossible = false;

  constructor(path: string, log: Logger) {
    this.#path = path;
    this.#log = log;
  }

  /** Takes the lock; returns what its holder wrote, if there is one. */
  async take(args: readonly string[], tries = MAX_TRIES): Promise<string | undefined> {
    if (this.#file || this.#impossible) return undefined;
    try {
      await Deno.mkdir(dirname(this.#path), { recursive: true, mode: 0o755 });
      await this.#refuseForeign();
      // Only for its owner: any process that may open a file may lock it.
      const file = await Deno.open(this.#path, {
        read: true,
        write: true,
        create: true,
        mode: 0o600,
      });
      if (!await file.tryLock(true)) {
        using _file = file;
        return await readStart(file);
      }
      if (tries > 1 && !await this.#isInPlace(file)) { // removed by a clean-up meanwhile
        file.close();
        return await this.take(args, tries - 1);
      }
      this.#file = file;
      await file.truncate();
      await file.write(
        new TextEncoder().encode(`${Deno.pid}\n${withoutSecrets(["flanneld", ...args])}\n`),
      );
    } catch (error) {
      this.#impossible = this.#file === undefined;
      if (this.#impossible) {
        this.#log.warn(
          `A second flanneld with this subnet file would not be noticed: ${describeError(error)}`,
        );
      }
    }
    return undefined;
  }

  /** Rejects a file of another user: it is neither written to nor waited for. */
  async #refuseForeign(): Promise<void> {
    const info = await ifPresent(Deno.lstat(this.#path));
    if (info && (!info.isFile || (info.uid !== 0 && info.uid !== Deno.uid()))) {
      throw new Error(`${this.#path} is no file of flanneld's`);
    }
  }

  async #isInPlace(file: Deno.FsFile): Promise<boolean> {
    const [own, present] = await Promise.all([
      file.stat(),
      Deno.stat(this.#path).catch(() => undefined),
    ]);
    return own.ino === present?.ino && own.dev === present?.dev;
  }

  async remove(): Promise<void> {
    if (this.#file) await Deno.remove(this.#path).catch(() => {});
  }

  [Symbol.dispose](): void {
    this.#file?.close();
    this.#file = undefined;
  }
}

/** The lock of the network. */
class NameLock implements Disposable {
  readonly #libc: Libc;
  readonly #name: string;
  readonly #log: Logger;
  #held: AbstractName | undefined;
  /** Asked for once: each query occupies the holder's backlog for a while. */
  #holder: NameHolder | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;

  constructor(libc: Libc, name: string, log: Logger) {
    this.#libc = libc;
    this.#name = name;
    this.#log = log;
  }

  /** Takes the name; returns its holder, if there is one that counts. */
  take(): NameHolder | undefined {
    if (this.#held) return undefined;
    const held = takeAbstractName(this.#libc, this.#name);
    if (held) {
      this.#held = held;
      this.#timer = setInterval(() => held.refresh(), REFRESH_MS);
      Deno.unrefTimer(this.#timer);
      return undefined;
    }
    this.#holder ??= holderOfAbstractName(this.#libc, this.#name);
    const holder = this.#holder ?? { pid: 0, uid: 0 };
    // Any user can take a name; that must not block the daemon.
    if (holder.uid === 0 || holder.uid === Deno.uid()) return holder;
    this.#log.warn(
      `A second flanneld with this etcd prefix would not be noticed: process ${holder.pid} of ` +
        `user ${holder.uid} holds the name of the lock, @${this.#name}`,
    );
    this.#held = { refresh: () => {}, [Symbol.dispose]: () => {} };
    return undefined;
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
    this.#held?.[Symbol.dispose]();
  }
}

/** `/run/flannel/.subnet.env.lock`, beside the file that a symbolic link leads to. */
async function lockPath(subnetFile: string): Promise<string> {
  const target = await followLinks(subnetFile).catch(() => subnetFile);
  return join(dirname(target), `.${basename(target)}.lock`);
}

/** `flanneld:/coreos.com/network`, or a digest where that is too long. */
function lockName(etcdPrefix: string): string {
  const name = `flanneld:${joinPath(etcdPrefix)}`; // canonical
  if (new TextEncoder().encode(name).length <= MAX_NAME_BYTES) return name;
  return `flanneld:${createHash("sha256").update(name).digest("hex")}`;
}

function withoutSecrets(words: readonly string[]): string {
  const isSecret = (word: string) =>
    SECRET_FLAGS.some((name) => new RegExp(`^--?${name}(?:=|$)`).test(word));
  const shown = words.flatMap((word, at) => {
    if (isSecret(word)) return word.replace(/=[^]*/, "=…");
    return at > 0 && isSecret(words[at - 1]!) && !words[at - 1]!.includes("=") ? "…" : word;
  });
  // deno-lint-ignore no-control-regex -- a line for a message
  return shown.join(" ").replaceAll(/[\u0000-\u001f\u007f]+/g, " ").trim();
}

async function readStart(file: Deno.FsFile): Promise<string> {
  const bytes = new Uint8Array(4_096);
  const length = await file.read(bytes) ?? 0;
  return new TextDecoder().decode(bytes.subarray(0, length));
}

/** The file's holder as it described itself, without a pid that is another process here. */
function readHolder(libc: Libc, words: string): Process {
  const [first = "", second = ""] = words.split("\n");
  const pid = /^[1-9]\d{0,9}$/.test(first) ? Number(first) : undefined;
  const command = withoutSecrets(second.split(" ")) || undefined;
  const seen = pid === undefined ? undefined : commandOf(libc, pid);
  // The arguments come last, after the program and its interpreter.
  const args = command?.replace(/^\S+ ?/, "") ?? "";
  return seen?.includes(args) ? { pid, command } : { command };
}

function describeProcess({ pid, command }: Process): string {
  const who = pid === undefined ? "a process that cannot be seen from here" : `pid ${pid}`;
  if (command === undefined) return who;
  const { start, end } = SHOWN_CHARS;
  const isLong = command.length > start + end;
  return `${who}: ${isLong ? `${command.slice(0, start)}…${command.slice(-end)}` : command}`;
}

/** The command line of a process, if visible from here. */
function commandOf(libc: Libc, pid: number): string | undefined {
  if (pid <= 0) return undefined;
  try {
    const text = libc.readKernelFile(`/proc/${pid}/cmdline`);
    return withoutSecrets(text.split("\0")) || undefined;
  } catch {
    return undefined;
  }
}

import { basename, dirname, resolve } from "node:path";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";

/** A file and its whole content. */
export interface SubnetFileSpec {
  readonly path: string;
  /** See `renderSubnetEnv()`. */
  readonly text: string;
}

/** A file this long is not subnet.env; no more of it is read, and it is replaced. */
const MAX_BYTES = 65_536;

/** As the kernel's limit. */
const MAX_SYMLINKS = 40;

const subnetFileKind: Kind<SubnetFileSpec> = {
  name: "subnet file",
  key: ({ path }) => path,
  equal: (desired, actual) => desired.text === actual.text,
  owns: () => true,
  format({ path, text }) {
    // Only printable characters: the text may be whatever somebody put there.
    const line = text.trim().replaceAll(/[^ -~]+/g, " ");
    return `${path}: ${line.length > 300 ? `${line.slice(0, 300)}…` : line}`;
  },
};

/**
 * The subnet file as a Table with one object. Written so that readers see the old content or the
 * new, never a part; never removed, since pods that start while the daemon is away need it.
 */
export class SubnetFileTable implements Table<SubnetFileSpec> {
  readonly kind = subnetFileKind;
  readonly #path: string;

  constructor(path: string) {
    this.#path = path;
  }

  async list({ signal }: { signal: AbortSignal }): Promise<SubnetFileSpec[]> {
    signal.throwIfAborted();
    const text = await readSubnetFile(this.#path);
    return text === undefined ? [] : [{ path: this.#path, text }];
  }

  async apply(
    changes: readonly Change<SubnetFileSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<FailedChange<SubnetFileSpec>[]> {
    const failed: FailedChange<SubnetFileSpec>[] = [];
    for (const change of changes) {
      signal.throwIfAborted();
      if (change.op === "remove") continue;
      try {
        await writeFileAtomically(this.#path, change.desired.text);
      } catch (cause) {
        const error = new Error(
          `Cannot write ${this.#path}: check that its directory can be written, or choose ` +
            `another place with --subnet-file`,
          { cause },
        );
        failed.push({ change, error });
      }
    }
    return failed;
  }
}

/**
 * The text of the subnet file, at most 64 KiB of it; `undefined` if there is no such file.
 *
 * @throws If it exists and cannot be read.
 */
export async function readSubnetFile(path: string): Promise<string | undefined> {
  let file: Deno.FsFile;
  try {
    file = await Deno.open(path, { read: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw new Error(
      `Cannot read ${path}: see what is in its place, or choose another one with --subnet-file`,
      { cause: error },
    );
  }
  using _file = file;
  const buffer = new Uint8Array(MAX_BYTES);
  let length = 0;
  while (length < MAX_BYTES) {
    const count = await file.read(buffer.subarray(length));
    if (count === null) break;
    length += count;
  }
  return new TextDecoder().decode(buffer.subarray(0, length));
}

/**
 * Puts `text` in the place of the file, through a synced temporary file beside it. An existing
 * file's mode is kept, else it is 0644; missing directories are made with 0755. Of a symbolic link
 * the file that it leads to is replaced, and the link stays.
 */
export async function writeFileAtomically(
  path: string,
  text: string,
  options: { readonly mode?: number } = {},
): Promise<void> {
  const target = await followLinks(path);
  await Deno.mkdir(dirname(target), { recursive: true, mode: 0o755 });
  const mode = await modeOf(target) ?? options.mode ?? 0o644;
  const temporary = temporaryOf(target);
  await removeIfPresent(temporary);
  try {
    {
      using file = await Deno.open(temporary, { write: true, createNew: true, mode: 0o600 });
      const bytes = new TextEncoder().encode(text);
      for (let written = 0; written < bytes.length;) {
        written += await file.write(bytes.subarray(written));
      }
      await file.sync();
    }
    // Not at creation: there the process's umask takes bits away.
    await Deno.chmod(temporary, mode);
    await Deno.rename(temporary, target);
  } catch (error) {
    await removeIfPresent(temporary);
    throw error;
  }
}

/** The path that `path` leads to over symbolic links; it need not be there. */
export async function followLinks(path: string): Promise<string> {
  let current = resolve(path);
  for (let links = 0; links <= MAX_SYMLINKS; links++) {
    try {
      if (!(await Deno.lstat(current)).isSymlink) return current;
      current = resolve(dirname(current), await Deno.readLink(current));
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return current;
      throw error;
    }
  }
  throw new Error(`Cannot follow ${path}: too many symbolic links`);
}

async function modeOf(path: string): Promise<number | undefined> {
  try {
    const { mode } = await Deno.stat(path);
    return mode === null ? undefined : mode & 0o777;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Removes the subnet file for good, and what a killed run left beside it; whether it was there. */
export async function removeSubnetFile(path: string): Promise<boolean> {
  const target = await followLinks(path);
  await removeIfPresent(temporaryOf(target));
  return await removeIfPresent(target);
}

/** One name, so that a daemon killed here leaves one file at most, which the next run replaces. */
function temporaryOf(target: string): string {
  return `${dirname(target)}/.${basename(target)}.flanneld`;
}

async function removeIfPresent(path: string): Promise<boolean> {
  try {
    await Deno.remove(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

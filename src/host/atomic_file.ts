/**
 * Replaces files atomically, safely even in directories where other users may write: the daemon is
 * root, and no link or file of theirs may redirect it.
 *
 * @module
 */
import { basename, dirname, resolve } from "node:path";
import { writeAll } from "../util/write_all.ts";

/** The kernel's limit. */
const MAX_SYMLINKS = 40;

const OTHERS_WRITE = 0o022;
const ALL_WRITE = 0o002;

/**
 * Replaces the file's content, through a synced temporary file beside it. An existing file's mode
 * is kept, a new one's is 0644; missing directories are made with 0755. A symbolic link of root or
 * this user is followed; one of another user is replaced itself.
 *
 * @throws {Error} If there is something other than a file.
 */
export async function writeFileAtomically(
  path: string,
  text: string,
  options: { readonly mode?: number } = {},
): Promise<void> {
  const target = await followLinks(path);
  const directory = dirname(target);
  await Deno.mkdir(directory, { recursive: true, mode: 0o755 });
  const mode = await modeOf(target) ?? options.mode ?? 0o644;
  const { mode: directoryMode, uid } = await Deno.stat(directory);
  const isOurs = isTrusted(uid) && ((directoryMode ?? 0) & OTHERS_WRITE) === 0;
  const [temporary, file] = await openTemporary(target, isOurs ? 0o600 : mode);
  try {
    {
      using _file = file;
      await writeAll(file, new TextEncoder().encode(text));
      await file.sync();
    }
    // The umask has cleared bits; by path, another file might be changed.
    if (isOurs) await Deno.chmod(temporary, mode);
    await Deno.rename(temporary, target);
  } catch (error) {
    await removeIfPresent(temporary).catch(() => {/* the first error says more */});
    throw error;
  }
}

/**
 * A new file beside `target`. Its name is fixed, so that a daemon killed here leaves at most one
 * file, unless that name is occupied.
 */
async function openTemporary(target: string, mode: number): Promise<[string, Deno.FsFile]> {
  const open = async (name: string): Promise<[string, Deno.FsFile]> => [
    name,
    await Deno.open(name, { write: true, createNew: true, mode }),
  ];
  const usual = temporaryOf(target);
  try {
    await removeIfPresent(usual);
    return await open(usual);
  } catch (error) {
    try {
      return await open(`${usual}-${crypto.randomUUID()}`);
    } catch {
      throw error;
    }
  }
}

/**
 * Resolves symbolic links in `path`, which need not exist. A link of neither root nor this user is
 * not followed, as the kernel does in world-writable directories (`fs.protected_symlinks`):
 * resolving links one by one would bypass that.
 */
export async function followLinks(path: string): Promise<string> {
  let current = resolve(path);
  for (let links = 0; links <= MAX_SYMLINKS; links++) {
    const info = await ifPresent(Deno.lstat(current));
    if (!info?.isSymlink || !isTrusted(info.uid)) return current;
    current = resolve(dirname(current), await Deno.readLink(current));
  }
  throw new Error(`Cannot follow ${path}: too many symbolic links`);
}

/**
 * Opens the file for reading; `undefined` if there is none, or it cannot be trusted: a link of
 * another user, or another user's file in a world-writable directory.
 *
 * @throws {Error} If there is something other than a file.
 */
export async function openTrusted(path: string): Promise<Deno.FsFile | undefined> {
  const target = await followLinks(path);
  return await isThere(target) ? await ifPresent(Deno.open(target, { read: true })) : undefined;
}

/**
 * Removes the file, and what a killed run left beside it; returns whether it was there.
 *
 * @throws {Error} If there is something other than a file.
 */
export async function removeFile(path: string): Promise<boolean> {
  const target = await followLinks(path);
  await isThere(target);
  await removeIfPresent(temporaryOf(target));
  return await removeIfPresent(target);
}

/** Whether there is a trusted file at `target`, see {@linkcode openTrusted}. */
async function isThere(target: string): Promise<boolean> {
  const info = await ifPresent(Deno.lstat(target));
  if (!info || info.isSymlink) return false;
  if (!info.isFile) throw new Error(`${target} is no regular file`);
  if (isTrusted(info.uid)) return true;
  const directory = await Deno.stat(dirname(target));
  return ((directory.mode ?? 0) & ALL_WRITE) === 0;
}

async function modeOf(target: string): Promise<number | undefined> {
  if (!await isThere(target)) return undefined;
  const { mode } = await Deno.lstat(target);
  return mode === null ? undefined : mode & 0o777;
}

function isTrusted(uid: number | null): boolean {
  return uid === 0 || uid === Deno.uid();
}

function temporaryOf(target: string): string {
  return `${dirname(target)}/.${basename(target)}.flanneld`;
}

/** What `action` resolves to; `undefined` where the file that it is about is not there. */
export async function ifPresent<Result>(action: Promise<Result>): Promise<Result | undefined> {
  try {
    return await action;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Returns whether it was there. */
async function removeIfPresent(path: string): Promise<boolean> {
  return await ifPresent(Deno.remove(path).then(() => true)) ?? false;
}

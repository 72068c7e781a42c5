import { delay } from "../../src/util/time.ts";

/** Options of {@linkcode cachedDirectory}. */
export interface CachedDirectoryOptions {
  readonly signal: AbortSignal;
  /** How many directories of this kind are kept, the ones used last. @default {2} */
  readonly keep?: number;
  /** Called once if another process is in the way. */
  readonly onWaiting?: () => void;
}

/** Stands in a directory whose making came to its end. Its time is that of the last use. */
const COMPLETE = ".complete";

/** A directory of this name is being made, or was when its process was killed. */
const UNFINISHED = /\.unfinished$/;

/**
 * The directory `<root>/<kind>-<key>`, made by `build` unless it is there already.
 *
 * It appears under its name only when it is complete, so that a killed process leaves nothing that
 * is taken for good. Processes that want the same at the same time build it once: a lock, which the
 * kernel takes back from a process however that ends, keeps them one after the other.
 *
 * @param key Names the content: letters, digits, dots, hyphens.
 * @param build Fills the empty directory that it is given.
 */
export async function cachedDirectory(
  root: string,
  kind: string,
  key: string,
  build: (directory: string) => Promise<void>,
  options: CachedDirectoryOptions,
): Promise<string> {
  const { signal, keep = 2 } = options;
  await Deno.mkdir(root, { recursive: true, mode: 0o755 });
  using _ = await lock(`${root}/${kind}.lock`, options);
  const directory = `${root}/${kind}-${key}`;
  if (!await exists(`${directory}/${COMPLETE}`)) {
    for (const name of names(root, kind)) {
      // Nobody else is at work while we hold the lock.
      if (UNFINISHED.test(name)) await Deno.remove(`${root}/${name}`, { recursive: true });
    }
    const unfinished = `${directory}.unfinished`;
    await Deno.mkdir(unfinished);
    try {
      await build(unfinished);
      signal.throwIfAborted();
      await Deno.writeTextFile(`${unfinished}/${COMPLETE}`, "");
      await Deno.rename(unfinished, directory);
    } catch (error) {
      await Deno.remove(unfinished, { recursive: true });
      throw error;
    }
  }
  const now = new Date();
  await Deno.utime(`${directory}/${COMPLETE}`, now, now);
  await removeOldest(root, kind, keep);
  return directory;
}

/** The directory of this kind that was used last, if there is one that `accept` accepts. */
export async function latestCachedDirectory(
  root: string,
  kind: string,
  accept: (key: string) => boolean,
): Promise<string | undefined> {
  const [latest] = (await byLastUse(root, kind))
    .filter(({ name }) => accept(name.slice(kind.length + 1)));
  return latest && `${root}/${latest.name}`;
}

/** Those in use may be among them: a program that has opened a file goes on reading it. */
async function removeOldest(root: string, kind: string, keep: number): Promise<void> {
  for (const { name } of (await byLastUse(root, kind)).slice(keep)) {
    const away = `${root}/${name}.unfinished`;
    await Deno.rename(`${root}/${name}`, away);
    await Deno.remove(away, { recursive: true });
  }
}

/** Complete directories of this kind, the one used last first. */
async function byLastUse(root: string, kind: string): Promise<{ name: string; usedAt: number }[]> {
  const found: { name: string; usedAt: number }[] = [];
  for (const name of names(root, kind)) {
    if (UNFINISHED.test(name)) continue;
    try {
      const { mtime } = await Deno.stat(`${root}/${name}/${COMPLETE}`);
      found.push({ name, usedAt: mtime?.getTime() ?? 0 });
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return found.sort((a, b) => b.usedAt - a.usedAt);
}

async function lock(path: string, options: CachedDirectoryOptions): Promise<Disposable> {
  const file = await Deno.open(path, { create: true, write: true });
  try {
    // Asked again and again, as a call that waits for the lock could not be aborted.
    for (let tries = 0; !await file.tryLock(true); tries++) {
      if (tries === 0) options.onWaiting?.();
      await delay(200, options);
    }
  } catch (error) {
    file.close();
    throw error;
  }
  return { [Symbol.dispose]: () => file.close() };
}

function names(root: string, kind: string): string[] {
  try {
    return [...Deno.readDirSync(root)]
      .filter((entry) => entry.isDirectory && entry.name.startsWith(`${kind}-`))
      .map(({ name }) => name);
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await Deno.stat(path);
    return true;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

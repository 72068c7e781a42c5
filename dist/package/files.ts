/** What archives consist of, whatever their format. @module */

/** One member of an archive; `path` is relative, as `usr/bin/flanneld`. Owner is always root. */
export type Entry =
  | { readonly kind: "file"; readonly path: string; readonly mode: number; readonly bytes: Bytes }
  | { readonly kind: "directory"; readonly path: string; readonly mode: number }
  | { readonly kind: "link"; readonly path: string; readonly target: string };

/** The content of a file. */
export type Bytes = Uint8Array<ArrayBuffer>;

/** A file of text or bytes. */
export function file(
  path: string,
  content: string | Bytes,
  mode = 0o644,
): Entry & { kind: "file" } {
  return { kind: "file", path, mode, bytes: toBytes(content) };
}

/** A symbolic link. */
export function link(path: string, target: string): Entry {
  return { kind: "link", path, target };
}

/** A directory that is there for its own sake; others follow from what is in them. */
export function directory(path: string, mode = 0o755): Entry {
  return { kind: "directory", path, mode };
}

/** `entries` with the directories that lead to them, parents first, always in the same order. */
export function sorted(entries: readonly Entry[]): Entry[] {
  const all = new Map<string, Entry>();
  for (const entry of entries) {
    const before = all.get(entry.path);
    if (before !== undefined && (before.kind !== "directory" || entry.kind !== "directory")) {
      throw new Error(`Cannot pack ${entry.path}: it is there twice`);
    }
    all.set(entry.path, entry);
  }
  for (const { path } of entries) {
    for (let at = path.lastIndexOf("/"); at > 0; at = path.lastIndexOf("/", at - 1)) {
      const parent = path.slice(0, at);
      if (!all.has(parent)) all.set(parent, directory(parent));
    }
  }
  return [...all.values()].sort((a, b) => a.path < b.path ? -1 : a.path > b.path ? 1 : 0);
}

/** `entries` below another directory. */
export function below(prefix: string, entries: readonly Entry[]): Entry[] {
  return entries.map((entry) => ({ ...entry, path: `${prefix}/${entry.path}` }));
}

/** Text as UTF-8; bytes as they are. */
export function toBytes(content: string | Bytes): Bytes {
  return typeof content === "string" ? new TextEncoder().encode(content) : content;
}

/** Joins pieces to one. */
export function concat(pieces: readonly Uint8Array[]): Bytes {
  const joined = new Uint8Array(pieces.reduce((sum, { length }) => sum + length, 0));
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/** Zeros that bring `length` to a multiple of `unit`. */
export function padding(length: number, unit: number): Bytes {
  return new Uint8Array((unit - length % unit) % unit);
}

/** Writes and reads tar archives: ustar, with GNU's long names when read. @module */
import { type Bytes, concat, type Entry, padding, toBytes } from "./files.ts";

const BLOCK = 512;
const TYPES = { file: "0", link: "2", directory: "5" } as const;

/** An archive of `entries` in their order, all owned by root and of one time. */
export function writeTar(entries: readonly Entry[], epoch: number, prefix = ""): Bytes {
  const pieces: Uint8Array[] = [];
  for (const entry of entries) {
    const bytes = entry.kind === "file" ? entry.bytes : new Uint8Array();
    pieces.push(header(entry, bytes.length, epoch, prefix), bytes, padding(bytes.length, BLOCK));
  }
  pieces.push(new Uint8Array(2 * BLOCK));
  return concat(pieces);
}

function header(entry: Entry, size: number, epoch: number, prefix: string): Bytes {
  const block = new Uint8Array(BLOCK);
  const put = (at: number, length: number, text: string) => {
    const bytes = toBytes(text);
    if (bytes.length > length) throw new Error(`Cannot put ${entry.path} into a tar: ${text}`);
    block.set(bytes, at);
  };
  const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");
  const path = `${prefix}${entry.path}${entry.kind === "directory" ? "/" : ""}`;
  // A name of more than 100 bytes is divided at a slash.
  const cut = toBytes(path).length <= 100 ? 0 : path.indexOf("/", path.length - 101) + 1;
  put(0, 100, path.slice(cut));
  put(345, 155, path.slice(0, Math.max(cut - 1, 0)));
  put(100, 8, octal(entry.kind === "link" ? 0o777 : entry.mode, 7));
  put(108, 8, octal(0, 7));
  put(116, 8, octal(0, 7));
  put(124, 12, octal(size, 11));
  put(136, 12, octal(epoch, 11));
  put(148, 8, " ".repeat(8));
  put(156, 1, TYPES[entry.kind]);
  if (entry.kind === "link") put(157, 100, entry.target);
  put(257, 8, "ustar\x0000");
  put(265, 32, "root");
  put(297, 32, "root");
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(148, 8, `${octal(sum, 6)}\0 `);
  return block;
}

/** The members of an archive: hard links become files, devices and the like are left out. */
export function readTar(archive: Bytes): Entry[] {
  const entries: Entry[] = [];
  const files = new Map<string, Bytes>();
  let long: { path?: string; target?: string } = {};
  for (let at = 0; at + BLOCK <= archive.length && archive[at] !== 0;) {
    const field = (start: number, length: number) => {
      const bytes = archive.subarray(at + start, at + start + length);
      const end = bytes.indexOf(0);
      return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
    };
    const size = parseInt(field(124, 12).trim() || "0", 8);
    const bytes = archive.slice(at + BLOCK, at + BLOCK + size);
    const type = field(156, 1) || "0";
    const parent = field(257, 5) === "ustar" && field(263, 2) === "00" ? field(345, 155) : "";
    const name = long.path ?? (parent === "" ? field(0, 100) : `${parent}/${field(0, 100)}`);
    const path = name.replace(/^(\.?\/)+/, "").replace(/\/+$/, "");
    const target = long.target ?? field(157, 100);
    const mode = parseInt(field(100, 8).trim(), 8) & 0o7777;
    at += BLOCK + size + padding(size, BLOCK).length;
    const text = () => new TextDecoder().decode(bytes).replace(/\0+$/, "");
    if (type === "L") long = { ...long, path: text() };
    else if (type === "K") long = { ...long, target: text() };
    else {
      long = {};
      if (type === "0" || type === "1") {
        const content = type === "0" ? bytes : files.get(target.replace(/^(\.?\/)+/, ""));
        if (content === undefined) throw new Error(`Cannot read the tar: ${path} has no content`);
        files.set(path, content);
        entries.push({ kind: "file", path, mode, bytes: content });
      } else if (type === "2") entries.push({ kind: "link", path, target });
      else if (type === "5" && path !== "" && path !== ".") {
        entries.push({ kind: "directory", path, mode });
      }
    }
  }
  return entries;
}

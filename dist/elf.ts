/**
 * Reads what an ELF file asks of the system: its machine, and the versions of glibc's symbols that
 * the dynamic linker must find (`.gnu.version_r`).
 *
 * @module
 */

import { Buffer } from "node:buffer";
import type { Bytes } from "./package/files.ts";

/** A requirement of an ELF file, as `libc.so.6` and `GLIBC_2.27`. */
export interface VersionNeed {
  readonly library: string;
  readonly version: string;
}

/** The length of a header of 64 bits, which stands in it. */
const HEADER_LENGTH = 64;

const SHT_GNU_VERNEED = 0x6ffffffe;

/** Whether `bytes` begin as an ELF file does. */
export function isElf(bytes: Uint8Array): boolean {
  return bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46;
}

/** The file itself and those libraries that it carries uncompressed, as `deno compile` does. */
export function elfFilesIn(bytes: Bytes): Bytes[] {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  const found: Bytes[] = [];
  // 64 bits, little-endian, version 1; what only mentions the mark is followed by something else.
  const mark = new Uint8Array([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  for (let at = text.indexOf(mark); at >= 0; at = text.indexOf(mark, at + 1)) {
    const isHeader = text.length - at >= HEADER_LENGTH &&
      text.readUInt32LE(at + 20) === 1 && text.readUInt16LE(at + 52) === HEADER_LENGTH;
    if (isHeader) found.push(bytes.subarray(at));
  }
  return found;
}

/** The machine (`e_machine`) of an ELF file. */
export function elfMachine(bytes: Uint8Array): number {
  return view(bytes).getUint16(18, true);
}

/** The symbol versions that a 64-bit little-endian ELF file needs; none of a static one. */
export function versionNeeds(bytes: Uint8Array): VersionNeed[] {
  const data = view(bytes);
  const number = (at: number) => Number(data.getBigUint64(at, true));
  const [table, size, count] = [number(40), data.getUint16(58, true), data.getUint16(60, true)];
  const needs: VersionNeed[] = [];
  for (let index = 0; index < count; index++) {
    const header = table + index * size;
    if (data.getUint32(header + 4, true) !== SHT_GNU_VERNEED) continue;
    const strings = number(table + data.getUint32(header + 40, true) * size + 24);
    const text = (offset: number) => {
      const start = strings + offset;
      return new TextDecoder().decode(bytes.subarray(start, bytes.indexOf(0, start)));
    };
    // struct Elf64_Verneed: version, count (16 bits each), file, aux, next.
    for (let need = number(header + 24), more = true; more;) {
      const library = text(data.getUint32(need + 4, true));
      // struct Elf64_Vernaux: hash, flags, other (16 bits each), name, next.
      let entry = need + data.getUint32(need + 8, true);
      for (let left = data.getUint16(need + 2, true); left > 0; left--) {
        needs.push({ library, version: text(data.getUint32(entry + 8, true)) });
        entry += data.getUint32(entry + 12, true);
      }
      const next = data.getUint32(need + 12, true);
      more = next !== 0;
      need += next;
    }
  }
  return needs;
}

/** The oldest glibc on which all of `files` run, as `2.27`; `undefined` if they need none. */
export function oldestGlibc(files: readonly Uint8Array[]): string | undefined {
  return files.flatMap(versionNeeds)
    .flatMap(({ version }) => /^GLIBC_(\d+(?:\.\d+)+)$/.exec(version)?.[1] ?? [])
    .sort(compareVersions).at(-1);
}

/** Compares `2.9` and `2.28` by their numbers. */
export function compareVersions(a: string, b: string): number {
  const [left, right] = [a, b].map((text) => text.split(".").map(Number)) as [number[], number[]];
  for (let i = 0; i < Math.max(left.length, right.length); i++) {
    const difference = (left[i] ?? 0) - (right[i] ?? 0);
    if (difference !== 0) return difference;
  }
  return 0;
}

function view(bytes: Uint8Array): DataView {
  if (!isElf(bytes) || bytes[4] !== 2 || bytes[5] !== 1) {
    throw new Error("Cannot read it as an ELF file of 64 bits, little-endian");
  }
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

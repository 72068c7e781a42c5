/** Compresses without a name or time of its own, so that equal content stays equal. @module */
import { gzipSync } from "node:zlib";
import type { Bytes } from "./files.ts";

/** `bytes` as a gzip file, as small as gzip makes it. */
export function gzip(bytes: Bytes): Bytes {
  return new Uint8Array(gzipSync(bytes, { level: 9 }));
}

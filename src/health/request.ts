/**
 * The head of an HTTP/1 request, as far as the health endpoints need it: method, path and `Host`.
 * Pure; the input is hostile.
 *
 * @module
 */

/** A request without its body, which no endpoint reads. */
export interface HealthRequest {
  readonly method: string;
  /** What is asked for, without a query; always begins with `/`. */
  readonly path: string;
  /** The `Host` header; `undefined` where there is none, as HTTP/1.0 allows. */
  readonly host: string | undefined;
}

/** A longer head is refused. Probes send a few hundred bytes. */
export const MAX_HEAD_BYTES = 8_192;

const CR = 13;
const LF = 10;

/** Length of the head at the beginning of `bytes`, its empty line included; -1 if it is not whole. */
export function headLength(bytes: Uint8Array): number {
  for (let at = bytes.indexOf(LF); at >= 0; at = bytes.indexOf(LF, at + 1)) {
    const next = bytes[at + 1] === CR ? at + 2 : at + 1;
    if (bytes[next] === LF) return next + 1;
  }
  return -1;
}

/** What the head asks for; `undefined` if it is no HTTP/1 request. Never throws. */
export function parseRequest(head: Uint8Array): HealthRequest | undefined {
  const [first = "", ...lines] = new TextDecoder().decode(head).split(/\r?\n/);
  const match = /^([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (\S+) HTTP\/1\.[01]$/.exec(first);
  if (!match) return undefined;
  // A proxy's form of it: http://host:port/path
  const target = match[2]!.replace(/^https?:\/\/[^/?#]*/i, "");
  if (target !== "" && !/^[/?#]/.test(target)) return undefined;
  const [path] = target.split(/[?#]/);
  const hosts = lines.flatMap((line) => /^host:[ \t]*(.*?)[ \t]*$/i.exec(line)?.[1] ?? []);
  // Two of them are no choice of ours.
  return { method: match[1]!, path: path || "/", host: hosts.length > 1 ? hosts.join() : hosts[0] };
}

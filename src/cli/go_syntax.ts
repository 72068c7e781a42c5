/**
 * Values as Go's `flag`, `strconv` and `regexp` packages read them, for unit files and manifests
 * written for upstream.
 *
 * @module
 */

/** A regular expression, unanchored. */
export interface Pattern {
  test(text: string): boolean;
  /** Its source. */
  toString(): string;
}

/** @throws {SyntaxError} If the text is no regular expression of RE2. */
export type CompilePattern = (text: string) => Pattern;

/** Go's regular expressions. The library costs 9 MB and 20 ms, so only `--iface-regex` loads it. */
export async function loadGoRegex(): Promise<CompilePattern> {
  const { RE2JS } = await import("re2js");
  return (text) => {
    try {
      return RE2JS.compile(text);
    } catch (cause) {
      throw new SyntaxError(`Cannot compile ${JSON.stringify(text)}`, { cause });
    }
  };
}

/** One of Go's words for a boolean (strconv.ParseBool), else `undefined`. */
export function parseGoBoolean(text: string): boolean | undefined {
  if (["1", "t", "T", "true", "TRUE", "True"].includes(text)) return true;
  if (["0", "f", "F", "false", "FALSE", "False"].includes(text)) return false;
  return undefined;
}

const GO_INTEGER =
  /^([+-]?)(?:(0|[1-9](?:_?\d)*)|0[xX]((?:_?[\da-fA-F])+)|0[bB]((?:_?[01])+)|0[oO]?((?:_?[0-7])+))$/;

/**
 * A Go integer literal (strconv.ParseInt with base 0): `60`, `0x3c`, `074`, `0o74`, `0b111100`,
 * `1_000`. `undefined` for anything else, and for what a number cannot hold exactly.
 */
export function parseGoInteger(text: string): number | undefined {
  const match = GO_INTEGER.exec(text);
  if (match === null) return undefined;
  const [, sign, decimal, hexadecimal, binary, octal] = match.map((part) =>
    part?.replaceAll("_", "")
  );
  const magnitude = decimal !== undefined
    ? Number(decimal)
    : hexadecimal !== undefined
    ? Number(`0x${hexadecimal}`)
    : binary !== undefined
    ? Number(`0b${binary}`)
    : Number(`0o${octal}`);
  if (!Number.isSafeInteger(magnitude)) return undefined;
  return sign === "-" ? 0 - magnitude : magnitude;
}

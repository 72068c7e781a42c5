/**
 * Values as Go's `flag`, `strconv` and `regexp` packages read them, for unit files and manifests
 * that were written for upstream.
 *
 * @module
 */

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

/** POSIX classes of RE2, as they stand inside brackets. */
const POSIX_CLASSES: Readonly<Record<string, string>> = {
  alnum: "0-9A-Za-z",
  alpha: "A-Za-z",
  ascii: "\\x00-\\x7f",
  blank: "\\t ",
  cntrl: "\\x00-\\x1f\\x7f",
  digit: "0-9",
  graph: "!-~",
  lower: "a-z",
  print: " -~",
  punct: "!-\\/:-@\\[-`\\{-~",
  space: "\\t\\n\\v\\f\\r ",
  upper: "A-Z",
  word: "0-9A-Za-z_",
  xdigit: "0-9A-Fa-f",
};

/**
 * The regular expression `text` of Go's RE2 syntax, un-anchored. What JavaScript writes otherwise
 * is translated (flags in front, `\A`, `\z`, `\Q…\E`, POSIX classes, `(?P<name>`, `\pL`, escaped
 * punctuation); what it cannot express is an error rather than another meaning.
 *
 * @throws {SyntaxError} If it is no regular expression.
 */
export function parseGoRegex(text: string): RegExp {
  const lead = /^\(\?([ims]+)\)/.exec(text);
  const flags = [...new Set(lead?.[1] ?? "")].join("");
  let source = "";
  let inClass = false;
  for (let rest = text.slice(lead?.[0].length ?? 0); rest !== "";) {
    const [taken, translated] = translateToken(rest, inClass);
    if (taken === "[" && !inClass) inClass = true;
    else if (taken === "]") inClass = false;
    source += translated;
    rest = rest.slice(taken.length);
  }
  return new RegExp(source, `u${flags}`);
}

/** The first token of `rest` and what it becomes. */
function translateToken(rest: string, inClass: boolean): readonly [string, string] {
  const posix = inClass ? /^\[:(\^?)(\w+):\]/.exec(rest) : null;
  if (posix !== null) {
    const members = POSIX_CLASSES[posix[2]!];
    if (members === undefined || posix[1] !== "") {
      throw new SyntaxError(`Character class ${posix[0]} is not supported`);
    }
    return [posix[0], members];
  }
  const literal = /^\\Q([^]*?)(?:\\E|$)/.exec(rest);
  if (literal !== null) return [literal[0], literal[1]!.replaceAll(/[\\^$.*+?()[\]{}|\/-]/g, hex)];
  const category = /^\\([pP])([A-Z])/.exec(rest);
  if (category !== null) return [category[0], `\\${category[1]}{${category[2]}}`];
  if (!inClass && rest.startsWith("(?P<")) return ["(?P<", "(?<"];
  if (rest.startsWith("\\")) {
    const escape = rest.slice(0, 2);
    if (!inClass && escape === "\\A") return [escape, "(?-m:^)"];
    if (!inClass && escape === "\\z") return [escape, "(?-m:$)"];
    if (escape === "\\a") return [escape, "\\x07"];
    if (/^\\[!-\/:-@[-`{-~]$/.test(escape)) return [escape, hex(escape[1]!)];
    return [escape, escape];
  }
  if (inClass && rest.startsWith("[")) return ["[", "\\["];
  return [rest[0]!, rest[0]!];
}

/** An ASCII character in a form that is literal everywhere. */
function hex(char: string): string {
  return `\\x${char.charCodeAt(0).toString(16).padStart(2, "0")}`;
}

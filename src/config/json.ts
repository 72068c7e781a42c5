/** Parses JSON as Go's encoding/json does. @module */
import { describeJsonFault } from "./json_fault.ts";

/** A parsed JSON text. */
export interface ParsedJson {
  readonly value: unknown;
  /** Names that occur more than once in one object, with the path to them; the last counts. */
  readonly duplicates: readonly string[];
}

/** Deeper nesting than any config has; a limit keeps hostile text from exhausting the stack. */
const MAX_DEPTH = 100;
const NUMBER = /-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?/y;
// deno-lint-ignore no-control-regex -- control characters are what JSON forbids in strings
const STRING = /"(?:[^"\\\u0000-\u001f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"/y;
const LITERALS = new Map<string, unknown>([["true", true], ["false", false], ["null", null]]);

/** `line 2, column 22`, of the character at `position`. */
export function place(text: string, position: number): string {
  const before = text.slice(0, position).split("\n");
  return `line ${before.length}, column ${before.at(-1)!.length + 1}`;
}

/** The text of a JSON string; lone surrogates become U+FFFD, as in Go. */
function unquote(token: string): string {
  const text: string = JSON.parse(token);
  return text.toWellFormed();
}

/**
 * Parses JSON (RFC 8259) like `JSON.parse`, with the differences that reading a config as Go does
 * needs: members keep the order of their *last* occurrence, repeated names are reported, and `null`
 * does not replace an earlier value. The error says where it failed and what was found there, but
 * quotes no text, which may be a secret.
 *
 * @throws {SyntaxError} If `text` is not exactly one JSON value, or nests too deeply.
 */
export function parseJson(text: string): ParsedJson {
  const duplicates: string[] = [];
  let position = 0;

  function fail(expected: string): never {
    const fault = describeJsonFault(text, position);
    throw new SyntaxError(
      `Cannot parse JSON: expected ${expected} at ${place(text, fault.position)}, ` +
        `found ${fault.found}`,
    );
  }

  function skipSpace(): void {
    while (/[ \t\n\r]/.test(text.charAt(position))) position++;
  }

  /** Takes `token` if it comes next, and the space behind it. */
  function take(token: string): boolean {
    if (!text.startsWith(token, position)) return false;
    position += token.length;
    skipSpace();
    return true;
  }

  function match(pattern: RegExp): string | undefined {
    pattern.lastIndex = position;
    const found = pattern.exec(text)?.[0];
    if (found !== undefined) take(found);
    return found;
  }

  function members(path: readonly string[]): Record<string, unknown> {
    const object: Record<string, unknown> = {};
    if (take("}")) return object;
    do {
      const token = match(STRING);
      if (token === undefined) fail("a member's name in double quotes");
      const name = unquote(token);
      if (!take(":")) fail("a colon");
      const member = value([...path, name]);
      if (Object.hasOwn(object, name)) {
        if (member === null) continue;
        duplicates.push([...path, name].join("."));
        delete object[name];
      }
      // Not an assignment, which would set the prototype for the name "__proto__".
      Object.defineProperty(object, name, {
        value: member,
        enumerable: true,
        writable: true,
        configurable: true,
      });
    } while (take(","));
    if (!take("}")) fail('"," or "}"');
    return object;
  }

  function elements(path: readonly string[]): unknown[] {
    const list: unknown[] = [];
    if (take("]")) return list;
    do list.push(value([...path, `[${list.length}]`])); while (take(","));
    if (!take("]")) fail('"," or "]"');
    return list;
  }

  function value(path: readonly string[]): unknown {
    if (path.length > MAX_DEPTH) fail(`at most ${MAX_DEPTH} levels of nesting`);
    if (take("{")) return members(path);
    if (take("[")) return elements(path);
    const string = match(STRING);
    if (string !== undefined) return unquote(string);
    const number = match(NUMBER);
    if (number !== undefined) return Number(number);
    for (const [word, meaning] of LITERALS) if (take(word)) return meaning;
    fail("a value");
  }

  skipSpace();
  const result = value([]);
  if (position < text.length) fail("the end of the text");
  return { value: result, duplicates };
}

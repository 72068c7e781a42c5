/**
 * Names what a text has where JSON expects something else: the slips of people who write a config by
 * hand, with an editor or through a shell. Quotes at most one character, or a word of programming
 * languages: the text may hold secrets.
 *
 * @module
 */
import { describeCharacter } from "../util/characters.ts";

/** What was found in a text, and where. */
export interface JsonFault {
  /** Index of the character; inside a string, of the one that it may not hold. */
  readonly position: number;
  /** A noun phrase: `a comment, which JSON does not have`. */
  readonly found: string;
}

/** Words of programming languages and YAML, and what JSON writes for them. */
const WORDS: ReadonlyMap<string, string> = new Map([
  ["True", "true"],
  ["TRUE", "true"],
  ["yes", "true"],
  ["on", "true"],
  ["False", "false"],
  ["FALSE", "false"],
  ["no", "false"],
  ["off", "false"],
  ["None", "null"],
  ["Null", "null"],
  ["NULL", "null"],
  ["nil", "null"],
  ["undefined", "null"],
]);

const SHELL = "; was the text meant for a shell?";

const SLIPS: readonly (readonly [pattern: RegExp, found: string])[] = [
  [/^'/, "a single quote, where JSON has double quotes"],
  [/^`/, "a backquote, where JSON has double quotes"],
  [/^(?:#|\/[/*])/, "a comment, which JSON does not have"],
  [/^\\\r?\n/, `a backslash at the end of the line${SHELL}`],
  [/^\\"/, `a backslash before a quote${SHELL}`],
  [/^\\/, `a backslash${SHELL}`],
];

/** What `text` has at `position`, where the parser could not go on. */
export function describeJsonFault(text: string, position: number): JsonFault {
  return text[position] === '"'
    ? describeString(text, position)
    : { position, found: describeToken(text, position) };
}

function describeToken(text: string, position: number): string {
  const rest = text.slice(position, position + 64);
  const character = rest[0];
  if (character === undefined) return "the end of the text";
  if (/[^\n\r\t -~]/.test(character)) return describeCharacter(text, position);
  const slip = SLIPS.find(([pattern]) => pattern.test(rest));
  if (slip) return slip[1];
  if (/[}\]]/.test(character) && text.slice(0, position).trimEnd().endsWith(",")) {
    return `"${character}"; leave out the comma before it`;
  }
  if (/[\w.]/.test(character) && /[\d.]/.test(text[position - 1] ?? "")) {
    return "something that is not a number; a text needs double quotes";
  }
  const word = /^[A-Za-z_$][\w$-]*/.exec(rest)?.[0];
  if (word !== undefined) {
    const meant = WORDS.get(word);
    return meant === undefined
      ? "a word without double quotes"
      : `the word ${word}, for which JSON has ${meant}`;
  }
  return /[\d+.-]/.test(character) ? "something that is not a JSON number" : `"${character}"`;
}

/** For a string that is not sound, where and why; a sound one is just in the wrong place. */
function describeString(text: string, start: number): JsonFault {
  for (let position = start + 1; position < text.length; position++) {
    const character = text[position]!;
    if (character === '"') return { position: start, found: "a text in quotes" };
    if (character === "\\") {
      const rest = text.slice(position, position + 6);
      const escape = /^\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(rest);
      if (escape === null) {
        const kind = /^\\\r?\n/.test(rest)
          ? "at the end of the line"
          : "that starts no JSON escape";
        return { position, found: `a backslash ${kind}, inside a text` };
      }
      position += escape[0].length - 1;
    } else if (character < " ") {
      const isBreak = character === "\n" || character === "\r";
      const found = isBreak ? "the end of the line" : describeCharacter(character);
      return { position, found: `${found}, inside a text in quotes` };
    }
  }
  return { position: start, found: "a text in quotes that does not end" };
}

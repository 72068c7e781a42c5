/**
 * What stands where JSON expects something else, in words: the slips of people who write a config
 * by hand, with an editor or through a shell. Never quotes more than one character, or a word of
 * programming languages: the text may hold secrets.
 *
 * @module
 */
import { describeCharacter } from "../util/characters.ts";

/** What is wrong in a text, and where. */
export interface JsonFault {
  /** Index of the character; inside a string, of the one that it may not hold. */
  readonly position: number;
  /** A clause: `a comment stands there`. */
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

/** What `text` has at `position`, where the parser could not go on. */
export function describeJsonFault(text: string, position: number): JsonFault {
  const at = (found: string, offset = 0): JsonFault => ({ position: position + offset, found });
  const rest = text.slice(position, position + 64);
  const character = rest[0];
  if (character === undefined) return at("the text ends there");
  if (character === '"') return describeString(text, position);
  if (/[^\n\r\t -~]/.test(character)) {
    return at(`${describeCharacter(text, position)}, stands there`);
  }
  if (character === "'") return at("a single quote stands there, where JSON has double ones");
  if (character === "`") return at("a backquote stands there, where JSON has double quotes");
  if (character === "#" || /^\/[/*]/.test(rest)) {
    return at("a comment stands there, and JSON has none");
  }
  if (character === "\\") {
    const next = /^\\\r?\n/.test(rest)
      ? "a backslash at the end of the line"
      : rest[1] === '"'
      ? "a backslash before a quote"
      : "a backslash";
    return at(`${next} stands there; was the text meant for a shell?`);
  }
  const before = text.slice(0, position).trimEnd().at(-1);
  if (/[}\]]/.test(character) && before === ",") {
    return at(`"${character}" stands there; leave out the comma before it`);
  }
  if (/[\w.]/.test(character) && /[\d.]/.test(text[position - 1] ?? "")) {
    return at("what stands there is no number; a text needs double quotes");
  }
  const word = /^[A-Za-z_$][\w$-]*/.exec(rest)?.[0];
  if (word !== undefined) {
    const meant = WORDS.get(word);
    return at(
      meant === undefined
        ? "a word without double quotes stands there"
        : `the word ${word} stands there, for which JSON has ${meant}`,
    );
  }
  if (/[\d+.-]/.test(character)) return at("what stands there is no number in JSON");
  return at(`"${character}" stands there`);
}

/** For a string that is not sound, where and why; a sound one is just in the wrong place. */
function describeString(text: string, start: number): JsonFault {
  for (let position = start + 1; position < text.length; position++) {
    const character = text[position]!;
    if (character === '"') {
      return { position: start, found: "a text in quotes stands there" };
    }
    if (character === "\\") {
      const escape = /^\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})/.exec(text.slice(position, position + 6));
      if (escape === null) {
        return {
          position,
          found: /^\\\r?\n/.test(text.slice(position, position + 3))
            ? "a backslash at the end of the line stands inside a text"
            : "a backslash that starts no escape of JSON stands inside a text",
        };
      }
      position += escape[0].length - 1;
    } else if (character < " ") {
      const isBreak = character === "\n" || character === "\r";
      return {
        position,
        found: isBreak
          ? "the line ends inside a text in quotes"
          : `${describeCharacter(character)}, stands inside a text`,
      };
    }
  }
  return { position: start, found: "a text in quotes begins there that does not end" };
}

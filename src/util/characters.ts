/**
 * Names for characters that got into a text by copying from a web page, by an editor or by another
 * keyboard, and that look right: curly quotes, dashes, spaces of other kinds.
 *
 * @module
 */

/** Single characters, by code point. */
const NAMES: ReadonlyMap<number, string> = new Map([
  [0x00, "a null character"],
  [0x09, "a tab"],
  [0x0a, "a line break"],
  [0x0d, "a carriage return"],
  [0x7f, "a control character"],
  [0xa0, "a no-break space"],
  [0xab, "a quotation mark"],
  [0xad, "a soft hyphen"],
  [0xb4, "an accent"],
  [0xbb, "a quotation mark"],
  [0x2007, "a no-break space"],
  [0x200b, "a zero-width space"],
  [0x2026, "an ellipsis"],
  [0x2028, "a line separator"],
  [0x2029, "a paragraph separator"],
  [0x202f, "a no-break space"],
  [0x2060, "a word joiner"],
  [0x2212, "a minus sign"],
  [0x3000, "a full-width space"],
  [0x3001, "a Chinese comma"],
  [0x3002, "a Chinese full stop"],
  [0xfeff, "a byte order mark"],
  [0xfffd, "where the bytes are no UTF-8"],
]);

/** Ranges of code points, after the single ones. */
const RANGES: readonly (readonly [first: number, last: number, name: string])[] = [
  [0x00, 0x1f, "a control character"],
  [0x80, 0x9f, "a control character"],
  [0x0370, 0x03ff, "a Greek letter"],
  [0x0400, 0x04ff, "a Cyrillic letter"],
  [0x2000, 0x200a, "a space of another kind"],
  [0x200c, 0x200f, "an invisible mark"],
  [0x2010, 0x2015, "a dash"],
  [0x2018, 0x201f, "a curly quote"],
  [0x202a, 0x202e, "an invisible mark"],
  [0x2032, 0x2037, "a prime"],
  [0x2066, 0x2069, "an invisible mark"],
  [0x300c, 0x300f, "a quotation mark"],
];

/** Full-width forms of "!" to "~", as Chinese and Japanese keyboards write them. */
const FULL_WIDTH = { first: 0xff01, last: 0xff5e, offset: 0xfee0 } as const;

/**
 * What the character at `index` of `text` is: `U+201C “, a curly quote`. One that cannot be seen is
 * not shown.
 */
export function describeCharacter(text: string, index = 0): string {
  const code = text.codePointAt(index) ?? 0;
  const character = String.fromCodePoint(code);
  const shown = /[\p{L}\p{N}\p{P}\p{S}]/u.test(character) && code !== 0xfffd ? ` ${character}` : "";
  const name = nameOf(code);
  return `U+${code.toString(16).toUpperCase().padStart(4, "0")}${shown}` +
    (name === undefined ? "" : `, ${name}`);
}

/** The first character of `text` that is not printable ASCII, described; if there is one. */
export function firstOddCharacter(text: string): string | undefined {
  const index = text.search(/[^ -~]/u);
  return index === -1 ? undefined : describeCharacter(text, index);
}

function nameOf(code: number): string | undefined {
  const { first, last, offset } = FULL_WIDTH;
  if (code >= first && code <= last) return `a full-width "${String.fromCodePoint(code - offset)}"`;
  return NAMES.get(code) ?? RANGES.find(([from, to]) => code >= from && code <= to)?.[2];
}

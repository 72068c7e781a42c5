import assert from "node:assert/strict";
import { describeCharacter, firstOddCharacter } from "./characters.ts";

Deno.test("describeCharacter() gives code point, look and name, as far as there are any", () => {
  for (
    const [text, expected] of [
      ["\u201cx", "U+201C “, a curly quote"],
      ["\u2019", "U+2019 ’, a curly quote"],
      ["\u00a0", "U+00A0, a no-break space"],
      ["\ufeff{", "U+FEFF, a byte order mark"],
      ["\ufffd", "U+FFFD, where the bytes are no UTF-8"],
      ["\u2013-iface", "U+2013 –, a dash"],
      ["\r", "U+000D, a carriage return"],
      ["\u0007", "U+0007, a control character"],
      ["\u200b", "U+200B, a zero-width space"],
      ["\uff1a", 'U+FF1A ：, a full-width ":"'],
      ["\uff0c", 'U+FF0C ，, a full-width ","'],
      ["\u0430", "U+0430 а, a Cyrillic letter"],
      ["\u4e2d", "U+4E2D 中"],
      ["\u{1f600}", "U+1F600 😀"],
      ["\u{e0001}", "U+E0001"],
    ]
  ) {
    assert.equal(describeCharacter(text!), expected);
  }
});

Deno.test("firstOddCharacter() passes over printable ASCII", () => {
  assert.equal(firstOddCharacter("10.3.0.0\u200b/16\u2013"), "U+200B, a zero-width space");
  assert.equal(firstOddCharacter(' !"~'), undefined);
  assert.equal(firstOddCharacter(""), undefined);
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { parseJson } from "./json.ts";

Deno.test("parseJson() agrees with JSON.parse on every JSON text", () => {
  fc.assert(fc.property(fc.json({ maxDepth: 6 }), fc.constantFrom(0, 1, "\t"), (text, indent) => {
    const expected = JSON.parse(text);
    assert.deepEqual(parseJson(text).value, expected);
    assert.deepEqual(parseJson(JSON.stringify(expected, null, indent) + "\r\n").value, expected);
  }));
});

Deno.test("parseJson() accepts exactly the texts that JSON.parse accepts", () => {
  const tokens = [
    ...'{}[],: \n"\\-+.0123456789eEtfnu',
    ...["true", "false", "null", '"a"', '"\\u00e9"', "1e5", "\u0001", "\ufeff", "'", "//"],
  ];
  fc.assert(
    fc.property(fc.array(fc.constantFrom(...tokens), { maxLength: 12 }), (parts) => {
      const text = parts.join("");
      let expected: unknown;
      try {
        expected = JSON.parse(text);
      } catch {
        assert.throws(() => parseJson(text), SyntaxError);
        return;
      }
      const { value, duplicates } = parseJson(text);
      if (duplicates.length === 0 && !/null/.test(text)) assert.deepEqual(value, expected);
    }),
    { numRuns: 5_000 },
  );
});

Deno.test("parseJson() keeps the order of last occurrences and names duplicates", () => {
  const { value, duplicates } = parseJson('{"a":1,"A":2,"a":{"x":1,"x":2},"l":[{"y":1,"y":1}]}');
  assert.deepEqual(Object.keys(value as object), ["A", "a", "l"]);
  assert.deepEqual([...duplicates].sort(), ["a", "a.x", "l.[0].y"]);
  assert.deepEqual(parseJson('{"a":1,"a":null,"b":null,"b":2}').value, { a: 1, b: 2 });
});

Deno.test("parseJson() takes __proto__ for an ordinary name", () => {
  const { value } = parseJson('{"__proto__":{"polluted":1}}');
  assert.deepEqual(Object.keys(value as object), ["__proto__"]);
  assert.equal(({} as Record<string, unknown>).polluted, undefined);
  assert.equal((value as Record<string, unknown>).polluted, undefined);
});

Deno.test("parseJson() replaces lone surrogates, which no other text may hold", () => {
  assert.deepEqual(parseJson('{"\\ud800":"a\\udc00b","p":"\\ud83d\\ude00"}').value, {
    "\ufffd": "a\ufffdb",
    p: "\u{1f600}",
  });
});

Deno.test("parseJson() says where the text is wrong without quoting it", () => {
  assert.throws(() => parseJson('{\n  "AccessKeySecret": canary,\n}'), {
    name: "SyntaxError",
    message: "Cannot parse JSON: expected a value at line 2, column 22, " +
      "found a word without double quotes",
  });
  assert.throws(() => parseJson('{"a":1'), {
    message:
      'Cannot parse JSON: expected "," or "}" at line 1, column 7, found the end of the text',
  });
  assert.throws(() => parseJson('{"a":1} x'), {
    message: /expected the end of the text at line 1/,
  });
});

Deno.test("parseJson() refuses nesting that could exhaust the stack", () => {
  assert.throws(() => parseJson("[".repeat(1_000_000)), { message: /at most 100 levels/ });
});

Deno.test("parseJson() names what people write in place of JSON, and where", () => {
  const cases: [text: string, place: string, found: string][] = [
    ['\ufeff{"a":1}', "line 1, column 1", "U+FEFF, a byte order mark"],
    ["{\u201cNetwork\u201d: 1}", "line 1, column 2", "U+201C “, a curly quote"],
    ['{\u00a0"a":1}', "line 1, column 2", "U+00A0, a no-break space"],
    ['{"a"\uff1a1}', "line 1, column 5", 'U+FF1A ：, a full-width ":"'],
    ['{"a":1\uff0c"b":2}', "line 1, column 7", 'U+FF0C ，, a full-width ","'],
    [
      '\ufffd\ufffd{\u0000"',
      "line 1, column 1",
      "U+FFFD, where the bytes are no UTF-8",
    ],
    ['{"a":1}\u0000', "line 1, column 8", "U+0000, a null character"],
    ['{"a":1, \\\n "b":2}', "line 1, column 9", "a backslash at the end of the line"],
    [
      '{"a":1, \\\r\n "b":2}',
      "line 1, column 9",
      "a backslash at the end of the line",
    ],
    ['{\\"a\\":1}', "line 1, column 2", "a backslash before a quote"],
    ['{"a":1,\n}', "line 2, column 1", '"}"; leave out the comma before it'],
    ['{"a":[1,]}', "line 1, column 9", '"]"; leave out the comma before it'],
    ["{'a':1}", "line 1, column 2", "a single quote"],
    ["'{}'", "line 1, column 1", "a single quote"],
    ['{\n// a\n"a":1}', "line 2, column 1", "a comment"],
    ['{"a":1 # b\n}', "line 1, column 8", "a comment"],
    ['{"a":1 /* b */}', "line 1, column 8", "a comment"],
    ['{"a":True}', "line 1, column 6", "the word True, for which JSON has true"],
    ['{"a":None}', "line 1, column 6", "the word None, for which JSON has null"],
    ["{Network:1}", "line 1, column 2", "a word without double quotes"],
    ['{"a":10.3.0.0/16}', "line 1, column 10", "something that is not a number; a text"],
    ['{"a":010}', "line 1, column 7", "something that is not a number"],
    ['{"a":0x10}', "line 1, column 7", "something that is not a number"],
    ['{"a":.5}', "line 1, column 6", "something that is not a JSON number"],
    ['{"a":1 "b":2}', "line 1, column 8", "a text in quotes"],
    ['{"a" "b"}', "line 1, column 6", "a text in quotes"],
    ['{"a":"x\n"}', "line 1, column 8", "the end of the line, inside a text in quotes"],
    ['{"a":"C:\\dir"}', "line 1, column 9", "a backslash that starts no JSON escape"],
    ['{"a":"x\ty"}', "line 1, column 8", "U+0009, a tab, inside a text"],
    ['{"a":"x', "line 1, column 6", "a text in quotes that does not end"],
    ['{"a":=}', "line 1, column 6", '"="'],
    ['{"a":1}{"b":2}', "line 1, column 8", '"{"'],
    ["config.json", "line 1, column 1", "a word without double quotes"],
  ];
  for (const [text, where, found] of cases) {
    assert.throws(() => parseJson(text), (error: Error) => {
      assert.ok(error.message.includes(`at ${where}, found ${found}`), `${text}: ${error.message}`);
      return true;
    });
  }
});

Deno.test("parseJson() quotes no more of a text than one character", () => {
  fc.assert(
    fc.property(fc.nat(60), fc.constantFrom("", "\u201c", "'", "\\", "#", "x"), (cut, odd) => {
      const good = '{"AccessKeySecret":"canary-canary","Backend":{"Type":"vxlan"}}';
      try {
        parseJson(good.slice(0, cut) + odd + good.slice(cut + 1));
      } catch (error) {
        assert.doesNotMatch((error as Error).message, /canary|nary-|can|AccessKey|vxlan/);
      }
    }),
  );
});

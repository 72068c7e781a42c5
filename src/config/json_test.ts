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
      assert.deepEqual(parseJson(text).value, expected);
    }),
    { numRuns: 5_000 },
  );
});

Deno.test("parseJson() keeps the order of last occurrences and names duplicates", () => {
  const { value, duplicates } = parseJson('{"a":1,"A":2,"a":{"x":1,"x":2},"l":[{"y":1,"y":1}]}');
  assert.deepEqual(Object.keys(value as object), ["A", "a", "l"]);
  assert.deepEqual(duplicates, ["a", "a.x", "l.[0].y"]);
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
    message: "Cannot parse JSON: a value is expected at line 2, column 22, " +
      "but something else stands there",
  });
  assert.throws(() => parseJson('{"a":1'), {
    message: 'Cannot parse JSON: "," or "}" is expected at line 1, column 7, ' +
      "but the text ends there",
  });
  assert.throws(() => parseJson('{"a":1} x'), { message: /the end is expected at line 1/ });
});

Deno.test("parseJson() refuses nesting that could exhaust the stack", () => {
  assert.throws(() => parseJson("[".repeat(1_000_000)), { message: /at most 100 levels/ });
});

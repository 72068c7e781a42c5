import assert from "node:assert/strict";
import fc from "fast-check";
import { loadGoRegex, parseGoBoolean, parseGoInteger } from "./go_syntax.ts";

Deno.test("parseGoBoolean() knows Go's twelve words", () => {
  for (const word of "1 t T true TRUE True".split(" ")) assert.equal(parseGoBoolean(word), true);
  for (const word of "0 f F false FALSE False".split(" ")) {
    assert.equal(parseGoBoolean(word), false);
  }
  for (const word of ["", "yes", "no", "on", "tRUE", " true"]) {
    assert.equal(parseGoBoolean(word), undefined);
  }
});

Deno.test("parseGoInteger() reads base-0 literals", () => {
  const good: [string, number][] = [
    ["0", 0],
    ["60", 60],
    ["+5", 5],
    ["-5", -5],
    ["-0", 0],
    ["0x3C", 60],
    ["0X_3c", 60],
    ["074", 60],
    ["0o74", 60],
    ["0O74", 60],
    ["0_74", 60],
    ["00", 0],
    ["0b111100", 60],
    ["1_000", 1000],
    ["0x1_0", 16],
  ];
  for (const [text, expected] of good) assert.equal(parseGoInteger(text), expected, text);
  for (
    const text of ["", "09", "1__0", "_1", "1_", "0x", "0b2", "1.0", "1e3", " 1", "60s", "--1"]
  ) {
    assert.equal(parseGoInteger(text), undefined, text);
  }
  assert.equal(parseGoInteger("9".repeat(30)), undefined);
});

Deno.test("parseGoInteger() reads every integer as JavaScript writes it", () => {
  fc.assert(fc.property(fc.maxSafeInteger(), (value) => {
    assert.equal(parseGoInteger(String(value)), value);
  }));
});

const compile = await loadGoRegex();

Deno.test("loadGoRegex() means what RE2 means", () => {
  const cases: [regex: string, matching: string[], others: string[]][] = [
    ["eth", ["eth0", "myeth"], ["ETH0", "ens3"]],
    ["^eth\\d+$", ["eth0"], ["eth", "eth0.1"]],
    ["(?i)^ETH", ["eth0"], ["xeth"]],
    ["^(?i:E)th", ["Eth0", "eth0"], ["ETH0"]],
    ["10\\.0\\.[0-9]+\\.", ["10.0.3.4"], ["10a0b3c4"]],
    ["\\Aeth0\\z", ["eth0"], ["eth01"]],
    ["\\Qeth0.100\\E$", ["eth0.100"], ["eth0x100"]],
    ["^[[:alpha:]]+[[:digit:]]$", ["eth0"], ["eth01x", "0eth"]],
    ["^[^[:alpha:]]", ["0"], ["e"]],
    ["^bond\\-0$", ["bond-0"], ["bond0"]],
    ["^br\\_x[\\-\\_]", ["br_x-", "br_x_"], ["br_xx"]],
    ["(?P<kind>eth|ens)\\d", ["ens3"], ["wlan0"]],
    ["^\\pL+$", ["eth"], ["eth0"]],
    ["[[]", ["["], ["]"]],
    ["a/b", ["a/b"], ["ab"]],
    ["a{2", ["a{2"], ["aa"]],
    ["^[^[:^alpha:]]+$", ["eth"], ["eth0"]],
    ["^eth(?i)A(?-i)b$", ["ethab", "ethAb"], ["ethaB", "ETHAb"]],
    ["(?s)a.b", ["a\nb"], ["ab"]],
    ["(?U)^e.*h", ["eth"], ["th"]],
    ["^\\p{Greek}$", ["λ"], ["l"]],
  ];
  for (const [regex, matching, others] of cases) {
    for (const text of matching) assert.ok(compile(regex).test(text), `${regex} ${text}`);
    for (const text of others) assert.ok(!compile(regex).test(text), `${regex} ${text}`);
  }
});

Deno.test("loadGoRegex() refuses what RE2 refuses", () => {
  for (
    const regex of [
      "(",
      "[",
      "*",
      "[[:nonsense:]]",
      "\\C",
      "x)",
      "a**",
      "\\",
      "(?=eth)",
      "(e)\\1",
    ]
  ) {
    assert.throws(() => compile(regex), SyntaxError, regex);
  }
});

Deno.test("loadGoRegex() matches in linear time", () => {
  assert.ok(!compile("^(a+)+$").test("a".repeat(50_000) + "!"));
});

Deno.test("loadGoRegex() with any text throws nothing but SyntaxError", () => {
  const pieces = fc.constantFrom(..."[]()\\QEAz:^$*+?.{}|-ap/i ", "[:alpha:]", "(?i)", "(?P<n>");
  fc.assert(fc.property(fc.array(pieces), (parts) => {
    try {
      compile(parts.join(""));
    } catch (error) {
      assert.ok(error instanceof SyntaxError);
    }
  }));
});

import assert from "node:assert/strict";
import fc from "fast-check";
import { forgetSecret, redact, rememberSecret, Secret } from "./secret.ts";

/** A secret that is known for as long as the scope lasts. */
function remember(text: string): Disposable {
  rememberSecret(text);
  return { [Symbol.dispose]: () => forgetSecret(text) };
}

function base64(text: string): string {
  return new TextEncoder().encode(text.toWellFormed()).toBase64();
}

Deno.test("Secret is not printed by accident", () => {
  const secret = new Secret("canary-1");
  using _ = { [Symbol.dispose]: () => forgetSecret("canary-1") };
  for (
    const text of [
      String(secret),
      `${secret}`,
      JSON.stringify({ secret }),
      Deno.inspect({ nested: [secret] }, { showHidden: true }),
    ]
  ) {
    assert.doesNotMatch(text, /canary/);
    assert.match(text, /\[redacted\]/);
  }
  assert.equal(secret.reveal(), "canary-1");
});

Deno.test("redact() finds a secret in every form in which libraries pass it on", () => {
  const secret = `Pä55 "w0rd"+(a/b)*='\\`;
  using _ = remember(secret);
  for (
    const text of [
      secret,
      `http://host/?password=${encodeURIComponent(secret)}&x=1`,
      new URLSearchParams({ user: "root", password: secret }).toString(),
      JSON.stringify({ password: secret }),
      base64(secret),
      ...["u:", "us:", "user:"].map((user) => `Authorization: Basic ${base64(user + secret)}`),
      base64(`user:${secret}:more`).replaceAll("+", "-").replaceAll("/", "_"),
    ]
  ) {
    const clean = redact(text);
    assert.match(clean, /\[redacted\]/, text);
    assert.doesNotMatch(clean, /w0rd|dzByZ|cwcmQ|3MHJk/, clean);
  }
});

Deno.test("redact() leaves nothing of secrets that contain or overlap each other", () => {
  using _short = remember("abcd");
  using _long = remember("xabcdef");
  using _next = remember("efgh");
  assert.equal(redact("<xabcdef>"), "<[redacted]>");
  assert.equal(redact("<xabcdefgh>"), "<[redacted]>");
  assert.equal(redact("abcdefgh"), "[redacted][redacted]");
  assert.equal(redact("abcd abcd"), "[redacted] [redacted]");
});

Deno.test("redact() takes any secret, however odd or long", () => {
  for (const text of ["\ud800half", "\udc00", "a\u0000b\nc", "🔑🔑", "x".repeat(1 << 20)]) {
    using _ = remember(text);
    if (text.length >= 4) assert.equal(redact(`<${text}>`), "<[redacted]>");
  }
});

Deno.test("redact() removes any secret from any text, and only that", () => {
  const text = fc.string({ unit: "binary" });
  fc.assert(fc.property(fc.string({ unit: "binary", minLength: 4 }), text, text, (secret, a, b) => {
    using _ = remember(secret);
    assert.ok(!redact(a + secret + b).includes(secret));
    if (!a.includes(secret)) assert.ok(redact(a) === a || redact(a).includes("[redacted]"));
  }));
});

Deno.test("forgetSecret() lets go of every form", () => {
  rememberSecret("forgotten+1");
  forgetSecret("forgotten+1");
  for (const text of ["forgotten+1", encodeURIComponent("forgotten+1"), base64("forgotten+1")]) {
    assert.equal(redact(text), text);
  }
});

Deno.test("redact() spares texts too short to be told from others", () => {
  rememberSecret("abc");
  assert.equal(redact("abc abc"), "abc abc");
});

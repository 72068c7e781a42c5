import assert from "node:assert/strict";
import fc from "fast-check";
import { type Endpoint, parseEndpoint } from "./endpoint.ts";

function parse(text: string, secure = false): Endpoint {
  const endpoint = parseEndpoint(text, { secure });
  assert(typeof endpoint !== "string", `${text}: ${endpoint}`);
  return endpoint;
}

Deno.test("parseEndpoint() keeps the port that was written, a scheme's default too", () => {
  const cases: readonly (readonly [string, string])[] = [
    ["http://h:80", "http://h:80"],
    ["https://h:443", "https://h:443"],
    ["http://h:443", "http://h:443"],
    ["https://h:80/", "https://h:80"],
    ["http://[fd00::5]:80", "http://[fd00::5]:80"],
    ["https://[FD00:0:0::5]:443//", "https://[fd00::5]:443"],
    ["h:80", "http://h:80"],
    ["http://127.0.0.1:4001", "http://127.0.0.1:4001"],
    [" HTTPS://Etcd.Example:2379/ ", "https://etcd.example:2379"],
    ["10.0.0.5:2379", "http://10.0.0.5:2379"],
    ["etcd-1:2379\r", "http://etcd-1:2379"],
    ["[fd00::5]:2379", "http://[fd00::5]:2379"],
    ["localhost:2379", "http://localhost:2379"],
    ["etcd_1.internal.:02379", "http://etcd_1.internal.:2379"],
  ];
  for (const [text, url] of cases) {
    const endpoint = parse(text);
    assert.equal(endpoint.url, url, text);
    assert.deepEqual(endpoint.notes, [], text);
    assert.deepEqual(parse(endpoint.url), endpoint, "the canonical text means the same");
  }
  assert.deepEqual(parse("https://[FD00::5]:443"), {
    url: "https://[fd00::5]:443",
    secure: true,
    hostname: "fd00::5",
    port: 443,
    notes: [],
  });
});

Deno.test("parseEndpoint() says what it filled in or left out", () => {
  for (
    const [text, url] of [
      ["http://h", "http://h:2379"],
      ["https://h/", "https://h:2379"],
      ["10.0.0.5", "http://10.0.0.5:2379"],
      ["[::1]", "http://[::1]:2379"],
    ] as const
  ) {
    assert.equal(parse(text).url, url);
    assert.deepEqual(parse(text).notes, [`${url}: no port was given, so 2379 is tried`]);
  }
  // etcd's own client leaves a path out, too.
  for (const rest of ["/v2/keys", "/?a=b", "?a", "#b"]) {
    assert.equal(parse(`http://h:1${rest}`).url, "http://h:1");
    assert.match(parse(`http://h:1${rest}`).notes[0]!, /^http:\/\/h:1: what follows the port/);
  }
});

Deno.test("parseEndpoint() takes TLS for an endpoint without a scheme where that is meant", () => {
  assert.equal(parse("10.0.0.5:2379", true).url, "https://10.0.0.5:2379");
  assert.equal(parse("http://10.0.0.5:2379", true).url, "http://10.0.0.5:2379");
});

Deno.test("parseEndpoint() takes a user and password out of a URL, as Go does", () => {
  const cases: readonly (readonly [string, string, string | undefined, string?])[] = [
    ["http://me:s3cret@h:1", "http://h:1", "me", "s3cret"],
    ["HTTPS://a%40b:p%3a%2f:x@[fd00::5]:1/x", "https://[fd00::5]:1", "a@b", "p:/:x"],
    ["http://me:p@ss;w'rd@h:1", "http://h:1", "me", "p@ss;w'rd"],
    ["http://:s3cret@h:1", "http://h:1", undefined],
    ["http://me@h:1", "http://h:1", undefined],
    ["http://me:@h:1", "http://h:1", undefined],
    ["http://h:1/a@b", "http://h:1", undefined],
  ];
  for (const [text, url, name, password] of cases) {
    const endpoint = parse(text);
    assert.equal(endpoint.url, url, text);
    assert.equal(endpoint.user?.name, name, text);
    assert.equal(endpoint.user?.password, password, text);
    assert.doesNotMatch(JSON.stringify({ ...endpoint, user: undefined }), /s3cret|ss;/);
  }
  assert.match(parse("http://me@h:1").notes[0]!, /h:1: what stands before the @ has no effect/);
});

Deno.test("parseEndpoint() takes unix sockets as etcd's own client does", () => {
  const cases: readonly (readonly [string, string, string])[] = [
    ["unix:///run/etcd.sock", "unix:///run/etcd.sock", "/run/etcd.sock"],
    ["unix:/run/etcd.sock", "unix:///run/etcd.sock", "/run/etcd.sock"],
    ["unix:etcd.sock", "unix:etcd.sock", "etcd.sock"],
    ["UNIX://localhost:12379", "unix:localhost:12379", "localhost:12379"],
  ];
  for (const [text, url, path] of cases) {
    const { notes, ...endpoint } = parse(text);
    assert.deepEqual(endpoint, { url, secure: false, hostname: "localhost", port: 0, path }, text);
    assert.deepEqual(notes, []);
    assert.deepEqual(parse(url), { ...endpoint, notes }, "the canonical text means the same");
  }
  assert.match(String(parseEndpoint("unix:/x", { secure: true })), /TLS over unix sockets/);
});

Deno.test("parseEndpoint() says what is wrong, and quotes nothing", () => {
  const cases: readonly (readonly [string, RegExp])[] = [
    ["", /empty/],
    [" ", /empty/],
    ['"http://a:1"', /without quotes/],
    ['"http://a:1', /without quotes/],
    ["'a:1'", /without quotes/],
    ["\u201chttp://a:1\u201d", /without quotes/],
    ["me:s3cret@a", /scheme where it holds a user/],
    ["ftp://me:s3cret@a", /scheme where it holds a user/],
    ["http://me:s3cret%@a", /each "%" .* as %25/],
    ["http://me:s3cret@", /form http/],
    ["http://me:s3cret/@a:1", /port from 1/],
    ["http://a:1 http://b:1", /separated by commas/],
    ["http://a:1;http://b:1", /separated by commas/],
    ["unix:", /path after unix:/],
    ["unix://", /path after unix:/],
    ["unixs:///run/etcd.sock", /TLS over unix sockets/],
    ["ftp://a:1", /http:\/\/ or https:\/\//],
    ["://a:1", /http:\/\/ or https:\/\//],
    ["http://", /of the form/],
    ["http:///x", /of the form/],
    [":2379", /of the form/],
    ["http://:2379", /of the form/],
    ["http://[::1", /of the form/],
    ["[::1]x:1", /of the form/],
    ["fd00::5:2379", /IPv6 address in brackets/],
    ["::1", /IPv6 address in brackets/],
    ["http://fd00::5", /IPv6 address in brackets/],
    ["http://fd00::5:2379/", /IPv6 address in brackets/],
    ["http://a:", /a port from 1 to 65535/],
    ["http://a:0", /a port from 1 to 65535/],
    ["http://a:65536", /a port from 1 to 65535/],
    ["http://a:2379x", /a port from 1 to 65535/],
    ["http:/10.0.0.5:2379", /two slashes/],
    ["http:10.0.0.5:2379", /two slashes/],
    ["https:etcd", /two slashes/],
    ["http://http://a:1", /its scheme once/],
    ["http://https:/a:1", /its scheme once/],
    ["http://10.0.0.256:1", /host or an IP address/],
    ["http://[fe80::1%25eth0]:1", /link-local ones are not supported/],
    ["[FE80::1]:1", /link-local ones are not supported/],
    ["[fd00::1%eth0]:1", /needs no link/],
    ["http://[10.0.0.5]:1", /host or an IP address/],
    ["http://[fd00::g]:1", /host or an IP address/],
    ["2379", /host or an IP address/],
    ["http://a%20b:1", /host or an IP address/],
  ];
  for (const [text, pattern] of cases) {
    const fault = parseEndpoint(text, { secure: false });
    assert(typeof fault === "string", text);
    assert.match(fault, pattern, text);
    assert.doesNotMatch(fault, /s3cret/);
  }
});

Deno.test("parseEndpoint() of any text gives a fault, or a text that means the same again", () => {
  const texts = fc.oneof(
    fc.string(),
    fc.webUrl(),
    fc.ipV6(),
    fc.tuple(
      fc.constantFrom("", "http://", "https://", "http:/"),
      fc.oneof(fc.domain(), fc.ipV4(), fc.ipV6().map((each) => `[${each}]`)),
      fc.constantFrom("", ":", ":80", ":443", ":2379", ":99999"),
      fc.constantFrom("", "/", "/x"),
    ).map((parts) => parts.join("")),
  );
  fc.assert(fc.property(texts, fc.boolean(), (text, secure) => {
    const endpoint = parseEndpoint(text, { secure });
    if (typeof endpoint === "string") return;
    const again = parse(endpoint.url, !secure);
    assert.deepEqual({ ...again, notes: [] }, { ...endpoint, notes: [] });
    assert.deepEqual(again.notes, []);
    assert.equal(new URL(endpoint.url).protocol, endpoint.secure ? "https:" : "http:");
  }));
});

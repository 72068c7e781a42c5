import assert from "node:assert/strict";
import { escapeNonAscii, lockOnly } from "../dist/compile.ts";
import { describeDownloadFailure } from "../dist/download_failure.ts";

Deno.test("lockOnly() keeps what the packages depend on, and nothing else", () => {
  const lock = {
    version: "5",
    specifiers: { "npm:@a/b@1.0.0": "1.0.0", "npm:c@2.0.0": "2.0.0" },
    npm: {
      "@a/b@1.0.0": { integrity: "sha512-1", dependencies: ["d@1.0.0", "e"] },
      "c@2.0.0": { integrity: "sha512-2", dependencies: ["d@2.0.0"] },
      "d@1.0.0": { integrity: "sha512-3", dependencies: ["e"] },
      "d@2.0.0": { integrity: "sha512-4" },
      "e@3.0.0": { integrity: "sha512-5", dependencies: ["d@1.0.0"] },
      "ee@3.0.0": { integrity: "sha512-6" },
    },
    workspace: { dependencies: ["npm:@a/b@1.0.0", "npm:c@2.0.0"] },
  };
  const { npm } = lock;
  assert.deepEqual(lockOnly(lock, ["npm:@a/b@1.0.0"]), {
    version: "5",
    specifiers: { "npm:@a/b@1.0.0": "1.0.0" },
    npm: { "@a/b@1.0.0": npm["@a/b@1.0.0"], "d@1.0.0": npm["d@1.0.0"], "e@3.0.0": npm["e@3.0.0"] },
    workspace: { dependencies: ["npm:@a/b@1.0.0"] },
  });
  const incomplete = { ...lock, npm: { "c@2.0.0": npm["c@2.0.0"] } };
  assert.throws(() => lockOnly(incomplete, ["npm:c@2.0.0"]), /deno\.lock: it lacks d@2\.0\.0/);
});

Deno.test("lockOnly() leaves out what only a type check needs", () => {
  const npm = {
    "a@1.0.0": { integrity: "sha512-1", dependencies: ["@types/node@20.0.0", "b"] },
    "b@1.0.0": { integrity: "sha512-2" },
    "@types/node@20.0.0": { integrity: "sha512-3", dependencies: ["undici-types"] },
    "undici-types@1.0.0": { integrity: "sha512-4" },
  };
  const lock = { version: "5", specifiers: { "npm:a@1.0.0": "1.0.0" }, npm, workspace: {} };
  assert.deepEqual(lockOnly(lock, ["npm:a@1.0.0"]).npm, {
    "a@1.0.0": { integrity: "sha512-1", dependencies: ["b"] },
    "b@1.0.0": npm["b@1.0.0"],
  });
});

Deno.test("escapeNonAscii() keeps the meaning of source text", () => {
  const source = 'const é = "…𝄞"; export default [é, /^[→]$/u.test("→")];';
  const escaped = escapeNonAscii(source);
  assert.match(escaped, /^[ -~]+$/);
  const run = (text: string) => new Function(text.replace("export default", "return"))();
  assert.deepEqual(run(escaped), run(source));
});

Deno.test("lockOnly() finds all that the project's own lock file names", async () => {
  const text = await Deno.readTextFile(new URL("../deno.lock", import.meta.url));
  const lock = JSON.parse(text);
  assert.deepEqual(
    Object.keys(lockOnly(lock, Object.keys(lock.specifiers)).npm).sort(),
    [
      ...Object.keys(lock.npm).filter((name) => !/^(@types\/|undici-types@)/.test(name)),
    ].sort(),
  );
});

Deno.test("describeDownloadFailure() says in one line what, why, and which variable helps", () => {
  const cases: [stderr: string, expected: RegExp][] = [
    [
      `error: Failed caching npm package 'etcd3@1.1.2'

Caused by:
    0: error sending request for url (http://127.0.0.1:9/etcd3/-/etcd3-1.1.2.tgz): client error (Connect): tcp connect error: Connection refused (os error 111)
    1: client error (Connect)
`,
      /^Cannot download http:\/\/127.0.0.1:9\/etcd3\/-\/etcd3-1.1.2.tgz: tcp connect error: Connection refused; NPM_CONFIG_REGISTRY /,
    ],
    [
      `error: Writing deno compile executable to temporary file 'x.tmp-1'

Caused by:
    0: Setting up base binary.
    1: error sending request for url (https://dl.deno.land/release/v2.9.6/denort-x.zip): client error (Connect): dns error: failed to lookup address information: Name or service not known
`,
      /denort-x\.zip: failed to lookup .*: Name or service not known; DENORT_BIN names /,
    ],
    [
      "\x1b[31merror\x1b[0m: error sending request for url (https://registry.npmjs.org/etcd3): client error (Connect): invalid peer certificate: UnknownIssuer\n",
      /^Cannot download https:\/\/registry\.npmjs\.org\/etcd3: invalid peer certificate: UnknownIssuer; DENO_TLS_CA_STORE=system /,
    ],
    [
      "error: Failed caching npm package 'socks@2.8.10'\n    0: npm package not found in cache: \"socks\"\n",
      /^Cannot download socks@2\.8\.10: npm package not found in cache: "socks"; NPM_CONFIG_/,
    ],
    [
      "npm error FetchError: request to http://127.0.0.1:9/deno failed, reason: connect ECONNREFUSED 127.0.0.1:9\nnpm error     at x\n",
      /^Cannot download http:\/\/127.0.0.1:9\/deno: connect ECONNREFUSED 127.0.0.1:9; NPM_CONFIG_/,
    ],
    [
      "npm error code E404\nnpm error 404 Not Found - GET http://127.0.0.1:8/deno - Not found\n",
      /^Cannot download http:\/\/127.0.0.1:8\/deno: HTTP status 404; NPM_CONFIG_REGISTRY/,
    ],
  ];
  for (const [stderr, expected] of cases) {
    const line = describeDownloadFailure(stderr) ?? "";
    assert.match(line, expected);
    assert.ok(!line.includes("\n"));
  }
  assert.equal(
    describeDownloadFailure("error: Type error TS2304: Cannot find name 'x'"),
    undefined,
  );
});

/** The archives written here are what the system's own tools read. */
import assert from "node:assert/strict";
import { directory, type Entry, file, link, sorted } from "../../dist/package/files.ts";
import { gzip } from "../../dist/package/gzip.ts";
import { readTar, writeTar } from "../../dist/package/tar.ts";
import { run } from "../support/run.ts";

const signal = AbortSignal.timeout(60_000);
const LONG = `${"directory/".repeat(12)}${"file".repeat(20)}`;

const ENTRIES: readonly Entry[] = [
  file("usr/bin/program", "#!/bin/sh\n", 0o755),
  file("etc/secret", "x".repeat(600), 0o600),
  file(LONG, "deep"),
  link("usr/bin/other", "program"),
  directory("tmp", 0o1777),
];

Deno.test("tar lists an archive of ours as it was meant, whoever makes it and when", async () => {
  const directory = await Deno.makeTempDir();
  const path = `${directory}/a.tar.gz`;
  await Deno.writeFile(path, gzip(writeTar(sorted(ENTRIES), 1_700_000_000, "./")));
  const lines = (await run("tar", ["-tvzf", path, "--full-time", "--utc"], { signal })).trim()
    .split("\n").filter((line) => !line.startsWith("d"));
  assert.deepEqual(lines.map((line) => line.replaceAll(/ +/g, " ")), [
    `-rw-r--r-- root/root 4 2023-11-14 22:13:20 ./${LONG}`,
    "-rw------- root/root 600 2023-11-14 22:13:20 ./etc/secret",
    "lrwxrwxrwx root/root 0 2023-11-14 22:13:20 ./usr/bin/other -> program",
    "-rwxr-xr-x root/root 10 2023-11-14 22:13:20 ./usr/bin/program",
  ]);
  await Deno.remove(directory, { recursive: true });
});

Deno.test("readTar() reads what tar writes: long names, links, hard links", async () => {
  const root = await Deno.makeTempDir();
  for (const entry of sorted(ENTRIES)) {
    const path = `${root}/${entry.path}`;
    if (entry.kind === "directory") await Deno.mkdir(path);
    else if (entry.kind === "link") await Deno.symlink(entry.target, path);
    else {
      await Deno.writeFile(path, entry.bytes);
      await Deno.chmod(path, entry.mode); // whatever the umask
    }
  }
  await Deno.link(`${root}/etc/secret`, `${root}/usr/same`);
  await run("tar", ["--format=gnu", "-cf", `${root}.tar`, "-C", root, "."], { signal });
  const read = readTar(await Deno.readFile(`${root}.tar`));
  const expected = [...ENTRIES, { ...ENTRIES[1]!, path: "usr/same" }];
  for (const entry of expected.filter(({ kind }) => kind !== "directory")) {
    assert.deepEqual(read.find(({ path }) => path === entry.path), entry);
  }
  assert.equal(read.length, sorted(expected).length);
  await Deno.remove(root, { recursive: true });
  await Deno.remove(`${root}.tar`);
});

Deno.test("sorted() adds parents, and refuses two files of one path", () => {
  assert.deepEqual(sorted([file("b/c/d", ""), file("a", "")]).map(({ path }) => path), [
    ...["a", "b", "b/c", "b/c/d"],
  ]);
  assert.throws(() => sorted([file("a", "1"), file("a", "2")]), /a: it is there twice/);
});

import assert from "node:assert/strict";
import { followLinks, openTrusted, removeFile, writeFileAtomically } from "./atomic_file.ts";

const root = Deno.uid() === 0;
const OTHER_USER = 65_534;

/** Declares a test in a directory that everybody may write to, as `/tmp`, with another user in it. */
function hostileTest(
  name: string,
  test: (
    directory: string,
    theirs: { link(to: string, name: string): Promise<void> },
  ) => Promise<void>,
): void {
  Deno.test({
    name: root ? name : `${name} [skipped: needs root to act as another user]`,
    ignore: !root,
    async fn() {
      const directory = await Deno.makeTempDir({ prefix: "atomic-file-" });
      await Deno.chmod(directory, 0o1777);
      try {
        await test(directory, {
          async link(to, name) {
            await Deno.symlink(to, name);
            const { success } = await new Deno.Command("chown", {
              args: ["-h", String(OTHER_USER), name],
            }).output();
            assert.ok(success);
          },
        });
      } finally {
        await Deno.remove(directory, { recursive: true });
      }
    },
  });
}

async function read(path: string): Promise<string | undefined> {
  using file = await openTrusted(path);
  if (!file) return undefined;
  const buffer = new Uint8Array(1024);
  return new TextDecoder().decode(buffer.subarray(0, await file.read(buffer) ?? 0));
}

hostileTest(
  "writeFileAtomically() replaces another user's link and leaves what it leads to",
  async (directory, theirs) => {
    const victim = `${directory}/victim`;
    await Deno.writeTextFile(victim, "root's own");
    const path = `${directory}/subnet.env`;
    await theirs.link(victim, path);
    assert.equal(await read(path), undefined);
    await writeFileAtomically(path, "ours");
    assert.equal(await Deno.readTextFile(victim), "root's own");
    assert.equal((await Deno.lstat(path)).isSymlink, false);
    assert.equal(await read(path), "ours");
    // A link to a link: ours leads to theirs.
    await Deno.remove(path);
    await theirs.link(victim, `${directory}/middle`);
    await Deno.symlink("middle", path);
    await writeFileAtomically(path, "again");
    assert.equal(await Deno.readTextFile(victim), "root's own");
    assert.equal((await Deno.lstat(path)).isSymlink, true);
    assert.equal(await read(path), "again");
  },
);

hostileTest("writeFileAtomically() follows links of root, and keeps them", async (directory) => {
  await Deno.mkdir(`${directory}/var/run`, { recursive: true });
  await Deno.symlink("var/run", `${directory}/run`);
  await Deno.symlink("run/real.env", `${directory}/subnet.env`);
  await writeFileAtomically(`${directory}/subnet.env`, "ours");
  assert.equal(await Deno.readTextFile(`${directory}/var/run/real.env`), "ours");
  assert.ok((await Deno.lstat(`${directory}/subnet.env`)).isSymlink);
  assert.equal(await followLinks(`${directory}/subnet.env`), `${directory}/run/real.env`);
});

hostileTest("a file of another user counts for nothing, nor does its mode", async (directory) => {
  const path = `${directory}/subnet.env`;
  await Deno.writeTextFile(path, "FLANNEL_SUBNET=10.6.6.1/24", { mode: 0o666 });
  await Deno.chmod(path, 0o777);
  await Deno.chown(path, OTHER_USER, OTHER_USER);
  assert.equal(await read(path), undefined);
  await writeFileAtomically(path, "ours");
  const { uid, mode } = await Deno.stat(path);
  assert.deepEqual([uid, mode! & 0o777], [0, 0o644]);
  assert.equal(await read(path), "ours");
  // Where only its owner may write, root has put it there on purpose.
  await Deno.mkdir(`${directory}/closed`, { mode: 0o755 });
  await Deno.writeTextFile(`${directory}/closed/file`, "theirs");
  await Deno.chown(`${directory}/closed/file`, OTHER_USER, OTHER_USER);
  assert.equal(await read(`${directory}/closed/file`), "theirs");
});

hostileTest(
  "writeFileAtomically() needs no name that another user keeps taken",
  async (directory, theirs) => {
    const victim = `${directory}/victim`;
    await Deno.writeTextFile(victim, "root's own", { mode: 0o600 });
    const path = `${directory}/subnet.env`;
    const temporary = `${directory}/.subnet.env.flanneld`;
    await theirs.link(victim, temporary);
    await writeFileAtomically(path, "one");
    await Deno.mkdir(`${temporary}/full`, { recursive: true });
    await writeFileAtomically(path, "two");
    assert.equal(await read(path), "two");
    const { mode } = await Deno.stat(victim);
    assert.deepEqual([await Deno.readTextFile(victim), mode! & 0o777], ["root's own", 0o600]);
    const names = [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
    assert.deepEqual(names, [".subnet.env.flanneld", "subnet.env", "victim"]);
  },
);

Deno.test("what is no file is neither waited for nor replaced nor removed", async () => {
  const directory = await Deno.makeTempDir({ prefix: "atomic-file-" });
  try {
    const pipe = `${directory}/pipe`;
    await new Deno.Command("mkfifo", { args: [pipe] }).output();
    for (const path of [pipe, directory, "/dev/null"]) {
      await assert.rejects(openTrusted(path), /is no regular file$/);
      await assert.rejects(writeFileAtomically(path, "ours"), /is no regular file$/);
      await assert.rejects(removeFile(path), /is no regular file$/);
    }
    assert.ok((await Deno.stat("/dev/null")).isCharDevice);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

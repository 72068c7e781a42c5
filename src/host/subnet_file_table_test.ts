import assert from "node:assert/strict";
import { diff } from "../../tests/support/diff.ts";
import { SubnetFileTable } from "./subnet_file_table.ts";

const TEXT = "FLANNEL_SUBNET=10.42.7.1/24\nFLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n";
const { signal } = new AbortController();

async function withDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir({ prefix: "subnet-file-" });
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** One round as the reconciler does it; returns the number of changes. */
async function round(path: string, text: string): Promise<number> {
  const table = new SubnetFileTable(path);
  const { writes, removals } = diff(table.kind, [{ path, text }], await table.list({ signal }));
  assert.deepEqual(await table.apply([...writes, ...removals], { signal }), []);
  return writes.length + removals.length;
}

function names(directory: string): string[] {
  return [...Deno.readDirSync(directory)].map(({ name }) => name).sort();
}

Deno.test("SubnetFileTable writes the file and its directories, once", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/run/flannel/subnet.env`;
    assert.equal(await round(path, TEXT), 1);
    assert.equal(await Deno.readTextFile(path), TEXT);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o644);
    assert.deepEqual(names(`${directory}/run/flannel`), ["subnet.env"]);
    const { ino } = await Deno.stat(path);
    assert.equal(await round(path, TEXT), 0);
    assert.equal((await Deno.stat(path)).ino, ino);
  }));

Deno.test("SubnetFileTable replaces by rename and keeps the mode", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/subnet.env`;
    await Deno.writeTextFile(path, "old");
    await Deno.chmod(path, 0o640);
    using reader = await Deno.open(path);
    assert.equal(await round(path, TEXT), 1);
    assert.equal(await Deno.readTextFile(path), TEXT);
    assert.equal((await Deno.stat(path)).mode! & 0o777, 0o640);
    // Who had it open still reads the old content, whole.
    assert.equal(await new Response(reader.readable).text(), "old");
  }));

Deno.test("SubnetFileTable writes through symbolic links, dangling ones too", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/subnet.env`;
    await Deno.mkdir(`${directory}/real`);
    await Deno.symlink("real/file", path);
    assert.equal(await round(path, TEXT), 1);
    assert.equal(await round(path, TEXT + "X=1\n"), 1);
    assert.equal((await Deno.lstat(path)).isSymlink, true);
    assert.equal(await Deno.readTextFile(`${directory}/real/file`), TEXT + "X=1\n");
    assert.deepEqual(names(`${directory}/real`), ["file"]);
  }));

Deno.test("SubnetFileTable gets over what a killed run left", () =>
  withDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/.subnet.env.flanneld`, "half");
    assert.equal(await round(`${directory}/subnet.env`, TEXT), 1);
    assert.deepEqual(names(directory), ["subnet.env"]);
  }));

Deno.test("SubnetFileTable never removes the file", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/subnet.env`;
    await round(path, TEXT);
    const table = new SubnetFileTable(path);
    const { removals } = diff(table.kind, [], await table.list({ signal }));
    assert.deepEqual(await table.apply(removals, { signal }), []);
    assert.equal(await Deno.readTextFile(path), TEXT);
  }));

Deno.test("SubnetFileTable says what to do when it cannot write", () =>
  withDirectory(async (directory) => {
    await Deno.writeTextFile(`${directory}/file`, "");
    const path = `${directory}/file/subnet.env`;
    const table = new SubnetFileTable(path);
    const change = { op: "add" as const, desired: { path, text: TEXT } };
    const [failed] = await table.apply([change], { signal });
    assert.match(failed!.error.message, /^Cannot write .*--subnet-file$/);
  }));

Deno.test("SubnetFileTable names the file of which a read fails", async () => {
  // It opens, and its first byte cannot be read.
  const table = new SubnetFileTable("/proc/self/mem");
  await assert.rejects(table.list({ signal }), /Cannot read \/proc\/self\/mem: .*--subnet-file/);
});

Deno.test("SubnetFileTable replaces an endless or binary file without reading all of it", () =>
  withDirectory(async (directory) => {
    const path = `${directory}/subnet.env`;
    await Deno.writeFile(path, new Uint8Array(1_000_000).fill(0xff));
    const table = new SubnetFileTable(path);
    const [actual] = await table.list({ signal });
    assert.equal(actual!.text.length, 65_536);
    assert.match(table.kind.format(actual!), /^[ -~]*$/);
    assert.equal(await round(path, TEXT), 1);
  }));

/** What adding a backend takes: an entry in the table, and nothing else anywhere. */
import assert from "node:assert/strict";
import { type DaemonProgram, ETCD_PREFIX, type Host, type Lab, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { askStatus, HEALTH_FLAGS, linesOf, openAllocLab, startReady } from "./support.ts";

/** The sources' daemon, with the toy in its table. */
async function toyProgram(lab: Lab): Promise<DaemonProgram> {
  const path = `${lab.directory}/flanneld-toy`;
  const main = new URL("../toy/main.ts", import.meta.url).pathname;
  const command = `'${Deno.execPath()}' run -A --cached-only '${main}' "$@"`;
  await Deno.writeTextFile(path, `#!/bin/sh\nexec ${command}\n`, { mode: 0o755 });
  return { kind: "binary", path };
}

async function filesIn(folder: string): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(folder)) names.push(name);
  return names;
}

labTest(
  "a backend added by one table entry has its Table, its loop and its status",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const folder = `${lab.directory}/toy`;
    await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "toy", Folder: folder } }, {
      signal,
    });
    const program = await toyProgram(lab);
    const [host] = lab.hosts as [Host];
    await using daemon = await startReady(host, { signal, program, flags: HEALTH_FLAGS });
    const { status: alone } = await askStatus(host, { signal });
    assert.equal(alone.backend, "toy");
    assert.deepEqual(alone.dataPlane, { rounds: 3 });
    assert.deepEqual(await filesIn(folder), []);
    assert.equal((await host.readSubnetEnv()).mtuBytes, 1400);

    const key = `${ETCD_PREFIX}/subnets/10.24.77.0-24`;
    await lab.etcd.ctl([
      "put",
      key,
      '{"PublicIP":"192.168.77.7","PublicIPv6":null,"BackendType":"toy"}',
    ], { signal });
    const file = `${folder}/10.24.77.0-24`;
    const isThere = async () => await Deno.readTextFile(file).catch(() => "") === "192.168.77.7 10";
    await eventually(isThere, { signal, title: "the peer's file" });
    await Deno.remove(file);
    await eventually(isThere, { signal, title: "the file again" });
    await lab.etcd.ctl(["del", key], { signal });
    await eventually(async () => (await filesIn(folder)).length === 0, {
      signal,
      title: "its end",
    });
    assert.deepEqual(linesOf(daemon, / (WARN|ERROR) .*(toy|cloud)/), []);
  },
);

import assert from "node:assert/strict";
import { startTicks } from "../support/process_table.ts";
import { type Lab, openLab } from "./lab.ts";
import { labTest } from "./lab_test_case.ts";
import type { DaemonProgram } from "./program.ts";

/** A lab of one host whose daemon is fake_daemon.ts. */
async function openFakeLab(signal: AbortSignal): Promise<{ lab: Lab; program: DaemonProgram }> {
  const lab = await openLab({ signal, hosts: 1, etcd: false });
  const path = `${lab.directory}/flanneld`;
  const script = new URL("./fake_daemon.ts", import.meta.url).pathname;
  const config = new URL("../../deno.json", import.meta.url).pathname;
  const command = `${Deno.execPath()} run -A --cached-only --config=${config} ${script}`;
  await Deno.writeTextFile(path, `#!/bin/sh\nexec ${command} "$@"\n`, { mode: 0o755 });
  return { lab, program: { kind: "binary", path } };
}

labTest("a daemon's notifications, log, memory and end are seen", async ({ signal }) => {
  const { lab, program } = await openFakeLab(signal);
  await using _ = lab;
  const [host] = lab.hosts;
  const daemon = await host!.startDaemon({
    program,
    flags: ["status=first things", "print=hello", "ready"],
    env: { EXTRA: "1" },
  });
  assert.ok(await daemon.ready({ signal }) > 0);
  assert.ok(daemon.isReady());
  assert.deepEqual(daemon.statuses(), ["first things"]);
  assert.ok(daemon.process.residentBytes() > 1_000_000);
  assert.equal(await daemon.process.waitForLine(/^hello/, { signal }), "hello");

  const env = JSON.parse((await daemon.process.waitForLine(/^env /, { signal })).slice(4));
  assert.equal(env.ACCESS_KEY_ID, lab.accessKey.id);
  assert.equal(env.ACCESS_KEY_SECRET, lab.accessKey.secret);
  assert.equal(env.EXTRA, "1");
  const args = JSON.parse((await daemon.process.waitForLine(/^args /, { signal })).slice(5));
  assert.ok(args.includes(`--subnet-file=${host!.subnetFile}`));
  await assert.rejects(host!.startDaemon({ program }), /one is running/);

  const { pid } = daemon.process;
  assert.equal((await daemon.stop()).signal, "SIGTERM");
  assert.equal(startTicks(pid), undefined);
  assert.deepEqual(daemon.statuses(), ["first things"], "still known after its end");

  const second = await host!.startDaemon({ program, flags: ["print=again"] });
  await second.process.waitForLine(/^again$/, { signal });
  assert.equal((await second.kill()).signal, "SIGKILL");
  const log = await Deno.readTextFile(host!.logFile);
  assert.match(log, /hello[^]*again/, "one log for all daemons of a host");
});

labTest("a daemon that ends or stays silent is not waited for in vain", async ({ signal }) => {
  const { lab, program } = await openFakeLab(signal);
  await using _ = lab;
  const [host] = lab.hosts;
  const ending = await host!.startDaemon({
    program,
    flags: ["status=looking around", "print=no such table", "exit=1"],
  });
  await assert.rejects(
    ending.ready({ signal }),
    (error: Error) =>
      /last status: looking around[^]*host1: no such table/.test(error.message) &&
      /exited with 1/.test(String(error.cause)),
  );
  const silent = await host!.startDaemon({ program });
  await assert.rejects(silent.ready({ signal, timeoutMs: 500 }), /did not get ready/);
  await silent.kill();
});

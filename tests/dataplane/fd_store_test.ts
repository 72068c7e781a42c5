/** A restart under a service manager that keeps descriptors: packets wait, and none is lost. */
import assert from "node:assert/strict";
import { C_TOOLS } from "../prerequisites.ts";
import { delay } from "../../src/util/time.ts";
import {
  daemonCommand,
  daemonProgram,
  denoEnvironment,
  labTest,
  openLab,
  startLossProbe,
} from "../lab/mod.ts";
import { startLogged } from "../support/logged_process.ts";
import { run } from "../support/run.ts";

labTest("udp: a restart with stored descriptors loses no packet", async ({ signal }) => {
  await using lab = await openLab({ signal, topology: "routed", hosts: 2 });
  await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "udp" } }, { signal });
  const manager = `${lab.directory}/service_manager`;
  const source = new URL("./service_manager.c", import.meta.url).pathname;
  await run("gcc", ["-O1", "-Wall", "-o", manager, source], { signal });

  const [first, second] = lab.hosts;
  await (await first!.startDaemon()).ready({ signal });
  const daemon = daemonCommand(daemonProgram(), [
    `--subnet-file=${second!.subnetFile}`,
    `--etcd-endpoints=${lab.etcd.endpoints.join(",")}`,
  ]);
  const command = second!.namespace.command(manager, [
    ...[`${second!.directory}/manager.sock`, daemon.program, ...daemon.args],
  ]);
  await using managed = startLogged(command, {
    title: "service manager",
    logFile: second!.logFile,
    env: denoEnvironment(),
  });
  await managed.waitForLine(/^notify READY=1$/, { signal });
  await lab.ensurePods(1, { signal });
  const [from, to] = [first!.pods[0]!, second!.pods[0]!];

  await using probe = await startLossProbe(from, to, { signal, directory: lab.directory });
  await delay(1_000, { signal });
  const mark = managed.lines.length;
  managed.signal("SIGHUP");
  const restarted = await managed.waitForLine(/^restart with/, { signal, from: mark });
  assert.equal(restarted, "restart with 2 descriptors");
  await managed.waitForLine(/^notify READY=1$/, { signal, from: mark });
  await delay(1_000, { signal });
  const { sent, lost } = await probe.stop({ signal });
  assert.ok(sent > 1_000);
  assert.equal(lost, 0);

  // A stored queue of a device that is gone is no use, and no harm.
  const again = managed.lines.length;
  await second!.namespace.ip(["link delete flannel0"], { signal });
  managed.signal("SIGHUP");
  await managed.waitForLine(/^notify READY=1$/, { signal, from: again });
  const answered = await from.namespace.run("ping", ["-c", "1", "-W", "5", to.address], {
    signal,
  });
  assert.match(answered, /1 received/);

  // Another backend has no use for them, and leaves none behind.
  await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "alloc" } }, { signal });
  for (const count of [2, 0]) {
    const mark = managed.lines.length;
    managed.signal("SIGHUP");
    const restarted = await managed.waitForLine(/^restart with/, { signal, from: mark });
    assert.equal(restarted, `restart with ${count} descriptors`);
    await managed.waitForLine(/^notify READY=1$/, { signal, from: mark });
  }
  await managed.stop();
}, { needs: C_TOOLS });

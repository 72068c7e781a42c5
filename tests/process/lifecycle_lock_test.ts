/** One daemon per subnet file and per prefix on a host, and no clean-up beside it. */
import assert from "node:assert/strict";
import { labTest, startDaemon } from "../lab/mod.ts";
import { daemonProgram } from "../lab/program.ts";
import { settleAll } from "../support/settle_all.ts";
import { kernelState, networkConfig, openKernelLab } from "./kernel_support.ts";
import { HEALTH_FLAGS, startReady } from "./support.ts";

labTest("a second daemon and a clean-up beside a running one are refused", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 2,
    config: networkConfig("v4", { Type: "vxlan" }),
  });
  const [host, peer] = lab.hosts;
  const endpoints = `--etcd-endpoints=${lab.etcd.endpoints.join(",")}`;
  // Hosts have the prefix in common, and each has a network of its own.
  const first = await startReady(host!, { signal, flags: HEALTH_FLAGS });
  await startReady(peer!, { signal });
  const before = await kernelState(host!, { signal });
  const leases = await lab.leases({ signal });

  let number = 0;
  const second = async (...flags: string[]) => {
    const title = `second${++number}`;
    await using daemon = startDaemon({
      title,
      program: daemonProgram(),
      namespace: host!.namespace,
      directory: host!.directory,
      logFile: `${host!.directory}/${title}.log`,
      flags: [endpoints, ...flags],
      env: {},
    });
    const { code } = await daemon.process.status;
    return { code, log: daemon.process.lines.join("\n") };
  };
  const sameFile = `--subnet-file=${host!.subnetFile}`;
  const ownFile = `--subnet-file=${host!.directory}/second.env`;
  const pid = first.process.pid;
  // Each waits a moment for the other to end, hence at once.
  const starts = (
    [
      [[sameFile], /the same subnet file \S+ and etcd prefix \/coreos\.com\/network is running/],
      [[ownFile], /the same etcd prefix \/coreos\.com\/network is running/],
      [[sameFile, "--etcd-prefix=/other"], /the same subnet file \S+ is running/],
    ] as const
  ).map(async ([flags, shared]) => {
    const { code, log } = await second(...flags);
    assert.equal(code, 1, log);
    assert.match(log, shared);
    assert.match(log, new RegExp(`pid ${pid}: .*--subnet-file=`));
  });
  const cleanUps = [[], ["--release"]].map(async (flags) => {
    const result = await host!.cleanUp({ signal, flags });
    assert.equal(result.code, 1, result.stderr);
    assert.match(result.stderr, new RegExp(`Cannot clean up: .*pid ${pid}: .*stop it first`));
  });
  await settleAll([...starts, ...cleanUps]);
  assert.deepEqual(await kernelState(host!, { signal }), before);
  assert.deepEqual(await lab.leases({ signal }), leases);
  assert.equal(first.process.ended, undefined);

  // It ends as nobody foresaw, and the next one starts at once.
  await host!.killDaemon();
  await startReady(host!, { signal });
  await host!.daemon.stop();
  assert.equal((await host!.cleanUp({ signal, flags: ["--release"] })).code, 0);
  const left = [...Deno.readDirSync(host!.directory)].map(({ name }) => name);
  assert.deepEqual(left.filter((name) => /subnet\.env/.test(name)), []);
});

labTest("two daemons with their own prefix and file run at once", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 1,
    config: networkConfig("v4", { Type: "vxlan" }),
  });
  const [host] = lab.hosts;
  const config = { Network: "10.99.0.0/16", Backend: { Type: "vxlan", VNI: 2 } };
  await lab.etcd.ctl(["put", "/other/config", JSON.stringify(config)], { signal });
  const first = await startReady(host!, { signal });
  await using second = startDaemon({
    title: "second",
    program: daemonProgram(),
    namespace: host!.namespace,
    directory: host!.directory,
    logFile: `${host!.directory}/second.log`,
    flags: [
      `--etcd-endpoints=${lab.etcd.endpoints.join(",")}`,
      "--etcd-prefix=/other",
      `--subnet-file=${host!.directory}/second.env`,
      "--iptables-forward-rules=false",
    ],
    env: {},
  });
  await second.ready({ signal });
  assert.equal(first.process.ended, undefined);
  const links = (await kernelState(host!, { signal })).filter((line) => /^link flannel/.test(line));
  assert.deepEqual(links.map((line) => line.split(" ")[1]).sort(), ["flannel.1", "flannel.2"]);
});

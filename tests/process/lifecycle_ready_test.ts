import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { ETCD_PREFIX, labTest } from "../lab/mod.ts";
import { ALLOC_CONFIG, askHealth, askStatus, HEALTH_FLAGS, openAllocLab } from "./support.ts";

labTest(
  "READY=1 comes when subnet.env is right, and tells of each step before",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    // Where subnet.env should be written, there is a file in the way.
    const blocked = `${host.directory}/run`;
    const subnetFile = `${blocked}/flannel/subnet.env`;
    await Deno.writeTextFile(blocked, "");
    await lab.etcd.ctl(["del", `${ETCD_PREFIX}/config`], { signal });

    const conflist = `${host.directory}/net.d/10-flannel.conflist`;
    const daemon = await host.startDaemon({
      flags: [
        ...["--ip-masq", `--subnet-file=${subnetFile}`, `--cni-conf-file=${conflist}`],
        ...HEALTH_FLAGS,
      ],
    });
    const status = (pattern: RegExp) =>
      eventually(() => daemon.statuses().some((each) => pattern.test(each)), {
        signal,
        title: `status ${pattern}`,
      });
    await status(/Cannot find the network config: .* has no key \/coreos.com\/network\/config/);
    const early = await askHealth(host, "/readyz", { signal });
    assert.equal(early.status, 503);
    assert.match(early.body, /start-up: Cannot find the network config/);
    assert.equal((await askHealth(host, "/healthz", { signal })).status, 200);

    await lab.writeConfig(ALLOC_CONFIG, { signal });
    await status(/Leasing a subnet/);
    await status(/Cannot .*subnet\.env/);
    const reason = /subnet file: Cannot read .*subnet\.env: .* --subnet-file/;
    const blockedAnswer = await eventually(async () => {
      const answer = await askHealth(host, "/readyz", { signal });
      return reason.test(answer.body) ? answer : undefined;
    }, { signal, title: "the reason" });
    assert.equal(blockedAnswer.status, 503);
    assert.ok(!daemon.isReady(), "not ready without subnet.env");
    // All but the file is done, and said to be.
    assert.equal(blockedAnswer.body.trim().split("\n").length, 2, blockedAnswer.body);

    await assert.rejects(Deno.stat(conflist), Deno.errors.NotFound, "pods would start too early");

    await Deno.remove(blocked);
    await daemon.ready({ signal });
    const { plugins: [bridge] } = JSON.parse(await Deno.readTextFile(conflist));
    assert.deepEqual([bridge.type, bridge.mtu, bridge.ipMasq], ["bridge", 1500, false]);
    const [[key]] = [...await lab.leases({ signal })] as [[string, string]];
    const subnet = key.replace(/\.0-24$/, ".1/24");
    assert.equal(
      await Deno.readTextFile(subnetFile),
      `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=${subnet}\n` +
        "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=true\n",
    );
    const info = await Deno.stat(subnetFile);
    assert.equal(info.mode! & 0o7777, 0o644);
    assert.equal((await Deno.stat(`${blocked}/flannel`)).mode! & 0o7777, 0o755);
    assert.deepEqual([...Deno.readDirSync(`${blocked}/flannel`)].map(({ name }) => name), [
      "subnet.env",
    ]);
    const ready = await askHealth(host, "/readyz", { signal });
    assert.equal(ready.status, 200, ready.body);
    const { status: facts } = await askStatus(host, { signal });
    assert.deepEqual(
      [facts.backend, facts.network, facts.lease.key, facts.interface.link, facts.lease.state.held],
      ["alloc", ["10.24.0.0/16"], key, "eth0", true],
    );
    assert.equal((await askHealth(host, "/metrics-of-tomorrow", { signal })).status, 404);
    assert.equal(daemon.statuses().at(-1), "Ready");
    // Not one status twice in a row.
    const statuses = daemon.statuses();
    assert.deepEqual(statuses.filter((each, index) => each === statuses[index - 1]), []);
  },
);

labTest("a health port that is taken ends the start with one clear line", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  await host.startDaemon({ flags: HEALTH_FLAGS });
  await host.daemon.ready({ signal });
  const result = await host.namespace.try(
    "env",
    [
      "-i",
      ...await commandLine(host.daemon.process.pid),
      ...["--etcd-prefix=/other", `--subnet-file=${host.directory}/other.env`],
    ],
    { signal },
  );
  assert.equal(result.code, 1);
  assert.equal(result.stdout, "");
  const lines = result.stderr.trimEnd().split("\n");
  assert.equal(lines.length, 1, result.stderr);
  assert.match(
    lines[0]!,
    / ERROR .*--healthz-ip=127\.0\.0\.1 --healthz-port=8471: the port is taken by another program/,
  );
});

/** The environment and the arguments of a running process, as env(1) takes them. */
async function commandLine(pid: number): Promise<string[]> {
  const split = (text: string) => text.split("\0").filter((each) => each !== "");
  const environment = split(await Deno.readTextFile(`/proc/${pid}/environ`));
  return [
    ...environment.filter((each) => !each.startsWith("NOTIFY_SOCKET=")),
    ...split(await Deno.readTextFile(`/proc/${pid}/cmdline`)),
  ];
}

labTest(
  "with --log-format=json every line is an object with time, level and message",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    // Whatever text comes from the store, a line stays a line.
    await lab.etcd.put(`${ETCD_PREFIX}/subnets/jun\nk "key"\u2028`, "{\n", { signal });
    const daemon = await host.startDaemon({ flags: ["--log-format=json", "-v=2", "--ip-masq"] });
    await daemon.ready({ signal });
    await lab.etcd.ctl(["del", `${ETCD_PREFIX}/config`], { signal });
    await daemon.process.waitForLine(/config was removed/, { signal });
    await daemon.stop();
    const { lines } = daemon.process;
    assert.ok(lines.length > 10);
    for (const line of lines) {
      const event = JSON.parse(line);
      assert.match(event.time, /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$/);
      assert.ok(["trace", "debug", "info", "warn", "error"].includes(event.level), line);
      assert.ok(typeof event.message === "string" && event.message !== "", line);
    }
    assert.equal(lines.filter((line) => /Skipping an entry/.test(line)).length, 1);
  },
);

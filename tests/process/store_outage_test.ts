import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { eventually } from "../support/eventually.ts";
import { ETCD_PREFIX, type Host } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import {
  ALLOC_CONFIG,
  askHealth,
  askStatus,
  HEALTH_FLAGS,
  labTestsAtOnce,
  linesOf,
  openAllocLab,
  startReady,
} from "./support.ts";

const atOnce = labTestsAtOnce("etcd fails in one way or another", { timeoutMs: 180_000 });

const SUBNETS = `${ETCD_PREFIX}/subnets`;
const VALUE = '{"PublicIP":"10.0.9.1","PublicIPv6":null}';

/** Waits until `host` knows exactly so many other hosts' leases. */
async function peers(host: Host, count: number, options: { signal: AbortSignal }): Promise<void> {
  await eventually(async () => (await askStatus(host, options)).status.peers === count, {
    ...options,
    title: `${host.label} to know ${count} peers`,
  });
}

atOnce("a daemon outlives a minute without etcd, and goes on where it was", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 3 });
  const [host, peer, newcomer] = lab.hosts as [Host, Host, Host];
  // Renewed as soon as a minute of its day is over, that is while etcd is away.
  const flags = [...HEALTH_FLAGS, "-v=1", "--subnet-lease-renew-margin=1439"];
  const daemon = await startReady(host, { signal, flags });
  await startReady(peer, { signal });
  await peers(host, 1, { signal });
  const texts = () =>
    Promise.all([host, peer].map(({ subnetFile }) => Deno.readTextFile(subnetFile)));
  const [before, leases] = [await texts(), await lab.leases({ signal })];
  const started = [host, peer].map(({ daemon }) => daemon.process.lines.length);

  await lab.etcd.kill();
  const until = performance.now() + 63_000;
  await daemon.process.waitForLine(/Peers are not followed at present/, { signal });
  assert.equal((await askHealth(host, "/readyz", { signal })).status, 200, "a lapse is no outage");
  await delay(Math.max(0, until - performance.now()), { signal });
  assert.match(
    await daemon.process.waitForLine(/Cannot renew the lease/, { signal }),
    / WARN .*Cannot reach etcd at http:\/\/10\.0\.0\.5:2379: connection refused; trying again/,
  );
  const stale = await askHealth(host, "/readyz", { signal });
  assert.equal(stale.status, 503);
  assert.match(stale.body, /store: peers may be out of date/);

  await lab.etcd.start({ signal });
  await daemon.process.waitForLine(/Peers are followed again after \d+ s/, { signal });
  await daemon.process.waitForLine(/Lease renewed/, { signal });
  await daemon.process.waitForLine(/Lease is in order again/, { signal });
  await eventually(async () => (await askHealth(host, "/readyz", { signal })).status === 200, {
    signal,
    title: "readiness",
  });
  assert.deepEqual(await texts(), before);
  assert.deepEqual(await lab.leases({ signal }), leases);
  for (const [index, { daemon: { process } }] of [host, peer].entries()) {
    assert.equal(process.ended, undefined);
    const said = process.lines.slice(started[index]).filter((line) =>
      !/ (DEBUG|TRACE) /.test(line)
    );
    assert.ok(said.length <= 8, `not a line for each try:\n${said.join("\n")}`);
  }
  await startReady(newcomer, { signal });
  await peers(host, 2, { signal });
});

atOnce("any member of three may fail, and nobody notices", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 2, etcd: { members: 3 } });
  await Promise.all(
    lab.hosts.map((host) => startReady(host, { signal, flags: HEALTH_FLAGS })),
  );
  const [first] = lab.hosts as [Host];
  await peers(first, 1, { signal });
  for (const [index, member] of lab.etcd.members.entries()) {
    await member.kill();
    const key = `${SUBNETS}/10.24.${250 + index}.0-24`;
    // A write may meet the election of a leader.
    await eventually(async () => {
      await lab.etcd.put(key, VALUE, { signal });
      return true;
    }, { signal, title: "a write" });
    await Promise.all(lab.hosts.map((host) => peers(host, 2 + index, { signal })));
    await lab.etcd.start({ signal });
  }
  for (const { daemon } of lab.hosts) {
    assert.equal(linesOf(daemon, / (ERROR|Not ready) /).length, 0, daemon.process.tail());
  }
  // Without a majority etcd answers nobody; that is an outage like another.
  const [, second, third] = lab.etcd.members;
  await Promise.all([second!.kill(), third!.kill()]);
  await first.daemon.process.waitForLine(/Peers are not followed at present/, { signal });
  assert.equal((await askHealth(first, "/readyz", { signal })).status, 200);
  await lab.etcd.start({ signal });
  await first.daemon.process.waitForLine(/Peers are followed again/, { signal });
  await eventually(async () => {
    await lab.etcd.put(`${SUBNETS}/10.24.249.0-24`, VALUE, { signal });
    return true;
  }, { signal, title: "a write" });
  await peers(first, 5, { signal });

  // A daemon that starts while the first member named is away uses the others.
  await first.daemon.stop();
  await lab.etcd.members[0]!.kill();
  const tookMs = await (await first.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
  assert.ok(tookMs < patient(15_000), `${tookMs} ms`);
});

atOnce(
  "silence is noticed, and peers are right after it though history is compacted",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: 2 });
    const [host, peer] = lab.hosts as [Host, Host];
    await startReady(host, { signal, flags: HEALTH_FLAGS });
    await startReady(peer, { signal });
    for (const number of [250, 251]) {
      await lab.etcd.put(`${SUBNETS}/10.24.${number}.0-24`, VALUE, { signal });
    }
    await peers(host, 3, { signal });
    const { process } = host.daemon;
    const etcd = lab.plan.etcdPorts[0]!;
    await lab.router.cut(host.identity.port, etcd, { signal });
    const cutAt = performance.now();
    await process.waitForLine(/Peers are not followed at present/, { signal });
    const noticedMs = performance.now() - cutAt;
    assert.ok(noticedMs < patient(30_000), `noticed after ${Math.round(noticedMs)} ms`);
    assert.equal((await askHealth(host, "/readyz", { signal })).status, 200);

    await lab.etcd.ctl(["del", `${SUBNETS}/10.24.250.0-24`], { signal });
    await lab.etcd.ctl(["del", `${SUBNETS}/10.24.251.0-24`], { signal });
    await lab.etcd.put(`${SUBNETS}/10.24.252.0-24`, VALUE, { signal });
    const { prefix } = (await host.readSubnetEnv()).subnet;
    const own = `${prefix.address}-${prefix.length}`;
    await lab.etcd.ctl(["del", `${SUBNETS}/${own}`], { signal });
    await lab.etcd.compact({ signal });
    await lab.router.heal({ signal });
    await process.waitForLine(/Peers are followed again/, { signal });
    await peers(host, 2, { signal });
    // The own lease went meanwhile, too.
    await process.waitForLine(/taken back/, { signal });
    assert.ok((await lab.leases({ signal })).has(own));
    await lab.etcd.ctl(["del", `${SUBNETS}/10.24.252.0-24`], { signal });
    await peers(host, 1, { signal });
    assert.equal(linesOf(host.daemon, /Peers are not followed/).length, 1);
  },
);

atOnce(
  "an etcd that has lost its data gets the leases back from the daemons",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: 3 });
    const [host, peer, gone] = lab.hosts as [Host, Host, Host];
    await Promise.all(
      lab.hosts.map((each) => startReady(each, { signal, flags: HEALTH_FLAGS })),
    );
    await Promise.all([host, peer].map((each) => peers(each, 2, { signal })));
    await gone.daemon.stop();
    const leases = await lab.leases({ signal });
    const texts = () =>
      Promise.all([host, peer].map(({ subnetFile }) => Deno.readTextFile(subnetFile)));
    const before = await texts();

    // Its revisions begin anew, far below those that the daemons wait for.
    await lab.etcd.kill();
    await Deno.remove(`${lab.directory}/etcd1.data`, { recursive: true });
    await lab.etcd.start({ signal });
    await lab.writeConfig(ALLOC_CONFIG, { signal });
    for (const { daemon } of [host, peer]) {
      await daemon.process.waitForLine(/taken back/, { signal });
    }
    await Promise.all([host, peer].map((each) => peers(each, 1, { signal })));
    const own = `{"PublicIP":"${gone.address}","PublicIPv6":null}`;
    assert.deepEqual(
      [...await lab.leases({ signal })].sort(),
      [...leases].filter(([, value]) => value !== own).sort(),
    );
    assert.deepEqual(await texts(), before);
    for (const { daemon } of [host, peer]) assert.equal(daemon.process.ended, undefined);
    // And they follow what comes then.
    await startReady(gone, { signal });
    await Promise.all([host, peer].map((each) => peers(each, 2, { signal })));
  },
);

atOnce(
  "etcd's authentication is used, and a wrong password ends the start",
  async ({ signal }) => {
    const password = "canary-5e9a7 \"'&";
    await using lab = await openAllocLab({ signal, hosts: 5 });
    const ctl = (...args: string[]) => lab.etcd.ctl(args, { signal });
    await ctl("user", "add", "root:root-5e9a7");
    await ctl("user", "add", `flannel:${password}`);
    await ctl("user", "add", "stranger:stranger-5e9a7");
    await ctl("role", "add", "flannel");
    await ctl("role", "grant-permission", "--prefix=true", "flannel", "readwrite", ETCD_PREFIX);
    await ctl("user", "grant-role", "flannel", "flannel");
    await ctl("user", "grant-role", "root", "root");
    await ctl("auth", "enable");

    const [byFlag, byVariable, wrong, stranger, nobody] = lab.hosts as Host[];
    const flag = ["--etcd-username=flannel", `--etcd-password=${password}`];
    await Promise.all([
      startReady(byFlag!, { signal, flags: [...flag, "-v=2", ...HEALTH_FLAGS] }),
      startReady(byVariable!, {
        signal,
        env: { FLANNELD_ETCD_USERNAME: "flannel", FLANNELD_ETCD_PASSWORD: password },
      }),
      wrong!.startDaemon({
        flags: ["-v=2", "--etcd-username=flannel", "--etcd-password=canary-5e9a7-wrong"],
      }),
      stranger!.startDaemon({
        flags: ["--etcd-username=stranger", "--etcd-password=stranger-5e9a7"],
      }),
      nobody!.startDaemon(),
    ]);
    await peers(byFlag!, 1, { signal });
    for (
      const [host, says] of [
        [wrong!, /Cannot use etcd at .*wrong user name or password/],
        [stranger!, /Cannot use etcd at .*lacks the permission/],
        [nobody!, /Cannot use etcd at .*demands a user name and password/],
      ] as const
    ) {
      const { process } = host.daemon;
      await process.waitForLine(/ ERROR /, { signal });
      assert.equal((await process.status).code, 1);
      const errors = linesOf(host.daemon, / ERROR /);
      assert.equal(errors.length, 1, process.tail());
      assert.match(errors[0]!, says);
    }
    // Neither in a log, nor in the list of processes, nor in what the health port tells.
    const { process } = byFlag!.daemon;
    const shown = [
      ...lab.hosts.flatMap(({ daemon }) => [...daemon.process.lines, ...daemon.statuses()]),
      await Deno.readTextFile(`/proc/${process.pid}/cmdline`),
      (await askHealth(byFlag!, "/status", { signal })).body,
      await Deno.readTextFile(byFlag!.subnetFile),
    ].join("\n");
    assert.doesNotMatch(shown, /5e9a7/);
  },
);

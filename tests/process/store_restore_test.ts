/** etcd restored from a backup, or emptied, beside running hosts and stopped ones. */
import assert from "node:assert/strict";
import { ETCD_PREFIX, type Host, type Lab, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { assertPodsPing, openKernelLab, startCluster } from "./kernel_support.ts";
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

const SUBNETS = `${ETCD_PREFIX}/subnets`;

interface Options {
  readonly signal: AbortSignal;
}

async function subnetOf(host: Host): Promise<string> {
  return (await host.readSubnetEnv()).subnet.prefix.toString();
}

function keyOf(subnet: string): string {
  return subnet.replace("/", "-");
}

async function waitUntilReady(hosts: readonly Host[], options: Options): Promise<void> {
  await Promise.all(
    hosts.map((host) =>
      eventually(async () => (await askHealth(host, "/readyz", options)).status === 200, {
        ...options,
        title: `${host.label} to be ready`,
      }).catch((cause) => {
        throw new Error(`${host.label} is not ready:\n${host.daemonLog(40)}`, { cause });
      })
    ),
  );
}

/** Waits until exactly these leases are in the store, by public address. */
async function waitForLeases(
  lab: Lab,
  expected: ReadonlyMap<string, string>,
  options: Options,
): Promise<void> {
  await eventually(async () => {
    const leases = await lab.leases(options);
    const found = [...leases].map(([key, value]) => `${key} ${JSON.parse(value).PublicIP}`);
    const logs = lab.hosts.map((host) => host.daemonLog(30)).join("\n");
    assert.deepEqual(
      found.sort(),
      [...expected].map(([subnet, address]) => `${keyOf(subnet)} ${address}`).sort(),
      logs,
    );
    return true;
  }, { ...options, title: "the leases of before" });
}

/** The seconds that a lease is to live yet. */
async function secondsLeft(lab: Lab, subnet: string, options: Options): Promise<number> {
  const key = `${SUBNETS}/${keyOf(subnet)}`;
  const text = await lab.etcd.ctl(["get", "-w", "fields", key], options);
  const id = BigInt(/^"Lease" : (\d+)$/m.exec(text)![1]!).toString(16);
  const answer = await lab.etcd.ctl(["lease", "timetolive", "-w", "json", id], options);
  return JSON.parse(answer).ttl;
}

labTest("after a restore each host keeps its subnet, and who moved gives the old one up", async ({
  signal,
}) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 4,
    config: { Network: "10.24.0.0/16", Backend: { Type: "vxlan" } },
  });
  const [moved, next, still, late] = lab.hosts as [Host, Host, Host, Host];
  const { etcd } = lab;
  const [member] = etcd.members;
  await startCluster(lab, { signal, hosts: [moved, still] });
  const former = await subnetOf(moved);
  const backup = await member!.backUp({ signal });

  // What the backup does not know: one has moved, another has got its subnet, one has come.
  await moved.daemon.stop();
  await moved.removePods({ signal });
  await etcd.ctl(["del", `${SUBNETS}/${keyOf(former)}`], { signal });
  const text = await Deno.readTextFile(moved.subnetFile);
  await Deno.remove(moved.subnetFile);
  await Deno.writeTextFile(next.subnetFile, text);
  await startCluster(lab, { signal, hosts: [next] });
  assert.equal(await subnetOf(next), former);
  await startCluster(lab, { signal, hosts: [moved, late] });
  await assertPodsPing(lab, { signal, title: "before" });
  const subnets = await Promise.all(lab.hosts.map(subnetOf));
  const expected = new Map(subnets.map((subnet, at) => [subnet, lab.hosts[at]!.address]));
  assert.equal(expected.size, 4);

  const restore = async () => {
    await member!.kill();
    await member!.restore(backup, { signal });
    await etcd.start({ signal });
  };
  const assertAsBefore = async (title: string) => {
    await waitForLeases(lab, expected, { signal });
    await waitUntilReady(lab.hosts, { signal });
    assert.deepEqual(await Promise.all(lab.hosts.map(subnetOf)), subnets, title);
    for (const host of lab.hosts) {
      const { status: { peers } } = await askStatus(host, { signal });
      assert.equal(peers, 3, `${title}: peers of ${host.label}`);
    }
    await assertPodsPing(lab, { signal, title });
    for (const subnet of subnets) {
      assert.ok(await secondsLeft(lab, subnet, { signal }) > 23 * 3_600, `${title}: ${subnet}`);
    }
  };

  await restore();
  await assertAsBefore("beside running daemons");
  assert.equal(linesOf(moved.daemon, /given up, as it serves another subnet/).length, 1);
  assert.ok(lab.hosts.every((host) => host.daemon.process.ended === undefined));

  // The same with the daemons of two stopped: the first that starts is the one that has moved.
  await Promise.all([moved, still].map((host) => host.daemon.stop()));
  await next.daemon.kill();
  await restore();
  await startReady(moved, { signal, flags: HEALTH_FLAGS });
  assert.equal(await subnetOf(moved), subnets[0], "it has addresses of it");
  await eventually(async () => {
    const value = (await lab.leases({ signal })).get(keyOf(former));
    return value === undefined || JSON.parse(value).PublicIP !== moved.address;
  }, { signal, title: "the old lease to be given up" });
  await startReady(next, { signal, flags: HEALTH_FLAGS });
  await startReady(still, { signal, flags: HEALTH_FLAGS });
  await assertAsBefore("beside stopped daemons");

  // Who watches from then on hears of what comes.
  await etcd.ctl(["del", `${SUBNETS}/${keyOf(subnets[3]!)}`], { signal });
  await late.daemon.process.waitForLine(/taken back/, { signal });
  await waitForLeases(lab, expected, { signal });
}, { timeoutMs: 240_000 });

const atOnce = labTestsAtOnce("etcd emptied beside running hosts");

for (const api of [3, 2] as const) {
  atOnce(`v${api}: running hosts come back with their subnets`, async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: 3, etcd: { v2: api === 2 } });
    const { etcd } = lab;
    if (api === 2) {
      await etcd.ctl(["del", `${ETCD_PREFIX}/config`], { signal });
      await lab.writeConfig(ALLOC_CONFIG, { signal, api });
    }
    await Promise.all(
      lab.hosts.map((host) => startReady(host, { signal, flags: HEALTH_FLAGS })),
    );
    const subnets = await Promise.all(lab.hosts.map(subnetOf));
    const leases = async () => {
      if (api === 3) return [...(await lab.leases({ signal })).keys()].sort();
      const text = await etcd.ctl(["ls", SUBNETS], { signal, api });
      return text.split("\n").filter((line) => line !== "").map((line) => line.split("/").at(-1)!)
        .sort();
    };
    const areBack = () =>
      eventually(async () => {
        assert.deepEqual(await leases(), subnets.map(keyOf).sort());
        return true;
      }, { signal, title: "all leases" });
    await etcd.stop();
    await etcd.members[0]!.empty();
    await etcd.start({ signal });
    await lab.writeConfig(ALLOC_CONFIG, { signal, api });
    await areBack();
    await waitUntilReady(lab.hosts, { signal });
    // Peers are followed again: one that goes is heard of, by all.
    const remove = (subnet: string) =>
      etcd.ctl([api === 3 ? "del" : "rm", `${SUBNETS}/${keyOf(subnet)}`], { signal, api });
    const gone = lab.hosts[2]!;
    await gone.daemon.stop();
    await remove(subnets[2]!);
    for (const host of lab.hosts.slice(0, 2)) {
      await eventually(async () => (await askStatus(host, { signal })).status.peers === 1, {
        signal,
        title: `${host.label} to hear of it`,
      });
    }
    await startReady(gone, { signal, flags: HEALTH_FLAGS });
    assert.deepEqual(await Promise.all(lab.hosts.map(subnetOf)), subnets);
  });
}

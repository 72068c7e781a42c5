/** etcd restored from a backup, halved and emptied beside hosts whose routes are in the VPC. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { ETCD_PREFIX, type Host, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { type Cluster, openClusters } from "./cloud_clusters.ts";
import { brisk, CLUSTER_ID, openCloudLab, subnetOf } from "./cloud_support.ts";
import { askHealth, askStatus, HEALTH_FLAGS, labTestsAtOnce, startReady } from "./support.ts";

/** A round of the writer, with what a busy machine adds. */
const ROUND_MS = 12_000;

const atOnce = labTestsAtOnce("a store that forgets, and what holds removals", {
  timeoutMs: 300_000,
});

atOnce("however etcd forgets, no entry of a running host is removed or led elsewhere", async ({
  signal,
}) => {
  await using lab = await openCloudLab({
    signal,
    hosts: 4,
    config: brisk({ RouteGraceSeconds: 60 }),
    cloud: { behaviour: { delays: { minMs: 100, maxMs: 300 } } },
  });
  const [moved, next, still, late] = lab.hosts as [Host, Host, Host, Host];
  const { etcd, cloud: { control } } = lab;
  const [member] = etcd.members;
  const options = { signal, flags: HEALTH_FLAGS };
  const keyOf = (subnet: string) => `${ETCD_PREFIX}/subnets/${subnet.replace("/", "-")}`;
  await Promise.all([moved, still].map((host) => startReady(host, options)));
  const former = await subnetOf(moved);
  const backup = await member!.backUp({ signal });

  // What the backup does not know: one has moved, another has got its subnet, one has come.
  await moved.daemon.stop();
  await moved.removePods({ signal });
  await etcd.ctl(["del", keyOf(former)], { signal });
  await Deno.rename(moved.subnetFile, next.subnetFile);
  await next.startDaemon(options);
  await eventually(async () => (await lab.leases({ signal })).size === 2, {
    signal,
    title: "the next host to lease the subnet",
  });
  await Promise.all([moved, late].map((host) => startReady(host, options)));
  await next.daemon.ready({ signal });
  const subnets = await Promise.all(lab.hosts.map(subnetOf));
  assert.equal(subnets[1], former);
  assert.equal(new Set(subnets).size, 4);
  await lab.ensurePods(1, { signal });

  const entries = async () => {
    const all = await control.routeEntries();
    return all.filter(({ destination }) => subnets.includes(destination)).map((entry) =>
      `${entry.id} ${entry.destination} ${entry.nextHops[0]?.id} ${entry.name} ${entry.status}`
    ).sort();
  };
  const before = await eventually(async () => {
    const found = await entries();
    for (const [at, host] of lab.hosts.entries()) {
      const line = `${subnets[at]} ${host.identity.instanceId} flanneld/${CLUSTER_ID}/`;
      assert.ok(found.some((each) => each.includes(line)), `${found.join("\n")}\nlack ${line}`);
    }
    return found;
  }, { signal, title: "each host's entry" });
  const lastWrite = async () =>
    (await control.requests()).findLast(({ action, performed }) =>
      performed && /RouteEntr(y|ies)$/.test(action) && !action.startsWith("Describe")
    )?.sequence;
  const written = await lastWrite();

  const assertAsBefore = async (title: string) => {
    await eventually(async () => {
      const leases = [...await lab.leases({ signal })].map(([key, value]) =>
        `${key} ${JSON.parse(value).BackendData.InstanceID}`
      );
      const wanted = subnets.map((subnet, at) =>
        `${subnet.replace("/", "-")} ${lab.hosts[at]!.identity.instanceId}`
      );
      assert.deepEqual(leases.sort(), wanted.sort());
      for (const host of lab.hosts) {
        const { status } = await askHealth(host, "/readyz", { signal });
        assert.equal(status, 200, host.daemonLog(30));
      }
      return true;
    }, { signal, title: `${title}: all leases`, timeoutMs: 40_000 });
    if (title !== "an old backup") await delay(ROUND_MS, { signal });
    assert.deepEqual(await entries(), before, title);
    assert.equal(await lastWrite(), written, `${title}: nothing was written`);
    assert.deepEqual(await Promise.all(lab.hosts.map(subnetOf)), subnets, title);
  };
  const clusterId = () =>
    etcd.ctl(["get", "--print-value-only", `${ETCD_PREFIX}/ali-vpc/cluster`], { signal });

  await member!.kill();
  await member!.restore(backup, { signal });
  await etcd.start({ signal });
  await assertAsBefore("an old backup");
  assert.equal((await clusterId()).trim(), CLUSTER_ID);

  // Half of the leases go at once, of hosts whose daemons are stopped.
  const sorted = lab.hosts.map((host, at) => ({ host, key: keyOf(subnets[at]!) })).sort((a, b) =>
    a.key < b.key ? -1 : 1
  );
  const half = sorted.slice(0, 2);
  await Promise.all(half.map(({ host }) => host.daemon.stop()));
  await etcd.ctl(["del", half[0]!.key, sorted[2]!.key], { signal });
  assert.equal((await lab.leases({ signal })).size, 2);
  await delay(ROUND_MS, { signal });
  assert.deepEqual(await entries(), before, "half of the leases are gone");
  await Promise.all(half.map(({ host }) => host.startDaemon(options)));
  await assertAsBefore("half of the leases");

  await etcd.stop();
  await member!.empty();
  await etcd.start({ signal });
  await lab.writeConfig(brisk({ RouteGraceSeconds: 60 }), { signal });
  await assertAsBefore("emptied");
  const id = (await clusterId()).trim();
  assert.match(id, /^[0-9a-f]{16}$/);
  assert.notEqual(id, CLUSTER_ID, "a store that has forgotten all calls no entry its own");
});

atOnce("the brake holds many removals until a person runs the very command that is shown", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: { held: 2 },
    cloud: { behaviour: { delays: { minMs: 100, maxMs: 300 } } },
  });
  await clusters.tell({ held: (cluster) => releaseMany(cluster, { signal }) });
  await clusters.assertJustified({ signal });
});

async function releaseMany(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { etcd, cloud: { control } } = cluster.lab;
  await Promise.all(cluster.hosts.map(async (host) => {
    await cluster.startHost(host, HEALTH_FLAGS);
    await host.daemon.ready({ signal });
  }));
  const numbers = [1, 2, 3, 4];
  const guests = [];
  for (const number of numbers) {
    const guest = await cluster.addGuest();
    await guest.take(cluster.subnet(number), { signal });
    guests.push(guest);
  }
  await cluster.settled({ signal });
  const leadsTo = async () => {
    const entries = (await control.routeEntries()).filter(({ routeTableId, destination }) =>
      routeTableId === SYSTEM_TABLE_ID &&
      numbers.some((number) => cluster.subnet(number) === destination)
    );
    return entries.map(({ destination, nextHops }) => `${destination} ${nextHops[0]?.id}`).sort();
  };
  const before = await leadsTo();
  // Many go at once, and others lease their subnets: there is no grace to wait for.
  for (const { instanceId } of guests) await control.releaseInstance(instanceId);
  const heirs = [];
  for (const number of numbers) {
    const heir = await cluster.addGuest();
    await heir.take(cluster.subnet(number), { signal });
    heirs.push(heir);
  }
  const heldRoutes = guests.map(({ instanceId }, at) =>
    `${cluster.subnet(numbers[at]!)} via ${instanceId}`
  );
  const held = async (title: string) =>
    await eventually(async () => {
      const { summary } = await cluster.published({ signal });
      assert.deepEqual(summary?.brake?.routes, heldRoutes);
      return summary!.brake!;
    }, { signal, title: `${title}: all to be held`, timeoutMs: 60_000 });
  const { token } = await held("at first");
  const approval = `${cluster.prefix}/ali-vpc/approval/removals`;
  const command = `etcdctl put ${approval} ${token}`;
  const first = (await cluster.writer({ signal }))!;
  await first.daemon.process.waitForLine(new RegExp(`let them go: ${command}$`), { signal });

  // Words that stand for no list that was shown.
  for (const word of ["yes", token.replace(/^./, (at) => at === "0" ? "1" : "0")]) {
    await etcd.put(approval, word, { signal });
  }
  await delay(ROUND_MS, { signal });
  assert.deepEqual(await leadsTo(), before);

  // Nor does another writer begin to count anew.
  await first.killDaemon();
  const second = await cluster.successor(first, { signal });
  await held("by the next writer");
  await delay(ROUND_MS, { signal });
  assert.deepEqual(await leadsTo(), before);
  const { token: again } = await held("still");
  assert.equal(again, token, "it is the same list");

  const { status } = await askStatus(second, { signal });
  const shown: string = status.cloud.cluster.waitsForApproval.approve;
  assert.equal(shown, command);
  const [member] = etcd.members;
  await member!.namespace.run("sh", ["-c", shown], {
    signal,
    env: { ETCDCTL_API: "3", ETCDCTL_ENDPOINTS: member!.endpoint },
  });
  await cluster.startHost(first, HEALTH_FLAGS);
  await cluster.settled({ signal });
  const after = heirs.map(({ instanceId }, at) => `${cluster.subnet(numbers[at]!)} ${instanceId}`);
  assert.deepEqual(await leadsTo(), after.sort());

  // The word is spent: the same one lets nobody else go.
  assert.equal((await etcd.list(approval, { signal })).size, 0);
}

/** What nobody needs any more goes, once and in time; what is somebody else's stays. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import type { RequestRecord } from "../simulator/model.ts";
import { eventually } from "../support/eventually.ts";
import { type Cluster, GRACE_SECONDS, openClusters } from "./cloud_clusters.ts";

const GRACE_MS = GRACE_SECONDS * 1_000;
/** Two rounds of the writer, its write, and what a busy machine adds. */
const LATE_MS = 35_000;
/** Until another one leads, nobody watches; and what was watched is handed on in steps. */
const UNWATCHED_MS = 45_000;
/** A lease that ends with no other one around that time has run out. */
const ALONE_MS = 11_000;
/** When the writer is killed: a grace that began anew with the next one would end too late. */
const KILL_AFTER_MS = 25_000;
/** Longer than the oracle's doubt about when something was known, shorter than a leader's term. */
const HELD_BACK_MS = 4_000;

labTest("what nobody needs goes after the grace, and nobody else's is touched", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: {
      "beside an upstream host": 2,
      "with a lease that ends": 2,
      "with a released instance": 2,
      "with subnets that move": 2,
    },
    cloud: { behaviour: { delays: { minMs: 200, maxMs: 500 } } },
  });
  await clusters.start({ signal });
  await clusters.tell({
    "beside an upstream host": (cluster) => keepUpstream(cluster, { signal }),
    "with a lease that ends": (cluster) => endLease(cluster, { signal }),
    "with a released instance": (cluster) => releaseInstance(cluster, { signal }),
    "with subnets that move": (cluster) => moveSubnets(cluster, { signal }),
  });
  await clusters.assertJustified({ signal });
}, { timeoutMs: 300_000 });

/** Its entry has no name, and its lease does not say whose it is. */
async function keepUpstream(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { control } = cluster.lab.cloud;
  const [upstream, ours] = [await cluster.addGuest(), await cluster.addGuest()];
  const subnet = cluster.subnet(1);
  const { id } = await control.addRoute(SYSTEM_TABLE_ID, {
    destination: subnet,
    nextHops: [{ type: "Instance", id: upstream.instanceId }],
  });
  const standing = async () => {
    const entry = (await control.routeEntries()).find((each) => each.id === id);
    assert.equal(entry?.nextHops[0]?.id, upstream.instanceId);
    assert.equal(entry?.name, "");
    assert.equal(entry?.status, "Available");
  };
  await upstream.takeAsUpstream(subnet, { signal });
  await ours.take(cluster.subnet(2), { signal });
  await cluster.settled({ signal });
  await standing();
  const leftAt = performance.now();
  await upstream.leave(subnet, { signal });
  // One of ours that gets the subnet now finds somebody else's entry in its way.
  const late = await cluster.addGuest();
  await late.take(subnet, { signal });
  await eventually(async () => {
    const { hosts } = await cluster.published({ signal });
    return hosts.get(subnet) === "unrouted";
  }, { signal, title: "the writer to say that an entry stands in the way" });
  await late.leave(subnet, { signal });
  await delay(Math.max(0, GRACE_MS + LATE_MS - (performance.now() - leftAt)), { signal });
  await standing();
  await cluster.settled({ signal });
}

/**
 * The writer is killed in the middle of the grace. Two hosts stay away: the instance of one is
 * released, the other's may be in use without a daemon.
 */
async function endLease(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const [gone, back, quiet] = [
    await cluster.addGuest(),
    await cluster.addGuest(),
    await cluster.addGuest(),
  ];
  const [subnet, other, quietly] = [cluster.subnet(1), cluster.subnet(2), cluster.subnet(3)];
  await gone.take(subnet, { signal });
  await back.take(other, { signal });
  await quiet.take(quietly, { signal });
  await cluster.settled({ signal });
  const entry = (await cluster.entries()).find(({ destination }) => destination === subnet)!;
  const endedAt = performance.now();
  await gone.leave(subnet, { signal });
  await back.leave(other, { signal });
  await quiet.leave(quietly, { signal });
  await cluster.lab.cloud.control.releaseInstance(gone.instanceId);
  await delay(KILL_AFTER_MS, { signal });
  const writer = (await cluster.writer({ signal }))!;
  await writer.killDaemon();
  await cluster.startHost(writer);
  await cluster.successor(undefined, { signal });
  // A host that comes back within the grace finds its entry as it was.
  await back.take(other, { signal });
  await cluster.settled({ signal, orphans: [subnet, quietly], timeoutMs: GRACE_MS });
  await eventually(async () => {
    return (await cluster.entries()).every(({ destination }) => destination !== subnet);
  }, { signal, title: "the entry to go", timeoutMs: GRACE_MS + LATE_MS + UNWATCHED_MS });
  const tookMs = performance.now() - endedAt;
  assert(
    tookMs > GRACE_MS - 1_000 && tookMs < GRACE_MS + LATE_MS + UNWATCHED_MS,
    `it went after ${tookMs} ms`,
  );
  await cluster.settled({ signal, orphans: [quietly] });
  const writes = await writesOf(cluster, entry.id);
  assert.equal(writes.length, 1, "one delete, and no other try");
  await eventually(async () => {
    const { summary } = await cluster.published({ signal });
    const left = summary?.orphans.map(({ instanceId, state }) => `${instanceId} ${state}`);
    return left?.join() === `${quiet.instanceId} exists`;
  }, { signal, title: "one entry to be left", timeoutMs: LATE_MS });
  const { daemon } = (await cluster.writer({ signal }))!;
  const line = `${quietly} via ${quiet.instanceId}: the instance still exists; run "flanneld`;
  await daemon.process.waitForLine(new RegExp(line.replaceAll(".", "\\.")), { signal });
  assert.equal(daemon.process.lines.filter((each) => each.includes(line)).length, 1, "once");
}

/** First the instance is released, and only later its lease runs out. */
async function releaseInstance(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { control } = cluster.lab.cloud;
  const [released, next] = [await cluster.addGuest(), await cluster.addGuest()];
  const subnet = cluster.subnet(1);
  await released.take(subnet, { signal });
  await cluster.settled({ signal });
  const entry = (await cluster.entries()).find(({ destination }) => destination === subnet)!;
  await control.releaseInstance(released.instanceId);
  // It holds nobody else up.
  await next.take(cluster.subnet(2), { signal });
  await eventually(async () => {
    const { hosts } = await cluster.published({ signal });
    return hosts.get(cluster.subnet(2)) === "routed";
  }, { signal, title: "the next host to be routed" });
  await released.leave(subnet, { signal });
  await cluster.settled({ signal, timeoutMs: GRACE_MS + LATE_MS });
  assert.equal((await writesOf(cluster, entry.id)).length, 1);

  // An upstream host cannot have its route beside that of a host whose lease has run out.
  const [dead, upstream] = [await cluster.addGuest(), await cluster.addGuest()];
  const used = cluster.subnet(3);
  await dead.take(used, { signal });
  await cluster.settled({ signal });
  await dead.leave(used, { signal });
  await delay(ALONE_MS, { signal });
  // Hold the leader back until the oracle, which allows for late knowledge, is sure of the lease.
  const { daemon } = (await cluster.writer({ signal }))!;
  daemon.process.signal("SIGSTOP");
  try {
    await upstream.takeAsUpstream(used, { signal });
    await delay(HELD_BACK_MS, { signal });
  } finally {
    daemon.process.signal("SIGCONT");
  }
  await cluster.settled({ signal, timeoutMs: LATE_MS });
}

/** An instance gets another subnet, and so does a host with a daemon. */
async function moveSubnets(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const guest = await cluster.addGuest();
  await guest.take(cluster.subnet(1), { signal });
  await cluster.settled({ signal });
  const entry = (await cluster.entries())
    .find(({ destination }) => destination === cluster.subnet(1))!;
  await guest.take(cluster.subnet(2), { signal });
  await guest.leave(cluster.subnet(1), { signal });
  await guest.state(cluster.subnet(2), { signal });
  await cluster.settled({ signal, timeoutMs: GRACE_MS + LATE_MS });
  assert.equal((await writesOf(cluster, entry.id)).length, 1);

  // Two instances change places: both entries are re-pointed, and neither is missing for a moment.
  // With the one before that makes three within the hour, which is a person's business.
  const other = await cluster.addGuest();
  await other.take(cluster.subnet(3), { signal });
  await cluster.settled({ signal });
  const ids = (await cluster.entries()).map(({ id }) => id).sort();
  await guest.take(cluster.subnet(3), { signal });
  await other.take(cluster.subnet(2), { signal });
  await guest.state(cluster.subnet(3), { signal });
  await other.state(cluster.subnet(2), { signal });
  const brake = await eventually(async () => (await cluster.published({ signal })).summary?.brake, {
    signal,
    title: "the removals to be held",
    timeoutMs: LATE_MS,
  });
  const both = [
    `${cluster.subnet(2)} via ${guest.instanceId}`,
    `${cluster.subnet(3)} via ${other.instanceId}`,
  ];
  // Whether one has gone before the other is proved depends on the round.
  assert.equal(brake.routes.join(), both.slice(-brake.routes.length).join());
  const command = `etcdctl put ${cluster.prefix}/ali-vpc/approval/removals ${brake.token}`;
  const { daemon } = (await cluster.writer({ signal }))!;
  await daemon.process.waitForLine(new RegExp(`let them go: ${command}$`), { signal });
  await cluster.lab.etcd.ctl(command.split(" ").slice(1), { signal });
  await cluster.settled({ signal });
  assert.deepEqual((await cluster.entries()).map(({ id }) => id).sort(), ids);

  const writer = await cluster.successor(undefined, { signal });
  const host = cluster.hosts.find((each) => each !== writer)!;
  const before = (await host.readSubnetEnv()).subnet.prefix.toString();
  await host.daemon.stop();
  await cluster.lab.etcd.ctl(["del", `${cluster.prefix}/subnets/${before.replace("/", "-")}`], {
    signal,
  });
  await Deno.remove(host.subnetFile);
  const guestInTheWay = await cluster.addGuest();
  await guestInTheWay.take(before, { signal });
  await cluster.startHost(host);
  await host.daemon.ready({ signal });
  assert.notEqual((await host.readSubnetEnv()).subnet.prefix.toString(), before);
  // The host states its new subnet; if two have gone before, this one waits for a word, too.
  await using _person = cluster.liven({ signal });
  await cluster.settled({ signal });
  cluster.assertReady();
}

/**
 * What was written to an entry after its creation. The clusters share a VPC, which serves one write
 * at a time: a try that another cluster's write was in the way of is no write.
 */
async function writesOf(cluster: Cluster, entryId: string): Promise<RequestRecord[]> {
  const tries = (await cluster.lab.cloud.control.requests()).filter(({ action, params }) =>
    /^(Modify|Delete)RouteEntr/.test(action) && Object.values(params).includes(entryId)
  );
  for (const { action, code, performed } of tries) {
    assert(
      performed || /TaskConflict|IncorrectRouteEntryStatus|Throttling/.test(code),
      [action, code].join(),
    );
  }
  return tries.filter(({ performed }) => performed);
}

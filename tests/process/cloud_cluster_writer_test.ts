/** A route leader that is stopped, cut off or ended gives way to another, and does no harm. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Host, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { ELECTION_TTL_SECONDS } from "../../src/store/keys/election.ts";
import { type Cluster, openClusters } from "./cloud_clusters.ts";

/** A term that nobody renews, candidates' hesitation, and what a busy machine adds. */
const TAKEOVER_MS = (ELECTION_TTL_SECONDS + 15) * 1_000;
/** Candidates hesitate for up to 2 s, and a busy machine is late. */
const HANDOVER_MS = 5_000;
const STOPPED_MS = 2 * ELECTION_TTL_SECONDS * 1_000;
/** A round of a host on its own. */
const SELF_MS = 12_000;
/** A writer whom the API does not answer: its last calls run out, and 30 s of patience. */
const RESIGNATION_MS = 120_000;

labTest("a route leader that is stopped, cut off or ended gives way to another", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: {
      "stopped between two writes": 2,
      "stopped while a write is refused": 2,
      "cut off from the store": 2,
      "cut off from the cloud": 2,
      "cut off from the cloud while it writes": 2,
      "ended in order": 2,
    },
    cloud: { behaviour: { delays: { minMs: 200, maxMs: 500 } } },
  });
  await clusters.start({ signal });
  await clusters.tell({
    "stopped between two writes": (cluster) =>
      stop(cluster, (writer) => {
        writer.daemon.process.signal("SIGSTOP");
        return Promise.resolve();
      }, { signal }),
    "stopped while a write is refused": (cluster) =>
      stop(cluster, async (writer) => {
        const { control } = cluster.lab.cloud;
        const fault = await control.addFault({
          match: { source: writer.address, action: "ModifyRouteEntry" },
          effect: { kind: "error", status: 400, code: "TaskConflict" },
        });
        const third = await cluster.addGuest();
        // What it would repeat, once it goes on, is not wanted any more then.
        await third.take(cluster.subnet(1), { signal });
        await eventually(async () =>
          (await control.requests()).some(({ source, action }) =>
            source === writer.address && action === "ModifyRouteEntry"
          ), { signal, title: "the writer's refused write" });
        writer.daemon.process.signal("SIGSTOP");
        await control.removeFault(fault);
      }, { signal }),
    "cut off from the store": (cluster) => cutOffStore(cluster, { signal }),
    "cut off from the cloud": (cluster) => cutOffCloud(cluster, { signal, writing: false }),
    "cut off from the cloud while it writes": (cluster) =>
      cutOffCloud(cluster, { signal, writing: true }),
    "ended in order": (cluster) => endInOrder(cluster, { signal }),
  });
  await clusters.assertJustified({ signal });
}, { timeoutMs: 300_000 });

/** The writer stands still for twice its term, while a lease moves twice. */
async function stop(
  cluster: Cluster,
  halt: (writer: Host) => Promise<void>,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  await using _daemons = cluster.liven({ signal });
  const [first, second] = [await cluster.addGuest(), await cluster.addGuest()];
  await first.take(cluster.subnet(1), { signal });
  await first.take(cluster.subnet(9), { signal });
  await cluster.settled({ signal });
  const writer = (await cluster.writer({ signal }))!;
  await halt(writer);
  const stoppedAt = performance.now();
  await second.take(cluster.subnet(1), { signal });
  await cluster.successor(writer, { signal, timeoutMs: TAKEOVER_MS });
  await cluster.settled({ signal });
  await first.take(cluster.subnet(1), { signal });
  await second.take(cluster.subnet(2), { signal });
  await delay(Math.max(0, STOPPED_MS - (performance.now() - stoppedAt)), { signal });
  writer.daemon.process.signal("SIGCONT");
  await cluster.settled({ signal });
  // It takes note of its successor, and follows.
  await first.take(cluster.subnet(9), { signal });
  await second.take(cluster.subnet(1), { signal });
  await cluster.settled({ signal });
  assert.notEqual(await cluster.writer({ signal }), writer);
  cluster.assertReady();
}

/** The writer reaches the API, but not the store. */
async function cutOffStore(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  const { lab } = cluster;
  await using _daemons = cluster.liven({ signal });
  const [first, second] = [await cluster.addGuest(), await cluster.addGuest()];
  await first.take(cluster.subnet(1), { signal });
  await first.take(cluster.subnet(9), { signal });
  await cluster.settled({ signal });
  const writer = (await cluster.writer({ signal }))!;
  await lab.router.cut(writer.identity.port, lab.plan.etcdPorts[0]!, { signal });
  await second.take(cluster.subnet(1), { signal });
  const successor = await cluster.successor(writer, { signal, timeoutMs: TAKEOVER_MS });
  await cluster.settled({ signal });
  // It looks after its own entry now, finds it right and writes nothing.
  await writer.daemon.process.waitForLine(/it does so itself until one does/, {
    signal,
    timeoutMs: 120_000,
  });
  await delay(SELF_MS, { signal });
  // Others are cut off at the same time: each heals its own.
  await lab.router.heal({ signal, port: writer.identity.port });
  await writer.daemon.process.waitForLine(/A route leader maintains this host's route again/, {
    signal,
  });
  await first.take(cluster.subnet(2), { signal });
  await cluster.settled({ signal });
  assert.equal(await cluster.writer({ signal }), successor);
  cluster.assertReady();
}

/** The writer reaches the store, but not the API. */
async function cutOffCloud(
  cluster: Cluster,
  { signal, writing }: { readonly signal: AbortSignal; readonly writing: boolean },
): Promise<void> {
  const { lab } = cluster;
  await using _daemons = cluster.liven({ signal });
  const [first, second] = [await cluster.addGuest(), await cluster.addGuest()];
  await first.take(cluster.subnet(1), { signal });
  await first.take(cluster.subnet(9), { signal });
  await cluster.settled({ signal });
  const writer = (await cluster.writer({ signal }))!;
  if (writing) {
    await second.take(cluster.subnet(1), { signal });
    await eventually(
      async () => (await cluster.entries()).some(({ status }) => status === "Modifying"),
      {
        signal,
        intervalMs: 20,
        title: "the write to be under way",
      },
    );
  }
  await lab.router.cutServices(writer.identity.port, { signal });
  await second.take(cluster.subnet(2), { signal });
  const successor = await cluster.successor(writer, { signal, timeoutMs: RESIGNATION_MS });
  await cluster.settled({ signal });
  assert.match(writer.daemon.process.tail(40), /Cannot act as the route leader/);
  await lab.router.heal({ signal, port: writer.identity.port });
  await first.take(cluster.subnet(3), { signal });
  await cluster.settled({ signal });
  assert.equal(await cluster.writer({ signal }), successor);
  cluster.assertReady();
}

/** SIGTERM: the leader resigns, and another host need not wait for its term to end. */
async function endInOrder(
  cluster: Cluster,
  { signal }: { readonly signal: AbortSignal },
): Promise<void> {
  for (let round = 0; round < 3; round++) {
    const writer = await cluster.successor(undefined, { signal });
    const guest = await cluster.addGuest();
    await guest.take(cluster.subnet(round), { signal });
    const stopped = writer.daemon.stop();
    const begin = performance.now();
    await cluster.successor(writer, { signal });
    const tookMs = performance.now() - begin;
    assert(tookMs < HANDOVER_MS, `another host after ${tookMs} ms`);
    await stopped;
    await cluster.startHost(writer);
    await writer.daemon.ready({ signal });
    await cluster.settled({ signal });
    cluster.assertReady();
  }
}

/** The API is down for minutes, for everybody. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { callsSince, countCalls, mark, note } from "./cloud_support.ts";
import { openClusters } from "./cloud_clusters.ts";

const DOWN_MS = 100_000;
/** All hosts together, whichever of them writes. */
const CALLS_PER_MINUTE = 30;

labTest("while the API is down few calls are made by all, and then all is mended", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: { "without answers": 3, "refused": 2, "of one host": 1 },
    ownPlaces: true,
    cloud: { behaviour: { delays: { minMs: 100, maxMs: 300 } } },
  });
  await clusters.start({ signal });
  const { lab } = clusters;
  const { control } = lab.cloud;
  await clusters.tell({
    "without answers": (cluster) => goDown(cluster, { kind: "hang" }),
    "refused": (cluster) =>
      goDown(cluster, { kind: "error", status: 503, code: "ServiceUnavailable" }),
    "of one host": (cluster) => goDown(cluster, { kind: "hang" }),
  });
  await clusters.assertJustified({ signal });

  async function goDown(
    cluster: typeof clusters.all[number],
    effect: { kind: "hang" } | { kind: "error"; status: number; code: string },
  ): Promise<void> {
    await using _daemons = cluster.liven({ signal });
    const [stays, comes] = [await cluster.addGuest(), await cluster.addGuest()];
    await stays.take(cluster.subnet(1), { signal });
    await cluster.settled({ signal });
    const from = await mark(lab);
    const begin = performance.now();
    const faults = await Promise.all(
      cluster.hosts.flatMap(({ address: source }) =>
        (["vpc", "ecs"] as const).map((service) =>
          control.addFault({ match: { source, service }, effect })
        )
      ),
    );
    await comes.take(cluster.subnet(1), { signal });
    await stays.take(cluster.subnet(2), { signal });
    await delay(DOWN_MS, { signal });
    const sources = new Set(cluster.hosts.map(({ address }) => address));
    const calls = (await callsSince(lab, from)).filter(({ source }) => sources.has(source));
    const perMinute = calls.length / (performance.now() - begin) * 60_000;
    note(`${cluster.title}: ${perMinute.toFixed(1)} calls a minute: ${countCalls(calls)}`);
    assert(calls.length > 0, "they try");
    assert(perMinute < CALLS_PER_MINUTE, `${perMinute} calls a minute`);
    // What is there keeps its traffic, and nobody loses its readiness for it.
    cluster.assertReady();
    for (const fault of faults) await control.removeFault(fault);
    await eventually(async () => await cluster.writer({ signal }), {
      signal,
      title: "somebody to write again",
      timeoutMs: 90_000,
    });
    await cluster.settled({ signal, timeoutMs: 90_000 });
    cluster.assertReady();
  }
}, { timeoutMs: 290_000 });

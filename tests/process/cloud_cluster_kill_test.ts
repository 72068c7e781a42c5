/** The route leader is killed at every step of every kind of write. */
import { labTest } from "../lab/mod.ts";
import type { RequestRecord, RouteStatus } from "../simulator/model.ts";
import { eventually } from "../support/eventually.ts";
import { type Cluster, type Guest, openClusters } from "./cloud_clusters.ts";

/** What is written, and what makes the writer do it. */
interface Kind {
  readonly title: string;
  readonly action: string;
  /** Of the entry, while the write is being carried out. */
  readonly status: RouteStatus;
  readonly begin: (cast: Cast, options: { signal: AbortSignal }) => Promise<void>;
}

/** Who plays in a cluster. */
interface Cast {
  readonly cluster: Cluster;
  readonly guests: readonly [Guest, Guest, Guest];
}

const KINDS: readonly Kind[] = [
  {
    title: "a batch of creates",
    action: "CreateRouteEntries",
    status: "Pending",
    begin: async ({ cluster, guests: [a, b] }, options) => {
      await Promise.all([a.take(cluster.subnet(1), options), b.take(cluster.subnet(2), options)]);
    },
  },
  {
    title: "a modify",
    action: "ModifyRouteEntry",
    status: "Modifying",
    begin: async ({ cluster, guests: [a, , c] }, options) => {
      await a.take(cluster.subnet(4), options);
      await c.take(cluster.subnet(1), options);
    },
  },
  {
    title: "a delete",
    action: "DeleteRouteEntry",
    status: "Deleting",
    begin: async ({ cluster, guests: [, b] }, options) => {
      await b.take(cluster.subnet(3), options);
      await b.leave(cluster.subnet(2), options);
    },
  },
];

/** A moment of a write. */
interface Moment {
  /** What happens to the writer's requests, so that the moment lasts. */
  readonly effect?:
    | { kind: "hang" }
    | { kind: "delay" | "delayAnswer"; delayMs: number }
    | { kind: "slowTask"; taskMs: number };
  /** Whether it has come. */
  readonly hasCome: (now: {
    readonly requests: readonly RequestRecord[];
    readonly isUnderWay: boolean;
  }) => boolean;
  /** Whether reads of the tables hang once the write was accepted. */
  readonly blind?: boolean;
}

const MOMENTS: Readonly<Record<string, Moment>> = {
  "before the write": { effect: { kind: "hang" }, hasCome: ({ requests }) => requests.length > 0 },
  "before the write, which is carried out late": {
    effect: { kind: "delay", delayMs: 4_000 },
    hasCome: ({ requests }) => requests.length > 0,
  },
  "before the answer": {
    effect: { kind: "delayAnswer", delayMs: 6_000 },
    hasCome: ({ requests }) =>
      requests.some(({ performed, finishedAtMs }) => performed && finishedAtMs < 0),
  },
  "while it is under way": {
    // On a loaded machine, what is over within a second may never be seen.
    effect: { kind: "slowTask", taskMs: 5_000 },
    hasCome: ({ isUnderWay }) => isUnderWay,
  },
  "before it is published": {
    blind: true,
    hasCome: ({ requests, isUnderWay }) =>
      requests.some(({ performed }) => performed) && !isUnderWay,
  },
};

labTest("a route leader that is killed at any moment of a write leaves nothing wrong", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: Object.fromEntries(Object.keys(MOMENTS).map((title) => [title, 2])),
    cloud: { behaviour: { delays: { minMs: 400, maxMs: 900 } } },
  });
  await clusters.start({ signal });
  await clusters.tell(Object.fromEntries(
    Object.entries(MOMENTS).map(([title, moment], at) => [title, async (cluster) => {
      await using _daemons = cluster.liven({ signal });
      const guests = [
        await cluster.addGuest(),
        await cluster.addGuest(),
        await cluster.addGuest(),
      ] as const;
      for (const [index, kind] of KINDS.entries()) {
        // The same host comes back at once, or after another has taken over.
        const waits = (index + at) % 2 === 0;
        await killAt({ cluster, guests }, kind, moment, { signal, waits });
      }
    }]),
  ));
  await clusters.assertJustified({ signal });
}, { timeoutMs: 480_000 });

async function killAt(
  cast: Cast,
  kind: Kind,
  { effect, hasCome, blind = false }: Moment,
  { signal, waits }: { readonly signal: AbortSignal; readonly waits: boolean },
): Promise<void> {
  const { cluster } = cast;
  const { control } = cluster.lab.cloud;
  const writer = await cluster.successor(undefined, { signal });
  const source = writer.address;
  const since = (await control.requests()).at(-1)?.sequence ?? 0;
  const writes = async () =>
    (await control.requests({ sinceSequence: since }))
      .filter((each) => each.source === source && each.action === kind.action);
  const faults: number[] = [];
  if (effect) {
    faults.push(await control.addFault({ match: { source, action: kind.action }, effect }));
  }
  await kind.begin(cast, { signal });
  await eventually(async () => {
    const requests = await writes();
    if (blind && faults.length === 0 && requests.some(({ performed }) => performed)) {
      const match = { source, action: "DescribeRouteEntryList" };
      faults.push(await control.addFault({ match, effect: { kind: "hang" } }));
    }
    const isUnderWay = (await cluster.entries()).some(({ status }) => status === kind.status);
    return hasCome({ requests, isUnderWay });
  }, {
    signal,
    intervalMs: 30,
    // Five clusters take turns in one VPC, with writes that last: a leader waits up to 20 s a time.
    timeoutMs: 100_000,
    title: `${kind.title} of ${writer.label} to come so far`,
  });
  await writer.killDaemon();
  for (const fault of faults) await control.removeFault(fault);
  if (waits) await cluster.successor(writer, { signal });
  await cluster.startHost(writer);
  await writer.daemon.ready({ signal });
  await cluster.settled({ signal });
  cluster.assertReady();
}

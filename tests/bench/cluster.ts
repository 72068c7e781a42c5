/**
 * A whole `ali-vpc` cluster that starts at once: calls and seconds until every host has its route,
 * with one writer for all, and with each host writing for itself. Light hosts in this process: a
 * real etcd, the simulated cloud (one write at a time, 1–3 s each, 300 calls of an action a minute),
 * and between them the daemon's own code.
 *
 * @module
 */
import { aliVpc, type AliVpcConfig, type AliVpcFacts } from "../../src/backends/mod.ts";
import { backendEntry } from "../../src/runtime/entry.ts";
import type { BackendRuntime, RuntimeContext } from "../../src/runtime/runtime.ts";
import { Cell } from "../../src/util/cell.ts";
import { describeCalls, openColdCluster } from "../support/cold_start.ts";
import { openOwnWriter } from "../support/own_writer.ts";
import { formatTable } from "../support/text_table.ts";
import type { Report } from "./report.ts";

/** One line of the table. */
interface Scenario {
  readonly hosts: number;
  readonly writers: "one for all" | "each its own";
  /** More than 1 where one process could not hold a connection and a view of the leases for each. */
  readonly hostsPerConnection: number;
  /** More than 0 where one processor could not start all at once. */
  readonly startWithinMs: number;
}

const AT_ONCE = { hostsPerConnection: 1, startWithinMs: 0 };

const SCENARIOS: readonly Scenario[] = [
  ...[10, 50, 200].map((hosts) => ({ ...AT_ONCE, hosts, writers: "one for all" as const })),
  { hosts: 1_000, writers: "one for all", hostsPerConnection: 20, startWithinMs: 30_000 },
  // With 200 it would take the better part of an hour.
  ...[10, 50].map((hosts) => ({ ...AT_ONCE, hosts, writers: "each its own" as const })),
];

const HEADING = [
  "hosts",
  "writers",
  "all routed",
  "VPC calls",
  "of them writes",
  "VPC calls per host",
  "ECS calls",
];
const TIMEOUT_MS = 15 * 60_000;

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section("Cold start of a whole cluster on Alibaba Cloud");
  const rows: string[][] = [];
  for (const scenario of SCENARIOS) rows.push(await measure(scenario, report, signal));
  report.note(
    "1000 hosts start within 30 s, the others at once; 5 calls find the VPC and its tables",
  );
  for (const line of formatTable(HEADING, rows, { colour: false }).split("\n")) report.note(line);
}

async function measure(
  { hosts, writers, ...pace }: Scenario,
  report: Report,
  signal: AbortSignal,
): Promise<string[]> {
  await using cluster = await openColdCluster({
    ...pace,
    hosts,
    ...(writers === "each its own"
      ? { backendOf: () => backendEntry(aliVpc, { open: openOwnRuntime }) }
      : {}),
    signal,
  });
  cluster.start();
  const seconds = await cluster.allRouted({ timeoutMs: TIMEOUT_MS, signal });
  const calls = cluster.calls("vpc");
  const writes = calls.filter(({ action, params }) =>
    !action.startsWith("Describe") && params["DryRun"] !== "true"
  );
  report.note(`${hosts} hosts, ${writers}: ${describeCalls(calls)}`);
  return [
    String(hosts),
    writers,
    `${seconds.toFixed(1)} s`,
    String(calls.length),
    String(writes.length),
    (calls.length / hosts).toFixed(2),
    String(cluster.calls("ecs").length),
  ];
}

/** A host as it would be without a route leader: it looks after its own entry alone. */
async function openOwnRuntime(
  { network, options, environment, log, signal }: RuntimeContext,
  config: AliVpcConfig,
): Promise<BackendRuntime<AliVpcFacts>> {
  const cloud = await openOwnWriter({
    config,
    network: network.ipv4!.network,
    endpoints: {
      vpc: options.aliVpcEndpoint!.href,
      ecs: options.aliEcsEndpoint!.href,
      metadata: options.aliMetadataEndpoint.href,
    },
    env: (name) => environment[name],
    log,
    signal,
  });
  const facts = new Cell<AliVpcFacts>(cloud.facts);
  return {
    facts,
    remote: {
      resyncMs: config.resyncSeconds * 1_000,
      stages: (desired) => [
        { table: cloud.sourceDestCheck, desired: () => desired()?.host.sourceDestChecks },
        { table: cloud.routes, desired: () => desired()?.host.cloudRoutes },
      ],
      gather: async (own, peers, each) => {
        facts.set(await cloud.follow(own, [...peers], each));
      },
      changes: new Cell(0),
      waitingFor: () => undefined,
      leasesChanged: () => {},
      disown: () => cloud.routes.disown(),
    },
    run: (_, { signal }) =>
      new Promise((_, reject) =>
        signal.addEventListener("abort", () => reject(signal.reason), { once: true })
      ),
    [Symbol.asyncDispose]: () => cloud[Symbol.asyncDispose](),
  };
}

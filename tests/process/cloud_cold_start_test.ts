/**
 * Two hundred hosts that start at once, as after a power failure, on a cloud that takes one write at
 * a time and seconds for each.
 */
import assert from "node:assert/strict";
import { toolTest } from "../prerequisites.ts";
import { delay } from "../../src/util/time.ts";
import { describeCalls, openColdCluster } from "../support/cold_start.ts";
import { patient } from "../support/slowness.ts";
import { note } from "./cloud_support.ts";

const HOSTS = 200;
/** So that leases come about as fast as from hosts that each have a processor to themselves. */
const HOSTS_PER_CONNECTION = 5;
/** The goal is half of it; all hosts share this process's processor with the cloud and the store. */
const ROUTED_LIMIT_MS = 60_000;
const READY_LIMIT_MS = 180_000;
const MAX_BATCHES = 4;
const MAX_VPC_CALLS = 50;
const STEADY_MS = 60_000;
/** One look at the table, which is of two pages, for each minute begun; and one at its tables. */
const MAX_STEADY_VPC_CALLS = 8;

toolTest(
  `${HOSTS} hosts that start at once are routed within seconds by a few calls of one of them`,
  ["etcd", "etcdctl"],
  async () => {
    const signal = AbortSignal.timeout(patient(400_000));
    await using cluster = await openColdCluster({
      hosts: HOSTS,
      hostsPerConnection: HOSTS_PER_CONNECTION,
      signal,
    });
    const hosts = cluster.start();
    const routedSeconds = await cluster.allRouted({ timeoutMs: patient(ROUTED_LIMIT_MS), signal })
      .catch((cause) => {
        throw new Error(hosts.describe(), { cause });
      });
    const calls = cluster.calls("vpc");
    const readySeconds = await hosts.ready({ timeoutMs: patient(READY_LIMIT_MS), signal });
    note(
      `    ${HOSTS} hosts: all routed after ${routedSeconds.toFixed(1)} s, all ready after ` +
        `${readySeconds.toFixed(1)} s; VPC: ${describeCalls(calls)}; ` +
        `ECS: ${describeCalls(cluster.calls("ecs"))}`,
    );

    const [writer, ...others] = cluster.callers(cluster.calls("vpc"));
    assert.deepEqual(others, [], `only ${writer} is to call the VPC's API`);
    assert.ok(calls.length <= MAX_VPC_CALLS, describeCalls(calls));
    const batches = calls.filter(({ action, code }) =>
      action === "CreateRouteEntries" && code === "OK"
    );
    assert.ok(batches.length <= MAX_BATCHES, describeCalls(calls));
    const right = hosts.hosts.map(({ subnet, instanceId }) => `${subnet} ${instanceId}`);
    assert.deepEqual(
      cluster.entries().map(({ destination, nextHops: [hop] }) => `${destination} ${hop?.id}`)
        .toSorted(),
      right.toSorted(),
    );

    const { mark } = cluster;
    await delay(STEADY_MS, { signal });
    const steady = cluster.calls("vpc", mark);
    note(`    a steady minute: ${describeCalls(steady) || "no VPC call"}`);
    assert.ok(steady.length <= MAX_STEADY_VPC_CALLS, describeCalls(steady));
    assert.deepEqual(steady.filter(({ action }) => !action.startsWith("Describe")), []);
    assert.ok(hosts.hosts.every(({ ready }) => ready), hosts.describe());
  },
);

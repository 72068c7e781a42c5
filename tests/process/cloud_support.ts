/**
 * What the tests of the running daemon on a simulated Alibaba Cloud share.
 *
 * @module
 */
import assert from "node:assert/strict";
import type { RouteEntryConfig } from "../simulator/config.ts";
import type { RequestRecord, RouteEntry } from "../simulator/model.ts";
import {
  type Daemon,
  describeLosses,
  ETCD_PREFIX,
  GUIDE_CONFIG,
  type Host,
  type HostDaemonOptions,
  type Lab,
  type LabOptions,
  openLab,
  SYSTEM_TABLE_ID,
} from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { CLUSTER_ID } from "../support/own_writer.ts";

export { CLUSTER_ID };

/** The guide's network, whose route is looked after as often as the backend allows. */
export const BRISK_CONFIG = brisk();

/** How long a host may take at most to notice and mend what it looks at on every resync. */
export const RESYNC_LIMIT_MS = 25_000;

/** {@linkcode GUIDE_CONFIG} with the soonest resync and further keys of the backend or network. */
export function brisk(backend: object = {}, network: object = {}) {
  return {
    ...GUIDE_CONFIG,
    ...network,
    Backend: { ...GUIDE_CONFIG.Backend, ResyncSeconds: 10, ...backend },
  };
}

/** A lab with a cloud, with `config` in its etcd. */
export async function openCloudLab(
  options: LabOptions & { readonly config?: unknown },
): Promise<Lab> {
  const lab = await openLab({ hosts: 1, ...options });
  try {
    await lab.writeConfig(options.config ?? BRISK_CONFIG, options);
    await lab.etcd.put(`${ETCD_PREFIX}/ali-vpc/cluster`, CLUSTER_ID, options);
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

/** An instance that no daemon runs on. */
export const STRANGER_ID = "i-bp1stranger";
export const VPN_ID = "vpn-bp1lab";

/**
 * Entries that are nobody's business but their owners': gateways, load sharing, somebody's
 * instances inside and outside the pod network, even ones that lead to `instanceId` itself.
 */
export function foreignEntries(instanceId: string): RouteEntryConfig[] {
  const instance = (id: string) => [{ type: "Instance" as const, id }];
  return [
    { destination: "0.0.0.0/0", nextHops: instance(instanceId), name: "internet by our host" },
    { destination: "10.99.0.0/16", nextHops: [{ type: "VpnGateway", id: VPN_ID }] },
    {
      destination: "10.98.0.0/16",
      nextHops: [
        { type: "RouterInterface", id: "ri-1", weight: 100 },
        { type: "RouterInterface", id: "ri-2", weight: 100 },
      ],
    },
    { destination: "8.8.8.0/24", nextHops: [{ type: "NatGateway", id: "ngw-bp1lab" }] },
    {
      destination: "10.97.0.0/16",
      nextHops: [{ type: "Attachment", id: "tr-1" }],
      serviceType: "TR",
    },
    { destination: "10.96.0.0/16", type: "CEN", nextHops: [{ type: "Attachment", id: "tr-1" }] },
    { destination: "172.20.1.0/24", nextHops: instance(STRANGER_ID), name: "somebody else's" },
    { destination: "10.24.200.0/24", nextHops: instance(STRANGER_ID), name: "" },
    { destination: "10.24.201.0/24", nextHops: instance(instanceId), name: "by hand" },
    { destination: "10.24.202.0/24", nextHops: instance(instanceId), name: "" },
    {
      destination: "10.24.203.0/24",
      nextHops: instance(STRANGER_ID),
      name: `flanneld/${CLUSTER_ID}/10.24.0.0/16/${STRANGER_ID}`,
    },
    {
      destination: "10.24.204.0/24",
      nextHops: instance(STRANGER_ID),
      name: `flanneld/0123456789abcdef/10.24.0.0/16/${STRANGER_ID}`,
    },
    {
      destination: "10.24.205.0/24",
      nextHops: instance(instanceId),
      name: `flanneld/10.24.0.0/16/${instanceId}`,
    },
    {
      destination: "10.25.7.0/24",
      nextHops: instance(instanceId),
      name: `flanneld/10.25.0.0/16/${instanceId}`,
    },
  ];
}

/** Keeps leases clear of what {@linkcode foreignEntries} has in the pod network. */
export const CLEAR_OF_FOREIGN = { SubnetMin: "10.24.10.0", SubnetMax: "10.24.29.0" };

/** Puts {@linkcode foreignEntries} for `host` into a table, in place of its default route. */
export async function addForeignEntries(
  lab: Lab,
  host: Host,
  routeTableId = SYSTEM_TABLE_ID,
): Promise<void> {
  const { control } = lab.cloud;
  const { instances } = await control.snapshot();
  if (!instances.some(({ id }) => id === STRANGER_ID)) {
    await control.addInstance({
      id: STRANGER_ID,
      vSwitchId: host.identity.vSwitchId,
      privateIp: host.address.replace(/\d+$/, "200"),
    });
  }
  await control.deleteRoute({ routeTableId, destination: "0.0.0.0/0" });
  for (const entry of foreignEntries(host.identity.instanceId)) {
    await control.addRoute(routeTableId, entry);
  }
}

/** Every entry but those that a daemon of one of the lab's hosts marked as its own. */
export async function foreignOf(lab: Lab): Promise<RouteEntry[]> {
  const names = lab.hosts.map((host) => routeName(host));
  const { routeEntries } = await lab.cloud.control.snapshot();
  return routeEntries.filter(({ name }) => !names.includes(name));
}

/** The networks of hosts that are a cluster of their own. */
const ownNetworks = new WeakMap<Host, string>();

/**
 * Makes a cluster of their own of some hosts, or of one, which writes its route itself then: with a
 * prefix in the store and, as entries are told apart by it, a network. Answers the flags that lead
 * there.
 */
export async function ownCluster(
  lab: Lab,
  hosts: Host | readonly Host[],
  options: {
    readonly signal: AbortSignal;
    /** Further keys of the backend. */
    readonly backend?: object;
    readonly network?: string;
  },
): Promise<string[]> {
  const members = [hosts].flat();
  const [host] = members;
  const { network = `10.${100 + lab.hosts.indexOf(host!)}.0.0/16` } = options;
  for (const member of members) ownNetworks.set(member, network);
  const config = brisk(options.backend, { Network: network });
  await lab.etcd.put(`/${host!.label}/config`, JSON.stringify(config), options);
  await lab.etcd.put(`/${host!.label}/ali-vpc/cluster`, CLUSTER_ID, options);
  return [`--etcd-prefix=/${host!.label}`];
}

/** The leases of the cluster that {@linkcode ownCluster} has made. */
export function ownLeases(
  lab: Lab,
  host: Host,
  options: { readonly signal: AbortSignal },
): Promise<Map<string, string>> {
  return lab.etcd.list(`/${host.label}/subnets/`, options);
}

/** The name that the entries of `host` are given. */
export function routeName(host: Host): string {
  const network = ownNetworks.get(host) ?? "10.24.0.0/16";
  return `flanneld/${CLUSTER_ID}/${network}/${host.identity.instanceId}`;
}

/** `10.24.7.0/24 i-bp1lab001 Available` of each entry that `host` marked, table by table. */
export async function routesOf(lab: Lab, host: Host): Promise<string[]> {
  const { routeEntries } = await lab.cloud.control.snapshot();
  return routeEntries.filter(({ name }) => name === routeName(host)).map((entry) =>
    `${entry.routeTableId} ${entry.destination} ${
      entry.nextHops.map(({ id }) => id).join()
    } ${entry.status}`
  );
}

/** What {@linkcode routesOf} is to say of a host with one right route. */
export async function rightRoutes(
  host: Host,
  tables: readonly string[] = [SYSTEM_TABLE_ID],
): Promise<string[]> {
  const destination = await subnetOf(host);
  return tables.map((table) => `${table} ${destination} ${host.identity.instanceId} Available`);
}

/** Asserts that each host has its one route, in force, and no other. */
export async function assertRightRoutes(
  lab: Lab,
  hosts: readonly Host[] = lab.hosts,
  tables?: readonly string[],
): Promise<void> {
  for (const host of hosts) {
    const [actual, right] = [await routesOf(lab, host), await rightRoutes(host, tables)];
    assert.deepEqual(actual.toSorted(), right.toSorted(), host.daemon.process.tail());
  }
}

/** Waits until `host` has its one route, in force, and no other. */
export async function healed(
  lab: Lab,
  host: Host,
  options: { signal: AbortSignal; tables?: readonly string[]; timeoutMs?: number },
): Promise<void> {
  const right = (await rightRoutes(host, options.tables)).toSorted().join("\n");
  await eventually(async () => (await routesOf(lab, host)).toSorted().join("\n") === right, {
    timeoutMs: RESYNC_LIMIT_MS,
    ...options,
    title: `${host.label} to have its route:\n${right}\n${host.daemon.process.tail()}`,
  });
}

/** The subnet in a host's subnet.env. */
export async function subnetOf(host: Host): Promise<string> {
  return (await host.readSubnetEnv()).subnet.prefix.toString();
}

/** Makes the next daemon of `host` ask for this subnet, as after a restart. */
export async function wish(host: Host, subnet: string): Promise<void> {
  const address = subnet.replace(/0\/(\d+)$/, "1/$1");
  await Deno.writeTextFile(
    host.subnetFile,
    `FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=${address}\n` +
      "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
  );
}

/** Starts daemons on all hosts and waits until each is ready. */
export async function startAll(
  lab: Lab,
  options: HostDaemonOptions & { readonly signal: AbortSignal; readonly timeoutMs?: number },
): Promise<Daemon[]> {
  return await Promise.all(lab.hosts.map(async (host) => {
    const daemon = await host.startDaemon(options);
    await daemon.ready(options);
    return daemon;
  }));
}

/** Asserts that each pod reaches each other one, by what the cloud has in force now. */
export async function assertPodsReachable(
  lab: Lab,
  options: { signal: AbortSignal },
): Promise<void> {
  await lab.cloud.inForce(options);
  assert.equal(describeLosses(await lab.pingPods({ ...options, seconds: 3 })), "");
}

/** Where the record of requests ends now. */
export async function mark(lab: Lab): Promise<number> {
  return (await lab.cloud.control.requests()).at(-1)?.sequence ?? 0;
}

/** API calls (not metadata) since `from`, optionally of one host only. */
export async function callsSince(
  lab: Lab,
  from: number,
  host?: Host,
): Promise<RequestRecord[]> {
  const requests = await lab.cloud.control.requests({ sinceSequence: from });
  return requests.filter(({ service, source }) =>
    service !== "metadata" && (host === undefined || source === host.address)
  );
}

/** Calls that would change something, dry runs apart. */
export function writesAmong(calls: readonly RequestRecord[]): RequestRecord[] {
  return calls.filter(({ action, params }) =>
    /^(Create|Modify|Delete|Associate|Unassociate)/.test(action) && params["DryRun"] !== "true"
  );
}

/** `3 × DescribeRouteEntryList OK, …`, for people and for asserts. */
export function countCalls(calls: readonly RequestRecord[]): string {
  const groups = Map.groupBy(
    calls,
    ({ action, code, params }) =>
      `${action}${params["DryRun"] === "true" ? " (dry run)" : ""} ${code}`,
  );
  return [...groups].map(([key, { length }]) => `${length} × ${key}`).sort().join(", ");
}

/** Waits until the daemon tells the service manager something that matches. */
export async function statusSays(
  daemon: Daemon,
  pattern: RegExp,
  options: { signal: AbortSignal; timeoutMs?: number; from?: number },
): Promise<string> {
  return await eventually(() => {
    if (daemon.process.ended) throw new Error(`it has ended:\n${daemon.process.tail()}`);
    return daemon.statuses().slice(options.from ?? 0).find((status) => pattern.test(status));
  }, {
    ...options,
    title: `${daemon.process.title} to say ${pattern}; it said ${
      JSON.stringify(daemon.statuses().slice(-3))
    }`,
  });
}

/** Waits for the end of a daemon that is to give up; returns its last words. */
export async function lastWords(
  daemon: Daemon,
  options: { signal: AbortSignal },
): Promise<string> {
  const status = await eventually(() => daemon.process.ended, {
    ...options,
    title: `${daemon.process.title} to exit`,
  });
  assert.equal(status.code, 1, daemon.process.tail());
  const errors = daemon.process.lines.filter((line) => / ERROR |"level":"error"/.test(line));
  assert.equal(errors.length, 1, `one clear line, not:\n${daemon.process.tail()}`);
  return errors[0]!;
}

/** Tells whoever runs the tests a number worth knowing. */
export function note(text: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(`${text}\n`));
}

/** One thing that happens to a host; given the host and its key, if it has one of its own. */
export type Scenario = (host: Host) => Promise<void>;

/** Runs scenarios side by side, each on a host of its own; says by title which have failed. */
export async function together(
  lab: Lab,
  scenarios: Readonly<Record<string, Scenario>>,
): Promise<void> {
  const entries = Object.entries(scenarios);
  assert.equal(lab.hosts.length, entries.length, "a host for each scenario");
  const outcomes = await Promise.allSettled(
    entries.map(([, scenario], index) => scenario(lab.hosts[index]!)),
  );
  const failures = outcomes.flatMap((outcome, index) =>
    outcome.status === "fulfilled"
      ? []
      : [new Error(`${entries[index]![0]} (host${index + 1})`, { cause: outcome.reason })]
  );
  if (failures.length > 0) throw new AggregateError(failures, "Some scenarios failed");
}

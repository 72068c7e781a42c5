/**
 * `deno task demo`: a cluster of simulated ECS hosts in network namespaces, running the real daemon
 * against a real etcd and a real Linux data plane. Shows its pods reach each other through the
 * VPC's route table, and a deleted route come back.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { describeError, UsageError } from "../src/errors.ts";
import { ROUTE_PROTOCOL } from "../src/state/mod.ts";
import { deadline, delay } from "../src/util/time.ts";
import {
  type Daemon,
  daemonProgram,
  DEFAULT_BINARY,
  describeLosses,
  GUIDE_CONFIG,
  type Host,
  type Lab,
  type LabOptions,
  openLab,
  ping,
  type PingResult,
  REPOSITORY,
  requireRoot,
  SYSTEM_TABLE_ID,
} from "./lab/mod.ts";
import { cacheModules, ensurePrerequisites, LAB_NEEDS } from "./prerequisites.ts";
import type { BehaviourConfig } from "./simulator/config.ts";
import { eventually } from "./support/eventually.ts";
import { type Cell, formatTable, style } from "./support/text_table.ts";

const USAGE = `Usage: deno task demo [options]

Builds a cluster of hosts in network namespaces on this machine, runs flanneld on each, shows pods
reach each other, and breaks something that flanneld repairs. Takes about a minute and removes
everything afterwards. Needs root.

  --backend=NAME     ali-vpc: simulated ECS hosts and their VPC's route table (default);
                     vxlan: a tunnel between hosts on two networks;
                     host-gw: routes between hosts on one network;
                     udp: a tunnel through the daemons, between hosts on two networks
  --hosts=N          number of hosts, 2 to 50 (default 3)
  --overflow=vxlan   ali-vpc: hosts that the route table has no room for are reached by VXLAN
  --quota=N          ali-vpc: how many entries the route table takes, one of which is the VPC's
                     way out (default 200); with fewer than the hosts need give --overflow, too
  --binary[=PATH]    run a compiled flanneld (dist/flanneld) instead of the sources
  --keep             leave the cluster up, with a note on how to look around, until Ctrl-C
  --help
`;

/** Until here everything has to be shown; with more hosts it takes longer. */
const LIMIT_MS = 180_000;
const LIMIT_PER_HOST_MS = 15_000;

/**
 * As slow, busy and grudging as the real service can be. Its limits hold for all hosts together,
 * so they grow with the number of hosts: more than that would make this a test of patience.
 */
function behaviourFor({ hosts, quota }: Options): BehaviourConfig {
  return {
    ...(quota === undefined ? {} : { quota }),
    delays: { minMs: 500, maxMs: 3000 },
    conflictProbability: 0.25,
    throttle: {
      windowMs: 10_000,
      limits: { DescribeRouteEntryList: 3 * hosts, CreateRouteEntry: hosts + 1 },
    },
  };
}

/** What differs between backends. */
interface Scene {
  readonly config: (options: Options) => Readonly<Record<string, unknown>>;
  /** What is built, as in "3 hosts in …". */
  readonly place: string;
  /** A word about the place once it is there. */
  readonly remark?: string;
  readonly lab: (options: Options) => Partial<LabOptions>;
  /** Shows what makes packets find their way. */
  readonly printWays: (lab: Lab, signal: AbortSignal) => Promise<void>;
  /** Breaks something and waits until it is whole; returns whether all went as it should. */
  readonly heal: (lab: Lab, options: Options, signal: AbortSignal) => Promise<boolean>;
  /** What there is to say at the end. */
  readonly finish?: (lab: Lab) => Promise<void>;
}

type BackendName = "ali-vpc" | "vxlan" | "host-gw" | "udp";

const SCENES: Readonly<Record<BackendName, Scene>> = {
  "ali-vpc": {
    // The guide's, with the soonest repair of a route that the backend offers.
    config: ({ overflow }) => ({
      ...GUIDE_CONFIG,
      Backend: {
        ...GUIDE_CONFIG.Backend,
        ResyncSeconds: 10,
        ...(overflow === "vxlan" ? { Overflow: "vxlan" } : {}),
      },
    }),
    place: "in 2 vSwitches, a VPC router, a simulated cloud and etcd",
    remark: "The cloud takes 0.5 to 3 s for each change of a route, makes one at a time, answers " +
      "a quarter of them with TaskConflict, and throttles",
    lab: (options) => ({ cloud: { behaviour: behaviourFor(options) } }),
    printWays: printRouteEntries,
    heal: (lab, options, signal) =>
      isCrowded(options) ? makeRoom(lab, signal) : healRouteEntry(lab, signal),
    finish: printCalls,
  },
  "vxlan": tunnelScene("vxlan", "flannel.1"),
  "host-gw": {
    config: () => ({ Network: "10.24.0.0/16", Backend: { Type: "host-gw" } }),
    place: "on one network, and etcd behind a router",
    lab: () => ({ topology: "l2" }),
    printWays: printKernelObjects,
    heal: (lab, _options, signal) => healKernelRoute(lab, signal),
  },
  "udp": tunnelScene("udp", "flannel0"),
};

/** Where only a tunnel leads from host to host, through the device `link`. */
function tunnelScene(type: BackendName, link: string): Scene {
  return {
    config: () => ({ Network: "10.24.0.0/16", Backend: { Type: type } }),
    place: "on 2 networks, a router between them that knows no pods, and etcd",
    lab: () => ({ topology: "routed" }),
    printWays: printKernelObjects,
    heal: (lab, _options, signal) => healDevice(lab, link, signal),
  };
}

function isBackendName(text: string): text is BackendName {
  return Object.hasOwn(SCENES, text);
}

/** With more hosts than this, pings are counted instead of shown one by one. */
const MAX_MATRIX = 12;

interface Options {
  readonly backend: BackendName;
  readonly hosts: number;
  readonly overflow: "none" | "vxlan";
  readonly quota: number | undefined;
  readonly binary: string | undefined;
  readonly keep: boolean;
}

const colour = Deno.stdout.isTerminal() && !Deno.noColor;
const startedAt = performance.now();

if (import.meta.main) Deno.exit(await main());

async function main(): Promise<number> {
  let options: Options | undefined;
  try {
    options = parseOptions(Deno.args);
  } catch (error) {
    print(`${describeError(error)}\n\n${USAGE}`);
    return 2;
  }
  if (!options) {
    print(USAGE);
    return 0;
  }
  const interrupt = new AbortController();
  let exitCode = 1;
  for (const [name, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    Deno.addSignalListener(name, () => {
      exitCode = code;
      interrupt.abort(new DOMException(`Interrupted by ${name}`, "AbortError"));
    });
  }
  try {
    return await demonstrate(options, interrupt.signal) ? 0 : 1;
  } catch (error) {
    if (interrupt.signal.aborted) say("Interrupted; everything is removed again");
    else sayFailure(error);
    return exitCode;
  }
}

/** Returns whether every ping passed. */
async function demonstrate(options: Options, interrupt: AbortSignal): Promise<boolean> {
  requireRoot();
  await ensurePrerequisites(LAB_NEEDS, { signal: interrupt, say });
  const programs = ["main.ts", "tests/simulator/main.ts"].map((path) => REPOSITORY + path);
  await cacheModules(programs, { signal: interrupt, say });

  const limitMs = LIMIT_MS + options.hosts * LIMIT_PER_HOST_MS;
  using limit = deadline(limitMs, { signal: interrupt });
  const { signal } = limit;
  const scene = SCENES[options.backend];
  say(`Building ${options.hosts} hosts ${scene.place}`);
  await using lab = await openLab({
    signal,
    hosts: options.hosts,
    program: daemonProgram(options.binary),
    ...scene.lab(options),
  });
  if (scene.remark) say(scene.remark);
  let passed = false;
  try {
    passed = await runShow(lab, options, { signal, timeoutMs: limitMs });
  } catch (error) {
    if (!options.keep || interrupt.aborted) throw error;
    sayFailure(error);
  }
  if (options.keep) await keepUp(lab, interrupt);
  return passed;
}

/** All that is to be seen, in a lab that is up; returns whether every ping passed. */
async function runShow(
  lab: Lab,
  options: Options,
  limit: { signal: AbortSignal; timeoutMs: number },
): Promise<boolean> {
  const { signal } = limit;
  const { backend, binary } = options;
  const scene = SCENES[backend];
  const config = scene.config(options);
  say(`Writing /coreos.com/network/config: ${JSON.stringify(config)}`);
  await lab.writeConfig(config, { signal });

  say(`Starting flanneld on each host${binary ? ` (${binary})` : ""}`);
  await startDaemons(lab, limit);
  await lab.ensurePods(1, { signal });
  say("Started a pod on each host, behind a bridge with subnet.env's subnet and MTU");
  await printCluster(lab, signal);
  await scene.printWays(lab, signal);

  let passed = await showPings(lab, signal);
  passed = await scene.heal(lab, options, signal) && passed;
  await scene.finish?.(lab);
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(0);
  say(
    passed
      ? style({ text: `Every ping passed, after ${seconds} s`, style: "good" }, { colour })
      : style({ text: "Not every ping passed", style: "bad" }, { colour }),
  );
  return passed;
}

async function startDaemons(
  lab: Lab,
  options: { signal: AbortSignal; timeoutMs: number },
): Promise<void> {
  const { signal } = options;
  await Promise.all(lab.hosts.map(async (host) => {
    const daemon = await host.startDaemon();
    const done = new AbortController();
    const reporting = reportStatus(host, daemon, AbortSignal.any([signal, done.signal]));
    try {
      const milliseconds = await daemon.ready(options);
      const { subnet } = await host.readSubnetEnv();
      say(`${host.label}: ready after ${(milliseconds / 1000).toFixed(1)} s with ${subnet.prefix}`);
    } finally {
      done.abort();
      await reporting;
    }
  }));
}

/** Shows what a daemon tells the service manager while it starts. */
async function reportStatus(host: Host, daemon: Daemon, signal: AbortSignal): Promise<void> {
  let seen = 0;
  let shown = "";
  while (!signal.aborted) {
    const statuses = daemon.statuses();
    for (; seen < statuses.length; seen++) {
      // Each refused call has a number of its own, which says nothing to a spectator.
      const status = statuses[seen]!.replace(/ \[HTTP .*\]$/, "");
      if (status !== shown && !daemon.isReady()) say(`${host.label}: ${status}`);
      shown = status;
    }
    await delay(100, { signal }).catch(() => {/* done */});
  }
}

async function printCluster(lab: Lab, signal: AbortSignal): Promise<void> {
  printTable(
    "Hosts",
    ["host", ...(lab.isVpc ? ["instance", "vSwitch"] : []), "address", "subnet", "pod"],
    await Promise.all(lab.hosts.map(async (host) => [
      host.label,
      ...(lab.isVpc ? [host.identity.instanceId, host.identity.vSwitchId] : []),
      host.address,
      (await host.readSubnetEnv()).subnet.prefix.toString(),
      host.pods.map(({ address }) => address).join(" "),
    ])),
  );
  const leases = await lab.leases({ signal });
  printTable(
    "Leases in etcd",
    ["key", "value"],
    [...leases].map(([key, value]) => [`/coreos.com/network/subnets/${key}`, value]),
  );
}

async function printRouteEntries(lab: Lab): Promise<void> {
  const { routeEntries } = await lab.cloud.control.snapshot();
  printTable(
    "Route entries of the VPC",
    ["table", "destination", "next hop", "status", "name"],
    routeEntries.filter(({ type }) => type !== "System").map((entry) => [
      entry.routeTableId,
      entry.destination,
      entry.nextHops.map(({ type, id }) => `${type} ${id}`).join(", "),
      { text: entry.status, style: entry.status === "Available" ? "good" : "bad" },
      entry.name,
    ]),
  );
}

/** Pings between all pods and shows the matrix; returns whether all came back. */
async function showPings(lab: Lab, signal: AbortSignal): Promise<boolean> {
  say("Pinging from each pod to each other pod");
  const results = await lab.pingPods({ signal, seconds: 3 });
  printMatrix(lab, results);
  const losses = describeLosses(results);
  if (losses === "") return true;
  say(style({ text: `No answer: ${losses}`, style: "bad" }, { colour }));
  for (const host of lab.hosts) print(`${host.daemon.process.tail(8)}\n`);
  return false;
}

function printMatrix(lab: Lab, results: readonly PingResult[]): void {
  if (lab.hosts.length > MAX_MATRIX) {
    const good = results.filter(({ milliseconds }) => milliseconds !== undefined).length;
    say(`${good} of ${results.length} pings were answered`);
    return;
  }
  const cell = (from: Host, to: Host): Cell => {
    if (from === to) return { text: "·", style: "dim" };
    const result = results.find((each) => each.from === from.pods[0] && each.to === to.pods[0]);
    return result?.milliseconds === undefined
      ? { text: "LOST", style: "bad" }
      : { text: `${result.milliseconds.toFixed(2)} ms`, style: "good" };
  };
  printTable(
    "Pings between the hosts' pods, from row to column",
    ["", ...lab.hosts.map(({ label }) => label)],
    lab.hosts.map((from) => [from.label, ...lab.hosts.map((to) => cell(from, to))]),
  );
}

/** What flanneld has made in the kernel of the first host. */
async function printKernelObjects(lab: Lab, signal: AbortSignal): Promise<void> {
  const { namespace, label } = lab.hosts[0]!;
  const list = async (program: string, ...args: string[]) =>
    (await namespace.run(program, args, { signal })).split("\n").map((line) => line.trim());
  const rows = [
    ["route", await list("ip", "route", "show", "proto", String(ROUTE_PROTOCOL))],
    ["neighbour", await list("ip", "neighbor", "show", "nud", "permanent")],
    ["forwarding entry", await list("bridge", "fdb", "show")],
  ] as const;
  printTable(
    `What flanneld has made on ${label}`,
    ["kind", "as ip(8) and bridge(8) show it"],
    rows.flatMap(([kind, lines]) =>
      lines.filter((line) => kind === "route" ? line !== "" : / dev flannel\.1 /.test(line))
        .map((line) => [kind, line])
    ),
  );
}

/** Deletes the last host's device, and waits for it and all that was on it. */
async function healDevice(lab: Lab, link: string, signal: AbortSignal): Promise<boolean> {
  const host = lab.hosts.at(-1)!;
  return await healInKernel(lab, host, ["link", "del", link], signal);
}

/** Deletes the last host's route to the first, and waits for it. */
async function healKernelRoute(lab: Lab, signal: AbortSignal): Promise<boolean> {
  const host = lab.hosts.at(-1)!;
  const { prefix } = (await lab.hosts[0]!.readSubnetEnv()).subnet;
  return await healInKernel(lab, host, ["route", "del", prefix.toString()], signal);
}

/** Runs an `ip` command that breaks something, waits for all routes, and pings again. */
async function healInKernel(
  lab: Lab,
  host: Host,
  command: readonly string[],
  signal: AbortSignal,
): Promise<boolean> {
  const routes = () =>
    host.namespace.run("ip", ["route", "show", "proto", String(ROUTE_PROTOCOL)], { signal });
  const before = await routes();
  say(`Running "ip ${command.join(" ")}" on ${host.label}`);
  await host.namespace.run("ip", command, { signal });
  const brokenAt = performance.now();
  try {
    await eventually(async () => await routes() === before, {
      signal,
      title: `${host.label} to repair it`,
      timeoutMs: 30_000,
      intervalMs: 10,
    });
  } catch (error) {
    throw new Error(`${describeError(error)}\n${host.daemon.process.tail()}`, { cause: error });
  }
  const milliseconds = Math.round(performance.now() - brokenAt);
  say(`All of ${host.label}'s routes are there again after ${milliseconds} ms`);
  return await showPings(lab, signal);
}

/** Deletes a host's route as in the console, and waits for it to come back. */
async function healRouteEntry(lab: Lab, signal: AbortSignal): Promise<boolean> {
  const host = lab.hosts.at(-1)!;
  const [from, to] = [lab.hosts[0]!.pods[0]!, host.pods[0]!];
  const destination = (await host.readSubnetEnv()).subnet.prefix.toString();
  const isOurs = (entry: { destination: string; status: string }) =>
    entry.destination === destination && entry.status === "Available";
  const { routeEntries } = await lab.cloud.control.snapshot();
  const entry = routeEntries.find(isOurs);
  if (!entry) throw new Error(`Cannot find a route to ${destination} in the VPC`);

  say(`Deleting the route to ${destination} (${host.label}) in the console`);
  const deletedAt = performance.now();
  await lab.cloud.control.deleteRoute({ routeTableId: entry.routeTableId, destination });
  await lab.cloud.inForce({ signal });
  const lost = await ping(from, to.address, { signal }) === undefined;
  say(
    `${from.label} → ${to.label}: ${lost ? "no answer, as is to be expected" : "still answered"}`,
  );
  try {
    await eventually(
      async () => (await lab.cloud.control.snapshot()).routeEntries.some(isOurs),
      { signal, title: `${host.label} to put its route back`, timeoutMs: 60_000 },
    );
  } catch (error) {
    throw new Error(`${describeError(error)}\n${host.daemon.process.tail()}`, { cause: error });
  }
  const seconds = ((performance.now() - deletedAt) / 1000).toFixed(1);
  say(`The route to ${destination} is back after ${seconds} s, put there by ${host.label}`);
  await lab.cloud.inForce({ signal });
  return await showPings(lab, signal) && lost;
}

/** Whether the route table has too little room for all hosts; one place is the way out's. */
function isCrowded({ hosts, quota = Infinity }: Pick<Options, "hosts" | "quota">): boolean {
  return quota < hosts + 1;
}

/** Deletes somebody's route from the full table, and waits for a host to take its place. */
async function makeRoom(lab: Lab, signal: AbortSignal): Promise<boolean> {
  const routed = async () => {
    const { routeEntries } = await lab.cloud.control.snapshot();
    return lab.hosts.filter(({ identity }) =>
      routeEntries.some(({ nextHops, status }) =>
        nextHops[0]?.id === identity.instanceId && status === "Available"
      )
    );
  };
  const before = await routed();
  const others = lab.hosts.filter((host) => !before.includes(host)).map(({ label }) => label);
  say(`The table is full; ${others.join(", ")} are reached by VXLAN, both ways`);
  say("Deleting the VPC's way out, 0.0.0.0/0, in the console, which makes room for one host");
  const deletedAt = performance.now();
  await lab.cloud.control.deleteRoute({
    routeTableId: SYSTEM_TABLE_ID,
    destination: "0.0.0.0/0",
  });
  await eventually(async () => (await routed()).length === before.length + 1, {
    signal,
    title: "a host to take the place",
    timeoutMs: 60_000,
  });
  const promoted = (await routed()).find((host) => !before.includes(host))!;
  const seconds = ((performance.now() - deletedAt) / 1000).toFixed(1);
  say(`${promoted.label} has its route after ${seconds} s; nobody has lost his`);
  await lab.cloud.inForce({ signal });
  await printRouteEntries(lab);
  return await showPings(lab, signal);
}

async function printCalls(lab: Lab): Promise<void> {
  const requests = await lab.cloud.control.requests();
  const rows = [...Map.groupBy(
    requests.filter(({ service }) => service !== "metadata"),
    ({ action }) => action,
  )].map(([action, calls]) => {
    const refused = Map.groupBy(calls.filter(({ code }) => code !== "OK"), ({ code }) => code);
    const codes = [...refused].map(([code, { length }]) => `${length} × ${code}`).join(", ");
    return [action, String(calls.length), codes];
  });
  printTable("Calls of the cloud's API", ["action", "calls", "refused"], rows);
}

async function keepUp(lab: Lab, interrupt: AbortSignal): Promise<void> {
  const [first] = lab.hosts;
  const last = lab.hosts.at(-1)!;
  const from = first!.pods[0] ?? first!;
  const to = last.pods[0] ?? last;
  const etcd = lab.etcd.members[0]!;
  print(`
The cluster stays up until you press Ctrl-C here (or run: kill ${Deno.pid}). In another terminal:

  ip netns exec ${from.namespace.name} ping ${to.address}
  ip netns exec ${first!.namespace.name} bash
  ip netns exec ${lab.routerNamespace.name} ip route show table all
  ip netns exec ${etcd.namespace.name} etcdctl --endpoints ${etcd.endpoint} get --prefix /coreos.com
  tail -f ${first!.logFile}
  cat ${first!.subnetFile}

Everything of it is in namespaces called ${lab.name}-… and in ${lab.directory}.
`);
  await new Promise<void>((resolve) =>
    interrupt.addEventListener("abort", () => resolve(), { once: true })
  );
  say("Removing the cluster");
}

function parseOptions(args: readonly string[]): Options | undefined {
  let values;
  try {
    ({ values } = parseArgs({
      // A bare --binary means the place where `deno task compile` puts it.
      args: args.map((arg) => arg === "--binary" ? `--binary=${DEFAULT_BINARY}` : arg),
      options: {
        backend: { type: "string", default: "ali-vpc" },
        hosts: { type: "string", default: "3" },
        overflow: { type: "string", default: "none" },
        quota: { type: "string" },
        binary: { type: "string" },
        keep: { type: "boolean", default: false },
        help: { type: "boolean", short: "h", default: false },
      },
    }));
  } catch (cause) {
    throw new UsageError(describeError(cause));
  }
  if (values.help) return undefined;
  const hosts = Number(values.hosts);
  if (!Number.isInteger(hosts) || hosts < 2 || hosts > 50) {
    throw new UsageError(`Cannot use --hosts=${values.hosts}: it is not a number from 2 to 50`);
  }
  const { backend } = values;
  if (!isBackendName(backend)) {
    throw new UsageError(
      `Cannot use --backend=${backend}: the demo has ${Object.keys(SCENES).join(", ")}`,
    );
  }
  const { overflow } = values;
  if (overflow !== "none" && overflow !== "vxlan") {
    throw new UsageError(`Cannot use --overflow=${overflow}: it is neither vxlan nor none`);
  }
  const quota = values.quota === undefined ? undefined : Number(values.quota);
  if (quota !== undefined && !(Number.isInteger(quota) && quota >= 2)) {
    throw new UsageError(`Cannot use --quota=${values.quota}: it is not a number from 2 on`);
  }
  if (backend !== "ali-vpc" && (quota !== undefined || overflow !== "none")) {
    throw new UsageError(`Cannot use --quota or --overflow with ${backend}: it has no route table`);
  }
  if (overflow === "none" && isCrowded({ hosts, quota })) {
    throw new UsageError(
      `Cannot run ${hosts} hosts with --quota=${quota}: give --overflow=vxlan, too`,
    );
  }
  let { binary } = values;
  if (binary !== undefined) {
    try {
      binary = Deno.realPathSync(binary);
    } catch (cause) {
      throw new UsageError(
        `Cannot use --binary=${binary}: there is no such file; "deno task compile" makes it`,
        { cause },
      );
    }
  }
  return { backend, hosts, overflow, quota, binary, keep: values.keep };
}

/** Shows the whole text of an error, with the log lines it may carry. */
function sayFailure(error: unknown): void {
  const text = error instanceof Error ? error.message : String(error);
  const cause = error instanceof Error ? error.cause : undefined;
  const because = cause === undefined ? "" : `\nbecause: ${describeError(cause)}`;
  say(style({ text: `Failed: ${text}${because}`, style: "bad" }, { colour }));
}

function printTable(
  title: string,
  heading: readonly string[],
  rows: readonly (readonly (string | Cell)[])[],
): void {
  print(`\n${title}\n\n${formatTable(heading, rows, { colour })}\n\n`);
}

/** One line with the seconds since the start. */
function say(line: string): void {
  const seconds = ((performance.now() - startedAt) / 1000).toFixed(1).padStart(5);
  print(`${style({ text: `[${seconds}]`, style: "dim" }, { colour })} ${line}\n`);
}

function print(text: string): void {
  const bytes = new TextEncoder().encode(text);
  for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
}

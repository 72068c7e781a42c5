/**
 * Ten thousand vxlan peers: start, resync, drift and churn, the start beside iproute2's batches.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { type Daemon, type Host, type Lab, openLab } from "../lab/mod.ts";
import { LoggedProcess, startLogged } from "../support/logged_process.ts";
import { eventually } from "../support/eventually.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { cpuMilliseconds } from "../support/process_table.ts";
import { longestAnswer } from "./health.ts";
import { binaryProgram } from "./program.ts";
import { median, type Report } from "./report.ts";
import { writeLeases } from "./write_leases.ts";

const PEERS = 10_000;
const STARTS = 3;
const RESYNCS = 5;
const DRIFTS = 5;
const FLAPPING_PEERS = 1_000;
const FLAPS = 20;
const HEALTH_PORT = 8471;

/** No rounds of the firewall, whose CPU time is not the question here. */
const FLAGS = [
  ...["--iptables-forward-rules=false", "--iptables-resync=3600"],
  ...["--healthz-ip=127.0.0.1", `--healthz-port=${HEALTH_PORT}`],
];

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section(`${PEERS} vxlan peers`);
  const program = await binaryProgram(report);
  await using lab = await openLab({ signal, topology: "l2", hosts: 1, program });
  const [host] = lab.hosts;
  await lab.writeConfig({ Network: "10.0.0.0/8", Backend: { Type: "vxlan" } }, { signal });
  await writeLeases(lab, ["fill", PEERS, "vxlan"], signal);

  await measureStarts(report, host!, signal);
  const daemon = await host!.startDaemon({ flags: FLAGS });
  await daemon.ready({ signal });
  await delay(5_000, { signal });
  await measureResyncs(report, host!, daemon, signal);
  await measureDrift(report, host!, signal);
  await writeLeases(lab, ["empty", PEERS], signal);
  await eventually(async () => total(await countObjects(host!.namespace, signal)) === 0, {
    signal,
    title: "all peers to go",
  });
  await measureFlaps(report, lab, host!, daemon, signal);
}

/** Objects of peers in a namespace. */
interface Counts {
  readonly neighbors: number;
  readonly fdb: number;
  readonly routes: number;
}

async function countObjects(namespace: NetworkNamespace, signal: AbortSignal): Promise<Counts> {
  const count = async (program: string, ...args: string[]) =>
    (await namespace.run(program, args, { signal })).split("\n").length - 1;
  return {
    neighbors: await count("ip", "neighbor", "show", "dev", "flannel.1", "nud", "permanent"),
    fdb: (await namespace.run("bridge", ["fdb", "show", "dev", "flannel.1"], { signal }))
      .split("\n").filter((line) => / dst .* permanent/.test(line)).length,
    routes: await count("ip", "route", "show", "dev", "flannel.1", "via", "10.0.0.0/8"),
  };
}

function total({ neighbors, fdb, routes }: Counts): number {
  return neighbors + fdb + routes;
}

/** Start to all objects there, in turn with iproute2 making the same objects. */
async function measureStarts(report: Report, host: Host, signal: AbortSignal): Promise<void> {
  const ours: number[] = [];
  const theirs: number[] = [];
  const afterwards: number[] = [];
  for (let i = 0; i < STARTS; i++) {
    const daemon = await host.startDaemon({ flags: FLAGS });
    ours.push(await daemon.ready({ signal }));
    const counts = await countObjects(host.namespace, signal);
    if (Object.values(counts).some((count) => count !== PEERS)) {
      throw new Error(`Cannot compare: after the start there is ${JSON.stringify(counts)}`);
    }
    const batches = i === 0 ? await batchesOf(host.namespace, signal) : lastBatches!;
    lastBatches = batches;
    await delay(5_000, { signal });
    const before = cpuMilliseconds(daemon.process.pid);
    await delay(10_000, { signal });
    afterwards.push((cpuMilliseconds(daemon.process.pid) - before) / 10);
    await daemon.stop();
    await host.namespace.ip(["link del flannel.1"], { signal });
    theirs.push(await runBatches(batches, signal));
  }
  report.figure("ip -batch and bridge -batch for the same objects", theirs, "ms");
  report.figure("start of the process to all objects there", ours, "ms");
  report.figure("ratio", ours.map((each, i) => each / theirs[i]!), "", { atMost: 1.5 });
  report.figure("CPU use afterwards, 5 to 15 s after the start", afterwards, "ms/s", { atMost: 5 });
}

let lastBatches: Batches | undefined;

interface Batches {
  readonly ip: string;
  readonly bridge: string;
}

/** What iproute2 has to be told to make the objects that are there. */
async function batchesOf(namespace: NetworkNamespace, signal: AbortSignal): Promise<Batches> {
  const list = async (program: string, ...args: string[]) =>
    (await namespace.run(program, args, { signal })).trim().split("\n");
  const neighbors = await list("ip", "neighbor", "show", "dev", "flannel.1", "nud", "permanent");
  const routes = await list("ip", "route", "show", "dev", "flannel.1", "via", "10.0.0.0/8");
  const fdb = (await list("bridge", "fdb", "show", "dev", "flannel.1"))
    .filter((line) => / dst /.test(line));
  return {
    ip: [
      ...neighbors.map((line) =>
        `neighbor replace ${line.split(" ")[0]} lladdr ${/lladdr (\S+)/.exec(line)![1]} ` +
        "dev flannel.1 nud permanent\n"
      ),
      ...routes.map((line) =>
        `route replace ${line.split(" ")[0]} via ${/via (\S+)/.exec(line)![1]} ` +
        "dev flannel.1 onlink\n"
      ),
    ].join(""),
    bridge: fdb.map((line) =>
      `fdb replace ${line.split(" ")[0]} dev flannel.1 dst ${/dst (\S+)/.exec(line)![1]} ` +
      "self permanent\n"
    ).join(""),
  };
}

/** Makes the objects in a fresh namespace; milliseconds. */
async function runBatches(batches: Batches, signal: AbortSignal): Promise<number> {
  await using set = await openNamespaces({ signal });
  const [namespace] = await set.add(["batch"], { signal });
  await namespace!.ip([
    "link set lo up",
    "link add eth0 type veth peer name eth1",
    "address add 10.0.1.10/24 dev eth0",
    "link set eth1 up",
    "link set eth0 up",
    "link add flannel.1 type vxlan id 1 dev eth0 local 10.0.1.10 dstport 8472 nolearning",
    "link set flannel.1 up",
  ], { signal });
  const options = { signal, timeoutMs: 120_000 };
  const startedAt = performance.now();
  await namespace!.run("ip", ["-batch", "-"], { ...options, stdin: batches.ip });
  await namespace!.run("bridge", ["-batch", "-"], { ...options, stdin: batches.bridge });
  const milliseconds = performance.now() - startedAt;
  const counts = await countObjects(namespace!, signal);
  if (total(counts) !== 3 * PEERS) throw new Error(`Cannot compare: ${JSON.stringify(counts)}`);
  return milliseconds;
}

/** The kernel's events in a namespace, for as long as this is not disposed. */
async function watchEvents(host: Host, signal: AbortSignal): Promise<LoggedProcess> {
  const monitor = startLogged(
    host.namespace.command("stdbuf", ["-oL", "ip", "-ts", "monitor", "link", "neigh", "route"]),
    {
      title: "ip-monitor",
      logFile: `${host.directory}/ip-monitor.log`,
      env: { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
    },
  );
  await delay(300, { signal }); // it does not say when it listens
  return monitor;
}

/**
 * Rounds in which nothing is to be done: a foreign address on the external interface asks for one
 * of everything. Answers of the health server meanwhile tell how long the event loop was held up,
 * besides how long the machine let the process wait for a processor.
 */
async function measureResyncs(
  report: Report,
  host: Host,
  daemon: Daemon,
  signal: AbortSignal,
): Promise<void> {
  await using monitor = await watchEvents(host, signal);
  const costs: number[] = [];
  const latencies: number[] = [];
  const idle: number[] = [];
  for (let i = 0; i < RESYNCS; i++) {
    idle.push(await longestAnswer(host.namespace, HEALTH_PORT, 2_000, { signal }));
    const probing = longestAnswer(host.namespace, HEALTH_PORT, 2_000, { signal });
    await delay(1_000, { signal });
    await host.namespace.ip([`address add 203.0.113.${i}/32 dev eth0`], { signal });
    latencies.push(await probing);
    await delay(500, { signal });
    const before = cpuMilliseconds(daemon.process.pid);
    await host.namespace.ip([`address del 203.0.113.${i}/32 dev eth0`], { signal });
    await delay(2_000, { signal });
    costs.push(cpuMilliseconds(daemon.process.pid) - before);
  }
  // Entries for groups are the kernel's own.
  const writes = monitor.lines.filter((line) =>
    !line.includes("203.0.113.") && !/ dev eth0 | ff02::| 33:33:/.test(line)
  );
  report.figure("CPU time of a resync with nothing to do", costs, "ms", { atMost: 150 });
  report.figure("writes in all of them", [writes.length], "", { atMost: 0 });
  for (const line of writes.slice(0, 3)) report.note(line);
  report.figure("longest answer of the health server when idle", idle, "ms");
  report.figure("longest answer during a resync", latencies, "ms", {
    atMost: 20 + Math.round(median(idle)),
  });
}

/** Deletes single objects; the kernel's own events tell when they went and came back. */
async function measureDrift(report: Report, host: Host, signal: AbortSignal): Promise<void> {
  await using monitor = await watchEvents(host, signal);
  const times: number[] = [];
  for (let i = 0; i < DRIFTS; i++) {
    const number = 1000 + i;
    const base = `10.${1 + (number >> 8)}.${number & 255}.0`;
    await host.namespace.ip([`neighbor del ${base} dev flannel.1`], { signal });
    await delay(1_500, { signal });
    await host.namespace.ip([`route del ${base}/24`], { signal });
    await delay(1_500, { signal });
    for (
      const [gone, back] of [[`Deleted ${base} `, `${base} `], [`Deleted ${base}/24`, `${base}/24`]]
    ) {
      const at = (line: string) => Date.parse(`${/^\[([^\]]+)\]/.exec(line)![1]!.slice(0, 23)}Z`);
      const text = (line: string) => line.replace(/^\[[^\]]+\] /, "");
      const goneAt = monitor.lines.findIndex((line) => text(line).startsWith(gone!));
      const backAt = monitor.lines.findIndex((line, index) =>
        index > goneAt && text(line).startsWith(back!)
      );
      if (goneAt < 0 || backAt < 0) throw new Error(`Cannot see ${base} go and come back`);
      times.push(at(monitor.lines[backAt]!) - at(monitor.lines[goneAt]!));
    }
  }
  report.figure("an object deleted until it is back", times, "ms", { atMost: 200 });
}

/** Peers that come and go at once, again and again. */
async function measureFlaps(
  report: Report,
  lab: Lab,
  host: Host,
  daemon: Daemon,
  signal: AbortSignal,
): Promise<void> {
  await using monitor = await watchEvents(host, signal);
  const periods: number[] = [];
  const sizes: number[] = [];
  const writes: number[] = [];
  for (let i = 0; i < FLAPS; i++) {
    const before = monitor.lines.length;
    periods.push(Number(await writeLeases(lab, ["flap", FLAPPING_PEERS, "vxlan"], signal)));
    await eventually(async () => total(await countObjects(host.namespace, signal)) === 0, {
      signal,
      title: "the peers to be gone",
    });
    await delay(500, { signal });
    if (total(await countObjects(host.namespace, signal)) !== 0) {
      throw new Error("Cannot go on: peers that are gone came back");
    }
    const made = monitor.lines.slice(before).filter((line) =>
      /dev flannel\.1/.test(line) && !/Deleted|FAILED/.test(line)
    );
    writes.push(made.length / (3 * FLAPPING_PEERS));
    sizes.push(daemon.process.residentBytes() / 1e6);
  }
  report.figure(`${FLAPPING_PEERS} peers joining and leaving in etcd`, periods, "ms");
  report.figure("writes of an object meanwhile, least is 0", writes, "", { atMost: 2 });
  report.figure(
    "VmRSS growth from the first five to the last five rounds",
    [median(sizes.slice(-5)) - median(sizes.slice(0, 5))],
    "MB",
    { atMost: 10 },
  );
}

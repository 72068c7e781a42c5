/**
 * The `udp` backend's packet path beside an in-kernel vxlan and beside a loop of one packet per
 * call, all between the same two namespaces in turn. With BENCH_QUICK=1: fewer and shorter rounds;
 * BENCH_SOAK_SECONDS: how long the memory is watched at the end.
 *
 * @module
 */
import { createForwardingMemory, ForwardingReader } from "../../src/dataplane/forwarding_reader.ts";
import { ForwardingTable } from "../../src/dataplane/forwarding_table.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { delay } from "../../src/util/time.ts";
import { PacketMemory } from "../../src/dataplane/packet.ts";
import { sumBytes } from "../../src/dataplane/checksum.ts";
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { denoEnvironment } from "../lab/program.ts";
import type { TunnelProcessSetup } from "../dataplane/tunnel_process.ts";
import { median, type Report } from "./report.ts";
import { reportUdpDaemon } from "./udp_daemon.ts";
import { measureWakeUps } from "./wake_up.ts";

const QUICK = Deno.env.get("BENCH_QUICK") === "1";
const ROUNDS = QUICK ? 3 : 5;
const SECONDS = QUICK ? 2 : 5;
/** Of one try at a rate of datagrams. */
const DATAGRAM_SECONDS = QUICK ? 1 : 2;
/** How long the resident memory is watched; BENCH_SOAK_SECONDS says otherwise. */
const SOAK_SECONDS = Number(Deno.env.get("BENCH_SOAK_SECONDS") ?? (QUICK ? 20 : 600));

const PORT = 8285;
/** Clock ticks of /proc/stat per second (USER_HZ). */
const TICKS = 100;

type PathName = "vxlan" | "udp" | "plain loop";

/** A way between the namespaces, and the far address on it. */
interface Path {
  readonly name: PathName;
  readonly address: string;
}

const PATHS: readonly Path[] = [
  { name: "vxlan", address: "10.99.0.2" },
  { name: "udp", address: "10.24.2.0" },
  { name: "plain loop", address: "10.25.2.0" },
];

/** What a round of one path gave. */
interface Round {
  oneStream: number;
  eightStreams: number;
  cpuPerGbit: number;
  packets1000: number;
  packets64: number;
  idleP50: number;
  idleP99: number;
  loadedP99: number;
}

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section(`udp: ${ROUNDS} rounds of each path in turn, ${SECONDS} s each`);
  reportChecksums(report);
  await reportLookups(report, signal);
  report.figure("waking a sleeping thread, and back", await measureWakeUps(300, { signal }), "ms");
  await using set = await openNamespaces({ signal });
  const [a, b] = await set.add(["a", "b"], { signal }) as [NetworkNamespace, NetworkNamespace];
  await connect(a, b, signal);
  await using stack = new AsyncDisposableStack();
  for (const [namespace, own, other] of [[a, 1, 2], [b, 2, 1]] as const) {
    stack.use(await startTunnel(namespace, set.directory, own, other, signal));
    stack.use(await startPlainLoop(namespace, set.directory, own, other, signal));
  }

  const rounds: Record<PathName, Round[]> = { "vxlan": [], "udp": [], "plain loop": [] };
  for (let i = 0; i < ROUNDS; i++) {
    for (const path of PATHS) rounds[path.name].push(await measure(a, b, path, signal));
    report.note(`round ${i + 1}: ${PATHS.map(({ name }) => `${name} ${gbit(rounds[name][i]!)}`)}`);
  }

  const values = (name: PathName, key: keyof Round) => rounds[name].map((round) => round[key]);
  for (
    const [title, key, unit] of [
      ["one TCP stream", "oneStream", "Gbit/s"],
      ["8 TCP streams", "eightStreams", "Gbit/s"],
      ["CPU per Gbit/s of one stream", "cpuPerGbit", "% of a processor"],
      ["UDP of 1,000 bytes at ≤ 1 % loss", "packets1000", "packets/s"],
      ["UDP of 64 bytes at ≤ 1 % loss", "packets64", "packets/s"],
      ["ping, idle, p50", "idleP50", "ms"],
      ["ping, idle, p99", "idleP99", "ms"],
      ["ping beside a TCP stream, p99", "loadedP99", "ms"],
    ] as const
  ) {
    for (const { name } of PATHS) report.figure(`${title}: ${name}`, values(name, key), unit);
  }
  const ratio = (key: keyof Round, to: PathName) =>
    median(values("udp", key)) / median(values(to, key));
  report.figure("one TCP stream, × vxlan", [ratio("oneStream", "vxlan")], "", { atLeast: 0.6 });
  report.figure("8 TCP streams, × vxlan", [ratio("eightStreams", "vxlan")], "", { atLeast: 0.6 });
  report.figure("UDP of 1,000 bytes, × vxlan", [ratio("packets1000", "vxlan")], "", {
    atLeast: 0.5,
  });
  report.figure("UDP of 64 bytes, × vxlan", [ratio("packets64", "vxlan")], "", { atLeast: 0.5 });
  report.figure("idle ping p50, × vxlan", [ratio("idleP50", "vxlan")], "", { atMost: 2 });
  report.figure("idle ping p99, × vxlan", [ratio("idleP99", "vxlan")], "", { atMost: 2 });
  report.figure("ping p99 beside a TCP stream", values("udp", "loadedP99"), "ms", { atMost: 5 });
  report.figure("CPU per Gbit/s, plain loop × udp", [1 / ratio("cpuPerGbit", "plain loop")], "", {
    atLeast: 5,
  });
  await reportUdpDaemon(report, {
    signal,
    rounds: ROUNDS,
    seconds: SECONDS,
    soakSeconds: SOAK_SECONDS,
  });
}

/** What WebAssembly gains for checksums, beside the same sum in JavaScript. */
function reportChecksums(report: Report): void {
  const memory = new PacketMemory(65_536);
  crypto.getRandomValues(memory.bytes);
  const gigabytesPerSecond = (sum: (offset: number, length: number) => number) => {
    const count = 200_000;
    const startedAt = performance.now();
    for (let i = 0; i < count; i++) sum((i & 31) * 4, 1420);
    return count * 1420 / (performance.now() - startedAt) / 1e6;
  };
  const sample = (sum: (offset: number, length: number) => number) =>
    Array.from({ length: ROUNDS + 1 }, () => gigabytesPerSecond(sum)).slice(1);
  report.figure("checksum in JavaScript", sample((at, n) => sumBytes(memory.bytes, at, n)), "GB/s");
  report.figure("checksum in WebAssembly", sample(memory.sum), "GB/s");
}

/** What finding a peer costs among few and among many. */
async function reportLookups(report: Report, signal: AbortSignal): Promise<void> {
  const base = Address.parse("10.0.0.0");
  for (const peers of [10, 10_000]) {
    const memory = createForwardingMemory();
    await new ForwardingTable(memory).replace(
      Array.from({ length: peers }, (_, i) => ({
        prefix: new Prefix(base.add(BigInt(i) << 8n), 24),
        address: base.add(BigInt(i)),
        port: PORT,
      })),
      { signal },
    );
    const reader = new ForwardingReader(memory);
    reader.begin();
    const sample = () => {
      const count = 2_000_000;
      let found = 0;
      const startedAt = performance.now();
      for (let i = 0; i < count; i++) {
        if (reader.lookup4(0x0a000001 + (Math.imul(i, 7919) % peers << 8)) >= 0) found++;
      }
      const nanoseconds = (performance.now() - startedAt) * 1e6 / count;
      if (found < count / 2) throw new Error(`Cannot measure lookups: ${found} of ${count} found`);
      return nanoseconds;
    };
    sample();
    report.figure(`lookup among ${peers} peers`, Array.from({ length: ROUNDS }, sample), "ns");
  }
}

/** A veth between the namespaces, and vxlan over it. */
async function connect(
  a: NetworkNamespace,
  b: NetworkNamespace,
  signal: AbortSignal,
): Promise<void> {
  await a.ip([`link add v0 type veth peer name v0 netns ${b.name}`], { signal });
  for (const [namespace, own, other] of [[a, 1, 2], [b, 2, 1]] as const) {
    await namespace.ip([
      "link set lo up",
      `address add 192.0.2.${own}/24 dev v0`,
      "link set v0 up",
      `link add vx0 type vxlan id 1 local 192.0.2.${own} remote 192.0.2.${other} dstport 8472 dev v0`,
      `address add 10.99.0.${own}/24 dev vx0`,
      "link set vx0 up",
    ], { signal });
  }
}

async function startTunnel(
  namespace: NetworkNamespace,
  directory: string,
  own: number,
  other: number,
  signal: AbortSignal,
): Promise<LoggedProcess> {
  const setup: TunnelProcessSetup = {
    link: "flannel0",
    mtuBytes: 1472,
    local: `192.0.2.${own}`,
    port: PORT,
    base: `10.24.${own}.0`,
    peers: [{ prefix: `10.24.${other}.0/24`, address: `192.0.2.${other}`, port: PORT }],
  };
  const script = new URL("../dataplane/tunnel_process.ts", import.meta.url).pathname;
  return await startCarrier(namespace, directory, script, [JSON.stringify(setup)], {
    link: "flannel0",
    base: `10.24.${own}.0`,
    network: "10.24.0.0/16",
    signal,
  });
}

async function startPlainLoop(
  namespace: NetworkNamespace,
  directory: string,
  own: number,
  other: number,
  signal: AbortSignal,
): Promise<LoggedProcess> {
  const script = new URL("./udp_plain_loop.ts", import.meta.url).pathname;
  const args = ["plain0", `192.0.2.${own}`, `192.0.2.${other}`, String(PORT + 1)];
  return await startCarrier(namespace, directory, script, args, {
    link: "plain0",
    base: `10.25.${own}.0`,
    network: "10.25.0.0/16",
    signal,
  });
}

async function startCarrier(
  namespace: NetworkNamespace,
  directory: string,
  script: string,
  args: readonly string[],
  { link, base, network, signal }: {
    readonly link: string;
    readonly base: string;
    readonly network: string;
    readonly signal: AbortSignal;
  },
): Promise<LoggedProcess> {
  const command = namespace.command(Deno.execPath(), [
    ...["run", "-A", "--cached-only", script],
    ...args,
  ]);
  const process = startLogged(command, {
    title: link,
    logFile: `${directory}/${namespace.name}-${link}.log`,
    env: denoEnvironment(),
    holdStdin: true,
  });
  try {
    await process.waitForLine(/ready/, { signal });
    await namespace.ip([
      `link set ${link} mtu 1472 up`,
      `address add ${base}/32 dev ${link}`,
      `route add ${network} dev ${link}`,
    ], { signal });
    return process;
  } catch (error) {
    await process[Symbol.asyncDispose]();
    throw error;
  }
}

async function measure(
  a: NetworkNamespace,
  b: NetworkNamespace,
  { address }: Path,
  signal: AbortSignal,
): Promise<Round> {
  const idle = await pings(a, address, 500, signal);
  const before = busyTicks();
  const one = await stream(a, b, address, ["-P", "1"], signal);
  const cpuSeconds = (busyTicks() - before) / TICKS;
  const eight = await stream(a, b, address, ["-P", "8"], signal);
  const loading = stream(a, b, address, ["-P", "1"], signal);
  await delay(500, { signal });
  const loaded = await pings(a, address, 100 * (SECONDS - 1), signal, 0.01);
  await loading;
  return {
    oneStream: one.bitsPerSecond / 1e9,
    eightStreams: eight.bitsPerSecond / 1e9,
    cpuPerGbit: 100 * cpuSeconds / (one.bitsPerSecond / 1e9 * SECONDS),
    packets1000: await packetsPerSecond(a, b, address, 1_000, signal),
    packets64: await packetsPerSecond(a, b, address, 64, signal),
    idleP50: quantile(idle, 0.5),
    idleP99: quantile(idle, 0.99),
    loadedP99: quantile(loaded, 0.99),
  };
}

interface StreamResult {
  readonly bitsPerSecond: number;
  /** Of datagrams: delivered per second, and the share lost. */
  readonly packetsPerSecond: number;
  readonly lostShare: number;
}

async function stream(
  a: NetworkNamespace,
  b: NetworkNamespace,
  address: string,
  args: readonly string[],
  signal: AbortSignal,
  seconds = SECONDS,
): Promise<StreamResult> {
  const timeoutMs = 60_000;
  const stop = new AbortController();
  const server = b.run("iperf3", ["-s", "-1", "-B", address], {
    signal: AbortSignal.any([signal, stop.signal]),
    timeoutMs,
  });
  server.catch(() => {});
  try {
    while (!(await b.run("ss", ["-Hltn", "sport = :5201"], { signal })).includes("5201")) {
      await delay(20, { signal });
    }
    const client = ["-c", address, "-t", String(seconds), "-J", ...args];
    const { end } = JSON.parse(await a.run("iperf3", client, { signal, timeoutMs }));
    const sum = end.sum_received ?? end.sum;
    const lost = (end.sum?.lost_packets ?? 0) / (end.sum?.packets || 1);
    return {
      bitsPerSecond: sum.bits_per_second,
      packetsPerSecond: (end.sum?.packets ?? 0) * (1 - lost) / seconds,
      lostShare: lost,
    };
  } finally {
    stop.abort(new DOMException("The stream is over", "AbortError"));
    await server.catch(() => {});
  }
}

/**
 * The most datagrams of `bytes` that arrive while no more than 1 % are lost, to within 15 %. What is
 * sent at full speed mostly overflows a queue, so rates are tried downwards from what arrived then.
 * A single disturbance of the machine costs more than 1 % of a try: each rate has three.
 */
async function packetsPerSecond(
  a: NetworkNamespace,
  b: NetworkNamespace,
  address: string,
  bytes: number,
  signal: AbortSignal,
): Promise<number> {
  const seconds = DATAGRAM_SECONDS;
  const send = (rate: number) =>
    stream(
      a,
      b,
      address,
      [
        ...["-u", "-l", String(bytes), "-b", String(Math.round(rate * bytes * 8)), "-w", "4M"],
      ],
      signal,
      seconds,
    );
  const flat = await send(0);
  if (flat.lostShare <= 0.01) return flat.packetsPerSecond;
  for (let rate = flat.packetsPerSecond * 1.15; rate > 1_000; rate *= 0.85) {
    for (let attempt = 0; attempt < 3; attempt++) {
      const result = await send(rate);
      if (result.lostShare <= 0.01) return result.packetsPerSecond;
      // Far beyond what the path carries, and no accident.
      if (result.lostShare > 0.1) break;
    }
  }
  return 0;
}

async function pings(
  a: NetworkNamespace,
  address: string,
  count: number,
  signal: AbortSignal,
  interval = 0.005,
): Promise<number[]> {
  const args = ["-n", "-i", String(interval), "-c", String(count), "-W", "2", address];
  const { stdout } = await a.try("ping", args, { signal, timeoutMs: 60_000 });
  return [...stdout.matchAll(/time[=<]([\d.]+) ms/g)].map(([, time]) => Number(time));
}

function quantile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? NaN;
}

/** Time that the whole machine has worked: the kernel's part of any path counts too. */
function busyTicks(): number {
  const [, user, nice, system, , , irq, softirq] = Deno.readTextFileSync("/proc/stat")
    .split("\n")[0]!.split(/\s+/).map(Number);
  return user! + nice! + system! + irq! + softirq!;
}

function gbit({ oneStream }: Round): string {
  return oneStream.toFixed(2);
}

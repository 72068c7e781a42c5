/**
 * What one changed lease costs beside many vxlan peers: CPU time and memory of the daemon, beside
 * upstream's where `FLANNEL_UPSTREAM` names its binary.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { ETCD_PREFIX } from "../lab/lab.ts";
import { type DaemonProgram, type Host, type Lab, openLab } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { type LoggedProcess, startLogged } from "../support/logged_process.ts";
import { cpuMilliseconds } from "../support/process_table.ts";
import { binaryProgram } from "./program.ts";
import { median, type Report } from "./report.ts";
import { writeLeases } from "./write_leases.ts";

const MANY_PEERS = 10_000;
/** Changes of one measurement, and how many measurements. */
const CHANGES = 30;
const RUNS = 5;
/** Apart far enough that each makes a round of its own. */
const PERIOD_MS = 400;
/** Changes after which memory is looked at again. */
const LATER_CHANGES = 1_000;
const LATER_PERIOD_MS = 40;
/** What the start needed is given back some seconds after it. */
const SETTLED_MS = 10_000;
const FLAGS = ["--iptables-forward-rules=false"];

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  const program = await binaryProgram(report);
  const upstream = Deno.env.get("FLANNEL_UPSTREAM");
  const few: number[] = [];
  for (const peers of [100, 500, MANY_PEERS]) {
    report.section(`One changed lease beside ${peers} vxlan peers`);
    if (upstream) {
      await using lab = await openFilledLab(program, peers, signal);
      await using process = startUpstream(lab, upstream);
      await measure(report, lab, process, "upstream: ", peers, signal);
    }
    await using lab = await openFilledLab(program, peers, signal);
    const daemon = await lab.hosts[0]!.startDaemon({ flags: FLAGS });
    await daemon.ready({ signal });
    const costs = await measure(report, lab, daemon.process, "", peers, signal);
    if (peers === 100) few.push(...costs);
    if (peers !== MANY_PEERS) continue;
    const name = `a change beside ${peers} peers, times that beside 100`;
    report.figure(name, [median(costs) / median(few)], "", { atMost: 1.5 });
  }
}

/** A host, and the leases of `peers` others. */
export async function openFilledLab(
  program: DaemonProgram,
  peers: number,
  signal: AbortSignal,
): Promise<Lab> {
  const lab = await openLab({ signal, topology: "l2", hosts: 1, program });
  await lab.writeConfig({ Network: "10.0.0.0/8", Backend: { Type: "vxlan" } }, { signal });
  await writeLeases(lab, ["fill", peers, "vxlan"], signal);
  return lab;
}

function startUpstream(lab: Lab, program: string): LoggedProcess {
  const [host] = lab.hosts;
  const args = [
    `--etcd-endpoints=${lab.etcd.members[0]!.endpoint}`,
    `--etcd-prefix=${ETCD_PREFIX}`,
    ...["--iface=eth0", "--ip-masq=false", "--iptables-forward-rules=false"],
    `--subnet-file=${host!.directory}/upstream.env`,
  ];
  return startLogged(host!.namespace.command(program, args), {
    title: "upstream",
    logFile: `${host!.directory}/upstream.log`,
    env: { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
  });
}

/** Prints the figures of the daemon `process`; returns the CPU times of a change. */
async function measure(
  report: Report,
  lab: Lab,
  process: LoggedProcess,
  whose: string,
  peers: number,
  signal: AbortSignal,
): Promise<number[]> {
  const isOurs = whose === "";
  const host = lab.hosts[0]!;
  await untilPeers(host, peers, signal);
  await delay(SETTLED_MS, { signal });
  const before = process.residentBytes() / 1e6;
  const idle = await cpuOf(process, () => delay(CHANGES * PERIOD_MS, { signal }));
  const costs: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    // Not what comes anyway.
    const args = ["grow", CHANGES, "vxlan", peers + i * CHANGES, PERIOD_MS] as const;
    const spent = await cpuOf(process, () => writeLeases(lab, args, signal));
    costs.push(Math.max(0, spent - idle) / CHANGES);
  }
  await untilPeers(host, peers + RUNS * CHANGES, signal);
  report.figure(`${whose}CPU time of a new lease`, costs, "ms", isOurs ? { atMost: 4 } : undefined);
  if (peers === 500) {
    const seconds = 20;
    const args = ["churn", 5 * seconds, "vxlan", 1_000, 200] as const;
    const spent = await cpuOf(process, () => writeLeases(lab, args, signal));
    const goal = isOurs ? { atMost: 2 } : undefined;
    report.figure(`${whose}5 changes a second`, [spent / seconds / 10], "% of a core", goal);
  }
  if (peers !== MANY_PEERS) return costs;
  const args = ["churn", LATER_CHANGES, "vxlan", 2 * peers, LATER_PERIOD_MS] as const;
  const spent = await cpuOf(process, () => writeLeases(lab, args, signal));
  await delay(2_000, { signal });
  const after = process.residentBytes() / 1e6;
  const name = `${whose}VmRSS beside ${peers} peers`;
  report.figure(name, [before], "MB", isOurs ? { atMost: 90 } : undefined);
  report.figure(
    `${whose}VmRSS after ${LATER_CHANGES} changes`,
    [after],
    "MB",
    isOurs ? { atMost: Math.round(before * 1.1) } : undefined,
  );
  report.figure(
    `${whose}CPU time of a change, each ${LATER_PERIOD_MS} ms`,
    [spent / LATER_CHANGES],
    "ms",
  );
  return costs;
}

/** Milliseconds of CPU time that `process` takes while `act` runs. */
async function cpuOf(process: LoggedProcess, act: () => Promise<unknown>): Promise<number> {
  const before = cpuMilliseconds(process.pid);
  await act();
  return cpuMilliseconds(process.pid) - before;
}

/** Waits until the host has the routes of `peers` peers. */
async function untilPeers(host: Host, peers: number, signal: AbortSignal): Promise<void> {
  const args = ["route", "show", "dev", "flannel.1", "via", "10.0.0.0/8"];
  await eventually(async () => {
    const routes = await host.namespace.run("ip", args, { signal });
    return routes.split("\n").length - 1 === peers;
  }, { signal, title: `the routes of ${peers} peers`, timeoutMs: 120_000 });
}

import { iperf, openLab } from "../lab/mod.ts";
import { HEALTH_FLAGS, HEALTH_PORT } from "../dataplane/data_plane.ts";
import { longestAnswer } from "./health.ts";
import { binaryProgram } from "./program.ts";
import { median, type Report } from "./report.ts";

/** Options of {@linkcode reportUdpDaemon}. */
export interface UdpDaemonOptions {
  readonly signal: AbortSignal;
  readonly rounds: number;
  /** Of each stream. */
  readonly seconds: number;
  /** How long the resident memory is watched. */
  readonly soakSeconds: number;
}

/** How soon the compiled daemon answers, and how large it is, while it carries all it can. */
export async function reportUdpDaemon(
  report: Report,
  { signal, rounds, seconds, soakSeconds }: UdpDaemonOptions,
): Promise<void> {
  const program = await binaryProgram(report);
  await using lab = await openLab({ signal, topology: "l2", hosts: 2, program });
  await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "udp" } }, { signal });
  for (const host of lab.hosts) {
    await (await host.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
  }
  await lab.ensurePods(1, { signal });
  const [from, to] = lab.hosts.map((host) => host.pods[0]!);

  const idle: number[] = [];
  const loaded: number[] = [];
  const milliseconds = 1_000 * (seconds - 1);
  for (let i = 0; i < rounds; i++) {
    for (const { namespace } of lab.hosts) {
      idle.push(await longestAnswer(namespace, HEALTH_PORT, milliseconds, { signal }));
      const loading = iperf(from!, to!, { signal, seconds });
      loaded.push(await longestAnswer(namespace, HEALTH_PORT, milliseconds, { signal }));
      await loading;
    }
  }
  report.figure("longest answer of the daemon's health server when idle", idle, "ms");
  report.figure("longest answer beside a TCP stream", loaded, "ms", { atMost: 20 });

  const samples: number[][] = lab.hosts.map(() => []);
  for (let i = 0; i < soakSeconds / seconds; i++) {
    await iperf(from!, to!, { signal, seconds });
    lab.hosts.forEach(({ daemon }, n) => samples[n]!.push(daemon.process.residentBytes() / 1e6));
  }
  for (const [n, values] of samples.entries()) {
    report.figure(`VmRSS under load, ${n === 0 ? "sender" : "receiver"}`, values, "MB", {
      atMost: 140,
    });
    const half = values.length >> 1;
    const growth = median(values.slice(half)) - median(values.slice(0, Math.max(half, 1)));
    report.figure(`  its growth over ${soakSeconds} s`, [growth], "MB", { atMost: 5 });
  }
}

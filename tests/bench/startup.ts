/**
 * Start-up and idle size of the compiled daemon.
 *
 * @module
 */
import { GUIDE_CONFIG, openLab } from "../lab/mod.ts";
import type { Report } from "./report.ts";
import { binaryProgram } from "./program.ts";

const RUNS = 10;

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section("Start-up and size");
  const program = await binaryProgram(report);
  {
    await using lab = await openLab({ signal, hosts: 1, cloud: false, program });
    await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "alloc" } }, { signal });
    const [host] = lab.hosts;
    const times: number[] = [];
    const sizes: number[] = [];
    for (let i = 0; i < RUNS; i++) {
      const daemon = await host!.startDaemon();
      times.push(await daemon.ready({ signal }));
      sizes.push(daemon.process.residentBytes() / 1e6);
      await daemon.stop();
    }
    report.figure("start to READY=1, alloc, etcd up", times, "ms", { atMost: 300 });
    report.figure("VmRSS at READY=1, alloc", sizes, "MB");
  }
  {
    await using lab = await openLab({ signal, hosts: 3, program });
    await lab.writeConfig(GUIDE_CONFIG, { signal });
    await Promise.all(lab.hosts.map(async (host) => {
      await (await host.startDaemon()).ready({ signal });
    }));
    await new Promise((resolve) => setTimeout(resolve, 20_000));
    const sizes = lab.hosts.map((host) => host.daemon.process.residentBytes() / 1e6);
    report.figure("idle VmRSS, ali-vpc, 20 s after READY=1", sizes, "MB", { atMost: 100 });
  }
}

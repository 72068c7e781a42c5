/**
 * Ten thousand leases: time to know them all, memory, and the way of one change.
 *
 * @module
 */
import { openLab } from "../lab/mod.ts";
import { binaryProgram } from "./program.ts";
import type { Report } from "./report.ts";
import { writeLeases } from "./write_leases.ts";

const LEASES = 10_000;
const RUNS = 5;
const CHANGES = 40;

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section(`${LEASES} leases`);
  const program = await binaryProgram(report);
  await using lab = await openLab({ signal, hosts: 1, cloud: false, program });
  await lab.writeConfig({ Network: "10.0.0.0/8", Backend: { Type: "alloc" } }, { signal });
  const [host] = lab.hosts;

  const alone: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const daemon = await host!.startDaemon();
    await daemon.ready({ signal });
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    alone.push(daemon.process.residentBytes() / 1e6);
    await daemon.stop();
  }
  await writeLeases(lab, ["fill", LEASES], signal);
  const known: number[] = [];
  const sizes: number[] = [];
  const ways: number[] = [];
  for (let i = 0; i < RUNS; i++) {
    const startedAt = Date.now();
    const daemon = await host!.startDaemon({ flags: ["-v=1"] });
    const line = await daemon.process.waitForLine(/Leases of the network are known leases=\d{5}/, {
      signal,
    });
    known.push(timeOf(line) - startedAt);
    await daemon.ready({ signal });
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    sizes.push(daemon.process.residentBytes() / 1e6 - alone[i]!);
    if (i === 0) {
      const before = daemon.process.lines.length;
      const sent = (await writeLeases(lab, ["touch", CHANGES], signal)).split("\n").map(Number);
      await new Promise((resolve) => setTimeout(resolve, 500));
      const seen = daemon.process.lines.slice(before).filter((each) => /Leases changed/.test(each));
      if (seen.length !== CHANGES) report.note(`${seen.length} of ${CHANGES} changes were seen`);
      ways.push(...seen.map((each, n) => timeOf(each) - sent[n]!));
    }
    await daemon.stop();
  }
  report.figure("start to all peers known", known, "ms", { atMost: 2_000 });
  report.figure("VmRSS growth over no leases", sizes, "MB", { atMost: 40 });
  report.figure("a lease's write to the new desired state", ways, "ms", { atMost: 20 });
}

/** The time that a log line begins with, in milliseconds since the epoch. */
function timeOf(line: string): number {
  return Date.parse(line.slice(0, line.indexOf(" ")));
}

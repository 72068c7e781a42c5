/**
 * How long the event loop is busy without a pause beside many vxlan peers: whatever concerns them
 * all is to be done in slices. Measured within the daemon, so from its sources.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import { openFilledLab } from "./change.ts";
import type { Report } from "./report.ts";
import { writeLeases } from "./write_leases.ts";

const PEERS = 10_000;

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section(`The event loop busy without a pause, beside ${PEERS} vxlan peers`);
  const main = new URL("loop_blocks.ts", import.meta.url).pathname;
  await using lab = await openFilledLab({ kind: "source", main }, PEERS, signal);
  const host = lab.hosts[0]!;
  const daemon = await host.startDaemon({ flags: ["--iptables-forward-rules=false"] });
  const { process } = daemon;
  await process.waitForLine(/lease: Lease taken/, { signal });
  let from = process.lines.length;
  const figure = (when: string) => {
    const lines = process.lines.slice(from);
    from += lines.length;
    const busy = lines.map((line) => Number(/loop busy for (.+) ms/.exec(line)?.[1] ?? 0));
    report.figure(`longest ${when}`, [Math.max(...busy, 0)], "ms", { atMost: 10 });
  };
  const after = async (...commands: string[]) => {
    await host.namespace.ip(commands, { signal });
    await delay(3_000, { signal });
  };
  await daemon.ready({ signal });
  figure("while all is planned and written");
  await delay(10_000, { signal });
  figure("in the seconds after that");
  for (let i = 0; i < 3; i++) {
    await after(`address add 203.0.113.${i}/32 dev eth0`);
    await after(`address del 203.0.113.${i}/32 dev eth0`);
  }
  figure("while all is checked and planned anew");
  await writeLeases(lab, ["churn", 60, "vxlan", PEERS, 400], signal);
  figure("while leases change one by one");
}

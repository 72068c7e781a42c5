/**
 * TCP between pods with the kernel backends, side by side with the same set up by hand.
 *
 * @module
 */
import { iperf, type Lab, openLab, UpstreamVxlanNode } from "../lab/mod.ts";
import { binaryProgram } from "./program.ts";
import { median, type Report } from "./report.ts";

const ROUNDS = 24;
const SECONDS = 1;
const NETWORK = "10.24.0.0/16";

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section("Throughput between pods, one TCP stream");
  const program = await binaryProgram(report);
  for (const type of ["host-gw", "vxlan"] as const) {
    await using ours = await openLab({ signal, topology: "l2", hosts: 2, program });
    await ours.writeConfig({ Network: NETWORK, Backend: { Type: type } }, { signal });
    await Promise.all(ours.hosts.map(async (host) => {
      // By hand there are no traffic rules either: what is compared is the way of the packets.
      const daemon = await host.startDaemon({ flags: ["--iptables-forward-rules=false"] });
      await daemon.ready({ signal });
      await host.ensurePods(1, { signal });
    }));
    await using byHand = await openLab({ signal, topology: "l2", hosts: 2 });
    await (type === "vxlan" ? joinByHand : routeByHand)(byHand, signal);

    const figures: { ours: number[]; byHand: number[] } = { ours: [], byHand: [] };
    for (let i = 0; i < ROUNDS; i++) {
      // In turn, and the first one in turn, since the machine gets warm and others use it.
      const order = [["ours", ours], ["byHand", byHand]] as const;
      for (const [name, lab] of i % 2 === 0 ? order : order.toReversed()) {
        figures[name].push(await measure(lab, signal));
      }
    }
    report.figure(`${type} by flanneld`, figures.ours, "Gbit/s");
    report.figure(`${type} by hand`, figures.byHand, "Gbit/s");
    report.figure(
      `${type}: share of what is reached by hand`,
      [median(undisturbed(figures.ours)) / median(undisturbed(figures.byHand))],
      "",
      { atLeast: 0.97 },
    );
  }
}

/** The upper third: whatever else runs on the machine makes a stream slower, and none faster. */
function undisturbed(values: readonly number[]): number[] {
  return values.toSorted((a, b) => b - a).slice(0, Math.ceil(values.length / 3));
}

async function measure(lab: Lab, signal: AbortSignal): Promise<number> {
  const [from, to] = lab.hosts.map((host) => host.pods[0]!);
  return (await iperf(from!, to!, { signal, seconds: SECONDS })).bitsPerSecond / 1e9;
}

async function joinByHand(lab: Lab, signal: AbortSignal): Promise<void> {
  const nodes = lab.hosts.map((host, index) =>
    new UpstreamVxlanNode(lab, host, {
      version: "v0.28",
      subnets: [`10.24.${index + 1}.0/24`],
      networks: [NETWORK],
    })
  );
  for (const node of nodes) await node.join({ signal });
  for (const node of nodes) await node.followPeers({ signal });
}

async function routeByHand(lab: Lab, signal: AbortSignal): Promise<void> {
  for (const [index, host] of lab.hosts.entries()) {
    const peer = lab.hosts[1 - index]!;
    await Deno.writeTextFile(
      host.subnetFile,
      `FLANNEL_NETWORK=${NETWORK}\nFLANNEL_SUBNET=10.24.${index + 1}.1/24\n` +
        "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
    );
    await host.namespace.ip([`route add 10.24.${2 - index}.0/24 via ${peer.address}`], { signal });
    await host.ensurePods(1, { signal });
  }
}

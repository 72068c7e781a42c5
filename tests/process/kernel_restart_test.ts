import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { ETCD_PREFIX, type Host, labTest, startLossProbe } from "../lab/mod.ts";
import { startLogged } from "../support/logged_process.ts";
import { linesOf } from "./support.ts";
import {
  assertPodsPing,
  flannelLines,
  kernelState,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
  untilState,
} from "./kernel_support.ts";

/** Follows every change of links, addresses, neighbours, forwarding entries and routes. */
async function monitorKernel(host: Host, signal: AbortSignal) {
  const monitor = startLogged(
    host.namespace.command("stdbuf", [
      ...["-oL", "ip", "monitor", "link", "address", "neigh", "route"],
    ]),
    {
      title: `${host.label}-ip-monitor`,
      logFile: `${host.directory}/ip-monitor.log`,
      env: { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin" },
    },
  );
  await delay(300, { signal }); // it does not say when it listens
  return monitor;
}

const BACKENDS = [
  { Type: "vxlan" },
  { Type: "vxlan", DirectRouting: true },
  { Type: "host-gw" },
] as const;

labTest(
  "a stop and a start change nothing in the kernel and lose no packet",
  async ({ signal }) => {
    await using lab = await openKernelLab({ signal, hosts: 2, underlay: "dual", config: {} });
    for (const backend of BACKENDS) {
      const title = JSON.stringify(backend);
      await lab.writeConfig(networkConfig("dual", backend), { signal });
      const flags = ["--ip-masq"];
      await startCluster(lab, { signal, flags });
      await assertPodsPing(lab, { signal, title });
      const [host, peer] = lab.hosts;
      const [pod, peerPod] = [host!.pods[0]!, peerPodOf(peer!)];
      const before = await kernelState(host!, { signal });
      const leases = await lab.leases({ signal });
      await using monitor = await monitorKernel(host!, signal);
      const probes = [];
      await using stack = new AsyncDisposableStack();
      for (const [index, address] of peerPod.addresses.entries()) {
        const directory = `${lab.directory}/probe-${index}`;
        await Deno.mkdir(directory, { recursive: true });
        // Into the host on which the daemon restarts, and out of it.
        const [from, to] = index === 0 ? [pod, peerPod] : [peerPod, pod];
        probes.push(stack.use(
          await startLossProbe(from, to, {
            signal,
            directory,
            address: index === 0 ? address : to.addresses[index]!,
          }),
        ));
      }
      await delay(300, { signal });
      const status = await host!.daemon.stop();
      assert.equal(status.code, 0, host!.daemonLog());
      await delay(200, { signal });
      await startCluster(lab, { signal, hosts: [host!], flags });
      await delay(1_000, { signal });
      for (const probe of probes) {
        const { sent, lost, longestGapMs, unanswered } = await probe.stop({ signal });
        note(`${title}: ${lost} of ${sent} datagrams lost (${unanswered} unanswered)`);
        assert.ok(sent > 1_000, `${title}: only ${sent} were sent`);
        assert.equal(lost, 0, `${title}: for ${longestGapMs} ms`);
      }
      assert.deepEqual(await kernelState(host!, { signal }), before, title);
      assert.deepEqual(await lab.leases({ signal }), leases, `${title}: the lease stays as it is`);
      const changes = monitor.lines.filter((line) =>
        /flannel/.test(line) ||
        (/10\.24\.|fd00:24:/.test(line) && !/ dev (cni0|eth0) lladdr/.test(line))
      ).filter((line) => !/cni0|pod\d/.test(line));
      assert.deepEqual(changes, [], title);
      assert.deepEqual(
        linesOf(host!.daemon, /: (add|replace|remove) /),
        [],
        `${title}: nothing was written anew`,
      );
      await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    }
  },
);

function peerPodOf(host: Host) {
  return host.pods[0]!;
}

labTest(
  "what peers left behind that went while the daemon was dead goes at its start",
  async ({ signal }) => {
    await using lab = await openKernelLab({ signal, hosts: 3, underlay: "dual", config: {} });
    for (const backend of [{ Type: "vxlan" }, { Type: "host-gw" }]) {
      await lab.writeConfig(networkConfig("dual", backend), { signal });
      await startCluster(lab, { signal });
      await assertPodsPing(lab, { signal, title: backend.Type });
      const [host, , leaver] = lab.hosts;
      const gone = (await leaver!.readSubnetEnv()).families.map(({ subnet }) => subnet.prefix);
      const before = await kernelState(host!, { signal });
      const ofLeaver = (line: string) =>
        gone.some(({ address }) => line.includes(` ${address}`)) ||
        leaver!.addresses.some((address) => line.includes(` dst ${address} `));
      assert.equal(
        before.filter(ofLeaver).length,
        backend.Type === "vxlan" ? 6 : 2,
        before.join("\n"),
      );

      await host!.daemon.kill();
      assert.deepEqual(
        await kernelState(host!, { signal }),
        before,
        "a dead daemon changes nothing",
      );
      await leaver!.daemon.stop();
      const [key] = [...(await lab.leases({ signal })).keys()].filter((each) =>
        each.startsWith(gone[0]!.address.toString())
      );
      await lab.etcd.ctl(["del", `${ETCD_PREFIX}/subnets/${key}`], { signal });
      await startCluster(lab, { signal, hosts: [host!] });
      await untilState(host!, before.filter((line) => !ofLeaver(line)), {
        signal,
        title: `${backend.Type}: leftovers to be gone`,
      });
      assert.ok(flannelLines(await kernelState(host!, { signal })).length > 0);

      // It comes back, with the subnet it had: its pods are still there.
      await startCluster(lab, { signal, hosts: [leaver!] });
      await untilState(host!, before, { signal, title: `${backend.Type}: the peer is back` });
      await assertPodsPing(lab, { signal, title: `${backend.Type}, back again` });
      await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    }
  },
);

import assert from "node:assert/strict";
import { type Host, labTest, macOf } from "../lab/mod.ts";
import {
  assertPodsPing,
  kernelState,
  networkConfig,
  openKernelLab,
  startCluster,
} from "./kernel_support.ts";
import { startReady } from "./support.ts";

async function macs(host: Host, signal: AbortSignal): Promise<string[]> {
  return await Promise.all(
    ["flannel.1", "flannel-v6.1"].map((link) => macOf(host, link, { signal })),
  );
}

labTest(
  "a vxlan host keeps its MACs over restarts and a boot",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      underlay: "dual",
      config: networkConfig("dual", { Type: "vxlan" }),
    });
    await startCluster(lab, { signal });
    const [host] = lab.hosts;
    const before = await macs(host!, signal);
    const key =
      [...await lab.leases({ signal })].find(([, value]) => value.includes(before[0]!))![0];
    const restart = async (title: string, meanwhile: () => Promise<unknown>) => {
      await host!.daemon.stop();
      await meanwhile();
      await startReady(host!, { signal });
      assert.deepEqual(await macs(host!, signal), before, title);
      const value = (await lab.leases({ signal })).get(key)!;
      for (const mac of before) {
        assert.ok(
          value.includes(`"VtepMAC":"${mac}"`),
          `${title}: ${value}`,
        );
      }
      await assertPodsPing(lab, { signal, title });
    };
    const deleteLinks = () =>
      host!.namespace.ip(["link del flannel.1", "link del flannel-v6.1"], { signal });
    await restart("restarted", () => Promise.resolve());
    await restart("links deleted", deleteLinks);
    await restart("links and /run gone, as after a boot", async () => {
      await deleteLinks();
      await Deno.remove(host!.subnetFile);
    });
    await restart(
      "one link deleted",
      () => host!.namespace.ip(["link del flannel-v6.1"], { signal }),
    );
  },
);

labTest("two daemons on one host keep apart, whatever either does", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 1,
    config: networkConfig("v4", { Type: "vxlan" }),
  });
  const [host] = lab.hosts;
  await lab.etcd.ctl([
    "put",
    "/other/config",
    JSON.stringify({ Network: "10.99.0.0/16", Backend: { Type: "vxlan", VNI: 2 } }),
  ], { signal });
  const first = await startReady(host!, { signal });
  await first.stop();
  const alone = await kernelState(host!, { signal });
  const second = await startReady(host!, {
    signal,
    flags: ["--etcd-prefix=/other", `--subnet-file=${host!.directory}/other.env`],
  });
  const both = await kernelState(host!, { signal });
  assert.deepEqual(both.filter((line) => alone.includes(line)), alone, "the first's stay");
  assert.ok(both.some((line) => line.startsWith("link flannel.2 ")));
  await second.stop();

  // The first is given another backend: its link goes, the second's stays.
  await lab.writeConfig(networkConfig("v4", { Type: "alloc" }), { signal });
  await (await startReady(host!, { signal })).stop();
  const names = (await kernelState(host!, { signal }))
    .filter((line) => /^link flannel/.test(line)).map((line) => line.split(" ")[1]);
  assert.deepEqual(names, ["flannel.2"]);

  // Told to use the second's, it says whose it is, and does not touch it.
  await lab.writeConfig(networkConfig("v4", { Type: "vxlan", VNI: 2 }), { signal });
  const confused = await host!.startDaemon();
  await confused.process.waitForLine(/flannel\.2 .*belongs to another flanneld.*another VNI/, {
    signal,
  });
  assert.equal(confused.isReady(), false);
  await confused.stop();
});

labTest(
  "checksum offload is as the config says, also on a device made anew",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 1,
      config: networkConfig("v4", { Type: "vxlan", ChecksumOffload: "off" }),
    });
    const [host] = lab.hosts;
    await startReady(host!, { signal });
    const offload = async () => {
      const features = await host!.namespace.run("ethtool", ["-k", "flannel.1"], { signal })
        .catch(() => "");
      return /^tx-checksumming: (\w+)/m.exec(features)?.[1];
    };
    assert.equal(await offload(), "off");
    await host!.namespace.ip(["link del flannel.1"], { signal });
    const until = performance.now() + 10_000;
    while (await offload() !== "off" && performance.now() < until) {
      await new Promise((resolve) => setTimeout(resolve, 50));
    }
    assert.equal(await offload(), "off");
  },
  { needs: ["ethtool"] },
);

import assert from "node:assert/strict";
import { type Host, labTest } from "../lab/mod.ts";
import { kernelState, networkConfig, openKernelLab, startCluster } from "./kernel_support.ts";

/** Rules of every place that flanneld writes to. */
async function ruleLines(host: Host, options: { signal: AbortSignal }): Promise<string> {
  const dumps = await Promise.all([
    host.namespace.run("iptables-save", [], options),
    host.namespace.run("ip6tables-save", [], options),
    host.namespace.run("nft", ["list", "ruleset"], options),
  ]);
  return dumps.join("\n").split("\n").filter((line) => /flannel/i.test(line)).join("\n");
}

labTest("cleanup removes every trace, again and again, and what others have stays", async (
  { signal },
) => {
  await using lab = await openKernelLab({ signal, hosts: 2, underlay: "dual", config: {} });
  const [host] = lab.hosts;
  const clean = (...flags: string[]) => host!.cleanUp({ signal, flags });
  await host!.namespace.ip([
    "link add flannel.77 type vxlan id 77 dev eth0 dstport 4790",
    "link set flannel.77 up",
    "route add 10.24.255.0/24 via 10.0.1.253 dev eth0 proto static",
    "route add 172.30.0.0/16 dev flannel.77 proto 102",
  ], { signal });
  const before = await kernelState(host!, { signal });
  for (
    const [backend, rules] of [
      [{ Type: "vxlan" }, { EnableNFTables: false }],
      [{ Type: "vxlan", VNI: 42 }, { EnableNFTables: true }],
      [{ Type: "host-gw" }, { EnableNFTables: false }],
    ] as const
  ) {
    const title = JSON.stringify(backend);
    await lab.writeConfig(networkConfig("dual", backend, rules), { signal });
    await startCluster(lab, { signal, flags: ["--ip-masq", "--ip-blackhole-route"] });
    await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    await Promise.all(lab.hosts.map((each) => each.removePods({ signal })));
    assert.notDeepEqual(await kernelState(host!, { signal }), before, title);
    const leases = await lab.leases({ signal });

    const kept = await clean();
    assert.equal(kept.code, 0, kept.stderr);
    assert.match(
      kept.stderr.trimEnd().split("\n").at(-1)!,
      /Removed .*rule sets? and 1 subnet file; left the lease, which --release would end$/,
    );
    assert.deepEqual(await kernelState(host!, { signal }), before, title);
    assert.equal(await ruleLines(host!, { signal }), "", title);
    await assert.rejects(Deno.stat(host!.subnetFile), Deno.errors.NotFound);
    assert.deepEqual(await lab.leases({ signal }), leases, `${title}: the lease stays`);
  }
  for (const last of [/Removed 1 lease$/, /There was nothing to remove$/]) {
    const released = await clean("--release");
    assert.equal(released.code, 0, released.stderr);
    assert.match(released.stderr.trimEnd().split("\n").at(-1)!, last);
    const left = [...(await lab.leases({ signal })).values()];
    assert.equal(left.length, 1);
    assert.ok(!left[0]!.includes(`"${host!.address}"`));
  }
});

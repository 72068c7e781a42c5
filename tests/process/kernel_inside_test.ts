/**
 * Hosts whose own addresses lie inside the network, as in upstream's README, where only a part of
 * the network is for pods.
 *
 * @module
 */
import assert from "node:assert/strict";
import { ETCD_PREFIX, type Host, type Lab, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { assertPodsPing, note, openKernelLab, startCluster } from "./kernel_support.ts";
import { askHealth, askStatus, linesOf } from "./support.ts";

/** Upstream's example; the lab's hosts are in 10.0.0.0/16. */
const EXAMPLE = {
  Network: "10.0.0.0/8",
  SubnetLen: 20,
  SubnetMin: "10.10.0.0",
  SubnetMax: "10.99.0.0",
};

async function ping(
  from: Pick<Host, "namespace">,
  to: string,
  options: { signal: AbortSignal },
): Promise<void> {
  await from.namespace.run("ping", ["-c", "2", "-i", "0.2", "-W", "2", to], options);
}

/** Hosts reach each other and all pods, etcd included, and each host sees every peer. */
async function assertHostsServe(lab: Lab, title: string, { signal }: { signal: AbortSignal }) {
  for (const host of lab.hosts) {
    for (const other of lab.hosts) {
      if (other === host) continue;
      await ping(host, other.address, { signal });
      await ping(host, other.pods[0]!.addresses[0]!, { signal });
      // Not masqueraded, as with upstream: the other host sees the pod's own address.
      await ping(host.pods[0]!, other.address, { signal });
    }
    const { status } = await askStatus(host, { signal });
    assert.equal(status.peers, lab.hosts.length - 1, title);
    assert.equal(status.skippedPeers.count, 0, title);
  }
}

for (
  const [backend, topology] of [
    [{ Type: "vxlan" }, "routed"],
    [{ Type: "vxlan", DirectRouting: true }, "routed"],
    [{ Type: "host-gw" }, "l2"],
    [{ Type: "udp" }, "routed"],
  ] as const
) {
  const name = "DirectRouting" in backend ? `${backend.Type} with DirectRouting` : backend.Type;
  labTest(`pods of hosts inside the network reach each other with ${name}`, async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      topology,
      hosts: 3,
      config: { ...EXAMPLE, Backend: backend },
    });
    const startedAt = performance.now();
    await startCluster(lab, { signal, flags: ["--ip-masq"] });
    await assertPodsPing(lab, { signal, title: name });
    await assertHostsServe(lab, name, { signal });
    for (const { daemon } of lab.hosts) {
      const warnings = linesOf(daemon, /overlaps what this host needs/);
      assert.equal(warnings.length, 1, warnings.join("\n"));
      assert.match(warnings[0]!, /10\.0\.0\.0\/8 overlaps .*10\.0\.\d\.0\/24 of eth0/);
    }
    note(`${name}: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
  });
}

labTest(
  "a peer whose subnet covers a host is left out by name, and is back when it is gone",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      etcd: { members: 1 },
      config: { ...EXAMPLE, SubnetMin: "10.0.0.0", Backend: { Type: "vxlan" } },
    });
    const [one, two] = lab.hosts;
    await startCluster(lab, { signal });
    for (const { address } of lab.hosts) assert.match(address, /^10\.0\.1\./);
    // The first subnets cover hosts and etcd; those that may be drawn follow.
    for (const key of (await lab.leases({ signal })).keys()) {
      assert.doesNotMatch(
        key,
        /^10\.0\.0\./,
      );
    }
    await assertPodsPing(lab, { signal });

    const value = '{"PublicIP":"10.0.1.77","PublicIPv6":null,"BackendType":"vxlan",' +
      '"BackendData":{"VNI":1,"VtepMAC":"0a:00:00:00:00:77"}}';
    await lab.etcd.put(`${ETCD_PREFIX}/subnets/10.0.0.0-20`, value, { signal });
    await eventually(async () => {
      const { skippedPeers } = (await askStatus(one!, { signal })).status;
      return /covers its own public address|overlaps/.test(
        skippedPeers.reasons["10.0.0.0-20"] ?? "",
      );
    }, { signal, title: "the skipped peer" });
    await ping(one!, two!.address, { signal });
    const ready = await askHealth(one!, "/readyz", { signal });
    assert.equal(ready.status, 200);
    assert.match(ready.body, /1 of 2 peers is left out, such as 10\.0\.0\.0-20/);
    await assertPodsPing(lab, { signal, title: "beside it" });
    assert.equal(linesOf(one!.daemon, /Peer is left out/).length, 1);
  },
);

labTest(
  "what a host needs for itself is not leased, nor routed for a peer that has it",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      config: {
        Network: "10.24.0.0/16",
        SubnetMin: "10.24.4.0",
        SubnetMax: "10.24.7.0",
        Backend: { Type: "vxlan" },
      },
    });
    const [one, two] = lab.hosts;
    const bridge = (subnet: string) => [
      "link add docker0 type bridge",
      `address add ${subnet} dev docker0`,
      "link set docker0 up",
    ];
    // Three of the four subnets there are.
    await one!.namespace.ip([
      ...bridge("10.24.4.1/23"),
      "route add 10.24.7.64/26 via 10.0.1.253",
    ], { signal });
    await startCluster(lab, { signal, hosts: [one!] });
    assert.deepEqual([...(await lab.leases({ signal })).keys()], ["10.24.6.0-24"]);
    assert.match(
      linesOf(one!.daemon, /overlaps what this host needs/).join("\n"),
      /10\.24\.0\.0\/16 overlaps .*10\.24\.4\.0\/23 of docker0, the route to 10\.24\.7\.64\/26; a subnet that takes/,
    );
    await one!.namespace.ip(["link del docker0", "route del 10.24.7.64/26"], { signal });
    await startCluster(lab, { signal, hosts: [two!] });
    await assertPodsPing(lab, { signal });

    const { subnet: { prefix } } = await two!.readSubnetEnv();
    const route = () =>
      one!.namespace.run("ip", ["route", "show", String(prefix), "proto", "102"], { signal });
    const skipped = async () => (await askStatus(one!, { signal })).status.skippedPeers;
    for (let round = 0; round < 2; round++) {
      await one!.namespace.ip(bridge(`${prefix.address.add(129n)}/25`), { signal });
      await eventually(async () => await route() === "", {
        signal,
        title: "the peer's route to go",
      });
      assert.match(
        Object.values((await skipped()).reasons).join(),
        new RegExp(`its subnet ${prefix} overlaps .* of docker0`),
      );
      assert.equal((await askHealth(one!, "/readyz", { signal })).status, 503, "the only peer");
      await one!.namespace.ip(["link del docker0"], { signal });
      await eventually(async () => await route() !== "", { signal, title: "the route to be back" });
      assert.equal((await skipped()).count, 0);
      await assertPodsPing(lab, { signal });
    }
  },
);

labTest(
  "a subnet that is served stays, and is named, when the host comes to need some of it",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      config: { Network: "10.24.0.0/16", Backend: { Type: "vxlan" } },
    });
    await startCluster(lab, { signal });
    const [one] = lab.hosts;
    const { subnet: { prefix } } = await one!.readSubnetEnv();
    await one!.namespace.ip([`address add ${prefix.address.add(200n)}/32 dev eth0`], { signal });
    await one!.daemon.process.waitForLine(
      /This host's own subnet .* overlaps .* of eth0; it is kept/,
      {
        signal,
      },
    );
    await one!.daemon.stop();
    await startCluster(lab, { signal, hosts: [one!] });
    assert.deepEqual((await one!.readSubnetEnv()).subnet.prefix, prefix);
    await assertPodsPing(lab, { signal });
  },
);

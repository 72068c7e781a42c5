import assert from "node:assert/strict";
import { ETCD_PREFIX, type Host, type Lab, labTest, macOf, UpstreamVxlanNode } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { askHealth, askStatus, HEALTH_FLAGS, linesOf } from "./support.ts";
import {
  assertPodsPing,
  flannelLines,
  kernelState,
  NETWORK_V4,
  NETWORK_V6,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
  untilState,
} from "./kernel_support.ts";

async function putLease(lab: Lab, key: string, value: unknown, signal: AbortSignal): Promise<void> {
  const text = typeof value === "string" ? value : JSON.stringify(value);
  await lab.etcd.put(`${ETCD_PREFIX}/subnets/${key}`, text, { signal });
}

/** Waits until the status page of `host` names every key; returns the page's text. */
async function untilNamed(
  host: Host,
  keys: readonly string[],
  signal: AbortSignal,
): Promise<string> {
  let text = "";
  return await eventually(async () => {
    text = JSON.stringify(await askStatus(host, { signal }));
    return keys.every((key) => text.includes(key)) && text;
  }, { signal, title: "the status to name every bad peer", timeoutMs: 15_000 }).catch((cause) => {
    const missing = keys.filter((key) => !text.includes(key));
    throw new Error(`${missing} are not named in ${text}:\n${host.daemonLog()}`, { cause });
  });
}

labTest(
  "vxlan: leases that are junk or hostile are named and disturb nobody",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 3,
      underlay: "dual",
      // Keys of good leases begin with 10.24.1, so that they come before the bad ones.
      config: networkConfig("dual", { Type: "vxlan" }, {
        SubnetMin: "10.24.10.0",
        SubnetMax: "10.24.19.0",
      }),
    });
    const [host, peer, late] = lab.hosts;
    await startCluster(lab, { signal, hosts: [host!, peer!] });
    // Being ready does not include the peer.
    await assertPodsPing(lab, { signal, title: "before" });
    const expected = await kernelState(host!, { signal });
    const ownMac = await macOf(host!, "flannel.1", { signal });
    const peerMac = await macOf(peer!, "flannel.1", { signal });
    const peerSubnet = (await peer!.readSubnetEnv()).subnet.prefix;
    const attributes = (number: number, more: Record<string, unknown> = {}) => ({
      PublicIP: `10.0.1.${number}`,
      PublicIPv6: `fd00:10:0:1::${number}`,
      BackendType: "vxlan",
      BackendData: { VNI: 1, VtepMAC: `02:00:5e:00:01:${number}` },
      BackendV6Data: { VNI: 1, VtepMAC: `02:00:5e:00:02:${number}` },
      ...more,
    });
    const bad: Record<string, unknown> = {
      "10.24.201.0-24&fd00:24:0:201::-64": "no JSON",
      "10.24.202.0-24&fd00:24:0:202::-64": attributes(52, {
        BackendData: { VtepMAC: 5 },
        BackendV6Data: [],
      }),
      "10.24.203.0-24&fd00:24:0:203::-64": attributes(53, {
        BackendData: { VNI: 1, VtepMAC: "01:00:5e:00:00:01" },
        BackendV6Data: { VNI: 1, VtepMAC: "ff:ff:ff:ff:ff:ff" },
      }),
      "10.24.204.0-24&fd00:24:0:204::-64": attributes(54, { PublicIP: "224.0.0.1" }),
      "10.24.205.0-24&fd00:24:0:205::-64": attributes(55, { PublicIPv6: "::ffff:10.0.1.12" }),
      "10.24.206.0-24&fd00:24:0:206::-64": attributes(56, {
        PublicIP: "10.24.206.7",
        PublicIPv6: "fd00:24:0:206::7",
      }),
      "192.168.5.0-24&fd00:99:0:207::-64": attributes(57),
      "10.24.0.0-16&fd00:24::-48": attributes(58),
      [`${peerSubnet.address}-25&fd00:24:0:208::-64`]: attributes(59),
      "10.24.209.0-24&fd00:24:0:209::-64": attributes(60, {
        BackendData: { VNI: 1, VtepMAC: ownMac },
        BackendV6Data: { VNI: 1, VtepMAC: await macOf(host!, "flannel-v6.1", { signal }) },
      }),
      "10.24.210.0-24&fd00:24:0:210::-64": attributes(61, {
        PublicIP: host!.addresses[0],
        PublicIPv6: host!.addresses[1],
      }),
      "10.24.211.0-24&fd00:24:0:211::-64": attributes(62, { BackendType: "host-gw" }),
      "10.24.212.0-24&fd00:24:0:212::-64": attributes(63, {
        BackendData: "\u001b[31m" + "x".repeat(100_000),
        BackendV6Data: null,
      }),
      "10.24.213.0-24": attributes(64, { PublicIP: 7 }),
      "../../config": attributes(65),
      "10.24.214.300-24": attributes(66),
      "10.24.215.0-99": attributes(67),
    };
    for (const [key, value] of Object.entries(bad)) await putLease(lab, key, value, signal);
    const page = await untilNamed(host!, Object.keys(bad), signal);
    assert.ok(page.length < 50_000, "what they hold is not repeated");
    for (const reason of ["has no VtepMAC", "no host's", "host-gw", "overlaps", "not inside"]) {
      assert.ok(page.includes(reason), `${reason} is not in ${page}`);
    }
    await untilState(host!, expected, { signal, title: "nothing of it in the kernel" });
    await assertPodsPing(lab, { signal });

    // One of two peers with the same MAC works, always the same one, and the other is named.
    const twin = "10.24.254.0-24&fd00:24:0:254::-64";
    await putLease(
      lab,
      twin,
      attributes(70, { BackendData: { VNI: 1, VtepMAC: peerMac } }),
      signal,
    );
    await eventually(
      async () =>
        JSON.stringify(await askStatus(host!, { signal })).includes(`${peerMac} is also that of`),
      { signal, title: "the MAC that two have to be named" },
    );
    await assertPodsPing(lab, { signal, title: "with a MAC that two have" });

    // With our own MAC and a key before ours, it is we who take another one; the peers follow.
    await putLease(
      lab,
      "10.24.1.0-24&fd00:24:0:253::-64",
      attributes(71, { BackendData: { VNI: 1, VtepMAC: ownMac } }),
      signal,
    );
    await eventually(async () => await macOf(host!, "flannel.1", { signal }) !== ownMac, {
      signal,
      title: "another MAC",
    });
    await assertPodsPing(lab, { signal, title: "with another MAC" });

    // Who starts now sees them all at once. A lease of the whole network leaves no subnet, whoever
    // wrote it.
    await lab.etcd.ctl(["del", `${ETCD_PREFIX}/subnets/10.24.0.0-16&fd00:24::-48`], { signal });
    await startCluster(lab, { signal, hosts: [late!] });
    await assertPodsPing(lab, { signal, title: "a host that starts among bad leases" });
    const { daemon } = host!;
    note(`${linesOf(daemon, / WARN | warn/i).length} warnings`);
    assert.ok(linesOf(daemon, /./).every((line) => line.length < 2_000), "no flood in the log");
    // deno-lint-ignore no-control-regex -- that is what must not be there
    assert.deepEqual(linesOf(daemon, /\u001b/), [], "no terminal codes of others in the log");
  },
);

labTest("host-gw: a peer that is not on the link is named; the others work", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 3,
    topology: "routed",
    underlay: "dual",
    config: networkConfig("dual", { Type: "host-gw" }),
  });
  const [host, behind, near] = lab.hosts;
  await Promise.all(
    lab.hosts.map(async (each) => {
      const daemon = await each.startDaemon({ flags: HEALTH_FLAGS });
      // It reaches nobody, so it may serve its pods and does not count as ready.
      if (each !== behind) await daemon.ready({ signal });
      else {
        const written = () => Deno.stat(each.subnetFile).then(() => true, () => false);
        await eventually(written, { signal, title: "subnet.env" });
      }
      await each.ensurePods(1, { signal });
    }),
  );
  await eventually(async () => {
    const { status, body } = await askHealth(behind!, "/readyz", { signal });
    return status === 503 && /peers: all 2 other hosts are left out, such as .*gateway/.test(body);
  }, { signal, title: "the host that reaches nobody to say so" });
  const page = await untilNamed(host!, [behind!.addresses[0]!, behind!.addresses[1]!], signal);
  assert.match(page, /gateway 10\.0\.1\.253/);
  await eventually(
    () => linesOf(host!.daemon, new RegExp(behind!.address.replaceAll(".", "\\."))).length > 0,
    { signal, title: "a line about it in the log" },
  );
  const routes = flannelLines(await kernelState(host!, { signal }));
  assert.equal(routes.length, 2, routes.join("\n"));
  const results = await lab.pingPods({ signal, seconds: 5 });
  for (const { from, to, milliseconds } of results) {
    const pair = [from, to].map(({ label }) => label);
    const reachable = !pair.some((label) => label.startsWith(behind!.label));
    assert.equal(milliseconds !== undefined, reachable, pair.join(" → "));
  }
  assert.ok(near!.daemon.isReady());
  const ready = await askHealth(near!, "/readyz", { signal });
  assert.equal(ready.status, 200);
  assert.match(ready.body, /1 of 2 peers is left out, such as /);
});

labTest("vxlan: a host behind NAT sends from its own address", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 3,
    natHosts: ["host2", "host3"],
    config: networkConfig("v4", { Type: "vxlan" }),
  });
  await startCluster(lab, { signal });
  await assertPodsPing(lab, { signal });
  const [, hidden] = lab.hosts;
  const link = await hidden!.namespace.run("ip", ["-d", "link", "show", "flannel.1"], { signal });
  assert.match(link, / local 192\.168\.77\.10 /);
  const values = [...(await lab.leases({ signal })).values()];
  for (const { identity } of lab.hosts) {
    const published = (identity.outside ?? identity.port).address;
    assert.equal(values.filter((value) => value.includes(`"PublicIP":"${published}"`)).length, 1);
  }
});

labTest(
  "an upstream v0.28 node and ours reach each other both ways, in both families",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 4,
      underlay: "dual",
      config: networkConfig("dual", { Type: "vxlan" }),
    });
    const [first, second, early, late] = lab.hosts;
    const node = (host: Host, number: number) =>
      new UpstreamVxlanNode(lab, host, {
        version: "v0.28",
        subnets: [`10.24.${number}.0/24`, `fd00:24:0:${number}::/64`],
        networks: [NETWORK_V4, NETWORK_V6],
      });
    const [before, after] = [node(early!, 98), node(late!, 99)];
    await before.join({ signal });
    await startCluster(lab, { signal, hosts: [first!, second!] });
    await after.join({ signal });
    for (const each of [before, after]) await each.followPeers({ signal });
    await assertPodsPing(lab, { signal });
    const values = await lab.leases({ signal });
    for (const host of [first!, second!]) {
      const { families } = await host.readSubnetEnv();
      const [v4, v6] = families.map(({ subnet }) => subnet.prefix);
      const key = `${v4!.address}-24&${v6!.address}-64`;
      assert.equal(
        values.get(key),
        `{"PublicIP":"${host.addresses[0]}","PublicIPv6":"${host.addresses[1]}",` +
          `"BackendType":"vxlan","BackendData":{"VNI":1,"VtepMAC":"${await macOf(
            host,
            "flannel.1",
            { signal },
          )}"},"BackendV6Data":{"VNI":1,"VtepMAC":"${await macOf(
            host,
            "flannel-v6.1",
            { signal },
          )}"}}`,
      );
    }
    // Upstream makes its devices anew when they are deleted, with other MACs, and publishes those
    // when it is started again.
    await late!.namespace.ip(["link del flannel.1", "link del flannel-v6.1"], { signal });
    await after.join({ signal });
    for (const each of [before, after]) await each.followPeers({ signal });
    await assertPodsPing(lab, { signal, title: "with other MACs" });
    const state = await kernelState(first!, { signal });
    assert.equal(state.filter((line) => line.startsWith("fdb ")).length, 6, state.join("\n"));
  },
);

labTest(
  "an upstream v0.14 node on etcd's v2 store and ours reach each other",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 3,
      etcd: { v2: true },
      config: {},
    });
    await lab.writeConfig(networkConfig("v4", { Type: "vxlan" }), { signal, api: 2 });
    const [first, second, old] = lab.hosts;
    const node = new UpstreamVxlanNode(lab, old!, {
      version: "v0.14",
      subnets: ["10.24.98.0/24"],
      networks: [NETWORK_V4],
    });
    await node.join({ signal });
    await startCluster(lab, { signal, hosts: [first!, second!], flags: ["--etcd-api=v2"] });
    await node.followPeers({ signal });
    await assertPodsPing(lab, { signal });
  },
);

import assert from "node:assert/strict";
import { type Host, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { askStatus, startReady } from "./support.ts";
import {
  assertPodsPing,
  flannelLines,
  kernelState,
  networkConfig,
  openKernelLab,
  startCluster,
  untilState,
} from "./kernel_support.ts";

const MAC = "02:00:5e:00:00:01";

/** Puts things of other owners into every table that we write to. */
async function addForeignObjects({ namespace, identity, addresses }: Host, signal: AbortSignal) {
  const { gateway } = identity.port;
  const [v4, v6] = addresses;
  await namespace.ip([
    // Another's VXLAN device, of flannel's kind of name, with entries of its own.
    `link add flannel.7 type vxlan id 7 dev eth0 local ${v4} dstport 8472 nolearning`,
    "address add 10.99.0.0/32 dev flannel.7",
    "link set flannel.7 up",
    `neighbor add 10.99.1.0 lladdr ${MAC} dev flannel.7 nud permanent`,
    "route add 10.99.1.0/24 via 10.99.1.0 dev flannel.7 onlink",
    // And one of quite another name.
    `link add vx9 type vxlan id 9 dev eth0 local ${v6} dstport 4789 nolearning`,
    "link set vx9 up",
    // A tunnel device of another sort that is called like one of ours.
    "link add flannel-br0 type bridge",
    // Neighbours and routes on the external interface, inside the network and outside.
    `neighbor add 10.0.1.200 lladdr ${MAC} dev eth0 nud permanent`,
    `neighbor add fd00:10:0:1::200 lladdr ${MAC} dev eth0 nud permanent`,
    `route add 203.0.113.0/24 via ${gateway} dev eth0`,
    `route add 10.24.250.0/24 via ${gateway} dev eth0 proto static`,
    `route add 10.24.251.0/24 via ${gateway} dev eth0`,
    "route add blackhole 10.24.252.0/24 proto 186",
    `route add 2001:db8:1::/48 via ${identity.port.also!.gateway} dev eth0`,
    `route add fd00:24:0:fffe::/64 via ${identity.port.also!.gateway} dev eth0 proto static`,
    "rule add preference 100 to 10.24.0.0/16 lookup 200",
    `route add 10.24.9.0/24 via ${gateway} dev eth0 table 200`,
  ], { signal });
  await namespace.run("bridge", ["-batch", "-"], {
    signal,
    stdin: `fdb append 00:00:00:00:00:00 dev flannel.7 dst 10.0.1.77 self permanent\n` +
      `fdb append ${MAC} dev flannel.7 dst 10.0.1.78 self permanent\n` +
      `fdb append ${MAC} dev vx9 dst fd00:10:0:1::78 self permanent\n`,
  });
}

/** What {@linkcode kernelState} does not have: rules and other tables. */
async function policyState({ namespace }: Host, signal: AbortSignal): Promise<string> {
  return await namespace.run("ip", ["rule", "show"], { signal }) +
    await namespace.run("ip", ["route", "show", "table", "200"], { signal });
}

labTest(
  "objects of others in the same tables stay as they are, whatever we do",
  async ({ signal }) => {
    await using lab = await openKernelLab({ signal, hosts: 2, underlay: "dual", config: {} });
    const [host] = lab.hosts;
    await addForeignObjects(host!, signal);
    const foreign = await kernelState(host!, { signal });
    const policy = await policyState(host!, signal);
    const assertUntouched = async (title: string) => {
      const state = await kernelState(host!, { signal });
      assert.deepEqual(foreign.filter((line) => !state.includes(line)), [], title);
      assert.equal(await policyState(host!, signal), policy, title);
    };
    for (
      const backend of [
        { Type: "vxlan" },
        { Type: "vxlan", VNI: 2 },
        { Type: "host-gw" },
        { Type: "vxlan", DirectRouting: true },
      ]
    ) {
      const title = JSON.stringify(backend);
      await lab.writeConfig(networkConfig("dual", backend), { signal });
      await startCluster(lab, { signal });
      await assertPodsPing(lab, { signal, title });
      await assertUntouched(title);
      await host!.daemon.kill();
      await startCluster(lab, { signal, hosts: [host!] });
      await assertUntouched(`${title}, after a crash`);
      await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    }
  },
);

labTest(
  "another network, VNI or backend leaves nothing behind of the old one",
  async ({ signal }) => {
    await using lab = await openKernelLab({ signal, hosts: 2, underlay: "dual", config: {} });
    const [host] = lab.hosts;
    const blank = await kernelState(host!, { signal });
    const small = {
      ...networkConfig("dual", {}),
      Network: "10.24.0.0/20",
      IPv6Network: "fd00:24::/56",
    };
    const elsewhere = { ...small, Network: "10.77.0.0/16", IPv6Network: "fd00:77::/56" };
    const states = new Map<string, string[]>();
    const steps = [
      ["vxlan", { ...small, Backend: { Type: "vxlan" } }],
      ["vxlan 42", { ...small, Backend: { Type: "vxlan", VNI: 42 } }],
      ["host-gw", { ...small, Backend: { Type: "host-gw" } }],
      ["vxlan", { ...small, Backend: { Type: "vxlan" } }],
      ["vxlan elsewhere", { ...elsewhere, Backend: { Type: "vxlan" } }],
      ["alloc", { ...elsewhere, Backend: { Type: "alloc" } }],
      ["v4 alone", { Network: "10.77.0.0/16", Backend: { Type: "vxlan" } }],
      ["host-gw elsewhere", { ...elsewhere, Backend: { Type: "host-gw" } }],
    ] as const;
    for (const [title, config] of steps) {
      await lab.writeConfig(config, { signal });
      await Promise.all(lab.hosts.map((each) => startReady(each, { signal })));
      const { Type, VNI = 1 } = config.Backend as { Type: string; VNI?: number };
      const routes = title === "v4 alone" ? 1 : Type === "alloc" ? 0 : 2;
      const isOurs = (line: string) => / proto 102 /.test(line);
      // The peer's lease of the new config may come after its daemon's and ours are ready.
      const state = await eventually(async () => {
        const state = await kernelState(host!, { signal });
        return state.filter(isOurs).length === routes && state;
      }, { signal, title: `${title}: ${routes} routes` }).catch((cause) => {
        throw new Error(host!.daemonLog(), { cause });
      });
      const ours = state.filter((line) => !blank.includes(line));
      const names = Type === "vxlan" ? [`flannel.${VNI}`, `flannel-v6.${VNI}`] : [];
      assert.deepEqual(
        ours.filter((line) => line.startsWith("link ")).map((line) => line.split(" ")[1]),
        title === "v4 alone" ? ["flannel.1"] : names.toSorted(),
        title,
      );
      const other = config.Network.startsWith("10.24.") ? /10\.77\.|fd00:77:/ : /10\.24\.|fd00:24:/;
      assert.deepEqual(ours.filter((line) => other.test(line)), [], `${title}: of another network`);
      // A MAC lasts as long as the lease tells it.
      const anonymous = state.map((line) =>
        line.replaceAll(/(?:[0-9a-f]{2}:){5}[0-9a-f]{2}/g, "MAC")
      )
        .sort();
      const known = states.get(title);
      if (known) assert.deepEqual(anonymous, known, `${title} once more is what it was`);
      states.set(title, anonymous);
      await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    }
  },
);

labTest(
  "a link of our name that is another's is named, and taken over once it is removed",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 1,
      config: networkConfig("v4", { Type: "vxlan" }),
    });
    const [host] = lab.hosts;
    await host!.namespace.ip(["link add flannel.1 type bridge"], { signal });
    const daemon = await host!.startDaemon({
      flags: ["--healthz-ip=127.0.0.1", "--healthz-port=8471"],
    });
    await daemon.process.waitForLine(/flannel\.1/, { signal });
    const line = await daemon.process.waitForLine(
      /flannel\.1.*not ours.*ip link delete flannel\.1/,
      {
        signal,
      },
    );
    assert.match(line, /bridge/, "says what it is");
    assert.equal(daemon.isReady(), false);
    const { reasons } = await askStatus(host!, { signal });
    assert.match(JSON.stringify(reasons), /flannel\.1/);
    const found = await kernelState(host!, { signal });
    assert.ok(found.some((each) => /^link flannel\.1 .* bridge$/.test(each)), "it is left alone");
    await host!.namespace.ip(["link del flannel.1"], { signal });
    await daemon.ready({ signal });
    assert.match(
      flannelLines(await kernelState(host!, { signal })).join("\n"),
      /link flannel\.1 up .* vxlan/,
    );
  },
);

labTest(
  "objects of an upstream daemon on this host are taken over",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      config: networkConfig("v4", { Type: "vxlan" }),
    });
    await startCluster(lab, { signal });
    const [host, peer] = lab.hosts;
    const expected = await kernelState(host!, { signal });
    const { prefix } = (await peer!.readSubnetEnv()).subnet;
    await host!.daemon.stop();
    // Upstream's routes are of protocol boot, its device has no alias; one peer has left since.
    await host!.namespace.ip([
      'link set flannel.1 alias ""',
      `route replace ${prefix} via ${prefix.address} dev flannel.1 onlink proto boot`,
      "route add 10.24.222.0/24 via 10.24.222.0 dev flannel.1 onlink proto boot",
      `neighbor add 10.24.222.0 lladdr ${MAC} dev flannel.1 nud permanent`,
    ], { signal });
    await host!.namespace.run("bridge", [
      ...["fdb", "append", MAC, "dev", "flannel.1", "dst", "10.0.1.99", "self", "permanent"],
    ], { signal });
    await startCluster(lab, { signal, hosts: [host!] });
    await untilState(host!, expected, { signal, title: "the upstream daemon's objects" });
    await assertPodsPing(lab, { signal });
    await eventually(() => host!.daemon.isReady(), { signal, title: "ready" });
  },
);

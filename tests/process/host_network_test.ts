import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import type { Host } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import {
  askHealth,
  askStatus,
  HEALTH_FLAGS,
  labTestsAtOnce,
  linesOf,
  openAllocLab,
  startReady,
} from "./support.ts";

const atOnce = labTestsAtOnce("routes and subnet.env");

/** How soon drift has to be mended. */
const REPAIR_MS = patient(2_000);

async function routes(host: Host, options: { signal: AbortSignal }): Promise<string[]> {
  const text = await host.namespace.run("ip", ["-4", "route", "show"], options);
  return text.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

atOnce(
  "the blackhole route is kept, and stale routes of an earlier run go",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    const via = `via ${host.identity.port.gateway} dev eth0`;
    // 102 marks flanneld's routes. An earlier run served 10.77.0.0/16, its subnet.env says.
    await Deno.writeTextFile(
      host.subnetFile,
      "FLANNEL_NETWORK=10.77.0.0/16\nFLANNEL_SUBNET=10.77.5.1/24\nFLANNEL_MTU=1500\n" +
        "FLANNEL_IPMASQ=false\n",
    );
    const stale = [
      "blackhole 10.24.99.0/24 proto 102",
      `10.24.98.0/24 ${via} proto 102`,
      "blackhole 10.77.5.0/24 proto 102 metric 4294967295",
    ];
    const foreign = [
      `10.24.97.0/24 ${via} proto static`,
      "blackhole 10.24.96.0/24 proto boot",
      "blackhole 192.168.7.0/24 proto 102", // of a daemon with another network, perhaps
      `10.30.0.0/16 ${via} proto 102`,
    ];
    await host.namespace.ip([...stale, ...foreign].map((route) => `route add ${route}`), {
      signal,
    });
    const before = await routes(host, { signal });
    const daemon = await startReady(host, { signal, flags: ["--ip-blackhole-route"] });
    const { prefix } = (await host.readSubnetEnv()).subnet;
    assert.ok(prefix.toString().startsWith("10.24."));
    const own = `blackhole ${prefix} proto 102 metric 4294967295`;
    const kept = before.filter((line) =>
      !["10.24.99.", "10.24.98.", "10.77."].some((each) => line.includes(each))
    );
    assert.equal(kept.length, before.length - stale.length);
    const isRight = async () =>
      JSON.stringify((await routes(host, { signal })).sort()) ===
        JSON.stringify([...kept, own].sort());
    assert.ok(await isRight(), (await routes(host, { signal })).join("\n"));

    // A bridge of the pods comes first; the blackhole is the last resort behind it.
    await host.ensurePods(1, { signal });
    const found = await host.namespace.run(
      "ip",
      ["route", "get", prefix.address.add(2n).toString()],
      { signal },
    );
    assert.match(found, /dev cni0/);
    await host.removePods({ signal });

    const harms: string[] = [
      `route del ${own}`,
      `route add blackhole 10.24.95.0/24 proto 102`,
      `route replace prohibit ${prefix} proto 102 metric 4294967295`,
    ];
    for (const harm of harms) {
      const from = daemon.process.lines.length;
      await host.namespace.ip([harm], { signal });
      const harmedAt = performance.now();
      await daemon.process.waitForLine(/ kernel: (add|replace|remove) route/, { signal, from });
      await eventually(isRight, { signal, title: `repair of ${harm}`, intervalMs: 20 });
      const tookMs = performance.now() - harmedAt;
      assert.ok(tookMs < REPAIR_MS, `${harm}: ${Math.round(tookMs)} ms`);
    }
    const complaints = linesOf(daemon, / (WARN|ERROR) /);
    assert.equal(complaints.length, 1, daemon.process.tail());
    assert.match(
      complaints[0]!,
      /overlaps what this host needs .* the route to 10\.24\.96\.0\/24;/,
    );

    // Without the flag it is one of the stale ones.
    await daemon.stop();
    await startReady(host, { signal });
    assert.deepEqual((await routes(host, { signal })).sort(), kept.sort());
  },
);

atOnce(
  "somebody else's route in the place of the blackhole is named, and left alone",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    const former = "FLANNEL_SUBNET=10.24.77.1/24\n";
    await Deno.writeTextFile(host.subnetFile, former);
    const foreign = "blackhole 10.24.77.0/24 proto static metric 4294967295";
    await host.namespace.ip([`route add ${foreign}`], { signal });
    const daemon = await host.startDaemon({ flags: ["--ip-blackhole-route", ...HEALTH_FLAGS] });
    const line = await daemon.process.waitForLine(/stands in its place and is not ours/, {
      signal,
    });
    assert.match(line, /10\.24\.77\.0\/24 .*metric 4294967295/);
    assert.equal((await askHealth(host, "/readyz", { signal })).status, 503);
    assert.ok(!daemon.isReady());
    assert.equal(await Deno.readTextFile(host.subnetFile), former, "it would be a promise");
    await host.namespace.ip([`route del ${foreign}`], { signal });
    await daemon.ready({ signal });
    assert.ok((await routes(host, { signal })).includes(foreign.replace("static", "102")));
  },
);

atOnce(
  "subnet.env follows the external interface, and comes back when it is harmed",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    const { namespace, identity: { port } } = host;
    const daemon = await startReady(host, { signal });
    const leases = await lab.leases({ signal });
    const [key] = leases.keys();
    const text = await Deno.readTextFile(host.subnetFile);
    const becomes = (expected: string) =>
      eventually(async () => await Deno.readTextFile(host.subnetFile) === expected, {
        signal,
        timeoutMs: patient(10_000),
        title: `subnet.env to be ${JSON.stringify(expected)}`,
      });

    await namespace.ip(["link set eth0 mtu 1400"], { signal });
    await becomes(text.replace("MTU=1500", "MTU=1400"));
    await namespace.ip(["link set eth0 mtu 1500"], { signal });
    await becomes(text);

    await Deno.remove(host.subnetFile);
    await becomes(text);
    await Deno.writeTextFile(host.subnetFile, text.replace("MTU=1500", "MTU=9000"));
    await becomes(text);

    // Another address on the same interface: the lease says so, the subnet stays.
    const address = port.address.replace(/\d+$/, "77");
    await lab.router.namespace.ip([`route add ${address}/32 dev ${port.name}`], { signal });
    await namespace.sysctl({ "net/ipv4/conf/all/promote_secondaries": "1" }, { signal });
    const from = daemon.process.lines.length;
    await namespace.ip([
      `address add ${address}/${port.prefixLength} dev eth0`,
      `address del ${port.address}/${port.prefixLength} dev eth0`,
      `route replace default via ${port.gateway} dev eth0`,
    ], { signal });
    await daemon.process.waitForLine(/External interface eth0 has changed/, { signal, from });
    await eventually(
      async () =>
        (await lab.leases({ signal })).get(key!) === `{"PublicIP":"${address}","PublicIPv6":null}`,
      {
        signal,
        title: "the lease with the new address",
      },
    );
    assert.equal((await lab.leases({ signal })).size, 1);
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    assert.equal(daemon.process.ended, undefined);

    // By its new address the host finds its lease again.
    await daemon.stop();
    await Deno.remove(host.subnetFile);
    await startReady(host, { signal });
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
  },
);

atOnce("a link that fails and comes back changes nothing", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  const { namespace, identity: { port } } = host;
  const daemon = await startReady(host, {
    signal,
    flags: ["--ip-blackhole-route", ...HEALTH_FLAGS],
  });
  const text = await Deno.readTextFile(host.subnetFile);
  const leases = await lab.leases({ signal });
  await namespace.ip(["link set eth0 down"], { signal });
  await daemon.process.waitForLine(/Peers are not followed at present/, { signal });
  assert.equal(await Deno.readTextFile(host.subnetFile), text);
  await namespace.ip(["link set eth0 up", `route add default via ${port.gateway} dev eth0`], {
    signal,
  });
  await daemon.process.waitForLine(/Peers are followed again/, { signal });
  assert.equal((await askHealth(host, "/readyz", { signal })).status, 200);

  // Gone altogether and made anew, as a hot-plugged interface: another link of the same name.
  await namespace.ip([
    "link set eth0 down",
    "link set eth0 name gone",
    `address del ${port.address}/${port.prefixLength} dev gone`,
  ], { signal });
  await namespace.ip([
    `address add ${port.address}/${port.prefixLength} dev gone`,
    "link set gone name eth0",
    "link set eth0 up",
    `route add default via ${port.gateway} dev eth0`,
  ], { signal });
  await lab.etcd.put("/coreos.com/network/subnets/10.24.250.0-24", '{"PublicIP":"10.0.9.1"}', {
    signal,
  });
  await eventually(async () => (await askStatus(host, { signal })).status.peers === 1, {
    signal,
    title: "the new peer",
  });
  assert.equal(await Deno.readTextFile(host.subnetFile), text);
  assert.deepEqual(
    (await lab.leases({ signal })).get([...leases.keys()][0]!),
    [...leases.values()][0],
  );
  assert.equal(linesOf(daemon, / ERROR /).length, 0, daemon.process.tail());
});

atOnce("a virtual IP beside the host's own address is never published", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  const { namespace, identity: { port } } = host;
  const own = `${port.address}/${port.prefixLength}`;
  const [vip, second] = [98, 99].map((last) => port.address.replace(/\d+$/, `${last}`));
  const published = async () => [...(await lab.leases({ signal })).values()].join(" ");
  const isOwn = async () =>
    (await published()) === `{"PublicIP":"${port.address}","PublicIPv6":null}`;
  await lab.router.namespace.ip([`route add ${vip}/32 dev ${port.name}`], { signal });
  // As keepalived leaves it that is up before DHCP: the kernel calls the host's own secondary.
  await namespace.ip([
    `address del ${own} dev eth0`,
    `address add ${vip}/${port.prefixLength} dev eth0`,
    `address add ${own} dev eth0 valid_lft 3600 preferred_lft 3600`,
    `address add ${second}/32 dev eth0`,
    `route replace default via ${port.gateway} dev eth0`,
  ], { signal });
  assert.match(
    await namespace.run("ip", ["-4", "address", "show", "dev", "eth0"], { signal }),
    /secondary/,
  );
  for (
    const flags of [
      [],
      ["--iface=eth0"],
      ["--iface-regex=^10\\."],
      [`--iface-can-reach=${port.gateway}`],
    ]
  ) {
    const daemon = await startReady(host, { signal, flags });
    assert.ok(await isOwn(), `${flags}: ${await published()}`);
    // It fails over, and comes back.
    await namespace.ip([`address del ${second}/32 dev eth0`], { signal });
    await namespace.ip([`address add ${second}/32 dev eth0`], { signal });
    await daemon.stop();
    assert.deepEqual(linesOf(daemon, / (WARN|ERROR) |has changed/), []);
  }
  assert.ok(await isOwn(), await published());
  assert.equal((await lab.leases({ signal })).size, 1);
});

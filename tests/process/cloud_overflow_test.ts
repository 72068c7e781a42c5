import assert from "node:assert/strict";
import { describeLosses, type Host, iperf, type Lab, labTest } from "../lab/mod.ts";
import { type LossProbe, startLossProbe } from "../lab/loss_probe.ts";
import { NAT_GATEWAY_ID } from "../lab/cloud.ts";
import { SYSTEM_TABLE_ID } from "../lab/plan.ts";
import { eventually } from "../support/eventually.ts";
import { brisk, openCloudLab } from "./cloud_support.ts";

/** The lab's own route to the internet takes one place, so two hosts fit. */
const QUOTA = 3;

/** Somebody's entry that takes one more. */
const FILLER = "172.20.1.0/24";

/** Little, so that a small machine keeps up with the datagrams beside it. */
const STREAM = { bitsPerSecond: 10e6, seconds: 30 };

labTest("hosts for which the route table has no room are reached by VXLAN", async ({ signal }) => {
  await using lab = await openCloudLab({
    signal,
    hosts: 6,
    config: brisk({ Overflow: "vxlan" }),
    cloud: { behaviour: { quota: QUOTA, delays: { minMs: 100, maxMs: 400 } } },
  });
  await lab.cloud.control.addRoute(SYSTEM_TABLE_ID, {
    destination: FILLER,
    nextHops: [{ type: "NatGateway", id: NAT_GATEWAY_ID }],
  });
  await Promise.all(lab.hosts.map(async (host) => {
    await host.startDaemon();
    await host.daemon.ready({ signal });
  }));
  await lab.ensurePods(1, { signal });
  const routed = await hostsWithEntries(lab);
  const others = lab.hosts.filter((host) => !routed.includes(host));
  assert.equal(routed.length, 1, "the quota and no more");

  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");
  for (const host of lab.hosts) {
    const link = await host.namespace.run("ip", ["link", "show", "flannel.1"], { signal });
    assert.match(link, /mtu 1450/, `${host.label} has the device, which is needed`);
    assert.equal((await host.readSubnetEnv()).mtuBytes, 1500, "pods may use all of the VPC's MTU");
  }
  for (const [from, to] of [[routed[0]!, others[0]!], [others[1]!, others[2]!]] as const) {
    const { bitsPerSecond } = await iperf(from.pods[0]!, to.pods[0]!, { signal });
    assert(bitsPerSecond > 1e6, `${from.label} to ${to.label}: ${bitsPerSecond} bit/s`);
  }

  // Places get free, one after the other: hosts move to the table, and no packet is lost.
  const [a] = routed as [Host];
  const [b, c, d, e, f] = others as [Host, Host, Host, Host, Host];
  const pairs = [[a, b], [b, c], [c, d], [a, e], [e, f], [f, a]] as const;
  const probes = await startProbes(lab, pairs, signal);
  const streams = [[a, b], [c, d], [e, f]] as const;
  const streaming = Promise.all(streams.map(([from, to]) => {
    return iperf(from.pods[0]!, to.pods[0]!, { signal, ...STREAM });
  }));
  streaming.catch(() => {}); // met below
  const startedAt = performance.now();
  let placed = routed;
  for (const destination of ["0.0.0.0/0", FILLER]) {
    await lab.cloud.control.deleteRoute({ routeTableId: SYSTEM_TABLE_ID, destination });
    placed = await untilOneMoreIsRouted(lab, placed, signal);
  }
  assert.equal(placed.length, 3);
  assert(performance.now() - startedAt < STREAM.seconds * 1_000, "streams ran all the time");
  for (const [index, { bitsPerSecond }] of (await streaming).entries()) {
    // A connection that had to wait for a path would fall behind its rate.
    const [from, to] = streams[index]!;
    assert(
      bitsPerSecond > STREAM.bitsPerSecond * 0.9,
      `${from.label} to ${to.label}: ${bitsPerSecond} bit/s`,
    );
  }
  for (const { probe, name } of probes) {
    const report = await probe.stop({ signal });
    assert.equal(report.lost, 0, `${name}: ${JSON.stringify(report)}`);
  }
  assert.equal(describeLosses(await lab.pingPods({ signal, seconds: 3 })), "");
  // Nobody's place was taken on the way: each write has made something that was wanted.
  const writes = (await lab.cloud.control.requests())
    .filter(({ action, code }) => /^(Delete|Modify)RouteEntr/.test(action) && code === "OK");
  assert.deepEqual(writes, []);
}, { timeoutMs: 240_000 });

labTest("without overflow a host that has no room says so, and has it once there is", async ({
  signal,
}) => {
  await using lab = await openCloudLab({
    signal,
    hosts: 3,
    config: brisk(),
    cloud: { behaviour: { quota: QUOTA, delays: { minMs: 50, maxMs: 100 } } },
  });
  for (const host of lab.hosts.slice(0, 2)) {
    await host.startDaemon();
    await host.daemon.ready({ signal });
  }
  const late = lab.hosts[2]!;
  await late.startDaemon();
  await late.daemon.process.waitForLine(/./, { signal });
  await eventually(() => {
    const status = late.daemon.statuses().at(-1) ?? "";
    assert.match(
      status,
      /there is no route to this host: route table vtb-bp1lab is full \(3 of 3\); raise the quota vpc_quota_route_entrys_num or set Backend\.Overflow to "vxlan"/,
    );
    return true;
  }, { signal, title: "the late host to say why it is not ready", timeoutMs: 60_000 });
  assert(!late.daemon.isReady());
  assert.equal((await hostsWithEntries(lab)).length, 2);
  await lab.cloud.control.deleteRoute({
    routeTableId: SYSTEM_TABLE_ID,
    destination: "0.0.0.0/0",
  });
  await late.daemon.ready({ signal });
  assert.equal((await hostsWithEntries(lab)).length, 3);
}, { needs: ["iperf3"] });

/** Waits until one host more than `before` has its place, and all hosts tunnel to the others only. */
async function untilOneMoreIsRouted(
  lab: Lab,
  before: readonly Host[],
  signal: AbortSignal,
): Promise<Host[]> {
  return await eventually(async () => {
    const hosts = await hostsWithEntries(lab);
    assert.equal(hosts.length, before.length + 1);
    for (const host of before) assert(hosts.includes(host), `${host.label} keeps its place`);
    const [promoted] = hosts.filter((host) => !before.includes(host));
    for (const host of lab.hosts.filter((each) => each !== promoted)) {
      const routes = await host.namespace.run("ip", ["route", "show", "dev", "flannel.1"], {
        signal,
      });
      const { prefix } = (await promoted!.readSubnetEnv()).subnet;
      // Who is in overflow itself tunnels to everybody.
      const tunnels = !hosts.includes(host);
      assert.equal(routes.includes(prefix.toString()), tunnels, host.label);
    }
    return hosts;
  }, { signal, title: "one more host to have its route", timeoutMs: 60_000 });
}

/** Hosts whose subnet has an Available entry that leads to them. */
async function hostsWithEntries(lab: Lab): Promise<Host[]> {
  const { routeEntries } = await lab.cloud.control.snapshot();
  return lab.hosts.filter(({ identity }) =>
    routeEntries.some(({ nextHops, status }) =>
      nextHops[0]?.id === identity.instanceId && status === "Available"
    )
  );
}

async function startProbes(
  lab: Lab,
  pairs: readonly (readonly [Host, Host])[],
  signal: AbortSignal,
): Promise<{ readonly name: string; readonly probe: LossProbe }[]> {
  const probes: { name: string; probe: LossProbe }[] = [];
  for (const [from, to] of pairs) {
    const probe = await startLossProbe(from.pods[0]!, to.pods[0]!, {
      signal,
      directory: lab.directory,
      intervalMs: 5,
    });
    probes.push({ name: `${from.label} to ${to.label}`, probe });
  }
  return probes;
}

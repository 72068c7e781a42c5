import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Host, type Lab, labTest, macOf } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import {
  assertPodsPing,
  kernelState,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
  untilState,
} from "./kernel_support.ts";

/** Something that happens to a host. When it is over, the cause is gone. */
interface Drift {
  readonly title: string;
  /** Commands of `ip`. */
  readonly ip?: readonly string[];
  /** Commands of `bridge`. */
  readonly bridge?: readonly string[];
  readonly run?: (host: Host, signal: AbortSignal) => Promise<void>;
}

/** A MAC that nobody has. */
const OTHER_MAC = "02:00:5e:00:00:99";

/** Lets each drift happen to `host` and checks that everything is as before in time. */
async function assertRepaired(
  lab: Lab,
  host: Host,
  drifts: readonly Drift[],
  signal: AbortSignal,
): Promise<void> {
  const before = await kernelState(host, { signal });
  let slowest = { title: "", milliseconds: 0 };
  for (const { title, ip = [], bridge = [], run } of drifts) {
    await whileFrozen(host, async () => {
      await host.namespace.ip(ip, { signal });
      if (bridge.length > 0) {
        const stdin = bridge.join("\n") + "\n";
        await host.namespace.run("bridge", ["-batch", "-"], { signal, stdin });
      }
    });
    await run?.(host, signal);
    const since = performance.now();
    const milliseconds = await untilState(host, before, { signal, title, since });
    await assertPodsPing(lab, { signal, title });
    note(`${title}: right after ${Math.round(milliseconds)} ms`);
    if (milliseconds > slowest.milliseconds) slowest = { title, milliseconds };
  }
  note(`slowest of ${drifts.length}: ${slowest.title}, ${Math.round(slowest.milliseconds)} ms`);
}

/**
 * Does something of several steps as if it were one: the daemon, which is quicker than a shell,
 * repairs nothing in between.
 */
async function whileFrozen(host: Host, act: () => Promise<void>): Promise<void> {
  const { process } = host.daemon;
  process.signal("SIGSTOP");
  try {
    await act();
  } finally {
    process.signal("SIGCONT");
  }
}

/** What a network manager does when the cable is put in again: all addresses and routes of eth0. */
function plugIn({ identity: { port } }: Host): string[] {
  const families = port.also ? [port, port.also] : [port];
  return [
    "link set eth0 up",
    ...families.map(({ address, prefixLength }) =>
      `address replace ${address}/${prefixLength} dev eth0`
    ),
    ...families.map(({ gateway }) => `route replace default via ${gateway} dev eth0`),
  ];
}

/** The external interface goes away and comes back, in the ways that all backends have to bear. */
function externalDrifts(host: Host): Drift[] {
  const { also } = host.identity.port;
  const withLinkLocal: Drift = {
    title: "eth0 with no IPv6 address but the link-local one for a while",
    async run({ namespace }, signal) {
      await namespace.ip([`address del ${also?.address}/${also?.prefixLength} dev eth0`], {
        signal,
      });
      // Long enough for the daemon, which is not to take it, to look.
      await delay(500, { signal });
      await namespace.ip(plugIn(host), { signal });
    },
  };
  return [
    { title: "eth0 down and up", ip: ["link set eth0 down", ...plugIn(host)] },
    {
      title: "eth0 down for a second",
      async run({ namespace }, signal) {
        await namespace.ip(["link set eth0 down"], { signal });
        await delay(1_000, { signal });
        await namespace.ip(plugIn(host), { signal });
      },
    },
    {
      title: "eth0 without addresses for a moment",
      ip: ["address flush dev eth0 scope global", ...plugIn(host)],
    },
    ...also ? [withLinkLocal] : [],
  ];
}

/** Gives `host` other addresses, on the same segment, and returns them. */
async function renumber(host: Host, signal: AbortSignal): Promise<string[]> {
  const { port } = host.identity;
  const families = port.also ? [port, port.also] : [port];
  const fresh = families.map(({ address }) =>
    address.includes(":") ? address.replace(/[^:]*$/, "77") : address.replace(/[^.]*$/, "77")
  );
  await host.namespace.ip([
    ...families.map(({ address, prefixLength }) =>
      `address del ${address}/${prefixLength} dev eth0`
    ),
    ...families.map(({ prefixLength }, index) =>
      `address add ${fresh[index]}/${prefixLength} dev eth0`
    ),
    ...families.map(({ gateway }) => `route replace default via ${gateway} dev eth0`),
  ], { signal });
  return fresh;
}

/** The external interface gets other addresses and another MTU; the cluster follows. */
async function assertFollowsExternalInterface(
  lab: Lab,
  options: { readonly overheadBytes: number; readonly signal: AbortSignal },
): Promise<void> {
  const { overheadBytes, signal } = options;
  const host = lab.hosts[1]!;
  const { subnet } = await host.readSubnetEnv();
  for (const mtu of [1400, 1500]) {
    await host.namespace.ip([`link set eth0 mtu ${mtu}`], { signal });
    const since = performance.now();
    await eventually(
      async () => (await host.readSubnetEnv()).mtuBytes === mtu - overheadBytes,
      { signal, title: "subnet.env with the other MTU", timeoutMs: 15_000, intervalMs: 20 },
    );
    note(`MTU ${mtu}: in subnet.env after ${Math.round(performance.now() - since)} ms`);
  }
  await assertPodsPing(lab, { signal, title: "after the changes of the MTU" });

  const addresses = await renumber(host, signal);
  const since = performance.now();
  const elapsed = () => Math.round(performance.now() - since);
  const withLogs = (cause: unknown) => {
    throw new Error(lab.hosts.map((each) => each.daemonLog()).join("\n"), { cause });
  };
  await eventually(
    async () =>
      [...(await lab.leases({ signal })).values()].filter((value) =>
        addresses.every((address) => value.includes(`"${address}"`))
      ).length === 1,
    { signal, title: `the lease with ${addresses}`, timeoutMs: 20_000, intervalMs: 20 },
  ).catch(withLogs);
  note(`${addresses}: in the lease after ${elapsed()} ms`);
  await eventually(
    async () =>
      (await lab.pingPods({ signal, seconds: 1 })).every(({ milliseconds }) => milliseconds),
    { signal, title: `pods after the change of ${host.label}'s address`, timeoutMs: 20_000 },
  ).catch(withLogs);
  note(`${addresses}: pods ping again after ${elapsed()} ms`);
  assert.ok((await host.readSubnetEnv()).subnet.equals(subnet), "the subnet stays");
}

labTest(
  "whatever happens to a vxlan host's links, neighbours, entries and routes is repaired",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      underlay: "dual",
      config: networkConfig("dual", { Type: "vxlan" }),
    });
    await startCluster(lab, { signal });
    await assertPodsPing(lab, { signal });
    const [host, peer] = lab.hosts;
    const { families } = await peer!.readSubnetEnv();
    const drifts: Drift[] = [];
    for (const [index, link] of ["flannel.1", "flannel-v6.1"].entries()) {
      const { prefix } = families[index]!.subnet;
      const remote = peer!.addresses[index]!;
      const mac = await macOf(peer!, link, { signal });
      const local = host!.addresses[index]!;
      const stray = index === 0 ? "10.24.255.9/32" : "fd00:24:0:ffff::9/128";
      const fdb = `${mac} dev ${link} dst ${remote} self`;
      const add = `link add ${link} type vxlan id 1 dev eth0 local ${local}`;
      drifts.push(
        { title: `${link} deleted`, ip: [`link del ${link}`] },
        { title: `${link} down`, ip: [`link set ${link} down`] },
        { title: `${link} with another MAC`, ip: [`link set ${link} address ${OTHER_MAC}`] },
        { title: `${link} with another MTU`, ip: [`link set ${link} mtu 1300`] },
        { title: `${link} learning`, ip: [`link set ${link} type vxlan learning`] },
        {
          title: `${link} made anew with another port`,
          ip: [`link del ${link}`, `${add} dstport 4789 nolearning`, `link set ${link} up`],
        },
        {
          title: `${link} made anew as upstream does`,
          ip: [`link del ${link}`, `${add} dstport 8472 nolearning`, `link set ${link} up`],
        },
        { title: `${link} flushed`, ip: [`address flush dev ${link}`] },
        { title: `a stray address on ${link}`, ip: [`address add ${stray} dev ${link}`] },
        {
          title: `neighbour on ${link} deleted`,
          ip: [`neighbor del ${prefix.address} dev ${link}`],
        },
        {
          title: `neighbour on ${link} altered`,
          ip: [`neighbor replace ${prefix.address} lladdr ${OTHER_MAC} dev ${link} nud permanent`],
        },
        {
          title: `neighbour on ${link} made reachable`,
          ip: [`neighbor replace ${prefix.address} lladdr ${mac} dev ${link} nud reachable`],
        },
        { title: `entry of ${link} deleted`, bridge: [`fdb del ${fdb}`] },
        {
          title: `entry of ${link} altered`,
          bridge: [`fdb replace ${mac} dev ${link} dst ${local} self permanent`],
        },
        {
          title: `a stray entry in ${link}`,
          bridge: [`fdb append ${OTHER_MAC} dev ${link} dst ${remote} self permanent`],
        },
        { title: `route over ${link} deleted`, ip: [`route del ${prefix}`] },
        {
          title: `route over ${link} altered`,
          ip: [`route replace ${prefix} via ${remote} dev eth0`],
        },
        { title: `route over ${link} a black hole`, ip: [`route replace blackhole ${prefix}`] },
      );
    }
    drifts.push(
      {
        title: "both links deleted",
        ip: ["link del flannel.1", "link del flannel-v6.1"],
      },
      ...externalDrifts(host!),
    );
    await assertRepaired(lab, host!, drifts, signal);
    await assertFollowsExternalInterface(lab, { overheadBytes: 50, signal });
  },
  { timeoutMs: 240_000 },
);

labTest(
  "whatever happens to a host-gw host's routes and interface is repaired",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 2,
      underlay: "dual",
      config: networkConfig("dual", { Type: "host-gw" }),
    });
    await startCluster(lab, { signal });
    await assertPodsPing(lab, { signal });
    const [host, peer] = lab.hosts;
    const { families } = await peer!.readSubnetEnv();
    const { port } = host!.identity;
    const drifts = [port, port.also!].flatMap(({ gateway }, index): Drift[] => {
      const { prefix } = families[index]!.subnet;
      return [
        { title: `route to ${prefix} deleted`, ip: [`route del ${prefix}`] },
        {
          title: `route to ${prefix} altered`,
          ip: [`route replace ${prefix} via ${gateway} dev eth0`],
        },
        { title: `route to ${prefix} a black hole`, ip: [`route replace blackhole ${prefix}`] },
      ];
    });
    drifts.push(...externalDrifts(host!));
    await assertRepaired(lab, host!, drifts, signal);
    await assertFollowsExternalInterface(lab, { overheadBytes: 0, signal });
  },
);

labTest(
  "directly routed vxlan peers are repaired, and looked at again when the underlay changes",
  async ({ signal }) => {
    await using lab = await openKernelLab({
      signal,
      hosts: 3,
      topology: "routed",
      config: networkConfig("v4", { Type: "vxlan", DirectRouting: true }),
    });
    await startCluster(lab, { signal });
    await assertPodsPing(lab, { signal });
    // host1 and host3 share a segment, host2 is behind the router.
    const [host, behind, near] = lab.hosts;
    const nearSubnet = (await near!.readSubnetEnv()).subnet.prefix;
    const behindSubnet = (await behind!.readSubnetEnv()).subnet.prefix;
    const routeTo = async (subnet: unknown) =>
      (await kernelState(host!, { signal })).find((line) => line.includes(` ${subnet} `));
    assert.match(await routeTo(nearSubnet) ?? "", / via 10\.0\.1\.11 dev eth0 /);
    assert.match(await routeTo(behindSubnet) ?? "", / dev flannel\.1 .* onlink$/);
    await assertRepaired(lab, host!, [
      { title: "direct route deleted", ip: [`route del ${nearSubnet}`] },
      {
        title: "direct route through the tunnel",
        ip: [`route replace ${nearSubnet} via ${nearSubnet.address} dev flannel.1 onlink`],
      },
      {
        title: "tunnelled route made direct",
        ip: [
          `route replace ${behindSubnet} via ${host!.identity.port.gateway} dev eth0`,
        ],
      },
      { title: "flannel.1 deleted", ip: ["link del flannel.1"] },
      ...externalDrifts(host!),
    ], signal);

    // The peer moves behind the router, as far as this host can see, and back.
    const detour = `${near!.address}/32 via ${host!.identity.port.gateway}`;
    for (const [change, expected] of [["add", /dev flannel\.1/], ["del", /dev eth0/]] as const) {
      await host!.namespace.ip([`route ${change} ${detour}`], { signal });
      const since = performance.now();
      await eventually(async () => expected.test(await routeTo(nearSubnet) ?? ""), {
        signal,
        title: `the route to ${nearSubnet} to be ${expected}`,
        timeoutMs: 15_000,
        intervalMs: 20,
      }).catch((cause) => {
        throw new Error(host!.daemonLog(), { cause });
      });
      note(`route ${change}: decided anew after ${Math.round(performance.now() - since)} ms`);
      await assertPodsPing(lab, { signal, title: `route ${change} ${detour}` });
    }
  },
);

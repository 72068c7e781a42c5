/**
 * What the rules do to packets, the same in every mode:
 *
 *     pod 10.244.1.2 ── cni0 [host] 192.0.2.10 ── 192.0.2.1 [world]
 *                             10.9.9.9 (lo)        10.244.2.2: a remote pod
 *                                                  198.51.100.7: exempt from masquerading
 *
 * and likewise with IPv6.
 *
 * @module
 */
import assert from "node:assert/strict";
import { planRuleSets } from "../../src/firewall/mod.ts";
import { Prefix } from "../../src/net/mod.ts";
import { eventually } from "../support/eventually.ts";
import { startLogged } from "../support/logged_process.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { ENGINES, RuleHost, ruleTest } from "./rule_host.ts";

const CONNECTIONS = new URL("./connections.ts", import.meta.url).pathname;
const PORT = "7000";
/** Packets to this port carry kube-proxy's mark, and another bit. */
const MARKED_PORT = "7001";

const IPV4 = {
  network: "10.244.0.0/16",
  subnet: "10.244.1.0/24",
  pod: "10.244.1.2",
  bridge: "10.244.1.1",
  host: "192.0.2.10",
  hostExtra: "10.9.9.9",
  world: "192.0.2.1",
  remotePod: "10.244.2.2",
  exempt: "198.51.100.7",
};
const IPV6: typeof IPV4 = {
  network: "fd00:10:244::/48",
  subnet: "fd00:10:244:1::/64",
  pod: "fd00:10:244:1::2",
  bridge: "fd00:10:244:1::1",
  host: "2001:db8::10",
  hostExtra: "2001:db8:9::9",
  world: "2001:db8::1",
  remotePod: "fd00:10:244:2::2",
  exempt: "2001:db8:51::7",
};

type Plan = typeof IPV4;
type Place = "pod" | "host" | "world";

/** From where to which address, and the source address that arrives. */
const flows: [
  name: string,
  from: Place,
  flow: (plan: Plan) => {
    readonly source?: string;
    readonly to: string;
    readonly port?: string;
    readonly seen: string;
  },
][] = [
  ["a pod to the outside is masqueraded", "pod", ({ world, host }) => ({ to: world, seen: host })],
  ["a pod to a remote pod is not", "pod", ({ remotePod, pod }) => ({ to: remotePod, seen: pod })],
  ["a pod to an exempt address is not", "pod", ({ exempt, pod }) => ({ to: exempt, seen: pod })],
  ["a packet of kube-proxy is not", "pod", ({ world, pod }) => ({
    to: world,
    port: MARKED_PORT,
    seen: pod,
  })],
  ["the host to a remote pod is masqueraded", "host", ({ hostExtra, remotePod, host }) => ({
    source: hostExtra,
    to: remotePod,
    seen: host,
  })],
  ["the host to the outside is not", "host", ({ hostExtra, world }) => ({
    source: hostExtra,
    to: world,
    seen: hostExtra,
  })],
  ["the outside to a pod of this host is not", "world", ({ world, pod }) => ({
    to: pod,
    seen: world,
  })],
  ["a remote pod to a pod of this host is not", "world", ({ remotePod, pod }) => ({
    source: remotePod,
    to: pod,
    seen: remotePod,
  })],
];

for (const engine of ENGINES) {
  ruleTest(`${engine.title}: packets keep or change their source as they should`, async (test) => {
    const { signal } = new AbortController();
    await using set = await openNamespaces({ signal });
    const [host, pod, world] = await set.add(["host", "pod", "world"], { signal }) as [
      NetworkNamespace,
      NetworkNamespace,
      NetworkNamespace,
    ];
    await connect({ host, pod, world }, signal);
    const rules = new RuleHost(host, set.directory);
    await rules.install(engine);
    if (engine.mode === "iptables") {
      // As Docker leaves it: only our rules let packets through.
      for (const family of ["iptables", "ip6tables"]) {
        await host.run(`${family}-${engine.variant}`, ["-P", "FORWARD", "DROP"], { signal });
      }
    }
    const plans = [IPV4, IPV6];
    const wanted = { masquerade: true, forward: true };
    const families = plans.map(({ network, subnet }) => ({
      network: Prefix.parse(network),
      subnet: Prefix.parse(subnet),
    }));
    const firewall = await rules.open(engine, {
      ...wanted,
      networks: families.map(({ network }) => network),
      randomFullyDisabled: false,
      signal,
    });
    const desired = planRuleSets({
      ...wanted,
      mode: engine.mode,
      families,
      noMasqueradeCidrs: plans.map(({ exempt }) =>
        Prefix.parse(`${exempt}/${exempt.includes(":") ? 128 : 32}`)
      ),
      randomFully: firewall.randomFully,
      docker: firewall.docker,
    });
    assert.deepEqual((await rules.round(firewall, desired, { signal })).failures, []);

    await using stack = new AsyncDisposableStack();
    for (const [name, namespace] of [["pod", pod], ["world", world]] as const) {
      const server = stack.use(startLogged(
        namespace.command(Deno.execPath(), ["run", "-A", CONNECTIONS, "serve", PORT, MARKED_PORT]),
        { title: name, logFile: `${set.directory}/${name}.log`, env: Deno.env.toObject() },
      ));
      const isReady = () => server.lines.includes("ready");
      await eventually(isReady, { title: `the server of ${name}`, signal });
    }
    const places = { host, pod, world };
    for (const [index, plan] of plans.entries()) {
      for (const [name, from, flow] of flows) {
        await test.step(`IPv${index === 0 ? 4 : 6}: ${name}`, async () => {
          const { source = "", to, port = PORT, seen } = flow(plan);
          const args = ["run", "-A", CONNECTIONS, "ask", source, to, port];
          const answer = await places[from].run(Deno.execPath(), args, { signal });
          assert.equal(answer.trim(), seen);
        });
      }
    }
  });
}

/** Links, addresses and routes of the picture above, and kube-proxy's mark. */
async function connect(
  { host, pod, world }: Record<Place, NetworkNamespace>,
  signal: AbortSignal,
): Promise<void> {
  const both = (line: (plan: Plan, length: (v4: number, v6: number) => number) => string) => [
    line(IPV4, (v4) => v4),
    line(IPV6, (_, v6) => v6),
  ];
  await host.ip([
    `link add cni0 type veth peer name eth0 netns ${pod.name}`,
    `link add eth0 type veth peer name eth0 netns ${world.name}`,
    ...both(({ bridge }, length) => `addr add ${bridge}/${length(24, 64)} dev cni0 nodad`),
    ...both(({ host }, length) => `addr add ${host}/${length(24, 64)} dev eth0 nodad`),
    ...both(({ hostExtra }, length) => `addr add ${hostExtra}/${length(32, 128)} dev lo nodad`),
    "link set cni0 up",
    "link set eth0 up",
    ...both(({ world }) => `route add default via ${world}`),
  ], { signal });
  await pod.ip([
    ...both(({ pod }, length) => `addr add ${pod}/${length(24, 64)} dev eth0 nodad`),
    "link set eth0 up",
    ...both(({ bridge }) => `route add default via ${bridge}`),
  ], { signal });
  await world.ip([
    ...both(({ world }, length) => `addr add ${world}/${length(24, 64)} dev eth0 nodad`),
    ...both(({ remotePod }, length) => `addr add ${remotePod}/${length(32, 128)} dev lo nodad`),
    ...both(({ exempt }, length) => `addr add ${exempt}/${length(32, 128)} dev lo nodad`),
    "link set eth0 up",
    ...both(({ host }) => `route add default via ${host}`),
  ], { signal });
  await host.sysctl({ "net/ipv4/ip_forward": "1", "net/ipv6/conf/all/forwarding": "1" }, {
    signal,
  });
  await host.nft(
    `table inet kube-proxy {
  chain marks {
    type filter hook postrouting priority -150;
    tcp dport ${MARKED_PORT} meta mark set 0x4001
  }
}
`,
    { signal },
  );
}

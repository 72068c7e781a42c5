/**
 * Chains of others and real packets: whatever drops packets between pods of two hosts is named,
 * nothing else is, and the command that the sentence gives lets them through.
 *
 *     pod 10.244.1.2 ── docker0 [host] eth0 192.0.2.10 ── 192.0.2.11 [peer] 10.244.2.2
 *
 * @module
 */
import assert from "node:assert/strict";
import { planRuleSets, type PodPaths } from "../../src/firewall/mod.ts";
import { Prefix } from "../../src/net/mod.ts";
import { sentenceOf } from "../../src/status/problems.ts";
import { eventually } from "../support/eventually.ts";
import { startLogged } from "../support/logged_process.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { type Engine, ENGINES, RuleHost, ruleTest } from "./rule_host.ts";

const CONNECTIONS = new URL("./connections.ts", import.meta.url).pathname;
const PORT = 7000;
const NETWORK = Prefix.parse("10.244.0.0/16");
const SUBNET = Prefix.parse("10.244.1.0/24");
const POD = "10.244.1.2";
const REMOTE_POD = "10.244.2.2";
const PATHS: PodPaths = {
  family: 4,
  network: NETWORK,
  subnet: SUBNET,
  inside: "docker0",
  outside: ["eth0"],
};
const [OVER_NFT, LEGACY, NFTABLES] = ENGINES as [Engine, Engine, Engine];

interface Case {
  readonly name: string;
  readonly engines: readonly Engine[];
  /** Commands, `IPT` standing for the engine's iptables; those of `before` come before our rules. */
  readonly before?: readonly string[];
  readonly after?: readonly string[];
  /** What the sentence says; `undefined`: packets pass, and there is none. */
  readonly named?: RegExp;
  /** Others than pods stay shut out. */
  readonly closed?: true;
  /** It is about a pod alone, so the host stays ready. */
  readonly onePod?: true;
  /** Run in place of the command that the sentence gives, which needs another program. */
  readonly remedy?: readonly string[];
}

/** As Docker 28.2 to 29 word them, in their order; its jumps come first at each of its starts. */
const DOCKER_28 = [
  "IPT -P FORWARD DROP",
  ...["DOCKER-USER", "DOCKER", "DOCKER-FORWARD", "DOCKER-BRIDGE", "DOCKER-CT", "DOCKER-INTERNAL"]
    .map((chain) => `IPT -N ${chain}`),
  "IPT -I FORWARD -j DOCKER-FORWARD",
  "IPT -I DOCKER-FORWARD -j DOCKER-BRIDGE",
  "IPT -I DOCKER-FORWARD -j DOCKER-INTERNAL",
  "IPT -I DOCKER-FORWARD -j DOCKER-CT",
  "IPT -A DOCKER-FORWARD -i docker0 -j ACCEPT",
  "IPT -A DOCKER ! -i docker0 -o docker0 -j DROP",
  "IPT -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
  "IPT -A DOCKER-BRIDGE -o docker0 -j DOCKER",
  "IPT -I FORWARD -j DOCKER-USER",
];
const DOCKER_28_CONTAINER = `IPT -t raw -A PREROUTING -d ${POD}/32 ! -i docker0 -j DROP`;

/** Docker 29 with "firewall-backend": "nftables". */
const DOCKER_29_NFT = [
  "nft add table ip docker-bridges",
  "nft add map ip docker-bridges filter-forward-in-jumps { type ifname : verdict ; }",
  "nft add map ip docker-bridges filter-forward-out-jumps { type ifname : verdict ; }",
  "nft add chain ip docker-bridges filter-FORWARD { type filter hook forward priority filter ; }",
  "nft add rule ip docker-bridges filter-FORWARD oifname vmap @filter-forward-in-jumps",
  "nft add rule ip docker-bridges filter-FORWARD iifname vmap @filter-forward-out-jumps",
  "nft add chain ip docker-bridges raw-PREROUTING { type filter hook prerouting priority raw ; }",
  "nft add chain ip docker-bridges filter-forward-in__docker0",
  "nft add chain ip docker-bridges filter-forward-out__docker0",
  'nft add element ip docker-bridges filter-forward-in-jumps { "docker0" : jump filter-forward-in__docker0 }',
  'nft add element ip docker-bridges filter-forward-out-jumps { "docker0" : jump filter-forward-out__docker0 }',
  "nft add rule ip docker-bridges filter-forward-in__docker0 ct state established,related counter accept",
  'nft add rule ip docker-bridges filter-forward-in__docker0 iifname docker0 counter accept comment "ICC"',
  "nft add rule ip docker-bridges filter-forward-out__docker0 ct state established,related counter accept",
  'nft add rule ip docker-bridges filter-forward-out__docker0 counter accept comment "OUTGOING"',
];
const DOCKER_29_NFT_DROP = "nft add rule ip docker-bridges filter-forward-in__docker0 counter " +
  'drop comment "UNPUBLISHED PORT DROP"';
const DOCKER_29_NFT_CONTAINER = `nft add rule ip docker-bridges raw-PREROUTING ip daddr ${POD} ` +
  'iifname != { "docker0" } counter drop comment "DROP DIRECT ACCESS"';

const cases: readonly Case[] = [
  { name: "nothing", engines: ENGINES },
  {
    name: "an nft table whose forward chain has policy drop",
    engines: [OVER_NFT, NFTABLES],
    after: [
      "nft add table inet site",
      "nft add chain inet site fw { type filter hook forward priority 5 ; policy drop ; }",
      "nft add rule inet site fw ct state established,related accept",
      "nft add rule inet site fw tcp dport 22 accept",
    ],
    named: /Chain fw \(hook forward\) of nft table "inet site" drops .*: its policy is drop/,
  },
  {
    name: "an nft table whose last rule rejects, after jumps and a set",
    engines: [NFTABLES],
    after: [
      "nft add table ip site",
      "nft add set ip site ours { type ipv4_addr ; flags interval ; elements = { 10.9.0.0/16 } ; }",
      "nft add chain ip site zone",
      "nft add rule ip site zone ip saddr @ours accept",
      "nft add chain ip site fw { type filter hook forward priority -5 ; }",
      "nft add rule ip site fw ct state established accept",
      "nft add rule ip site fw jump zone",
      "nft add rule ip site fw counter reject with icmp type admin-prohibited",
    ],
    named: /Chain fw .* rejects .* the rule with handle \d+ of chain fw does/,
  },
  {
    name: "an nft table that drops what comes in at prerouting",
    engines: [NFTABLES],
    after: [
      "nft add table netdev unrelated",
      "nft add table inet site",
      "nft add chain inet site pre { type filter hook prerouting priority -300 ; }",
      "nft add rule inet site pre iifname eth0 ip daddr 10.0.0.0/8 ip daddr != 10.244.1.1 drop",
    ],
    named: /Chain pre \(hook prerouting\)/,
  },
  {
    name: "an nft table that drops what comes in at a link",
    engines: [NFTABLES],
    after: [
      "nft add table netdev edge",
      "nft add chain netdev edge in { type filter hook ingress device eth0 priority 0 ; }",
      "nft add rule netdev edge in ip saddr 10.244.0.0/16 drop",
    ],
    named: /Chain in \(hook ingress\) of nft table "netdev edge" drops/,
  },
  {
    name: "an nft table that drops what goes out at one of several links",
    engines: [OVER_NFT],
    after: [
      "nft add table netdev edge",
      "nft add chain netdev edge out { type filter hook egress devices = { lo, eth0 } priority 0 ; }",
      "nft add rule netdev edge out ip daddr 10.0.0.0/8 tcp dport 1024-65535 drop",
    ],
    named: /Chain out \(hook egress\) of nft table "netdev edge" drops/,
  },
  {
    name: "an nft table that drops other things at links",
    engines: [NFTABLES],
    after: [
      "nft add table netdev edge",
      "nft add chain netdev edge other { type filter hook ingress device lo priority 0 ; policy drop ; }",
      "nft add chain netdev edge in { type filter hook ingress device eth0 priority 0 ; }",
      "nft add rule netdev edge in ip saddr 172.16.0.0/12 drop",
      "nft add rule netdev edge in udp dport { 53, 123 } drop",
      "nft add rule netdev edge in ether type 0x88cc drop",
    ],
  },
  {
    name: "an nft table that lets the network through before it drops",
    engines: [OVER_NFT, NFTABLES],
    after: [
      "nft add table inet site",
      "nft add chain inet site fw { type filter hook forward priority 5 ; policy drop ; }",
      "nft add rule inet site fw ct state vmap { established : accept, invalid : drop }",
      "nft add rule inet site fw ip saddr { 10.9.0.0/16, 10.244.0.0/16 } accept",
    ],
  },
  {
    name: "an nft table that drops other things",
    engines: [NFTABLES],
    after: [
      "nft add table inet site",
      "nft add chain inet site fw { type filter hook forward priority 5 ; }",
      "nft add rule inet site fw ct state invalid drop",
      "nft add rule inet site fw iifname eth9 drop",
      "nft add rule inet site fw ip saddr 172.16.0.0/12 drop",
      "nft add rule inet site fw tcp dport { 25, 445 } drop",
      "nft add rule inet site fw meta mark 0x1 drop",
      "nft add rule inet site fw ip6 saddr ::/0 drop",
    ],
  },
  {
    name: "Docker's policy DROP, with rules of ours elsewhere",
    engines: [{ ...NFTABLES, variant: "nft" }, { ...NFTABLES, variant: "legacy" }],
    after: ["IPT -P FORWARD DROP"],
    named: /Chain FORWARD \(hook forward\) of table filter of iptables drops .*policy is drop/,
  },
  {
    name: "Docker's policy DROP, which our rules override",
    engines: [OVER_NFT, LEGACY],
    after: ["IPT -P FORWARD DROP"],
  },
  {
    name: "Docker 28 that was started first",
    engines: [OVER_NFT, LEGACY],
    before: DOCKER_28,
    after: [DOCKER_28_CONTAINER],
    closed: true,
  },
  {
    name: "Docker 28 that was started after us",
    engines: [OVER_NFT, LEGACY],
    after: [...DOCKER_28, DOCKER_28_CONTAINER],
    closed: true,
  },
  {
    name: "Docker 28 after an upgrade from 27, without a boot between",
    engines: [OVER_NFT, LEGACY],
    before: ["IPT -N DOCKER-USER", "IPT -A DOCKER-USER -j RETURN"],
    after: [
      ...DOCKER_28.filter((command) => command !== "IPT -N DOCKER-USER"),
      DOCKER_28_CONTAINER,
    ],
    closed: true,
  },
  {
    name: "Docker 28, with rules of ours elsewhere",
    engines: [NFTABLES],
    before: DOCKER_28,
    named: /the rule "-A DOCKER ! -i docker0 -o docker0 -j DROP" does.*iptables -I DOCKER-USER/,
  },
  {
    name: "Docker 29's own nftables",
    engines: [OVER_NFT, NFTABLES],
    after: [...DOCKER_29_NFT, DOCKER_29_NFT_DROP],
    named: /nft table "ip docker-bridges" .*"firewall-backend": "iptables".*nat-unprotected$/,
    // What Docker has with that mode.
    remedy: [
      "nft flush chain ip docker-bridges filter-forward-in__docker0",
      'nft add rule ip docker-bridges filter-forward-in__docker0 counter accept comment "UNPROTECTED"',
    ],
  },
  {
    name: "Docker 29's own rule in nftables for each container",
    engines: [OVER_NFT, NFTABLES],
    after: [...DOCKER_29_NFT, DOCKER_29_NFT_CONTAINER],
    named: /hook prerouting.* pods for 10\.244\.1\.2: .*"allow-direct-routing": true/,
    onePod: true,
    remedy: ["nft flush chain ip docker-bridges raw-PREROUTING"],
  },
  {
    name: "Docker 28's rule for each container",
    engines: [OVER_NFT, LEGACY, NFTABLES],
    after: [DOCKER_28_CONTAINER],
    named: /hook prerouting.* pods for 10\.244\.1\.2: .*"allow-direct-routing": true/,
    onePod: true,
    remedy: [`IPT -t raw -F PREROUTING`],
  },
  {
    name: "Docker 28's rule for each published port",
    engines: [OVER_NFT, LEGACY],
    after: [
      `IPT -t raw -A PREROUTING -d ${POD}/32 ! -i docker0 -p tcp -m tcp --dport ${PORT} -j DROP`,
    ],
    named: /pods for 10\.244\.1\.2 port 7000: .*trusted_host_interfaces=eth0/,
    onePod: true,
    remedy: [`IPT -t raw -F PREROUTING`],
  },
  {
    name: "ufw, with rules of ours elsewhere",
    engines: [NFTABLES],
    after: [
      "IPT -P FORWARD DROP",
      "IPT -N ufw-before-forward",
      "IPT -N ufw-user-forward",
      "IPT -A FORWARD -j ufw-before-forward",
      "IPT -A ufw-before-forward -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
      "IPT -A ufw-before-forward -p icmp -m icmp --icmp-type 8 -j ACCEPT",
      "IPT -A ufw-before-forward -j ufw-user-forward",
    ],
    named: /ufw route allow from 10\.244\.0\.0\/16; ufw route allow to 10\.244\.0\.0\/16/,
    remedy: [
      "IPT -A ufw-user-forward -s 10.244.0.0/16 -j ACCEPT",
      "IPT -A ufw-user-forward -d 10.244.0.0/16 -j ACCEPT",
    ],
  },
];

for (const { name, engines, before = [], after = [], closed, named, onePod, remedy } of cases) {
  for (const engine of engines) {
    ruleTest(`${engine.title} (${engine.variant}) and ${name}`, async () => {
      const { signal } = new AbortController();
      await using set = await openNamespaces({ signal });
      const [host, pod, peer] = await set.add(["host", "pod", "peer"], { signal }) as [
        NetworkNamespace,
        NetworkNamespace,
        NetworkNamespace,
      ];
      await connect(host, pod, peer, signal);
      const run = async (commands: readonly string[]) => {
        for (const command of commands) {
          const [program, ...args] = command.replace(/^IPT/, `iptables-${engine.variant}`).split(
            " ",
          );
          await host.run(program!, args, { signal });
        }
      };
      const rules = new RuleHost(host, set.directory);
      await rules.install(engine);
      await run(before);
      const wanted = { masquerade: true, forward: true };
      const networks = [NETWORK];
      const firewall = await rules.open(engine, {
        ...wanted,
        networks,
        randomFullyDisabled: false,
        listInterfaces: () => [{ name: "docker0", address: "10.244.1.1" }],
        signal,
      });
      const desired = () =>
        planRuleSets({
          ...wanted,
          mode: engine.mode,
          families: [{ network: NETWORK, subnet: SUBNET }],
          noMasqueradeCidrs: [],
          randomFully: firewall.randomFully,
          docker: firewall.docker,
        });
      assert.deepEqual((await rules.round(firewall, desired, { signal })).failures, []);
      await run(after);
      if (closed) assert.deepEqual(await rules.survey(firewall, [PATHS], { signal }), []);
      assert.deepEqual((await rules.round(firewall, desired, { signal })).failures, []);

      await using stack = new AsyncDisposableStack();
      for (const namespace of [pod, peer]) {
        const server = stack.use(startLogged(
          namespace.command(Deno.execPath(), ["run", "-A", CONNECTIONS, "serve", `${PORT}`]),
          {
            title: "server",
            logFile: `${set.directory}/${namespace.name}.log`,
            env: Deno.env.toObject(),
          },
        ));
        await eventually(() => server.lines.includes("ready"), { title: "the server", signal });
      }
      const passes = async () =>
        await reaches(peer, REMOTE_POD, POD, signal) && await reaches(pod, POD, REMOTE_POD, signal);

      const told = new Set(firewall.describe().problems.map(sentenceOf));
      const cut = await rules.survey(firewall, [PATHS], { signal });
      const found = firewall.describe().problems.map(sentenceOf).filter((text) => !told.has(text));
      if (!named) {
        assert.deepEqual([found, cut], [[], []]);
        assert.ok(await passes());
        if (!closed) return;
        for (const source of ["192.0.2.11", REMOTE_POD]) {
          const { code } = await peer.try("ping", ["-c1", "-W1", "-I", source, POD], { signal });
          assert.equal(code === 0, source === REMOTE_POD, `ping from ${source}`);
        }
        assert.deepEqual((await rules.round(firewall, desired, { signal })).changes, []);
        await run(["IPT -D DOCKER-USER 1", "IPT -t raw -F FLANNEL-RAW"]);
        assert.ok(!await passes());
        assert.equal((await rules.round(firewall, desired, { signal })).changes.length, 2);
        assert.ok(await passes());
        // Docker goes, and then we.
        await run(["IPT -F DOCKER", "IPT -t raw -D PREROUTING 2"]);
        assert.equal((await rules.round(firewall, desired, { signal })).changes.length, 2);
        await rules.round(firewall, [], { signal });
        assert.doesNotMatch(
          await host.run(`iptables-${engine.variant}-save`, [], { signal }),
          /flannel/i,
        );
        return;
      }
      assert.equal(found.length, 1, found.join("\n"));
      assert.deepEqual(cut, onePod ? [] : found);
      assert.match(found[0]!, named);
      assert.ok(!await passes(), "packets pass, although there is said to be a chain in the way");

      const advice = /To let them through: (.*?)(; or, .*)?$/.exec(found[0]!)![1]!;
      await run(remedy ?? advice.split("; ").map((line) => line.replace(/^iptables/, "IPT")));
      assert.ok(await passes(), advice);
      await rules.survey(firewall, [PATHS], { signal });
      assert.deepEqual(
        firewall.describe().problems.map(sentenceOf).filter((text) => found.includes(text)),
        [],
      );
    });
  }
}

/** Whether a connection from `source` to the server at `address` comes about. */
async function reaches(
  from: NetworkNamespace,
  source: string,
  address: string,
  signal: AbortSignal,
): Promise<boolean> {
  const script = 'exec 3<>"/dev/tcp/$1/$2" && cat <&3';
  const { stdout } = await from.try(
    "timeout",
    ["1", "bash", "-c", script, "ask", address, `${PORT}`],
    { signal },
  );
  return stdout.includes(source);
}

/** Links, addresses and routes of the picture above. */
async function connect(
  host: NetworkNamespace,
  pod: NetworkNamespace,
  peer: NetworkNamespace,
  signal: AbortSignal,
): Promise<void> {
  await host.ip([
    `link add docker0 type veth peer name eth0 netns ${pod.name}`,
    `link add eth0 type veth peer name eth0 netns ${peer.name}`,
    "addr add 10.244.1.1/24 dev docker0",
    "addr add 192.0.2.10/24 dev eth0",
    "link set docker0 up",
    "link set eth0 up",
    "route add 10.244.2.0/24 via 192.0.2.11",
  ], { signal });
  await pod.ip([
    `addr add ${POD}/24 dev eth0`,
    "link set eth0 up",
    "route add default via 10.244.1.1",
  ], { signal });
  await peer.ip([
    "addr add 192.0.2.11/24 dev eth0",
    `addr add ${REMOTE_POD}/32 dev lo`,
    "link set eth0 up",
    `route add 10.244.1.0/24 via 192.0.2.10 src ${REMOTE_POD}`,
  ], { signal });
  await host.sysctl({ "net/ipv4/ip_forward": "1" }, { signal });
}

/**
 * The firewall against the real kernel and the real programs, in namespaces.
 *
 * @module
 */
import assert from "node:assert/strict";
import { OperatorError } from "../../src/errors.ts";
import { type FirewallMode, planRuleSets, type RuleSetSpec } from "../../src/firewall/mod.ts";
import { Prefix } from "../../src/net/mod.ts";
import { sentenceOf } from "../../src/status/problems.ts";
import { openNamespaces } from "../support/namespace.ts";
import { type Engine, ENGINES, RuleHost, ruleTest } from "./rule_host.ts";

const IPV4 = { network: Prefix.parse("10.244.0.0/16"), subnet: Prefix.parse("10.244.1.0/24") };
const IPV6 = {
  network: Prefix.parse("fd00:10:244::/48"),
  subnet: Prefix.parse("fd00:10:244:1::/64"),
};
const NETWORKS = [IPV4.network, IPV6.network];
const WANTED = {
  networks: NETWORKS,
  masquerade: true,
  forward: true,
  randomFullyDisabled: false,
};
const [OVER_NFT, LEGACY, NFTABLES] = ENGINES as [Engine, Engine, Engine];

function planned(mode: FirewallMode, families = [IPV4, IPV6]): RuleSetSpec[] {
  return planRuleSets({
    mode,
    families,
    masquerade: true,
    forward: true,
    noMasqueradeCidrs: [Prefix.parse("192.0.2.9/32"), Prefix.parse("2001:db8::1/128")],
    randomFully: true,
    docker: [],
  });
}

/** Gives `test` a host with the engine's programs. */
async function withHost(
  engine: Engine,
  test: (host: RuleHost, options: { signal: AbortSignal }) => Promise<void>,
): Promise<void> {
  const { signal } = new AbortController();
  await using set = await openNamespaces({ signal });
  const [namespace] = await set.add(["host"], { signal });
  const host = new RuleHost(namespace!, set.directory);
  await host.install(engine);
  await test(host, { signal });
}

/** What the kernel holds, without counters, handles and dates. */
async function holds(host: RuleHost, options: { signal: AbortSignal }): Promise<string> {
  const parts: string[] = [];
  for (const program of ["iptables-nft", "ip6tables-nft", "iptables-legacy", "ip6tables-legacy"]) {
    const text = await host.namespace.run(`${program}-save`, [], options);
    parts.push(
      `${program}:`,
      ...text.replaceAll(/ \[\d+:\d+\]/g, "").split("\n").filter((line) => /^[-*:]/.test(line)),
    );
  }
  parts.push(await host.namespace.run("nft", ["-s", "list", "tables"], options));
  return parts.join("\n");
}

for (const engine of ENGINES) {
  ruleTest(
    `${engine.title}: rules are installed once and then only read`,
    () =>
      withHost(engine, async (host, options) => {
        const firewall = await host.open(engine, { ...WANTED, ...options });
        assert.ok(firewall.randomFully);
        const desired = planned(engine.mode);
        const first = await host.round(firewall, desired, options);
        assert.deepEqual(first.failures, []);
        assert.deepEqual(
          first.changes,
          desired.map(({ mode, table, family }) => `add rule set ${mode} ${table} IPv${family}`),
        );
        for (const _ of [1, 2]) {
          const next = await host.round(firewall, desired, options);
          assert.deepEqual(next.changes, []);
          // One reading of each family, and no other program at all.
          assert.deepEqual(
            next.runs,
            engine.mode === "iptables"
              ? ["ip6tables-save ", "iptables-save "]
              : ["nft -j list table ip flannel-ipv4", "nft -j list table ip6 flannel-ipv6"],
          );
        }
        // A new run of the daemon finds all in order too.
        const again = await host.open(engine, { ...WANTED, ...options });
        assert.deepEqual((await host.round(again, desired, options)).changes, []);
        assert.deepEqual(host.lines.filter((line) => line.startsWith("warn")), []);
      }),
  );

  ruleTest(
    `${engine.title}: a new subnet and network replace the old rules`,
    () =>
      withHost(engine, async (host, options) => {
        const firewall = await host.open(engine, { ...WANTED, ...options });
        await host.round(firewall, planned(engine.mode), options);
        const other = {
          network: Prefix.parse("10.99.0.0/16"),
          subnet: Prefix.parse("10.99.7.0/24"),
        };
        const second = await host.round(firewall, planned(engine.mode, [other, IPV6]), options);
        assert.deepEqual(second.failures, []);
        const text = engine.mode === "iptables"
          ? await host.namespace.run(`iptables-${engine.variant}-save`, [], options)
          : await host.namespace.run("nft", ["list", "ruleset"], options);
        assert.ok(text.includes("10.99.7.0/24"));
        assert.ok(!text.includes("10.244."));
      }),
  );

  ruleTest(
    `${engine.title}: what is not wanted any more is removed`,
    () =>
      withHost(engine, async (host, options) => {
        const before = await holds(host, options);
        const firewall = await host.open(engine, { ...WANTED, ...options });
        await host.round(firewall, planned(engine.mode), options);
        const none = await host.open(engine, {
          ...WANTED,
          networks: [IPV4.network],
          masquerade: false,
          forward: false,
          ...options,
        });
        const round = await host.round(none, [], options);
        assert.deepEqual(round.failures, []);
        assert.equal(round.changes.length, engine.mode === "iptables" ? 4 : 2);
        const after = await holds(host, options);
        assert.ok(!/flannel/i.test(after), after);
        if (engine.mode === "nftables") assert.equal(after, before);
        await host.round(none, [], options);
        // Found clean once, nothing is read any more.
        assert.deepEqual((await host.round(none, [], options)).runs, []);
      }),
  );
}

for (const engine of [OVER_NFT, LEGACY]) {
  const program = (family: "iptables" | "ip6tables") => `${family}-${engine.variant}`;

  // As upstream's end-to-end tests compare them (e2e/rules.go).
  ruleTest(
    `${engine.title}: rules are listed word by word as upstream's`,
    () =>
      withHost(engine, async (host, options) => {
        const firewall = await host.open(engine, { ...WANTED, ...options });
        const desired = planRuleSets({
          mode: "iptables",
          families: [IPV4],
          masquerade: true,
          forward: true,
          noMasqueradeCidrs: [],
          randomFully: true,
          docker: [],
        });
        await host.round(firewall, desired, options);
        const list = (...args: string[]) => host.namespace.run(program("iptables"), args, options);
        assert.equal(
          await list("-t", "nat", "-S", "FLANNEL-POSTRTG"),
          `-N FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.1.0/24 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
`,
        );
        assert.equal(
          await list("-t", "nat", "-S", "POSTROUTING"),
          `-P POSTROUTING ACCEPT
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
`,
        );
        assert.equal(
          await list("-S", "FORWARD") + await list("-S", "FLANNEL-FWD"),
          `-P FORWARD ACCEPT
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-N FLANNEL-FWD
-A FLANNEL-FWD -s 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.244.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
`,
        );
      }),
  );

  const jump = ["-m", "comment", "--comment", "flanneld masq", "-j", "FLANNEL-POSTRTG"];
  const drifts: [name: string, commands: string[][], fault: RegExp | undefined][] = [
    ["a rule is deleted", [["-D", "FLANNEL-POSTRTG", "3"]], undefined],
    ["the order is changed", [
      ["-D", "FLANNEL-POSTRTG", "1"],
      ["-A", "FLANNEL-POSTRTG", "-m", "mark", "--mark", "0x4000/0x4000"]
        .concat(["-m", "comment", "--comment", "flanneld masq", "-j", "RETURN"]),
    ], undefined],
    ["a rule is doubled", [
      ["-I", "FLANNEL-POSTRTG", "-m", "mark", "--mark", "0x4000/0x4000"]
        .concat(["-m", "comment", "--comment", "flanneld masq", "-j", "RETURN"]),
    ], undefined],
    ["a foreign rule is put in", [
      ["-I", "FLANNEL-POSTRTG", "-p", "tcp", "--dport", "80", "-j", "ACCEPT"],
    ], /FLANNEL-POSTRTG has a rule that is not ours: -p tcp/],
    ["the chain is emptied", [["-F", "FLANNEL-POSTRTG"]], undefined],
    ["the jump is deleted", [["-D", "POSTROUTING", ...jump]], /does not lead/],
    [
      "the jump is doubled",
      [["-I", "POSTROUTING", ...jump], ["-A", "POSTROUTING", ...jump]],
      /3 times/,
    ],
    ["the jump is in another chain", [
      ["-D", "POSTROUTING", ...jump],
      ["-A", "POSTROUTING", "-s", "10.0.0.0/8", ...jump],
    ], /POSTROUTING has a leftover rule: -s 10.0.0.0/],
    ["chain and jump are gone", [
      ["-D", "POSTROUTING", ...jump],
      ["-F", "FLANNEL-POSTRTG"],
      ["-X", "FLANNEL-POSTRTG"],
    ], undefined],
    ["upstream's clean-up left a chain", [["-N", "FLANNEL-FWD"]], /does not belong/],
    ["v0.14 left its rules", [
      ["-A", "POSTROUTING", "-s", "10.244.0.0/16", "-d", "10.244.0.0/16", "-j", "RETURN"],
      ["-A", "POSTROUTING", "-s", "10.244.0.0/16", "!", "-d", "224.0.0.0/4", "-j", "MASQUERADE"],
      ["-A", "POSTROUTING", "!", "-s", "10.244.0.0/16", "-d", "10.244.1.0/24", "-j", "RETURN"],
      ["-A", "POSTROUTING", "!", "-s", "10.244.0.0/16", "-d", "10.244.0.0/16", "-j", "MASQUERADE"],
    ], /leftover rule: -s 10.244.0.0\/16 -d 10.244.0.0\/16 -j RETURN/],
  ];

  ruleTest(`${engine.title}: drift of every kind is mended in one round`, async (test) => {
    await withHost(engine, async (host, options) => {
      const firewall = await host.open(engine, { ...WANTED, ...options });
      const desired = planned("iptables");
      await host.round(firewall, desired, options);
      const right = await holds(host, options);
      for (const [name, commands, fault] of drifts) {
        await test.step(name, async () => {
          for (const command of commands) {
            await host.namespace.run(program("iptables"), ["-t", "nat", ...command], options);
          }
          assert.notEqual(await holds(host, options), right);
          host.lines.length = 0;
          const round = await host.round(firewall, desired, options);
          assert.deepEqual(round.failures, []);
          assert.equal(round.changes.length, 1);
          assert.match(round.changes[0]!, /^(add|replace) rule set iptables nat IPv4$/);
          assert.equal(await holds(host, options), right);
          if (fault) assert.match(host.lines.join("\n"), fault);
          assert.deepEqual((await host.round(firewall, desired, options)).changes, []);
        });
      }
    });
  });

  ruleTest(
    `${engine.title}: foreign rules stay as they are, those in front are named`,
    () =>
      withHost(engine, async (host, options) => {
        const file = new URL(
          `../fixtures/firewall/iptables-${engine.variant}-save.txt`,
          import.meta.url,
        );
        // What kube-proxy and Docker have, one rule that is in the way, and ours of another subnet.
        const rules = (await Deno.readTextFile(file))
          .replaceAll("-A FLANNEL-POSTRTG -s 10.244.1.0/24", "-A FLANNEL-POSTRTG -s 10.244.77.0/24")
          .replace(
            "-A POSTROUTING -s 172",
            "-A POSTROUTING -o eth7 -j MASQUERADE\n-A POSTROUTING -s 172",
          );
        await host.namespace.run(`${program("iptables")}-restore`, [], {
          ...options,
          stdin: rules,
        });
        const foreign = (text: string) =>
          text.split("\n").filter((line) => !line.includes("flannel") && !line.includes("FLANNEL"));
        const before = foreign(await holds(host, options));
        assert.ok(before.some((line) => line.includes(`it\\'s \\"odd\\" \\\\ text`)));
        const options4 = { ...WANTED, networks: [IPV4.network], ...options };
        const firewall = await host.open(engine, options4);
        const desired = planned("iptables", [IPV4]);
        const round = await host.round(firewall, desired, options);
        assert.deepEqual(round.changes, ["replace rule set iptables nat IPv4"]);
        assert.deepEqual(foreign(await holds(host, options)), before);
        assert.match(
          firewall.describe().problems.map(sentenceOf).join("\n"),
          /-o eth7 -j MASQUERADE.*hides/,
        );
        assert.equal(firewall.describe().problems.length, 1);
        await host.round(firewall, desired, options);
        assert.equal(host.lines.filter((line) => line.includes("eth7")).length, 1);
        // They stay when ours go, too.
        const none = await host.open(engine, { ...options4, masquerade: false, forward: false });
        assert.deepEqual((await host.round(none, [], options)).failures, []);
        const after = await holds(host, options);
        assert.deepEqual(foreign(after), before);
        assert.ok(!after.includes("FLANNEL"));
      }),
  );

  ruleTest(
    `${engine.title}: packets never find our chain half full or without its jump`,
    () =>
      withHost(engine, async (host, options) => {
        const firewall = await host.open(engine, { ...WANTED, ...options });
        const other = { network: IPV4.network, subnet: Prefix.parse("10.244.7.0/24") };
        const plans = [planned("iptables", [IPV4]), planned("iptables", [other])];
        await host.round(firewall, plans[0]!, options);
        let done = false;
        const seen = new Set<string>();
        const watch = async () => {
          while (!done) {
            const text = await host.namespace.run(
              `/usr/sbin/${program("iptables")}-save`,
              ["-t", "nat"],
              { ...options, env: { PATH: "/usr/sbin:/usr/bin:/sbin:/bin" } },
            );
            seen.add(text.split("\n").filter((line) => line.startsWith("-A ")).join("\n"));
          }
        };
        const watching = watch();
        for (let i = 1; i <= 20; i++) {
          const { failures } = await host.round(firewall, plans[i % 2]!, options);
          assert.deepEqual(failures, []);
        }
        done = true;
        await watching;
        // The two right states, and nothing in between.
        assert.equal(seen.size, 2, [...seen].join("\n\n"));
        for (const text of seen) assert.equal(text.split("\n").length, 8);
      }),
  );
}

ruleTest("nftables: drift of every kind is mended in one round", async (test) => {
  const drifts: [name: string, script: string][] = [
    ["the table is deleted", "delete table ip flannel-ipv4"],
    ["a chain is emptied", "flush chain ip flannel-ipv4 postrtg"],
    [
      "a chain is deleted",
      "flush chain ip flannel-ipv4 forward; delete chain ip flannel-ipv4 forward",
    ],
    ["a rule is added in front", "insert rule ip flannel-ipv4 postrtg tcp dport 80 accept"],
    [
      "one of our rules is doubled",
      "insert rule ip flannel-ipv4 postrtg ip saddr 10.244.0.0/16 ip daddr 10.244.1.0/24 return",
    ],
    ["the policy is changed", "chain ip flannel-ipv4 forward { policy drop; }"],
    ["a chain is added", "add chain ip flannel-ipv4 other"],
    ["a set is added", "add set ip flannel-ipv4 pods { type ipv4_addr; }"],
    ["the table sleeps", "add table ip flannel-ipv4 { flags dormant; }"],
  ];
  await withHost(NFTABLES, async (host, options) => {
    const firewall = await host.open(NFTABLES, { ...WANTED, ...options });
    const desired = planned("nftables");
    await host.round(firewall, desired, options);
    const ruleset = () => host.namespace.run("nft", ["list", "ruleset"], options);
    // By line, since a table made anew comes last.
    const sorted = async () => (await ruleset()).split("\n").sort().join("\n");
    const right = await sorted();
    for (const [name, script] of drifts) {
      await test.step(name, async () => {
        await host.namespace.nft(`${script}\n`, options);
        assert.notEqual(await sorted(), right);
        const round = await host.round(firewall, desired, options);
        assert.deepEqual(round.failures, []);
        assert.match(round.changes.join(), /^(add|replace) rule set nftables flannel-ipv4 IPv4$/);
        assert.equal(await sorted(), right);
        assert.deepEqual((await host.round(firewall, desired, options)).changes, []);
      });
    }
  });
});

ruleTest(
  "nftables: other tables stay as they are",
  () =>
    withHost(NFTABLES, async (host, options) => {
      await host.namespace.nft(
        `table inet site {
  set s { type ipv4_addr; elements = { 10.244.1.7 } }
  chain post { type nat hook postrouting priority 100; ip saddr @s counter masquerade; }
}
`,
        options,
      );
      const site = () => host.namespace.run("nft", ["list", "table", "inet", "site"], options);
      const before = await site();
      const firewall = await host.open(NFTABLES, { ...WANTED, ...options });
      await host.round(firewall, planned("nftables"), options);
      assert.equal(await site(), before);
    }),
);

const switches: [from: Engine, to: Engine][] = [
  [OVER_NFT, NFTABLES],
  [NFTABLES, OVER_NFT],
  [LEGACY, { ...NFTABLES, variant: "legacy" }],
  [LEGACY, NFTABLES],
  [LEGACY, OVER_NFT],
  [OVER_NFT, LEGACY],
];

for (const [from, to] of switches) {
  const title = `${from.title} to ${to.title}, where "iptables" is ${to.variant}`;
  ruleTest(
    `from ${title}: the old rules go once the new ones are there`,
    () =>
      withHost(from, async (host, options) => {
        const before = await host.open(from, { ...WANTED, ...options });
        await host.round(before, planned(from.mode), options);
        await host.install(to);
        const firewall = await host.open(to, { ...WANTED, ...options });
        const desired = planned(to.mode);
        const round = await host.round(firewall, desired, options);
        assert.deepEqual(round.failures, []);
        const removals = round.changes.findIndex((change) => change.startsWith("remove"));
        assert.equal(removals, desired.length, round.changes.join("\n"));
        const text = await holds(host, options);
        const found = text.split("\n").filter((line) => /flannel/i.test(line)).length;
        await host.round(firewall, [], options);
        assert.ok(!/flannel/i.test(await holds(host, options)), text);
        // Exactly one set of rules had been there: per family two chains, two jumps and 9 rules, or
        // one table.
        assert.equal(found, to.mode === "iptables" ? 26 : 2);
      }),
  );
}

/** What nft may have put into the tables of iptables, and whether iptables can work beside it. */
const NATIVE: [name: string, script: string, table: "filter" | "nat", works: boolean][] = [
  [
    "a map in the built-in chain",
    "map m { type ipv4_addr : ipv4_addr; }\n" +
    "chain POSTROUTING { type nat hook postrouting priority 100; snat to ip saddr map @m; }",
    "nat",
    true,
  ],
  [
    "a chain that iptables cannot print",
    "map m { type ipv4_addr : verdict; }\n" +
    'chain x { meta mark set ct mark and 7; ip saddr vmap @m; log prefix "a" group 3; }',
    "filter",
    true,
  ],
  [
    "a base chain of its own",
    "chain mine { type nat hook postrouting priority 100; ip daddr 9.9.9.9 masquerade; }",
    "nat",
    true,
  ],
  [
    "the built-in chain at another priority",
    "chain FORWARD { type filter hook forward priority -5; }",
    "filter",
    false,
  ],
];

for (const [name, script, table, works] of NATIVE) {
  ruleTest(
    `iptables over nf_tables: nft has put into table ${table} ${name}`,
    () =>
      withHost(OVER_NFT, async (host, options) => {
        await host.namespace.nft(`table ip ${table} {\n${script}\n}\n`, options);
        const theirs = await host.namespace.run("nft", ["list", "ruleset"], options);
        const networks = [IPV4.network];
        const firewall = await host.open(OVER_NFT, { ...WANTED, networks, ...options });
        const desired = planned("iptables", [IPV4]);
        const first = await host.round(firewall, desired, options);
        if (!works) {
          assert.equal(first.failures.length, 1);
          assert.match(first.failures[0]!, /nft has made .*"EnableNFTables": true/);
          const other = await host.round(firewall, desired, options);
          assert.equal(other.changes.length, 1, "the other table is right");
        } else {
          assert.deepEqual(first.failures, []);
          const rules = (text: string) => text.match(/jump FLANNEL-|10\.244\.1\.0\/24/g)?.length;
          const held = await host.namespace.run("nft", ["list", "ruleset"], options);
          assert.equal(rules(held), 5);
          assert.deepEqual((await host.round(firewall, desired, options)).changes, []);
          // Drift is seen, and mended without anything being doubled.
          const { chain, hook } = table === "nat"
            ? { chain: "FLANNEL-POSTRTG", hook: "POSTROUTING" }
            : { chain: "FLANNEL-FWD", hook: "FORWARD" };
          const comment = table === "nat" ? "flanneld masq" : "flanneld forward";
          for (
            const drift of [
              ["-D", chain, "1"],
              ["-F", chain],
              ["-D", hook, "-m", "comment", "--comment", comment, "-j", chain],
            ]
          ) {
            await host.namespace.run("iptables-nft", ["-t", table, ...drift], options);
            assert.equal((await host.round(firewall, desired, options)).changes.length, 1);
            assert.deepEqual((await host.round(firewall, desired, options)).changes, []);
            assert.equal(rules(await host.namespace.run("nft", ["list", "ruleset"], options)), 5);
          }
        }
        const none = await host.open(OVER_NFT, {
          ...WANTED,
          networks,
          masquerade: false,
          forward: false,
          ...options,
        });
        assert.deepEqual((await host.round(none, [], options)).failures, []);
        const after = await host.namespace.run("nft", ["list", "table", "ip", table], options);
        assert.ok(!/flannel/i.test(after), after);
        assert.ok(theirs.includes(`table ip ${table} {`));
        // The other mode works in any case.
        const nft = await host.open(NFTABLES, { ...WANTED, networks, ...options });
        assert.deepEqual(
          (await host.round(nft, planned("nftables", [IPV4]), options)).failures,
          [],
        );
      }),
  );
}

ruleTest(
  "the old rules stay while the new ones cannot be written",
  () =>
    withHost(NFTABLES, async (host, options) => {
      const before = await host.open(OVER_NFT, { ...WANTED, ...options });
      await host.round(before, planned("iptables"), options);
      const old = await holds(host, options);
      // A chain type that cannot have this rule makes the transaction fail.
      const firewall = await host.open(NFTABLES, { ...WANTED, ...options });
      const [ipv4] = planned("nftables", [IPV4]);
      const wrong: RuleSetSpec = {
        ...ipv4!,
        chains: [{ purpose: "forward", rules: [{ verdict: "masquerade" }] }],
      };
      const round = await host.round(firewall, [wrong], options);
      assert.equal(round.failures.length, 5);
      assert.match(round.failures[0]!, /^Cannot run "nft -f -"/);
      assert.equal(await holds(host, options), old);
      const next = await host.round(firewall, planned("nftables"), options);
      assert.deepEqual(next.failures, []);
      assert.ok(!(await holds(host, options)).includes("FLANNEL"));
    }),
);

ruleTest(
  "rules in both variants of iptables are told, once",
  () =>
    withHost(OVER_NFT, async (host, options) => {
      await host.namespace.run("iptables-legacy", ["-P", "FORWARD", "DROP"], options);
      await host.namespace.run(
        "iptables-legacy",
        ["-A", "FORWARD", "-p", "icmp", "-j", "ACCEPT"],
        options,
      );
      const firewall = await host.open(OVER_NFT, { ...WANTED, ...options });
      assert.match(firewall.describe().program, /^iptables [0-9.]+ \(nft\)$/);
      for (const _ of [1, 2]) await host.round(firewall, planned("iptables"), options);
      const warnings = host.lines.filter((line) => line.startsWith("warn"));
      assert.equal(warnings.length, 2, warnings.join("\n"));
      assert.match(
        warnings.join("\n"),
        /both variants.*iptables-legacy-save shows 1 in the legacy/,
      );
      assert.match(warnings.join("\n"), /policy of chain FORWARD in iptables-legacy is DROP/);
      assert.deepEqual(firewall.describe().problems.length, 2);
    }),
);

ruleTest(
  "a missing program is an error only where it is needed",
  () =>
    withHost(OVER_NFT, async (host, options) => {
      const iptables = ["iptables", "ip6tables"];
      await host.install(OVER_NFT, iptables);
      await assert.rejects(host.open(OVER_NFT, { ...WANTED, ...options }), (error: Error) => {
        assert.ok(error instanceof OperatorError);
        assert.match(error.message, /iptables is not installed; install the package iptables/);
        return true;
      });
      const nft = await host.open(NFTABLES, { ...WANTED, ...options });
      assert.deepEqual((await host.round(nft, planned("nftables"), options)).failures, []);
      const none = { ...WANTED, masquerade: false, forward: false, ...options };
      assert.equal((await host.open(OVER_NFT, none)).describe().program, "none");

      await host.install(OVER_NFT, ["nft", "ip6tables", "ip6tables-save", "iptables-legacy-save"]);
      await assert.rejects(
        host.open(NFTABLES, { ...WANTED, ...options }),
        /nft is not installed; install the package nftables/,
      );
      await assert.rejects(
        host.open(OVER_NFT, { ...WANTED, ...options }),
        /ip6tables is not installed/,
      );
      const ipv4 = await host.open(OVER_NFT, { ...WANTED, networks: [IPV4.network], ...options });
      const round = await host.round(ipv4, planned("iptables", [IPV4]), options);
      assert.deepEqual(round.failures, []);
      assert.equal(round.changes.length, 2);
      assert.deepEqual(host.lines.filter((line) => line.startsWith("warn")), []);
    }),
);

ruleTest(
  "random source ports can be switched off",
  () =>
    withHost(NFTABLES, async (host, options) => {
      for (const engine of ENGINES) {
        const firewall = await host.open(engine, {
          ...WANTED,
          randomFullyDisabled: true,
          ...options,
        });
        assert.equal(firewall.randomFully, false);
      }
      assert.deepEqual(host.lines.filter((line) => line.startsWith("warn")), []);
      // Probing leaves nothing behind.
      assert.equal(await host.namespace.run("nft", ["list", "tables"], options), "");
    }),
);

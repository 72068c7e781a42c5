import assert from "node:assert/strict";
import { Prefix } from "../net/mod.ts";
import { PLACES, renderJump, renderRule } from "./iptables_rule.ts";
import { renderNftScript } from "./nft_ruleset.ts";
import { type PlanOptions, planRuleSets, ruleSetKind, type RuleSetSpec } from "./plan.ts";

const IPV4 = { network: Prefix.parse("10.42.0.0/16"), subnet: Prefix.parse("10.42.1.0/24") };
const IPV6 = {
  network: Prefix.parse("2001:cafe:42::/56"),
  subnet: Prefix.parse("2001:cafe:42:1::/64"),
};
const OPTIONS: PlanOptions = {
  mode: "iptables",
  families: [IPV4],
  masquerade: true,
  forward: true,
  noMasqueradeCidrs: [],
  randomFully: true,
  docker: [],
};

/** As `iptables -S` prints the chain and its jump. */
function iptablesText(sets: readonly RuleSetSpec[]): string {
  return sets.flatMap(({ chains }) =>
    chains.flatMap(({ purpose, rules }) => {
      const place = PLACES[purpose];
      return [
        `-A ${place.hook} ${renderJump(place)}`,
        ...rules.map((rule) => `-A ${place.chain} ${renderRule(rule, place.comment)}`),
      ];
    })
  ).join("\n");
}

// The literal text that upstream's end-to-end tests compare (e2e/rules.go).
Deno.test("planRuleSets() for iptables and IPv4 words upstream's rules", () => {
  assert.equal(
    iptablesText(planRuleSets(OPTIONS)),
    `-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.1.0/24 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 10.42.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FLANNEL-POSTRTG ! -s 10.42.0.0/16 -d 10.42.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE --random-fully
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 10.42.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT`,
  );
});

Deno.test("planRuleSets() leads packets of pods, and of what is not masqueraded, past Docker's rules", () => {
  const options: PlanOptions = {
    ...OPTIONS,
    families: [IPV4, IPV6],
    masquerade: false,
    docker: [4],
    noMasqueradeCidrs: [Prefix.parse("10.0.0.0/8"), Prefix.parse("fd00::/8")],
  };
  const plain = iptablesText(planRuleSets({ ...options, docker: [] }));
  assert.equal(
    iptablesText(planRuleSets({ ...options, families: [IPV4] })),
    iptablesText(planRuleSets({ ...options, families: [IPV4], docker: [] })) +
      `
-A DOCKER-USER -m comment --comment "flanneld docker forward" -j FLANNEL-DOCKER
-A FLANNEL-DOCKER -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld docker forward" -j ACCEPT
-A PREROUTING -m comment --comment "flanneld docker raw" -j FLANNEL-RAW
-A FLANNEL-RAW -s 10.42.0.0/16 -d 10.42.1.0/24 -m comment --comment "flanneld docker raw" -j ACCEPT
-A FLANNEL-RAW -s 10.0.0.0/8 -d 10.42.1.0/24 -m comment --comment "flanneld docker raw" -j ACCEPT`,
  );
  assert.ok(!iptablesText(planRuleSets(options)).includes("-A FLANNEL-RAW -s 2001"), "not closed");
  assert.ok(!plain.includes("FLANNEL-RAW"));
  assert.deepEqual(planRuleSets({ ...options, forward: false }), []);
  const nft = { ...options, mode: "nftables" as const };
  assert.deepEqual(planRuleSets(nft), planRuleSets({ ...nft, docker: [] }));
});

Deno.test("planRuleSets() for iptables and IPv6 words upstream's rules", () => {
  assert.equal(
    iptablesText(planRuleSets({ ...OPTIONS, families: [IPV6], randomFully: false })),
    `-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -m mark --mark 0x4000/0x4000 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 2001:cafe:42:1::/64 -d 2001:cafe:42::/56 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 2001:cafe:42::/56 -d 2001:cafe:42:1::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG ! -s 2001:cafe:42::/56 -d 2001:cafe:42:1::/64 -m comment --comment "flanneld masq" -j RETURN
-A FLANNEL-POSTRTG -s 2001:cafe:42::/56 ! -d ff00::/8 -m comment --comment "flanneld masq" -j MASQUERADE
-A FLANNEL-POSTRTG ! -s 2001:cafe:42::/56 -d 2001:cafe:42::/56 -m comment --comment "flanneld masq" -j MASQUERADE
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FLANNEL-FWD -s 2001:cafe:42::/56 -m comment --comment "flanneld forward" -j ACCEPT
-A FLANNEL-FWD -d 2001:cafe:42::/56 -m comment --comment "flanneld forward" -j ACCEPT`,
  );
});

Deno.test("planRuleSets() for nftables gives one script per family", () => {
  const sets = planRuleSets({ ...OPTIONS, mode: "nftables", families: [IPV4, IPV6] });
  assert.deepEqual(sets.map(ruleSetKind.key), [
    "nftables flannel-ipv4 IPv4",
    "nftables flannel-ipv6 IPv6",
  ]);
  assert.equal(
    renderNftScript(sets[0]!),
    `add table ip flannel-ipv4
delete table ip flannel-ipv4
table ip flannel-ipv4 {
  comment "rules for flannel-ipv4"
  chain postrtg {
    comment "chain to manage traffic masquerading by flannel"
    type nat hook postrouting priority 100; policy accept;
    meta mark & 0x00004000 == 0x00004000 return
    ip saddr 10.42.1.0/24 ip daddr 10.42.0.0/16 return
    ip saddr 10.42.0.0/16 ip daddr 10.42.1.0/24 return
    ip saddr != 10.42.0.0/16 ip daddr 10.42.1.0/24 return
    ip saddr 10.42.0.0/16 ip daddr != 224.0.0.0/4 masquerade fully-random
    ip saddr != 10.42.0.0/16 ip daddr 10.42.0.0/16 masquerade fully-random
  }
  chain forward {
    comment "chain to accept flannel traffic"
    type filter hook forward priority 0; policy accept;
    ip saddr 10.42.0.0/16 accept
    ip daddr 10.42.0.0/16 accept
  }
}
`,
  );
  assert.match(
    renderNftScript(sets[1]!),
    /ip6 saddr 2001:cafe:42::\/56 ip6 daddr != ff00::\/8 masquerade fully-random\n/,
  );
});

Deno.test("planRuleSets() puts exempt destinations before the first rule that masquerades", () => {
  const noMasqueradeCidrs = ["192.168.0.0/16", "fd00::/8", "198.51.100.7/32", "192.168.0.0/16"]
    .map((text) => Prefix.parse(text));
  const [ipv4, ipv6] = planRuleSets({
    ...OPTIONS,
    forward: false,
    families: [IPV4, IPV6],
    noMasqueradeCidrs,
  });
  const rules = iptablesText([ipv4!]).split("\n");
  assert.equal(rules.length, 9);
  assert.deepEqual(rules.slice(5, 7), [
    `-A FLANNEL-POSTRTG -d 192.168.0.0/16 -m comment --comment "flanneld masq" -j RETURN`,
    `-A FLANNEL-POSTRTG -d 198.51.100.7/32 -m comment --comment "flanneld masq" -j RETURN`,
  ]);
  assert.match(rules[4]!, /RETURN$/);
  assert.match(rules[7]!, /MASQUERADE --random-fully$/);
  assert.equal(
    iptablesText([ipv6!]).split("\n")[5],
    `-A FLANNEL-POSTRTG -d fd00::/8 -m comment --comment "flanneld masq" -j RETURN`,
  );
});

Deno.test("planRuleSets() leaves a condition that holds for every address away", () => {
  const [set] = planRuleSets({ ...OPTIONS, noMasqueradeCidrs: [Prefix.parse("0.0.0.0/0")] });
  assert.match(
    iptablesText([set!]),
    /-A FLANNEL-POSTRTG -m comment --comment "flanneld masq" -j RETURN/,
  );
  const [nft] = planRuleSets({
    ...OPTIONS,
    mode: "nftables",
    noMasqueradeCidrs: [Prefix.parse("0.0.0.0/0")],
  });
  assert.match(renderNftScript(nft!), /\n {4}return\n/);
});

const keys: [Partial<PlanOptions>, string[]][] = [
  [{ masquerade: false, forward: false }, []],
  [{ masquerade: false }, ["iptables filter IPv4"]],
  [{ forward: false }, ["iptables nat IPv4"]],
  [{ families: [] }, []],
  [{ families: [IPV4, IPV6] }, [
    "iptables nat IPv4",
    "iptables filter IPv4",
    "iptables nat IPv6",
    "iptables filter IPv6",
  ]],
  [{ mode: "nftables", masquerade: false, forward: false }, []],
  [{ mode: "nftables", masquerade: false }, ["nftables flannel-ipv4 IPv4"]],
];

for (const [change, expected] of keys) {
  Deno.test(`planRuleSets() makes ${expected.length} sets: ${expected.join(", ")} ${change.mode ?? ""}`, () => {
    assert.deepEqual(planRuleSets({ ...OPTIONS, ...change }).map(ruleSetKind.key), expected);
  });
}

Deno.test("ruleSetKind.equal() minds order, every condition and faults", () => {
  const [set] = planRuleSets(OPTIONS) as [RuleSetSpec, RuleSetSpec];
  const chain = set.chains[0]!;
  const withRules = (rules: typeof chain.rules): RuleSetSpec => ({
    ...set,
    chains: [{ ...chain, rules }],
  });
  assert.ok(ruleSetKind.equal(set, withRules([...chain.rules])));
  assert.ok(!ruleSetKind.equal(set, { ...set, faults: ["a jump is missing"] }));
  assert.ok(!ruleSetKind.equal(set, withRules(chain.rules.toReversed())));
  assert.ok(!ruleSetKind.equal(set, withRules(chain.rules.slice(1))));
  assert.ok(!ruleSetKind.equal(set, withRules([...chain.rules, chain.rules[0]!])));
  assert.ok(!ruleSetKind.equal(set, { ...set, chains: [] }));
  for (const [i, rule] of chain.rules.entries()) {
    const changed = { ...rule, verdict: "accept" as const };
    assert.ok(!ruleSetKind.equal(set, withRules(chain.rules.with(i, changed))));
    if (rule.source) {
      const source = { ...rule.source, negated: !rule.source.negated };
      assert.ok(!ruleSetKind.equal(set, withRules(chain.rules.with(i, { ...rule, source }))));
    }
  }
});

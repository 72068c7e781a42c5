import assert from "node:assert/strict";
import { Prefix } from "../net/mod.ts";
import { sentenceOf } from "../status/problems.ts";
import { findForeignRules } from "./foreign_rules.ts";
import { parseDump } from "./iptables_dump.ts";
import { surveyTable } from "./iptables_survey.ts";
import type { CommonPurpose } from "./plan.ts";

const NETWORKS = [Prefix.parse("10.244.0.0/16")];
const JUMPS = {
  masquerade: `-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`,
  forward: `-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD`,
};

/** Findings for these rules in front of our jump. */
function find(purpose: CommonPurpose, rules: readonly string[]): string[] {
  const chains = new Set(rules.map((rule) => rule.split(" ")[1]!));
  chains.add(purpose === "masquerade" ? "POSTROUTING" : "FORWARD").add("FLANNEL-FWD");
  const text = [
    purpose === "masquerade" ? "*nat" : "*filter",
    ...[...chains].map((chain) => `:${chain} - [0:0]`),
    ...rules,
    JUMPS[purpose],
    "COMMIT",
  ].join("\n");
  return findForeignRules(parseDump(text), purpose, NETWORKS).map(sentenceOf);
}

const cases: [CommonPurpose, rules: string[], finding: RegExp | undefined][] = [
  ["masquerade", [], undefined],
  ["masquerade", ["-A POSTROUTING -j MASQUERADE"], /hides the addresses of pods/],
  ["masquerade", ["-A POSTROUTING -o eth0 -j MASQUERADE"], /hides the addresses of pods/],
  ["masquerade", ["-A POSTROUTING -s 10.0.0.0/8 -j SNAT --to-source 1.2.3.4"], /hides/],
  ["masquerade", ["-A POSTROUTING -s 10.244.3.0/24 ! -d 224.0.0.0/4 -j MASQUERADE"], /hides/],
  ["masquerade", ["-A POSTROUTING -s 10.0.0.0/8 ! -d 10.0.0.0/8 -j MASQUERADE"], undefined],
  ["masquerade", ["-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"], undefined],
  ["masquerade", ["-A POSTROUTING ! -s 10.244.0.0/16 -j MASQUERADE"], undefined],
  ["masquerade", ["-A POSTROUTING -p tcp -m tcp --dport 25 -j MASQUERADE"], undefined],
  ["masquerade", ["-A POSTROUTING -m mark --mark 0x1/0x1 -j MASQUERADE"], undefined],
  ["masquerade", ["-A POSTROUTING -j ACCEPT"], /keeps pods from being masqueraded/],
  ["masquerade", ["-A POSTROUTING -s 10.244.0.0/16 -d 10.0.0.0/8 -j RETURN"], /keeps pods/],
  ["masquerade", ["-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN"], undefined],
  ["masquerade", ["-A POSTROUTING -d 224.0.0.0/4 -j RETURN"], undefined],
  [
    "masquerade",
    ["-A POSTROUTING -s 10.244.1.5/32 -j CNI-1", "-A CNI-1 ! -d 224.0.0.0/4 -j MASQUERADE"],
    /"-A CNI-1 ! -d 224.0.0.0\/4 -j MASQUERADE".*hides/,
  ],
  [
    "masquerade",
    ["-A POSTROUTING -s 172.17.0.0/16 -j OTHER", "-A OTHER -j MASQUERADE"],
    undefined,
  ],
  [
    "masquerade",
    [
      "-A POSTROUTING -j KUBE-POSTROUTING",
      "-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN",
      "-A KUBE-POSTROUTING -j MASQUERADE --random-fully",
    ],
    undefined,
  ],
  ["masquerade", ["-A POSTROUTING -j LOOP", "-A LOOP -j LOOP"], undefined],
  ["forward", ["-A FORWARD -j REJECT --reject-with icmp-host-prohibited"], /refuses to forward/],
  ["forward", ["-A FORWARD -d 10.244.7.0/24 -j DROP"], /refuses to forward/],
  ["forward", ["-A FORWARD -s 172.17.0.0/16 -d 172.18.0.0/16 -j DROP"], undefined],
  ["forward", ["-A FORWARD -m conntrack --ctstate INVALID -j DROP"], undefined],
  ["forward", ["-A FORWARD -o docker0 -j DROP"], undefined],
  ["forward", ["-A FORWARD -j ACCEPT"], undefined],
  ["forward", ["-A FORWARD -j DOCKER-USER", "-A DOCKER-USER -j DROP"], /refuses to forward/],
];

for (const [purpose, rules, finding] of cases) {
  Deno.test(`findForeignRules() ${finding ? "names" : "accepts"} ${rules.join(" | ") || "nothing"}`, () => {
    const found = find(purpose, rules);
    assert.equal(found.length, finding ? 1 : 0, found.join("\n"));
    if (finding) assert.match(found[0]!, finding);
  });
}

Deno.test("findForeignRules() stops at our jump", () => {
  const text = `*nat\n:POSTROUTING ACCEPT [0:0]\n:FLANNEL-POSTRTG - [0:0]\n${JUMPS.masquerade}\n` +
    "-A POSTROUTING -j MASQUERADE\nCOMMIT\n";
  assert.deepEqual(findForeignRules(parseDump(text), "masquerade", NETWORKS), []);
});

Deno.test("findForeignRules() does not take rules of upstream v0.19 for somebody else's", () => {
  // As iptables-save printed them on a host of v0.19.2 with --ip-masq.
  const upstream = [
    '-A POSTROUTING -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" -j RETURN',
    '-A POSTROUTING -s 10.244.0.0/16 ! -d 224.0.0.0/4 -m comment --comment "flanneld masq" ' +
    "-j MASQUERADE --random-fully",
    '-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.10.0/24 -m comment --comment "flanneld masq" ' +
    "-j RETURN",
    '-A POSTROUTING ! -s 10.244.0.0/16 -d 10.244.0.0/16 -m comment --comment "flanneld masq" ' +
    "-j MASQUERADE --random-fully",
  ];
  const theirs = "-A POSTROUTING -s 10.244.0.0/16 -j MASQUERADE";
  const findings = (rules: readonly string[]) => {
    const dump = parseDump(
      ["*nat", ":POSTROUTING ACCEPT [0:0]", ...rules, "COMMIT", ""].join("\n"),
    );
    const survey = surveyTable(dump, "masquerade", { networks: NETWORKS, replacesForward: true });
    assert.deepEqual(
      survey?.strays.map(({ chain, text }) => `-A ${chain} ${text}`),
      upstream,
    );
    return findForeignRules(dump, "masquerade", NETWORKS, survey.strays);
  };
  assert.deepEqual(findings(upstream), []);
  const [finding, ...more] = findings([...upstream, theirs]);
  assert.match(finding!.message, /"-A POSTROUTING -s 10\.244\.0\.0\/16 -j MASQUERADE".*hides/);
  assert.deepEqual(more, []);
});

Deno.test("findForeignRules() counts what it does not list", () => {
  const rules = Array.from({ length: 30 }, (_, i) => `-A POSTROUTING -o eth${i} -j MASQUERADE`);
  const found = find("masquerade", rules);
  assert.equal(found.length, 4);
  assert.match(found[3]!, /^27 more rules/);
});

for (const variant of ["nft", "legacy"]) {
  Deno.test(`findForeignRules() finds no fault with kube-proxy and Docker (${variant})`, async () => {
    const file = new URL(
      `../../tests/fixtures/firewall/iptables-${variant}-save.txt`,
      import.meta.url,
    );
    const dump = parseDump(await Deno.readTextFile(file));
    assert.deepEqual(findForeignRules(dump, "masquerade", NETWORKS), []);
    assert.deepEqual(findForeignRules(dump, "forward", NETWORKS), []);
  });
}

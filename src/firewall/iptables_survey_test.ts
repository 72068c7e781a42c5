import assert from "node:assert/strict";
import fc from "fast-check";
import { Address, type Family, Prefix } from "../net/mod.ts";
import { findUnprintedTables, parseDump } from "./iptables_dump.ts";
import { PLACES, readRule, renderRule, toRuleSpec } from "./iptables_rule.ts";
import { isRight, renderTransaction, surveyTable } from "./iptables_survey.ts";
import { planRuleSets, type PrefixMatch, type Purpose, type RuleSpec, ruleText } from "./plan.ts";

const FIXTURES = new URL("../../tests/fixtures/firewall/", import.meta.url);
const NETWORK = Prefix.parse("10.244.0.0/16");
const NETWORK6 = Prefix.parse("fd00:10:244::/48");
const OPTIONS = { networks: [NETWORK], replacesForward: true };

function planned(purpose: Purpose, family: Family = 4) {
  const sets = planRuleSets({
    mode: "iptables",
    families: family === 4
      ? [{ network: NETWORK, subnet: Prefix.parse("10.244.1.0/24") }]
      : [{ network: NETWORK6, subnet: Prefix.parse("fd00:10:244:1::/64") }],
    masquerade: purpose === "masquerade",
    forward: purpose === "forward",
    noMasqueradeCidrs: [Prefix.parse(family === 4 ? "192.0.2.9/32" : "2001:db8::1/128")],
    randomFully: true,
    docker: [],
  });
  return sets[0]!.chains[0]!;
}

for (const variant of ["nft", "legacy"]) {
  Deno.test(`surveyTable() finds nothing wrong in what iptables-${variant} prints of our rules`, async () => {
    const dump = parseDump(
      await Deno.readTextFile(new URL(`iptables-${variant}-save.txt`, FIXTURES)),
    );
    for (const purpose of ["masquerade", "forward"] as const) {
      const survey = surveyTable(dump, purpose, OPTIONS);
      assert.deepEqual(survey?.faults, []);
      assert.ok(isRight(survey, planned(purpose)));
      assert.ok(!isRight(survey, undefined));
    }
    const dump6 = parseDump(
      await Deno.readTextFile(new URL(`ip6tables-${variant}-save.txt`, FIXTURES)),
    );
    const options6 = { networks: [NETWORK6], replacesForward: true };
    assert.ok(isRight(surveyTable(dump6, "masquerade", options6), planned("masquerade", 6)));
    assert.equal(surveyTable(dump6, "forward", options6), undefined);
  });
}

Deno.test("readRule() undoes renderRule() for every rule", () => {
  const match = (family: Family) =>
    fc.record({
      prefix: fc.tuple(
        fc.bigInt({ min: 0n, max: family === 4 ? 2n ** 32n - 1n : 2n ** 128n - 1n }),
        fc.integer({ min: 1, max: family === 4 ? 32 : 128 }),
      ).map(([value, length]) => new Prefix(new Address(family, value), length)),
      negated: fc.boolean(),
    });
  const rule: fc.Arbitrary<RuleSpec> = fc.constantFrom<Family>(4, 6).chain((family) =>
    fc.record({
      mark: fc.option(
        fc.record({ value: fc.nat(0x7fffffff), mask: fc.nat(0x7fffffff) }),
        { nil: undefined },
      ),
      source: fc.option(match(family), { nil: undefined }),
      destination: fc.option(match(family), { nil: undefined }),
      verdict: fc.constantFrom(
        "accept" as const,
        "return" as const,
        "masquerade" as const,
        "masquerade-random" as const,
      ),
    }).map(({ mark, source, destination, verdict }) => ({
      ...(mark ? { mark } : {}),
      ...(source ? { source: source as PrefixMatch } : {}),
      ...(destination ? { destination: destination as PrefixMatch } : {}),
      verdict,
    }))
  );
  fc.assert(fc.property(rule, (spec) => {
    const read = readRule(renderRule(spec, "flanneld masq"));
    assert.equal(read.comment, "flanneld masq");
    assert.equal(ruleText(toRuleSpec(read)!), ruleText(spec));
  }));
});

Deno.test("readRule() tells rules that only look like ours", () => {
  for (
    const text of [
      `-s 10.0.0.0/8 -p tcp -j RETURN`,
      `-s 10.0.0.0/8 -o eth0 -j RETURN`,
      `! -i eth0 -j ACCEPT`,
      `-m mark ! --mark 0x4000/0x4000 -j RETURN`,
      `-m comment --comment "-j RETURN"`,
      `-g RETURN`,
      `-s 10.0.0.1/255.0.255.0 -j RETURN`,
      `-j MASQUERADE --to-ports 1-2 --random-fully`,
      `-j ACCEPT --what`,
      ``,
    ]
  ) assert.equal(toRuleSpec(readRule(text)), undefined, text);
  assert.equal(
    readRule(`-m comment --comment "a \\"b\\" \\\\ \\'c\\'" -j X`).comment,
    `a "b" \\ 'c'`,
  );
});

Deno.test("readRule() never throws", () => {
  fc.assert(fc.property(fc.string(), (text) => void readRule(text)));
});

Deno.test("parseDump() refuses what is cut short or something else", () => {
  assert.throws(() => parseDump("*nat\n:POSTROUTING ACCEPT [0:0]\n"), /cut short/);
  assert.throws(() => parseDump("*nat\n*filter\nCOMMIT\n"), /cut short/);
  assert.throws(() => parseDump("usage: iptables-save\n"), /unexpected line/);
  assert.throws(() => parseDump("*nat\n-A X -j Y\nCOMMIT\n"), /not declared/);
  const strange = "# Table `nat' is incompatible, use 'nft' tool.\n";
  assert.equal(parseDump(strange).size, 0);
  assert.deepEqual(findUnprintedTables(strange), ["nat"]);
  const rest = "# Table `nat' contains incompatible base-chains, use 'nft' tool to list them.\n";
  assert.deepEqual(findUnprintedTables(rest), []);
  assert.equal(parseDump("").size, 0);
});

/** A nat table with these rules in POSTROUTING and in our chain. */
function nat(hook: readonly string[], own?: readonly string[], more = ""): string {
  const rules = (chain: string, texts: readonly string[]) =>
    texts.map((text) => `-A ${chain} ${text}\n`).join("");
  return `*nat\n:PREROUTING ACCEPT [0:0]\n:POSTROUTING ACCEPT [0:0]\n${more}` +
    (own ? ":FLANNEL-POSTRTG - [0:0]\n" : "") + rules("POSTROUTING", hook) +
    rules("FLANNEL-POSTRTG", own ?? []) + "COMMIT\n";
}

const JUMP = `-m comment --comment "flanneld masq" -j FLANNEL-POSTRTG`;
const OWN = planned("masquerade").rules.map((rule) => renderRule(rule, "flanneld masq"));
const V14 = [
  "-s 10.244.0.0/16 -d 10.244.0.0/16 -j RETURN",
  "-s 10.244.0.0/16 ! -d 224.0.0.0/4 -j MASQUERADE --random-fully",
  "! -s 10.244.0.0/16 -d 10.244.9.0/24 -j RETURN",
  "! -s 10.244.0.0/16 -d 10.244.0.0/16 -j MASQUERADE --random-fully",
];
const FOREIGN = "-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE";
const REFILL = OWN.map((text) => `-A FLANNEL-POSTRTG ${text}`);

// What is found, and the lines that mend it, between "*nat" and "COMMIT".
const repairs: [name: string, dump: string, faults: RegExp[], lines: string[]][] = [
  ["a jump deleted", nat([FOREIGN], OWN), [/does not lead/], [
    ":FLANNEL-POSTRTG - [0:0]",
    ...REFILL,
    `-A POSTROUTING ${JUMP}`,
  ]],
  ["a jump doubled", nat([JUMP, FOREIGN, JUMP, JUMP], OWN), [/3 times/], [
    ":FLANNEL-POSTRTG - [0:0]",
    `-D POSTROUTING ${JUMP}`,
    `-D POSTROUTING ${JUMP}`,
    ...REFILL,
  ]],
  [
    "a jump in the wrong chain and one with a condition",
    nat([`-o eth0 ${JUMP}`], OWN, "").replace(
      "COMMIT",
      `-A PREROUTING ${JUMP}\nCOMMIT`,
    ),
    [/PREROUTING has a leftover/, /POSTROUTING has a leftover/, /does not lead/],
    [
      ":FLANNEL-POSTRTG - [0:0]",
      `-D PREROUTING ${JUMP}`,
      `-D POSTROUTING -o eth0 ${JUMP}`,
      ...REFILL,
      `-A POSTROUTING ${JUMP}`,
    ],
  ],
  ["the chain gone", nat([FOREIGN]), [], [
    ":FLANNEL-POSTRTG - [0:0]",
    ...REFILL,
    `-A POSTROUTING ${JUMP}`,
  ]],
  ["a foreign rule in our chain", nat([JUMP], ["-s 10.0.0.0/8 -j ACCEPT", ...OWN]), [
    /not ours: -s 10/,
  ], [":FLANNEL-POSTRTG - [0:0]", ...REFILL]],
  ["two rules swapped", nat([JUMP], [OWN[1]!, OWN[0]!, ...OWN.slice(2)]), [], [
    ":FLANNEL-POSTRTG - [0:0]",
    ...REFILL,
  ]],
  ["a rule doubled", nat([JUMP], [...OWN, OWN[0]!]), [], [
    ":FLANNEL-POSTRTG - [0:0]",
    ...REFILL,
  ]],
  ["rules of v0.14", nat([FOREIGN, ...V14]), V14.map(() => /leftover/), [
    ":FLANNEL-POSTRTG - [0:0]",
    ...V14.map((text) => `-D POSTROUTING ${text}`),
    ...REFILL,
    `-A POSTROUTING ${JUMP}`,
  ]],
  [
    "rules of v0.18",
    nat([`-s 10.9.0.0/16 -d 10.9.0.0/16 -m comment --comment "flanneld masq" -j RETURN`]),
    [/leftover/],
    [
      ":FLANNEL-POSTRTG - [0:0]",
      `-D POSTROUTING -s 10.9.0.0/16 -d 10.9.0.0/16 -m comment --comment "flanneld masq" -j RETURN`,
      ...REFILL,
      `-A POSTROUTING ${JUMP}`,
    ],
  ],
  ["a chain of the other table", nat([JUMP], OWN, ":FLANNEL-FWD - [0:0]\n"), [/does not belong/], [
    ":FLANNEL-POSTRTG - [0:0]",
    ":FLANNEL-FWD - [0:0]",
    ...REFILL,
    "-X FLANNEL-FWD",
  ]],
];

for (const [name, text, faults, lines] of repairs) {
  Deno.test(`renderTransaction() mends ${name}`, () => {
    const survey = surveyTable(parseDump(text), "masquerade", OPTIONS);
    const found = survey?.faults ?? [];
    assert.equal(found.length, faults.length, found.join("\n"));
    for (const [i, fault] of faults.entries()) assert.match(found[i]!, fault);
    assert.ok(!isRight(survey, planned("masquerade")));
    assert.deepEqual(
      renderTransaction("masquerade", survey, planned("masquerade")).split("\n"),
      ["*nat", ...lines, "COMMIT", ""],
    );
  });
}

Deno.test("renderTransaction() removes our chain with all that leads to it, and nothing else", () => {
  const dump = parseDump(nat([FOREIGN, JUMP, "-s 10.1.0.0/16 -j FLANNEL-POSTRTG"], OWN));
  const survey = surveyTable(dump, "masquerade", OPTIONS);
  assert.deepEqual(renderTransaction("masquerade", survey, undefined).split("\n"), [
    "*nat",
    ":FLANNEL-POSTRTG - [0:0]",
    `-D POSTROUTING ${JUMP}`,
    "-D POSTROUTING -s 10.1.0.0/16 -j FLANNEL-POSTRTG",
    "-X FLANNEL-POSTRTG",
    "COMMIT",
    "",
  ]);
});

Deno.test("surveyTable() takes nothing for v0.14's that is not its whole set", () => {
  const options = { networks: [NETWORK], replacesForward: false };
  const find = (texts: readonly string[]) =>
    surveyTable(parseDump(nat(texts)), "masquerade", options);
  assert.equal(find(V14)?.strays.length, 4);
  for (const i of V14.keys()) assert.equal(find(V14.toSpliced(i, 1)), undefined);
  assert.equal(find([...V14.slice(0, 2), FOREIGN, ...V14.slice(2)]), undefined);
  assert.equal(find(V14.toReversed()), undefined);
  assert.equal(find(V14.map((text) => text.replaceAll("10.244.", "10.243."))), undefined);
  assert.equal(find(V14.map((text) => text.replace("-j", "-o eth0 -j"))), undefined);
});

Deno.test("surveyTable() leaves unmarked FORWARD rules alone unless ours replace them", () => {
  const dump = parseDump(
    "*filter\n:FORWARD DROP [0:0]\n-A FORWARD -s 10.244.0.0/16 -j ACCEPT\n" +
      "-A FORWARD -d 10.244.0.0/16 -j ACCEPT\nCOMMIT\n",
  );
  const options = { networks: [NETWORK] };
  assert.equal(surveyTable(dump, "forward", { ...options, replacesForward: false }), undefined);
  const survey = surveyTable(dump, "forward", { ...options, replacesForward: true });
  assert.equal(survey?.strays.length, 2);
});

Deno.test("surveyTable() keeps other people's jumps to our chain while it exists", () => {
  const dump = parseDump(nat([JUMP, "-s 10.1.0.0/16 -j FLANNEL-POSTRTG"], OWN));
  const survey = surveyTable(dump, "masquerade", OPTIONS);
  assert.deepEqual(survey?.faults, []);
  assert.ok(isRight(survey, planned("masquerade")));
});

Deno.test("PLACES name a comment that needs no quoting beyond blanks", () => {
  for (const { comment } of Object.values(PLACES)) assert.match(comment, /^[a-z ]+$/);
});

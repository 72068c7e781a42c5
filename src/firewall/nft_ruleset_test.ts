import assert from "node:assert/strict";
import { type Family, Prefix } from "../net/mod.ts";
import { parseNftTable, renderNftScript } from "./nft_ruleset.ts";
import { planRuleSets, ruleSetKind, type RuleSetSpec } from "./plan.ts";

// Listings by nft 1.0.6 of what these plans wrote.
const PLANNED = planRuleSets({
  mode: "nftables",
  families: [
    { network: Prefix.parse("10.244.0.0/16"), subnet: Prefix.parse("10.244.1.0/24") },
    { network: Prefix.parse("fd00:10:244::/48"), subnet: Prefix.parse("fd00:10:244:1::/64") },
  ],
  masquerade: true,
  forward: true,
  noMasqueradeCidrs: [Prefix.parse("192.168.0.0/16"), Prefix.parse("1.2.3.4/32")],
  randomFully: true,
  docker: [],
});

function planned(family: Family): RuleSetSpec {
  return PLANNED.find((set) => set.family === family)!;
}

function listing(family: Family): Promise<string> {
  return Deno.readTextFile(
    new URL(`../../tests/fixtures/firewall/nft-flannel-ipv${family}.json`, import.meta.url),
  );
}

for (const family of [4, 6] as const) {
  Deno.test(`parseNftTable() reads IPv${family} rules back as they were planned`, async () => {
    const actual = parseNftTable(await listing(family), family);
    assert.equal(actual.faults, undefined);
    assert.ok(ruleSetKind.equal(planned(family), actual), JSON.stringify(actual, null, 1));
  });
}

interface Listing {
  // deno-lint-ignore no-explicit-any
  nftables: any[];
}

const spoilings: [name: string, spoil: (listing: Listing) => void, fault: RegExp | undefined][] = [
  ["a rule is missing", ({ nftables }) => {
    nftables.splice(nftables.findIndex((object) => object.rule), 1);
  }, undefined],
  ["two rules are swapped", ({ nftables }) => {
    const first = nftables.findIndex((object) => object.rule);
    nftables.splice(first, 2, nftables[first + 1], nftables[first]);
  }, undefined],
  ["a rule has a counter", ({ nftables }) => {
    nftables.find((object) => object.rule).rule.expr.unshift({ counter: { packets: 1 } });
  }, /postrtg has a rule that is not ours/],
  ["a mask is another", ({ nftables }) => {
    nftables.find((object) => object.rule).rule.expr[0].match.left["&"][1] = 0x8000;
  }, undefined],
  ["the mark has no mask", ({ nftables }) => {
    const { match } = nftables.find((object) => object.rule).rule.expr[0];
    match.left = match.left["&"][0];
  }, /postrtg has a rule that is not ours/],
  ["a condition is negated", ({ nftables }) => {
    nftables.filter((object) => object.rule)[1].rule.expr[0].match.op = "!=";
  }, undefined],
  ["masquerading lost its flag", ({ nftables }) => {
    const { rule } = nftables.find((object) => object.rule?.expr.at(-1).masquerade);
    rule.expr[rule.expr.length - 1] = { masquerade: null };
  }, undefined],
  ["masquerading has another flag", ({ nftables }) => {
    const { rule } = nftables.find((object) => object.rule?.expr.at(-1).masquerade);
    rule.expr.at(-1).masquerade.flags = ["fully-random", "persistent"];
  }, /not ours/],
  ["the chain has another priority", ({ nftables }) => {
    nftables.find((object) => object.chain).chain.prio = 99;
  }, /chain postrtg has another/],
  ["the chain drops", ({ nftables }) => {
    nftables.findLast((object) => object.chain).chain.policy = "drop";
  }, /chain forward has another/],
  ["the table sleeps", ({ nftables }) => {
    nftables.find((object) => object.table).table.flags = ["dormant"];
  }, /flags/],
  ["there is another chain", ({ nftables }) => {
    nftables.push({ chain: { family: "ip", table: "flannel-ipv4", name: "x", handle: 99 } });
  }, /chain x is not ours/],
  ["there is a set", ({ nftables }) => {
    nftables.push({ set: { family: "ip", table: "flannel-ipv4", name: "s" } });
  }, /set s is not ours/],
  ["a chain is gone", ({ nftables }) => {
    const rest = nftables.filter(({ chain, rule }) =>
      chain?.name !== "forward" && rule?.chain !== "forward"
    );
    nftables.splice(0, Infinity, ...rest);
  }, undefined],
];

for (const [name, spoil, fault] of spoilings) {
  Deno.test(`parseNftTable() notices when ${name}`, async () => {
    const objects: Listing = JSON.parse(await listing(4));
    spoil(objects);
    const actual = parseNftTable(JSON.stringify(objects), 4);
    assert.ok(!ruleSetKind.equal(planned(4), actual));
    if (fault) assert.match(actual.faults?.join() ?? "", fault);
    else assert.equal(actual.faults, undefined);
  });
}

Deno.test("parseNftTable() accepts other ways to print the same", async () => {
  const objects: Listing = JSON.parse(await listing(4));
  for (const { chain, rule } of objects.nftables) {
    if (chain) chain.prio = chain.name === "forward" ? "filter" : "srcnat";
    const last = rule?.expr.at(-1);
    if (last?.masquerade) last.masquerade.flags = ["fully-random"];
  }
  assert.ok(ruleSetKind.equal(planned(4), parseNftTable(JSON.stringify(objects), 4)));
});

Deno.test("parseNftTable() refuses other listings", () => {
  assert.throws(() => parseNftTable("", 4), /no such listing/);
  assert.throws(() => parseNftTable('{"nftables": 1}', 4), /no such listing/);
  assert.throws(() => parseNftTable('{"nftables": [{"metainfo": {}}]}', 4), /another listing/);
});

Deno.test("renderNftScript() without chains removes the table, there or not", () => {
  assert.equal(
    renderNftScript({ family: 6, chains: [] }),
    "add table ip6 flannel-ipv6\ndelete table ip6 flannel-ipv6\n",
  );
});

/** Our table in nftables as text: rendering its rules, reading them back. @module */
import * as v from "valibot";
import type { Family } from "../net/mod.ts";
import { readAddressText, readListing } from "./nft_listing.ts";
import type { CommonPurpose, PrefixMatch, RuleChainSpec, RuleSetSpec, RuleSpec } from "./plan.ts";

/** A base chain of ours. Names and comments are upstream's. */
interface ChainPlace {
  readonly name: string;
  readonly comment: string;
  readonly type: "nat" | "filter";
  readonly hook: "postrouting" | "forward";
  /** NF_IP_PRI_NAT_SRC and NF_IP_PRI_FILTER of linux/netfilter_ipv4.h; IPv6 has the same. */
  readonly priority: 100 | 0;
  /** How nft may print that priority. */
  readonly priorityName: string;
}

const CHAINS: Readonly<Record<CommonPurpose, ChainPlace>> = {
  masquerade: {
    name: "postrtg",
    comment: "chain to manage traffic masquerading by flannel",
    type: "nat",
    hook: "postrouting",
    priority: 100,
    priorityName: "srcnat",
  },
  forward: {
    name: "forward",
    comment: "chain to accept flannel traffic",
    type: "filter",
    hook: "forward",
    priority: 0,
    priorityName: "filter",
  },
};

/** The word for `family` in table names and expressions. */
export function nftFamily(family: Family): "ip" | "ip6" {
  return family === 4 ? "ip" : "ip6";
}

/** The table that is ours, as upstream calls it. */
export function nftTableName(family: Family): string {
  return `flannel-ipv${family}`;
}

/** A rule in nft's language. */
function renderNftRule(rule: RuleSpec, family: Family): string {
  const words: string[] = [];
  if (rule.mark) {
    const hex = (value: number) => `0x${value.toString(16).padStart(8, "0")}`;
    words.push(`meta mark & ${hex(rule.mark.mask)} == ${hex(rule.mark.value)}`);
  }
  const address = (field: string, match: PrefixMatch | undefined) => {
    if (match) {
      words.push(nftFamily(family), field, ...(match.negated ? ["!="] : []), `${match.prefix}`);
    }
  };
  address("saddr", rule.source);
  address("daddr", rule.destination);
  words.push(rule.verdict === "masquerade-random" ? "masquerade fully-random" : rule.verdict);
  return words.join(" ");
}

/**
 * Input of `nft -f -` that leaves exactly `set` in its table, or, without chains, no table. The
 * whole is one transaction: packets meet the old rules or the new ones, never none.
 */
export function renderNftScript(set: Pick<RuleSetSpec, "family" | "chains">): string {
  const table = `${nftFamily(set.family)} ${nftTableName(set.family)}`;
  // `delete` fails where there is nothing, so the table is made first; `destroy` is too new.
  const lines = [`add table ${table}`, `delete table ${table}`];
  if (set.chains.length > 0) {
    lines.push(`table ${table} {`, `  comment "rules for ${nftTableName(set.family)}"`);
    for (const { purpose, rules } of set.chains) {
      if (purpose !== "masquerade" && purpose !== "forward") continue; // with iptables alone
      const { name, comment, type, hook, priority } = CHAINS[purpose];
      lines.push(
        `  chain ${name} {`,
        `    comment "${comment}"`,
        `    type ${type} hook ${hook} priority ${priority}; policy accept;`,
        ...rules.map((rule) => `    ${renderNftRule(rule, set.family)}`),
        "  }",
      );
    }
    lines.push("}");
  }
  return lines.join("\n") + "\n";
}

const Named = v.object({ name: v.string() });
const Table = v.object({ name: v.string(), flags: v.optional(v.unknown()) });
const Chain = v.object({
  name: v.string(),
  type: v.optional(v.string()),
  hook: v.optional(v.string()),
  prio: v.optional(v.union([v.number(), v.string()])),
  policy: v.optional(v.string()),
});
const Rule = v.object({ chain: v.string(), expr: v.array(v.unknown()) });

/**
 * Reads the output of `nft -j list table` for our table of `family`.
 *
 * @throws {Error} If it is anything else.
 */
export function parseNftTable(text: string, family: Family): RuleSetSpec {
  const faults: string[] = [];
  const rules = new Map<string, RuleSpec[]>();
  let hasTable = false;
  for (const [kind, value] of readListing(text)) {
    if (kind === "metainfo") continue;
    if (kind === "table" && v.is(Table, value)) {
      hasTable = true;
      if (value.flags !== undefined) {
        faults.push(`the table has flags: ${JSON.stringify(value.flags)}`);
      }
    } else if (kind === "chain" && v.is(Chain, value)) {
      const place = Object.values(CHAINS).find(({ name }) => name === value.name);
      if (!place) {
        faults.push(`chain ${value.name} is not ours`);
        continue;
      }
      rules.set(place.name, []);
      const right = value.type === place.type && value.hook === place.hook &&
        value.policy === "accept" &&
        (value.prio === place.priority || value.prio === place.priorityName);
      if (!right) faults.push(`chain ${place.name} has another type, hook, priority or policy`);
    } else if (kind === "rule" && v.is(Rule, value)) {
      const chain = rules.get(value.chain);
      const rule = readExpression(value.expr, family);
      if (chain && rule) chain.push(rule);
      else if (chain) faults.push(`chain ${value.chain} has a rule that is not ours`);
    } else {
      const name = v.is(Named, value) ? ` ${value.name}` : "";
      faults.push(`${kind}${name} is not ours`);
    }
  }
  if (!hasTable) {
    throw new Error(`Cannot read table ${nftTableName(family)}: nft printed another listing`);
  }
  const chains: RuleChainSpec[] = [];
  for (const purpose of ["masquerade", "forward"] as const) {
    const found = rules.get(CHAINS[purpose].name);
    if (found) chains.push({ purpose, rules: found });
  }
  return {
    mode: "nftables",
    family,
    table: nftTableName(family),
    chains,
    ...(faults.length > 0 ? { faults } : {}),
  };
}

const AddressMatch = v.object({
  match: v.object({
    op: v.picklist(["==", "!="]),
    left: v.object({
      payload: v.object({ protocol: v.string(), field: v.picklist(["saddr", "daddr"]) }),
    }),
    right: v.unknown(),
  }),
});
const MarkMatch = v.object({
  match: v.object({
    op: v.literal("=="),
    left: v.object({
      "&": v.strictTuple([
        v.strictObject({ meta: v.strictObject({ key: v.literal("mark") }) }),
        v.number(),
      ]),
    }),
    right: v.number(),
  }),
});
const RandomMasquerade = v.object({
  masquerade: v.strictObject({
    flags: v.union([v.literal("fully-random"), v.strictTuple([v.literal("fully-random")])]),
  }),
});

/** A rule's statements as one of our rules; `undefined` if they are anything else. */
function readExpression(statements: readonly unknown[], family: Family): RuleSpec | undefined {
  const rule: { -readonly [Key in keyof RuleSpec]?: RuleSpec[Key] } = {};
  for (const statement of statements) {
    if (rule.verdict !== undefined) return undefined;
    if (v.is(MarkMatch, statement)) {
      if (rule.mark) return undefined;
      rule.mark = { value: statement.match.right, mask: statement.match.left["&"][1] };
    } else if (v.is(AddressMatch, statement)) {
      const { op, left: { payload }, right } = statement.match;
      const field = payload.field === "saddr" ? "source" : "destination";
      const prefix = readAddressText(right);
      if (payload.protocol !== nftFamily(family) || !prefix || rule[field]) return undefined;
      rule[field] = { prefix, negated: op === "!=" };
    } else if (v.is(RandomMasquerade, statement)) {
      rule.verdict = "masquerade-random";
    } else {
      const verdict = (["accept", "return", "masquerade"] as const).find((name) =>
        v.is(v.strictObject({ [name]: v.null() }), statement)
      );
      if (verdict === undefined) return undefined;
      rule.verdict = verdict;
    }
  }
  const { verdict } = rule;
  return verdict === undefined ? undefined : { ...rule, verdict };
}

/** Rules as iptables words them. @module */
import { Prefix } from "../net/mod.ts";
import { present } from "../util/present.ts";
import type { PrefixMatch, Purpose, RuleSpec } from "./plan.ts";

/** Where iptables keeps the rules of a purpose. Names and comments are upstream's. */
export interface Place {
  readonly table: "nat" | "filter" | "raw";
  readonly chain: string;
  /** The chain that leads to ours: a built-in one, or one that Docker leaves to others. */
  readonly hook: string;
  readonly comment: string;
  /** The jump is the hook's first rule; otherwise the last that packets come to. */
  readonly first?: true;
}

export const PLACES: Readonly<Record<Purpose, Place>> = {
  masquerade: {
    table: "nat",
    chain: "FLANNEL-POSTRTG",
    hook: "POSTROUTING",
    comment: "flanneld masq",
  },
  forward: {
    table: "filter",
    chain: "FLANNEL-FWD",
    hook: "FORWARD",
    comment: "flanneld forward",
  },
  "docker-forward": {
    table: "filter",
    chain: "FLANNEL-DOCKER",
    hook: "DOCKER-USER",
    comment: "flanneld docker forward",
  },
  "docker-raw": {
    table: "raw",
    chain: "FLANNEL-RAW",
    hook: "PREROUTING",
    comment: "flanneld docker raw",
    // Docker appends a rule for each container.
    first: true,
  },
};

export const PURPOSES = Object.keys(PLACES) as readonly Purpose[];

/** A rule as `iptables-save` prints it, as far as it is understood. */
export interface ReadRule {
  readonly mark?: { readonly value: number; readonly mask: number };
  readonly source?: PrefixMatch;
  readonly destination?: PrefixMatch;
  /** `-i`, `-o`: any condition on an interface. */
  readonly inInterface?: string;
  readonly outInterface?: string;
  readonly comment?: string;
  /** Target or chain of `-j` or `-g`, and what follows it. */
  readonly target?: string;
  readonly targetOptions: string;
  /** There are conditions beyond those above. */
  readonly other: boolean;
}

/**
 * The rule without `-A <chain>`, worded as `iptables -S` and `iptables-save` print it back:
 * addresses, then matches, then the target.
 */
export function renderRule(rule: RuleSpec, comment: string): string {
  const words: string[] = [];
  const address = (option: string, match: PrefixMatch | undefined) => {
    if (match) words.push(...(match.negated ? ["!"] : []), option, match.prefix.toString());
  };
  address("-s", rule.source);
  address("-d", rule.destination);
  if (rule.mark) {
    const { value, mask } = rule.mark;
    words.push(`-m mark --mark 0x${value.toString(16)}/0x${mask.toString(16)}`);
  }
  words.push(`-m comment --comment "${comment}"`, `-j ${TARGETS[rule.verdict]}`);
  return words.join(" ");
}

/** Targets with their options, by verdict. */
const TARGETS: Readonly<Record<RuleSpec["verdict"], string>> = {
  accept: "ACCEPT",
  return: "RETURN",
  masquerade: "MASQUERADE",
  "masquerade-random": "MASQUERADE --random-fully",
};

/** The jump from the hook to our chain, without `-A <hook>`. */
export function renderJump({ chain, comment }: Place): string {
  return `-m comment --comment "${comment}" -j ${chain}`;
}

/** An option of a rule, with the words up to the next one. */
interface RuleOption {
  readonly name: string;
  readonly values: readonly string[];
  /** Preceded by `!`. */
  readonly negated: boolean;
}

/** The options of a rule, without its `-A <chain>`, in order. */
export function readOptions(text: string): RuleOption[] {
  const options: { name: string; values: string[]; negated: boolean }[] = [];
  let negated = false;
  // Words end at blanks outside of double quotes, where a backslash takes the next character.
  for (const [, quoted, plain] of text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)) {
    const last = options.at(-1);
    const isComment = last?.name === "--comment" && last.values.length === 0;
    if (plain === "!" && !isComment) {
      negated = true;
    } else if (!last || (plain?.startsWith("-") && !isComment)) {
      options.push({ name: plain ?? "", values: [], negated });
      negated = false;
    } else {
      last.values.push(plain ?? quoted!.replaceAll(/\\(.)/g, "$1"));
    }
  }
  return options;
}

/** Reads a rule without its `-A <chain>`. Never throws: what is not understood is `other`. */
export function readRule(text: string): ReadRule {
  const rule: { -readonly [Key in keyof ReadRule]: ReadRule[Key] } = {
    targetOptions: "",
    other: false,
  };
  const options = readOptions(text);
  for (const [i, { name, values, negated }] of options.entries()) {
    const [value = "", ...more] = values;
    if (name === "-j" || name === "-g") {
      rule.target = value;
      const rest = options.slice(i + 1).flatMap((each) => [each.name, ...each.values]);
      rule.targetOptions = [...more, ...rest].join(" ");
      if (name === "-g" || negated) rule.other = true;
      break;
    }
    if (more.length > 0) rule.other = true;
    if (name === "-s" || name === "-d") {
      const prefix = Prefix.tryParseOrHost(value); // masks with holes are not prefixes
      if (prefix) rule[name === "-s" ? "source" : "destination"] = { prefix, negated };
      else rule.other = true;
    } else if (name === "-i" || name === "-o") {
      rule[name === "-i" ? "inInterface" : "outInterface"] = `${negated ? "!" : ""}${value}`;
    } else if (name === "--comment" && !negated) {
      rule.comment = value;
    } else if (name === "--mark" && !negated && /^0x[0-9a-f]+(\/0x[0-9a-f]+)?$/.test(value)) {
      const [mark, mask = 0xffffffff] = value.split("/").map(Number);
      rule.mark = { value: mark!, mask };
    } else if (name !== "-m" || (value !== "comment" && value !== "mark")) {
      rule.other = true;
    }
  }
  return rule;
}

/** The rule as one of ours; `undefined` if ours never look like it. */
export function toRuleSpec(rule: ReadRule): RuleSpec | undefined {
  if (rule.other || rule.inInterface !== undefined || rule.outInterface !== undefined) {
    return undefined;
  }
  const target = `${rule.target} ${rule.targetOptions}`.trim();
  const verdicts = Object.keys(TARGETS) as RuleSpec["verdict"][];
  const verdict = verdicts.find((each) => TARGETS[each] === target);
  if (verdict === undefined) return undefined;
  const { mark, source, destination } = rule;
  return present({ mark, source, destination, verdict });
}

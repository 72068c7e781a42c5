import { Address, addressBits, Prefix } from "../net/mod.ts";
import type { PrefixMatch, Purpose, RuleSpec } from "./plan.ts";

/** Where iptables keeps the rules of a purpose. Names and comments are upstream's. */
export interface Place {
  readonly table: "nat" | "filter";
  readonly chain: string;
  /** The built-in chain that leads to ours. */
  readonly hook: string;
  readonly comment: string;
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
};

/** A rule as `iptables-save` words it, read as far as its meaning is known here. */
export interface ReadRule {
  readonly mark?: { readonly value: number; readonly mask: number };
  readonly source?: PrefixMatch;
  readonly destination?: PrefixMatch;
  /** `-i`, `-o`: any condition on an interface. */
  readonly inInterface?: string;
  readonly outInterface?: string;
  readonly comment?: string;
  /** Target or chain of `-j` or `-g`. */
  readonly target?: string;
  readonly targetOptions: readonly string[];
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
    words.push(
      "-m mark --mark",
      `0x${rule.mark.value.toString(16)}/0x${rule.mark.mask.toString(16)}`,
    );
  }
  words.push(`-m comment --comment "${comment}"`);
  switch (rule.verdict) {
    case "accept":
      words.push("-j ACCEPT");
      break;
    case "return":
      words.push("-j RETURN");
      break;
    case "masquerade":
      words.push("-j MASQUERADE");
      break;
    case "masquerade-random":
      words.push("-j MASQUERADE --random-fully");
      break;
  }
  return words.join(" ");
}

/** The jump from the hook to our chain, without `-A <hook>`. */
export function renderJump({ chain, comment }: Place): string {
  return `-m comment --comment "${comment}" -j ${chain}`;
}

/** Reads a rule without its `-A <chain>`. Never throws: what is not understood is `other`. */
export function readRule(text: string): ReadRule {
  const words = splitWords(text);
  const rule: { -readonly [Key in keyof ReadRule]: ReadRule[Key] } = {
    targetOptions: [],
    other: false,
  };
  for (let i = 0, negated = false; i < words.length; i++) {
    const word = words[i]!;
    if (word === "!") {
      negated = true;
      continue;
    }
    const value = words[i + 1] ?? "";
    if (word === "-s" || word === "-d") {
      const prefix = parsePrefix(value);
      if (prefix) rule[word === "-s" ? "source" : "destination"] = { prefix, negated };
      else rule.other = true;
      i++;
    } else if (word === "-i" || word === "-o") {
      rule[word === "-i" ? "inInterface" : "outInterface"] = `${negated ? "!" : ""}${value}`;
      i++;
    } else if (word === "-m" && (value === "comment" || value === "mark")) {
      i++;
    } else if (word === "--comment" && !negated) {
      rule.comment = value;
      i++;
    } else if (word === "--mark" && !negated && /^0x[0-9a-f]+(\/0x[0-9a-f]+)?$/.test(value)) {
      const [mark, mask] = value.split("/");
      rule.mark = { value: Number(mark), mask: mask === undefined ? 0xffffffff : Number(mask) };
      i++;
    } else if (word === "-j" || word === "-g") {
      rule.target = value;
      rule.targetOptions = words.slice(i + 2);
      if (word === "-g" || negated) rule.other = true;
      break;
    } else {
      rule.other = true;
    }
    negated = false;
  }
  return rule;
}

/** The rule as one of ours, or `undefined` if it says anything that ours never do. */
export function toRuleSpec(rule: ReadRule): RuleSpec | undefined {
  if (rule.other || rule.inInterface !== undefined || rule.outInterface !== undefined) {
    return undefined;
  }
  const options = rule.targetOptions.join(" ");
  let verdict: RuleSpec["verdict"];
  if (rule.target === "ACCEPT" && options === "") verdict = "accept";
  else if (rule.target === "RETURN" && options === "") verdict = "return";
  else if (rule.target === "MASQUERADE" && options === "") verdict = "masquerade";
  else if (rule.target === "MASQUERADE" && options === "--random-fully") {
    verdict = "masquerade-random";
  } else return undefined;
  return {
    ...(rule.mark ? { mark: rule.mark } : {}),
    ...(rule.source ? { source: rule.source } : {}),
    ...(rule.destination ? { destination: rule.destination } : {}),
    verdict,
  };
}

/** `10.0.0.1/32`, `10.0.0.1` or `fd00::/8`; masks with holes are not prefixes. */
function parsePrefix(text: string): Prefix | undefined {
  const address = Address.tryParse(text);
  return address ? new Prefix(address, addressBits(address.family)) : Prefix.tryParse(text);
}

/** Splits at blanks outside of double quotes; a backslash within them takes the next character. */
export function splitWords(text: string): string[] {
  return [...text.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g)].map(([, quoted, plain]) =>
    quoted === undefined ? plain! : quoted.replaceAll(/\\(.)/g, "$1")
  );
}

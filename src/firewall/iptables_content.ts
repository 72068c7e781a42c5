/**
 * The tables of iptables as chains that `findRefusal()` can walk: each rule in the words in which
 * `nft -j` prints rules. What is not known here becomes a match that is not understood.
 *
 * @module
 */
import type { Family } from "../net/mod.ts";
import { parseDump } from "./iptables_dump.ts";
import { splitWords } from "./iptables_rule.ts";
import type { ChainContent, TableContent } from "./nft_verdicts.ts";

/** The tables whose chains may refuse packets. */
const TABLES = ["raw", "mangle", "filter", "security"];

type Statement = Record<string, unknown>;

/** Reads what `iptables-save` prints. @throws {Error} If it is no such output. */
export function readIptablesTables(text: string, family: Family): TableContent[] {
  const dump = parseDump(text);
  return TABLES.flatMap((table) => {
    const chains = dump.get(table);
    if (!chains) return [];
    const content: Map<string, ChainContent> = new Map();
    for (const [name, { policy, rules }] of chains) {
      const base = {
        family: family === 4 ? "ip" : "ip6",
        table,
        name,
        hook: name.toLowerCase(),
        type: "filter",
      };
      content.set(name, {
        policy: policy.toLowerCase(),
        rules: rules.map((rule) => ({ expr: readStatements(rule, family), text: rule })),
        ...(policy === "-" ? {} : { base }),
      });
    }
    return [{ chains: content, sets: new Map(), program: family === 4 ? "iptables" : "ip6tables" }];
  });
}

const VERDICTS: Readonly<Record<string, string>> = {
  ACCEPT: "accept",
  DROP: "drop",
  REJECT: "reject",
  RETURN: "return",
};

/** Targets that change a packet or tell of it, and after which the next rule follows. */
const PASSING_TARGETS: ReadonlySet<string> = new Set([
  "CHECKSUM",
  "CONNMARK",
  "CT",
  "DSCP",
  "LOG",
  "MARK",
  "NFLOG",
  "NOTRACK",
  "SET",
  "TCPMSS",
  "TOS",
  "TRACE",
]);

function readStatements(rule: string, family: Family): Statement[] {
  const words = splitWords(rule);
  const statements: Statement[] = [];
  let module = "";
  const match = (left: unknown, right: unknown, negated: boolean) =>
    void statements.push({ match: { op: negated ? "!=" : "==", left, right } });
  const unknown = () => void statements.push({ xt: { type: "match", name: module } });
  for (let i = 0, negated = false; i < words.length; i++, negated = false) {
    if (words[i] === "!") {
      negated = true;
      i++;
    }
    const [word, value = ""] = [words[i], words[i + 1]];
    const ip = family === 4 ? "ip" : "ip6";
    switch (word) {
      case "-s":
      case "-d": {
        const field = word === "-s" ? "saddr" : "daddr";
        const [addr, len] = value.split("/");
        const right = /^\d+$/.test(len ?? "") ? { prefix: { addr, len: Number(len) } } : value;
        match({ payload: { protocol: ip, field } }, right, negated);
        i++;
        break;
      }
      case "-i":
      case "-o": {
        const key = word === "-i" ? "iifname" : "oifname";
        match({ meta: { key } }, value.replace(/\+$/, "*"), negated);
        i++;
        break;
      }
      case "-p":
        if (value !== "all") match({ meta: { key: "l4proto" } }, value, negated);
        i++;
        break;
      case "-m":
        module = value;
        // Most modules only announce what follows.
        if (!ANNOUNCED_MODULES.has(value)) unknown();
        i++;
        break;
      case "--dport":
      case "--sport": {
        const [first, last = first] = value.split(":").map(Number);
        const field = word === "--dport" ? "dport" : "sport";
        const right = first === last ? first : { range: [first, last] };
        match({ payload: { protocol: "th", field } }, right, negated);
        i++;
        break;
      }
      case "--mark": {
        const [mark, mask] = value.split("/").map(Number);
        const left = { meta: { key: "mark" } };
        match(mask === undefined ? left : { "&": [left, mask] }, mark, negated);
        i++;
        break;
      }
      case "--ctstate":
      case "--state":
        match({ ct: { key: "state" } }, value.toLowerCase().split(","), negated);
        i++;
        break;
      case "--dst-type":
      case "--src-type": {
        const flags = [word === "--dst-type" ? "daddr" : "saddr"];
        match({ fib: { result: "type", flags } }, value.toLowerCase(), negated);
        i++;
        break;
      }
      case "--match-set":
        // Docker's own bridges with their subnets; what else sets hold is not known.
        if (!/^docker-ext-bridges-v[46]$/.test(value) || words[i + 2] !== "dst") unknown();
        else match({ meta: { key: "oifname" } }, "docker0", negated);
        i += 2;
        break;
      case "--comment":
        i++;
        break;
      case "-j":
      case "-g":
        statements.push(readTarget(word, value));
        return statements;
      default:
        if (word?.startsWith("-")) unknown();
    }
  }
  return statements;
}

const ANNOUNCED_MODULES: ReadonlySet<string> = new Set([
  "addrtype",
  "comment",
  "conntrack",
  "mark",
  "set",
  "state",
  "tcp",
  "udp",
]);

function readTarget(word: string, target: string): Statement {
  const verdict = VERDICTS[target];
  if (verdict !== undefined) return { [verdict]: null };
  if (PASSING_TARGETS.has(target)) return { log: null };
  // A chain, or an extension that may let the packet through for good.
  return { [word === "-g" ? "goto" : "jump"]: { target } };
}

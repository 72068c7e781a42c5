/**
 * The tables of iptables as chains that `findRefusal()` can walk, with rules as `nft -j` prints them.
 * Unknown conditions become matches that are not understood.
 *
 * @module
 */
import type { Family } from "../net/mod.ts";
import { parseDump } from "./iptables_dump.ts";
import { readOptions } from "./iptables_rule.ts";
import type { ChainContent, TableContent } from "./nft_verdicts.ts";

/** The tables whose chains may refuse packets. */
const TABLES = ["raw", "mangle", "filter", "security"];

type Statement = Record<string, unknown>;

/** Reads what `iptables-save` prints. @throws {Error} If it is anything else. */
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

/** Targets that change or log a packet and continue with the next rule. */
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
  const statements: Statement[] = [];
  let module = "";
  const unknown = () => void statements.push({ xt: { type: "match", name: module } });
  for (const { name, values: [value = "", second], negated } of readOptions(rule)) {
    const match = (left: unknown, right: unknown) =>
      void statements.push({ match: { op: negated ? "!=" : "==", left, right } });
    switch (name) {
      case "-s":
      case "-d": {
        const [addr, len] = value.split("/");
        const right = /^\d+$/.test(len ?? "") ? { prefix: { addr, len: Number(len) } } : value;
        const protocol = family === 4 ? "ip" : "ip6";
        match({ payload: { protocol, field: name === "-s" ? "saddr" : "daddr" } }, right);
        break;
      }
      case "-i":
      case "-o":
        match({ meta: { key: name === "-i" ? "iifname" : "oifname" } }, value.replace(/\+$/, "*"));
        break;
      case "-p":
        if (value !== "all") match({ meta: { key: "l4proto" } }, value);
        break;
      case "-m":
        module = value;
        // These only introduce the options that follow.
        if (!KNOWN_MODULES.has(value)) unknown();
        break;
      case "--dport":
      case "--sport": {
        const [first, last = first] = value.split(":").map(Number);
        const right = first === last ? first : { range: [first, last] };
        match({ payload: { protocol: "th", field: name.slice(2) } }, right);
        break;
      }
      case "--mark": {
        const [mark, mask] = value.split("/").map(Number);
        const left = { meta: { key: "mark" } };
        match(mask === undefined ? left : { "&": [left, mask] }, mark);
        break;
      }
      case "--ctstate":
      case "--state":
        match({ ct: { key: "state" } }, value.toLowerCase().split(","));
        break;
      case "--dst-type":
      case "--src-type": {
        const flags = [name === "--dst-type" ? "daddr" : "saddr"];
        match({ fib: { result: "type", flags } }, value.toLowerCase());
        break;
      }
      case "--match-set":
        // Docker's own bridges with their subnets; the content of other sets is unknown.
        if (!/^docker-ext-bridges-v[46]$/.test(value) || second !== "dst") unknown();
        else match({ meta: { key: "oifname" } }, "docker0");
        break;
      case "--comment":
        break;
      case "-j":
      case "-g":
        statements.push(readTarget(name, value));
        return statements;
      default:
        unknown();
    }
  }
  return statements;
}

const KNOWN_MODULES: ReadonlySet<string> = new Set([
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
  // A chain, or an extension that may accept the packet.
  return { [word === "-g" ? "goto" : "jump"]: { target } };
}

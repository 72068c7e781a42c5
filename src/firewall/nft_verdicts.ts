/**
 * What the chains of nftables do to a packet: a pure walk through rules as `nft -j` prints them,
 * for packets that are known as far as a {@linkcode Flow} says. It is for chains of others, so
 * whatever is not understood counts as harmless.
 *
 * @module
 */
import * as v from "valibot";
import { Address, type Family, type Prefix } from "../net/mod.ts";
import { readAddressText, readListing } from "./nft_listing.ts";

/** First packets of connections, without a mark, to a port that no rule names unless given. */
export interface Flow {
  readonly family: Family;
  /** All addresses in these. */
  readonly source: Prefix;
  readonly destination: Prefix;
  readonly inputLink?: string;
  readonly outputLink?: string;
  /** @default tcp */
  readonly protocol?: "tcp" | "udp" | "ipip";
  /** Destination port. @default one that no rule names */
  readonly port?: number;
  /** The destination is an address of this host. */
  readonly isLocal?: boolean;
}

/** Where a packet ended. */
export interface Refusal {
  readonly verdict: "drop" | "reject";
  /** The chain whose rule or policy it was. */
  readonly chain: string;
  /** Absent for a policy. */
  readonly rule?: RuleContent;
}

const ChainObject = v.object({
  family: v.string(),
  table: v.string(),
  name: v.string(),
  type: v.optional(v.string()),
  hook: v.optional(v.string()),
  policy: v.optional(v.string()),
  dev: v.optional(v.union([v.string(), v.array(v.string())])),
});
const RuleObject = v.object({
  chain: v.string(),
  handle: v.optional(v.number()),
  expr: v.array(v.record(v.string(), v.unknown())),
});
const SetObject = v.object({ name: v.string(), elem: v.optional(v.array(v.unknown())) });
const TableObject = v.object({ flags: v.optional(v.unknown()) });

/** A chain that a hook leads to. */
export interface BaseChain {
  readonly family: string;
  readonly table: string;
  readonly name: string;
  readonly hook: string;
  /** `filter`, `nat` or `route`. */
  readonly type: string;
  /** The links of a chain at `ingress` or `egress`, where nft lists them. */
  readonly devices?: readonly string[];
}

/** A chain and its rules. */
export interface ChainContent {
  readonly base?: BaseChain;
  readonly policy: string;
  readonly rules: RuleContent[];
}

/** A rule: conditions, then what becomes of a packet for which they hold. */
export interface RuleContent {
  readonly handle?: number | undefined;
  /** As iptables words it. */
  readonly text?: string;
  readonly expr: readonly Readonly<Record<string, unknown>>[];
}

/** The chains and sets of one table. */
export interface TableContent {
  readonly chains: ReadonlyMap<string, ChainContent>;
  readonly sets: ReadonlyMap<string, readonly unknown[]>;
  /** Whose tables these are, if not all of nftables': `iptables` or `ip6tables`. */
  readonly program?: string;
}

/** The base chains that a listing of `nft -j` names. @throws {Error} If it is no such listing. */
export function readBaseChains(text: string): BaseChain[] {
  return readListing(text).flatMap(([kind, value]) => {
    if (kind !== "chain" || !v.is(ChainObject, value)) return [];
    return toBase(value) ?? [];
  });
}

function toBase(
  { family, table, name, hook, type, dev }: v.InferOutput<typeof ChainObject>,
): BaseChain | undefined {
  if (hook === undefined || type === undefined) return undefined;
  return { family, table, name, hook, type, ...(dev ? { devices: [dev].flat() } : {}) };
}

/** The links of a chain that `nft list chain` prints, which nft's JSON leaves out (1.0.6). */
export function readDevices(text: string): readonly string[] {
  const [, list = ""] = /hook \w+ devices? (?:= )?([^;]*?) priority/.exec(text) ?? [];
  return list.split(/[\s{},"]+/).filter((name) => name !== "");
}

/** Reads `nft -j list table`. @throws {Error} If it is no such listing. */
export function readNftTable(text: string): TableContent {
  const chains = new Map<string, ChainContent>();
  const sets = new Map<string, readonly unknown[]>();
  for (const [kind, value] of readListing(text)) {
    // A dormant table does nothing.
    if (kind === "table" && v.is(TableObject, value) && /dormant/.test(String(value.flags))) break;
    if (kind === "chain" && v.is(ChainObject, value)) {
      const { name, policy = "accept" } = value;
      const base = toBase(value);
      chains.set(name, { policy, rules: [], ...(base ? { base } : {}) });
    } else if (kind === "rule" && v.is(RuleObject, value)) {
      chains.get(value.chain)?.rules.push(value);
    } else if ((kind === "set" || kind === "map") && v.is(SetObject, value)) {
      sets.set(value.name, value.elem ?? []);
    }
  }
  return { chains, sets };
}

/** Deeper jumps are not followed (the kernel's limit is 16). */
const MAX_DEPTH = 16;

/**
 * Where base chain `name` drops or rejects every packet of `flow`; `undefined` if it does not, or
 * if that depends on something that is not understood.
 */
export function findRefusal(table: TableContent, name: string, flow: Flow): Refusal | undefined {
  const base = table.chains.get(name);
  if (!base) return undefined;
  const walk = new Walk(table, flow);
  const end = walk.through(name, 0);
  if (walk.mayAccept) return undefined;
  if (end !== undefined) return end === "accept" ? undefined : end;
  return base.policy === "drop" ? { verdict: "drop", chain: name } : undefined;
}

/** How a chain ends: `undefined` when it runs out of rules or returns. */
type End = "accept" | Refusal | undefined;

/** True, false, or unknown. */
type Truth = boolean | undefined;

function not(value: Truth): Truth {
  return value === undefined ? undefined : !value;
}

/** Whether any, or all, of them hold. */
function any(values: readonly Truth[]): Truth {
  return values.includes(true) ? true : values.includes(undefined) ? undefined : false;
}
function all(values: readonly Truth[]): Truth {
  return not(any(values.map(not)));
}

class Walk {
  readonly #table: TableContent;
  readonly #flow: Flow;
  /** A rule that is not understood may have let packets through. */
  mayAccept = false;

  constructor(table: TableContent, flow: Flow) {
    this.#table = table;
    this.#flow = flow;
  }

  through(name: string, depth: number): End {
    for (const rule of this.#table.chains.get(name)?.rules ?? []) {
      let holds: Truth = true;
      for (const statement of rule.expr) {
        const verdict = this.#verdictOf(statement);
        if (verdict === undefined) {
          holds = all([holds, this.#holds(statement)]);
          if (holds === false) break;
          continue;
        }
        const { action, target } = verdict;
        if (action === "continue") break;
        const isChain = this.#table.chains.has(target);
        if (action === "return") {
          if (holds) return undefined;
          break;
        }
        const end = action === "jump" || action === "goto"
          // Anything but a chain is an unknown target of iptables.
          ? depth < MAX_DEPTH && isChain ? this.through(target, depth + 1) : "accept"
          : action === "accept"
          ? "accept"
          : { verdict: action, chain: name, rule };
        if (holds === undefined) {
          if (end === "accept") this.mayAccept = true;
          break;
        }
        if (end !== undefined || action === "goto") return end;
        break;
      }
    }
    return undefined;
  }

  /** The verdict that a statement gives once all before it hold, if it gives one. */
  #verdictOf(statement: Readonly<Record<string, unknown>>): Verdict | undefined {
    if ("vmap" in statement) return this.#verdictByMap(statement.vmap);
    if ("xt" in statement) {
      const { type, name } = statement.xt as { type?: string; name?: string };
      if (type !== "target") return undefined;
      if (name === "REJECT") return { action: "reject", target: "" };
      // It may accept the packet.
      return name === "NFQUEUE" ? { action: "accept", target: "" } : undefined;
    }
    for (const action of ["accept", "drop", "reject", "return", "continue"] as const) {
      if (action in statement) return { action, target: "" };
    }
    if ("queue" in statement) return { action: "accept", target: "" };
    for (const action of ["jump", "goto"] as const) {
      const value = statement[action];
      if (v.is(Target, value)) return { action, target: value.target };
    }
    return undefined;
  }

  #verdictByMap(value: unknown): Verdict | undefined {
    if (!v.is(VerdictMap, value)) return undefined;
    const { key, data } = value;
    const entries = typeof data === "string"
      ? this.#table.sets.get(data.replace(/^@/, "")) ?? []
      : data.set;
    for (const entry of entries) {
      if (!Array.isArray(entry) || entry.length !== 2) continue;
      const [element, verdict] = entry as [unknown, unknown];
      if (element !== "*" && !this.#equals(key, element)) continue;
      if (typeof verdict !== "object" || verdict === null) continue;
      return this.#verdictOf(verdict as Record<string, unknown>);
    }
    return undefined;
  }

  /** Whether a statement's condition holds. */
  #holds(statement: Readonly<Record<string, unknown>>): Truth {
    const [kind, value] = Object.entries(statement)[0] ?? ["", undefined];
    if (kind === "match") {
      if (!v.is(Match, value)) return undefined;
      const { op, left, right } = value;
      if (op === "!=") return not(this.#equals(left, right));
      return op === "==" || op === "in" ? this.#equals(left, right) : undefined;
    }
    if (kind === "xt") {
      const { name = "" } = value as { name?: string };
      return name === "comment" ? true : FALSE_MATCHES.has(name) ? false : undefined;
    }
    if (kind === "limit" || kind === "quota" || kind === "vmap" || kind === "ct count") {
      return kind === "vmap" ? false : undefined;
    }
    return true; // counters, logs, marks, address translation
  }

  #equals(left: unknown, right: unknown): Truth {
    if (typeof right === "string" && right.startsWith("@")) {
      const elements = this.#table.sets.get(right.slice(1));
      return elements && any(elements.map((each) => this.#equals(left, valueOf(each))));
    }
    if (Array.isArray(right)) return any(right.map((each) => this.#equals(left, valueOf(each))));
    if (v.is(Group, right)) return any(right.set.map((each) => this.#equals(left, valueOf(each))));
    if (v.is(Concatenation, left)) {
      if (!v.is(Concatenation, right)) return undefined;
      return all(left.concat.map((each, i) => this.#equals(each, right.concat[i])));
    }
    return this.#comparesField(left, right);
  }

  #comparesField(left: unknown, right: unknown): Truth {
    const flow = this.#flow;
    if (v.is(Payload, left)) {
      const { protocol, field } = left.payload;
      const family = protocol === "ip" ? 4 : protocol === "ip6" ? 6 : undefined;
      if (family !== undefined) {
        if (family !== flow.family) return false;
        if (field === "saddr") return matchesAddress(flow.source, right);
        if (field === "daddr") return matchesAddress(flow.destination, right);
        return field === "protocol" || field === "nexthdr"
          ? isProtocol(this.#flow, right)
          : undefined;
      }
      if (protocol === "ether") return undefined;
      if (protocol !== "th" && !isProtocol(this.#flow, protocol)) return false;
      return field === "dport" ? matchesNumber(flow.port, right) : matchesNumber(undefined, right);
    }
    if (v.is(Meta, left)) return META[left.meta.key]?.(flow, right);
    if (v.is(Masked, left)) return v.is(Meta, left["&"][0]) ? right === 0 : undefined;
    if (v.is(Conntrack, left)) return CONNTRACK[left.ct.key]?.(right);
    if (v.is(Fib, left)) {
      const { result, flags } = left.fib;
      if (result !== "type") return right !== false; // there is a way back
      return right === (flags.includes("daddr") && flow.isLocal ? "local" : "unicast");
    }
    return undefined;
  }
}

function isProtocol({ protocol = "tcp" }: Flow, right: unknown): boolean {
  const numbers = { tcp: 6, udp: 17, ipip: 4 };
  return right === protocol || Number(right) === numbers[protocol] ||
    (protocol === "ipip" && (right === "ipencap" || right === "ipv4"));
}

type Compare<Of extends unknown[]> = Readonly<Record<string, (...of: Of) => Truth>>;

/** Whether a packet's metadata is `right`, by nft's key. */
const META: Compare<[flow: Flow, right: unknown]> = {
  iif: ({ inputLink }, right) => matchesName(inputLink, right),
  iifname: ({ inputLink }, right) => matchesName(inputLink, right),
  oif: ({ outputLink }, right) => matchesName(outputLink, right),
  oifname: ({ outputLink }, right) => matchesName(outputLink, right),
  nfproto: ({ family }, right) => right === `ipv${family}`,
  protocol: ({ family }, right) => right === (family === 4 ? "ip" : "ip6"),
  l4proto: isProtocol,
  mark: (_, right) => right === 0,
  pkttype: (_, right) => right === "host",
};

/** The same of its connection, which is a new one. */
const CONNTRACK: Compare<[right: unknown]> = {
  state: (right) => right === "new",
  status: () => false,
  mark: (right) => right === 0,
  direction: (right) => right === "original",
};

interface Verdict {
  readonly action: "accept" | "drop" | "reject" | "return" | "continue" | "jump" | "goto";
  readonly target: string;
}

/**
 * Matches of iptables whose conditions nft does not print, and that select few packets: established
 * connections, local addresses, certain ports.
 */
const FALSE_MATCHES: ReadonlySet<string> = new Set([
  "addrtype",
  "conntrack",
  "icmp",
  "icmp6",
  "limit",
  "multiport",
  "rpfilter",
  "state",
]);

const Target = v.object({ target: v.string() });
const VerdictMap = v.object({
  key: v.unknown(),
  data: v.union([v.string(), v.object({ set: v.array(v.unknown()) })]),
});
const Match = v.object({ op: v.string(), left: v.unknown(), right: v.unknown() });
const Group = v.object({ set: v.array(v.unknown()) });
const Concatenation = v.object({ concat: v.array(v.unknown()) });
const Payload = v.object({ payload: v.object({ protocol: v.string(), field: v.string() }) });
const Meta = v.object({ meta: v.object({ key: v.string() }) });
const Masked = v.object({ "&": v.tuple([v.unknown(), v.unknown()]) });
const Conntrack = v.object({ ct: v.object({ key: v.string() }) });
const Fib = v.object({ fib: v.object({ result: v.string(), flags: v.array(v.string()) }) });
const Element = v.object({ elem: v.object({ val: v.unknown() }) });
const RangeText = v.object({ range: v.tuple([v.unknown(), v.unknown()]) });

/** An element of a set, which may have a timeout, a comment or a counter. */
function valueOf(element: unknown): unknown {
  return v.is(Element, element) ? element.elem.val : element;
}

/** Whether all addresses of `prefix` are in `right`; a rule for only some counts as false. */
function matchesAddress(prefix: Prefix, right: unknown): Truth {
  if (v.is(RangeText, right)) {
    const [first, last] = right.range.map((each) => Address.tryParse(String(each)));
    if (!first || !last || first.family !== prefix.family) return undefined;
    return first.value <= prefix.address.value && prefix.last.value <= last.value;
  }
  return readAddressText(right)?.contains(prefix);
}

/** Ranges of at least this many ports match a port that no rule names. */
const WIDE_RANGE = 32_768;

function matchesNumber(port: number | undefined, right: unknown): Truth {
  if (v.is(RangeText, right)) {
    const [first, last] = right.range.map(Number);
    if (port === undefined) return last! - first! >= WIDE_RANGE;
    return first! <= port && port <= last!;
  }
  return port !== undefined && right === port;
}

/** `undefined` as name: there is no such link at this hook. */
function matchesName(name: string | undefined, right: unknown): Truth {
  if (typeof right !== "string") return undefined;
  if (name === undefined) return false;
  return right.endsWith("*") ? name.startsWith(right.slice(0, -1)) : name === right;
}

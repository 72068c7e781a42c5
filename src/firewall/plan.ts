/** Plans the traffic rules: masquerading, forwarding. @module */
import { Address, type Family, Prefix } from "../net/mod.ts";
import type { Kind } from "../reconcile/table.ts";

/** Which of the kernel's two rule languages holds the rules: `EnableNFTables` chooses. */
export type FirewallMode = "iptables" | "nftables";

/** What a chain is for. */
export type Purpose = CommonPurpose | DockerPurpose;

/** What there is in either mode. */
export type CommonPurpose = "masquerade" | "forward";

/** To lead packets of pods past what Docker 28 and later drop: on a bridge, and for a container. */
type DockerPurpose = "docker-forward" | "docker-raw";

/** A condition on one address of a packet. */
export interface PrefixMatch {
  readonly prefix: Prefix;
  /** The address is outside of `prefix`. */
  readonly negated: boolean;
}

/** One rule: a packet for which every condition holds meets `verdict`. */
export interface RuleSpec {
  /** `packet mark & mask === value` */
  readonly mark?: { readonly value: number; readonly mask: number };
  readonly source?: PrefixMatch;
  readonly destination?: PrefixMatch;
  readonly verdict: "accept" | "return" | "masquerade" | "masquerade-random";
}

/** The rules of one chain; their order decides. */
export interface RuleChainSpec {
  readonly purpose: Purpose;
  readonly rules: readonly RuleSpec[];
}

/**
 * What is ours in one table of the kernel: the unit that is read, compared and replaced in one
 * transaction. With iptables that is one chain in `nat`, `filter` or `raw` and the jump to it, with
 * nftables the whole of `ip flannel-ipv4` or `ip6 flannel-ipv6`.
 */
export interface RuleSetSpec {
  readonly mode: FirewallMode;
  readonly family: Family;
  /** `nat`, `filter`, `filter DOCKER-USER`, `raw`, `flannel-ipv4` or `flannel-ipv6`. */
  readonly table: string;
  readonly chains: readonly RuleChainSpec[];
  /**
   * Only in actual state: whose tables these are where the host has iptables twice, and this is
   * not the one that the command `iptables` manages.
   */
  readonly variant?: IptablesVariant;
  /** Only in actual state: one phrase for each thing that is wrong. */
  readonly faults?: readonly string[];
}

/** iptables over the kernel's own ip_tables, or over nf_tables. Packets pass through both. */
export type IptablesVariant = "legacy" | "nft";

/** One family's share of {@linkcode PlanOptions}. */
export interface FamilyNetwork {
  /** The whole network. */
  readonly network: Prefix;
  /** This host's subnet of it. */
  readonly subnet: Prefix;
}

/** What the rules depend on. */
export interface PlanOptions {
  readonly mode: FirewallMode;
  /** At most one per family. */
  readonly families: readonly FamilyNetwork[];
  /** `--ip-masq` */
  readonly masquerade: boolean;
  /** `--iptables-forward-rules` */
  readonly forward: boolean;
  /** Where Docker refuses what other hosts send to containers; of no effect with nftables. */
  readonly docker: readonly Family[];
  /** `--no-masq-cidr`: destinations that see the source address unchanged; any family. */
  readonly noMasqueradeCidrs: readonly Prefix[];
  /** Whether masquerading picks source ports at random, which avoids races for them. */
  readonly randomFully: boolean;
}

/** Where each chain is with iptables, in one word for the rule set. */
export const IPTABLES_SETS: Readonly<Record<Purpose, string>> = {
  masquerade: "nat",
  forward: "filter",
  "docker-forward": "filter DOCKER-USER",
  "docker-raw": "raw",
};

/** What kube-proxy sets on packets that it masquerades itself. */
const KUBE_PROXY_MARK = { value: 0x4000, mask: 0x4000 };

/**
 * The rule sets that should exist; both modes get the same rules, so that they treat each packet
 * alike. The rules are upstream's, in its order (`pkg/trafficmngr/iptables`), those of
 * `noMasqueradeCidrs` right before the first rule that masquerades.
 *
 * Upstream's nftables rules differ from its iptables rules in two places, and there these follow
 * the latter: the mark is compared under its mask, since other bits may be set as well, and the
 * client's address is kept for pods of this host (`!network -> subnet`), not for the whole
 * network, which kept the last rule from ever masquerading what hosts send to remote pods.
 *
 * Where Docker refuses them, packets between pods are accepted before it, as narrowly as that can
 * be: no others get to a container whose port is not published. A rule in nftables cannot do this.
 */
export function planRuleSets(options: PlanOptions): RuleSetSpec[] {
  const sets: RuleSetSpec[] = [];
  for (const { network, subnet } of options.families) {
    const { family } = network;
    const chains: RuleChainSpec[] = [];
    if (options.masquerade) {
      chains.push({ purpose: "masquerade", rules: masqueradeRules(network, subnet, options) });
    }
    if (options.forward) chains.push({ purpose: "forward", rules: forwardRules(network) });
    if (options.mode === "iptables") {
      if (options.forward && options.docker.includes(family)) {
        chains.push(...dockerChains(network, subnet, options));
      }
      for (const chain of chains) {
        sets.push({
          mode: "iptables",
          family,
          table: IPTABLES_SETS[chain.purpose],
          chains: [chain],
        });
      }
    } else if (chains.length > 0) {
      sets.push({ mode: "nftables", family, table: `flannel-ipv${family}`, chains });
    }
  }
  return sets;
}

function masqueradeRules(network: Prefix, subnet: Prefix, options: PlanOptions): RuleSpec[] {
  const masquerade = options.randomFully ? "masquerade-random" : "masquerade";
  return [
    // kube-proxy masquerades marked packets; twice made some kernels lose connections.
    { mark: KUBE_PROXY_MARK, verdict: "return" },
    // Within the network pods see each other's own addresses.
    { source: inside(subnet), destination: inside(network), verdict: "return" },
    { source: inside(network), destination: inside(subnet), verdict: "return" },
    // Clients of local pods keep their address.
    { source: outside(network), destination: inside(subnet), verdict: "return" },
    ...exempted(network, options).map((prefix): RuleSpec => ({
      ...conditionOn("destination", prefix),
      verdict: "return",
    })),
    {
      source: inside(network),
      destination: outside(multicast(network.family)),
      verdict: masquerade,
    },
    // From hosts to remote pods: the reply must come back through the network.
    { source: outside(network), destination: inside(network), verdict: masquerade },
  ];
}

function forwardRules(network: Prefix): RuleSpec[] {
  return [
    { source: inside(network), verdict: "accept" },
    { destination: inside(network), verdict: "accept" },
  ];
}

/** Only packets of pods reach a container, and replies to its own. */
function dockerChains(network: Prefix, subnet: Prefix, options: PlanOptions): RuleChainSpec[] {
  const accept = (source: Prefix): RuleSpec => ({
    ...conditionOn("source", source),
    destination: inside(subnet),
    verdict: "accept",
  });
  return [
    { purpose: "docker-forward", rules: [accept(network)] },
    { purpose: "docker-raw", rules: [network, ...exempted(network, options)].map(accept) },
  ];
}

/** `--no-masq-cidr` of the network's family, each once. */
function exempted({ family }: Prefix, { noMasqueradeCidrs }: PlanOptions): Prefix[] {
  const prefixes = noMasqueradeCidrs.filter((prefix) => prefix.family === family);
  return [...new Map(prefixes.map((prefix) => [prefix.toString(), prefix])).values()];
}

/** Neither iptables nor nftables keeps a condition on a prefix of length 0. */
function conditionOn(field: "source" | "destination", prefix: Prefix): Partial<RuleSpec> {
  return prefix.length === 0 ? {} : { [field]: inside(prefix) };
}

function inside(prefix: Prefix): PrefixMatch {
  return { prefix, negated: false };
}

function outside(prefix: Prefix): PrefixMatch {
  return { prefix, negated: true };
}

/** 224.0.0.0/4 or ff00::/8 */
export function multicast(family: Family): Prefix {
  return family === 4
    ? new Prefix(new Address(4, 0xe0n << 24n), 4)
    : new Prefix(new Address(6, 0xffn << 120n), 8);
}

/** Rule sets of one mode, family and table are one object; every rule is compared, in order. */
export const ruleSetKind: Kind<RuleSetSpec> = {
  id: "rule-set",
  name: "rule set",
  key({ mode, variant, table, family }) {
    return `${mode}${variant === undefined ? "" : `-${variant}`} ${table} IPv${family}`;
  },
  equal(desired, actual) {
    return (actual.faults ?? []).length === 0 && (desired.faults ?? []).length === 0 &&
      JSON.stringify(desired.chains.map(comparable)) ===
        JSON.stringify(actual.chains.map(comparable));
  },
  /** Tables list only what has flanneld's names or comments. */
  owns: () => true,
  format(set) {
    const chains = set.chains.map(({ purpose, rules }) => `${rules.length} to ${purpose}`);
    const contents = chains.length > 0 ? `rules: ${chains.join(", ")}` : "no rules";
    return `${ruleSetKind.key(set)} (${contents})`;
  },
};

function comparable({ purpose, rules }: RuleChainSpec): unknown {
  return [purpose, rules.map(ruleText)];
}

/** A canonical text, for comparing rules. */
export function ruleText({ mark, source, destination, verdict }: RuleSpec): string {
  const parts: string[] = [];
  if (mark) parts.push(`mark ${mark.value}/${mark.mask}`);
  if (source) parts.push(`from ${source.negated ? "!" : ""}${source.prefix}`);
  if (destination) parts.push(`to ${destination.negated ? "!" : ""}${destination.prefix}`);
  parts.push(verdict);
  return parts.join(" ");
}

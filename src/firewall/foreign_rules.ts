/** Finds foreign rules of iptables that decide before ours. @module */
import type { Prefix } from "../net/mod.ts";
import type { Finding } from "../status/model.ts";
import type { Dump } from "./iptables_dump.ts";
import { PLACES, type ReadRule, readRule } from "./iptables_rule.ts";
import type { PlacedRule } from "./iptables_survey.ts";
import { type CommonPurpose, multicast, type PrefixMatch } from "./plan.ts";

/** How many user-defined chains deep a packet is followed. */
const MAX_DEPTH = 4;

/** More findings than this are counted, not listed. */
const MAX_LISTED = 3;

/** Conditions on a packet's addresses, all of which hold. */
interface Conditions {
  readonly source: readonly PrefixMatch[];
  readonly destination: readonly PrefixMatch[];
}

/**
 * Foreign rules that decide about the network's packets before ours: NAT of traffic between pods,
 * pods kept from being masqueraded, forwarding refused. They are reported and never changed.
 *
 * Only rules that match by addresses alone are reported (with nat also those bound to an outgoing
 * interface): a rule with other conditions, such as kube-proxy's on marks or a firewall's on ports,
 * is taken to be intended.
 *
 * @param strays Our own rules in the wrong place, as after an upgrade; they are about to be removed.
 */
export function findForeignRules(
  dump: Dump,
  purpose: CommonPurpose,
  networks: readonly Prefix[],
  strays: readonly PlacedRule[] = [],
): Finding[] {
  const place = PLACES[purpose];
  const own = new Set(strays.map(({ chain, text }) => `${chain} ${text}`));
  const chains = dump.get(place.table);
  const found = new Map<string, Finding>();

  function walk(chain: string, conditions: Conditions, depth: number): void {
    for (const text of chains?.get(chain)?.rules ?? []) {
      if (own.has(`${chain} ${text}`)) continue;
      const rule = readRule(text);
      if (rule.target === place.chain && depth === 0) return;
      const narrow = rule.other || rule.mark !== undefined || rule.inInterface !== undefined ||
        (rule.outInterface !== undefined &&
          !(purpose === "masquerade" && rule.target !== undefined &&
            ADDRESS_TARGETS.has(rule.target)));
      if (narrow) {
        // What comes after a conditional RETURN holds for an unknown part of the packets.
        if (rule.target === "RETURN" && depth > 0) return;
        continue;
      }
      const both: Conditions = {
        source: [...conditions.source, ...(rule.source ? [rule.source] : [])],
        destination: [...conditions.destination, ...(rule.destination ? [rule.destination] : [])],
      };
      if (rule.target !== undefined && chains?.has(rule.target)) {
        if (depth < MAX_DEPTH) walk(rule.target, both, depth + 1);
        continue;
      }
      for (const network of networks) {
        const effect = purpose === "masquerade"
          ? natEffect(rule, both, network, depth)
          : forwardEffect(rule, both, network);
        if (effect !== undefined) {
          found.set(`${chain} ${text}`, {
            code: "foreign-rule",
            object: `${place.table} -A ${chain} ${text}`,
            message: `The rule "-A ${chain} ${text}" of table ${place.table} ${effect.does}`,
            ...(effect.remedy === undefined ? {} : { remedy: effect.remedy }),
          });
        }
      }
    }
  }

  walk(place.hook, { source: [], destination: [] }, 0);
  const findings = [...found.values()];
  return findings.length <= MAX_LISTED ? findings : [
    ...findings.slice(0, MAX_LISTED),
    {
      code: "foreign-rule",
      object: `more in table ${place.table}`,
      message:
        `${
          findings.length - MAX_LISTED
        } more rules of others in table ${place.table} come before ` +
        `those of flannel`,
      remedy: `see "iptables -t ${place.table} -S"`,
    },
  ];
}

/** What a rule does to the network's packets, and what helps. */
interface Effect {
  readonly does: string;
  readonly remedy?: string;
}

/** Targets that change a packet's source address. */
const ADDRESS_TARGETS: ReadonlySet<string> = new Set(["MASQUERADE", "SNAT", "NETMAP"]);

function natEffect(
  rule: ReadRule,
  conditions: Conditions,
  network: Prefix,
  depth: number,
): Effect | undefined {
  if (!conditions.source.every((match) => mayHold(match, network))) return undefined;
  if (rule.target !== undefined && ADDRESS_TARGETS.has(rule.target)) {
    return conditions.destination.every((match) => mayHold(match, network))
      ? {
        does: "comes before those of flannel and hides the addresses of pods from each other",
        remedy: `exclude ${network} from it`,
      }
      : undefined;
  }
  const ends = rule.target === "ACCEPT" || (rule.target === "RETURN" && depth === 0);
  const leavesNetwork = conditions.destination.every(({ prefix, negated }) =>
    negated || !(network.contains(prefix) || multicast(network.family).contains(prefix))
  );
  return ends && leavesNetwork
    ? { does: "comes before those of flannel and keeps pods from being masqueraded" }
    : undefined;
}

function forwardEffect(
  rule: ReadRule,
  conditions: Conditions,
  network: Prefix,
): Effect | undefined {
  if (rule.target !== "DROP" && rule.target !== "REJECT") return undefined;
  const concerns = conditions.source.every((match) => mayHold(match, network)) ||
    conditions.destination.every((match) => mayHold(match, network));
  return concerns
    ? { does: `comes before those of flannel and refuses to forward packets of ${network}` }
    : undefined;
}

/** Whether a packet with an address in `network` may meet the condition. */
function mayHold({ prefix, negated }: PrefixMatch, network: Prefix): boolean {
  return negated ? !prefix.contains(network) : prefix.overlaps(network);
}

/** What one table of iptables holds of ours, and the transaction that corrects it. @module */
import type { Prefix } from "../net/mod.ts";
import type { Dump, DumpedChain } from "./iptables_dump.ts";
import {
  type Place,
  PLACES,
  type ReadRule,
  readRule,
  renderJump,
  renderRule,
  toRuleSpec,
} from "./iptables_rule.ts";
import {
  type CommonPurpose,
  multicast,
  type Purpose,
  type RuleChainSpec,
  type RuleSpec,
} from "./plan.ts";

/** A rule and its chain; `text` is without `-A <chain>`. */
export interface PlacedRule {
  readonly chain: string;
  readonly text: string;
}

/** What one table of iptables holds of ours. */
export interface Survey {
  readonly place: Place;
  /** Our chain is there. */
  readonly hasChain: boolean;
  /** The rules of our chain that were understood, in order. */
  readonly rules: readonly RuleSpec[];
  /** Number of jumps from the hook to our chain. */
  readonly jumps: number;
  /** Ours in the wrong place: rules of earlier versions, misplaced jumps. */
  readonly strays: readonly PlacedRule[];
  /** Foreign jumps to our chain; removed only with the chain, which they would keep. */
  readonly references: readonly PlacedRule[];
  /** Chains of ours that belong in another table; upstream's clean-up leaves one. */
  readonly misplacedChains: readonly string[];
  /** One phrase for each thing that is wrong, whatever rules are desired. */
  readonly faults: readonly string[];
}

const OWN_CHAINS = Object.values(PLACES).map(({ chain }) => chain);
const OWN_COMMENTS = Object.values(PLACES).map(({ comment }) => comment);

/**
 * Finds what is ours in the table of `purpose`; `undefined` if nothing is.
 *
 * Ours are the chains of {@linkcode PLACES}, rules with their comments (v0.15 to v0.19 wrote such
 * rules into the built-in chains), and v0.14's rules, which have no mark at all: only its complete
 * set for one of `networks`, in its order and without gap, is taken for ours. Its two FORWARD rules
 * are also what operators add by hand, so they are left alone unless
 * `replacesForward`: then our own rules do the same.
 */
export function surveyTable(
  dump: Dump,
  purpose: Purpose,
  options: { readonly networks: readonly Prefix[]; readonly replacesForward: boolean },
): Survey | undefined {
  const place = PLACES[purpose];
  const chains: ReadonlyMap<string, DumpedChain> = dump.get(place.table) ?? new Map();
  const faults: string[] = [];
  const rules: RuleSpec[] = [];
  for (const text of chains.get(place.chain)?.rules ?? []) {
    const read = readRule(text);
    const rule = read.comment === place.comment ? toRuleSpec(read) : undefined;
    if (rule) rules.push(rule);
    else faults.push(`${place.chain} has a rule that is not ours: ${text}`);
  }
  const here = Object.values(PLACES).filter(({ table }) => table === place.table);
  // What is in the wrong table is the business of one of its places.
  const misplacedChains = here[0] === place
    ? OWN_CHAINS.filter((name) => !here.some(({ chain }) => chain === name) && chains.has(name))
    : [];
  for (const name of misplacedChains) faults.push(`${name} does not belong in ${place.table}`);

  let jumps = 0;
  const isOfNeighbour = ({ target, comment }: ReadRule) =>
    Object.values(PLACES).some((other) =>
      other !== place && (here.includes(other) || here[0] !== place) &&
      (target === other.chain || comment === other.comment)
    );
  const strays: PlacedRule[] = [];
  const references: PlacedRule[] = [];
  for (const [chain, { rules: texts }] of chains) {
    if (OWN_CHAINS.includes(chain)) continue;
    for (const text of texts) {
      if (!text.includes("FLANNEL-") && !text.includes("flanneld ")) continue;
      const read = readRule(text);
      const leadsToOurs = read.target !== undefined && OWN_CHAINS.includes(read.target);
      if (chain === place.hook && isJump(text, place)) jumps++;
      else if (isOfNeighbour(read)) continue;
      else if (
        OWN_COMMENTS.includes(read.comment ?? "") || misplacedChains.includes(read.target ?? "")
      ) {
        strays.push({ chain, text });
      } else if (leadsToOurs) references.push({ chain, text });
    }
  }
  const hook = chains.get(place.hook)?.rules ?? [];
  if (purpose === "masquerade" || (purpose === "forward" && options.replacesForward)) {
    for (const network of options.networks) {
      strays.push(
        ...findVersion14(hook, purpose, network).map((text) => ({ chain: place.hook, text })),
      );
    }
  }
  for (const { chain, text } of strays) faults.push(`${chain} has a leftover rule: ${text}`);
  const hasChain = chains.has(place.chain);
  if (hasChain && jumps === 0) faults.push(`${place.hook} does not lead to ${place.chain}`);
  if (jumps > 1) faults.push(`${place.hook} leads to ${place.chain} ${jumps} times`);
  if (!hasChain && strays.length === 0 && misplacedChains.length === 0) return undefined;
  return { place, hasChain, rules, jumps, strays, references, misplacedChains, faults };
}

/** Whether `text` is exactly our jump: no further condition, our comment. */
function isJump(text: string, place: Place): boolean {
  const read = readRule(text);
  return read.target === place.chain && read.comment === place.comment && !read.other &&
    read.mark === undefined && read.source === undefined && read.destination === undefined &&
    read.inInterface === undefined && read.outInterface === undefined;
}

/** The rules that flannel v0.14 wrote for `network` (`network/iptables.go` there), or none. */
function findVersion14(
  texts: readonly string[],
  purpose: CommonPurpose,
  network: Prefix,
): string[] {
  const inside = (match: RuleSpec["source"]) =>
    match?.negated === false && match.prefix.equals(network);
  const outside = (match: RuleSpec["source"]) =>
    match?.negated === true && match.prefix.equals(network);
  const masquerades = ({ verdict }: RuleSpec) => verdict.startsWith("masquerade");
  const tests: ((rule: RuleSpec) => boolean)[] = purpose === "forward"
    ? [
      (rule) => rule.verdict === "accept" && inside(rule.source) && !rule.destination,
      (rule) => rule.verdict === "accept" && !rule.source && inside(rule.destination),
    ]
    : [
      (rule) => rule.verdict === "return" && inside(rule.source) && inside(rule.destination),
      (rule) =>
        masquerades(rule) && inside(rule.source) && rule.destination?.negated === true &&
        rule.destination.prefix.equals(multicast(network.family)),
      (rule) =>
        rule.verdict === "return" && outside(rule.source) && rule.destination?.negated === false &&
        network.contains(rule.destination.prefix),
      (rule) => masquerades(rule) && outside(rule.source) && inside(rule.destination),
    ];
  for (let start = 0; start + tests.length <= texts.length; start++) {
    const found = tests.every((test, i) => {
      const read = readRule(texts[start + i]!);
      const rule = read.comment === undefined ? toRuleSpec(read) : undefined;
      return rule !== undefined && rule.mark === undefined && test(rule);
    });
    if (found) return texts.slice(start, start + tests.length);
  }
  return [];
}

/**
 * Input of `iptables-restore --noflush` that leaves exactly `desired` in our chain and one jump to
 * it, or, without `desired`, nothing of ours. Between `*table` and `COMMIT` everything takes effect
 * at once. Rules are deleted by their text, never by number: another program may have moved them
 * since, and then nothing happens and the next round looks again.
 *
 * @param hook The rules of the chain that leads to ours.
 */
export function renderTransaction(
  purpose: Purpose,
  survey: Survey | undefined,
  desired: RuleChainSpec | undefined,
  hook: readonly string[] = [],
): string {
  const place = PLACES[purpose];
  const jump = renderJump(place);
  const misplaced = survey?.misplacedChains ?? [];
  const strays = survey?.strays ?? [];
  const jumps = survey?.jumps ?? 0;
  const lines = [`*${place.table}`];
  // Announcing a chain that exists empties it.
  for (const name of [...(desired || survey?.hasChain ? [place.chain] : []), ...misplaced]) {
    lines.push(`:${name} - [0:0]`);
  }
  for (const { chain, text } of strays) lines.push(`-D ${chain} ${text}`);
  if (desired) {
    for (let extra = 1; extra < jumps; extra++) lines.push(`-D ${place.hook} ${jump}`);
    for (const rule of desired.rules) {
      lines.push(`-A ${place.chain} ${renderRule(rule, place.comment)}`);
    }
    if (jumps === 0) lines.push(`${whereToJump(place, hook)} ${jump}`);
  } else {
    for (let each = 0; each < jumps; each++) lines.push(`-D ${place.hook} ${jump}`);
    for (const { chain, text } of survey?.references ?? []) lines.push(`-D ${chain} ${text}`);
    if (survey?.hasChain) lines.push(`-X ${place.chain}`);
  }
  for (const name of misplaced) lines.push(`-X ${name}`);
  lines.push("COMMIT", "");
  return lines.join("\n");
}

/** Docker up to 27 ends DOCKER-USER with a RETURN, which stays there until the next boot. */
function whereToJump({ hook, first }: Place, rules: readonly string[]): string {
  if (first) return `-I ${hook}`;
  const isEnd = rules.at(-1) === "-j RETURN";
  return isEnd ? `-I ${hook} ${rules.length}` : `-A ${hook}`;
}

/** Whether the table holds exactly `desired`, or nothing of ours if that is `undefined`. */
export function isRight(survey: Survey | undefined, desired: RuleChainSpec | undefined): boolean {
  if (!survey || !desired) return !survey && !desired;
  const { comment } = survey.place;
  const text = (rules: readonly RuleSpec[]) =>
    rules.map((rule) => renderRule(rule, comment)).join("\n");
  return survey.faults.length === 0 && text(survey.rules) === text(desired.rules);
}

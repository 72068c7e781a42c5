/** The rule sets of one family in iptables. @module */
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";
import type { Change } from "../reconcile/table.ts";
import type { Finding } from "../status/model.ts";
import type { ProblemLog } from "../status/problems.ts";
import { isClosedByDocker, type ListInterfaces } from "./docker.ts";
import type { RulePlace } from "./firewall_table.ts";
import { findForeignRules } from "./foreign_rules.ts";
import type { IptablesCommand } from "./iptables_command.ts";
import type { Dump } from "./iptables_dump.ts";
import { PLACES, PURPOSES } from "./iptables_rule.ts";
import { isRight, renderTransaction, type Survey, surveyTable } from "./iptables_survey.ts";
import {
  IPTABLES_SETS,
  type IptablesVariant,
  type Purpose,
  ruleSetKind,
  type RuleSetSpec,
} from "./plan.ts";

export interface IptablesTableOptions {
  readonly command: IptablesCommand;
  /** What rules will be desired here; empty where there may only be leftovers. */
  readonly wanted: readonly Purpose[];
  /** The networks of the command's family, which also identify v0.14's rules. */
  readonly networks: readonly Prefix[];
  /** Whether rules of ours accept forwarding, here or elsewhere. */
  readonly forwards: boolean;
  /** Set where these are not the tables that `iptables` manages. */
  readonly variant?: IptablesVariant;
  readonly listInterfaces: ListInterfaces;
  /** Reports foreign rules. */
  readonly foreign: ProblemLog;
  readonly log: Logger;
}

/**
 * The rule sets of one family in iptables: our chains in each table and the jumps to them.
 * A round reads with one program, and writes nothing if all is right.
 *
 * A table for which nothing is desired is read until it was once found without rules of ours, since
 * nothing that may run beside this daemon adds any.
 */
export class IptablesTable implements RulePlace {
  readonly #options: IptablesTableOptions;
  /** What is still listed. */
  readonly #purposes = new Set<Purpose>(PURPOSES);
  #closedByDocker = false;

  constructor(options: IptablesTableOptions) {
    this.#options = options;
  }

  get active(): boolean {
    return this.#purposes.size > 0;
  }

  get closedByDocker(): boolean {
    return this.#closedByDocker;
  }

  async list({ signal }: { signal: AbortSignal }): Promise<RuleSetSpec[]> {
    const { command, wanted, networks, foreign, variant } = this.#options;
    const purposes = [...this.#purposes];
    const dump = await command.save(tablesOf(purposes), {
      signal,
      mayCreate: purposes.every((purpose) => wanted.includes(purpose)),
    });
    const sets: RuleSetSpec[] = [];
    for (const purpose of purposes) {
      const survey = this.#survey(dump, purpose);
      if (survey) {
        sets.push({
          mode: "iptables",
          family: command.family,
          table: IPTABLES_SETS[purpose],
          chains: survey.hasChain ? [{ purpose, rules: survey.rules }] : [],
          ...(variant !== undefined ? { variant } : {}),
          ...(survey.faults.length > 0 ? { faults: survey.faults } : {}),
        });
      }
      if (purpose === "masquerade" || purpose === "forward") {
        foreign.set(
          findForeignRules(dump, purpose, networks, survey?.strays),
          `${command.name} ${purpose}`,
        );
      }
      if (!survey && !wanted.includes(purpose)) this.#purposes.delete(purpose);
    }
    this.#closedByDocker = wanted.includes("docker-forward") &&
      isClosedByDocker(dump, networks, this.#options.listInterfaces);
    this.#noticePolicy(dump);
    if (variant !== undefined) this.#noticeVariant(dump, variant);
    return sets;
  }

  async apply(change: Change<RuleSetSpec>, { signal }: { signal: AbortSignal }): Promise<void> {
    const { command, log } = this.#options;
    const set = change.op === "remove" ? change.actual : change.desired;
    const desired = change.op === "remove" ? undefined : change.desired.chains[0];
    const purpose = PURPOSES.find((each) => IPTABLES_SETS[each] === set.table)!;
    const { table, hook } = PLACES[purpose];
    // Read again: the transaction names the rules that are there now.
    const dump = await command.save([table], { signal, mayCreate: desired !== undefined });
    const survey = this.#survey(dump, purpose);
    if (isRight(survey, desired)) return;
    for (const fault of survey?.faults ?? []) {
      log.info(`Correcting ${ruleSetKind.key(set)}: ${fault}`);
    }
    const hookRules = dump.get(table)?.get(hook)?.rules;
    await command.restore(renderTransaction(purpose, survey, desired, hookRules), { signal });
  }

  #survey(dump: Dump, purpose: Purpose): Survey | undefined {
    const { networks, forwards } = this.#options;
    return surveyTable(dump, purpose, { networks, replacesForward: forwards });
  }

  /** An accept in nftables or in the other variant does not override a drop here. */
  #noticePolicy(dump: Dump): void {
    const { command, wanted, forwards, foreign } = this.#options;
    const { table, hook } = PLACES.forward;
    if (!dump.has(table) || !forwards || wanted.includes("forward")) return;
    const drops = dump.get(table)?.get(hook)?.policy === "DROP";
    const policy: Finding = {
      code: "forward-policy",
      object: `${command.name} ${hook}`,
      message:
        `The policy of chain ${hook} in ${command.name} is DROP (Docker sets it), and rules outside ` +
        `of these tables cannot override it: pods are unreachable from other hosts unless a rule ` +
        `there accepts their packets`,
    };
    foreign.set(drops ? [policy] : [], `${command.name} policy`);
  }

  #noticeVariant(dump: Dump, variant: IptablesVariant): void {
    const { command, foreign } = this.#options;
    const ours = Object.values(PLACES).map(({ chain }) => chain);
    let count = 0;
    for (const table of tablesOf(["masquerade", "forward"])) {
      for (const [chain, { rules }] of dump.get(table) ?? []) {
        if (!ours.includes(chain)) count += rules.length;
      }
    }
    const both: Finding = {
      code: "two-iptables",
      object: command.name,
      message:
        `There are rules in both variants of iptables: ${command.name}-save shows ${count} in the ` +
        `${variant} one, which "${
          command.name.replace(/-.*/, "")
        }" does not manage; packets pass ` +
        `both, so either may drop or translate them`,
      remedy: "keep one",
    };
    foreign.set(count > 0 ? [both] : [], `${command.name} variant`);
  }
}

function tablesOf(purposes: readonly Purpose[]): string[] {
  return [...new Set(purposes.map((purpose) => PLACES[purpose].table))];
}

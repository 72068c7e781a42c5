/** The rule set of one family in nftables. @module */
import type { Logger } from "../log.ts";
import type { Family } from "../net/mod.ts";
import type { Change } from "../reconcile/table.ts";
import type { RulePlace } from "./firewall_table.ts";
import { applyNftScript, listNftTable } from "./nft_command.ts";
import { nftFamily, nftTableName, parseNftTable, renderNftScript } from "./nft_ruleset.ts";
import { ruleSetKind, type RuleSetSpec } from "./plan.ts";

export interface NftTableOptions {
  readonly family: Family;
  /** Whether rules will be desired here; else there may only be leftovers. */
  readonly wanted: boolean;
  readonly log: Logger;
}

/**
 * The rule set of one family in nftables: the table `ip flannel-ipv4` or `ip6 flannel-ipv6`, wholly
 * ours. A round reads with one program, and writes nothing if all is right. If nothing is desired,
 * it is read until it was once found gone.
 */
export class NftTable implements RulePlace {
  readonly #options: NftTableOptions;
  #active = true;

  constructor(options: NftTableOptions) {
    this.#options = options;
  }

  get active(): boolean {
    return this.#active;
  }

  async list({ signal }: { signal: AbortSignal }): Promise<RuleSetSpec[]> {
    const { family, wanted } = this.#options;
    const name = { family: nftFamily(family), table: nftTableName(family) };
    const text = await listNftTable(name, { signal });
    if (text !== undefined) return [parseNftTable(text, family)];
    this.#active = wanted;
    return [];
  }

  async apply(change: Change<RuleSetSpec>, { signal }: { signal: AbortSignal }): Promise<void> {
    const set = change.op === "remove" ? { ...change.actual, chains: [] } : change.desired;
    const faults = change.op === "add" ? [] : change.actual.faults ?? [];
    for (const fault of faults) {
      this.#options.log.info(`Correcting ${ruleSetKind.key(set)}: ${fault}`);
    }
    await applyNftScript(renderNftScript(set), { signal });
  }
}

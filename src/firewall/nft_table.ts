import type { Logger } from "../log.ts";
import type { Family } from "../net/mod.ts";
import type { Change, FailedChange } from "../reconcile/table.ts";
import { applyNftScript, listNftTable } from "./nft_command.ts";
import { parseNftTable, renderNftScript } from "./nft_ruleset.ts";
import { ruleSetKind, type RuleSetSpec } from "./plan.ts";
import type { RulePlace } from "./rule_place.ts";

/** Options of {@linkcode NftTable}. */
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
  readonly kind = ruleSetKind;
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
    const text = await listNftTable(family, { signal });
    if (text !== undefined) return [parseNftTable(text, family)];
    this.#active = wanted;
    return [];
  }

  async apply(
    changes: readonly Change<RuleSetSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<FailedChange<RuleSetSpec>[]> {
    const failed: FailedChange<RuleSetSpec>[] = [];
    for (const change of changes) {
      const set = change.op === "remove" ? { ...change.actual, chains: [] } : change.desired;
      const faults = change.op === "add" ? [] : change.actual.faults ?? [];
      for (const fault of faults) {
        this.#options.log.info(`Mending ${ruleSetKind.key(set)}: ${fault}`);
      }
      try {
        await applyNftScript(renderNftScript(set), { signal });
      } catch (error) {
        signal.throwIfAborted();
        failed.push({ change, error: error as Error });
      }
    }
    return failed;
  }
}

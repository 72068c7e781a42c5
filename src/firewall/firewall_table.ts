/** The rule sets of all places as one Table. @module */
import { describeError } from "../errors.ts";
import type { Logger } from "../log.ts";
import type { Family } from "../net/mod.ts";
import type { Change, FailedChange, Table } from "../reconcile/table.ts";
import { ProgramNotFoundError } from "../util/process.ts";
import { ruleSetKind, type RuleSetSpec } from "./plan.ts";

/** Where rules of one family can be: iptables in one of its variants, or nftables. */
export interface RulePlace {
  /** Whether there is something to read; a place without desired rules ends once it is clean. */
  readonly active: boolean;
  /** Whether the last listing found that Docker refuses packets for containers in our networks. */
  readonly closedByDocker?: boolean;
  list(options: { signal: AbortSignal }): Promise<RuleSetSpec[]>;
  /** Makes one change; throws if that fails. */
  apply(change: Change<RuleSetSpec>, options: { signal: AbortSignal }): Promise<void>;
}

/** A place that may hold leftovers and fails this often in a row is left alone. */
const MAX_LEFTOVER_FAILURES = 3;

/**
 * The rule sets of all places as one Table, so that the new place has its rules before the old one
 * loses them. Errors of a place that may only hold leftovers are logged and do no harm.
 */
export class FirewallTable implements Table<RuleSetSpec> {
  readonly kind = ruleSetKind;
  readonly #own: ReadonlyMap<Family, RulePlace>;
  readonly #leftovers: { readonly place: RulePlace; failures: number }[];
  readonly #log: Logger;
  /** Which place reported a rule set. */
  readonly #origins = new WeakMap<RuleSetSpec, RulePlace>();
  /** Some desired rule set could not be written when it was last tried. */
  #incomplete = false;

  /**
   * @param own The place of the mode, per family.
   * @param leftovers Where an earlier run may have put rules.
   */
  constructor(own: ReadonlyMap<Family, RulePlace>, leftovers: readonly RulePlace[], log: Logger) {
    this.#own = own;
    this.#leftovers = leftovers.map((place) => ({ place, failures: 0 }));
    this.#log = log;
  }

  async list({ signal }: { signal: AbortSignal }): Promise<RuleSetSpec[]> {
    const lists = await Promise.all([
      ...[...this.#own.values()].map((place) => this.#listPlace(place, { signal })),
      ...this.#leftovers.map((leftover) => this.#listLeftover(leftover, { signal })),
    ]);
    return lists.flat();
  }

  async #listPlace(place: RulePlace, options: { signal: AbortSignal }): Promise<RuleSetSpec[]> {
    if (!place.active) return [];
    const sets = await place.list(options);
    for (const set of sets) this.#origins.set(set, place);
    return sets;
  }

  async #listLeftover(
    leftover: { readonly place: RulePlace; failures: number },
    options: { signal: AbortSignal },
  ): Promise<RuleSetSpec[]> {
    if (leftover.failures >= MAX_LEFTOVER_FAILURES) return [];
    try {
      const sets = await this.#listPlace(leftover.place, options);
      leftover.failures = 0;
      return sets;
    } catch (error) {
      options.signal.throwIfAborted();
      if (error instanceof ProgramNotFoundError) leftover.failures = MAX_LEFTOVER_FAILURES;
      else if (++leftover.failures === MAX_LEFTOVER_FAILURES) {
        this.#log.info(`Rules of an earlier run, if any, stay: ${describeError(error)}`);
      }
      return [];
    }
  }

  async apply(
    changes: readonly Change<RuleSetSpec>[],
    { signal }: { signal: AbortSignal },
  ): Promise<FailedChange<RuleSetSpec>[]> {
    const failed: FailedChange<RuleSetSpec>[] = [];
    const apply = async (
      change: Change<RuleSetSpec>,
      place: RulePlace | undefined,
      why: string,
    ) => {
      try {
        if (!place) throw new Error(why);
        await place.apply(change, { signal });
      } catch (error) {
        signal.throwIfAborted();
        failed.push({ change, error: error as Error });
      }
    };
    const writes = changes.filter((change) => change.op !== "remove");
    for (const change of writes) {
      const place = this.#own.get(change.desired.family);
      await apply(change, place, "the firewall was opened without this family");
    }
    if (writes.length > 0) this.#incomplete = failed.length > 0;
    for (const change of changes) {
      if (change.op !== "remove") continue;
      const place = this.#origins.get(change.actual);
      const isLeftover = this.#leftovers.some((leftover) => leftover.place === place);
      const mayGo = !isLeftover || !this.#incomplete;
      await apply(
        change,
        mayGo ? place : undefined,
        "it stays until the rules in its place are written",
      );
    }
    return failed;
  }
}

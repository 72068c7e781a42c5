import type { Table } from "../reconcile/table.ts";
import type { RuleSetSpec } from "./plan.ts";

/** Where rules of one family can be: iptables in one of its variants, or nftables. */
export interface RulePlace extends Table<RuleSetSpec> {
  /** Whether there is something to read; a place without desired rules ends once it is clean. */
  readonly active: boolean;
}

/** An election of one leader among any number of hosts. @module */
import type { Logger } from "../log.ts";
import type { ReadableCell } from "../util/cell.ts";
import type { CallOptions } from "./errors.ts";

/** Options of an {@linkcode Election}. */
export interface ElectionOptions {
  /** Such as `ali-vpc/election/writer`; messages say its last word. */
  readonly name: string;
  /**
   * What the store says while this host leads. The same after a restart, and no other candidate's:
   * by this a host knows its own term of a former run.
   */
  readonly holder: string;
  readonly log: Logger;
}

export interface ConfirmOptions extends CallOptions {
  /** Time that must be left of the term. @default {5_000} */
  readonly marginMs?: number;
}

/** The time for which a candidate leads. Terms of one election never overlap. */
export interface Term {
  /** Identity; opaque. */
  readonly id: string;
  /** Aborts, with the reason, as soon as the term is over or may be over. */
  readonly signal: AbortSignal;
  /**
   * Makes sure, just before something is done that only the leader may do: rejects unless the store
   * says that the term still runs, and `marginMs` are left of it then.
   */
  confirm(options: ConfirmOptions): Promise<void>;
}

/** Who leads. */
export interface Leadership {
  /** What the store says of the leader; `undefined` if there is none. */
  readonly holder: string | undefined;
  /** The own term while this host leads. */
  readonly term: Term | undefined;
}

/** One host's part in an election. What the leader does must be fenced by {@linkcode Term.confirm}. */
export interface Election {
  /** `undefined` before the store was seen. */
  readonly leadership: ReadableCell<Leadership | undefined>;
  /** The own term, by the clocks of this moment. */
  readonly term: Term | undefined;
  /**
   * For how long nobody has led, in milliseconds; 0 while somebody does; `undefined` before the
   * store was seen. While the store cannot be reached, what was known last counts on.
   */
  readonly vacantMs: number | undefined;
  /** `false`: follow only, never stand for election, and resign. @default {true} */
  candidate: boolean;
  /**
   * Tries once, right now. Returns the term if it was won, or is held already. Does nothing for one
   * who is no candidate or has resigned a moment ago.
   */
  tryOnce(options: CallOptions): Promise<Term | undefined>;
  /**
   * Follows the election, stands for it while there is no leader, and renews the own term, until
   * `signal` aborts; then it returns, without resigning: a daemon that restarts goes on leading.
   */
  run(options: CallOptions): Promise<void>;
  /**
   * Gives the lead up and does not stand for `pauseMs`. Should the store not hear of it, the own
   * term is over all the same.
   */
  resign(options: CallOptions & { readonly pauseMs: number }): Promise<void>;
}

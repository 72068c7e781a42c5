/** An election of one leader among any number of hosts. @module */
import type { Logger } from "../log.ts";
import type { ReadableCell } from "../util/cell.ts";
import type { CallOptions } from "./errors.ts";

/** Options of an {@linkcode Election}. */
export interface ElectionOptions {
  /** Such as `ali-vpc/election/writer`; messages say its last word. */
  readonly name: string;
  /**
   * What the store says while this host leads: the same after a restart, and unlike any other
   * candidate's, so that a host recognises its own term of a former run.
   */
  readonly holder: string;
  readonly log: Logger;
}

export interface ConfirmOptions extends CallOptions {
  /** Time that must be left of the term. @default {5_000} */
  readonly marginMs?: number;
}

/** The time for which a candidate leads. Terms never overlap. */
export interface Term {
  /** Identity; opaque. */
  readonly id: string;
  /** Aborts, with the reason, as soon as the term is over or may be over. */
  readonly signal: AbortSignal;
  /**
   * To be awaited right before something that only the leader may do: rejects unless the store says
   * that the term still runs, with `marginMs` left.
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

/**
 * One host's part in an election. What the leader does must be fenced by {@linkcode Term.confirm}.
 */
export interface Election {
  /** `undefined` before the store was seen. */
  readonly leadership: ReadableCell<Leadership | undefined>;
  /** The own term, by the clocks of this moment. */
  readonly term: Term | undefined;
  /**
   * For how long there has been no leader, in milliseconds; `undefined` before the store was seen.
   * While the store cannot be reached, what was known last counts.
   */
  readonly vacantMs: number | undefined;
  /** `false`: follow only, never stand for election, and resign. @default {true} */
  candidate: boolean;
  /**
   * Tries once, right now. Returns the term if it was won, or is held already. Does nothing for a
   * host that is no candidate or has just resigned.
   */
  tryOnce(options: CallOptions): Promise<Term | undefined>;
  /**
   * Follows the election, stands for it while there is no leader, and renews the own term, until
   * `signal` aborts; then it returns without resigning: a daemon that restarts goes on leading.
   */
  run(options: CallOptions): Promise<void>;
  /**
   * Resigns, and does not stand for `pauseMs`. The own term is over even if the store cannot be
   * told.
   */
  resign(options: CallOptions & { readonly pauseMs: number }): Promise<void>;
}

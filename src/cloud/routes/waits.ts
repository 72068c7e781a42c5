/** How long to wait for a cloud, and how often to ask it again. @module */
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Backoff, type delay } from "../../util/time.ts";
import { CloudApiError, type RetryCause } from "./cloud_error.ts";

const REMIND_MS = 5 * 60_000;

/** While another host's write is under way, which the service reports in several ways. */
const TURN = { initialMs: 2_500, maxMs: 20_000 };

/** Upper bounds of waits by their cause, first and largest. */
const WAITS: Readonly<Record<RetryCause, { initialMs: number; maxMs: number }>> = {
  // A write takes seconds; with many hosts waiting, most tries are in vain.
  turn: TURN,
  changing: TURN,
  // Limits are counted per minute and account.
  throttled: { initialMs: 8_000, maxMs: 60_000 },
  busy: { initialMs: 2_000, maxMs: 30_000 },
  instance: { initialMs: 5_000, maxMs: 30_000 },
  peering: { initialMs: 5_000, maxMs: 30_000 },
};

export interface WaitsOptions {
  /** `create route 10.24.7.0/24 in <table>`. */
  readonly goal: string;
  /** How long an entry may stay between two states, or the service busy with others. */
  readonly patienceMs: number;
  readonly log: Logger;
  readonly now: () => number;
  readonly delay: typeof delay;
  readonly random: () => number;
}

/** The waits of one change or batch: paced by their cause, spread by jitter, bounded in all. */
export class Waits {
  readonly #options: WaitsOptions;
  readonly #startedAt: number;
  /** By the bounds of the wait: causes that share them count as one. */
  readonly #causes = new Map<object, { readonly backoff: Backoff; readonly since: number }>();
  readonly #poll: Backoff;
  #saidAt = -Infinity;

  constructor(options: WaitsOptions) {
    this.#options = options;
    this.#startedAt = options.now();
    this.#poll = new Backoff({
      initialMs: 2_000,
      maxMs: 10_000,
      factor: 1.5,
      random: options.random,
    });
  }

  /** Waits until the entry is worth another look. */
  async poll(state: string, options: { signal: AbortSignal }): Promise<void> {
    const waitedMs = this.#options.now() - this.#startedAt;
    if (waitedMs > this.#options.patienceMs) {
      throw new Error(`the entry is still "${state}" after ${minutes(waitedMs)}`);
    }
    await this.#options.delay(this.#poll.next(), options);
  }

  /** Waits out a failed call, or throws it if waiting cannot help (any more). */
  async after(error: unknown, options: { signal: AbortSignal }): Promise<void> {
    options.signal.throwIfAborted();
    if (!(error instanceof CloudApiError) || error.reaction.do !== "retry") {
      throw this.failure(error);
    }
    const { cause, budgetSeconds } = error.reaction;
    const { goal, patienceMs, log } = this.#options;
    const now = this.#options.now();
    let known = this.#causes.get(WAITS[cause]);
    if (known === undefined) {
      const backoff = new Backoff({ ...WAITS[cause], random: this.#options.random });
      known = { backoff, since: now };
      this.#causes.set(WAITS[cause], known);
    }
    if (now - known.since > budgetSeconds * 1000 || now - this.#startedAt > patienceMs) {
      throw this.failure(error);
    }
    if (now - this.#saidAt > REMIND_MS) {
      this.#saidAt = now;
      log.info(`Waiting to ${goal}`, { reason: error.code });
    }
    await this.#options.delay(known.backoff.next(), options);
  }

  /** The error that ends the change. */
  failure(cause: unknown): Error {
    const waitedMs = this.#options.now() - this.#startedAt;
    const waited = waitedMs < 60_000 ? "" : `given up after ${minutes(waitedMs)}: `;
    return new Error(`${waited}${describeError(cause)}`, { cause });
  }
}

function minutes(milliseconds: number): string {
  return `${Math.max(1, Math.round(milliseconds / 60_000))} min`;
}

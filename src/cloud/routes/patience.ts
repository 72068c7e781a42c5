/** Waits out short trouble at the start, step by step. @module */
import type { Logger } from "../../log.ts";
import { Backoff, delay } from "../../util/time.ts";
import { CloudApiError } from "./cloud_error.ts";
import type { Clock, RouteWords } from "./provider.ts";

export interface PatienceOptions {
  readonly words: Pick<RouteWords, "waitingForRate">;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly clock: Partial<Clock>;
}

/** How long one step of the start waits, and how long before it is repeated. */
const PATIENCE = {
  /** For the account's rate limit to let it through. */
  throttled: { budgetMs: 10 * 60_000, initialMs: 8_000, maxMs: 60_000 },
  /** For the service to recover; longer outages are the caller's to wait out. */
  other: { budgetMs: 30_000, initialMs: 1_000, maxMs: 8_000 },
} as const;

/** Repeats a step of the start. */
export type Patience = <Result>(step: () => Promise<Result>) => Promise<Result>;

/**
 * Returns what repeats steps of the start that may succeed later. Beginning all over instead would
 * cost every host of a large cluster a dozen calls more each time, and never end where one call in a
 * few fails. The long wait is logged once, whichever calls it holds up; the caller logs the others.
 */
export function startPatience({ words, log, signal, clock }: PatienceOptions): Patience {
  const { now = () => performance.now(), delay: wait = delay } = clock;
  let isSaid = false;
  return async (step) => {
    const startedAt = now();
    const backoffs = {
      throttled: new Backoff(PATIENCE.throttled),
      other: new Backoff(PATIENCE.other),
    };
    for (;;) {
      try {
        return await step();
      } catch (error) {
        signal.throwIfAborted();
        if (!(error instanceof CloudApiError) || error.reaction.do !== "retry") throw error;
        const kind = error.reaction.cause === "throttled" ? "throttled" : "other";
        if (now() - startedAt > PATIENCE[kind].budgetMs) throw error;
        if (kind === "other") log.debug(`${error.message}; trying again`);
        else if (!isSaid) log.info(words.waitingForRate, { reason: error.code });
        isSaid ||= kind === "throttled";
        await wait(backoffs[kind].next(), { signal });
      }
    }
  };
}

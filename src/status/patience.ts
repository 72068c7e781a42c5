/**
 * Repeats an attempt until it succeeds, with back-off; the start-up waits for everything this way.
 *
 * @module
 */
import { describeError, OperatorError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { Backoff } from "../util/time.ts";
import { Outage } from "./problems.ts";

export interface PatienceOptions {
  readonly log: Logger;
  readonly signal: AbortSignal;
  /** Told the present obstacle, for the service manager. */
  readonly onStatus?: (text: string) => void;
  /** Which errors need an operator, besides {@linkcode OperatorError}. @default none */
  readonly isFatal?: (error: unknown) => boolean;
  /** @default {1_000} */
  readonly initialMs?: number;
  /** @default {30_000} */
  readonly maxMs?: number;
}

/**
 * Repeats `attempt` with jittered back-off until it succeeds; for whatever may pass by itself. One
 * line says what is waited for, one more for each further reason, and one when it is over.
 *
 * @param what What is attempted, as in `Cannot … yet`: `lease a subnet`.
 * @throws {OperatorError} As soon as an attempt throws one.
 * @throws `signal.reason` on abort.
 */
export async function patiently<T>(
  what: string,
  attempt: () => Promise<T>,
  options: PatienceOptions,
): Promise<T> {
  const { log, signal, onStatus } = options;
  const backoff = new Backoff({
    initialMs: options.initialMs ?? 1_000,
    maxMs: options.maxMs ?? 30_000,
  });
  const outage = new Outage(log, {
    code: "starting",
    object: what,
    failed: `Cannot ${what} yet`,
    andThen: "; trying again",
    recovered: `Could ${what}`,
  });
  while (true) {
    signal.throwIfAborted();
    try {
      const result = await attempt();
      outage.working();
      return result;
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OperatorError) throw error;
      if (options.isFatal?.(error)) throw new OperatorError(describeError(error), { cause: error });
      onStatus?.(`Waiting to ${what}: ${outage.failing(error).message}`);
      await backoff.wait({ signal });
    }
  }
}

export interface BriefRetryOptions {
  readonly signal: AbortSignal;
  /** Which errors may pass within a moment. @default {isShortage} */
  readonly mayPass?: (error: unknown) => boolean;
}

/** So often something is tried that fails for a moment's shortage: within about two seconds. */
const BRIEF_ATTEMPTS = 6;

/**
 * Repeats `attempt` a few times, with jittered waits, where its failure would decide much and may
 * be over in a moment.
 *
 * @throws What the last attempt threw, or one that will not pass; `signal.reason` on abort.
 */
export async function retryBriefly<T>(
  attempt: () => T | Promise<T>,
  { signal, mayPass = isShortage }: BriefRetryOptions,
): Promise<T> {
  const backoff = new Backoff({ initialMs: 100, maxMs: 800 });
  while (true) {
    signal.throwIfAborted();
    try {
      return await attempt();
    } catch (error) {
      if (backoff.failures === BRIEF_ATTEMPTS - 1 || !mayPass(error)) throw error;
      await backoff.wait({ signal });
    }
  }
}

/** Whether a call failed for want of descriptors or memory, or for a fault of a device. */
export function isShortage(error: unknown): boolean {
  return /\b(?:EMFILE|ENFILE|EIO|ENOMEM|ENOBUFS)\b|Too many open files|Input\/output error|Cannot allocate memory|No buffer space/i
    .test(describeError(error));
}

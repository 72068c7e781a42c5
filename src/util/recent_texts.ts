/**
 * Tells new messages from those logged a short while ago.
 *
 * @module
 */
import { steadyText } from "./steady_text.ts";

/** Options of {@linkcode RecentTexts}. */
export interface RecentTextsOptions {
  /** A text that did not come for this long is news again. @default {600_000} */
  readonly forMs?: number;
  /** Of more different texts than this, the oldest is news again. @default {10_000} */
  readonly limit?: number;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/**
 * Remembers what was said of late, so that a trouble that lasts, or comes and goes, is said once.
 * Texts that differ in ids and times alone count as one.
 */
export class RecentTexts {
  readonly #options: Required<RecentTextsOptions>;
  /** Steady text to when it came last, the oldest first. */
  readonly #seen = new Map<string, number>();

  constructor(options: RecentTextsOptions = {}) {
    this.#options = { forMs: 600_000, limit: 10_000, now: () => performance.now(), ...options };
  }

  /** Whether `text` did not come of late; it has now. */
  isNews(text: string): boolean {
    const { forMs, limit, now } = this.#options;
    const time = now();
    const steady = steadyText(text);
    const seenAt = this.#seen.get(steady);
    this.#seen.delete(steady);
    this.#seen.set(steady, time);
    for (const [oldest, at] of this.#seen) {
      if (time - at <= forMs && this.#seen.size <= limit) break;
      this.#seen.delete(oldest);
    }
    return seenAt === undefined || time - seenAt > forMs;
  }
}

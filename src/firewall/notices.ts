import type { Logger } from "../log.ts";

/**
 * Findings about other people's rules, which are told and never mended. A finding is logged when
 * it appears and when it is gone, not while it lasts.
 */
export class Notices {
  readonly #log: Logger;
  readonly #current = new Map<string, readonly string[]>();

  constructor(log: Logger) {
    this.#log = log;
  }

  /** The sentences that hold now. */
  get all(): string[] {
    return [...new Set([...this.#current.values()].flat())];
  }

  /** Puts `sentences` in the place of those told under `subject` before. */
  set(subject: string, sentences: readonly string[]): void {
    const before = this.all;
    this.#current.set(subject, sentences);
    const after = this.all;
    for (const sentence of after) {
      if (!before.includes(sentence)) this.#log.warn(sentence);
    }
    for (const sentence of before) {
      if (!after.includes(sentence)) this.#log.info(`No longer true: ${sentence}`);
    }
  }
}

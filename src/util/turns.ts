/** A fair lock. @module */
import { abortable } from "./abortable.ts";

/** Lets one caller at a time, or a few, proceed, in the order in which they asked. */
export class Turns {
  #free: number;
  readonly #waiting: (() => void)[] = [];

  constructor(atOnce = 1) {
    this.#free = atOnce;
  }

  /** Whether the next caller has to wait. */
  get taken(): boolean {
    return this.#free === 0;
  }

  /** Resolves when it is the caller's turn; dispose of what it resolves to when done. */
  async take(options: { signal: AbortSignal }): Promise<Disposable> {
    options.signal.throwIfAborted();
    if (this.#free > 0) this.#free--;
    else {
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#waiting.push(resolve);
      try {
        await abortable(promise, options);
      } catch (error) {
        const at = this.#waiting.indexOf(resolve);
        if (at >= 0) this.#waiting.splice(at, 1);
        else this.#release();
        throw error;
      }
    }
    let held = true;
    return {
      [Symbol.dispose]: () => {
        if (held) this.#release();
        held = false;
      },
    };
  }

  #release(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#free++;
    else next();
  }
}

import { abortable } from "./abortable.ts";

/** Lets one at a time do something, in the order in which they asked. */
export class Turns {
  #last: Promise<void> = Promise.resolve();
  #waiting = 0;

  /** Whether somebody has the turn, or waits for it. */
  get taken(): boolean {
    return this.#waiting > 0;
  }

  /** Resolves when all who asked before are done; dispose of the answer when done oneself. */
  async take(options: { signal: AbortSignal }): Promise<Disposable> {
    options.signal.throwIfAborted();
    const { promise, resolve } = Promise.withResolvers<void>();
    const before = this.#last;
    this.#last = before.then(() => promise);
    this.#waiting++;
    const done = () => {
      this.#waiting--;
      resolve();
    };
    try {
      await abortable(before, options);
    } catch (error) {
      done();
      throw error;
    }
    let held = true;
    return {
      [Symbol.dispose]() {
        if (held) done();
        held = false;
      },
    };
  }
}

/**
 * A sleep that can be cut short. One waiter at a time; a wake-up while there is none is remembered,
 * and ends the next sleep at once.
 */
export class Wakeup {
  #pending = false;
  #resolve: (() => void) | undefined;

  /** Ends the present sleep, or the next one. */
  wake(): void {
    if (this.#resolve) this.#resolve();
    else this.#pending = true;
  }

  /**
   * Sleeps until woken, at most `milliseconds` (which may be `Infinity`). Rejects with
   * `signal.reason` on abort.
   */
  async sleep(milliseconds: number, options: { signal: AbortSignal }): Promise<void> {
    const { signal } = options;
    signal.throwIfAborted();
    if (this.#pending) {
      this.#pending = false;
      return;
    }
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    // A timer holds 31 bits: longer sleeps end early.
    const timer = setTimeout(resolve, Math.max(0, Math.min(milliseconds, 2 ** 31 - 1)));
    const onAbort = () => reject(signal.reason);
    signal.addEventListener("abort", onAbort, { once: true });
    this.#resolve = resolve;
    try {
      await promise;
    } finally {
      this.#resolve = undefined;
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
  }
}

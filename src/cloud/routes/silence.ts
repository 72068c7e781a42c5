/** For how long a service has not responded to any call. */
export class Silence {
  readonly #now: () => number;
  #calls: { readonly firstAt: number; readonly lastAt: number } | undefined;

  constructor(now: () => number = () => performance.now()) {
    this.#now = now;
  }

  /**
   * Milliseconds between the ends of the first and the last of those calls in a row that got no
   * reply: a time in which nobody called says nothing of the service.
   */
  get ms(): number {
    return this.#calls === undefined ? 0 : this.#calls.lastAt - this.#calls.firstAt;
  }

  /** To be called for each response, be it a refusal, or to count anew. */
  over(): void {
    this.#calls = undefined;
  }

  unanswered(): void {
    const now = this.#now();
    this.#calls = { firstAt: this.#calls?.firstAt ?? now, lastAt: now };
  }
}

/** For how long a service has answered none of the calls to it. */
export class Silence {
  readonly #now: () => number;
  #calls: { readonly firstAt: number; readonly lastAt: number } | undefined;

  /** With a clock that only goes forward, in milliseconds. */
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

  /** To be called when a call was answered, be it with a refusal, or to count anew. */
  over(): void {
    this.#calls = undefined;
  }

  /** To be called when a call got no reply. */
  unanswered(): void {
    const now = this.#now();
    this.#calls = { firstAt: this.#calls?.firstAt ?? now, lastAt: now };
  }
}

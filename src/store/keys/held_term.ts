/**
 * A term while this host leads: whose it is by the key's revision, and until when by the clocks.
 *
 * @module
 */
import type { ConfirmOptions, Term } from "../election.ts";
import type { Entry } from "./key_space.ts";
import type { Lifetime } from "./lifetime.ts";

/** A term of our own. */
export class HeldTerm implements Term {
  readonly id: string;
  readonly #tickMs: number;
  readonly #confirm: (term: HeldTerm, options: ConfirmOptions) => Promise<void>;
  readonly #onEnd: (term: HeldTerm, reason: string) => void;
  readonly #controller = new AbortController();
  #revision: string;
  #time: Lifetime;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(options: {
    readonly entry: Entry;
    readonly time: Lifetime;
    readonly tickMs: number;
    readonly confirm: (term: HeldTerm, options: ConfirmOptions) => Promise<void>;
    readonly onEnd: (term: HeldTerm, reason: string) => void;
  }) {
    this.id = this.#revision = options.entry.version;
    this.#time = options.time;
    this.#tickMs = options.tickMs;
    this.#confirm = options.confirm;
    this.#onEnd = options.onEnd;
    this.#watchTime();
  }

  get signal(): AbortSignal {
    this.check();
    return this.#controller.signal;
  }

  /** At which the key is ours. */
  get revision(): string {
    return this.#revision;
  }

  get time(): Lifetime {
    return this.#time;
  }

  confirm(options: ConfirmOptions): Promise<void> {
    return this.#confirm(this, options);
  }

  renewed(revision: string, time: Lifetime): void {
    this.#revision = revision;
    this.#time = time;
  }

  /** Ends the term if its time is up. */
  check(): void {
    if (this.#time.isOver) this.end("it could not be renewed in time");
  }

  throwIfOver(): void {
    this.signal.throwIfAborted();
  }

  end(reason: string): void {
    if (this.#controller.signal.aborted) return;
    clearTimeout(this.#timer);
    this.#controller.abort(new Error(`The term is over: ${reason}`));
    this.#onEnd(this, reason);
  }

  /** In small steps: a timer stands still with the monotonic clock, and the clocks may jump. */
  #watchTime(): void {
    this.#timer = setTimeout(() => {
      this.check();
      if (!this.#controller.signal.aborted) this.#watchTime();
    }, Math.max(0, Math.min(this.#tickMs, this.#time.leftMs)));
  }
}

/**
 * Why the daemon is not ready: each named condition either holds or has a reason why it does not.
 * Ready means that all hold, and may be lost again.
 */
export class Readiness {
  readonly #blocked = new Map<string, string>();
  readonly #onChange: (readiness: Readiness) => void;

  /** Every condition in `names` starts unmet; `onChange` is called after each change. */
  constructor(names: readonly string[], onChange: (readiness: Readiness) => void) {
    for (const name of names) this.#blocked.set(name, "not there yet");
    this.#onChange = onChange;
  }

  get ready(): boolean {
    return this.#blocked.size === 0;
  }

  /** The unmet conditions, one sentence each. */
  get reasons(): readonly string[] {
    return [...this.#blocked].map(([name, reason]) => `${name}: ${reason}`);
  }

  /** Whether `name` holds. */
  holds(name: string): boolean {
    return !this.#blocked.has(name);
  }

  /** Sets or, with `undefined`, clears the reason why `name` does not hold. */
  set(name: string, reason: string | undefined): void {
    if (this.#blocked.get(name) === reason) return;
    if (reason === undefined) this.#blocked.delete(name);
    else this.#blocked.set(name, reason);
    this.#onChange(this);
  }
}

/**
 * Why the daemon is not ready: each named condition either holds or has a reason why it does not.
 * Ready means that all hold, and may be lost again.
 */
export class Readiness {
  readonly #blocked = new Map<string, string>();
  readonly #remarks = new Map<string, string>();
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

  /** What is not as it should be although it does not count as unmet, one sentence each. */
  get remarks(): readonly string[] {
    return [...this.#remarks.values()];
  }

  /** Sets or, with `undefined`, clears the remark `name`. */
  remark(name: string, text: string | undefined): void {
    if (this.#remarks.get(name) === text) return;
    if (text === undefined) this.#remarks.delete(name);
    else this.#remarks.set(name, text);
    this.#onChange(this);
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

/**
 * One condition of readiness, which may be in doubt for a while before it counts as unmet: what
 * held a moment ago is not lost because one look failed, or while it is being mended.
 */
export class Condition implements Disposable {
  readonly name: string;
  readonly #readiness: Readiness;
  #doubt: { endsAt: number; timer: ReturnType<typeof setTimeout> } | undefined;

  constructor(readiness: Readiness, name: string) {
    this.#readiness = readiness;
    this.name = name;
  }

  /** It holds. */
  met(): void {
    this.#endDoubt();
    this.#readiness.set(this.name, undefined);
  }

  /** It does not hold. */
  unmet(reason: string): void {
    this.#endDoubt();
    this.#readiness.set(this.name, reason);
  }

  /**
   * It held and may still hold. It counts as unmet once it has been in doubt for `graceMs`; a doubt
   * does not begin anew by being repeated.
   */
  doubtful(reason: string, graceMs: number): void {
    if (!this.#readiness.holds(this.name)) return this.unmet(reason);
    const endsAt = Math.min(performance.now() + graceMs, this.#doubt?.endsAt ?? Infinity);
    this.#endDoubt();
    const timer = setTimeout(() => this.unmet(reason), Math.max(0, endsAt - performance.now()));
    this.#doubt = { endsAt, timer };
  }

  [Symbol.dispose](): void {
    this.#endDoubt();
  }

  #endDoubt(): void {
    clearTimeout(this.#doubt?.timer);
    this.#doubt = undefined;
  }
}

/**
 * The desired objects of a Table of many, with a journal of what has changed about them: a round
 * then looks at these alone.
 *
 * @module
 */

/** What a diff needs of desired objects. */
export interface DesiredByKey<Spec> {
  readonly size: number;
  get(key: string): Spec | undefined;
  entries(): Iterable<[string, Spec]>;
}

/** Desired objects by their keys in the Table, kept up to date one by one. */
export class Wanted<Spec> implements DesiredByKey<Spec>, Iterable<Spec> {
  readonly #key: (spec: Spec) => string;
  readonly #specs = new Map<string, Spec>();
  /** Each key that has changed, with what was wanted before. */
  #changes = new Map<string, Spec | undefined>();

  /** @param key Gives the same as the Table's kind. */
  constructor(key: (spec: Spec) => string) {
    this.#key = key;
  }

  get size(): number {
    return this.#specs.size;
  }

  get hasChanges(): boolean {
    return this.#changes.size > 0;
  }

  get(key: string): Spec | undefined {
    return this.#specs.get(key);
  }

  /** What was wanted under `key` when the changes were last taken. */
  taken(key: string): Spec | undefined {
    return this.#changes.has(key) ? this.#changes.get(key) : this.#specs.get(key);
  }

  entries(): Iterable<[string, Spec]> {
    return this.#specs.entries();
  }

  [Symbol.iterator](): Iterator<Spec> {
    return this.#specs.values();
  }

  /** @throws {TypeError} If another object has its key: the plan contradicts itself. */
  add(spec: Spec): void {
    const key = this.#key(spec);
    if (this.#specs.has(key)) throw new TypeError(`Cannot plan ${key}: it is desired twice`);
    this.#note(key);
    this.#specs.set(key, spec);
  }

  delete(spec: Spec): void {
    const key = this.#key(spec);
    this.#note(key);
    this.#specs.delete(key);
  }

  #note(key: string): void {
    if (!this.#changes.has(key)) this.#changes.set(key, this.#specs.get(key));
  }

  /** The keys that have changed since this was called last, with what was wanted then. */
  takeChanges(): ReadonlyMap<string, Spec | undefined> {
    const changes = this.#changes;
    if (changes.size > 0) this.#changes = new Map();
    return changes;
  }
}

/**
 * An observable value: state has one owner, who sets it, and any number of readers and followers.
 *
 * @module
 */

/** A {@linkcode Cell} as others than its owner see it. */
export interface ReadableCell<T> {
  readonly value: T;
  /**
   * Has `listener` called after each change, synchronously and in the order of subscription, until
   * the subscription is disposed. It is not called with the present value.
   */
  subscribe(listener: (value: T, before: T) => void): Disposable;
}

/** Whether two values are the same, so that going from one to the other is no change. */
export type Equality<T> = (a: T, b: T) => boolean;

/** An observable value. */
export class Cell<T> implements ReadableCell<T> {
  readonly #equals: Equality<T>;
  readonly #listeners = new Set<(value: T, before: T) => void>();
  #value: T;

  /** @param equals By default values are compared with `Object.is`. */
  constructor(value: T, equals: Equality<T> = Object.is) {
    this.#value = value;
    this.#equals = equals;
  }

  get value(): T {
    return this.#value;
  }

  /** Keeps the former object if `value` equals it. Returns whether it was a change. */
  set(value: T): boolean {
    const before = this.#value;
    if (this.#equals(before, value)) return false;
    this.#value = value;
    for (const listener of [...this.#listeners]) {
      // A listener before this one may have set another value, of which all have been told by now.
      if (this.#value !== value) break;
      if (this.#listeners.has(listener)) listener(value, before);
    }
    return true;
  }

  subscribe(listener: (value: T, before: T) => void): Disposable {
    const own = (value: T, before: T) => listener(value, before);
    this.#listeners.add(own);
    return { [Symbol.dispose]: () => void this.#listeners.delete(own) };
  }
}

/** Whether two arrays have the same items, by `equals`. */
export function sameItems<T>(
  a: readonly T[],
  b: readonly T[],
  equals: Equality<T> = Object.is,
): boolean {
  return a.length === b.length && a.every((item, i) => equals(item, b[i]!));
}

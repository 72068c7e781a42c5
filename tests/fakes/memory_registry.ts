/**
 * A store in memory, for tests of what stands above the registry: several hosts share one
 * {@linkcode MemoryStore}, each through a {@linkcode MemoryRegistry} of its own whose connection
 * can fail.
 *
 * @module
 */
import {
  type CallOptions,
  type Entry,
  type Registry,
  StoreError,
  type WatchEvent,
  type WatchUpdate,
} from "../../src/store/registry.ts";
import { abortable } from "../../src/util/abortable.ts";

interface Stored {
  readonly value: string;
  readonly revision: number;
  /** On the store's clock; `undefined` for a reservation. */
  readonly expiresAtSeconds: number | undefined;
}

/** A change of the store. `key` is `undefined` for the config. */
interface Change {
  readonly revision: number;
  readonly key: string | undefined;
  /** `undefined` for a deletion. */
  readonly entry: Entry | undefined;
}

/** The calls of a registry that can be made to fail. */
export type Operation = Exclude<keyof Registry, "description" | "watch" | "watchConfig" | symbol>;

/** What all hosts see. Its clock stands still until {@linkcode MemoryStore.advance} moves it. */
export class MemoryStore {
  #revision = 1;
  #seconds = 0;
  #config: Stored | undefined;
  readonly #entries = new Map<string, Stored>();
  #history: Change[] = [];
  #compactedRevision = 0;
  readonly #listeners = new Set<() => void>();

  get revision(): number {
    return this.#revision;
  }

  get config(): string | undefined {
    return this.#config?.value;
  }

  setConfig(value: string | undefined): void {
    this.#config = value === undefined
      ? undefined
      : { value, revision: this.#revision + 1, expiresAtSeconds: undefined };
    this.#record(undefined, value === undefined ? undefined : toEntry("", this.#config!));
  }

  /** Writes a key as anyone with etcdctl could; without `ttlSeconds` it is a reservation. */
  put(key: string, value: string, options: { ttlSeconds?: number } = {}): Entry {
    const stored: Stored = {
      value,
      revision: this.#revision + 1,
      expiresAtSeconds: options.ttlSeconds === undefined
        ? undefined
        : this.#seconds + options.ttlSeconds,
    };
    this.#entries.set(key, stored);
    const entry = toEntry(key, stored);
    this.#record(key, entry);
    return entry;
  }

  /** Deletes a key as anyone could; `false` if it was absent. */
  delete(key: string): boolean {
    if (!this.#entries.delete(key)) return false;
    this.#record(key, undefined);
    return true;
  }

  get(key: string): Entry | undefined {
    const stored = this.#entries.get(key);
    return stored === undefined ? undefined : toEntry(key, stored);
  }

  /** All entries, in the order of their keys. */
  entries(): Entry[] {
    return [...this.#entries].map(([key, stored]) => toEntry(key, stored))
      .sort((a, b) => a.key < b.key ? -1 : 1);
  }

  /** Seconds until a key ends; `undefined` for a reservation or an absent key. */
  timeToLive(key: string): number | undefined {
    const end = this.#entries.get(key)?.expiresAtSeconds;
    return end === undefined ? undefined : end - this.#seconds;
  }

  /** Prolongs a key without an event and without a new revision, as a KeepAlive does. */
  prolong(key: string, ttlSeconds: number): void {
    const stored = this.#entries.get(key);
    if (stored === undefined) return;
    this.#entries.set(key, { ...stored, expiresAtSeconds: this.#seconds + ttlSeconds });
  }

  /** Moves the clock; keys whose time is up are deleted. */
  advance(seconds: number): void {
    this.#seconds += seconds;
    for (const [key, { expiresAtSeconds }] of [...this.#entries]) {
      if (expiresAtSeconds !== undefined && expiresAtSeconds <= this.#seconds) this.delete(key);
    }
  }

  /** Forgets the history: a watch that lags gets a snapshot. */
  compact(): void {
    this.#history = [];
    this.#compactedRevision = this.#revision;
  }

  /** Changes after `revision`, or `undefined` if some of them are forgotten. */
  changesSince(revision: number): readonly Change[] | undefined {
    if (revision < this.#compactedRevision) return undefined;
    return this.#history.filter((change) => change.revision > revision);
  }

  /** Resolves when something may have changed; `wake` does the same by hand. */
  changed(options: { signal: AbortSignal }): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#listeners.add(resolve);
    return abortable(promise, options).finally(() => this.#listeners.delete(resolve));
  }

  wake(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #record(key: string | undefined, entry: Entry | undefined): void {
    this.#revision++;
    this.#history.push({ revision: this.#revision, key, entry });
    this.wake();
  }
}

function toEntry(key: string, { value, revision, expiresAtSeconds }: Stored): Entry {
  return { key, value, revision: String(revision), expires: expiresAtSeconds !== undefined };
}

/** One host's access to a {@linkcode MemoryStore}, with faults on demand. */
export class MemoryRegistry implements Registry {
  readonly description = "memory";
  readonly store: MemoryStore;
  /** Every call made, in order: `create 10.3.4.0-24`. Watches are not among them. */
  readonly calls: string[] = [];
  readonly #faults: { operation: Operation; error: Error; applied: boolean }[] = [];
  #outage: Error | undefined;

  constructor(store: MemoryStore = new MemoryStore()) {
    this.store = store;
  }

  /**
   * Makes the next call of `operation` fail. With `applied` it has its effect all the same, as
   * when a connection is lost between request and answer. Several faults are met in order.
   */
  failNext(
    operation: Operation,
    options: { error?: Error; applied?: boolean } = {},
  ): void {
    const { error = unavailable(), applied = false } = options;
    this.#faults.push({ operation, error, applied });
  }

  /** Cuts the host off: calls fail, watches report `disconnected`, until it is reconnected. */
  disconnect(error: Error = unavailable()): void {
    this.#outage = error;
    this.store.wake();
  }

  reconnect(): void {
    this.#outage = undefined;
    this.store.wake();
  }

  readConfig(options: CallOptions): Promise<string | undefined> {
    return this.#call("readConfig", "", options, () => this.store.config);
  }

  async *watchConfig(options: CallOptions): AsyncGenerator<string | undefined> {
    let known: { readonly value: string | undefined } | undefined;
    while (!options.signal.aborted) {
      const value = this.store.config;
      if (this.#outage === undefined && (known === undefined || known.value !== value)) {
        known = { value };
        yield value;
        continue;
      }
      await this.store.changed(options).catch(() => {}); // the loop's condition tells of the abort
    }
  }

  list(options: CallOptions): Promise<readonly Entry[]> {
    return this.#call("list", "", options, () => this.store.entries());
  }

  get(key: string, options: CallOptions): Promise<Entry | undefined> {
    return this.#call("get", key, options, () => this.store.get(key));
  }

  create(
    key: string,
    value: string,
    ttlSeconds: number | undefined,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return this.#call("create", key, options, () => {
      return this.store.get(key) ? undefined : this.store.put(key, value, life(ttlSeconds));
    });
  }

  update(
    key: string,
    value: string,
    revision: string,
    ttlSeconds: number | undefined,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return this.#call("update", key, options, () => {
      if (this.store.get(key)?.revision !== revision) return undefined;
      return this.store.put(key, value, life(ttlSeconds));
    });
  }

  renew(
    key: string,
    revision: string,
    ttlSeconds: number,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return this.#call("renew", key, options, () => {
      const entry = this.store.get(key);
      if (entry?.revision !== revision) return undefined;
      if (entry.expires) this.store.prolong(key, ttlSeconds);
      return entry;
    });
  }

  timeToLive(key: string, options: CallOptions): Promise<number | undefined> {
    return this.#call("timeToLive", key, options, () => this.store.timeToLive(key));
  }

  remove(key: string, revision: string, options: CallOptions): Promise<boolean> {
    return this.#call("remove", key, options, () => {
      return this.store.get(key)?.revision === revision && this.store.delete(key);
    });
  }

  async *watch(options: CallOptions): AsyncGenerator<WatchUpdate> {
    const { signal } = options;
    let seen: number | undefined;
    let disconnected = false;
    while (!signal.aborted) {
      if (this.#outage !== undefined) {
        if (!disconnected) yield { type: "disconnected", error: this.#outage };
        disconnected = true;
        await this.store.changed(options).catch(() => {});
        continue;
      }
      const changes = seen === undefined ? undefined : this.store.changesSince(seen);
      const from = seen;
      seen = this.store.revision;
      if (changes === undefined) {
        yield { type: "snapshot", entries: this.store.entries() };
      } else {
        const events = changes.flatMap(toEvent);
        if (events.length > 0 || disconnected) yield { type: "events", events };
        else if (from === seen) await this.store.changed(options).catch(() => {});
      }
      disconnected = false;
    }
  }

  addressesChanged(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }

  async #call<T>(
    operation: Operation,
    key: string,
    options: CallOptions,
    carryOut: () => T,
  ): Promise<T> {
    this.calls.push(key === "" ? operation : `${operation} ${key}`);
    options.signal.throwIfAborted();
    await Promise.resolve(); // no store answers in the same turn
    options.signal.throwIfAborted();
    if (this.#outage !== undefined) throw this.#outage;
    const index = this.#faults.findIndex((fault) => fault.operation === operation);
    const [fault] = index < 0 ? [] : this.#faults.splice(index, 1);
    if (fault !== undefined && !fault.applied) throw fault.error;
    const result = carryOut();
    if (fault !== undefined) throw fault.error;
    return result;
  }
}

function life(ttlSeconds: number | undefined): { ttlSeconds?: number } {
  return ttlSeconds === undefined ? {} : { ttlSeconds };
}

function toEvent({ key, entry }: Change): WatchEvent[] {
  if (key === undefined) return []; // the config
  return [entry === undefined ? { type: "delete", key } : { type: "put", entry }];
}

function unavailable(): StoreError {
  return new StoreError("unavailable", "Cannot reach the store: it is cut off by the test");
}

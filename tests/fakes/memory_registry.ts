/**
 * A store in memory, for tests of what stands above the registry: several hosts share one
 * {@linkcode MemoryStore}, each through a {@linkcode MemoryRegistry} of its own whose connection
 * can fail.
 *
 * @module
 */
import type { WriteOptions } from "../../src/store/documents.ts";
import { type CallOptions, StoreError } from "../../src/store/errors.ts";
import {
  type Entry,
  type EtcdKeys,
  type LeaseSpace,
  orderOf,
  type Registry,
  type SeenKey,
  type WatchEvent,
  type WatchUpdate,
} from "../../src/store/keys/key_space.ts";
import type { LeaseStore } from "../../src/store/lease_store.ts";
import { EtcdStore } from "../../src/store/etcd/store.ts";
import { spacePrefix } from "../../src/store/etcd/options.ts";
import { abortable } from "../../src/util/abortable.ts";

interface Stored {
  readonly value: string;
  readonly revision: number;
  readonly createRevision: number;
  /** On the store's clock; `undefined` for a reservation. */
  readonly expiresAtSeconds: number | undefined;
}

/** A change of the store. */
interface Change {
  readonly revision: number;
  readonly path: string;
  /** `undefined` for a deletion. */
  readonly stored: Stored | undefined;
}

/** The calls of a registry that can be made to fail. */
export type Operation = Exclude<
  keyof Registry,
  "description" | "space" | "watch" | "watchConfig" | symbol
>;

/** All keys by their path below the prefix, with one revision and one clock. */
class MemoryTree {
  revision = 1;
  seconds = 0;
  readonly stored = new Map<string, Stored>();
  #history: Change[] = [];
  #compactedRevision = 0;
  readonly #listeners = new Set<() => void>();

  put(path: string, value: string, ttlSeconds: number | undefined): Stored {
    const revision = this.revision + 1;
    const stored: Stored = {
      value,
      revision,
      createRevision: this.stored.get(path)?.createRevision ?? revision,
      expiresAtSeconds: ttlSeconds === undefined ? undefined : this.seconds + ttlSeconds,
    };
    this.stored.set(path, stored);
    this.#record(path, stored);
    return stored;
  }

  delete(path: string): boolean {
    if (!this.stored.delete(path)) return false;
    this.#record(path, undefined);
    return true;
  }

  compact(): void {
    this.#history = [];
    this.#compactedRevision = this.revision;
  }

  changesSince(revision: number): readonly Change[] | undefined {
    if (revision < this.#compactedRevision) return undefined;
    return this.#history.filter((change) => change.revision > revision);
  }

  changed(options: { signal: AbortSignal }): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#listeners.add(resolve);
    return abortable(promise, options).finally(() => this.#listeners.delete(resolve));
  }

  wake(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  #record(path: string, stored: Stored | undefined): void {
    this.revision++;
    this.#history.push({ revision: this.revision, path, stored });
    this.wake();
  }
}

/** The keys of one space as anyone with etcdctl sees and changes them. */
export class MemoryArea {
  readonly #tree: MemoryTree;
  /** What the paths of the space begin with, such as `subnets/`. */
  readonly prefix: string;

  constructor(tree: MemoryTree, prefix: string) {
    this.#tree = tree;
    this.prefix = prefix;
  }

  /** Writes a key; without `ttlSeconds` it is a reservation. */
  put(key: string, value: string, options: { ttlSeconds?: number } = {}): Entry {
    return toEntry(key, this.#tree.put(this.prefix + key, value, options.ttlSeconds));
  }

  /** Deletes a key; `false` if it was absent. */
  delete(key: string): boolean {
    return this.#tree.delete(this.prefix + key);
  }

  get(key: string): Entry | undefined {
    const stored = this.#tree.stored.get(this.prefix + key);
    return stored === undefined ? undefined : toEntry(key, stored);
  }

  /** All entries, in the order of their keys. */
  entries(): Entry[] {
    return [...this.#tree.stored]
      .filter(([path]) => path.startsWith(this.prefix))
      .map(([path, stored]) => toEntry(path.slice(this.prefix.length), stored))
      .sort((a, b) => a.key < b.key ? -1 : 1);
  }

  /** Seconds until a key ends; `undefined` for a reservation or an absent key. */
  timeToLive(key: string): number | undefined {
    const end = this.#tree.stored.get(this.prefix + key)?.expiresAtSeconds;
    return end === undefined ? undefined : end - this.#tree.seconds;
  }

  /** Prolongs a key without an event and without a new revision, as a KeepAlive does. */
  prolong(key: string, ttlSeconds: number): void {
    const stored = this.#tree.stored.get(this.prefix + key);
    if (stored === undefined) return;
    const expiresAtSeconds = this.#tree.seconds + ttlSeconds;
    this.#tree.stored.set(this.prefix + key, { ...stored, expiresAtSeconds });
  }

  /** The revision of the whole store. */
  get revision(): number {
    return this.#tree.revision;
  }

  /** Changes of the space after `revision`, or `undefined` if some of them are forgotten. */
  changesSince(revision: number): readonly WatchEvent[] | undefined {
    return this.#tree.changesSince(revision)?.flatMap(({ path, stored }): WatchEvent[] => {
      if (!path.startsWith(this.prefix)) return [];
      const key = path.slice(this.prefix.length);
      return [
        stored === undefined
          ? { type: "delete", key }
          : { type: "put", entry: toEntry(key, stored) },
      ];
    });
  }

  /** Resolves when something may have changed; `wake` does the same by hand. */
  changed(options: { signal: AbortSignal }): Promise<void> {
    return this.#tree.changed(options);
  }

  wake(): void {
    this.#tree.wake();
  }
}

/**
 * What all hosts see; as an area it is the leases. Its clock stands still until
 * {@linkcode MemoryStore.advance} moves it.
 */
export class MemoryStore extends MemoryArea {
  readonly #tree: MemoryTree;

  constructor() {
    const tree = new MemoryTree();
    super(tree, "subnets/");
    this.#tree = tree;
  }

  get config(): string | undefined {
    return this.#tree.stored.get("config")?.value;
  }

  setConfig(value: string | undefined): void {
    if (value === undefined) this.#tree.delete("config");
    else this.#tree.put("config", value, undefined);
  }

  /** The keys below `<name>/`; `""` for all keys by their paths. */
  area(name: string): MemoryArea {
    return new MemoryArea(this.#tree, name === "" ? "" : `${name}/`);
  }

  /** Moves the clock; keys whose time is up are deleted. */
  advance(seconds: number): void {
    this.#tree.seconds += seconds;
    for (const [path, { expiresAtSeconds }] of [...this.#tree.stored]) {
      const isOver = expiresAtSeconds !== undefined && expiresAtSeconds <= this.#tree.seconds;
      if (isOver) this.#tree.delete(path);
    }
  }

  /** Forgets the history: a watch that lags gets a snapshot. */
  compact(): void {
    this.#tree.compact();
  }
}

function toEntry(key: string, stored: Stored): Entry {
  return {
    key,
    value: stored.value,
    version: String(stored.revision),
    order: orderOf(stored.createRevision),
    expires: stored.expiresAtSeconds !== undefined,
  };
}

/** One host's connection to the store, with faults on demand. */
class MemoryConnection {
  /** Every call made, in order. */
  readonly calls: string[] = [];
  readonly faults: { operation: Operation; error: Error; applied: boolean }[] = [];
  outage: Error | undefined;
  gate: (() => Promise<void>) | undefined;

  async call<T>(
    operation: Operation,
    key: string,
    options: CallOptions,
    carryOut: () => T,
  ): Promise<T> {
    this.calls.push(key === "" ? operation : `${operation} ${key}`);
    options.signal.throwIfAborted();
    await Promise.resolve(); // no store answers in the same turn
    await this.gate?.();
    options.signal.throwIfAborted();
    if (this.outage !== undefined) throw this.outage;
    const index = this.faults.findIndex((fault) => fault.operation === operation);
    const [fault] = index < 0 ? [] : this.faults.splice(index, 1);
    if (fault !== undefined && !fault.applied) throw fault.error;
    const result = carryOut();
    await this.gate?.();
    if (fault !== undefined) throw fault.error;
    return result;
  }
}

/** A host's access to one space. */
class MemorySpace implements LeaseSpace {
  readonly #connection: MemoryConnection;
  readonly #area: MemoryArea;
  /** In front of the keys in {@linkcode MemoryRegistry.calls}. */
  readonly #label: string;

  constructor(connection: MemoryConnection, area: MemoryArea, label: string) {
    this.#connection = connection;
    this.#area = area;
    this.#label = label;
  }

  list(options: CallOptions): Promise<readonly Entry[]> {
    return this.#connection.call("list", this.#label, options, () => this.#area.entries());
  }

  get(key: string, options: CallOptions): Promise<Entry | undefined> {
    return this.#connection.call("get", this.#label + key, options, () => this.#area.get(key));
  }

  create(key: string, value: string, options: WriteOptions): Promise<Entry | undefined> {
    return this.#connection.call("create", this.#label + key, options, () => {
      return this.#area.get(key) ? undefined : this.#area.put(key, value, life(options));
    });
  }

  update(
    { key, version }: SeenKey,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    return this.#connection.call("update", this.#label + key, options, () => {
      if (this.#area.get(key)?.version !== version) return undefined;
      return this.#area.put(key, value, life(options));
    });
  }

  move(
    from: SeenKey,
    key: string,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    return this.#connection.call("move", this.#label + key, options, () => {
      const isFree = this.#area.get(key) === undefined &&
        this.#area.get(from.key)?.version === from.version;
      if (!isFree) return undefined;
      this.#area.delete(from.key);
      return this.#area.put(key, value, life(options));
    });
  }

  renew(
    { key, version }: SeenKey,
    lifetimeSeconds: number,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return this.#connection.call("renew", this.#label + key, options, () => {
      const entry = this.#area.get(key);
      if (entry?.version !== version) return undefined;
      if (entry.expires) this.#area.prolong(key, lifetimeSeconds);
      return entry;
    });
  }

  timeToLive(key: string, options: CallOptions): Promise<number | undefined> {
    return this.#connection.call(
      "timeToLive",
      this.#label + key,
      options,
      () => this.#area.timeToLive(key),
    );
  }

  remove({ key, version }: SeenKey, options: CallOptions): Promise<boolean> {
    return this.#connection.call("remove", this.#label + key, options, () => {
      return this.#area.get(key)?.version === version && this.#area.delete(key);
    });
  }

  async *watch(options: CallOptions): AsyncGenerator<WatchUpdate> {
    const { signal } = options;
    let seen: number | undefined;
    let disconnected = false;
    while (!signal.aborted) {
      await this.#connection.gate?.();
      if (this.#connection.outage !== undefined) {
        if (!disconnected) yield { type: "disconnected", error: this.#connection.outage };
        disconnected = true;
        await this.#area.changed(options).catch(() => {});
        continue;
      }
      const changes = seen === undefined ? undefined : this.#area.changesSince(seen);
      const from = seen;
      seen = this.#area.revision;
      if (changes === undefined) {
        yield { type: "snapshot", entries: this.#area.entries() };
      } else {
        if (changes.length > 0 || disconnected) yield { type: "events", events: changes };
        else if (from === seen) await this.#area.changed(options).catch(() => {});
      }
      disconnected = false;
    }
  }
}

/** One host's access to a {@linkcode MemoryStore}, with faults on demand. */
export class MemoryRegistry extends MemorySpace implements Registry {
  readonly description = "memory";
  readonly store: MemoryStore;
  readonly #connection: MemoryConnection;

  constructor(store: MemoryStore = new MemoryStore()) {
    const connection = new MemoryConnection();
    super(connection, store, "");
    this.store = store;
    this.#connection = connection;
  }

  /**
   * Every call made, in order: `create 10.3.4.0-24`, `get ali-vpc/election/writer`. Watches are
   * not among them.
   */
  get calls(): string[] {
    return this.#connection.calls;
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
    this.#connection.faults.push({ operation, error, applied });
  }

  /** Makes the host pass `gate` before and after each call, and before it hears of changes. */
  set gate(gate: () => Promise<void>) {
    this.#connection.gate = gate;
  }

  /** Cuts the host off: calls fail, watches report `disconnected`, until it is reconnected. */
  disconnect(error: Error = unavailable()): void {
    this.#connection.outage = error;
    this.store.wake();
  }

  reconnect(): void {
    this.#connection.outage = undefined;
    this.store.wake();
  }

  readConfig(options: CallOptions): Promise<string | undefined> {
    return this.#connection.call("readConfig", "", options, () => this.store.config);
  }

  async *watchConfig(options: CallOptions): AsyncGenerator<string | undefined> {
    let known: { readonly value: string | undefined } | undefined;
    while (!options.signal.aborted) {
      const value = this.store.config;
      if (this.#connection.outage === undefined && (known === undefined || known.value !== value)) {
        known = { value };
        yield value;
        continue;
      }
      await this.store.changed(options).catch(() => {}); // the loop's condition tells of the abort
    }
  }

  space(name: string): LeaseSpace {
    const label = spacePrefix("", name);
    return new MemorySpace(this.#connection, this.store.area(name), label);
  }

  addressesChanged(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** A store with all that a daemon needs over the keys of `registry`. */
export function openMemoryStore(registry: MemoryRegistry): LeaseStore {
  const { description } = registry;
  const keys: EtcdKeys = {
    description,
    decided: registry,
    chosen: () => Promise.resolve(registry),
    explainMissing: (example) => Promise.resolve(`The network config is absent; write ${example}`),
    writeCommand: (path, value) => `etcdctl put /coreos.com/network/${path} ${value}`,
    addressesChanged() {},
    [Symbol.asyncDispose]: () => Promise.resolve(),
  };
  return new EtcdStore(keys, { renewMarginSeconds: 3_600 });
}

function life({ lifetimeSeconds }: WriteOptions): { ttlSeconds?: number } {
  return lifetimeSeconds === undefined ? {} : { ttlSeconds: lifetimeSeconds };
}

function unavailable(): StoreError {
  return new StoreError("unavailable", "Cannot reach the store: it is cut off by the test");
}

/**
 * What stores of keys have in common: keys, values and versions in spaces. In etcd those are the
 * places that flannel uses, `<prefix>/config` and `<prefix>/subnets/<key>`, and beside them spaces of
 * our own, where upstream's daemons never look; in Kubernetes, objects of one label. Implemented over
 * etcd v3, v2, Kubernetes and, for tests, memory; contract suites run on all.
 *
 * @module
 */
import type { Document, WriteOptions } from "../documents.ts";
import type { CallOptions } from "../errors.ts";

/**
 * A key of a {@linkcode KeySpace}, as the store holds it. Nothing about it is trusted yet. It is
 * named by the part after the space's own path, such as `<prefix>/subnets/` for leases; its version
 * is mod_revision (v3) or modifiedIndex (v2), in decimal.
 */
export interface Entry extends Document {
  /** When the key was created; see {@linkcode orderOf}. */
  readonly order: string;
  /** Whether the key ends by itself (it has an etcd lease or TTL). False for a reservation. */
  readonly expires: boolean;
}

/** A key as it was at some version. */
export type SeenKey = Pick<Entry, "key" | "version">;

/** Orders decimal revisions of any size. */
export function compareRevisions(a: string, b: string): number {
  return a.length - b.length || (a < b ? -1 : a > b ? 1 : 0);
}

/** The order of keys by a create_revision (v3) or createdIndex (v2): earlier ones are lower texts. */
export function orderOf(createRevision: string | number): string {
  return String(createRevision).padStart(20, "0");
}

/** A change seen by {@linkcode KeySpace.watch}. A deletion is also how an expiry shows. */
export type WatchEvent =
  | { readonly type: "put"; readonly entry: Entry }
  | { readonly type: "delete"; readonly key: string };

/**
 * What a watch yields: first a snapshot, then events in order. A further snapshot replaces all that
 * came before. `disconnected` says, once per outage, that nothing newer is known until the next
 * `snapshot` or `events`.
 */
export type WatchUpdate =
  | { readonly type: "snapshot"; readonly entries: readonly Entry[] }
  | { readonly type: "events"; readonly events: readonly WatchEvent[] }
  | { readonly type: "disconnected"; readonly error: Error };

export interface KnownEntries {
  /** What `list` of the same space returned: that very array. */
  readonly listed: readonly Entry[];
  /** What the caller has written since. */
  readonly written: Entry;
}

export interface WatchOptions extends CallOptions {
  readonly after?: KnownEntries;
}

/**
 * The keys below one path of the store, with the rules of `Documents`. Calls fail over
 * between endpoints, but do not otherwise retry.
 */
export interface KeySpace {
  list(options: CallOptions): Promise<readonly Entry[]>;
  get(key: string, options: CallOptions): Promise<Entry | undefined>;
  create(key: string, value: string, options: WriteOptions): Promise<Entry | undefined>;
  /** Without a lifetime, a reservation stays one. */
  update(seen: SeenKey, value: string, options: WriteOptions): Promise<Entry | undefined>;
  /**
   * Prolongs the key, without an event for watchers and without a new version where the store can do
   * that. Returns the entry as it now is, `undefined` if the key is gone or changed.
   */
  renew(seen: SeenKey, lifetimeSeconds: number, options: CallOptions): Promise<Entry | undefined>;
  remove(seen: SeenKey, options: CallOptions): Promise<boolean>;
  /**
   * Follows the space. With `after`, the first snapshot is that where the store can tell what has
   * changed since: thousands of keys need not be read twice. Never throws for trouble of the
   * store: it yields `disconnected`, and goes on, with jittered back-off, until `signal` aborts
   * (then it ends).
   */
  watch(options: WatchOptions): AsyncIterable<WatchUpdate>;
}

/** A space that can hold leases: a key may be changed, and tells how long it has. */
export interface LeaseSpace extends KeySpace {
  /**
   * Puts `key`, which must be absent, in the place of `from`, so that at no time neither is there. A
   * store without transactions has both for a moment; then the new key is written last, since
   * upstream's daemons drop what leads to a subnet with its last lease to go.
   */
  move(
    from: SeenKey,
    key: string,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined>;
  /** Seconds until the key expires; `undefined` for a reservation or an absent key. */
  timeToLive(key: string, options: CallOptions): Promise<number | undefined>;
}

/** A store of network config and leases; as a {@linkcode LeaseSpace} it is `<prefix>/subnets/`. */
export interface Registry extends LeaseSpace, AsyncDisposable {
  /**
   * To be called when this host's addresses have changed: connections from an address that is gone
   * get no response any more. A request that waits for one is sent again.
   */
  addressesChanged(): void;
  /** For messages: `etcd v3 at http://10.0.0.5:2379`. */
  readonly description: string;
  /** The value of `<prefix>/config`, or `undefined` if the key is absent. */
  readConfig(options: CallOptions): Promise<string | undefined>;
  /**
   * Yields the present config, then whenever it changes; `undefined` while there is none. Ends on
   * abort only.
   */
  watchConfig(options: CallOptions): AsyncIterable<string | undefined>;
  /**
   * The keys under `<prefix>/<name>/`, over the same connections; see `LeaseStore.documents`.
   * @throws {RangeError}
   */
  space(name: string): LeaseSpace;
}

/** The keys of a network, where v3 or v2 may not be decided yet. */
export interface EtcdKeys extends AsyncDisposable {
  readonly description: string;
  /** The store to use; decided once it holds the config. */
  chosen(options: CallOptions): Promise<Registry>;
  /**
   * The store that was decided on.
   *
   * @throws {Error} If that has not happened yet.
   */
  readonly decided: Registry;
  explainMissing(example: string, options: CallOptions): Promise<string>;
  /** The command that writes the key at a path below the prefix. */
  writeCommand(path: string, value: string): string;
  addressesChanged(): void;
}

/** The keys of a network in etcd v3. @module */
import type { ICompare, IKeyValue, IRequestOp, ITxnResponse } from "etcd3";
import { Buffer } from "node:buffer";
import { likelyConfigKeys, looksLikeConfig, mayHoldConfig } from "./missing_config.ts";
import { EtcdClient } from "./client.ts";
import { configKey, type EtcdSettings, spacePrefix, subnetsPrefix } from "./options.ts";
import {
  type KeyRange,
  prefixRange,
  type RangeSnapshot,
  readRange,
  singleKey,
  toEntry,
} from "./range.ts";
import { followRange } from "./watch.ts";
import { valueChanges, WATCH_TIMING, type WatchTiming } from "../keys/follow.ts";
import type { WriteOptions } from "../documents.ts";
import { type CallOptions, StoreError } from "../errors.ts";
import {
  type Entry,
  type LeaseSpace,
  orderOf,
  type Registry,
  type SeenKey,
  type WatchOptions,
  type WatchUpdate,
} from "../keys/key_space.ts";

/** The keys of one range of etcd v3. */
class EtcdV3Space implements LeaseSpace {
  readonly #client: EtcdClient;
  readonly #range: KeyRange;
  readonly #timing: WatchTiming;
  /** When each list that was returned was true. */
  readonly #listed = new WeakMap<readonly Entry[], RangeSnapshot>();

  constructor(client: EtcdClient, range: KeyRange, timing: WatchTiming) {
    this.#client = client;
    this.#range = range;
    this.#timing = timing;
  }

  async list(options: CallOptions): Promise<readonly Entry[]> {
    const snapshot = await readRange(this.#range, (request) => {
      return this.#client.call("idempotent", "range", request, options);
    });
    this.#listed.set(snapshot.entries, snapshot);
    return snapshot.entries;
  }

  async get(key: string, options: CallOptions): Promise<Entry | undefined> {
    const range = this.#key(key);
    const kv = await readKv(this.#client, range, options);
    return kv === undefined ? undefined : toEntry(kv, range);
  }

  create(key: string, value: string, options: WriteOptions): Promise<Entry | undefined> {
    return this.#putIf([ABSENT], key, value, options);
  }

  update(seen: SeenKey, value: string, options: WriteOptions): Promise<Entry | undefined> {
    return this.#putIf([unchangedSince(seen)], seen.key, value, options);
  }

  /** In one transaction, of which watchers hear the deletion first. */
  move(
    from: SeenKey,
    key: string,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    const { start } = this.#key(from.key);
    const compare = [ABSENT, { ...unchangedSince(from), key: start }];
    const before = [{ request_delete_range: { key: start } }];
    return this.#putIf(compare, key, value, options, before);
  }

  async renew(
    seen: SeenKey,
    lifetimeSeconds: number,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    const range = this.#key(seen.key);
    const kv = await readKv(this.#client, range, options);
    if (kv === undefined || kv.mod_revision !== seen.version) return undefined;
    const entry = toEntry(kv, range);
    if (!entry.expires) return entry; // a reservation stays one
    // Prolonging the etcd lease changes no key, so no watcher wakes up for it.
    const grantedSeconds = await this.#client.run(
      "idempotent",
      (connection, timeoutMs) =>
        connection.keepAlive(kv.lease, { signal: options.signal, timeoutMs }),
      options,
    );
    if (grantedSeconds >= lifetimeSeconds) return entry;
    return await this.update(seen, entry.value, { signal: options.signal, lifetimeSeconds });
  }

  async timeToLive(key: string, options: CallOptions): Promise<number | undefined> {
    const kv = await readKv(this.#client, this.#key(key), options);
    if (kv === undefined || kv.lease === "0") return undefined;
    const request = { ID: kv.lease };
    const { TTL } = await this.#client.call("idempotent", "leaseTimeToLive", request, options);
    return Math.max(0, Number(TTL));
  }

  async remove(seen: SeenKey, options: CallOptions): Promise<boolean> {
    const { start } = this.#key(seen.key);
    const operation = { request_delete_range: { key: start } };
    const response = await this.#transact([unchangedSince(seen)], start, [operation], options);
    return response.succeeded;
  }

  watch(options: WatchOptions): AsyncIterable<WatchUpdate> {
    const { after } = options;
    const snapshot = after && this.#listed.get(after.listed);
    const known = snapshot && {
      ...snapshot,
      entries: withEntry(after.listed, after.written),
      writtenRevision: after.written.version,
    };
    return followRange(this.#client, this.#range, this.#timing, { ...options, known });
  }

  /** The range of one key; its entry keeps the key as the space's users know it. */
  #key(key: string): KeyRange {
    const { start, prefixBytes } = this.#range;
    return { start: Buffer.concat([start, Buffer.from(key)]), end: undefined, prefixBytes };
  }

  /**
   * Puts the key if `compare` holds, under an etcd lease of its own if it is to expire; `before`
   * belongs to the same transaction.
   */
  async #putIf(
    compare: readonly ICompare[],
    key: string,
    value: string,
    options: WriteOptions,
    before: readonly IRequestOp[] = [],
  ): Promise<Entry | undefined> {
    const { start } = this.#key(key);
    const { lifetimeSeconds } = options;
    const lease = lifetimeSeconds === undefined ? "0" : await this.#grant(lifetimeSeconds, options);
    const put = { request_put: { key: start, value: Buffer.from(value), lease, prev_kv: true } };
    let response: ITxnResponse;
    try {
      response = await this.#transact(compare, start, [...before, put], options);
    } catch (error) {
      // Where the outcome is unknown the key may hang on this etcd lease, and revoking it would
      // delete the key: then it is left to end by itself.
      const unused = error instanceof StoreError && error.reason !== "unavailable";
      if (unused) await this.#revoke(lease, options);
      throw error;
    }
    if (!response.succeeded) {
      await this.#revoke(lease, options);
      return undefined;
    }
    const { revision } = response.header;
    const createRevision = response.responses.at(-1)?.response_put?.prev_kv?.create_revision ??
      revision;
    const order = orderOf(createRevision);
    return { key, value, version: revision, order, expires: lease !== "0" };
  }

  /** Conditions without a key of their own are about `key`. */
  #transact(
    compare: readonly ICompare[],
    key: Buffer,
    success: readonly IRequestOp[],
    options: CallOptions,
  ): Promise<ITxnResponse> {
    const request = { compare: compare.map((each) => ({ key, ...each })), success: [...success] };
    return this.#client.call("once", "txn", request, options);
  }

  async #grant(seconds: number, options: CallOptions): Promise<string> {
    const request = { TTL: Math.ceil(seconds) };
    // Repeating it is harmless: an etcd lease without keys ends by itself.
    return (await this.#client.call("idempotent", "leaseGrant", request, options)).ID;
  }

  /** An etcd lease that no key uses; if this fails it ends by itself. */
  async #revoke(lease: string, options: CallOptions): Promise<void> {
    if (lease === "0") return;
    try {
      await this.#client.call("idempotent", "leaseRevoke", { ID: lease }, options);
    } catch (error) {
      if (!(error instanceof StoreError)) throw error;
    }
  }
}

/** The registry over etcd's v3 API (gRPC). Connects when first asked. */
export class EtcdV3Registry extends EtcdV3Space implements Registry {
  readonly description: string;
  readonly #client: EtcdClient;
  readonly #config: KeyRange;
  readonly #timing: WatchTiming;

  constructor(settings: EtcdSettings, options: { timing?: WatchTiming } = {}) {
    const client = new EtcdClient(settings);
    const { timing = WATCH_TIMING } = options;
    super(client, prefixRange(subnetsPrefix(settings.prefix)), timing);
    this.description = `etcd v3 at ${settings.endpoints.map(({ url }) => url).join(", ")}`;
    this.#client = client;
    this.#config = singleKey(configKey(settings.prefix));
    this.#timing = timing;
  }

  async readConfig(options: CallOptions): Promise<string | undefined> {
    return (await readKv(this.#client, this.#config, options))?.value.toString();
  }

  watchConfig(options: CallOptions): AsyncIterable<string | undefined> {
    return valueChanges(followRange(this.#client, this.#config, this.#timing, options));
  }

  /**
   * Misplaced network configs. Reads the names of some thousand keys at most.
   *
   * @throws {StoreError} If the store cannot be asked; not for what the user may not read.
   */
  async findConfigs(options: CallOptions): Promise<readonly string[]> {
    const { prefix } = this.#client.settings;
    const keys = new Set(likelyConfigKeys(prefix));
    for await (const key of this.#names(options)) if (mayHoldConfig(key, prefix)) keys.add(key);
    const found: string[] = [];
    for (const key of keys) {
      const kv = await unlessDenied(() => readKv(this.#client, singleKey(key), options));
      if (kv !== undefined && looksLikeConfig(kv.value.toString())) found.push(key);
    }
    return found;
  }

  /** The names of the store's keys, without those of leases, as far as one may list them. */
  async *#names(options: CallOptions): AsyncGenerator<string> {
    let start: Buffer = Buffer.of(0);
    for (let page = 0; page < SEARCHED_PAGES; page++) {
      const request = {
        key: start,
        range_end: Buffer.of(0),
        keys_only: true,
        limit: SEARCHED_KEYS,
      };
      const response = await unlessDenied(() =>
        this.#client.call("idempotent", "range", request, options)
      );
      const last = response?.kvs.at(-1)?.key;
      if (response === undefined || last === undefined) return;
      for (const { key } of response.kvs) yield key.toString();
      if (!response.more) return;
      const leases = /^[^]*?\/subnets\//.exec(last.toString());
      start = leases === null
        ? Buffer.concat([last, Buffer.of(0)])
        : prefixRange(leases[0]).end ?? last;
    }
  }

  space(name: string): LeaseSpace {
    const range = prefixRange(spacePrefix(this.#client.settings.prefix, name));
    return new EtcdV3Space(this.#client, range, this.#timing);
  }

  addressesChanged(): void {
    this.#client.reconnect();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client[Symbol.dispose]();
    return Promise.resolve();
  }
}

/** How much of a foreign store is looked through for a misplaced config. */
const SEARCHED_KEYS = 200;
const SEARCHED_PAGES = 20;

/** The outcome of `ask`, or `undefined` if the user lacks the right. */
async function unlessDenied<T>(ask: () => Promise<T>): Promise<T | undefined> {
  try {
    return await ask();
  } catch (error) {
    if (error instanceof StoreError && error.reason === "denied") return undefined;
    throw error;
  }
}

/** The one key of `range`, by a linearizable read. */
async function readKv(
  client: EtcdClient,
  range: KeyRange,
  options: CallOptions,
): Promise<IKeyValue | undefined> {
  const request = { key: range.start };
  const { kvs } = await client.call("idempotent", "range", request, options);
  return kvs[0];
}

/** The key does not exist. */
const ABSENT: ICompare = { target: "Version", result: "Equal", version: 0 };

function unchangedSince({ version }: SeenKey): ICompare {
  return { target: "Mod", result: "Equal", mod_revision: version };
}

/** `entries` with `written` in place of the one with its key. */
function withEntry(entries: readonly Entry[], written: Entry): Entry[] {
  return [...entries.filter(({ key }) => key !== written.key), written];
}

import {
  type ClusterState,
  type ClusterSummary,
  encodeHosts,
  encodeSummary,
  HOST_SHARDS,
  type HostStatus,
  parseHosts,
  parseSummary,
  shardOf,
} from "./cluster_state.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { Entry, KeySpace, WatchUpdate } from "../../store/etcd/key_space.ts";
import type { ClusterStore } from "./cluster_store.ts";

const SUMMARY_KEY = "summary";
const HOSTS_KEY = "doc";

function summarySpace(store: ClusterStore): KeySpace {
  return store.space("state");
}

function hostsSpace(store: ClusterStore, shard: number): KeySpace {
  return store.space(`hosts-${shard}`);
}

/** What is published for every host at present; `undefined` where nothing is, or none can read it. */
export async function readSummary(
  store: ClusterStore,
  options: CallOptions,
): Promise<ClusterSummary | undefined> {
  const entry = await summarySpace(store).get(SUMMARY_KEY, options);
  try {
    return entry && parseSummary(entry.value);
  } catch {
    return undefined; // who follows it says so
  }
}

/** Another daemon has written since: it is the route writer now. */
export class OvertakenError extends Error {
  override name = "OvertakenError";
}

/** One document: the key's space, and what was last seen or written there. */
interface Document {
  readonly space: KeySpace;
  readonly key: string;
  entry: Entry | undefined;
}

/** The writer's side of what is published. */
export class ClusterPublication {
  readonly #summary: Document;
  readonly #shards: readonly Document[];
  readonly #log: Logger;

  constructor(store: ClusterStore, options: { log: Logger }) {
    this.#log = options.log;
    this.#summary = { space: summarySpace(store), key: SUMMARY_KEY, entry: undefined };
    this.#shards = Array.from({ length: HOST_SHARDS }, (_, shard) => ({
      space: hostsSpace(store, shard),
      key: HOSTS_KEY,
      entry: undefined,
    }));
  }

  /**
   * Reads what was published last, by whomever. To be called at the start of each term: what is
   * published then replaces exactly this.
   *
   * @throws {StoreError}
   */
  async read({ signal }: CallOptions): Promise<ClusterState | undefined> {
    const documents = [this.#summary, ...this.#shards];
    await Promise.all(documents.map(async (document) => {
      document.entry = await document.space.get(document.key, { signal });
    }));
    const summary = this.#parse(this.#summary, parseSummary);
    if (summary === undefined) return undefined;
    const hosts = this.#shards.flatMap((shard) => [...this.#parse(shard, parseHosts)?.hosts ?? []]);
    return { summary, hosts: new Map(hosts) };
  }

  /**
   * Writes the documents that differ. The hosts' come first, so that nobody is told to leave the
   * tunnel before its own host knows.
   *
   * @throws {OvertakenError} If one of them is not what this writer left or read.
   * @throws {StoreError}
   */
  async publish({ summary, hosts }: ClusterState, { signal }: CallOptions): Promise<void> {
    const shards = Array.from({ length: HOST_SHARDS }, (): [string, HostStatus][] => []);
    for (const host of hosts) shards[shardOf(host[0])]!.push(host);
    await Promise.all(this.#shards.map((document, shard) => {
      return this.#write(document, encodeHosts(summary.term, shards[shard]!), { signal });
    }));
    await this.#write(this.#summary, encodeSummary(summary), { signal });
  }

  async #write(document: Document, value: string, { signal }: CallOptions): Promise<void> {
    const { space, key, entry } = document;
    if (entry?.value === value) return;
    const written = entry === undefined
      ? await space.create(key, value, undefined, { signal })
      : await space.update(key, value, entry.revision, undefined, { signal });
    if (written === undefined) {
      throw new OvertakenError("another daemon has written the state of the routes since");
    }
    document.entry = written;
  }

  /** What a broken document said is lost, and published anew. */
  #parse<Parsed>({ entry }: Document, parse: (text: string) => Parsed): Parsed | undefined {
    if (entry === undefined) return undefined;
    try {
      return parse(entry.value);
    } catch (error) {
      this.#log.warn("What was published of the routes is thrown away", {
        error: describeError(error),
      });
      return undefined;
    }
  }
}

/** Options of {@linkcode ClusterFollower}. */
export interface ClusterFollowerOptions {
  readonly store: ClusterStore;
  /** The own lease's key at present. */
  readonly leaseKey: () => string;
  /** Called after any change. */
  readonly onChange: () => void;
  readonly log: Logger;
  /** Monotonic milliseconds. @default {performance.now} */
  readonly now?: () => number;
}

/** A host's side of what is published: the summary, and the shard of the own lease. */
export class ClusterFollower {
  readonly #options: Required<ClusterFollowerOptions>;
  #summary: ClusterSummary | undefined;
  #hosts: ReadonlyMap<string, HostStatus> = new Map();
  #shard: number | undefined;
  /** The shard that is followed; nothing need be known of it yet. */
  #followed: number | undefined;
  /** Since when nothing newer has been known. */
  #blindSince: number | undefined;
  #restart = new AbortController();

  constructor(options: ClusterFollowerOptions) {
    this.#options = { now: () => performance.now(), ...options };
    this.#blindSince = this.#options.now();
  }

  get summary(): ClusterSummary | undefined {
    return this.#summary;
  }

  /** What is published of the own lease. */
  get own(): HostStatus | undefined {
    const key = this.#options.leaseKey();
    return shardOf(key) === this.#shard ? this.#hosts.get(key) : undefined;
  }

  /** How long nothing has been heard of the store, in milliseconds. */
  get blindMs(): number {
    return this.#blindSince === undefined ? 0 : this.#options.now() - this.#blindSince;
  }

  /** To be called when the own lease is another one. */
  leaseChanged(): void {
    if (this.#followed === undefined) return;
    if (shardOf(this.#options.leaseKey()) !== this.#followed) this.#restart.abort();
  }

  /** Follows the store until `signal` aborts. */
  async run({ signal }: CallOptions): Promise<void> {
    await Promise.all([this.#followSummary(signal), this.#followShards(signal)]);
  }

  async #followSummary(signal: AbortSignal): Promise<void> {
    const { store, onChange } = this.#options;
    for await (const update of summarySpace(store).watch({ signal })) {
      const text = this.#hear(update) ? valueIn(update, SUMMARY_KEY) : undefined;
      // What somebody deleted was true all the same, and the writer publishes it again.
      if (text !== undefined) this.#summary = this.#parse(text, parseSummary) ?? this.#summary;
      onChange();
    }
  }

  async #followShards(signal: AbortSignal): Promise<void> {
    const { store, leaseKey, onChange } = this.#options;
    while (!signal.aborted) {
      this.#restart = new AbortController();
      const shard = this.#followed = shardOf(leaseKey());
      const both = AbortSignal.any([signal, this.#restart.signal]);
      for await (const update of hostsSpace(store, shard).watch({ signal: both })) {
        if (update.type === "disconnected") continue;
        const text = valueIn(update, HOSTS_KEY);
        const hosts = text === undefined ? undefined : this.#parse(text, parseHosts)?.hosts;
        if (hosts !== undefined) this.#hosts = hosts;
        else if (shard !== this.#shard) this.#hosts = new Map();
        this.#shard = shard;
        onChange();
      }
    }
  }

  /** Notes whether the store is heard of; answers whether `update` tells of keys. */
  #hear(update: WatchUpdate): update is Exclude<WatchUpdate, { type: "disconnected" }> {
    if (update.type === "disconnected") {
      this.#blindSince ??= this.#options.now();
      return false;
    }
    this.#blindSince = undefined;
    return true;
  }

  #parse<Parsed>(text: string, parse: (text: string) => Parsed): Parsed | undefined {
    try {
      return parse(text);
    } catch (error) {
      this.#options.log.warn("What is published of the routes is not understood", {
        error: describeError(error),
      });
      return undefined;
    }
  }
}

/** The value that `update` gives a key last; `undefined` if none. */
function valueIn(
  update: Exclude<WatchUpdate, { type: "disconnected" }>,
  key: string,
): string | undefined {
  const entries = update.type === "snapshot"
    ? update.entries
    : update.events.flatMap((event) => event.type === "put" ? [event.entry] : []);
  return entries.findLast((entry) => entry.key === key)?.value;
}

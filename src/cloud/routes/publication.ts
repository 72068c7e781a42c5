/** How the leader publishes the state of the cluster, and how hosts follow it. @module */
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
import type { Logger } from "../../log.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { Documents } from "../../store/documents.ts";
import { type ClusterStore, parseOrWarn, SharedDocument } from "./cluster_store.ts";

const SUMMARY_KEY = "summary";
const HOSTS_KEY = "doc";

function summaryDocuments(store: ClusterStore): Documents {
  return store.documents("state");
}

function hostsDocuments(store: ClusterStore, shard: number): Documents {
  return store.documents(`hosts-${shard}`);
}

/** What is published for every host; `undefined` if nothing is, or it cannot be read. */
export async function readSummary(
  store: ClusterStore,
  options: CallOptions,
): Promise<ClusterSummary | undefined> {
  const entry = await summaryDocuments(store).get(SUMMARY_KEY, options);
  try {
    return entry && parseSummary(entry.value);
  } catch {
    return undefined; // who follows it says so
  }
}

/** Another daemon has written since: it leads now. */
export class OvertakenError extends Error {
  override name = "OvertakenError";
}

export class ClusterPublication {
  readonly #summary: SharedDocument;
  readonly #shards: readonly SharedDocument[];
  readonly #log: Logger;

  constructor(store: ClusterStore, options: { log: Logger }) {
    this.#log = options.log;
    this.#summary = new SharedDocument(summaryDocuments(store), SUMMARY_KEY);
    this.#shards = Array.from(
      { length: HOST_SHARDS },
      (_, shard) => new SharedDocument(hostsDocuments(store, shard), HOSTS_KEY),
    );
  }

  /**
   * Reads what was published last, by whomever. To be called at the start of each term: the first
   * publication then replaces exactly this. @throws {StoreError}
   */
  async read({ signal }: CallOptions): Promise<ClusterState | undefined> {
    const documents = [this.#summary, ...this.#shards];
    const [text, ...shards] = await Promise.all(documents.map((each) => each.read({ signal })));
    // What a broken document said is lost, and published anew.
    const fallback = {
      log: this.#log,
      warning: "What was published of the routes is thrown away",
    };
    const summary = parseOrWarn(text, parseSummary, fallback);
    if (summary === undefined) return undefined;
    const hosts = shards.flatMap((shard) => [
      ...parseOrWarn(shard, parseHosts, fallback)?.hosts ?? [],
    ]);
    return { summary, hosts: new Map(hosts) };
  }

  /**
   * Writes the documents that differ. The hosts' come first, so that nobody is told to leave the
   * tunnel before its own host knows.
   *
   * @throws {OvertakenError} If one of them is not what this leader left or read.
   * @throws {StoreError}
   */
  async publish({ summary, hosts }: ClusterState, { signal }: CallOptions): Promise<void> {
    const shards = Array.from({ length: HOST_SHARDS }, (): [string, HostStatus][] => []);
    for (const host of hosts) shards[shardOf(host[0])]!.push(host);
    await Promise.all(
      this.#shards.map((document, shard) =>
        this.#write(document, encodeHosts(summary.term, shards[shard]!), { signal })
      ),
    );
    await this.#write(this.#summary, encodeSummary(summary), { signal });
  }

  async #write(document: SharedDocument, value: string, options: CallOptions): Promise<void> {
    if (document.value === value || await document.write(value, options)) return;
    throw new OvertakenError("another daemon has written the state of the routes since");
  }
}

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

  async run({ signal }: CallOptions): Promise<void> {
    await Promise.all([this.#followSummary(signal), this.#followShards(signal)]);
  }

  async #followSummary(signal: AbortSignal): Promise<void> {
    const { store, onChange } = this.#options;
    for await (const update of summaryDocuments(store).follow(SUMMARY_KEY, { signal })) {
      if (update.type === "current") this.#blindSince = undefined;
      else this.#blindSince ??= this.#options.now();
      const text = update.type === "current" ? update.document?.value : undefined;
      // A deleted document was true all the same; the leader publishes it again.
      this.#summary = this.#parse(text, parseSummary) ?? this.#summary;
      onChange();
    }
  }

  async #followShards(signal: AbortSignal): Promise<void> {
    const { store, leaseKey, onChange } = this.#options;
    while (!signal.aborted) {
      this.#restart = new AbortController();
      const shard = this.#followed = shardOf(leaseKey());
      const both = AbortSignal.any([signal, this.#restart.signal]);
      for await (const update of hostsDocuments(store, shard).follow(HOSTS_KEY, { signal: both })) {
        if (update.type === "disconnected") continue;
        const hosts = this.#parse(update.document?.value, parseHosts)?.hosts;
        if (hosts !== undefined) this.#hosts = hosts;
        else if (shard !== this.#shard) this.#hosts = new Map();
        this.#shard = shard;
        onChange();
      }
    }
  }

  #parse<Parsed>(
    text: string | undefined,
    parse: (text: string) => Parsed,
  ): Parsed | undefined {
    const warning = "What is published of the routes is not understood";
    return parseOrWarn(text, parse, { log: this.#options.log, warning });
  }
}

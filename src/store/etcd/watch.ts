/** Follows a range of etcd v3, whatever happens to connections, members and history. @module */
import type { IWatchResponse } from "etcd3";
import { childSignal } from "../../util/child_signal.ts";
import { delay } from "../../util/time.ts";
import type { EtcdClient } from "./client.ts";
import type { EtcdConnection } from "./connection.ts";
import { EtcdError } from "./error.ts";
import { entryKey, type KeyRange, type RangeSnapshot, readRange, toEntry } from "./range.ts";
import { keepFollowing, relistDelay, type WatchTiming } from "../keys/follow.ts";
import type { CallOptions } from "../errors.ts";
import { compareRevisions, type WatchEvent, type WatchUpdate } from "../keys/key_space.ts";

/** How long one request of a watch may take: a page, or the probe before it goes on. */
const REQUEST_MS = 10_000;

/** So many keys that changed last tell whether a store has the history that is known. */
const WITNESSES = 10;

/** A snapshot, with a key that was written after it. */
export interface KnownRange extends RangeSnapshot {
  readonly writtenRevision: string;
}

export interface FollowRangeOptions extends CallOptions {
  /** The first snapshot, from which the watch goes on if it can. */
  readonly known?: KnownRange | undefined;
}

/**
 * Follows a key range, whatever happens to the connection:
 *
 * ```
 *          ┌────────────────────────────────┐ compacted, or the store is another one
 *          ▼                                │
 *   snapshot (list at revision R) ──► events from R+1 ──► connection lost, silent, no leader
 *                                           ▲                        │ any member
 *                                           └── go on at last + 1 ◄──┘
 * ```
 *
 * No event is lost, as the watch goes on right after the last event it has seen; none comes twice,
 * as events up to the last snapshot or event are skipped. Where the watch goes on, empty `events`
 * say so.
 */
export function followRange(
  client: EtcdClient,
  range: KeyRange,
  timing: WatchTiming,
  options: FollowRangeOptions,
): AsyncGenerator<WatchUpdate> {
  const follower = new RangeFollower(client, range, timing, options);
  return keepFollowing(() => follower.attempt(), { signal: options.signal });
}

class RangeFollower {
  readonly #client: EtcdClient;
  readonly #range: KeyRange;
  readonly #timing: WatchTiming;
  readonly #signal: AbortSignal;
  /** The revision from which events are still to come; `undefined` before a snapshot. */
  #next: bigint | undefined;
  /** The cluster that {@linkcode RangeFollower.#next} belongs to. */
  #clusterId = "";
  #relistAt = 0;
  /** The revision of each key, as of the one before {@linkcode RangeFollower.#next}. */
  readonly #revisions = new Map<string, string>();
  /** A snapshot that is still to be yielded. */
  #known: KnownRange | undefined;
  /** What it holds already of what comes after it. */
  #writtenRevision: string | undefined;

  constructor(
    client: EtcdClient,
    range: KeyRange,
    timing: WatchTiming,
    { signal, known }: FollowRangeOptions,
  ) {
    this.#client = client;
    this.#range = range;
    this.#timing = timing;
    this.#signal = signal;
    this.#known = known;
    this.#writtenRevision = known?.writtenRevision;
    if (known) this.#goOnAfter(known);
  }

  /** Follows on one connection, from where the last one ended. */
  async *attempt(): AsyncGenerator<WatchUpdate> {
    const connection = await this.#client.connect({ signal: this.#signal });
    try {
      yield* this.#session(connection);
    } catch (error) {
      if (!(error instanceof EtcdError)) throw error;
      if (error.kind === "compacted") {
        this.#next = undefined;
        return;
      }
      if (error.kind !== "denied") this.#client.release(connection, error);
      throw error;
    }
  }

  async *#session(connection: EtcdConnection): AsyncGenerator<WatchUpdate> {
    const { silenceMs, probeMs } = this.#timing;
    const resumed = await this.#canResume(connection);
    // Nothing here may hold what is yielded: this goes on for as long as the connection.
    if (resumed) yield* this.#takeKnown();
    else yield await this.#snapshot(connection);

    using scope = childSignal(this.#signal);
    const responses = connection.watch({
      key: this.#range.start,
      ...(this.#range.end === undefined ? {} : { range_end: this.#range.end }),
      start_revision: String(this.#next),
      progress_notify: true,
      fragment: true,
    }, scope);
    let fragments: WatchEvent[] = [];
    let waiting = next(responses);
    for (;;) {
      const result = await beforeSilence(waiting, silenceMs, this.#signal);
      if (result === undefined) {
        if (connection.silentMs >= silenceMs / 2) {
          await connection.probe({ signal: this.#signal, timeoutMs: probeMs });
        }
        if (performance.now() >= this.#relistAt) {
          fragments = [];
          yield await this.#snapshot(connection);
        }
        continue;
      }
      if (result.done) return;
      waiting = next(responses);

      const response = result.value;
      if (response.canceled) throw cancelled(connection, response);
      if (response.created) {
        if (resumed) yield { type: "events", events: [] };
        continue;
      }
      this.#noteRevisions(response);
      fragments.push(...this.#newEvents(response));
      if (response.fragment) continue; // the rest of this response is still to come
      this.#advance(response);
      if (fragments.length > 0) {
        const events = fragments;
        fragments = [];
        yield { type: "events", events };
      }
    }
  }

  /**
   * Whether the watch can go on where it was. Not if the store was restored or replaced: a watch
   * from a revision that is still to come would wait in silence.
   */
  async #canResume(connection: EtcdConnection): Promise<boolean> {
    if (this.#next === undefined) return false;
    const now = await connection.probe({ signal: this.#signal, timeoutMs: REQUEST_MS });
    if (now.clusterId !== this.#clusterId || now.revision < this.#next - 1n) return false;
    // What was listed a moment ago is of this history.
    return this.#known !== undefined || await this.#hasOurHistory(connection, this.#next - 1n);
  }

  /**
   * Whether the store was at `revision` what we know of it: one restored under its old name has the
   * same id, and its revision may have passed ours again.
   */
  async #hasOurHistory(connection: EtcdConnection, revision: bigint): Promise<boolean> {
    const { start, end } = this.#range;
    const { count, kvs } = await connection.call("range", {
      key: start,
      ...(end === undefined ? {} : { range_end: end }),
      revision: String(revision),
      sort_order: "Descend",
      sort_target: "Mod",
      limit: WITNESSES,
      keys_only: true,
    }, { signal: this.#signal, timeoutMs: REQUEST_MS });
    const ours = [...this.#revisions.values()].sort(compareRevisions).slice(-WITNESSES).reverse();
    return Number(count) === this.#revisions.size &&
      kvs.map(({ mod_revision }) => mod_revision).join() === ours.join() &&
      kvs.every((kv) => this.#revisions.get(entryKey(kv, this.#range)) === kv.mod_revision);
  }

  *#takeKnown(): Generator<WatchUpdate, void> {
    const known = this.#known;
    this.#known = undefined;
    if (known) yield { type: "snapshot", entries: known.entries };
  }

  async #snapshot(connection: EtcdConnection): Promise<WatchUpdate> {
    const snapshot = await readRange(this.#range, (request) => {
      return connection.call("range", request, { signal: this.#signal, timeoutMs: REQUEST_MS });
    });
    this.#goOnAfter(snapshot);
    this.#known = undefined;
    // It holds all, and may be of another store, whose revisions count anew.
    this.#writtenRevision = undefined;
    return { type: "snapshot", entries: snapshot.entries };
  }

  #goOnAfter({ entries, revision, clusterId }: RangeSnapshot): void {
    this.#next = revision + 1n;
    this.#clusterId = clusterId;
    this.#revisions.clear();
    for (const each of entries) this.#revisions.set(each.key, each.version);
    this.#relistAt = performance.now() + relistDelay(entries.length, this.#timing);
  }

  #noteRevisions({ events }: IWatchResponse): void {
    for (const { type, kv } of events) {
      if (BigInt(kv.mod_revision) < this.#next!) continue;
      const key = entryKey(kv, this.#range);
      if (type === "Delete") this.#revisions.delete(key);
      else this.#revisions.set(key, kv.mod_revision);
    }
  }

  /** The events that no snapshot and no earlier response has told. */
  #newEvents(response: IWatchResponse): WatchEvent[] {
    return response.events
      .filter(({ kv: { mod_revision: revision } }) =>
        BigInt(revision) >= this.#next! && revision !== this.#writtenRevision
      )
      .map(({ type, kv }) =>
        type === "Delete"
          ? { type: "delete", key: entryKey(kv, this.#range) }
          : { type: "put", entry: toEntry(kv, this.#range) }
      );
  }

  /**
   * Notes how far `response` has brought us: to its last event, as etcd sends what a watch has
   * missed in parts, each with the newest revision in its header. Only the header of a progress
   * notification counts.
   */
  #advance(response: IWatchResponse): void {
    const seen = BigInt(response.events.at(-1)?.kv.mod_revision ?? response.header.revision);
    if (seen >= this.#next!) this.#next = seen + 1n;
  }
}

/** The next response; whether or not anyone waits for it by the time it fails. */
function next(
  responses: AsyncGenerator<IWatchResponse>,
): Promise<IteratorResult<IWatchResponse>> {
  const result = responses.next();
  result.catch(() => {});
  return result;
}

/** `waiting`, or `undefined` if it takes longer than about `silenceMs`. */
async function beforeSilence<T>(
  waiting: Promise<T>,
  silenceMs: number,
  signal: AbortSignal,
): Promise<T | undefined> {
  using scope = childSignal(signal);
  const jitteredMs = silenceMs * (1 + Math.random() / 4);
  return await Promise.race([waiting, delay(jitteredMs, scope).then(() => undefined)]);
}

/** What etcd says when it ends a watch by itself. */
function cancelled(connection: EtcdConnection, response: IWatchResponse): EtcdError {
  const { url } = connection.endpoint;
  if (response.compact_revision !== "0") {
    return new EtcdError("compacted", url, "the revisions to go on from are compacted");
  }
  // etcd 3.4 says "permission denied" of a token that it has forgotten, too: the next connection
  // brings a new one, and its first read tells which it was.
  const reason = response.cancel_reason.replace(/^etcdserver: /, "");
  return new EtcdError("lost", url, reason || "the server ended the watch");
}

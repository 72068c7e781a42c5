import assert from "node:assert/strict";
import type { Entry, KeySpace, WatchEvent, WatchOptions } from "../../src/store/keys/key_space.ts";
import { eventually } from "../support/eventually.ts";

/** Follows a space's watch and checks, as it goes, what a user of it relies on. */
export class WatchLog implements AsyncDisposable {
  /** The keys as the updates so far tell them. */
  readonly map = new Map<string, Entry>();
  /** All events, without snapshots. */
  readonly events: WatchEvent[] = [];
  readonly outages: Error[] = [];
  snapshots = 0;
  /** Whether the last update was `disconnected`. */
  disconnected = false;
  readonly #controller = new AbortController();
  readonly #done: Promise<void>;
  readonly #signal: AbortSignal;
  #failure: unknown;

  constructor(space: KeySpace, options: WatchOptions) {
    this.#signal = AbortSignal.any([options.signal, this.#controller.signal]);
    this.#done = this.#follow(space, options).catch((error) => {
      this.#failure = error;
    });
  }

  /** Waits until `condition` holds. */
  async until(
    title: string,
    condition: (log: this) => boolean,
    options: { timeoutMs?: number } = {},
  ): Promise<void> {
    await eventually(() => {
      if (this.#failure !== undefined) throw this.#failure;
      return condition(this);
    }, { timeoutMs: 40_000, intervalMs: 20, ...options, title, signal: this.#signal });
  }

  /** Ends the watch, which has to end by itself then. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#controller.abort();
    await this.#done;
    if (this.#failure !== undefined) throw this.#failure;
  }

  async #follow(space: KeySpace, options: WatchOptions): Promise<void> {
    for await (const update of space.watch({ ...options, signal: this.#signal })) {
      if (update.type === "disconnected") {
        assert(!this.disconnected, "an outage is reported once");
        this.disconnected = true;
        this.outages.push(update.error);
        continue;
      }
      this.disconnected = false;
      if (update.type === "snapshot") {
        this.snapshots++;
        this.map.clear();
        for (const entry of update.entries) this.map.set(entry.key, entry);
        continue;
      }
      assert(this.snapshots > 0, "a snapshot comes first");
      for (const event of update.events) this.#apply(event);
    }
  }

  #apply(event: WatchEvent): void {
    this.events.push(event);
    if (event.type === "delete") {
      assert(this.map.delete(event.key), `${event.key} is deleted once, and was there`);
      return;
    }
    const before = this.map.get(event.entry.key);
    const newer = before === undefined || BigInt(event.entry.version) > BigInt(before.version);
    assert(newer, `${event.entry.key} comes once per revision`);
    this.map.set(event.entry.key, event.entry);
  }
}

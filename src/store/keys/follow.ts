/** What the watches of all stores of keys share. @module */
import { Backoff } from "../../util/time.ts";
import type { DocumentUpdate } from "../documents.ts";
import { StoreError } from "../errors.ts";
import type { Entry, WatchUpdate } from "./key_space.ts";

/** That nothing newer is known, as of a {@linkcode WatchUpdate}. */
type Disconnected = Extract<WatchUpdate, { readonly type: "disconnected" }>;

/** Times of a watch. */
export interface WatchTiming {
  /** After this much silence the connection is asked whether it lives. @default {8_000} */
  readonly silenceMs: number;
  /** How long it may take to respond. @default {5_000} */
  readonly probeMs: number;
  /** Shortest time between two readings of everything. @default {600_000} */
  readonly relistMs: number;
}

/** A silent connection is noticed within 15 s; the next member then has as long again. */
export const WATCH_TIMING: WatchTiming = { silenceMs: 8_000, probeMs: 5_000, relistMs: 600_000 };

/** A watch that held for so long shows that the store works: back-off begins anew. */
const STABLE_MS = 10_000;

/**
 * Repeats `attempt` until `signal` aborts. An attempt yields what it sees, throws when the store
 * fails, and ends to be started afresh at once.
 *
 * One failure after a time of work is no outage yet, as another member often takes over; if that
 * fails as well, `disconnected` is yielded, once per outage.
 */
export async function* keepFollowing<Update = WatchUpdate>(
  attempt: () => AsyncIterable<Update>,
  options: { readonly signal: AbortSignal },
): AsyncGenerator<Update | Disconnected> {
  const { signal } = options;
  const backoff = new Backoff({ initialMs: 100, maxMs: 5_000 });
  // Asking again does not make a password right, and checking one costs etcd much.
  const deniedBackoff = new Backoff({ initialMs: 2_000, maxMs: 30_000 });
  let state: "following" | "resuming" | "disconnected" = "resuming";
  while (!signal.aborted) {
    const startedAt = performance.now();
    try {
      for await (const update of attempt()) {
        state = "following";
        yield update;
      }
    } catch (error) {
      if (signal.aborted) return;
      if (state === "following") {
        state = "resuming";
      } else if (state === "resuming") {
        state = "disconnected";
        yield { type: "disconnected", error: toError(error) };
      }
      if (performance.now() - startedAt >= STABLE_MS) {
        backoff.reset();
        deniedBackoff.reset();
      }
      const denied = error instanceof StoreError && error.reason === "denied";
      try {
        await (denied ? deniedBackoff : backoff).wait({ signal });
      } catch {
        return;
      }
    }
  }
}

/** What the updates of a space say of one key: what it is now, then each change. */
export async function* followKey(
  key: string,
  updates: AsyncIterable<WatchUpdate>,
): AsyncGenerator<DocumentUpdate> {
  let known: Entry | undefined;
  let isCurrent = false;
  for await (const update of updates) {
    if (update.type === "disconnected") {
      isCurrent = false;
      yield update;
      continue;
    }
    let document = known;
    if (update.type === "snapshot") document = update.entries.find((each) => each.key === key);
    else {
      for (const event of update.events) {
        if (event.type === "delete" && event.key === key) document = undefined;
        else if (event.type === "put" && event.entry.key === key) document = event.entry;
      }
    }
    if (isCurrent && document?.version === known?.version) continue;
    known = document;
    isCurrent = true;
    yield { type: "current", document };
  }
}

/** The values of the key of a space that has no other: the present one, then each that differs. */
export async function* valueChanges(
  updates: AsyncIterable<WatchUpdate>,
): AsyncGenerator<string | undefined> {
  let known: { readonly value: string | undefined } | undefined;
  for await (const update of followKey("", updates)) {
    if (update.type === "disconnected") continue;
    const value = update.document?.value;
    if (known === undefined || known.value !== value) yield value;
    known = { value };
  }
}

/**
 * Milliseconds to the next reading of everything, a net below the watch: it grows with the number
 * of keys, so that n hosts load the store with n keys per second.
 */
export function relistDelay(entries: number, timing: WatchTiming): number {
  return Math.max(timing.relistMs, entries * 1_000) * (0.8 + Math.random() * 0.4);
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error), { cause: error });
}

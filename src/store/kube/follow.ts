/**
 * Follows the objects of one collection: all of them, then each change, for days.
 *
 * ```text
 *           WatchList, else pages
 *   nothing ─────────────────────► version ──► watch ──► clean end, silence: watch on from there
 *      ▲                                         │
 *      └── version too old (410), or unknown ────┘       other failures: wait, then go on
 *          to a server that was restored
 * ```
 *
 * @module
 */
import * as v from "valibot";
import { delay } from "../../util/time.ts";
import type { CallOptions } from "../errors.ts";
import { keepFollowing } from "../keys/follow.ts";
import { type KubeClient, METADATA, METADATA_LIST } from "./client.ts";
import { errorOfStatus, KubeError } from "./error.ts";

/** What every object has. */
export interface KubeObject {
  readonly metadata: {
    readonly name: string;
    readonly uid: string;
    readonly resourceVersion: string;
    readonly annotations?: Readonly<Record<string, string>> | null | undefined;
  };
}

/** A change of one object. A deletion holds its last state. */
export interface ObjectEvent {
  readonly type: "put" | "delete";
  readonly object: KubeObject;
}

/** What {@linkcode followObjects} yields; as `LeaseUpdate`, of whole objects. */
export type ObjectUpdate =
  | { readonly type: "snapshot"; readonly objects: readonly KubeObject[] }
  | { readonly type: "events"; readonly events: readonly ObjectEvent[] }
  | { readonly type: "disconnected"; readonly error: Error };

/** Times of {@linkcode followObjects}. */
export interface FollowTiming {
  /** After so much silence the watch is taken up anew: servers promise no bookmark. */
  readonly silenceMs: number;
  /** The shortest time after which the server is to end a watch; at most twice that. */
  readonly watchSeconds: number;
}

/** Bookmarks come each minute where anything changes at all. */
const FOLLOW_TIMING: FollowTiming = { silenceMs: 150_000, watchSeconds: 1_800 };

/** Options of {@linkcode followObjects}. */
export interface FollowOptions extends CallOptions {
  /** Such as `/api/v1/nodes`. */
  readonly path: string;
  readonly labelSelector?: string;
  /** One object that is sure to be there, to ask for the server's version by. @default none */
  readonly probe?: string;
  /** What is kept of an object of a list: thousands are held until the last one has come. */
  readonly trim?: (object: KubeObject) => KubeObject;
  /** Changes tell of metadata alone. @default {false} */
  readonly metadataOnly?: boolean;
  readonly timing?: FollowTiming;
}

/** Objects of one page. */
const PAGE_OBJECTS = 500;
/** How long all pages, or the first part of a WatchList, may take. */
const LIST_MS = 60_000;
/** Without a word for so long, it is no WatchList. */
const SILENT_LIST_MS = 15_000;
/** A watch that ends sooner, with nothing said, is no watch. */
const SHORTEST_WATCH_MS = 1_000;

const objectSchema = v.object({
  metadata: v.object({
    name: v.string(),
    uid: v.optional(v.string(), ""),
    resourceVersion: v.string(),
    annotations: v.nullish(v.record(v.string(), v.string())),
  }),
});
const eventSchema = v.object({ type: v.string(), object: v.unknown() });
const listSchema = v.object({
  metadata: v.object({ resourceVersion: v.string(), continue: v.optional(v.string()) }),
  items: v.nullish(v.array(v.unknown()), []),
});

/** Servers that have no WatchList, by client. */
const withoutWatchList = new WeakSet<KubeClient>();

/**
 * Follows a collection. Never throws for trouble of the server: it yields `disconnected` once per
 * outage, and goes on; ends on abort only. After an outage something else is yielded in any case.
 */
export function followObjects(
  client: KubeClient,
  options: FollowOptions,
): AsyncGenerator<ObjectUpdate> {
  const follower = new Follower(client, options);
  return keepFollowing<ObjectUpdate>(() => follower.attempt(), options);
}

class Follower {
  readonly #client: KubeClient;
  readonly #options: FollowOptions;
  readonly #what: string;
  /** Up to which all is known. */
  #version: string | undefined;
  #isSuspect = false;

  constructor(client: KubeClient, options: FollowOptions) {
    this.#client = client;
    this.#options = options;
    this.#what = options.path.replace(/^\/apis?\/(?:[^/]+\/)?v\w+\//, "");
  }

  async *attempt(): AsyncGenerator<ObjectUpdate> {
    if (this.#version !== undefined && this.#isSuspect) await this.#checkVersion();
    if (this.#version === undefined) {
      const { objects, version } = await this.#snapshot();
      yield { type: "snapshot", objects };
      this.#version = version;
    }
    try {
      yield* this.#watch();
    } catch (error) {
      if (error instanceof KubeError && (error.isExpired || error.isFromFuture)) {
        this.#version = undefined;
        return; // at once: the server works
      }
      this.#isSuspect = true;
      throw error;
    }
  }

  /**
   * A server whose store was restored to an older state takes a version of the future, and says
   * nothing more: only reading tells.
   */
  async #checkVersion(): Promise<void> {
    const { path, probe, labelSelector, signal } = this.#options;
    try {
      await this.#client.request({
        what: `list ${this.#what}`,
        path,
        accept: METADATA_LIST,
        query: {
          resourceVersion: this.#version!,
          resourceVersionMatch: "NotOlderThan",
          labelSelector,
          fieldSelector: probe === undefined ? undefined : `metadata.name=${probe}`,
        },
      }, { signal });
    } catch (error) {
      if (!(error instanceof KubeError && (error.isFromFuture || error.isExpired))) throw error;
      this.#version = undefined;
    }
    this.#isSuspect = false;
  }

  async *#watch(): AsyncGenerator<ObjectUpdate> {
    const { metadataOnly, timing = FOLLOW_TIMING, path, labelSelector, signal } = this.#options;
    const seconds = Math.floor(timing.watchSeconds * (1 + Math.random()));
    const since = performance.now();
    let isUsed = false;
    const stream = this.#client.watch({
      what: `watch ${this.#what}`,
      path,
      ...(metadataOnly ? { accept: METADATA } : {}),
      query: {
        watch: "1",
        resourceVersion: this.#version,
        allowWatchBookmarks: "true",
        timeoutSeconds: String(seconds),
        labelSelector,
      },
      silenceMs: timing.silenceMs,
    }, { signal });
    for await (const lines of stream) {
      const events: ObjectEvent[] = [];
      let version = this.#version;
      let failure: KubeError | undefined;
      for (const line of lines) {
        const event = this.#readEvent(line);
        if (event instanceof KubeError) failure = event;
        else if (event !== undefined) {
          version = event.object.metadata.resourceVersion;
          if (event.type !== "bookmark") events.push({ type: event.type, object: event.object });
        }
        isUsed = true;
        if (failure !== undefined) break;
      }
      // The empty one says that the server is there again.
      if (events.length > 0 || lines.length === 0) yield { type: "events", events };
      this.#version = version; // now that they have been taken
      if (failure !== undefined) throw failure;
    }
    if (!isUsed) {
      // Silence may be that of a server which was restored.
      this.#isSuspect = true;
      if (performance.now() - since < SHORTEST_WATCH_MS) {
        throw new KubeError(`watch ${this.#what}`, { message: "the watch ends at once" });
      }
    }
  }

  #readEvent(line: unknown):
    | { readonly type: "put" | "delete" | "bookmark"; readonly object: KubeObject }
    | KubeError
    | undefined {
    const event = v.safeParse(eventSchema, line);
    if (!event.success) return undefined;
    const { type, object: raw } = event.output;
    if (type === "ERROR") return errorOfStatus(`watch ${this.#what}`, raw);
    if (type === "BOOKMARK") {
      const version = versionOf(raw);
      if (version === undefined) return undefined;
      const annotations = v.safeParse(annotated, raw);
      const metadata = {
        ...{ name: "", uid: "", resourceVersion: version },
        ...(annotations.success ? annotations.output.metadata : {}),
      };
      return { type: "bookmark", object: { metadata } };
    }
    const object = parseObject(raw);
    if (object === undefined) return undefined;
    return { type: type === "DELETED" ? "delete" : "put", object };
  }

  #trim(object: KubeObject): KubeObject {
    return this.#options.trim?.(object) ?? object;
  }

  async #snapshot(): Promise<{ objects: readonly KubeObject[]; version: string }> {
    if (!withoutWatchList.has(this.#client)) {
      const found = await this.#watchList();
      if (found !== undefined) return found;
      withoutWatchList.add(this.#client);
    }
    for (let attempt = 1;; attempt++) {
      try {
        return await this.#pages();
      } catch (error) {
        const isExpired = error instanceof KubeError && error.isExpired;
        if (!isExpired || attempt === 3) throw error;
        await delay(100 * attempt, this.#options);
      }
    }
  }

  /** All objects as one stream; `undefined` if this server has no such thing. */
  async #watchList(): Promise<{ objects: readonly KubeObject[]; version: string } | undefined> {
    const { path, labelSelector, signal } = this.#options;
    const objects = new Map<string, KubeObject>();
    const what = `list ${this.#what}`;
    const since = performance.now();
    try {
      const stream = this.#client.watch({
        what,
        path,
        query: {
          watch: "1",
          sendInitialEvents: "true",
          resourceVersionMatch: "NotOlderThan",
          allowWatchBookmarks: "true",
          timeoutSeconds: String(LIST_MS / 1_000),
          labelSelector,
        },
        silenceMs: SILENT_LIST_MS,
      }, { signal });
      for await (const lines of stream) {
        for (const line of lines) {
          const event = this.#readEvent(line);
          if (event instanceof KubeError) throw event;
          if (event === undefined) continue;
          const { metadata } = event.object;
          if (event.type === "put") objects.set(metadata.name, this.#trim(event.object));
          else if (event.type === "delete") objects.delete(metadata.name);
          else if (metadata.annotations?.["k8s.io/initial-events-end"] === "true") {
            return { objects: [...objects.values()], version: metadata.resourceVersion };
          }
        }
      }
    } catch (error) {
      // 422 where the feature is off; 500 in the stream where etcd lacks what it needs.
      const isUnknown = error instanceof KubeError &&
        (error.status === 422 || error.status === 400 ||
          (error.status === 500 && error.code === "InternalError"));
      if (isUnknown) return undefined;
      throw error;
    }
    // In silence: a server that takes the request for a watch.
    if (performance.now() - since >= SILENT_LIST_MS) return undefined;
    throw new KubeError(what, { message: "the list was cut short" });
  }

  async #pages(): Promise<{ objects: readonly KubeObject[]; version: string }> {
    const { path, labelSelector, signal } = this.#options;
    const objects: KubeObject[] = [];
    let next: string | undefined;
    do {
      const page = await this.#client.request({
        what: `list ${this.#what}`,
        path,
        query: { limit: String(PAGE_OBJECTS), continue: next, labelSelector },
        timeoutMs: LIST_MS / 2,
      }, { signal });
      const { metadata, items } = v.parse(listSchema, page);
      for (const item of items) {
        const object = parseObject(item);
        if (object !== undefined) objects.push(this.#trim(object));
      }
      if (!metadata.continue) return { objects, version: metadata.resourceVersion };
      next = metadata.continue;
    } while (true);
  }
}

const annotated = v.object({
  metadata: v.object({ annotations: v.nullish(v.record(v.string(), v.string())) }),
});
const versioned = v.object({ metadata: v.object({ resourceVersion: v.string() }) });

function versionOf(raw: unknown): string | undefined {
  const found = v.safeParse(versioned, raw);
  return found.success ? found.output.metadata.resourceVersion : undefined;
}

/** The object as it is, if it has what every object has. */
export function parseObject(raw: unknown): KubeObject | undefined {
  return v.is(objectSchema, raw) ? raw as KubeObject : undefined;
}

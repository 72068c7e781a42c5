/**
 * Keys in Kubernetes: each is an object of its own, a ConfigMap for a document, a Lease for an
 * election. The server expires neither: a document is over at a time by the server's clock, and a
 * leader is believed for as long as its Lease says since it was last seen to change, by each host's
 * own clock.
 *
 * @module
 */
import { createHash } from "node:crypto";
import * as v from "valibot";
import { Stopwatch } from "../../util/stopwatch.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { childSignal } from "../../util/child_signal.ts";
import type { WriteOptions } from "../documents.ts";
import type {
  Entry,
  KeySpace,
  SeenKey,
  WatchEvent,
  WatchOptions,
  WatchUpdate,
} from "../keys/key_space.ts";
import type { CallOptions } from "../errors.ts";
import type { KubeClient } from "./client.ts";
import { KubeError } from "./error.ts";
import {
  followObjects,
  type FollowTiming,
  type KubeObject,
  type ObjectUpdate,
  parseObject,
} from "./follow.ts";

/** What a space keeps its keys in. */
export type SpaceKind = "ConfigMap" | "Lease";

const KEY = "flanneld/key";
const SPACE = "flanneld/space";
const EXPIRES = "flanneld/expires";
/** Documents of one name; more of them are no documents of ours. */
const LIST_LIMIT = "500";

const KINDS = {
  ConfigMap: { apiVersion: "v1", prefix: "/api/v1", plural: "configmaps" },
  Lease: {
    apiVersion: "coordination.k8s.io/v1",
    prefix: "/apis/coordination.k8s.io/v1",
    plural: "leases",
  },
} as const;

/** Options of {@linkcode KubeSpace}. */
export interface KubeSpaceOptions {
  readonly client: KubeClient;
  readonly kind: SpaceKind;
  readonly namespace: string;
  /** Such as `ali-vpc/state`. */
  readonly name: string;
  readonly timing?: FollowTiming;
}

const NAME = /^[a-z0-9][\w.-]*(?:\/[a-z0-9][\w.-]*)*$/i;

const configMap = v.object({ data: v.nullish(v.record(v.string(), v.string())) });
const lease = v.object({
  spec: v.nullish(v.object({
    holderIdentity: v.nullish(v.string()),
    leaseDurationSeconds: v.nullish(v.number()),
    renewTime: v.nullish(v.string()),
  })),
});
const list = v.object({ items: v.nullish(v.array(v.unknown()), []) });

/** One space. */
export class KubeSpace implements KeySpace {
  readonly #options: KubeSpaceOptions;
  readonly #path: string;
  readonly #selector: string;
  /** The version of each key that was seen last, and for how long. */
  readonly #seen = new Map<string, { readonly version: string; readonly since: Stopwatch }>();

  /** @throws {RangeError} If the name is not words with slashes between them. */
  constructor(options: KubeSpaceOptions) {
    const { kind, namespace, name } = options;
    if (!NAME.test(name)) throw new RangeError(`Cannot name documents "${name}"`);
    this.#options = options;
    const { prefix, plural } = KINDS[kind];
    this.#path = `${prefix}/namespaces/${namespace}/${plural}`;
    this.#selector = `${SPACE}=${plain(name, 63)}`;
  }

  /** The name of the object that holds `key`. */
  objectName(key: string): string {
    return plain(`flanneld.${this.#options.name}.${key}`, 240);
  }

  async list({ signal }: CallOptions): Promise<readonly Entry[]> {
    const found = await this.#call("list", "", {
      query: { labelSelector: this.#selector, limit: LIST_LIMIT },
    }, { signal });
    return v.parse(list, found).items.flatMap((raw) => this.#read(raw) ?? []);
  }

  async get(key: string, options: CallOptions): Promise<Entry | undefined> {
    return this.#read(await this.#find(key, options));
  }

  async create(
    key: string,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    try {
      const body = this.#encode(key, value, options);
      return this.#read(await this.#call("create", "", { method: "POST", body }, options));
    } catch (error) {
      if (!isStatus(error, 409)) throw error;
    }
    // It may be one that is over, in whose place there is room.
    const former = parseObject(await this.#find(key, options));
    if (former !== undefined && this.#read(former) !== undefined) return undefined;
    const version = former?.metadata.resourceVersion;
    return version === undefined ? undefined : await this.update({ key, version }, value, options);
  }

  async update(
    { key, version }: SeenKey,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    try {
      const body = this.#encode(key, value, options, version);
      const name = this.objectName(key);
      return this.#read(await this.#call("update", name, { method: "PUT", body }, options));
    } catch (error) {
      if (isStatus(error, 409) || isStatus(error, 404)) return undefined;
      throw error;
    }
  }

  async renew(
    { key, version }: SeenKey,
    lifetimeSeconds: number,
    { signal }: CallOptions,
  ): Promise<Entry | undefined> {
    const entry = await this.get(key, { signal });
    return entry?.version === version
      ? await this.update(entry, entry.value, { lifetimeSeconds, signal })
      : undefined;
  }

  async remove({ key, version }: SeenKey, options: CallOptions): Promise<boolean> {
    const body = {
      ...{ apiVersion: "v1", kind: "DeleteOptions" },
      preconditions: { resourceVersion: version },
    };
    try {
      await this.#call("delete", this.objectName(key), { method: "DELETE", body }, options);
      return true;
    } catch (error) {
      if (isStatus(error, 409) || isStatus(error, 404)) return false;
      throw error;
    }
  }

  async *watch({ signal }: WatchOptions): AsyncGenerator<WatchUpdate> {
    const { client, timing } = this.#options;
    const entries = new Map<string, Entry>();
    const objects = new Map<string, KubeObject>();
    const queue: WatchUpdate[] = [];
    const wakeup = new Wakeup();
    using scope = childSignal(signal);
    const following = (async () => {
      const updates = followObjects(client, {
        ...{ path: this.#path, labelSelector: this.#selector, signal: scope.signal },
        ...(timing ? { timing } : {}),
      });
      for await (const update of updates) {
        if (update.type === "disconnected") queue.push(update);
        else queue.push(this.#fold(update, entries, objects));
        wakeup.wake();
      }
    })();
    following.catch(() => {});
    while (!signal.aborted) {
      while (queue.length > 0) yield queue.shift()!;
      // Nobody tells of what is over.
      const events: WatchEvent[] = [];
      let nextMs = Infinity;
      for (const key of entries.keys()) {
        const life = this.#lifeOf(objects.get(key)!, key);
        if (life === undefined) continue;
        if (life.leftMs > 0) nextMs = Math.min(nextMs, life.leftMs);
        else {
          entries.delete(key);
          events.push({ type: "delete", key });
        }
      }
      if (events.length > 0) {
        yield { type: "events", events };
        continue;
      }
      await wakeup.sleep(nextMs, { signal }).catch(() => {});
    }
  }

  #fold(
    update: Exclude<ObjectUpdate, { readonly type: "disconnected" }>,
    entries: Map<string, Entry>,
    objects: Map<string, KubeObject>,
  ): WatchUpdate {
    if (update.type === "snapshot") {
      entries.clear();
      objects.clear();
    }
    const events: WatchEvent[] = [];
    const changes = update.type === "snapshot"
      ? update.objects.map((object) => ({ type: "put" as const, object }))
      : update.events;
    for (const { type, object } of changes) {
      const key = object.metadata.annotations?.[KEY];
      if (key === undefined) continue;
      const entry = type === "put" ? this.#read(object) : undefined;
      objects.set(key, object);
      if (entry !== undefined) {
        entries.set(key, entry);
        events.push({ type: "put", entry });
      } else if (entries.delete(key)) events.push({ type: "delete", key });
    }
    return update.type === "snapshot"
      ? { type: "snapshot", entries: [...entries.values()] }
      : { type: "events", events };
  }

  async #find(key: string, options: CallOptions): Promise<unknown> {
    try {
      return await this.#call("get", this.objectName(key), {}, options);
    } catch (error) {
      if (isStatus(error, 404)) return undefined;
      throw error;
    }
  }

  #call(
    verb: string,
    name: string,
    request: {
      readonly method?: "POST" | "PUT" | "DELETE";
      readonly body?: unknown;
      readonly query?: Readonly<Record<string, string>>;
    },
    options: CallOptions,
  ): Promise<unknown> {
    const { client, kind, namespace } = this.#options;
    const object = [KINDS[kind].plural, name].filter((part) => part !== "").join("/");
    const what = `${verb} ${object} in namespace ${namespace}`;
    const path = name === "" ? this.#path : `${this.#path}/${name}`;
    return client.request({ what, path, ...request }, options);
  }

  /** The entry in an object; `undefined` if there is none, or it is over. */
  #read(raw: unknown): Entry | undefined {
    const object = raw === undefined ? undefined : parseObject(raw);
    const key = object?.metadata.annotations?.[KEY];
    if (object === undefined || key === undefined) return undefined;
    const value = this.#options.kind === "ConfigMap"
      ? v.is(configMap, raw) ? raw.data?.["value"] : undefined
      : v.is(lease, raw)
      ? raw.spec?.holderIdentity
      : undefined;
    const { resourceVersion: version, uid } = object.metadata;
    const life = this.#lifeOf(object, key);
    if (typeof value !== "string" || (life !== undefined && life.leftMs <= 0)) return undefined;
    return { key, value, version, order: uid, expires: life !== undefined };
  }

  /** How long the object still counts; `undefined` for ever. */
  #lifeOf(object: KubeObject, key: string): { readonly leftMs: number } | undefined {
    const { client, kind } = this.#options;
    const { annotations, resourceVersion: version } = object.metadata;
    if (kind === "ConfigMap") {
      const until = Date.parse(annotations?.[EXPIRES] ?? "");
      return Number.isNaN(until) ? undefined : { leftMs: until - client.serverNow };
    }
    const spec = v.safeParse(lease, object);
    const seconds = spec.success ? spec.output.spec?.leaseDurationSeconds : undefined;
    if (seconds === undefined || seconds === null) return undefined;
    let seen = this.#seen.get(key);
    if (seen === undefined || seen.version !== version) {
      seen = { version, since: new Stopwatch({}) };
      this.#seen.set(key, seen);
    }
    return { leftMs: seconds * 1_000 - seen.since.elapsedMs };
  }

  #encode(
    key: string,
    value: string,
    { lifetimeSeconds }: WriteOptions,
    version?: string,
  ): unknown {
    const { client, kind, namespace, name } = this.#options;
    const isDocument = kind === "ConfigMap";
    const now = new Date(client.serverNow).toISOString();
    return {
      apiVersion: KINDS[kind].apiVersion,
      kind,
      metadata: {
        name: this.objectName(key),
        namespace,
        labels: { "app.kubernetes.io/managed-by": "flanneld", [SPACE]: plain(name, 63) },
        annotations: {
          [KEY]: key,
          ...(isDocument && lifetimeSeconds !== undefined
            ? { [EXPIRES]: new Date(client.serverNow + lifetimeSeconds * 1_000).toISOString() }
            : {}),
        },
        ...(version === undefined ? {} : { resourceVersion: version }),
      },
      ...(isDocument ? { data: { value } } : {
        spec: {
          holderIdentity: value,
          ...(lifetimeSeconds === undefined ? {} : { leaseDurationSeconds: lifetimeSeconds }),
          // Exactly six decimals, or it is refused.
          renewTime: now.replace("Z", "000Z"),
        },
      }),
    };
  }
}

/** `text` in the letters that names of objects have; another text is another name. */
function plain(text: string, length: number): string {
  const clean = text.toLowerCase().replaceAll("/", ".").replaceAll(/[^a-z0-9.-]/g, "-")
    .replaceAll(/[.-]*\.[.-]*/g, ".").replace(/^[.-]+|[.-]+$/g, "");
  if (clean === text.replaceAll("/", ".") && clean.length <= length) return clean;
  const hash = createHash("sha256").update(text).digest("hex").slice(0, 10);
  return `${clean.slice(0, length - 11).replace(/[.-]+$/, "")}-${hash}`;
}

function isStatus(error: unknown, status: number): boolean {
  return error instanceof KubeError && error.status === status;
}

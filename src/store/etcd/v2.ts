/** The keys of a network in the v2 keys API. @module */
import { joinPath } from "../../util/go_path.ts";
import { likelyConfigKeys, looksLikeConfig, mayHoldConfig } from "./missing_config.ts";
import { EtcdV2Client, type Node, type Reply, type V2Request } from "./v2_client.ts";
import { EtcdError } from "./error.ts";
import { configKey, type EtcdSettings, spacePrefix, subnetsPrefix } from "./options.ts";
import {
  keepFollowing,
  relistDelay,
  valueChanges,
  WATCH_TIMING,
  type WatchTiming,
} from "../keys/follow.ts";
import type { WriteOptions } from "../documents.ts";
import type { CallOptions } from "../errors.ts";
import {
  type Entry,
  type LeaseSpace,
  orderOf,
  type Registry,
  type SeenKey,
  type WatchEvent,
  type WatchUpdate,
} from "../keys/key_space.ts";

/** A key, or a directory with all below it; entries are named by what follows `strip`. */
interface Subtree {
  readonly path: string;
  readonly recursive: boolean;
  readonly strip: string;
}

/** The keys of one subtree of etcd v2. Hidden ones, which begin with an underscore, are not listed. */
class EtcdV2Space implements LeaseSpace {
  readonly #client: EtcdV2Client;
  readonly #subtree: Subtree;
  readonly #timing: WatchTiming;

  constructor(client: EtcdV2Client, subtree: Subtree, timing: WatchTiming) {
    this.#client = client;
    this.#subtree = subtree;
    this.#timing = timing;
  }

  async list(options: CallOptions): Promise<readonly Entry[]> {
    return (await readSubtree(this.#client, this.#subtree, options)).entries;
  }

  async get(key: string, options: CallOptions): Promise<Entry | undefined> {
    const node = await this.#readNode(key, options);
    return node && toEntry(node, this.#subtree);
  }

  create(key: string, value: string, options: WriteOptions): Promise<Entry | undefined> {
    return this.#write(key, { value, prevExist: "false" }, options);
  }

  update(seen: SeenKey, value: string, options: WriteOptions): Promise<Entry | undefined> {
    return this.#write(seen.key, { value, prevIndex: seen.version }, options);
  }

  /** There are no transactions: the new key comes before the other one goes. */
  async move(
    from: SeenKey,
    key: string,
    value: string,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    const created = await this.create(key, value, options);
    if (created === undefined) return undefined;
    if (await this.remove(from, options)) return await this.update(created, value, options);
    await this.remove(created, options);
    return undefined;
  }

  /** The revision changes, as etcd v2 counts this as a modification; no watcher is told. */
  async renew(
    { key, version }: SeenKey,
    lifetimeSeconds: number,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    const entry = await this.get(key, options);
    if (entry?.version !== version) return undefined;
    if (!entry.expires) return entry; // a refresh would give a reservation an end
    // etcd keeps the value by itself and refuses a refresh that carries one.
    const form = { refresh: "true", prevIndex: version };
    return await this.#write(key, form, { signal: options.signal, lifetimeSeconds });
  }

  async timeToLive(key: string, options: CallOptions): Promise<number | undefined> {
    return (await this.#readNode(key, options))?.ttl;
  }

  async remove({ key, version }: SeenKey, options: CallOptions): Promise<boolean> {
    const path = this.#subtree.strip + key;
    const request: V2Request = { method: "DELETE", path, query: { prevIndex: version } };
    const { result } = await this.#client.send("once", request, options);
    return result !== undefined;
  }

  watch(options: CallOptions): AsyncIterable<WatchUpdate> {
    return followSubtree(this.#client, this.#subtree, this.#timing, options);
  }

  async #readNode(key: string, options: CallOptions): Promise<Node | undefined> {
    const node = await readNode(this.#client, this.#subtree.strip + key, options);
    return node?.dir ? undefined : node;
  }

  async #write(
    key: string,
    fields: Record<string, string>,
    options: WriteOptions,
  ): Promise<Entry | undefined> {
    const { lifetimeSeconds } = options;
    const ttl = lifetimeSeconds === undefined ? {} : { ttl: String(Math.ceil(lifetimeSeconds)) };
    const form = { ...fields, ...ttl };
    const request: V2Request = { method: "PUT", path: this.#subtree.strip + key, form };
    const { result } = await this.#client.send("once", request, options);
    return result && toEntry(result.node, this.#subtree);
  }
}

/** The registry over etcd's v2 keys API (HTTP), as upstream up to v0.17 used it. */
export class EtcdV2Registry extends EtcdV2Space implements Registry {
  readonly description: string;
  readonly #client: EtcdV2Client;
  readonly #prefix: string;
  readonly #config: Subtree;
  readonly #timing: WatchTiming;

  constructor(settings: EtcdSettings, options: { timing?: WatchTiming } = {}) {
    const client = new EtcdV2Client(settings);
    const { timing = WATCH_TIMING } = options;
    // The v2 tree has one root: a prefix without a slash in front means the same key.
    const prefix = joinPath("/", settings.prefix);
    super(client, directory(subnetsPrefix(prefix)), timing);
    this.description = `etcd v2 at ${settings.endpoints.map(({ url }) => url).join(", ")}`;
    this.#client = client;
    this.#prefix = prefix;
    const config = configKey(prefix);
    this.#config = { path: config, recursive: false, strip: config };
    this.#timing = timing;
  }

  async readConfig(options: CallOptions): Promise<string | undefined> {
    return (await readSubtree(this.#client, this.#config, options)).entries[0]?.value;
  }

  watchConfig(options: CallOptions): AsyncIterable<string | undefined> {
    return valueChanges(followSubtree(this.#client, this.#config, this.#timing, options));
  }

  /**
   * Misplaced network configs. Reads some directories at most, and none with leases.
   *
   * @throws {StoreError} If the store cannot be asked; not for what the user may not read.
   */
  async findConfigs(options: CallOptions): Promise<readonly string[]> {
    const keys = likelyConfigKeys(this.#prefix).filter((key) => /^\/.*[^/]$/.test(key));
    const found = new Set<string>();
    const directories = [...keys, "/"];
    for (let asked = 0; asked < SEARCHED_NODES && directories.length > 0; asked++) {
      const node = await this.#readable(directories.shift()!, options);
      for (const each of node?.nodes ?? (node ? [node] : [])) {
        if (each.dir) {
          if (!each.key.endsWith("/subnets")) directories.push(each.key);
        } else if (
          mayHoldConfig(each.key, this.#prefix) && looksLikeConfig(each.value ?? "")
        ) {
          found.add(each.key);
        }
      }
    }
    return [...found];
  }

  async #readable(path: string, options: CallOptions): Promise<Node | undefined> {
    try {
      return await readNode(this.#client, path, options);
    } catch (error) {
      if (error instanceof EtcdError && error.reason === "denied") return undefined;
      throw error;
    }
  }

  space(name: string): LeaseSpace {
    const subtree = directory(spacePrefix(this.#prefix, name));
    return new EtcdV2Space(this.#client, subtree, this.#timing);
  }

  addressesChanged(): void {
    this.#client.addressesChanged();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#client[Symbol.dispose]();
    return Promise.resolve();
  }
}

/** How many directories of a foreign store are looked into for a misplaced config. */
const SEARCHED_NODES = 40;

/** All below `prefix`, which ends in a slash. */
function directory(prefix: string): Subtree {
  return { path: prefix.slice(0, -1), recursive: true, strip: prefix };
}

async function readNode(
  client: EtcdV2Client,
  path: string,
  options: CallOptions,
): Promise<Node | undefined> {
  const { result } = await client.send("idempotent", read(path, false), options);
  return result?.node;
}

/** A read that sees everything acknowledged before it. */
function read(path: string, recursive: boolean): V2Request {
  return { method: "GET", path, query: { quorum: "true", recursive: String(recursive) } };
}

function toEntry(node: Node, subtree: Subtree): Entry {
  return {
    key: node.key.slice(subtree.strip.length),
    value: node.value ?? "",
    version: String(node.modifiedIndex),
    order: orderOf(node.createdIndex),
    expires: node.expiration !== undefined,
  };
}

interface Reading extends Reply {
  readonly entries: readonly Entry[];
}

/** All keys of a subtree. Directories below it are walked; a missing one is empty. */
async function readSubtree(
  client: EtcdV2Client,
  subtree: Subtree,
  options: CallOptions,
): Promise<Reading> {
  const request = read(subtree.path, subtree.recursive);
  const reply = await client.send("idempotent", request, options);
  const entries: Entry[] = [];
  const walk = (node: Node) => {
    if (!node.dir) entries.push(toEntry(node, subtree));
    else if (subtree.recursive) node.nodes?.forEach(walk);
  };
  // A directory's name may be a plain key by mistake: then nothing can exist below it.
  const root = reply.result?.node;
  if (root !== undefined && Boolean(root.dir) === subtree.recursive) walk(root);
  return { ...reply, entries };
}

/** Follows a subtree by long polls, whatever happens to connections and members. */
function followSubtree(
  client: EtcdV2Client,
  subtree: Subtree,
  timing: WatchTiming,
  options: CallOptions,
): AsyncGenerator<WatchUpdate> {
  const follower = new SubtreeFollower(client, subtree, timing, options);
  return keepFollowing(() => follower.attempt(), options);
}

class SubtreeFollower {
  readonly #client: EtcdV2Client;
  readonly #subtree: Subtree;
  readonly #probePath: string;
  readonly #timing: WatchTiming;
  readonly #options: CallOptions;
  /** The index from which events are still to come; `undefined` before a snapshot. */
  #next: number | undefined;
  #clusterId = "";
  #relistAt = 0;

  constructor(
    client: EtcdV2Client,
    subtree: Subtree,
    timing: WatchTiming,
    options: CallOptions,
  ) {
    this.#client = client;
    this.#subtree = subtree;
    this.#probePath = configKey(joinPath("/", client.settings.prefix));
    this.#timing = timing;
    this.#options = options;
  }

  async *attempt(): AsyncGenerator<WatchUpdate> {
    const { path, recursive } = this.#subtree;
    // A store that was emptied and started under its old name has the same id, its index may have
    // passed ours again, and its history cannot be asked for: after a failure all is read anew.
    yield await this.#snapshot();
    for (;;) {
      let reply: Reply;
      try {
        reply = await this.#client.poll(
          { path, recursive, index: this.#next! },
          {
            signal: this.#options.signal,
            waitMs: this.#timing.silenceMs * (1 + Math.random() / 4),
          },
        );
      } catch (error) {
        if (!(error instanceof EtcdError) || error.kind !== "compacted") throw error;
        yield await this.#snapshot();
        continue;
      }
      if (reply.result === undefined) {
        this.#next = Math.max(this.#next!, reply.index + 1);
        // A poll says nothing about a member that is cut off from the others; a quorum read does.
        // Of one key: reading a directory would bring all below it.
        const { clusterId, index } = await this.#client.send(
          "idempotent",
          read(this.#probePath, false),
          {
            signal: this.#options.signal,
            timeoutMs: this.#timing.probeMs,
          },
        );
        const same = clusterId === this.#clusterId && index >= this.#next - 1;
        if (!same || performance.now() >= this.#relistAt) yield await this.#snapshot();
        continue;
      }
      const { action, node, prevNode } = reply.result;
      this.#next = node.modifiedIndex + 1;
      const gone = action === "delete" || action === "expire" || action === "compareAndDelete";
      if (gone && (node.dir || prevNode?.dir)) {
        yield await this.#snapshot(); // everything below is gone, and etcd does not list it
      } else if (!node.dir && node.key.startsWith(this.#subtree.strip)) {
        const entry = toEntry(node, this.#subtree);
        const event: WatchEvent = gone
          ? { type: "delete", key: entry.key }
          : { type: "put", entry };
        yield { type: "events", events: [event] };
      }
    }
  }

  async #snapshot(): Promise<WatchUpdate> {
    const { entries, index, clusterId } = await readSubtree(
      this.#client,
      this.#subtree,
      this.#options,
    );
    this.#next = index + 1;
    this.#clusterId = clusterId;
    this.#relistAt = performance.now() + relistDelay(entries.length, this.#timing);
    return { type: "snapshot", entries };
  }
}

/**
 * A store in memory that allocates nothing and expires nothing, as Kubernetes: subnets are assigned
 * to nodes from outside, a lease lives as long as its node, an annotation tells what it publishes,
 * versions are opaque, and a leader is believed for as long as each host's own clock says.
 *
 * @module
 */
import { encodeLeaseKey, encodeLeaseValue, parseLease } from "../../src/lease/codec.ts";
import type { Lease, LeaseAttributes } from "../../src/lease/lease.ts";
import type { LeaseEntry } from "../../src/lease/lease_map.ts";
import type { Prefix } from "../../src/net/mod.ts";
import type {
  Document,
  Documents,
  DocumentUpdate,
  WriteOptions,
} from "../../src/store/documents.ts";
import type {
  ConfirmOptions,
  Election,
  ElectionOptions,
  Leadership,
  Term,
} from "../../src/store/election.ts";
import type { CallOptions } from "../../src/store/errors.ts";
import type {
  LeaseRequest,
  LeaseState,
  LeaseStore,
  LeaseUpdate,
  OwnLease,
  Released,
} from "../../src/store/lease_store.ts";
import { Cell } from "../../src/util/cell.ts";
import { abortable } from "../../src/util/abortable.ts";
import { delay } from "../../src/util/time.ts";

/** How long a leader is believed without a sign of life, and how often it gives one. */
const BELIEVED_MS = 600;
const RENEW_MS = 100;
const NAME = /^[a-z0-9][\w.-]*(\/[a-z0-9][\w.-]*)*$/i;

/** A node: its subnet stays for as long as it exists. */
interface Node {
  readonly uid: string;
  readonly subnet: Prefix | undefined;
  readonly annotation: string | undefined;
}

/** An object with a version, which a write must know. */
interface Versioned {
  readonly value: string;
  readonly version: string;
  readonly endsAt: number;
}

/** What all hosts share. */
export class GivenCluster {
  readonly nodes = new Map<string, Node>();
  readonly objects = new Map<string, Versioned>();
  config: string | undefined;
  #serial = 0;
  readonly #listeners = new Set<() => void>();

  /** Opaque, and in no order. */
  nextVersion(): string {
    return crypto.randomUUID();
  }

  /** Creates a node; a controller assigns its subnet now or later. */
  addNode(name: string, subnet?: Prefix): void {
    this.nodes.set(name, { uid: `uid-${++this.#serial}`, subnet, annotation: undefined });
    this.changed();
  }

  assign(name: string, subnet: Prefix): void {
    this.nodes.set(name, { ...this.nodes.get(name)!, subnet });
    this.changed();
  }

  annotate(name: string, annotation: string | undefined): void {
    this.nodes.set(name, { ...this.nodes.get(name)!, annotation });
    this.changed();
  }

  removeNode(name: string): void {
    this.nodes.delete(name);
    this.changed();
  }

  setConfig(text: string | undefined): void {
    this.config = text;
    this.changed();
  }

  /** Writes an object that is at `version`, or, with `undefined`, absent. */
  write(path: string, value: string, version: string | undefined, lifetimeSeconds = Infinity) {
    if (this.read(path)?.version !== version) return undefined;
    const endsAt = performance.now() + lifetimeSeconds * 1_000;
    const written = { value, version: this.nextVersion(), endsAt };
    this.objects.set(path, written);
    this.changed();
    return written;
  }

  /** Nothing expires by itself: what is past its life is taken for absent. */
  read(path: string): Versioned | undefined {
    const object = this.objects.get(path);
    return object !== undefined && object.endsAt > performance.now() ? object : undefined;
  }

  remove(path: string, version: string): boolean {
    if (this.read(path)?.version !== version) return false;
    this.objects.delete(path);
    this.changed();
    return true;
  }

  changed(): void {
    for (const listener of [...this.#listeners]) listener();
  }

  /** Yields now and after each change until the end. */
  async *changes({ signal }: CallOptions): AsyncGenerator<void> {
    let next = Promise.withResolvers<void>();
    const listener = () => next.resolve();
    this.#listeners.add(listener);
    try {
      while (!signal.aborted) {
        yield;
        await abortable(next.promise, { signal }).catch(() => {});
        next = Promise.withResolvers<void>();
      }
    } finally {
      this.#listeners.delete(listener);
    }
  }
}

/** One host's access. */
export class GivenStore implements LeaseStore {
  readonly description = "a store that gives subnets";
  readonly #cluster: GivenCluster;
  readonly #node: string;
  readonly config: LeaseStore["config"];

  constructor(cluster: GivenCluster, node: string) {
    this.#cluster = cluster;
    this.#node = node;
    this.config = {
      read: () => Promise.resolve(cluster.config),
      async *follow(options) {
        let known: { readonly text: string | undefined } | undefined;
        for await (const _ of cluster.changes(options)) {
          if (known?.text === cluster.config && known !== undefined) continue;
          known = { text: cluster.config };
          yield known.text;
        }
      },
      explainMissing: (example) => Promise.resolve(`Mount a config such as ${example}`),
    };
  }

  async acquire(request: LeaseRequest, options: CallOptions): Promise<OwnLease> {
    for await (const _ of this.#cluster.changes(options)) {
      const entry = entryOf(this.#node, this.#cluster.nodes.get(this.#node));
      if (entry !== undefined) return new GivenLease(this.#cluster, this.#node, entry, request);
      request.onWaiting?.("no subnet is assigned to this node yet");
    }
    throw options.signal.reason;
  }

  async *followLeases(options: CallOptions): AsyncGenerator<LeaseUpdate> {
    let known: Map<string, LeaseEntry> | undefined;
    for await (const _ of this.#cluster.changes(options)) {
      const entries = [...this.#cluster.nodes].flatMap(([name, node]) => {
        const entry = node.annotation === undefined ? undefined : entryOf(name, node);
        return entry === undefined ? [] : [entry];
      });
      const now = new Map(entries.map((entry) => [entry.key, entry]));
      if (known === undefined) {
        yield { type: "snapshot", entries };
      } else {
        const gone = [...known.keys()].filter((key) => !now.has(key));
        const put = entries.filter(({ key, value }) => known!.get(key)?.value !== value);
        if (gone.length + put.length > 0) {
          yield {
            type: "events",
            events: [
              ...gone.map((key) => ({ type: "delete", key }) as const),
              ...put.map((entry) => ({ type: "put", entry }) as const),
            ],
          };
        }
      }
      known = now;
    }
  }

  /** The subnet is not the host's to give back; what it published goes. */
  release(): Promise<Released> {
    const subnet = this.#cluster.nodes.get(this.#node)?.subnet;
    if (subnet === undefined) return Promise.resolve({ released: [], kept: [] });
    this.#cluster.annotate(this.#node, undefined);
    return Promise.resolve({ released: [], kept: [{ ipv4: subnet }] });
  }

  documents(name: string): Documents {
    if (!NAME.test(name)) throw new RangeError(`Cannot name documents "${name}"`);
    return new GivenDocuments(this.#cluster, `documents/${name}/`);
  }

  election(options: ElectionOptions): Election {
    return new GivenElection(this.#cluster, `elections/${options.name}`, options);
  }

  addressesChanged(): void {}

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
}

/** What a node says of its lease; `undefined` while it has no subnet. */
function entryOf(name: string, node: Node | undefined): LeaseEntry | undefined {
  if (node?.subnet === undefined) return undefined;
  return {
    key: `${name}.${node.uid}`,
    subnet: encodeLeaseKey({ ipv4: node.subnet }),
    value: node.annotation ?? "{}",
    order: node.uid.padStart(20, "0"),
  };
}

class GivenLease implements OwnLease {
  readonly #cluster: GivenCluster;
  readonly #node: string;
  readonly lease: Cell<Lease>;
  readonly state = new Cell<LeaseState>({ held: true, expiresAt: undefined });

  constructor(
    cluster: GivenCluster,
    node: string,
    entry: LeaseEntry,
    { attributes, inherit }: LeaseRequest,
  ) {
    this.#cluster = cluster;
    this.#node = node;
    const found = parseLease(entry);
    const isPublished = cluster.nodes.get(node)!.annotation !== undefined;
    const own = isPublished ? inherit?.(found.attributes) ?? attributes : attributes;
    this.lease = new Cell({ ...found, attributes: own });
    this.#write();
  }

  publish(attributes: LeaseAttributes): void {
    this.lease.set({ ...this.lease.value, attributes });
    this.#write();
  }

  redraw(): void {} // others assign subnets

  async run(options: CallOptions): Promise<never> {
    for await (const _ of this.#cluster.changes(options)) {
      const entry = entryOf(this.#node, this.#cluster.nodes.get(this.#node));
      if (entry === undefined) {
        this.state.set({ held: false, loss: "gone", message: `node ${this.#node} is gone` });
        continue;
      }
      const { key, subnet } = parseLease(entry);
      const isAnother = key !== this.lease.value.key;
      if (isAnother) this.lease.set({ ...this.lease.value, key, subnet });
      this.#write();
      if (isAnother || !this.state.value.held) this.state.set({ held: true, expiresAt: undefined });
    }
    throw options.signal.reason;
  }

  /** Puts the annotation back, whoever changed it. */
  #write(): void {
    const value = encodeLeaseValue(this.lease.value.attributes);
    const node = this.#cluster.nodes.get(this.#node);
    if (node !== undefined && node.annotation !== value) this.#cluster.annotate(this.#node, value);
  }
}

class GivenDocuments implements Documents {
  readonly #cluster: GivenCluster;
  readonly #folder: string;

  constructor(cluster: GivenCluster, folder: string) {
    this.#cluster = cluster;
    this.#folder = folder;
  }

  list(): Promise<readonly Document[]> {
    const keys = [...this.#cluster.objects.keys()].filter((path) => path.startsWith(this.#folder))
      .map((path) => path.slice(this.#folder.length));
    return Promise.resolve(keys.flatMap((key) => this.#read(key) ?? []));
  }

  get(key: string): Promise<Document | undefined> {
    return Promise.resolve(this.#read(key));
  }

  create(key: string, value: string, options: WriteOptions): Promise<Document | undefined> {
    return this.#write({ key, version: undefined }, value, options);
  }

  update(
    document: Pick<Document, "key" | "version">,
    value: string,
    options: WriteOptions,
  ): Promise<Document | undefined> {
    return this.#write(document, value, options);
  }

  remove({ key, version }: Pick<Document, "key" | "version">): Promise<boolean> {
    return Promise.resolve(this.#cluster.remove(this.#folder + key, version));
  }

  async *follow(key: string, options: CallOptions): AsyncGenerator<DocumentUpdate> {
    let known: { readonly version: string | undefined } | undefined;
    for await (const _ of this.#cluster.changes(options)) {
      const document = this.#read(key);
      if (known !== undefined && known.version === document?.version) continue;
      known = { version: document?.version };
      yield { type: "current", document };
    }
  }

  writeCommand(key: string, value: string): string {
    return `write ${this.#folder}${key} ${value}`;
  }

  #read(key: string): Document | undefined {
    const object = this.#cluster.read(this.#folder + key);
    return object && { key, value: object.value, version: object.version };
  }

  #write(
    { key, version }: { readonly key: string; readonly version: string | undefined },
    value: string,
    { lifetimeSeconds }: WriteOptions,
  ): Promise<Document | undefined> {
    const written = this.#cluster.write(this.#folder + key, value, version, lifetimeSeconds);
    return Promise.resolve(written && { key, value, version: written.version });
  }
}

/** A leader gives signs of life by new versions of one object; who sees none for long takes over. */
class GivenElection implements Election {
  readonly leadership = new Cell<Leadership | undefined>(undefined);
  readonly #cluster: GivenCluster;
  readonly #path: string;
  readonly #options: ElectionOptions;
  candidate = true;
  /** The version seen last, and since when. */
  #seen: { readonly version: string | undefined; readonly sinceMs: number } | undefined;
  #vacantSinceMs: number | undefined;
  #pauseUntilMs = 0;
  #end: ((reason: Error) => void) | undefined;

  constructor(cluster: GivenCluster, path: string, options: ElectionOptions) {
    this.#cluster = cluster;
    this.#path = path;
    this.#options = options;
  }

  get term(): Term | undefined {
    return this.leadership.value?.term;
  }

  get vacantMs(): number | undefined {
    if (this.leadership.value === undefined) return undefined;
    return this.#vacantSinceMs === undefined ? 0 : performance.now() - this.#vacantSinceMs;
  }

  tryOnce(): Promise<Term | undefined> {
    this.#look();
    const isOpen = this.leadership.value?.holder === undefined && this.candidate;
    if (this.term !== undefined || !isOpen || performance.now() < this.#pauseUntilMs) {
      return Promise.resolve(this.term);
    }
    const before = this.#cluster.read(this.#path)?.version;
    const written = this.#cluster.write(this.#path, this.#options.holder, before);
    if (written === undefined) return Promise.resolve(undefined);
    const controller = new AbortController();
    const term: Term = {
      id: written.version,
      signal: controller.signal,
      confirm: async ({ signal }: ConfirmOptions) => {
        signal.throwIfAborted();
        await Promise.resolve();
        this.#look();
        controller.signal.throwIfAborted();
      },
    };
    this.#end = (reason) => controller.abort(reason);
    this.#seen = { version: written.version, sinceMs: performance.now() };
    this.#vacantSinceMs = undefined;
    this.leadership.set({ holder: this.#options.holder, term });
    return Promise.resolve(term);
  }

  async run(options: CallOptions): Promise<void> {
    while (!options.signal.aborted) {
      if (this.term !== undefined && !this.candidate) await this.resign({ pauseMs: 0 });
      await this.tryOnce();
      if (this.term !== undefined) this.#renew();
      await delay(RENEW_MS, options).catch(() => {});
    }
    this.#over("the election is left");
  }

  resign({ pauseMs }: { readonly pauseMs: number }): Promise<void> {
    this.#pauseUntilMs = performance.now() + pauseMs;
    const version = this.#seen?.version;
    if (this.term !== undefined && version !== undefined) this.#cluster.remove(this.#path, version);
    this.#over("this host has resigned");
    return Promise.resolve();
  }

  #renew(): void {
    const { holder } = this.#options;
    const written = this.#cluster.write(this.#path, holder, this.#seen?.version);
    if (written === undefined) this.#over("another host leads");
    else this.#seen = { version: written.version, sinceMs: performance.now() };
  }

  /** Notes who leads. */
  #look(): void {
    const object = this.#cluster.read(this.#path);
    const now = performance.now();
    if (this.term !== undefined) {
      if (object?.version !== this.#seen?.version) this.#over("another host leads");
      return;
    }
    if (this.#seen === undefined || object?.version !== this.#seen.version) {
      this.#seen = { version: object?.version, sinceMs: now };
    }
    const isHeld = object !== undefined && now - this.#seen.sinceMs < BELIEVED_MS;
    this.#vacantSinceMs = isHeld ? undefined : this.#vacantSinceMs ?? now;
    const holder = isHeld ? object.value : undefined;
    const before = this.leadership.value;
    if (before === undefined || before.holder !== holder) {
      this.leadership.set({ holder, term: undefined });
    }
  }

  #over(reason: string): void {
    if (this.term === undefined) return;
    this.#end?.(new Error(`The term is over: ${reason}`));
    this.#seen = undefined;
    this.#vacantSinceMs = performance.now();
    this.leadership.set({ holder: undefined, term: undefined });
  }
}

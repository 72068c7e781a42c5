/**
 * A {@linkcode LeaseStore} over the Kubernetes API, as upstream's `--kube-subnet-mgr`:
 *
 * ```text
 *   a file                       the network config
 *   Node objects                 leases: spec.podCIDRs, and annotations for what is published
 *   ConfigMaps, Leases           documents and elections, in the daemon's namespace
 * ```
 *
 * @module
 */
import type { Logger } from "../../log.ts";
import { Address } from "../../net/mod.ts";
import { spaceDocuments } from "../keys/documents.ts";
import { KeyElection } from "../keys/election.ts";
import type { Documents } from "../documents.ts";
import type { Election, ElectionOptions } from "../election.ts";
import type { CallOptions } from "../errors.ts";
import type {
  ConfigSource,
  LeaseRequest,
  LeaseStore,
  LeaseUpdate,
  OwnLease,
  Released,
  ReleaseRequest,
  StoredAddresses,
} from "../lease_store.ts";
import { isManaged, type KubeNode, leaseEntry, subnetOf } from "./annotations.ts";
import type { KubeClient } from "./client.ts";
import type { FollowTiming } from "./follow.ts";
import type { NodeApi } from "./nodes.ts";
import { KubeLease } from "./own_lease.ts";
import { KubeSpace } from "./space.ts";

/** Options of {@linkcode KubeStore}. */
export interface KubeStoreOptions {
  readonly client: KubeClient;
  readonly nodes: NodeApi;
  readonly config: ConfigSource;
  /** This host's. */
  readonly node: string;
  /** Where documents and elections are. */
  readonly namespace: string;
  readonly setsCondition: boolean;
  readonly timing?: FollowTiming | undefined;
  readonly log: Logger;
}

/** The store of one network in Kubernetes. */
export class KubeStore implements LeaseStore {
  readonly config: ConfigSource;
  readonly #options: KubeStoreOptions;
  readonly #leases = new Set<KubeLease>();

  constructor(options: KubeStoreOptions) {
    this.#options = options;
    this.config = options.config;
  }

  get description(): string {
    return `Kubernetes at ${this.#options.client.server}`;
  }

  async storedAddresses(options: CallOptions): Promise<StoredAddresses> {
    const { nodes, node: name, log } = this.#options;
    const node = await nodes.get(name, options);
    const read = (family: 4 | 6): Address | undefined => {
      const annotation = nodes.names.nodePublicIp[family];
      const text = node?.annotations[annotation];
      if (text === undefined || text === "") return undefined;
      const address = Address.tryParse(text);
      if (address?.family === family) return address;
      log.warn(`Annotation ${annotation} of node ${name} is no IPv${family} address`);
      return undefined;
    };
    const [publicIp, publicIpv6] = [read(4), read(6)];
    return { ...(publicIp ? { publicIp } : {}), ...(publicIpv6 ? { publicIpv6 } : {}) };
  }

  async acquire(request: LeaseRequest, options: CallOptions): Promise<OwnLease> {
    const { nodes, node, setsCondition } = this.#options;
    const { network, log } = request;
    const own = await KubeLease.acquire(
      { nodes, node, setsCondition, network, log },
      request,
      options,
    );
    this.#leases.add(own);
    return own;
  }

  async *followLeases({ signal }: CallOptions): AsyncGenerator<LeaseUpdate> {
    const { nodes, node: own } = this.#options;
    /** The entries told of, by the names of their nodes. */
    const keys = new Map<string, string>();
    const toEntry = (node: KubeNode) => leaseEntry(node, nodes.names);
    for await (const update of nodes.follow({ signal, own })) {
      if (update.type === "disconnected") {
        yield update;
      } else if (update.type === "snapshot") {
        this.#observe(update.nodes.find(({ name }) => name === own));
        keys.clear();
        const entries = update.nodes.flatMap((node) => {
          const entry = toEntry(node);
          if (entry !== undefined) keys.set(node.name, entry.key);
          return entry ?? [];
        });
        yield { type: "snapshot", entries };
      } else {
        yield {
          type: "events",
          events: update.events.flatMap(({ name, node }) => {
            if (name === own) this.#observe(node);
            const entry = node === undefined ? undefined : toEntry(node);
            const former = keys.get(name);
            const gone = former !== undefined && former !== entry?.key
              ? [{ type: "delete", key: former } as const]
              : [];
            if (entry === undefined) keys.delete(name);
            else keys.set(name, entry.key);
            return entry === undefined ? gone : [...gone, { type: "put", entry } as const];
          }),
        };
      }
    }
  }

  #observe(node: KubeNode | undefined): void {
    for (const lease of this.#leases) lease.observe(node);
  }

  /** The subnet is the node's for as long as it exists; what was published goes. */
  async release({ log }: ReleaseRequest, options: CallOptions): Promise<Released> {
    const { nodes, node: name } = this.#options;
    const node = await nodes.get(name, options);
    if (node === undefined || !isManaged(node, nodes.names)) return { released: [], kept: [] };
    const { managed, backendType, data, publicIp } = nodes.names;
    const written = [managed, backendType, data[4], data[6], publicIp[4], publicIp[6]];
    const present = written.filter((each) => node.annotations[each] !== undefined);
    await nodes.annotate(node, Object.fromEntries(present.map((each) => [each, null])), options);
    log.info("What this host published is removed; its pod CIDR stays the node's", { node: name });
    return { released: [], kept: [subnetOf(node.podCidrs ?? [])] };
  }

  documents(name: string): Documents {
    const space = this.#space("ConfigMap", name);
    return spaceDocuments(space, (key, value) => {
      const { namespace } = this.#options;
      const literal = `--from-literal=value='${value.replaceAll("'", `'\\''`)}'`;
      // Not by a name alone: the daemon finds its documents by label and annotation.
      return `kubectl --namespace=${namespace} create configmap ${
        space.objectName(key)
      } ${literal} ` +
        `# ${name}/${key}`;
    });
  }

  election({ name, holder, log }: ElectionOptions): Election {
    const at = name.lastIndexOf("/");
    const space = this.#space("Lease", name.slice(0, at));
    return new KeyElection({ space, key: name.slice(at + 1), holder, log });
  }

  #space(kind: "ConfigMap" | "Lease", name: string): KubeSpace {
    const { client, namespace, timing } = this.#options;
    return new KubeSpace({ client, namespace, kind, name, ...(timing ? { timing } : {}) });
  }

  addressesChanged(): void {
    this.#options.client.addressesChanged();
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#options.client[Symbol.dispose]();
    return Promise.resolve();
  }
}

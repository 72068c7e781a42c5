/**
 * A {@linkcode LeaseStore} over etcd's keys, be they v3's or v2's:
 *
 * ```text
 *   <prefix>/config             the network config
 *   <prefix>/subnets/<subnet>   leases, each with a life of its own
 *   <prefix>/<name>/…           documents and elections, which upstream's daemons never look at
 * ```
 *
 * @module
 */
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
} from "../lease_store.ts";
import { spaceDocuments } from "../keys/documents.ts";
import { KeyElection } from "../keys/election.ts";
import type { EtcdKeys, WatchUpdate } from "../keys/key_space.ts";
import { LeaseKeeper, type LeaseKeeperOptions } from "./lease_keeper.ts";
import { releaseLeases } from "./release.ts";

export type EtcdStoreOptions = Pick<LeaseKeeperOptions, "renewMarginSeconds">;

/** The store of one network in etcd. */
export class EtcdStore implements LeaseStore {
  readonly config: ConfigSource;
  readonly #keys: EtcdKeys;
  readonly #options: EtcdStoreOptions;
  readonly #keepers = new Set<LeaseKeeper>();
  #isFollowed = false;

  constructor(keys: EtcdKeys, options: EtcdStoreOptions) {
    this.#keys = keys;
    this.#options = options;
    this.config = {
      read: async (each) => await (await keys.chosen(each)).readConfig(each),
      follow: (each) => keys.decided.watchConfig(each),
      explainMissing: (example, each) => keys.explainMissing(example, each),
    };
  }

  get description(): string {
    return this.#keys.description;
  }

  async acquire(request: LeaseRequest, options: CallOptions): Promise<OwnLease> {
    const { renewMarginSeconds } = this.#options;
    const space = this.#keys.decided;
    const keeper = await LeaseKeeper.acquire({ ...request, renewMarginSeconds, space }, options);
    this.#keepers.add(keeper);
    if (this.#isFollowed) keeper.takeKnown(); // nobody needs it any more
    return keeper;
  }

  async *followLeases({ signal }: CallOptions): AsyncGenerator<LeaseUpdate> {
    this.#isFollowed = true;
    for await (const update of this.#watchLeases({ signal })) {
      for (const keeper of this.#keepers) keeper.observe(update);
      yield update;
    }
  }

  #watchLeases({ signal }: CallOptions): AsyncIterable<WatchUpdate> {
    const [after] = [...this.#keepers].map((keeper) => keeper.takeKnown());
    return this.#keys.decided.watch({ signal, ...(after ? { after } : {}) });
  }

  async release(request: ReleaseRequest, options: CallOptions): Promise<Released> {
    return await releaseLeases(await this.#keys.chosen(options), request, options);
  }

  documents(name: string): Documents {
    return spaceDocuments(
      this.#keys.decided.space(name),
      (key, value) => this.#keys.writeCommand(`${name}/${key}`, value),
    );
  }

  election({ name, holder, log }: ElectionOptions): Election {
    const at = name.lastIndexOf("/");
    const space = this.#keys.decided.space(name.slice(0, at));
    return new KeyElection({ space, key: name.slice(at + 1), holder, log });
  }

  addressesChanged(): void {
    this.#keys.addressesChanged();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#keys[Symbol.asyncDispose]();
  }
}

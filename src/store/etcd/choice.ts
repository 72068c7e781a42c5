/**
 * Which of etcd's two separate stores holds the network: v3, or v2 if only that one holds the
 * config or is served. The choice is final: leases in two stores would be two networks.
 *
 * @module
 */
import { joinPath } from "../../util/go_path.ts";
import { deadline } from "../../util/time.ts";
import { type CallOptions, StoreError } from "../errors.ts";
import { EtcdError } from "./error.ts";
import type { EtcdKeys, Registry } from "../keys/key_space.ts";
import { configCommand, nameNear, quote } from "./missing_config.ts";
import { configKey, type EtcdSettings } from "./options.ts";
import { EtcdV2Registry } from "./v2.ts";
import { EtcdV3Registry } from "./v3.ts";

export type EtcdApi = "v3" | "v2";

/** How long a hint on a missing config may take to find where it is instead. */
const SEARCH_MS = 5_000;

/** Both stores of one cluster, and the choice between them. */
export class EtcdChoice implements EtcdKeys {
  readonly #settings: EtcdSettings;
  readonly #open = new Map<EtcdApi, EtcdV3Registry | EtcdV2Registry>();
  #api: EtcdApi | undefined;

  constructor(settings: EtcdSettings, api: EtcdApi | "auto") {
    this.#settings = settings;
    this.#api = api === "auto" ? undefined : api;
  }

  /** `undefined` while that is not decided. */
  get api(): EtcdApi | undefined {
    return this.#api;
  }

  get description(): string {
    return this.#of(this.#likely).description;
  }

  get decided(): Registry {
    if (this.#api === undefined) {
      throw new Error("Cannot use etcd before the network config is read");
    }
    return this.#of(this.#api);
  }

  /** While no store holds the config this is v3 for the moment, and the next call looks again. */
  async chosen(options: CallOptions): Promise<Registry> {
    if (this.#api !== undefined) return this.#of(this.#api);
    let isServed = true;
    try {
      if (await this.#of("v3").readConfig(options) !== undefined) return await this.#choose("v3");
    } catch (error) {
      if (this.#api !== undefined) return this.#of(this.#api); // another call has closed this store
      if (!(error instanceof EtcdError) || error.kind !== "not-served") throw error;
      isServed = false;
    }
    if (await this.#holdsConfig("v2", options)) return await this.#choose("v2");
    return this.#of(this.#api ?? (isServed ? "v3" : "v2"));
  }

  async explainMissing(example: string, options: CallOptions): Promise<string> {
    const api = this.#likely;
    const other = otherApi(api);
    const near = await this.#findConfigs(api, options);
    const isElsewhere = await this.#holdsConfig(other, options);
    const nearElsewhere = isElsewhere ? [] : await this.#findConfigs(other, options);
    if (this.#api !== undefined) await this.#closeOther(api);
    const { prefix } = this.#settings;
    return [
      `Cannot find the network config: ${this.description} has no key ${configKey(prefix)}`,
      ...nameNear(near, { prefix, holder: "it" }),
      `${near.length === 0 ? "" : "or "}write it with: ` +
      configCommand(this.#settings, api, example),
      ...(isElsewhere
        ? [`etcd's ${other} API does hold this key: use --etcd-api=${other} if that is the one`]
        : nameNear(nearElsewhere, {
          prefix,
          holder: `etcd's ${other} API`,
          ...(this.#api === undefined ? {} : { flag: `--etcd-api=${other} ` }),
        })),
    ].join("; ");
  }

  writeCommand(path: string, value: string): string {
    const key = joinPath(this.#settings.prefix, path);
    return this.#likely === "v2"
      ? `ETCDCTL_API=2 etcdctl set ${quote(joinPath("/", key))} ${quote(value)}`
      : `etcdctl put ${quote(key)} ${quote(value)}`;
  }

  addressesChanged(): void {
    for (const registry of this.#open.values()) registry.addressesChanged();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#open.values()].map((each) => each[Symbol.asyncDispose]()));
  }

  get #likely(): EtcdApi {
    return this.#api ?? "v3";
  }

  #of(api: EtcdApi): EtcdV3Registry | EtcdV2Registry {
    let registry = this.#open.get(api);
    if (registry === undefined) {
      const settings = this.#settings;
      registry = api === "v3" ? new EtcdV3Registry(settings) : new EtcdV2Registry(settings);
      this.#open.set(api, registry);
    }
    return registry;
  }

  async #choose(api: EtcdApi): Promise<Registry> {
    if (this.#api === undefined) {
      this.#api = api;
      if (api === "v2") {
        this.#settings.log.info("using etcd's v2 API: only that one holds the config");
      }
      await this.#closeOther(api);
    }
    return this.#of(this.#api);
  }

  async #closeOther(api: EtcdApi): Promise<void> {
    const registry = this.#open.get(otherApi(api));
    this.#open.delete(otherApi(api));
    await registry?.[Symbol.asyncDispose]();
  }

  /** Whether a store holds the config, as far as it can be asked at all. */
  async #holdsConfig(api: EtcdApi, options: CallOptions): Promise<boolean> {
    try {
      return await this.#of(api).readConfig(options) !== undefined;
    } catch (error) {
      if (error instanceof StoreError) return false;
      throw error;
    }
  }

  /** Misplaced configs, as far as a store can be asked quickly. */
  async #findConfigs(api: EtcdApi, options: CallOptions): Promise<readonly string[]> {
    using limit = deadline(SEARCH_MS, options);
    try {
      return await this.#of(api).findConfigs(limit);
    } catch (error) {
      options.signal.throwIfAborted();
      if (limit.signal.aborted || error instanceof StoreError) return [];
      throw error;
    }
  }
}

function otherApi(api: EtcdApi): EtcdApi {
  return api === "v3" ? "v2" : "v3";
}

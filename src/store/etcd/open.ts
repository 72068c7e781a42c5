import { ConfigError, describeError } from "../../errors.ts";
import { Backoff, deadline } from "../../util/time.ts";
import { nearestConfigs, prefixOfConfig } from "./config_search.ts";
import { loadEtcd3 } from "./connection.ts";
import type { Documents } from "../documents.ts";
import { SpaceDocuments } from "./documents.ts";
import { EtcdError } from "./error.ts";
import {
  configKey,
  type EtcdOptions,
  type EtcdSettings,
  joinPath,
  parseEtcdOptions,
  spacePrefix,
} from "./options.ts";
import { EtcdV2Registry } from "./v2.ts";
import { EtcdV3Registry } from "./v3.ts";
import { keepFollowing } from "./follow.ts";
import type { CallOptions } from "../errors.ts";
import type { Entry, KeySpace, Registry, WatchOptions, WatchUpdate } from "./key_space.ts";
import { StoreError } from "../errors.ts";
import { readTlsFiles } from "./tls_files.ts";
import { requireTlsSockets } from "./tls_socket.ts";

/** Which of etcd's two separate stores is meant. */
export type EtcdApi = "v3" | "v2";

/** Options of {@linkcode openRegistry}. */
export interface OpenRegistryOptions extends EtcdOptions {
  /** `auto` is v3, and v2 if only v2 holds the config or only v2 is served. */
  readonly api: EtcdApi | "auto";
}

/** A registry over etcd that can tell what to do when the config is missing. */
export interface EtcdRegistry extends Registry {
  /** The API in use; `undefined` while it is not decided yet. */
  readonly api: EtcdApi | undefined;
  /**
   * For an operator, after `readConfig` answered `undefined`: which key is absent where, the
   * command that writes `exampleConfig` there, and whether the other API holds the key. No secret.
   */
  explainMissingConfig(exampleConfig: string, options: CallOptions): Promise<string>;
  /** Documents in the space of this name. */
  documents(name: string): Documents;
}

/**
 * Opens the registry that `options` describe. etcd need not be up: connections are made by the
 * calls, and fail there. Warnings are logged.
 *
 * @throws {ConfigError} If options are wrong or TLS files cannot be used.
 * @throws {OperatorError} If this build cannot use an endpoint at all.
 */
export async function openRegistry(options: OpenRegistryOptions): Promise<EtcdRegistry> {
  const settings = parseEtcdOptions(options);
  await checkTlsFiles(settings);
  for (const warning of settings.warnings) options.log.warn(warning);
  if (options.api !== "v2") {
    settings.endpoints.filter(({ secure, path }) => secure || path !== undefined)
      .forEach(requireTlsSockets);
    // Loading takes a tenth of a second: let it pass while others wait for the network.
    loadEtcd3().catch(() => {}); // the first call meets the error
  }
  return new SwitchingRegistry(settings, options.api);
}

async function checkTlsFiles(settings: EtcdSettings): Promise<void> {
  try {
    await readTlsFiles(settings.tls);
  } catch (cause) {
    throw new ConfigError("the etcd options", [describeError(cause)], { cause });
  }
}

/** How long a hint on a missing config may take to find where it is instead. */
const SEARCH_MS = 5_000;

/** Both stores of one cluster, and the choice between them. */
class StoreChoice implements AsyncDisposable {
  readonly #settings: EtcdSettings;
  readonly #open = new Map<EtcdApi, EtcdV3Registry | EtcdV2Registry>();
  #api: EtcdApi | undefined;

  constructor(settings: EtcdSettings, api: EtcdApi | "auto") {
    this.#settings = settings;
    this.#api = api === "auto" ? undefined : api;
  }

  /** The choice, once it is made. */
  get api(): EtcdApi | undefined {
    return this.#api;
  }

  of(api: EtcdApi): EtcdV3Registry | EtcdV2Registry {
    let registry = this.#open.get(api);
    if (registry === undefined) {
      const settings = this.#settings;
      registry = api === "v3" ? new EtcdV3Registry(settings) : new EtcdV2Registry(settings);
      this.#open.set(api, registry);
    }
    return registry;
  }

  /**
   * The store to use. While no store holds the config this is v3 for the moment, and the next call
   * looks again. Once made, the choice stays: leases in two stores would be two networks.
   */
  async chosen(options: CallOptions): Promise<Registry> {
    if (this.#api !== undefined) return this.of(this.#api);
    let served = true;
    try {
      if (await this.of("v3").readConfig(options) !== undefined) return await this.#choose("v3");
    } catch (error) {
      if (this.#api !== undefined) return this.of(this.#api); // another call has closed this store
      if (!(error instanceof EtcdError) || error.kind !== "not-served") throw error;
      served = false;
    }
    if (await this.holdsConfig("v2", options)) return await this.#choose("v2");
    return this.of(this.#api ?? (served ? "v3" : "v2"));
  }

  /** Whether a store holds the config, as far as it can be asked at all. */
  async holdsConfig(api: EtcdApi, options: CallOptions): Promise<boolean> {
    try {
      return await this.of(api).readConfig(options) !== undefined;
    } catch (error) {
      if (error instanceof StoreError) return false;
      throw error;
    }
  }

  /** Where configs are that are not where they belong, as far as a store can be asked quickly. */
  async findConfigs(api: EtcdApi, options: CallOptions): Promise<readonly string[]> {
    using limit = deadline(SEARCH_MS, options);
    try {
      return await this.of(api).findConfigs(limit);
    } catch (error) {
      options.signal.throwIfAborted();
      if (limit.signal.aborted || error instanceof StoreError) return [];
      throw error;
    }
  }

  addressesChanged(): void {
    for (const registry of this.#open.values()) registry.addressesChanged();
  }

  /** Closes the store that was not chosen: its connection would be of no use. */
  async closeOther(): Promise<void> {
    if (this.#api === undefined) return;
    const other = otherApi(this.#api);
    const registry = this.#open.get(other);
    this.#open.delete(other);
    await registry?.[Symbol.asyncDispose]();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(
      [...this.#open.values()].map((registry) => registry[Symbol.asyncDispose]()),
    );
  }

  async #choose(api: EtcdApi): Promise<Registry> {
    if (this.#api === undefined) {
      this.#api = api;
      if (api === "v2") {
        this.#settings.log.info("using etcd's v2 API: only that one holds the config");
      }
      await this.closeOther();
    }
    return this.of(this.#api);
  }
}

function otherApi(api: EtcdApi): EtcdApi {
  return api === "v3" ? "v2" : "v3";
}

/** The keys of one space in the store that is chosen. */
class SwitchingSpace implements KeySpace {
  readonly #choice: StoreChoice;
  readonly #spaceOf: (registry: Registry) => KeySpace;

  constructor(choice: StoreChoice, spaceOf: (registry: Registry) => KeySpace) {
    this.#choice = choice;
    this.#spaceOf = spaceOf;
  }

  async list(options: CallOptions): Promise<readonly Entry[]> {
    return await (await this.#chosen(options)).list(options);
  }

  async get(key: string, options: CallOptions): Promise<Entry | undefined> {
    return await (await this.#chosen(options)).get(key, options);
  }

  async create(
    key: string,
    value: string,
    ttlSeconds: number | undefined,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return await (await this.#chosen(options)).create(key, value, ttlSeconds, options);
  }

  async update(
    key: string,
    value: string,
    revision: string,
    ttlSeconds: number | undefined,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return await (await this.#chosen(options)).update(key, value, revision, ttlSeconds, options);
  }

  async move(
    from: Pick<Entry, "key" | "revision">,
    key: string,
    value: string,
    ttlSeconds: number | undefined,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return await (await this.#chosen(options)).move(from, key, value, ttlSeconds, options);
  }

  async renew(
    key: string,
    revision: string,
    ttlSeconds: number,
    options: CallOptions,
  ): Promise<Entry | undefined> {
    return await (await this.#chosen(options)).renew(key, revision, ttlSeconds, options);
  }

  async timeToLive(key: string, options: CallOptions): Promise<number | undefined> {
    return await (await this.#chosen(options)).timeToLive(key, options);
  }

  async remove(key: string, revision: string, options: CallOptions): Promise<boolean> {
    return await (await this.#chosen(options)).remove(key, revision, options);
  }

  watch(options: WatchOptions): AsyncIterable<WatchUpdate> {
    return keepFollowing(() => this.#watchChosen(options), options);
  }

  async *#watchChosen(options: WatchOptions): AsyncGenerator<WatchUpdate> {
    yield* (await this.#chosen(options)).watch(options);
  }

  async #chosen(options: CallOptions): Promise<KeySpace> {
    return this.#spaceOf(await this.#choice.chosen(options));
  }
}

/** The registry in the store that is chosen. */
class SwitchingRegistry extends SwitchingSpace implements EtcdRegistry {
  readonly #settings: EtcdSettings;
  readonly #choice: StoreChoice;

  constructor(settings: EtcdSettings, api: EtcdApi | "auto") {
    const choice = new StoreChoice(settings, api);
    super(choice, (registry) => registry);
    this.#settings = settings;
    this.#choice = choice;
  }

  get api(): EtcdApi | undefined {
    return this.#choice.api;
  }

  get description(): string {
    return this.#choice.of(this.api ?? "v3").description;
  }

  async readConfig(options: CallOptions): Promise<string | undefined> {
    return await (await this.#choice.chosen(options)).readConfig(options);
  }

  async *watchConfig(options: CallOptions): AsyncGenerator<string | undefined> {
    let toldMissing = false;
    const backoff = new Backoff({ initialMs: 2_000, maxMs: 5_000 });
    while (!options.signal.aborted) {
      try {
        const registry = await this.#choice.chosen(options);
        if (this.api !== undefined) return yield* registry.watchConfig(options);
        // No store holds it: it may turn up in either.
        if (!toldMissing) yield undefined;
        toldMissing = true;
      } catch (error) {
        if (options.signal.aborted) return;
        this.#settings.log.debug("cannot look for the network config", {
          why: describeError(error),
        });
      }
      await backoff.wait(options).catch(() => {}); // the loop's condition tells of the abort
    }
  }

  space(name: string): KeySpace {
    spacePrefix(this.#settings.prefix, name); // a wrong name fails here, not at the first call
    return new SwitchingSpace(this.#choice, (registry) => registry.space(name));
  }

  documents(name: string): Documents {
    return new SpaceDocuments(this.space(name), (key, value) => {
      const path = joinPath(this.#settings.prefix, name, key);
      return this.api === "v2"
        ? `ETCDCTL_API=2 etcdctl set ${quote(joinPath("/", path))} ${quote(value)}`
        : `etcdctl put ${quote(path)} ${quote(value)}`;
    });
  }

  addressesChanged(): void {
    this.#choice.addressesChanged();
  }

  async explainMissingConfig(exampleConfig: string, options: CallOptions): Promise<string> {
    const api = this.api ?? "v3";
    const key = configKey(this.#settings.prefix);
    const where = this.#choice.of(api).description;
    const command = writeCommand(this.#settings, api, exampleConfig);
    const other = otherApi(api);
    const near = await this.#choice.findConfigs(api, options);
    const elsewhere = await this.#choice.holdsConfig(other, options)
      ? [`etcd's ${other} API does hold this key: use --etcd-api=${other} if that is the one`]
      : this.#nameNear(await this.#choice.findConfigs(other, options), other);
    await this.#choice.closeOther();
    return [
      `Cannot find the network config: ${where} has no key ${key}`,
      ...this.#nameNear(near, api),
      `${near.length === 0 ? "" : "or "}write it with: ${command}`,
      ...elsewhere,
    ].join("; ");
  }

  /** What to do about configs that are not where they are looked for. */
  #nameNear(keys: readonly string[], api: EtcdApi): string[] {
    const { prefix } = this.#settings;
    const holder = api === (this.api ?? "v3") ? "it" : `etcd's ${api} API`;
    const flag = this.api === undefined || api === this.api ? "" : `--etcd-api=${api} `;
    return nearestConfigs(keys, prefix).map((key) => {
      const other = prefixOfConfig(key);
      return `${holder} holds a network config at ${key}` +
        (other === undefined
          ? `: the place for it is ${configKey(prefix)}`
          : `: use ${flag}--etcd-prefix=${quote(other)} if that is the one`);
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#choice[Symbol.asyncDispose]();
  }
}

/** The line for a shell that writes `config`; a password is asked for, not shown. */
function writeCommand(settings: EtcdSettings, api: EtcdApi, config: string): string {
  const { caFile, certFile, keyFile } = settings.tls;
  const v3 = api === "v3";
  const flags = [
    `--endpoints=${settings.endpoints.map(({ url }) => url).join(",")}`,
    ...(caFile === undefined ? [] : [`${v3 ? "--cacert" : "--ca-file"}=${quote(caFile)}`]),
    ...(certFile === undefined ? [] : [`${v3 ? "--cert" : "--cert-file"}=${quote(certFile)}`]),
    ...(keyFile === undefined ? [] : [`${v3 ? "--key" : "--key-file"}=${quote(keyFile)}`]),
    ...(settings.credentials === undefined
      ? []
      : [`${v3 ? "--user" : "--username"}=${quote(settings.credentials.username)}`]),
  ];
  const verb = v3 ? "put" : "set";
  const key = quote(configKey(settings.prefix));
  return `ETCDCTL_API=${v3 ? 3 : 2} etcdctl ${flags.join(" ")} ${verb} ${key} ${quote(config)}`;
}

/** `text` as one word for a shell. */
export function quote(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

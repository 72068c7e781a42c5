/**
 * Backends whose pods are reached by routes of a cloud: its own part behind the runtime's seam.
 *
 * @module
 */
import { readClusterId } from "../cloud/routes/cluster_identity.ts";
import { clusterStore } from "../cloud/routes/cluster_store.ts";
import type { CloudRoutesConfig, ReadClaim } from "../cloud/routes/config.ts";
import { type CloudFacts, openCloudHost } from "../cloud/routes/host.ts";
import { removeOwnRoutes } from "../cloud/routes/own_routes.ts";
import type { Cloud, CloudInstance } from "../cloud/routes/provider.ts";
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";
import { decideChecksumOffload } from "./kernel.ts";
import type { BackendRuntime, ReleaseContext, RuntimeContext } from "./runtime.ts";

/** A cloud, as its folder and the command line describe it. */
export interface CloudDefinition<Config extends CloudRoutesConfig, Instance extends CloudInstance> {
  /** Of the backend, of the folder in the store and in the log. */
  readonly name: string;
  /** Whether hosts may write route entries at all. */
  readonly mayLead: boolean;
  readonly readClaim: ReadClaim;
  /**
   * Finds out who this instance is.
   *
   * @throws {OperatorError} What needs an operator.
   * @throws {Error} What may pass; call again.
   */
  open(options: CloudOptions<Config>): Promise<Cloud & { readonly instance: Instance }>;
}

/** What a cloud is told of its host. */
export interface CloudOptions<Config> {
  readonly config: Config;
  /** The whole pod network. */
  readonly network: Prefix;
  /** A variable of the environment. */
  readonly env: (name: string) => string | undefined;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** What is needed of a daemon; nothing of its host's kernel. */
export type CloudContext = Pick<
  RuntimeContext,
  "network" | "options" | "environment" | "store" | "log" | "signal"
>;

/** What the plan of such a backend follows from. */
export type CloudBackendFacts<Instance> = Instance & CloudFacts & {
  /** Transmit checksum offload of the tunnel's device; absent: as the kernel has it. */
  readonly txChecksum?: boolean;
};

/**
 * Opens who this instance is, and its part in the cluster.
 *
 * @throws {OperatorError} What needs an operator.
 * @throws {Error} What may pass; call again.
 */
export async function openCloudRuntime<
  Config extends CloudRoutesConfig,
  Instance extends CloudInstance,
>(
  definition: CloudDefinition<Config, Instance>,
  context: CloudContext,
  config: Config,
  { unservedMs }: { readonly unservedMs?: number } = {},
): Promise<BackendRuntime<CloudBackendFacts<Instance>>> {
  const { signal } = context;
  const log = context.log.child(definition.name);
  const cloud = await definition.open(cloudOptions({ ...context, log }, config));
  const store = clusterStore(context.store, definition.name);
  const txChecksum = config.overflow === "vxlan" ? decideChecksumOffload("auto") : undefined;
  const host = await openCloudHost({
    cloud,
    store,
    config,
    readClaim: definition.readClaim,
    network: context.network.ipv4!.network,
    base: { ...cloud.instance, ...(txChecksum === undefined ? {} : { txChecksum }) },
    mayLead: definition.mayLead,
    ...(unservedMs === undefined ? {} : { unservedMs }),
    log,
    signal,
  });
  return {
    facts: host.facts,
    occupied: (each) => host.occupied(each),
    remote: host,
    run: (cluster, each) => host.run(cluster, each),
    status: () => ({ cloud: () => host.status() }),
    [Symbol.asyncDispose]: () => host[Symbol.asyncDispose](),
  };
}

/**
 * Removes the route entries of this host, which has given back its lease; returns how many.
 *
 * @throws {Error} With what could not be removed.
 */
export async function removeRemnants<
  Config extends CloudRoutesConfig,
  Instance extends CloudInstance,
>(
  definition: CloudDefinition<Config, Instance>,
  context: ReleaseContext,
  config: Config,
): Promise<number> {
  const { released, log, signal } = context;
  const store = clusterStore(context.store, definition.name);
  const clusterId = await readClusterId(store, { signal });
  await using cloud = await definition.open(cloudOptions(context, config));
  const network = context.network.ipv4!.network;
  return await removeOwnRoutes(cloud, { network, clusterId, released, log, signal });
}

function cloudOptions<Config>(
  { network, environment, log, signal }: Omit<CloudContext, "store">,
  config: Config,
): CloudOptions<Config> {
  const env = (name: string) => environment[name];
  return { config, network: network.ipv4!.network, env, log, signal };
}

/**
 * `flanneld cleanup`: removes what runs of this configuration left on the host and, with `--release`,
 * in the store and a cloud.
 *
 * @module
 */
import type { Options } from "../cli/options.ts";
import { removeConflist } from "../cni/conflist.ts";
import { parseNetworkConfig } from "../config/network_config.ts";
import { describeError, OperatorError } from "../errors.ts";
import { openFirewall } from "../firewall/mod.ts";
import { previousNetworks, previousSubnet } from "../host/subnet_env.ts";
import { removeFile } from "../host/atomic_file.ts";
import { readSubnetFile } from "../host/subnet_file_table.ts";
import type { Netlink } from "../kernel/netlink.ts";
import { formatSubnet, type LeaseSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";
import { type AnyStage, Reconciler } from "../reconcile/reconciler.ts";
import { sentenceOf } from "../status/problems.ts";
import type { LeaseStore, Released } from "../store/lease_store.ts";
import { deadline } from "../util/time.ts";
import { configureNetwork } from "../runtime/configured_network.ts";
import type { BackendEntry, Remnants } from "../runtime/runtime.ts";
import { pathRecordFile } from "../runtime/udp/former_path.ts";
import { mayChangeNetwork, requireCleanUpRights } from "../host/host_rights.ts";
import { CleanUpSummary } from "./cleanup_summary.ts";
import { openHostKernel } from "../host/host_network.ts";
import { Desired } from "../state/desired.ts";
import { KernelTables, linkAlias } from "../kernel/kernel_tables.ts";
import { openStore, type OpenStoreContext } from "./open_store.ts";

/** What the clean-up is given. */
export interface CleanUpOptions {
  readonly options: Options;
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly backends: readonly BackendEntry[];
  /** Whether to give back the lease, and what a cloud holds of this host, too. */
  readonly release: boolean;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** How long the store is asked for what subnet.env does not tell. */
const STORE_LIMIT_MS = 10_000;
/** What may be left where the backend is not known. */
const UNKNOWN_REMNANTS = {
  warning: "What this host has in a cloud may be left there",
  what: "what it may have in a cloud",
};
/** How long a cloud may take; each removal takes some seconds, after other hosts'. */
const REMNANTS_LIMIT_MS = 60_000;

/**
 * Removes what runs of this configuration left on the host: links, routes, traffic rules and the
 * subnet file, and with `release` the lease and route entries in the cloud. What belongs to others
 * stays. Its last line says what went and what stays. To be used while no flanneld runs, which
 * would put everything back. Once more is no harm.
 *
 * @throws {OperatorError} With what could not be removed; the rest has been.
 */
export async function cleanUp(context: CleanUpOptions): Promise<void> {
  const { options, release, log, signal } = context;
  requireCleanUpRights();
  const problems: string[] = [];
  const summary = new CleanUpSummary();
  const networks = await findNetworks(options, context);
  await using netlink = await openHostKernel({ log, signal });

  const tables = new KernelTables({
    netlink,
    alias: linkAlias(options.subnetFile),
    networks,
    externalLink: "",
    log,
  });
  requireCleanUpRights({ mayChange: await mayChangeNetwork(netlink, { signal }) });
  const shared = { log, summary, signal };
  const nothing = new Desired();
  problems.push(...await empty("kernel", tables.stages(() => nothing, () => false), shared));
  try {
    const firewall = await openFirewall({
      mode: "iptables",
      networks,
      masquerade: false,
      forward: false,
      randomFullyDisabled: true,
      log: log.child("firewall"),
      signal,
    });
    const stages = [{ table: firewall.table, desired: () => [] }];
    problems.push(...await empty("firewall", stages, shared));
  } catch (error) {
    signal.throwIfAborted();
    problems.push(describeError(error));
  }
  if (release) {
    try {
      const { kept, released } = await releaseLeases(options, netlink, context);
      summary.removed("lease", released.length);
      for (const each of kept) summary.left(`subnet ${formatSubnet(each)}, as it is assigned here`);
      if (kept.length === 0) {
        // Not before: others keep what a lease claims.
        const subnets = await withLastSubnet(released, options);
        const left = await releaseRemnants(context, subnets, summary);
        if (left !== undefined) summary.left(left);
      }
    } catch (error) {
      signal.throwIfAborted();
      problems.push(describeError(error, "Cannot release the lease"));
    }
  } else {
    summary.left("the lease, which --release would end");
  }
  if (await removeConflist(options.cniConfFile)) summary.removed("CNI config file");
  // Last, since it tells the networks: what failed can be tried again.
  if (problems.length === 0 && await removeFile(options.subnetFile)) {
    summary.removed("subnet file");
    await removeFile(pathRecordFile(options.subnetFile));
  }
  log.info(`${summary}${problems.length > 0 ? "; what failed is said next" : ""}`);
  if (problems.length > 0) {
    throw new OperatorError(`The clean-up is not complete: ${problems.join("; ")}`);
  }
}

/** Leaves in the stages' Tables nothing that is ours; returns what could not be removed. */
async function empty(
  name: string,
  stages: readonly AnyStage[],
  { log, summary, signal }: {
    readonly log: Logger;
    readonly summary: CleanUpSummary;
    readonly signal: AbortSignal;
  },
): Promise<readonly string[]> {
  const reconciler = new Reconciler({
    name,
    stages: stages.map((stage) => summary.counting(stage)),
    resyncMs: Infinity,
    log: log.child(name),
  });
  return (await reconciler.round({ signal })).problems.map(sentenceOf);
}

/** The networks whose routes and rules are ours: the last run's, else the config's. */
async function findNetworks(
  options: Options,
  context: OpenStoreContext,
): Promise<readonly Prefix[]> {
  const { log, signal } = context;
  const { subnetFile } = options;
  const networks = previousNetworks(await readSubnetFile(subnetFile) ?? "");
  if (networks.length > 0) return networks;
  try {
    await using store = await openStore(options, context);
    const text = await readConfig(store, { signal });
    if (text !== undefined) {
      const { config: { ipv4, ipv6 } } = parseNetworkConfig(text);
      return [ipv4?.network, ipv6?.network].filter((network) => network !== undefined);
    }
    log.info("There is no network config: routes that are not on flanneld's own links stay");
  } catch (error) {
    signal.throwIfAborted();
    log.warn(
      `Neither ${subnetFile} nor the store tell the network, so routes that are not on ` +
        `flanneld's own links stay: ${describeError(error)}`,
    );
  }
  return [];
}

/** Gives back the leases that addresses of this host own. */
async function releaseLeases(
  options: Options,
  netlink: Netlink,
  context: OpenStoreContext,
): Promise<Released> {
  const { log, signal } = context;
  using limit = deadline(STORE_LIMIT_MS, { signal });
  await using store = await openStore(options, context);
  const local = (await netlink.listAddresses({ signal }))
    .filter(({ scope }) => scope === "universe")
    .map(({ address }) => address.address);
  const { publicIp, publicIpv6 } = options;
  const addresses = [...local, publicIp, publicIpv6].filter((address) => address !== undefined);
  return await store.release({ addresses, log }, { signal: limit.signal });
}

/** The released subnets, with that of the last run: another try may find its lease gone already. */
async function withLastSubnet(
  released: readonly LeaseSubnet[],
  { subnetFile }: Options,
): Promise<readonly Prefix[]> {
  const last = previousSubnet(await readSubnetFile(subnetFile) ?? "");
  return [...released, ...(last === undefined ? [] : [last])]
    .flatMap(({ ipv4 }) => ipv4 === undefined ? [] : [ipv4]);
}

/**
 * Has the backend remove what this host left outside of itself. What cannot be removed is said and
 * is no failure: many a host has no right to. Returns what is left, if anything is.
 */
async function releaseRemnants(
  context: CleanUpOptions,
  released: readonly Prefix[],
  summary: CleanUpSummary,
): Promise<string | undefined> {
  const { options, environment, backends, log, signal } = context;
  // Until the config is read, nobody knows whether there is anything.
  let remnants: Remnants | undefined;
  try {
    await using store = await openStore(options, context);
    const text = await readConfig(store, { signal });
    if (text === undefined) return undefined;
    const { network, backend } = configureNetwork(text, log, backends);
    remnants = backend.remnants;
    if (!remnants) return undefined;
    using limit = deadline(REMNANTS_LIMIT_MS, { signal });
    const removed = await remnants.remove({
      network,
      options,
      environment,
      released,
      store,
      log: log.child("cloud"),
      signal: limit.signal,
    });
    summary.removed(remnants.kind, removed);
    return undefined;
  } catch (error) {
    signal.throwIfAborted();
    const { warning, what } = remnants ?? UNKNOWN_REMNANTS;
    log.warn(`${warning}: ${describeError(error)}`);
    return what;
  }
}

/** The text of the network config. */
async function readConfig(
  { config }: Pick<LeaseStore, "config">,
  { signal }: { readonly signal: AbortSignal },
): Promise<string | undefined> {
  using limit = deadline(STORE_LIMIT_MS, { signal });
  return await config.read({ signal: limit.signal });
}

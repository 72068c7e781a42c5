/**
 * The daemon: opens everything in order, then keeps it in operation until the end.
 *
 * @module
 */
import type { Options } from "../cli/options.ts";
import { enabledFamilies } from "../config/network_config.ts";
import { type Firewall, openFirewall } from "../firewall/mod.ts";
import { serveHealth } from "../health/server.ts";
import { readFormerRun } from "../host/former_run.ts";
import { openHostNetwork } from "../host/host_network.ts";
import { requireRights, requireRightsOfHost } from "../host/host_rights.ts";
import { firewallMode } from "../host/local_plans.ts";
import { releaseStartupMemory } from "../host/memory.ts";
import type { Logger } from "../log.ts";
import type { ConfiguredNetwork } from "../runtime/configured_network.ts";
import type { BackendEntry } from "../runtime/runtime.ts";
import { FormerPath } from "../runtime/udp/former_path.ts";
import type { Notifier } from "../service_manager/notify.ts";
import { announceReadiness } from "../status/announcer.ts";
import { renderReadyz, renderStatus } from "../status/json.ts";
import type { StatusSource } from "../status/model.ts";
import { patiently } from "../status/patience.ts";
import { Readiness } from "../status/readiness.ts";
import { isTransient } from "../store/errors.ts";
import type { LeaseStore, OwnLease, StoredAddresses } from "../store/lease_store.ts";
import { waitForNetworkConfig } from "../runtime/await_config.ts";
import { openStore } from "./open_store.ts";
import { type Loop, Operation, type Parts } from "./operation.ts";

/** What the daemon is given. */
export interface RunDaemonOptions {
  readonly options: Options;
  readonly backends: readonly BackendEntry[];
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly notifier: Notifier;
  readonly signal: AbortSignal;
  readonly version: string;
}

/** When what the start-up needed is not needed any more. */
const SETTLED_AFTER_MS = 5_000;

/**
 * Runs the daemon until `signal` aborts (then it rejects with the signal's reason), or until
 * something is wrong that needs an operator. The data plane is left as it is.
 *
 * @throws {OperatorError} With what to do.
 */
export async function runDaemon(context: RunDaemonOptions): Promise<void> {
  await using daemon = new DaemonRun(context);
  await daemon.run();
}

/** One run: the start in order, then the loops. */
class DaemonRun implements AsyncDisposable {
  readonly #context: RunDaemonOptions;
  readonly #resources = new AsyncDisposableStack();
  readonly #end = new AbortController();
  readonly #signal: AbortSignal;
  readonly #readiness: Readiness;
  #operation: Operation | undefined;

  constructor(context: RunDaemonOptions) {
    this.#context = context;
    this.#signal = AbortSignal.any([context.signal, this.#end.signal]);
    this.#readiness = this.#resources.use(new Readiness());
    this.#onStatus("not there yet");
    this.#resources.use(
      announceReadiness(this.#readiness, { ...context, onFirstReady: () => this.#settle() }),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort(new Error("The daemon has ended"));
    await this.#resources.disposeAsync();
  }

  async run(): Promise<void> {
    this.#serveHealth();
    const { options, log } = this.#context;
    const parts = await this.#start();
    const readiness = this.#readiness;
    this.#operation = this.#resources.use(new Operation(parts, { options, readiness, log }));
    readiness.condition("start-up").met();
    await this.#runLoops(this.#operation.loops);
  }

  /** Opens everything in order, waiting for what may come by itself. */
  async #start(): Promise<Parts> {
    const { backends, environment, options, log, version } = this.#context;
    const shared = { options, log, signal: this.#signal, onStatus: this.#onStatus };
    log.info("Starting", { version, deno: Deno.version.deno });
    // Descriptors are taken over once, and before a child process could inherit them.
    const formerPath = this.#resources.use(
      new FormerPath(environment, options.subnetFile, log.child("path")),
    );
    await formerPath.resume({ signal: this.#signal });

    const store = this.#resources.use(await openStore(options, this.#context));
    this.#onStatus("Reading the network config");
    const configured = await waitForNetworkConfig({ ...shared, backends, store });
    requireRights(options, configured);

    // Its programs are looked at while the rest is waited for.
    const openingFirewall = this.#openFirewall(configured);
    openingFirewall.catch(() => {}); // met below

    this.#onStatus("Choosing the external interface");
    const { network } = configured;
    const former = await readFormerRun(options.subnetFile, { log, signal: this.#signal });
    const hostNetwork = this.#resources.use(
      await openHostNetwork({
        ...shared,
        options: { ...options, ...await this.#storedAddresses(store) },
        network,
        formerNetworks: former.networks,
        formerSubnet: former.subnet,
        services: configured.backend.services(options),
      }),
    );
    await hostNetwork.reserved.look({ signal: this.#signal });

    this.#onStatus(`Preparing backend ${configured.backend.type}`);
    const runtime = this.#resources.use(
      await patiently(
        `prepare backend ${configured.backend.type}`,
        () =>
          configured.backend.open({
            ...shared,
            network: configured.network,
            environment,
            formerPath,
            hostNetwork,
            store,
          }),
        shared,
      ),
    );

    await formerPath.discardUntaken();

    // Before a lease is written that could not be served.
    const firewall = await openingFirewall;
    await requireRightsOfHost(options, configured, {
      firewall,
      mayChange: () => hostNetwork.mayChange({ signal: this.#signal }),
    });

    this.#onStatus("Leasing a subnet");
    const own = await this.#lease({ store, configured, hostNetwork, runtime, former });
    return { store, configured, hostNetwork, runtime, former, own, firewall };
  }

  readonly #onStatus = (message: string): void =>
    this.#readiness.condition("start-up").unmet({ code: "starting", object: "start-up", message });

  /** Addresses that an operator gave this host in the store: they go before flags, as upstream. */
  #storedAddresses(store: LeaseStore): Promise<StoredAddresses> {
    const shared = { ...this.#context, signal: this.#signal, onStatus: this.#onStatus };
    const ask = async () => await store.storedAddresses?.(shared) ?? {};
    return patiently("read this host's addresses in the store", ask, shared);
  }

  #openFirewall(configured: ConfiguredNetwork): Promise<Firewall> {
    const { options, log } = this.#context;
    return openFirewall({
      mode: firewallMode(configured),
      networks: enabledFamilies(configured).map(({ network }) => network),
      masquerade: options.ipMasq,
      forward: options.iptablesForwardRules,
      randomFullyDisabled: options.ipMasqFullyRandomDisable,
      log: log.child("firewall"),
      signal: this.#signal,
    });
  }

  #lease(
    { store, configured, hostNetwork, runtime, former }: Pick<
      Parts,
      "store" | "configured" | "hostNetwork" | "runtime" | "former"
    >,
  ): Promise<OwnLease> {
    const { log } = this.#context;
    const signal = this.#signal;
    return patiently(
      "lease a subnet",
      () =>
        store.acquire({
          network: configured.network,
          attributes: runtime.announce(hostNetwork.host.value),
          inherit: (former) => {
            runtime.inherit?.(former);
            return runtime.announce(hostNetwork.host.value);
          },
          previous: former.subnet,
          addresses: async (options) =>
            (await hostNetwork.netlink.listAddresses(options)).map(({ address }) =>
              address.address
            ),
          occupied: async (options) =>
            hostNetwork.reserved.needs.value.occupied.concat(await runtime.occupied?.(options)),
          log: log.child("lease"),
          onWaiting: this.#onStatus,
        }, { signal }),
      { log, signal, onStatus: this.#onStatus, isFatal: (error) => !isTransient(error) },
    );
  }

  /** Runs every loop until one ends, which only happens on abort or for a fault. */
  async #runLoops(loops: readonly Loop[]): Promise<void> {
    const running = loops.map((loop) => loop(this.#signal));
    try {
      await Promise.race(running);
    } finally {
      this.#end.abort(new Error("Another part of the daemon has ended"));
      await Promise.allSettled(running);
    }
  }

  #serveHealth(): void {
    const { options, log } = this.#context;
    if (options.healthzPort === 0) return;
    const server = serveHealth({
      hostname: options.healthzIp.toString(),
      port: options.healthzPort,
      signal: this.#end.signal,
      hostName: Deno.hostname(),
      log: log.child("health"),
      readyz: () => renderReadyz(this.#statusSource),
      status: () => renderStatus(this.#statusSource),
    });
    this.#resources.defer(() => server.finished);
  }

  get #statusSource(): StatusSource {
    return {
      version: () => this.#context.version,
      conditions: () => this.#readiness.statuses.value,
      reconcilers: () => ({}),
      ...this.#operation?.status,
    };
  }

  /** Gives back what only the start needed, when it is over for good. */
  #settle(): void {
    const timer = setTimeout(releaseStartupMemory, SETTLED_AFTER_MS);
    this.#resources.defer(() => clearTimeout(timer));
  }
}

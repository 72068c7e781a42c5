/**
 * The composition root: opens the resources, wires them, and runs the loops until the end.
 *
 * ```text
 *   config ─┐                                        ┌─ kernel Tables   (links … routes)
 *   leases ─┴─► backend.plan() ─► desired state ─► Reconcilers ─ firewall Table
 *                                                    ├─ cloud Tables    (route entries, ENI)
 *                                                    └─ subnet file Table, once the rest is right
 * ```
 *
 * @module
 */
import { enabledFamilies } from "../config/network_config.ts";
import type { Options } from "../cli/options.ts";
import { describeError, OperatorError } from "../errors.ts";
import { type Firewall, openFirewall } from "../firewall/mod.ts";
import { serveHealth } from "../health/server.ts";
import { SubnetFileTable } from "../host/subnet_file_table.ts";
import type { Lease } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { EtcdStore } from "../store/etcd/store.ts";
import { isTransient } from "../store/errors.ts";
import { watchLeaseLoss } from "../store/lease_loss.ts";
import type { OwnLease } from "../store/lease_store.ts";
import { sameAddress } from "../net/mod.ts";
import type { Notifier } from "../service_manager/notify.ts";
import { announceReadiness } from "../status/announcer.ts";
import type { ConfiguredNetwork } from "../runtime/configured_network.ts";
import type { BackendEntry, OpenBackend } from "../runtime/runtime.ts";
import { CloudLoop } from "./cloud_loop.ts";
import { followLeases } from "./follow_leases.ts";
import { FormerPath } from "../runtime/udp/former_path.ts";
import { type FormerRun, readFormerRun } from "../host/former_run.ts";
import { type HostNetwork, openHostNetwork } from "../host/host_network.ts";
import { requireRights, requireRightsOfHost } from "../host/host_rights.ts";
import { renderReadyz, renderStatus } from "../status/json.ts";
import { judgeLeftOut, leftOutFindings } from "../status/left_out.ts";
import type { ConditionId, StatusSource } from "../status/model.ts";
import { patiently } from "../status/patience.ts";
import { ProblemLog } from "../status/problems.ts";
import { firewallMode, planSubnetFile, planTrafficRules } from "../host/local_plans.ts";
import { releaseStartupMemory } from "../host/memory.ts";
import { followNetworkConfig, waitForNetworkConfig } from "./network.ts";
import { openStore } from "./open_store.ts";
import { Planner } from "./planner.ts";
import { Readiness } from "../status/readiness.ts";
import { Surroundings } from "../host/surroundings.ts";
import { statusOf } from "./status_source.ts";
import {
  notSetUp,
  watchedReconciler,
  type WatchedReconcilerOptions,
} from "./watched_reconciler.ts";

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

/** Rounds of the kernel Tables besides those that events ask for. */
const KERNEL_RESYNC_MS = 60_000;
/** Looks at subnet.env, without which no pod starts. */
const FILE_RESYNC_MS = 5_000;
/** Lines about leases in ten minutes: anybody may write any number of bad ones. */
const MAX_LINES = 30;
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

/** What is open once the start is over. */
interface Parts {
  readonly registry: EtcdStore;
  readonly configured: ConfiguredNetwork;
  readonly hostNetwork: HostNetwork;
  readonly runtime: OpenBackend;
  readonly former: FormerRun;
  readonly keeper: OwnLease;
  readonly firewall: Firewall;
}

/** One run: the start in order, then the loops. */
class DaemonRun implements AsyncDisposable {
  readonly #context: RunDaemonOptions;
  readonly #resources = new AsyncDisposableStack();
  readonly #end = new AbortController();
  readonly #signal: AbortSignal;
  readonly #readiness: Readiness;
  readonly #reconcilers = new Map<ConditionId, Reconciler>();
  #status: () => Partial<StatusSource> = () => ({});

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
    await this.#operate(await this.#start());
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

    const registry = this.#resources.use(await openStore(options, log));
    this.#onStatus("Reading the network config");
    const configured = await waitForNetworkConfig({ ...shared, backends, store: registry });
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
            store: registry,
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
    const keeper = await this.#lease({ registry, configured, hostNetwork, runtime, former });
    return { registry, configured, hostNetwork, runtime, former, keeper, firewall };
  }

  /** Keeps everything as it should be. */
  async #operate(parts: Parts): Promise<void> {
    const { registry, configured, hostNetwork, runtime, former, keeper, firewall } = parts;
    const { options } = this.#context;
    const log = this.#context.log.child("peers");
    const leases = new LeaseMap({ network: configured.network });
    const skippedLeases = new ProblemLog(log, {
      one: ({ message }) => `Skipping an entry of the store: ${message}`,
      field: "key",
      maxLines: MAX_LINES,
      more: "more entries of the store are skipped",
      none: "No entry of the store is skipped any more",
    });
    const leftOut = new ProblemLog(log, {
      one: ({ message }) => `Peer is left out: ${message}`,
      field: "key",
      maxLines: MAX_LINES,
      more: "more peers are left out",
      none: "No peer is left out any more",
    });
    const planner: Planner = new Planner({
      runtime,
      leases,
      network: configured.network,
      host: () => hostNetwork.host.value,
      own: () => keeper.lease.value,
      blackhole: options.ipBlackholeRoute,
      onPlan: (byKey) => {
        const skipped = [...byKey.values()].flat();
        leftOut.set(leftOutFindings(skipped));
        judgeLeftOut(this.#readiness.condition("peers"), skipped, {
          peers: planner.peers.size,
          families: enabledFamilies(configured).length,
        });
      },
    });

    const publish = () => {
      try {
        keeper.publish(runtime.announce(hostNetwork.host.value));
        this.#readiness.condition("backend").met();
      } catch (error) {
        // What was published before stands, and may be wrong by now.
        if (!(error instanceof OperatorError)) throw error;
        const message = describeError(error);
        this.#readiness.condition("backend").unmet({
          code: "announcement-refused",
          object: configured.backend.type,
          message,
        });
      }
    };
    const kernel = this.#reconciler("kernel", {
      stages: hostNetwork.stages(
        () => planner.latest,
        (address) => planner.isPeer(address),
        runtime.withKernel,
      ),
      resyncMs: KERNEL_RESYNC_MS,
      prepare: (options) => planner.prepare(options),
    });
    runtime.withKernel?.drift.subscribe(() => kernel.request());
    const rules = this.#reconciler("firewall", {
      stages: [{
        table: firewall.table,
        desired: () => planTrafficRules(options, configured, firewall, keeper.lease.value),
      }],
      resyncMs: options.iptablesResyncSeconds * 1_000,
    });
    const cloud = runtime.remote && new CloudLoop({
      cloud: runtime.remote,
      planner,
      leases,
      keeper,
      condition: this.#readiness.condition("cloud"),
      log: this.#context.log.child("cloud"),
      onBlocked(reason) {
        // Pods of this lease, or of one like it in an earlier run, would lose their addresses.
        const { subnet } = keeper.lease.value;
        const isKnown = String([former.subnet?.ipv4]) === String([subnet.ipv4]);
        if (!subnetFileDue && !isKnown && !hostNetwork.reserved.isServed(subnet)) {
          keeper.redraw(reason);
        }
      },
    });
    if (cloud) this.#reconcilers.set("cloud", cloud.reconciler);
    let subnetFileDue = false;
    const file = this.#reconciler("subnet file", {
      stages: [{
        table: new SubnetFileTable(options.subnetFile),
        desired: () => {
          // Not before all that it promises is there; afterwards it follows changes.
          subnetFileDue ||= (["lease", "kernel", "firewall", "cloud"] as const)
            .every((id) => this.#readiness.holds(id));
          if (!subnetFileDue) return undefined;
          return [planSubnetFile(options, configured, hostNetwork.host.value, keeper.lease.value)];
        },
      }],
      resyncMs: FILE_RESYNC_MS,
    });
    this.#resources.use(this.#readiness.unmet.subscribe(() => file.request()));

    const surroundings = new Surroundings({
      configured,
      hostNetwork,
      planner,
      firewall,
      condition: this.#readiness.condition("traffic"),
      isReady: () => this.#readiness.ready,
      log: this.#context.log.child("host"),
    });

    let acquiredAt = performance.now();
    hostNetwork.reserved.serve(keeper.lease.value.subnet);
    const replan = () => {
      planner.invalidate();
      kernel.desiredChanged();
      cloud?.planChanged();
    };
    const onLeaseState = () => {
      const state = keeper.state.value;
      const condition = this.#readiness.condition("lease");
      const object = keeper.lease.value.key;
      if (state.held) condition.met();
      else condition.unmet({ code: "lease-lost", object, message: state.reason });
      cloud?.leaseStateChanged();
    };
    this.#resources.use(keeper.state.subscribe(onLeaseState));
    const { onLeaseLoss } = options;
    const leaseLog = this.#context.log.child("lease");
    this.#resources.use(watchLeaseLoss(keeper, { onLeaseLoss, log: leaseLog }));
    const onLease = (lease: Lease, before: Lease) => {
      if (lease.key === before.key) return;
      // Another subnet: nothing that held for the old one counts.
      hostNetwork.reserved.serve(lease.subnet);
      cloud?.leasesChanged(); // the store may have told of it before it was the own one
      acquiredAt = performance.now();
      for (const id of this.#reconcilers.keys()) this.#readiness.condition(id).unmet(notSetUp(id));
      subnetFileDue = false;
      rules.desiredChanged();
      file.desiredChanged();
      replan();
    };
    this.#resources.use(keeper.lease.subscribe(onLease));
    runtime.facts.subscribe(() => {
      publish();
      planner.invalidatePlan();
      kernel.desiredChanged({ listing: false });
      cloud?.planChanged();
    });
    hostNetwork.host.subscribe((host, before) => {
      const stays = sameAddress(host.address, before.address) &&
        sameAddress(host.addressV6, before.addressV6);
      if (!stays) registry.addressesChanged();
      publish();
      file.desiredChanged();
      replan();
    });
    const operating = {
      ...parts,
      readiness: this.#readiness,
      acquiredAt: () => acquiredAt,
      leases,
      planner,
      skippedLeases,
      leftOut,
      surroundings,
    };
    this.#status = () => statusOf(operating);
    onLeaseState();
    replan();
    this.#readiness.condition("start-up").met();

    await this.#runLoops([
      (signal) =>
        followLeases({
          store: registry,
          leases,
          skipped: skippedLeases,
          condition: this.#readiness.condition("store"),
          log,
          onChange: (changed) => {
            cloud?.leasesChanged();
            planner.leasesChanged(changed);
            kernel.desiredChanged({ listing: false });
          },
          signal,
        }),
      ...(runtime.run
        ? [
          (signal: AbortSignal) =>
            runtime.run!({ leases, own: () => keeper.lease.value }, { signal }),
        ]
        : []),
      (signal) => followNetworkConfig(registry, configured, { log: this.#context.log, signal }),
      (signal) => keeper.run({ signal }),
      (signal) => surroundings.run({ signal }),
      (signal) =>
        hostNetwork.watch({
          signal,
          onDrift: (kinds) => kernel.request(kinds),
          onNews: (news) => kernel.observe(news),
        }),
      ...this.#reconcilers.values().map((each) => (signal: AbortSignal) => each.run({ signal })),
    ]);
  }

  readonly #onStatus = (message: string): void =>
    this.#readiness.condition("start-up").unmet({ code: "starting", object: "start-up", message });

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
    { registry, configured, hostNetwork, runtime, former }:
      & Pick<Parts, "registry" | "configured" | "hostNetwork" | "runtime">
      & { readonly former: FormerRun },
  ): Promise<OwnLease> {
    const { log } = this.#context;
    const signal = this.#signal;
    return patiently(
      "lease a subnet",
      () =>
        registry.acquire({
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
  async #runLoops(loops: readonly ((signal: AbortSignal) => Promise<unknown>)[]): Promise<void> {
    const running = loops.map((loop) => loop(this.#signal));
    try {
      await Promise.race(running);
    } finally {
      this.#end.abort(new Error("Another part of the daemon has ended"));
      await Promise.allSettled(running);
    }
  }

  /** A reconciler on whose success readiness depends. */
  #reconciler(
    id: ConditionId,
    options: Omit<WatchedReconcilerOptions, "condition" | "log">,
  ): Reconciler {
    const reconciler = watchedReconciler({
      ...options,
      condition: this.#readiness.condition(id),
      log: this.#context.log.child(id),
    });
    this.#reconcilers.set(id, reconciler);
    return reconciler;
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
      reconcilers: () =>
        Object.fromEntries(Array.from(this.#reconcilers, ([id, { report }]) => [id, report])),
      ...this.#status(),
    };
  }

  /** Gives back what only the start needed, when it is over for good. */
  #settle(): void {
    const timer = setTimeout(releaseStartupMemory, SETTLED_AFTER_MS);
    this.#resources.defer(() => clearTimeout(timer));
  }
}

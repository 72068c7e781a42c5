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
import { type Host, podMtuBytes } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import { describeError } from "../errors.ts";
import {
  type Firewall,
  type FirewallMode,
  openFirewall,
  planRuleSets,
  type RuleSetSpec,
} from "../firewall/mod.ts";
import { serveHealth } from "../health/server.ts";
import { previousNetworks, previousSubnet, renderSubnetEnv } from "../host/subnet_env.ts";
import { readSubnetFile, type SubnetFileSpec, SubnetFileTable } from "../host/subnet_file_table.ts";
import type { Lease, LeaseSubnet } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import type { Prefix } from "../net/mod.ts";
import { Reconciler, type ReconcilerOptions } from "../reconcile/reconciler.ts";
import { LeaseKeeper } from "../store/lease_keeper.ts";
import { openRegistry } from "../store/open.ts";
import { isTransient, type Registry } from "../store/registry.ts";
import type { Notifier } from "../util/notify.ts";
import { openBackendRuntime } from "./backend_runtime.ts";
import { type ConfiguredNetwork, registryOptions, waitForNetworkConfig } from "./network.ts";
import { openHostNetwork } from "./host_network.ts";
import { releaseStartupMemory } from "./memory.ts";
import { patiently } from "./patience.ts";
import { Planner } from "./planner.ts";
import { Readiness } from "./readiness.ts";
import { SkippedPeerNotices } from "./skipped_peers.ts";

/** What the daemon is given. */
export interface RunDaemonOptions {
  readonly options: Options;
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
/** When what the start-up needed is not needed any more. */
const SETTLED_AFTER_MS = 5_000;
/** How long peers may be out of date before the daemon counts as not ready. */
const STALE_AFTER_MS = 60_000;

/**
 * Runs the daemon until `signal` aborts (then it rejects with the signal's reason), or until
 * something is wrong that only a person can mend. The data plane is left as it is.
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
  readonly #reconcilers: Reconciler[] = [];
  #status: () => Record<string, unknown> = () => ({});
  #onPlaneChange = () => {};
  #subnetFileWritten = false;
  #announced = false;
  #toldStatus: string | undefined;
  #wasReady = false;

  constructor(context: RunDaemonOptions) {
    this.#context = context;
    this.#signal = AbortSignal.any([context.signal, this.#end.signal]);
    this.#readiness = new Readiness(["start-up"], () => this.#tellReadiness());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#end.abort(new Error("The daemon has ended"));
    await this.#resources.disposeAsync();
  }

  async run(): Promise<void> {
    const { options, log } = this.#context;
    const signal = this.#signal;
    this.#serveHealth();
    log.info("Starting", { version: this.#context.version, deno: Deno.version.deno });

    const registry = this.#resources.use(
      await openRegistry(registryOptions(options, log)),
    );
    const onStatus = (text: string) => this.#readiness.set("start-up", text);
    onStatus("Reading the network config");
    const configured = await waitForNetworkConfig({
      registry,
      log,
      signal,
      onStatus,
    });

    // Its programs are looked at while the rest is waited for.
    const openingFirewall = openFirewall({
      mode: modeOf(configured),
      networks: networksOf(configured).map(({ network }) => network),
      masquerade: options.ipMasq,
      forward: options.iptablesForwardRules,
      randomFullyDisabled: options.ipMasqFullyRandomDisable,
      log: log.child("firewall"),
      signal,
    });
    openingFirewall.catch(() => {}); // met below

    onStatus("Choosing the external interface");
    const former = await this.#formerRun();
    const hostNetwork = this.#resources.use(
      await openHostNetwork({
        options,
        network: configured.network,
        formerNetworks: former.networks,
        log,
        signal,
        onStatus,
      }),
    );

    const runtime = this.#resources.use(
      await patiently(
        `prepare backend ${configured.backend.type}`,
        () =>
          openBackendRuntime({
            configured,
            options,
            environment: this.#context.environment,
            hostNetwork,
            registry,
            former,
            log,
            signal,
          }),
        { log, signal, onStatus },
      ),
    );
    onStatus("Leasing a subnet");
    let onLeaseChange = () => {};
    const keeper = await patiently(
      "lease a subnet",
      () =>
        LeaseKeeper.acquire({
          registry,
          network: configured.network,
          attributes: runtime.announce(hostNetwork.host),
          previous: former.subnet,
          renewMarginSeconds: options.subnetLeaseRenewMarginMinutes * 60,
          onLeaseLoss: options.onLeaseLoss,
          log: log.child("lease"),
          onWaiting: onStatus,
          onChange: () => onLeaseChange(),
        }, { signal }),
      { log, signal, onStatus, isFatal: (error) => !isTransient(error) },
    );

    const firewall = await openingFirewall;

    const leases = new LeaseMap({ network: configured.network });
    const skippedPeerNotices = new SkippedPeerNotices(log.child("peers"));
    const planner = new Planner({
      runtime,
      leases,
      host: () => hostNetwork.host,
      own: () => keeper.lease,
      blackhole: options.ipBlackholeRoute,
      onPlan: ({ skippedPeers }) => skippedPeerNotices.update(skippedPeers ?? []),
    });
    const kernel = this.#reconciler("kernel", {
      stages: hostNetwork.stages(
        () => planner.desired,
        (address) => planner.isPeer(address),
        runtime.plane,
      ),
      resyncMs: KERNEL_RESYNC_MS,
      prepare: async ({ signal }) => {
        if (!runtime.underlay || !leases.complete) return false;
        if (!await runtime.underlay.follow(keeper.lease, planner.peers, { signal })) return false;
        keeper.publish(runtime.announce(hostNetwork.host));
        planner.invalidatePlan();
        return true;
      },
    });
    if (runtime.plane) runtime.plane.onDrift = () => kernel.request();
    const rules = this.#reconciler("firewall", {
      stages: [{
        table: firewall.table,
        desired: () => this.#ruleSets(configured, firewall, keeper.lease),
      }],
      resyncMs: options.iptablesResyncSeconds * 1_000,
    });
    const cloud = runtime.cloud && this.#reconciler("cloud", {
      stages: runtime.cloud.stages(() => planner.desired),
      resyncMs: runtime.cloud.resyncMs,
      prepare: async ({ signal }) => {
        if (!leases.complete) return;
        if (await runtime.cloud!.follow(keeper.lease, planner.peers, { signal })) replan();
      },
    });
    const file = this.#reconciler("subnet file", {
      stages: [{
        table: new SubnetFileTable(options.subnetFile),
        desired: () => this.#subnetFile(configured, hostNetwork.host, keeper.lease),
      }],
      resyncMs: FILE_RESYNC_MS,
    });
    this.#onPlaneChange = () => file.request();

    let subnetKey = keeper.lease.key;
    let cloudWanted = "";
    const replan = () => {
      planner.invalidate();
      kernel.desiredChanged();
      if (!cloud) return;
      // Each cloud call counts: only a plan that differs is worth a round before its time.
      const { cloudRoutes, sourceDestChecks } = planner.desired ?? {};
      const wanted = JSON.stringify([cloudRoutes, sourceDestChecks]);
      if (wanted !== cloudWanted) cloud.desiredChanged();
      cloudWanted = wanted;
    };
    const onLeaseState = () => {
      const { state, lease } = keeper;
      this.#readiness.set("lease", state.held ? undefined : state.reason);
      if (lease.key === subnetKey) return;
      // Another subnet: nothing that held for the old one counts.
      subnetKey = lease.key;
      for (const { name } of this.#reconcilers) this.#readiness.set(name, "not set up yet");
      this.#subnetFileWritten = false;
      rules.desiredChanged();
      file.desiredChanged();
      replan();
    };
    onLeaseChange = onLeaseState;
    hostNetwork.onChange = () => {
      keeper.publish(runtime.announce(hostNetwork.host));
      file.desiredChanged();
      replan();
    };
    this.#status = () => ({
      network: networksOf(configured).map(({ network }) => network.toString()),
      backend: configured.backend.type,
      interface: hostNetwork.describe(),
      lease: { ...keeper.lease, state: keeper.state },
      peers: leases.complete ? planner.peers.length : undefined,
      skippedLeases: Object.fromEntries([...leases.skipped()].slice(0, 100)),
      firewall: firewall.describe(),
      ...(runtime.cloud ? { cloud: runtime.cloud.status() } : {}),
      ...(runtime.plane ? { dataPlane: runtime.plane.status() } : {}),
      ...(leases.complete
        ? {
          skippedPeers: skippedPeerNotices.list(),
          ...runtime.underlay?.status(planner.peers),
        }
        : {}),
    });
    onLeaseState();
    replan();
    this.#readiness.set("start-up", undefined);

    await this.#runLoops([
      (signal) => this.#followLeases({ registry, leases, keeper, replan, signal }),
      (signal) => this.#followConfig(registry, configured, signal),
      (signal) => keeper.run({ signal }),
      (signal) => hostNetwork.watch({ signal, onDrift: (kinds) => kernel.request(kinds) }),
      ...this.#reconcilers.map((each) => (signal: AbortSignal) => each.run({ signal })),
    ]);
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

  #reconciler(
    name: string,
    options: Pick<ReconcilerOptions, "stages" | "resyncMs" | "prepare">,
  ): Reconciler {
    this.#readiness.set(name, "not set up yet");
    const reconciler = new Reconciler({
      ...options,
      name,
      log: this.#context.log.child(name),
      onReport: ({ inSync, problems }) =>
        this.#readiness.set(name, inSync ? undefined : problems[0] ?? "not set up yet"),
    });
    this.#reconcilers.push(reconciler);
    return reconciler;
  }

  /** Folds what the store says into `leases`, and says when peers are out of date for long. */
  async #followLeases({ registry, leases, keeper, replan, signal }: {
    readonly registry: Registry;
    readonly leases: LeaseMap;
    readonly keeper: LeaseKeeper;
    readonly replan: () => void;
    readonly signal: AbortSignal;
  }): Promise<void> {
    const log = this.#context.log.child("peers");
    let outage: { since: number; timer: ReturnType<typeof setTimeout> } | undefined;
    let named = new Set<string>();
    using _timer = { [Symbol.dispose]: () => clearTimeout(outage?.timer) };
    for await (const update of registry.watch({ signal })) {
      keeper.observe(update);
      if (update.type === "disconnected") {
        if (outage) continue;
        const reason = describeError(update.error);
        log.warn(`Peers are not followed at present: ${reason}`);
        const timer = setTimeout(
          () => this.#readiness.set("store", `peers may be out of date: ${reason}`),
          STALE_AFTER_MS,
        );
        outage = { since: Date.now(), timer };
        continue;
      }
      if (outage) {
        clearTimeout(outage.timer);
        const seconds = Math.round((Date.now() - outage.since) / 1_000);
        log.info(`Peers are followed again after ${seconds} s`);
        outage = undefined;
        this.#readiness.set("store", undefined);
      }
      const first = !leases.complete;
      let changed = first;
      if (update.type === "snapshot") changed = leases.replace(update.entries) || changed;
      else {
        for (const event of update.events) {
          const differs = event.type === "put" ? leases.put(event.entry) : leases.delete(event.key);
          changed ||= differs;
        }
      }
      if (leases.skippedCount > 0 || named.size > 0) {
        const skipped = leases.skipped();
        const fresh = [...skipped].filter(([key]) => !named.has(key));
        for (const [key, reason] of fresh.slice(0, 10)) {
          log.warn(`Skipping an entry of the store: ${reason}`, { key });
        }
        if (fresh.length > 10) log.warn(`and ${fresh.length - 10} more entries are skipped`);
        named = new Set(skipped.keys());
      }
      if (changed) {
        if (first) log.info("Leases of the network are known", { leases: leases.size });
        else log.debug("Leases changed", { leases: leases.size });
        replan();
      }
    }
  }

  /** The config is read at start only; a change of it is said, and awaits the operator. */
  async #followConfig(
    registry: Registry,
    configured: ConfiguredNetwork,
    signal: AbortSignal,
  ): Promise<void> {
    const log = this.#context.log;
    let known: string | undefined = configured.text;
    for await (const text of registry.watchConfig({ signal })) {
      if (text === known) continue;
      known = text;
      if (text === undefined) {
        log.warn("The network config was removed from the store; going on with the present one");
      } else if (text === configured.text) {
        log.info("The network config is the one in use again");
      } else {
        log.warn("The network config was changed; restart flanneld to apply it");
      }
    }
  }

  #ruleSets(
    configured: ConfiguredNetwork,
    firewall: Firewall,
    own: Lease,
  ): readonly RuleSetSpec[] {
    const { options } = this.#context;
    return planRuleSets({
      mode: modeOf(configured),
      families: networksOf(configured).flatMap(({ name, network }) => {
        const subnet = own.subnet[name];
        return subnet ? [{ network, subnet }] : [];
      }),
      masquerade: options.ipMasq,
      forward: options.iptablesForwardRules,
      noMasqueradeCidrs: options.noMasqCidr,
      randomFully: firewall.randomFully,
    });
  }

  /** subnet.env, once all that it promises is there; afterwards it follows changes. */
  #subnetFile(
    configured: ConfiguredNetwork,
    host: Host,
    own: Lease,
  ): readonly SubnetFileSpec[] | undefined {
    const { options } = this.#context;
    const works = ["lease", "kernel", "firewall", "cloud"].every((name) =>
      this.#readiness.holds(name)
    );
    if (!works && !this.#subnetFileWritten) return undefined;
    this.#subnetFileWritten = true;
    const families = Object.fromEntries(
      networksOf(configured).flatMap(({ name, network }) => {
        const subnet = own.subnet[name];
        return subnet ? [[name, { network, subnet }]] : [];
      }),
    );
    const { backend, backendConfig, network } = configured;
    return [{
      path: options.subnetFile,
      text: renderSubnetEnv({
        ...families,
        mtuBytes: podMtuBytes(backend, backendConfig, network, host),
        masquerade: options.ipMasq,
      }),
    }];
  }

  /** What subnet.env tells of the last run. */
  async #formerRun(): Promise<{ subnet: LeaseSubnet | undefined; networks: readonly Prefix[] }> {
    const { options, log } = this.#context;
    try {
      const text = await readSubnetFile(options.subnetFile) ?? "";
      return { subnet: previousSubnet(text), networks: previousNetworks(text) };
    } catch (error) {
      log.warn(`The subnet of the last run is unknown: ${describeError(error)}`);
      return { subnet: undefined, networks: [] };
    }
  }

  #serveHealth(): void {
    const { options, log, version } = this.#context;
    if (options.healthzPort === 0) return;
    const server = serveHealth({
      hostname: options.healthzIp.toString(),
      port: options.healthzPort,
      signal: this.#end.signal,
      log: log.child("health"),
      report: () => ({
        ready: this.#readiness.ready,
        reasons: this.#readiness.reasons,
        status: {
          version,
          reconcilers: Object.fromEntries(
            this.#reconcilers.map(({ name, report }) => [name, report]),
          ),
          ...this.#status(),
        },
      }),
    });
    this.#resources.defer(() => server.finished);
  }

  #tellReadiness(): void {
    const { notifier, log } = this.#context;
    const { ready, reasons } = this.#readiness;
    this.#onPlaneChange();
    if (!ready) {
      this.#tellStatus(reasons[0]!);
      if (this.#wasReady) log.warn(`Not ready: ${reasons.join("; ")}`);
    } else {
      if (!this.#wasReady) log.info("Ready: the subnet is usable");
      if (!this.#announced) {
        notifier.ready();
        const timer = setTimeout(releaseStartupMemory, SETTLED_AFTER_MS);
        this.#resources.defer(() => clearTimeout(timer));
      }
      this.#announced = true;
      this.#tellStatus("Ready");
    }
    this.#wasReady = ready;
  }

  #tellStatus(text: string): void {
    if (text !== this.#toldStatus) this.#context.notifier.status(text);
    this.#toldStatus = text;
  }
}

function modeOf({ network }: ConfiguredNetwork): FirewallMode {
  return network.enableNFTables ? "nftables" : "iptables";
}

/** The enabled families of the config. */
function networksOf({ network }: ConfiguredNetwork) {
  return (["ipv4", "ipv6"] as const).flatMap((name) => {
    const family = network[name];
    return family ? [{ name, network: family.network }] : [];
  });
}

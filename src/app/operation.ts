/**
 * The daemon in operation: what follows from each change, and the loops.
 *
 * ```text
 *   config ─┐                                    ┌─ kernel Tables     (links … routes)
 *   leases ─┴─► planner ─► desired state ─► Reconcilers ─ firewall Table
 *                                                ├─ remote Tables     (a cloud's route entries)
 *                                                └─ subnet file Table, once the rest is right
 * ```
 *
 * @module
 */
import type { Options } from "../cli/options.ts";
import { cniStages } from "../cni/conflist.ts";
import { enabledFamilies } from "../config/network_config.ts";
import { describeError, OperatorError } from "../errors.ts";
import type { Firewall } from "../firewall/mod.ts";
import type { FormerRun } from "../host/former_run.ts";
import type { HostNetwork } from "../host/host_network.ts";
import { planSubnetFile, planTrafficRules } from "../host/local_plans.ts";
import { SubnetFileTable } from "../host/subnet_file_table.ts";
import { Surroundings } from "../host/surroundings.ts";
import type { Lease, LeaseSubnet } from "../lease/lease.ts";
import { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import { sameAddress } from "../net/mod.ts";
import type { Reconciler } from "../reconcile/reconciler.ts";
import type { ConfiguredNetwork } from "../runtime/configured_network.ts";
import type { OpenBackend } from "../runtime/runtime.ts";
import { judgeLeftOut, leftOutFindings } from "../status/left_out.ts";
import type { ConditionId, StatusSource } from "../status/model.ts";
import { ProblemLog } from "../status/problems.ts";
import type { Readiness } from "../status/readiness.ts";
import { watchLeaseLoss } from "../store/lease_loss.ts";
import type { LeaseStore, OwnLease } from "../store/lease_store.ts";
import { RemoteLoop } from "../runtime/remote_loop.ts";
import { followLeases } from "../runtime/follow_leases.ts";
import { followNetworkConfig } from "../runtime/await_config.ts";
import { Planner } from "../runtime/planner.ts";
import { statusOf } from "./status_source.ts";
import {
  notSetUp,
  watchedReconciler,
  type WatchedReconcilerOptions,
} from "../runtime/watched_reconciler.ts";

/** What is open once the start is over. */
export interface Parts {
  readonly store: LeaseStore;
  readonly configured: ConfiguredNetwork;
  readonly hostNetwork: HostNetwork;
  readonly runtime: OpenBackend;
  readonly former: FormerRun;
  readonly own: OwnLease;
  readonly firewall: Firewall;
}

export interface OperationOptions {
  readonly options: Options;
  readonly readiness: Readiness;
  readonly log: Logger;
}

/** What runs until `signal` aborts. */
export type Loop = (signal: AbortSignal) => Promise<unknown>;

/** Rounds of the kernel Tables besides those that events ask for. */
const KERNEL_RESYNC_MS = 60_000;
/** Looks at subnet.env, without which no pod starts. */
const FILE_RESYNC_MS = 5_000;

/** Lines about leases in ten minutes: anybody may write any number of bad ones. */
const MAX_LINES = 30;

/** What must be in order before subnet.env says so. */
const PROMISED = ["lease", "kernel", "firewall", "cloud"] as const satisfies ConditionId[];

/** Keeps everything as it should be, from the end of the start on. */
export class Operation implements Disposable {
  readonly #parts: Parts;
  readonly #options: Options;
  readonly #readiness: Readiness;
  readonly #log: Logger;
  readonly #resources = new DisposableStack();
  readonly #reconcilers = new Map<ConditionId, Reconciler>();
  readonly #leases: LeaseMap;
  readonly #skippedLeases: ProblemLog;
  readonly #leftOut: ProblemLog;
  readonly #planner: Planner;
  readonly #kernel: Reconciler;
  readonly #rules: Reconciler;
  readonly #file: Reconciler;
  readonly #cloud: RemoteLoop | undefined;
  readonly #surroundings: Surroundings;
  #subnetFileDue = false;
  #acquiredAt = performance.now();

  constructor(parts: Parts, { options, readiness, log }: OperationOptions) {
    this.#parts = parts;
    this.#options = options;
    this.#readiness = readiness;
    this.#log = log;
    const { configured, hostNetwork, firewall } = parts;
    this.#leases = new LeaseMap({ network: configured.network });
    const peersLog = log.child("peers");
    this.#skippedLeases = new ProblemLog(peersLog, {
      one: ({ message }) => `Skipping an entry of the store: ${message}`,
      field: "key",
      maxLines: MAX_LINES,
      more: "more entries of the store are skipped",
      none: "No entry of the store is skipped any more",
    });
    this.#leftOut = new ProblemLog(peersLog, {
      one: ({ message }) => `Peer is left out: ${message}`,
      field: "key",
      maxLines: MAX_LINES,
      more: "more peers are left out",
      none: "No peer is left out any more",
    });
    this.#planner = this.#makePlanner();
    this.#kernel = this.#reconcileKernel();
    this.#rules = this.#reconcileRules();
    this.#cloud = this.#reconcileCloud();
    this.#file = this.#reconcileFile();
    this.#surroundings = new Surroundings({
      configured,
      hostNetwork,
      planner: this.#planner,
      firewall,
      condition: readiness.condition("traffic"),
      isReady: () => readiness.ready,
      log: log.child("host"),
    });
    this.#subscribe();
    hostNetwork.reserved.serve(this.#lease.subnet);
    this.#leaseStateChanged();
    this.#replan();
  }

  [Symbol.dispose](): void {
    this.#resources.dispose();
  }

  get loops(): readonly Loop[] {
    const { store, configured, hostNetwork, runtime, own } = this.#parts;
    const log = this.#log;
    const cluster = { leases: this.#leases, own: () => this.#lease };
    return [
      (signal) => this.#followLeases(signal),
      ...(runtime.run ? [(signal: AbortSignal) => runtime.run!(cluster, { signal })] : []),
      (signal) => followNetworkConfig(store, configured, { log, signal }),
      (signal) => own.run({ signal }),
      (signal) => this.#surroundings.run({ signal }),
      (signal) =>
        hostNetwork.watch({
          signal,
          onDrift: (kinds) => this.#kernel.request(kinds),
          onNews: (news) => this.#kernel.observe(news),
        }),
      ...this.#reconcilers.values().map((each): Loop => (signal) => each.run({ signal })),
    ];
  }

  get status(): Partial<StatusSource> & Pick<StatusSource, "reconcilers"> {
    const reports = () =>
      Object.fromEntries(Array.from(this.#reconcilers, ([id, { report }]) => [id, report]));
    const parts = statusOf({
      ...this.#parts,
      readiness: this.#readiness,
      acquiredAt: () => this.#acquiredAt,
      leases: this.#leases,
      planner: this.#planner,
      skippedLeases: this.#skippedLeases,
      leftOut: this.#leftOut,
      surroundings: this.#surroundings,
    });
    return { reconcilers: reports, ...parts };
  }

  get #lease(): Lease {
    return this.#parts.own.lease.value;
  }

  #makePlanner(): Planner {
    const { configured, hostNetwork, runtime } = this.#parts;
    const families = enabledFamilies(configured).length;
    return new Planner({
      runtime,
      leases: this.#leases,
      network: configured.network,
      host: () => hostNetwork.host.value,
      own: () => this.#lease,
      blackhole: this.#options.ipBlackholeRoute,
      onPlan: (byKey) => {
        const skipped = [...byKey.values()].flat();
        this.#leftOut.set(leftOutFindings(skipped));
        const peers = this.#planner.peers.size;
        judgeLeftOut(this.#readiness.condition("peers"), skipped, { peers, families });
      },
    });
  }

  #reconcileKernel(): Reconciler {
    const { hostNetwork, runtime } = this.#parts;
    const planner = this.#planner;
    return this.#reconciler("kernel", {
      stages: hostNetwork.stages(
        () => planner.latest,
        (address) => planner.isPeer(address),
        runtime.withKernel,
      ),
      resyncMs: KERNEL_RESYNC_MS,
      prepare: (options) => planner.prepare(options),
    });
  }

  #reconcileRules(): Reconciler {
    const { configured, firewall } = this.#parts;
    return this.#reconciler("firewall", {
      stages: [{
        table: firewall.table,
        desired: () => planTrafficRules(this.#options, configured, firewall, this.#lease),
      }],
      resyncMs: this.#options.iptablesResyncSeconds * 1_000,
    });
  }

  #reconcileCloud(): RemoteLoop | undefined {
    const { runtime: { remote }, own, former, hostNetwork } = this.#parts;
    if (!remote) return undefined;
    const cloud = new RemoteLoop({
      cloud: remote,
      planner: this.#planner,
      leases: this.#leases,
      keeper: own,
      condition: this.#readiness.condition("cloud"),
      log: this.#log.child("cloud"),
      onBlocked: (reason) => {
        // Pods of this lease, or of one like it in an earlier run, would lose their addresses.
        const { subnet } = this.#lease;
        const isKnown = sameSubnet(former.subnet, subnet);
        if (!this.#subnetFileDue && !isKnown && !hostNetwork.reserved.isServed(subnet)) {
          own.redraw(reason);
        }
      },
    });
    this.#reconcilers.set("cloud", cloud.reconciler);
    return cloud;
  }

  #reconcileFile(): Reconciler {
    const { configured, hostNetwork } = this.#parts;
    const desired = () => {
      // Not before all that it promises is there; afterwards it follows changes.
      this.#subnetFileDue ||= PROMISED.every((id) => this.#readiness.holds(id));
      if (!this.#subnetFileDue) return undefined;
      return [planSubnetFile(this.#options, configured, hostNetwork.host.value, this.#lease)];
    };
    const table = new SubnetFileTable(this.#options.subnetFile);
    const written = () => desired()?.find(({ text }) => table.holds(text))?.text;
    return this.#reconciler("subnet file", {
      stages: [{ table, desired }, ...cniStages(this.#options.cniConfFile, written, this.#log)],
      resyncMs: FILE_RESYNC_MS,
    });
  }

  /** A reconciler on whose success readiness depends. */
  #reconciler(
    id: ConditionId,
    options: Omit<WatchedReconcilerOptions, "condition" | "log">,
  ): Reconciler {
    const reconciler = watchedReconciler({
      ...options,
      condition: this.#readiness.condition(id),
      log: this.#log.child(id),
    });
    this.#reconcilers.set(id, reconciler);
    return reconciler;
  }

  /** What follows from what. */
  #subscribe(): void {
    const { store, hostNetwork, runtime, own } = this.#parts;
    const { onLeaseLoss } = this.#options;
    const all = [
      this.#readiness.unmet.subscribe(() => {
        this.#file.request();
        own.setReady?.(this.#readiness.ready);
      }),
      runtime.withKernel?.drift.subscribe(() => this.#kernel.request()),
      runtime.facts.subscribe(() => {
        this.#publish();
        this.#planner.invalidatePlan();
        this.#kernel.desiredChanged({ listing: false });
        this.#cloud?.planChanged();
      }),
      hostNetwork.host.subscribe((host, before) => {
        const stays = sameAddress(host.address, before.address) &&
          sameAddress(host.addressV6, before.addressV6);
        if (!stays) store.addressesChanged();
        this.#publish();
        this.#file.desiredChanged();
        this.#replan();
      }),
      own.state.subscribe(() => this.#leaseStateChanged()),
      watchLeaseLoss(own, { onLeaseLoss, log: this.#log.child("lease") }),
      own.lease.subscribe((lease, before) => {
        if (lease.key !== before.key) this.#subnetChanged();
      }),
    ];
    for (const each of all) if (each) this.#resources.use(each);
  }

  /** Publishes what the backend has to say of this host. */
  #publish(): void {
    const { configured, hostNetwork, runtime, own } = this.#parts;
    const condition = this.#readiness.condition("backend");
    try {
      own.publish(runtime.announce(hostNetwork.host.value));
      condition.met();
    } catch (error) {
      // What was published before stands, and may be wrong by now.
      if (!(error instanceof OperatorError)) throw error;
      const object = configured.backend.type;
      condition.unmet({ code: "announcement-refused", object, message: describeError(error) });
    }
  }

  #replan(): void {
    this.#planner.invalidate();
    this.#kernel.desiredChanged();
    this.#cloud?.planChanged();
  }

  #leaseStateChanged(): void {
    const { own: { state: { value: state } } } = this.#parts;
    const condition = this.#readiness.condition("lease");
    if (state.held) condition.met();
    else condition.unmet({ code: "lease-lost", object: this.#lease.key, message: state.message });
  }

  /** Another subnet: nothing that held for the old one counts. */
  #subnetChanged(): void {
    this.#parts.hostNetwork.reserved.serve(this.#lease.subnet);
    this.#cloud?.leasesChanged(); // the store may have told of it before it was the own one
    this.#acquiredAt = performance.now();
    for (const id of this.#reconcilers.keys()) this.#readiness.condition(id).unmet(notSetUp(id));
    this.#subnetFileDue = false;
    this.#rules.desiredChanged();
    this.#file.desiredChanged();
    this.#replan();
  }

  #followLeases(signal: AbortSignal): Promise<void> {
    return followLeases({
      store: this.#parts.store,
      leases: this.#leases,
      skipped: this.#skippedLeases,
      condition: this.#readiness.condition("store"),
      log: this.#log.child("peers"),
      onChange: (changed) => {
        this.#cloud?.leasesChanged();
        this.#planner.leasesChanged(changed);
        this.#kernel.desiredChanged({ listing: false });
        if (changed === "all") this.#cloud?.planChanged();
      },
      signal,
    });
  }
}

/** By their IPv4 part, which is what routes of a cloud lead to. */
function sameSubnet(a: LeaseSubnet | undefined, b: LeaseSubnet): boolean {
  return a?.ipv4 === undefined || b.ipv4 === undefined ? a?.ipv4 === b.ipv4 : a.ipv4.equals(b.ipv4);
}

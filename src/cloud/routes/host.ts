/**
 * One host of a cluster. As a rule the leader, which may be this host, writes the routes of all and
 * publishes their state; without one a host writes its own.
 *
 * @module
 */
import type { Lease } from "../../lease/lease.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import type { Places } from "../../net/mod.ts";
import type { AnyStage } from "../../reconcile/reconciler.ts";
import type { Peers } from "../../lease/peers.ts";
import type { Desired } from "../../state/desired.ts";
import type { Election } from "../../store/election.ts";
import { StoreError } from "../../store/errors.ts";
import { Cell, type ReadableCell, sameItems } from "../../util/cell.ts";
import { childSignal } from "../../util/child_signal.ts";
import { deadline } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { ensureClusterId } from "./cluster_identity.ts";
import type { ClusterSummary, HostStatus } from "./cluster_state.ts";
import type { CloudStatus, ClusterStatus, Finding } from "../../status/model.ts";
import type { ClusterStore } from "./cluster_store.ts";
import { ClusterLeader, type ClusterLeaderOptions } from "./leader.ts";
import {
  APART_MS,
  CHECK_PATIENCE_MS,
  CHECK_SPREAD_MS,
  leaderPatienceMs,
} from "./leader_patience.ts";
import { occupiedPlaces } from "./occupied.ts";
import type { CallOptions } from "./provider.ts";
import { ClusterFollower, readSummary } from "./publication.ts";
import { makeChecks, type SourceDestCheckTable } from "./source_dest_check.ts";
import { approvalCommand } from "./removal_brake.ts";
import { RouteTable } from "./route_table.ts";
import { SubnetStatements } from "./subnet_statement.ts";
import { type OwnRoutes, scopeOwnRoutes, SwitchedRoutes } from "./switched_routes.ts";

export interface CloudHostOptions<Base> extends Omit<ClusterLeaderOptions, "leases" | "election"> {
  /** What else belongs to the facts. */
  readonly base: Base;
  /** Whether it may write route entries at all. */
  readonly mayLead: boolean;
  readonly signal: AbortSignal;
  /** How long a host may lead before it runs; waiting for a free subnet has no end. @default {60_000} */
  readonly unservedMs?: number;
}

/** The facts that a host's plan depends on. */
export interface CloudFacts {
  /** Every table that is to hold the route: the own ones and those that peers need. */
  readonly routeTableIds: readonly string[];
  /** Who is to be reached through the tunnel; absent while every host has its entries. */
  readonly overflow?: { readonly keys: ReadonlySet<string>; readonly vtep: boolean };
}

/** How long the end of the daemon waits for giving the lead up. */
const RESIGN_MS = 2_000;

/**
 * Opens this host's part. Unless another host leads, the cloud's API is opened, with all checks
 * that must hold before a lease is written.
 *
 * @throws {OperatorError} What needs an operator.
 * @throws {Error} What may pass: call again.
 */
export async function openCloudHost<Base extends object>(
  options: CloudHostOptions<Base>,
): Promise<CloudHost<Base>> {
  const { cloud, store, config, mayLead, log, signal, unservedMs = 60_000 } = options;
  await using stack = new AsyncDisposableStack();
  stack.use(cloud);
  const election = store.election(cloud.instance.instanceId, log);
  // One that never leads follows, too, to tell whether anybody leads.
  election.candidate = mayLead;
  const running = childSignal(signal);
  stack.defer(async () => {
    using limit = deadline(RESIGN_MS, { signal: AbortSignal.any([]) });
    // Another host need not wait for the term to run out.
    await election.resign({ signal: limit.signal, pauseMs: Infinity }).catch(() => {});
  });
  const term = await election.tryOnce({ signal });
  // Until it can lead, this host stands for election no more: the start may be held up.
  const standBack = () => election.candidate = false;
  if (term === undefined) standBack();
  const unserved = setTimeout(standBack, unservedMs);
  stack.defer(() => clearTimeout(unserved));
  const following = election.run({ signal: running.signal });
  stack.defer(async () => {
    running[Symbol.dispose]();
    await Promise.allSettled([following]);
  });
  if (term !== undefined) {
    const { full } = await cloud.connect({ signal });
    // To be waited out without a lease, which would be held for nothing.
    if (full !== undefined && config.overflow === "none") throw new Error(`Cannot use ${full}`);
  }
  return new CloudHost(options, { election, unserved, resources: stack.move() });
}

interface Opened {
  readonly election: Election;
  /** Ends the candidacy of a host that cannot lead yet. */
  readonly unserved: ReturnType<typeof setTimeout>;
  readonly resources: AsyncDisposableStack;
}

interface Cluster {
  readonly leases: LeaseMap;
  readonly own: () => Lease;
}

/** One host. */
class CloudHost<Base extends object> implements AsyncDisposable {
  readonly facts: Cell<Base & CloudFacts>;
  readonly #changes = new Cell(0);
  readonly #wakeup = new Wakeup();
  readonly #options: CloudHostOptions<Base>;
  readonly #opened: Opened;
  readonly #checks: SourceDestCheckTable | undefined;
  #follower: ClusterFollower | undefined;
  #leader: ClusterLeader | undefined;
  /** Opened once this host has to write its own route. */
  #ownRoutes: OwnRoutes | undefined;
  /** Whether this host writes its own route. */
  #isAlone = false;
  /** As it was read last. */
  #clusterId: string | undefined;
  #uncoveredSince: number | undefined = performance.now();
  #uncheckedSince: number | undefined;
  #hosts = 1;
  /** In [0, 1): this host's place among those that wait. */
  readonly #position = Math.random();

  constructor(options: CloudHostOptions<Base>, opened: Opened) {
    const { cloud, config, log } = options;
    this.#options = options;
    this.#opened = opened;
    opened.election.leadership.subscribe(() => {
      this.#leader?.electionChanged();
      this.#wakeup.wake();
    });
    this.facts = new Cell<Base & CloudFacts>({ ...options.base, routeTableIds: [] });
    const { networkInterfaceId } = cloud.instance;
    this.#checks = makeChecks(cloud, config, {
      interfaces: () => this.#seesToCheck ? [{ networkInterfaceId }] : [],
      log,
    });
  }

  get resyncMs(): number {
    return this.#options.config.resyncSeconds * 1_000;
  }

  /** Changes when a round is due for another reason than the facts. */
  get changes(): ReadableCell<number> {
    return this.#changes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#opened.resources.disposeAsync();
  }

  /** Entries of others that the leader has found in the network. */
  async occupied(options: CallOptions): Promise<Places> {
    const summary = this.#follower?.summary ?? await readSummary(this.#options.store, options);
    return occupiedPlaces(summary?.occupied ?? []);
  }

  leasesChanged(): void {
    this.#follower?.leaseChanged();
    this.#leader?.leasesChanged();
  }

  /** Another host holds the own lease now: nothing of it is written until the next `gather`. */
  disown(): void {
    this.#ownRoutes?.table.disown();
  }

  /** Stages over what the plan says. */
  stages(desired: () => Desired | undefined): AnyStage[] {
    const routes = new SwitchedRoutes(() => this.#isAlone ? this.#ownRoutes?.table : undefined, {
      freshMs: () => this.#hosts * APART_MS,
    });
    return [
      ...(this.#checks === undefined ? [] : [{
        table: this.#checks,
        desired: () => this.#seesToCheck ? desired()?.host.sourceDestChecks : [],
      }]),
      {
        table: routes,
        // The leader looks at the others.
        desired: () => this.#isAlone ? desired()?.host.cloudRoutes : [],
      },
    ];
  }

  /** Gathers facts before a round. */
  async gather(own: Lease, peers: Peers, options: CallOptions): Promise<void> {
    this.#hosts = peers.size + 1;
    if (this.#isAlone) {
      this.#ownRoutes ??= await this.#openOwnRoutes(options);
      const { instanceId } = this.#options.cloud.instance;
      const hosts = { instanceId, own, peers: [...peers] };
      const routeTableIds = await scopeOwnRoutes(this.#ownRoutes, hosts, options);
      const { value: facts } = this.facts;
      if (!sameItems(facts.routeTableIds, routeTableIds)) {
        this.facts.set({ ...facts, routeTableIds });
      }
    }
    this.#setOverflow();
  }

  /** Why this host is not reached yet; `undefined` if it is. */
  waitingFor(): Finding | undefined {
    return this.#isAlone ? undefined : this.#missing();
  }

  /** The entry that keeps the leader from routing the own subnet. */
  blockedBy({ subnet: { ipv4 } }: Lease): string | undefined {
    if (this.#covered?.state !== "unrouted" || ipv4 === undefined) return undefined;
    return occupiedPlaces(this.#follower?.summary?.occupied ?? []).find(ipv4)?.what;
  }

  /** Follows what is published, and leads when it is this host's turn. */
  async run(context: Cluster, { signal }: CallOptions): Promise<void> {
    const { cloud: { instance: { instanceId } }, store, mayLead, log } = this.#options;
    const { leases, own } = context;
    const follower = this.#follower = new ClusterFollower({
      store,
      leaseKey: () => own().key,
      onChange: () => {
        statements.summaryChanged();
        this.#wakeup.wake();
      },
      log,
    });
    const statements = new SubnetStatements({
      store,
      instanceId,
      subnet: () => own().subnet.ipv4,
      summary: () => follower.summary,
      log,
    });
    const { election, unserved } = this.#opened;
    const leader = this.#leader = new ClusterLeader({ ...this.#options, leases, election });
    clearTimeout(unserved);
    election.candidate = mayLead;
    await Promise.all([
      follower.run({ signal }),
      statements.run({ signal }),
      ...(mayLead ? [leader.run({ signal })] : []),
      this.#watch(context, { signal }),
    ]);
  }

  status(): CloudStatus {
    const { cloud: { instance, credentialsSource }, store } = this.#options;
    const { summary } = this.#follower ?? {};
    const leading = this.#leader?.status();
    const { vacantMs } = this.#opened.election;
    const place = this.#covered;
    return {
      instance: instance.instanceId,
      network: instance.vpcId,
      ...(credentialsSource ? { credentials: credentialsSource } : {}),
      role: leading ? "leader" : this.#isAlone ? "own routes" : "host",
      ...(this.#isAlone ? { ownTables: this.facts.value.routeTableIds } : {}),
      ...(place ? { place } : {}),
      leader: { holder: summary?.writer, ...(vacantMs ? { vacantMs } : {}) },
      ...(summary ? { cluster: clusterStatus(summary, store) } : {}),
      ...(leading ? { leading } : {}),
    };
  }

  /** Whether this host looks after the check of its interface itself. */
  get #seesToCheck(): boolean {
    return this.#isAlone ||
      (this.#options.mayLead && this.#uncheckedMs >= this.#checkPatienceMs);
  }

  get #checkPatienceMs(): number {
    return CHECK_PATIENCE_MS + this.#position * this.#hosts * CHECK_SPREAD_MS;
  }

  /** For how long the leader has routed this host without having seen its check off. */
  get #uncheckedMs(): number {
    return this.#uncheckedSince === undefined ? 0 : performance.now() - this.#uncheckedSince;
  }

  /** What the leader says of this host, if it means this instance. */
  get #covered(): HostStatus | undefined {
    const status = this.#follower?.own;
    return status?.instanceId === this.#options.cloud.instance.instanceId ? status : undefined;
  }

  get #needsCheck(): boolean {
    return this.#checks !== undefined && !this.#covered?.checkOff;
  }

  /** Why the route is not there yet; `undefined` if it is, or the tunnel replaces it. */
  #missing(): Finding | undefined {
    const { instance, routes: { words } } = this.#options.cloud;
    const summary = this.#follower?.summary;
    const status = this.#covered;
    const object = instance.instanceId;
    const waits = (message: string): Finding => ({ code: "cloud-waiting", object, message });
    const isWaiting = status === undefined || status.state === "pending";
    if (isWaiting && (this.#opened.election.vacantMs ?? 0) > 0) {
      return {
        code: "no-leader",
        object: "cluster",
        message: "no host writes the routes of the cluster at present",
        remedy: `one that may must run (${words.rights})`,
      };
    }
    const leader = summary?.writer === instance.instanceId
      ? "this host, as the route leader,"
      : `the route leader${summary ? ` ${summary.writer}` : ""}`;
    if (status === undefined) {
      const trouble = summary?.trouble ? `: ${summary.trouble}` : "";
      return waits(`${leader} has not taken up this host yet${trouble}`);
    }
    const why = status.reason ?? summary?.trouble;
    if (status.state === "unrouted") {
      const message = `there is no route to this host: ${why}`;
      return { code: "cloud-unrouted", object, message };
    }
    if (status.state === "pending") {
      return waits(
        why === undefined
          ? `${leader} has not set the route to this host yet`
          : `${leader} cannot set the route to this host: ${why}`,
      );
    }
    if (this.#needsCheck && !this.#seesToCheck) {
      const { networkInterfaceId } = instance;
      return {
        code: "check-enabled",
        object: networkInterfaceId,
        message: `${leader} has not seen the source/destination check of ${networkInterfaceId} ` +
          `off yet`,
      };
    }
    return undefined;
  }

  async #openOwnRoutes({ signal }: CallOptions): Promise<OwnRoutes> {
    const { cloud, network, log } = this.#options;
    const access = await cloud.connect({ signal });
    const clusterId = await this.#findClusterId({ signal });
    // Alone, a host knows no entries but those of its own subnet where these carry no mark.
    const bookless = cloud.routes.hasMarks ? {} : { isBooked: () => false };
    const { routes: api, clock, instance: { instanceId } } = cloud;
    const mark = { clusterId, network, ...bookless };
    return { table: new RouteTable({ ...clock, api, mark, instanceId, log }), access };
  }

  /** As the store has it, or had it last: a host writes its route without the store, too. */
  async #findClusterId({ signal }: CallOptions): Promise<string> {
    try {
      return this.#clusterId = await ensureClusterId(this.#options.store, { signal });
    } catch (error) {
      signal.throwIfAborted();
      const known = this.#clusterId ?? this.#follower?.summary?.cluster;
      if (known === undefined || !(error instanceof StoreError)) throw error;
      return known;
    }
  }

  #setOverflow(): void {
    const summary = this.#follower?.summary;
    if (summary === undefined || this.#options.config.overflow === "none") return;
    const { value: facts } = this.facts;
    const { overflow: now } = facts;
    const keys = new Set(summary.overflow);
    const same = summary.vtep === (now?.vtep ?? false) &&
      keys.symmetricDifference(now?.keys ?? new Set()).size === 0;
    if (!same) this.facts.set({ ...facts, overflow: { keys, vtep: summary.vtep } });
  }

  /** Notes whenever something that concerns this host has changed. */
  async #watch({ leases, own }: Cluster, { signal }: CallOptions): Promise<never> {
    let before = "";
    for (;;) {
      const dueMs = this.#decide(leases.size);
      this.#setOverflow();
      const now = JSON.stringify([
        this.#isAlone,
        this.#missing(),
        this.#seesToCheck,
        this.blockedBy(own()),
      ]);
      if (now !== before) this.#changes.set(this.#changes.value + 1);
      before = now;
      await this.#wakeup.sleep(dueMs, { signal });
    }
  }

  /** Decides who writes this host's route; returns when to decide again. */
  #decide(hosts: number): number {
    const { config, mayLead, log } = this.#options;
    const now = performance.now();
    this.#uncoveredSince = this.#covered === undefined ? this.#uncoveredSince ?? now : undefined;
    if (!mayLead) return Infinity;
    const { state } = this.#covered ?? {};
    const isUnchecked = this.#needsCheck && (state === "routed" || state === "overflow");
    this.#uncheckedSince = isUnchecked ? this.#uncheckedSince ?? now : undefined;
    const longestMs = Math.max(
      this.#uncoveredSince === undefined ? 0 : now - this.#uncoveredSince,
      this.#opened.election.vacantMs ?? 0,
      this.#follower?.blindMs ?? 0,
    );
    const tunnels = config.overflow === "vxlan";
    const patienceMs = leaderPatienceMs({ state, tunnels, hosts, position: this.#position });
    // Once begun it goes on, however many hosts come, until all is well.
    const isAlone = patienceMs < Infinity && longestMs > 0 &&
      (this.#isAlone || longestMs >= patienceMs);
    if (isAlone !== this.#isAlone) {
      this.#isAlone = isAlone;
      // The store's id may be another one by now.
      this.#ownRoutes = undefined;
      log.info(
        isAlone
          ? "No route leader maintains this host's route: it does so itself until one does"
          : "A route leader maintains this host's route again",
      );
    }
    return Math.min(
      ...(longestMs === 0 || isAlone ? [] : [patienceMs - longestMs]),
      ...(isUnchecked && !this.#seesToCheck ? [this.#checkPatienceMs - this.#uncheckedMs] : []),
    );
  }
}

function clusterStatus(
  { cluster: id, term, trouble, tables, overflow, occupied, orphans, brake }: ClusterSummary,
  store: ClusterStore,
): ClusterStatus {
  return {
    id,
    term,
    ...(trouble === undefined ? {} : { trouble }),
    tables,
    overflow,
    ...(occupied ? { occupied: occupied.map(({ entry }) => entry) } : {}),
    orphans,
    ...(brake ? { held: { routes: brake.routes, approve: approvalCommand(store, brake) } } : {}),
  };
}

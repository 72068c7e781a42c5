/** What the leader does in one term: it keeps all hosts' routes, and publishes what it finds. @module */
import { describeError } from "../../errors.ts";
import { encodeLeaseKey } from "../../lease/codec.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import { type AnyStage, Reconciler } from "../../reconcile/reconciler.ts";
import type { LeadingStatus, ReconcilerStatus } from "../../status/model.ts";
import { sentenceOf } from "../../status/problems.ts";
import type { Table } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { Term } from "../../store/election.ts";
import { StoreError } from "../../store/errors.ts";
import { childSignal } from "../../util/child_signal.ts";
import { Backoff, delay } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { claimReader } from "./claims.ts";
import { ClaimStore } from "./claim_store.ts";
import { Clearance } from "./clearance.ts";
import { reactionTo } from "./cloud_error.ts";
import { OtherClusterError, requireClusterId } from "./cluster_identity.ts";
import { type ClusterClaim, type ClusterPlan, inFullBatches, planCluster } from "./cluster_plan.ts";
import type { ClusterState } from "./cluster_state.ts";
import type { ClusterStore } from "./cluster_store.ts";
import type { CloudRoutesConfig, ReadClaim } from "./config.ts";
import { LeaseEnds } from "./lease_ends.ts";
import { findHolder } from "./lease_holders.ts";
import { LeaseRest } from "./lease_rest.ts";
import { findOccupied } from "./occupied.ts";
import type { ChosenTables, Cloud, CloudAccess, CloudRoute } from "./provider.ts";
import { ClusterPublication, OvertakenError } from "./publication.ts";
import { type ClusterMark, keyOf, makerOf } from "./route_entry.ts";
import { RouteTable } from "./route_table.ts";
import { ShownLimits } from "./route_view.ts";
import { makeChecks, type SourceDestCheckTable } from "./source_dest_check.ts";
import { logTableFill } from "./table_quota.ts";

export interface LeaderTermOptions {
  readonly cloud: Cloud;
  readonly store: ClusterStore;
  readonly config: CloudRoutesConfig;
  readonly readClaim: ReadClaim;
  readonly network: Prefix;
  readonly leases: LeaseMap;
  readonly log: Logger;
}

/** Views change with every reply; they are published this often at most. */
export const PUBLISH_EVERY_MS = 300;
/**
 * The tunnel's device outlives the last host in overflow by this: some hosts hear of it late, and
 * connections that began through it end with its address.
 */
const VTEP_LINGERS_MS = 10 * 60_000;
/** A leader to whom the cloud returns nothing gives another host the chance. */
const HELPLESS_MS = 30_000;
const WATCH_CLOUD_MS = 2_000;

class HelplessError extends Error {
  override name = "HelplessError";
}

/** One term: a reconciler for the route tables, one for interfaces, and the publication. */
export class LeaderTerm {
  readonly #options: LeaderTermOptions;
  readonly #access: CloudAccess;
  readonly #term: Term;
  readonly #publication: ClusterPublication;
  readonly #routes: RouteTable;
  readonly #reconciler: Reconciler;
  /** Of its own, so that trouble with interfaces holds up no route. */
  readonly #checking: Reconciler | undefined;
  readonly #due = new Wakeup();
  readonly #logFill: (state: ClusterState) => void;
  readonly #checks: SourceDestCheckTable | undefined;
  readonly #rest: LeaseRest;
  readonly #clusterId: string;
  readonly #mark: ClusterMark;
  readonly #readClaims: () => readonly ClusterClaim[];
  readonly #book: ClaimStore;
  readonly #ends: LeaseEnds;
  readonly #clearance: Clearance;
  /** How often the leases had been read as a whole when they last changed. */
  #replacements = -1;
  #claims: readonly ClusterClaim[] = [];
  #chosen: ChosenTables;
  #listed: readonly CloudRoute[] = [];
  #former: ClusterState | undefined;
  /** More leases are about to come: what does not fill a batch waits for them. */
  #moreToCome = false;
  /** What the last round was to bring about, or is asked of the next one. */
  #wanted = "";
  #overflowAt = -Infinity;
  readonly #limits = new ShownLimits();
  #trouble: string | undefined;
  #helplessSince: number | undefined;
  #fail: (error: Error) => void = () => {};
  #onWorking = () => {};

  constructor(
    options: LeaderTermOptions,
    { access, term, clusterId }: {
      readonly access: CloudAccess;
      readonly term: Term;
      readonly clusterId: string;
    },
  ) {
    const { cloud, config, network, store, leases, readClaim, log } = options;
    const { routes: api, instance: { vpcId, instanceId } } = cloud;
    this.#options = options;
    this.#book = new ClaimStore(store, { log });
    this.#clusterId = clusterId;
    const { hasMarks } = api;
    this.#mark = {
      clusterId,
      network,
      ...(hasMarks ? {} : {
        isBooked: (destination, id) => this.#book.get(String(destination), id) !== undefined,
      }),
    };
    this.#readClaims = claimReader(leases, vpcId, readClaim);
    this.#ends = new LeaseEnds(leases);
    this.#rest = new LeaseRest(leases);
    this.#access = access;
    this.#term = term;
    this.#chosen = { routeTableIds: access.routeTableIds, otherTableIds: [] };
    this.#publication = new ClusterPublication(store, { log });
    this.#logFill = logTableFill(log, api, config.overflow);
    this.#routes = new RouteTable({
      ...cloud.clock,
      api,
      log,
      mark: this.#mark,
      mayTake: (route) => this.#clearance.mayTake(route),
      graceMs: config.routeGraceSeconds * 1_000,
      fence: (each) => term.confirm(each),
      onView: () => this.#due.wake(),
    });
    this.#clearance = new Clearance({
      store,
      clusterId,
      book: this.#book,
      orphans: this.#routes.orphans,
      instanceExists: (id, each) => cloud.instanceExists(id, each),
      ownInstanceId: instanceId,
      holderOf: (destination) => findHolder(leases, destination, readClaim),
      hasEnded: (destination, instance) => this.#ends.has(destination, instance),
      log: log.child("routes"),
    });
    const checks = this.#checks = makeChecks(cloud, config, {
      interfaces: () => this.#claims.map((claim) => ({ ...claim, vpcId })),
      onLook: () => this.#due.wake(),
      log,
    });
    this.#reconciler = new Reconciler({
      name: "routes of the cluster",
      stages: [this.#routesStage()],
      resyncMs: config.resyncSeconds * 1_000,
      prepare: ({ signal }) => this.#look(signal),
      log: log.child("routes"),
      onReport: (report) => this.#judge(report),
    });
    this.#checking = checks && new Reconciler({
      name: "checks of the cluster",
      stages: [{ table: checks, desired: () => checks.allOff() }],
      resyncMs: config.resyncSeconds * 1_000,
      prepare: ({ signal }) => this.#rest.reached({ signal }),
      log: log.child("checks"),
      onReport: () => this.#due.wake(),
    });
  }

  leasesChanged(): void {
    const { replacements } = this.#options.leases;
    if (replacements !== this.#replacements) {
      this.#replacements = replacements;
      this.#book.forget();
      this.#clearance.askAnew();
    }
    const claims = this.#readClaims();
    this.#ends.changed(claims);
    const same = claims.length === this.#claims.length &&
      claims.every((claim, at) => claim === this.#claims[at]);
    if (!same) this.#claims = claims;
    // A round may be in the middle of a write that waits for minutes, and is not wanted any more.
    if (this.#routes.view.tables.size > 0) this.#setScope();
    this.#rest.changed(!same);
    if (same) return;
    this.#reconciler.desiredChanged();
    this.#checking?.desiredChanged();
    this.#due.wake();
  }

  status(): LeadingStatus {
    const hosts = Object.groupBy(this.#former?.hosts.values() ?? [], ({ state }) => state);
    return {
      hosts: Object.fromEntries(
        Object.entries(hosts).map(([state, { length }]) => [state, length]),
      ),
      round: this.#reconciler.report,
    };
  }

  /** Runs until the term is over, or rejects for what makes another host the better leader. */
  async run(signal: AbortSignal, onWorking: () => void): Promise<never> {
    using scope = childSignal(signal);
    this.#onWorking = onWorking;
    const failed = new Promise<never>((_, reject) => this.#fail = reject);
    this.#former = await this.#publication.read({ signal: scope.signal });
    this.#routes.orphans.seed(this.#former?.summary.orphans ?? []);
    this.#clearance.seed(this.#former?.summary.brake);
    if (this.#former?.summary.vtep) this.#overflowAt = performance.now();
    this.leasesChanged();
    const running = [
      failed,
      this.#reconciler.run({ signal: scope.signal }),
      ...(this.#checking ? [this.#checking.run({ signal: scope.signal })] : []),
      this.#publish(scope.signal),
      this.#watchCloud(scope.signal),
    ];
    try {
      return await Promise.race(running);
    } finally {
      scope.abort(new Error("The leader's term has ended"));
      this.#fail(new Error("The leader's term has ended"));
      await Promise.allSettled(running);
    }
  }

  /** A round that has begun to write waits for minutes, which another host need not. */
  async #watchCloud(signal: AbortSignal): Promise<never> {
    const { silence, routes: { words } } = this.#options.cloud;
    // What a former term heard does not count.
    silence.over();
    for (;;) {
      await delay(WATCH_CLOUD_MS, { signal });
      if (silence.ms > HELPLESS_MS) {
        this.#fail(new HelplessError(`${words.service} does not respond`));
      }
    }
  }

  #routesStage(): AnyStage {
    // The plan follows from what the tables hold: they are read before it is made.
    const routes = this.#routes;
    const listed: Table<CloudRoute> = {
      kind: routes.kind,
      list: () => Promise.resolve(this.#listed),
      apply: async (changes, options) => {
        const failed = await routes.apply(changes, options);
        const denied = failed.find(({ error }) => reactionTo(error) === "denied");
        // Where there are other hosts, one of them may have the right.
        if (denied !== undefined && this.#claims.length > 1) this.#fail(denied.error);
        return failed;
      },
    };
    const desired = () => {
      // Leases may have come while the tables were read.
      this.#setScope();
      const { routes } = this.#plan();
      this.#wanted = describeRoutes(routes);
      if (!this.#moreToCome) return routes;
      const { entries } = this.#routes.view;
      const now = inFullBatches(routes, this.#batch, (route) => entries.has(keyOf(route)));
      if (now.length < routes.length) this.#reconciler.desiredChanged();
      return now;
    };
    return { table: listed, desired };
  }

  /** How many entries are worth a write of their own while more are to come. */
  get #batch(): number {
    return this.#options.cloud.routes.batches?.maxEntries ??
      this.#options.cloud.routes.writesAtOnce;
  }

  /** Whether so many claims are new that some table gets a full batch. */
  #fillBatch(): boolean {
    const { entries } = this.#routes.view;
    return this.#chosen.routeTableIds.some((routeTableId) => {
      const isNew = ({ destination }: ClusterClaim) =>
        !entries.has(keyOf({ routeTableId, destination }));
      return this.#claims.filter(isNew).length >= this.#batch;
    });
  }

  /** Reads the tables once leases have come to rest, or fill a batch. */
  async #look(signal: AbortSignal): Promise<void> {
    this.#moreToCome = !await this.#rest.reached({ signal }, () => this.#fillBatch());
    const leases = [...this.#options.leases.leases()];
    this.#chosen = await this.#access.tablesFor(leases, { signal });
    this.#setScope();
    this.#listed = await this.#routes.list({ signal });
    await this.#book.keep(this.#claims, this.#routes.view, this.#chosen, { signal });
    const { strays, ours } = this.#strays();
    try {
      await this.#clearance.look(strays, ours, { signal });
    } catch (error) {
      signal.throwIfAborted();
      if (!(error instanceof OtherClusterError || error instanceof StoreError)) throw error;
      // The rest of the round depends on no store; nothing is taken away meanwhile.
      if (error instanceof OtherClusterError) this.#fail(error);
      this.#options.log.debug("Cannot judge entries without a lease", {
        error: describeError(error),
      });
    }
  }

  /** Entries of ours that lead to instances without a lease for their subnet; how many are ours. */
  #strays(): { readonly strays: readonly CloudRoute[]; readonly ours: number } {
    const ours = this.#listed.filter((entry) => makerOf(entry, this.#mark) === "ours");
    return {
      strays: ours.filter((entry) => this.#routes.isStray(entry)),
      ours: new Set(ours.map(({ destination }) => String(destination))).size,
    };
  }

  #setScope(): void {
    const { leases, readClaim } = this.#options;
    this.#routes.setScope({
      ...this.#chosen,
      claims: this.#claims,
      isLeased: (destination) => findHolder(leases, destination, readClaim).is !== "nobody",
    });
  }

  #plan(): ClusterPlan {
    const { config, cloud } = this.#options;
    const now = performance.now();
    const plan = planCluster({
      claims: this.#claims,
      routeTableIds: this.#chosen.routeTableIds,
      view: { ...this.#routes.view, tables: this.#limits.of(this.#routes.view.tables) },
      owns: (entry) => this.#routes.kind.owns(entry),
      cluster: this.#clusterId,
      strays: this.#clearance.report,
      occupied: findOccupied({
        entries: this.#routes.view.entries.values(),
        routeTableIds: this.#chosen.routeTableIds,
        network: this.#options.network,
        claims: this.#claims,
        isLeased: (destination) =>
          this.#options.leases.get(encodeLeaseKey({ ipv4: destination })) !== undefined,
        owns: (entry) => this.#routes.kind.owns(entry),
      }),
      isCheckOff: (id) => cloud.interfaces === undefined || this.#checks?.isOff(id),
      former: this.#former,
      api: cloud.routes,
      overflow: config.overflow,
      routeQuota: config.routeQuota,
      vtepLingers: now - this.#overflowAt < VTEP_LINGERS_MS,
      now,
      term: this.#term.id,
      writer: cloud.instance.instanceId,
      trouble: this.#trouble,
    });
    if (plan.state.summary.overflow.length > 0) this.#overflowAt = now;
    return plan;
  }

  /** Publishes what has changed, soon after it has. */
  async #publish(signal: AbortSignal): Promise<never> {
    const backoff = new Backoff({ initialMs: 500, maxMs: 5_000 });
    const { config } = this.#options;
    let readAt = performance.now();
    for (;;) {
      const { count, dueMs } = this.#ends;
      await this.#due.sleep(Math.min(config.resyncSeconds * 1_000, dueMs), { signal });
      // What stands in the way of a new host need not wait for the next resync.
      if (this.#ends.count > count) this.#reconciler.desiredChanged();
      // Now and then, what somebody did to the documents is undone.
      if (performance.now() - readAt >= config.resyncSeconds * 1_000) {
        await this.#reread(signal);
        readAt = performance.now();
      }
      await delay(PUBLISH_EVERY_MS, { signal });
      if (this.#routes.view.tables.size === 0 && this.#trouble === undefined) continue;
      const { state, routes } = this.#plan();
      // What was refused, or has become free, changes who is to have an entry.
      const wanted = describeRoutes(routes);
      if (wanted !== this.#wanted) {
        // Only once: a round that cannot even look is repeated at the reconciler's pace.
        this.#wanted = wanted;
        this.#reconciler.desiredChanged();
      }
      try {
        await this.#publication.publish(state, { signal });
        backoff.reset();
      } catch (error) {
        signal.throwIfAborted();
        if (error instanceof OvertakenError) this.#fail(error);
        this.#options.log.debug("Cannot publish the state of the routes", {
          error: describeError(error),
        });
        await backoff.wait({ signal });
        // A write whose outcome is unknown may stand.
        await this.#reread(signal);
        this.#due.wake();
        continue;
      }
      this.#former = state;
      this.#logFill(state);
    }
  }

  async #reread(signal: AbortSignal): Promise<void> {
    try {
      await requireClusterId(this.#options.store, this.#clusterId, { signal });
      const found = await this.#publication.read({ signal });
      const foreign = found !== undefined && found.summary.term !== this.#term.id &&
        found.summary.term !== this.#former?.summary.term;
      if (foreign) this.#fail(new OvertakenError("another daemon is the route leader"));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OtherClusterError) this.#fail(error);
      this.#options.log.debug("Cannot read the state of the routes", {
        error: describeError(error),
      });
    }
  }

  /** Notes whether the cloud lets this host work at all. */
  #judge({ unseen, problems, inSync }: ReconcilerStatus): void {
    const [problem] = problems.map(sentenceOf);
    const now = performance.now();
    if (inSync) this.#onWorking();
    const trouble = unseen ? problem : undefined;
    if (trouble !== this.#trouble) {
      this.#trouble = trouble;
      this.#due.wake();
    }
    this.#helplessSince = unseen ? this.#helplessSince ?? now : undefined;
    if (this.#helplessSince !== undefined && now - this.#helplessSince > HELPLESS_MS) {
      this.#fail(new HelplessError(problem));
    }
    this.#due.wake();
  }
}

function describeRoutes(routes: readonly CloudRouteSpec[]): string {
  return routes.map(({ routeTableId, destination, instanceId }) =>
    `${routeTableId} ${destination} ${instanceId}`
  ).join();
}

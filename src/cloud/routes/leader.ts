import { type AliVpcConfig, readAliVpcClaim } from "../../backends/mod.ts";
import { AliApiError } from "../ali/errors.ts";
import type { AliVpcAccess } from "../ali/access.ts";
import { MAX_BATCH } from "../ali/client.ts";
import { type ClusterClaim, type ClusterPlan, planCluster } from "./cluster_plan.ts";
import type { Brake, ClusterState } from "./cluster_state.ts";
import { findOccupied } from "./occupied.ts";
import type { AliVpcIdentity } from "../ali/identify.ts";
import { type CloudRoute, keyOf, markOf } from "./route_entry.ts";
import type { RouteTable, TableView } from "./route_table.ts";
import type { SourceDestCheckTable } from "./source_dest_check.ts";
import type { ChosenTables } from "../ali/table_choice.ts";
import { describeError, OperatorError } from "../../errors.ts";
import { encodeLeaseKey } from "../../lease/codec.ts";
import type { Lease } from "../../lease/lease.ts";
import type { LeaseMap } from "../../lease/lease_map.ts";
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import { type AnyStage, Reconciler, type RoundReport } from "../../reconcile/reconciler.ts";
import type { Table } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { Election, Term } from "../../store/etcd/election.ts";
import { StoreError } from "../../store/errors.ts";
import type { Registry } from "../../store/etcd/key_space.ts";
import { abortable } from "../../util/abortable.ts";
import { childSignal } from "../../util/child_signal.ts";
import { StateReporter } from "../../util/state_reporter.ts";
import { Backoff, delay } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { ClaimStore } from "./claim_store.ts";
import { Clearance } from "./clearance.ts";
import { ensureClusterId, OtherClusterError, requireClusterId } from "./cluster_identity.ts";
import { ClusterPublication, OvertakenError } from "./publication.ts";
import { LeaseEnds } from "./lease_ends.ts";
import { findHolder } from "./lease_holders.ts";
import { TableFill } from "./table_fill.ts";

/** Options of {@linkcode ClusterWriter}. */
export interface ClusterWriterOptions {
  readonly identity: AliVpcIdentity;
  readonly election: Election;
  readonly registry: Pick<Registry, "space">;
  readonly config: AliVpcConfig;
  readonly network: Prefix;
  /** What a person runs to let held removals go. */
  readonly approvalCommand: (brake: Brake) => string;
  readonly leases: LeaseMap;
  readonly log: Logger;
}

/**
 * New leases are waited for this long, so that hosts that come together get one batch; not by those
 * that fill one.
 */
const QUIET_MS = 1_000;
const MAX_QUIET_MS = 8_000;
/** Views change with every answer; so often at most they are published. */
const PUBLISH_EVERY_MS = 300;
/**
 * How long the tunnel's device outlives the last host in overflow: some hosts hear of it late, and
 * hosts' own connections that began through it end with its address.
 */
const VTEP_LINGERS_MS = 10 * 60_000;
/** A writer that the service does not answer gives another host the chance. */
const HELPLESS_MS = 30_000;
const WATCH_SERVICE_MS = 2_000;
/**
 * Long enough for any other candidate to take the office. No longer, as it must not stay vacant when
 * none fares better: then every host would look after its own route, and call the service for it.
 */
const HELPLESS_PAUSE_MS = 30_000;
/** The store, without which nobody could write, did not tell what was published before. */
const STORE_PAUSE_MS = 5_000;
/** One that may not write, or is told that it must not, tries again only now and then. */
const DENIED_PAUSE_MS = 15 * 60_000;

/**
 * Keeps the route entries of the whole cluster while this daemon holds the office: one reconciler
 * over all tables and interfaces, and what it finds published for every host.
 *
 * ```text
 *   leases ──► claims ─┐
 *   tables (list) ─────┼─► planCluster() ─┬─► desired entries ─► Reconciler ─► batches of writes
 *   published before ──┘                  └─► state ─► <prefix>/ali-vpc/…, read by all hosts
 * ```
 */
export class ClusterWriter {
  readonly #options: ClusterWriterOptions;
  readonly #office = new Wakeup();
  readonly #trouble: StateReporter;
  #service: Service | undefined;

  constructor(options: ClusterWriterOptions) {
    this.#options = options;
    this.#trouble = new StateReporter(options.log, {
      failed: "Cannot act as the route writer",
      andThen: "; leaving it to another host",
      recovered: "Can act as the route writer again",
    });
  }

  /** To be called when the office may have been won. */
  electionChanged(): void {
    this.#office.wake();
  }

  /** To be called when leases have changed. */
  leasesChanged(): void {
    this.#service?.leasesChanged();
  }

  /** For the status page; `undefined` out of office. */
  status(): Record<string, unknown> | undefined {
    return this.#service?.status();
  }

  /** Serves each term that is won, until `signal` aborts. */
  async run({ signal }: { signal: AbortSignal }): Promise<void> {
    const { election } = this.#options;
    while (!signal.aborted) {
      const { term } = election;
      if (term === undefined || term.signal.aborted) {
        await this.#office.sleep(Infinity, { signal });
        continue;
      }
      const pauseMs = await this.#serve(term, signal);
      if (pauseMs !== undefined) await this.#resign(pauseMs, signal);
    }
  }

  /** Should the store not hear of it, the office is free once the key has expired. */
  async #resign(pauseMs: number, signal: AbortSignal): Promise<void> {
    const { election, log } = this.#options;
    try {
      await election.resign({ signal, pauseMs });
    } catch (error) {
      signal.throwIfAborted();
      log.debug("Cannot give the office of the route writer back", {
        error: describeError(error),
      });
    }
  }

  /** Serves a term; answers for how long to stand back, if it was not the term that ended. */
  async #serve(term: Term, signal: AbortSignal): Promise<number | undefined> {
    using scope = childSignal(AbortSignal.any([signal, term.signal]));
    const { identity, registry, log } = this.#options;
    try {
      const access = await identity.connect({ signal: scope.signal });
      const clusterId = await ensureClusterId(registry, { signal: scope.signal });
      const service = new Service(this.#options, { access, term, clusterId });
      this.#service = service;
      log.info("This host writes the routes of the cluster", { term: term.id });
      return await service.run(scope.signal, () => this.#trouble.working());
    } catch (error) {
      signal.throwIfAborted();
      if (term.signal.aborted) {
        log.info("Another host may write the routes of the cluster now", {
          reason: describeError(term.signal.reason),
        });
        return undefined;
      }
      if (error instanceof OvertakenError) {
        log.info("Another host writes the routes of the cluster now");
        return PUBLISH_EVERY_MS;
      }
      if (error instanceof OtherClusterError) {
        log.warn(`Begins anew as the route writer: ${error.message}`);
        return PUBLISH_EVERY_MS;
      }
      this.#trouble.failing(error);
      if (error instanceof StoreError) return STORE_PAUSE_MS;
      return error instanceof OperatorError || isDenied(error)
        ? DENIED_PAUSE_MS
        : HELPLESS_PAUSE_MS;
    } finally {
      this.#service = undefined;
    }
  }
}

/** The service does not answer, or refuses everything. */
class HelplessError extends Error {
  override name = "HelplessError";
}

/** One term of the office. */
class Service {
  readonly #options: ClusterWriterOptions;
  readonly #access: AliVpcAccess;
  readonly #term: Term;
  readonly #publication: ClusterPublication;
  readonly #routes: RouteTable;
  readonly #reconciler: Reconciler;
  /** Of its own, so that trouble with interfaces holds up no route. */
  readonly #checking: Reconciler | undefined;
  readonly #due = new Wakeup();
  readonly #fill: TableFill;
  readonly #checks: SourceDestCheckTable;
  readonly #leasesKnown = Promise.withResolvers<void>();
  readonly #clusterId: string;
  readonly #book: ClaimStore;
  readonly #ends: LeaseEnds;
  readonly #clearance: Clearance;
  /** How often the leases had been read as a whole when they last changed. */
  #replacements = -1;
  #claims: readonly ClusterClaim[] = [];
  #claimsChangedAt = -Infinity;
  #chosen: ChosenTables;
  #listed: readonly CloudRoute[] = [];
  #former: ClusterState | undefined;
  /** The claims of leases that were read before; an unchanged lease is the same object. */
  readonly #claimOf = new WeakMap<Lease, ClusterClaim | "none">();
  /** More leases are about to come: what would not fill a batch waits for them. */
  #moreToCome = false;
  /** What the last round was to bring about, or is asked of the next one. */
  #wanted = "";
  #overflowAt = -Infinity;
  readonly #refusals = new Map<string, NonNullable<TableView["full"]>>();
  #trouble: string | undefined;
  #helplessSince: number | undefined;
  #fail: (error: Error) => void = () => {};
  #onWorking = () => {};

  constructor(
    options: ClusterWriterOptions,
    { access, term, clusterId }: {
      readonly access: AliVpcAccess;
      readonly term: Term;
      readonly clusterId: string;
    },
  ) {
    const { identity, config, network, registry, leases, log } = options;
    this.#options = options;
    this.#clusterId = clusterId;
    this.#book = new ClaimStore(registry, { log });
    this.#ends = new LeaseEnds(leases);
    this.#access = access;
    this.#term = term;
    this.#chosen = { routeTableIds: access.routeTableIds, otherTableIds: [] };
    this.#publication = new ClusterPublication(registry, { log });
    this.#fill = new TableFill(log, { overflow: config.overflow });
    this.#routes = access.makeRouteTable({
      mark: { clusterId, network },
      mayTake: (route) => this.#clearance.mayTake(route),
      graceMs: config.routeGraceSeconds * 1_000,
      fence: (each) => term.confirm(each),
      onView: () => this.#due.wake(),
    });
    const { vpcId, instanceId } = identity.instance;
    this.#clearance = new Clearance({
      registry,
      approvalCommand: options.approvalCommand,
      clusterId,
      book: this.#book,
      orphans: this.#routes.orphans,
      instanceExists: (id, each) => identity.instanceExists(id, each),
      ownInstanceId: instanceId,
      holderOf: (destination) => findHolder(leases, destination),
      hasEnded: (destination, instance) => this.#ends.has(destination, instance),
      log: log.child("routes"),
    });
    this.#checks = identity.makeSourceDestCheck(
      () => this.#claims.map((claim) => ({ ...claim, vpcId })),
      { onLook: () => this.#due.wake() },
    );
    this.#reconciler = new Reconciler({
      name: "routes of the cluster",
      stages: [this.#routesStage()],
      resyncMs: config.resyncSeconds * 1_000,
      prepare: ({ signal }) => this.#look(signal),
      log: log.child("routes"),
      onReport: (report) => this.#judge(report),
    });
    this.#checking = config.sourceDestCheck === "ignore" ? undefined : new Reconciler({
      name: "checks of the cluster",
      stages: [{ table: this.#checks, desired: () => this.#checks.allOff() }],
      resyncMs: config.resyncSeconds * 1_000,
      prepare: ({ signal }) => this.#leasesAtRest(signal),
      log: log.child("checks"),
      onReport: () => this.#due.wake(),
    });
  }

  leasesChanged(): void {
    if (this.#options.leases.complete) this.#leasesKnown.resolve();
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
    if (same) return;
    this.#claimsChangedAt = performance.now();
    this.#reconciler.desiredChanged();
    this.#checking?.desiredChanged();
    this.#due.wake();
  }

  status(): Record<string, unknown> {
    const hosts = Object.groupBy(this.#former?.hosts.values() ?? [], ({ state }) => state);
    return {
      hosts: Object.fromEntries(
        Object.entries(hosts).map(([state, { length }]) => [state, length]),
      ),
      ...this.#reconciler.report,
    };
  }

  /** Runs until the term is over, or rejects for what makes another host the better writer. */
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
      this.#watchService(scope.signal),
    ];
    try {
      return await Promise.race(running);
    } finally {
      scope.abort(new Error("The term of the route writer has ended"));
      this.#fail(new Error("The term of the route writer has ended"));
      await Promise.allSettled(running);
    }
  }

  /** A round that has begun to write waits for minutes, which another host need not. */
  async #watchService(signal: AbortSignal): Promise<never> {
    const { vpcSilence } = this.#options.identity;
    // What a former term heard is of no account.
    vpcSilence.over();
    for (;;) {
      await delay(WATCH_SERVICE_MS, { signal });
      if (vpcSilence.ms > HELPLESS_MS) {
        this.#fail(new HelplessError("the VPC service does not answer"));
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
        const denied = failed.find(({ error }) => isDenied(error));
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
      const now = inFullBatches(routes, (route) => this.#routes.view.entries.has(keyOf(route)));
      if (now.length < routes.length) this.#reconciler.desiredChanged();
      return now;
    };
    return { table: listed, desired };
  }

  /**
   * Hosts that come together are seen to together; and before the leases are known, every entry
   * would seem to be an orphan. Ends early with `false` once `isEnough`.
   */
  async #leasesAtRest(signal: AbortSignal, isEnough = () => false): Promise<boolean> {
    await abortable(this.#leasesKnown.promise, { signal });
    const begin = performance.now();
    for (;;) {
      const now = performance.now();
      const restMs = Math.min(this.#claimsChangedAt + QUIET_MS, begin + MAX_QUIET_MS) - now;
      if (restMs <= 0) return true;
      // Not at once, lest rounds follow each other as fast as leases change.
      if (now - begin >= QUIET_MS / 2 && isEnough()) return false;
      await delay(Math.min(restMs, QUIET_MS / 2), { signal });
    }
  }

  /** Whether so many claims are new that some table gets a full batch. */
  #fillBatch(): boolean {
    const { entries } = this.#routes.view;
    return this.#chosen.routeTableIds.some((routeTableId) => {
      const isNew = ({ destination }: ClusterClaim) =>
        !entries.has(keyOf({ routeTableId, destination }));
      return this.#claims.filter(isNew).length >= MAX_BATCH;
    });
  }

  /** Reads the tables once leases have come to rest, or fill a batch. */
  async #look(signal: AbortSignal): Promise<void> {
    this.#moreToCome = !await this.#leasesAtRest(signal, () => this.#fillBatch());
    const leases = [...this.#options.leases.leases()];
    this.#chosen = await this.#access.choice.forPeers(leases, { signal });
    this.#setScope();
    this.#listed = await this.#routes.list({ signal });
    await this.#keepBook(signal);
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
    const mark = { clusterId: this.#clusterId, network: this.#options.network };
    const ours = this.#listed.filter(({ name }) => markOf(name, mark) === "ours");
    return {
      strays: ours.filter((entry) => this.#routes.isStray(entry)),
      ours: new Set(ours.map(({ destination }) => String(destination))).size,
    };
  }

  /** Writes down who holds which subnet, for as long as entries may lead there. */
  async #keepBook(signal: AbortSignal): Promise<void> {
    const { view } = this.#routes;
    const tables = this.#chosen.routeTableIds.map((id) => view.tables.get(id));
    const isSeen = tables.every((table) => table !== undefined && table.error === undefined);
    const leads = new Set<string>();
    for (const { destination, instanceId } of view.entries.values()) {
      leads.add(`${destination} ${instanceId}`);
    }
    const claims = this.#claims.map(({ destination, instanceId, publicIp }) =>
      [
        String(destination),
        { instanceId, ...(publicIp === undefined ? {} : { publicIp }) },
      ] as const
    );
    try {
      await this.#book.update({
        claims: new Map(claims),
        mayLead: (destination, instanceId) => !isSeen || leads.has(`${destination} ${instanceId}`),
      }, { signal });
    } catch (error) {
      signal.throwIfAborted();
      // Whoever is not in it keeps his entries.
      this.#options.log.debug("Cannot keep the book of claims", { error: describeError(error) });
    }
  }

  /** The claims of the leases whose instances are in the VPC, in order. */
  #readClaims(): readonly ClusterClaim[] {
    const { leases, identity: { instance: { vpcId } } } = this.#options;
    const claims: ClusterClaim[] = [];
    for (const lease of leases.leases()) {
      const claim = this.#claimOf.get(lease) ?? claimOf(lease, vpcId) ?? "none";
      this.#claimOf.set(lease, claim);
      if (claim !== "none") claims.push(claim);
    }
    return claims.sort((a, b) => a.key < b.key ? -1 : 1);
  }

  #setScope(): void {
    const { leases } = this.#options;
    this.#routes.setScope({
      ...this.#chosen,
      claims: this.#claims,
      isLeased: (destination) => findHolder(leases, destination).is !== "nobody",
    });
  }

  #plan(): ClusterPlan {
    const { config, identity } = this.#options;
    const now = performance.now();
    const plan = planCluster({
      claims: this.#claims,
      routeTableIds: this.#chosen.routeTableIds,
      view: { ...this.#routes.view, tables: this.#tables() },
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
      isCheckOff: (id) => this.#checks.isOff(id),
      former: this.#former,
      overflow: config.overflow,
      ...(config.routeQuota === undefined ? {} : { routeQuota: config.routeQuota }),
      vtepLingers: now - this.#overflowAt < VTEP_LINGERS_MS,
      now,
      term: this.#term.id,
      writer: identity.instance.instanceId,
      ...(this.#trouble === undefined ? {} : { trouble: this.#trouble }),
    });
    if (plan.state.summary.overflow.length > 0) this.#overflowAt = now;
    return plan;
  }

  /**
   * The tables, with the limits that refusals have shown: they hold while places come and go, until
   * a table takes more than it once refused.
   */
  #tables(): ReadonlyMap<string, TableView> {
    const tables = new Map(this.#routes.view.tables);
    for (const [id, table] of tables) {
      const known = this.#refusals.get(id);
      if (table.full !== undefined) this.#refusals.set(id, table.full);
      else if (known?.used !== undefined && (table.used ?? 0) > known.used) {
        this.#refusals.delete(id);
      }
      const full = this.#refusals.get(id);
      if (full !== undefined) tables.set(id, { ...table, full });
    }
    return tables;
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
      // Before the tables have been read nothing can be said of them.
      if (this.#routes.view.tables.size === 0 && this.#trouble === undefined) continue;
      const { state, routes } = this.#plan();
      // What was refused, or has become free, changes who is to have an entry.
      const wanted = describeRoutes(routes);
      if (wanted !== this.#wanted) {
        // Asked for once: a round that cannot even look is repeated at the reconciler's pace.
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
      this.#fill.tell(state);
    }
  }

  async #reread(signal: AbortSignal): Promise<void> {
    try {
      await requireClusterId(this.#options.registry, this.#clusterId, { signal });
      const found = await this.#publication.read({ signal });
      const foreign = found !== undefined && found.summary.term !== this.#term.id &&
        found.summary.term !== this.#former?.summary.term;
      if (foreign) this.#fail(new OvertakenError("another daemon is the route writer"));
    } catch (error) {
      signal.throwIfAborted();
      if (error instanceof OtherClusterError) this.#fail(error);
      this.#options.log.debug("Cannot read the state of the routes", {
        error: describeError(error),
      });
    }
  }

  /** Notes whether the service can be worked with at all. */
  #judge({ unseen, problems: [problem], inSync }: RoundReport): void {
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

/** Whether RAM denies what was tried. */
function isDenied(error: unknown): boolean {
  for (let each = error; each instanceof Error; each = each.cause) {
    if (each instanceof AliApiError) return each.denied;
  }
  return false;
}

function claimOf(lease: Lease, vpcId: string): ClusterClaim | undefined {
  const destination = lease.subnet.ipv4;
  const claim = readAliVpcClaim(lease);
  if (destination === undefined || typeof claim !== "object" || claim.vpcId !== vpcId) {
    return undefined;
  }
  const { instanceId, networkInterfaceId } = claim;
  const { publicIp } = lease.attributes;
  return {
    key: lease.key,
    destination,
    instanceId,
    networkInterfaceId,
    ...(publicIp === undefined ? {} : { publicIp: String(publicIp) }),
  };
}

function describeRoutes(routes: readonly CloudRouteSpec[]): string {
  return routes.map(({ routeTableId, destination, instanceId }) =>
    `${routeTableId} ${destination} ${instanceId}`
  ).join();
}

/** All of what is there, and as many new ones of each table as make full batches. */
function inFullBatches(
  routes: readonly CloudRouteSpec[],
  isThere: (route: CloudRouteSpec) => boolean,
): readonly CloudRouteSpec[] {
  const [old = [], added = []] = [true, false].map((there) =>
    routes.filter((route) => isThere(route) === there)
  );
  const byTable = Map.groupBy(added, ({ routeTableId }) => routeTableId);
  return [
    ...old,
    ...[...byTable.values()].flatMap((some) =>
      some.slice(0, some.length - some.length % MAX_BATCH)
    ),
  ];
}

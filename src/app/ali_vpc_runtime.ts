import type { AliVpcConfig, AliVpcFacts } from "../backends/mod.ts";
import { HostRoutes } from "../cloud/routes/host_routes.ts";
import { type AliVpcIdentity, type AliVpcOptions, identifyAliVpc } from "../cloud/ali/identify.ts";
import type { Brake, HostStatus } from "../cloud/routes/cluster_state.ts";
import type { SourceDestCheckTable } from "../cloud/routes/source_dest_check.ts";
import { occupiedPlaces } from "../cloud/routes/occupied.ts";
import type { Lease } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import type { Places } from "../net/mod.ts";
import type { AnyStage } from "../reconcile/reconciler.ts";
import type { DesiredState } from "../state/mod.ts";
import { Election } from "../store/etcd/election.ts";
import { StoreError } from "../store/errors.ts";
import { Cell, sameItems } from "../util/cell.ts";
import { childSignal } from "../util/child_signal.ts";
import { deadline } from "../util/time.ts";
import { Wakeup } from "../util/wakeup.ts";
import type { BackendRuntime, Cluster, RemoteTables, RuntimeContext } from "../runtime/runtime.ts";
import { approvalCommand } from "../cloud/routes/clearance.ts";
import { ensureClusterId } from "../cloud/routes/cluster_identity.ts";
import { CLUSTER_FOLDER, ClusterFollower, readSummary } from "../cloud/routes/publication.ts";
import { ClusterWriter } from "../cloud/routes/leader.ts";
import { aliVpcEndpoints } from "./own_routes.ts";
import { decideChecksumOffload } from "../runtime/kernel.ts";
import { SubnetStatements } from "../cloud/routes/subnet_statement.ts";
import { SwitchedRoutes } from "../cloud/routes/switched_routes.ts";
import { APART_MS, writerPatienceMs } from "../cloud/routes/leader_patience.ts";

/** How long the writer may take to look at the check of a new host's interface. */
const CHECK_PATIENCE_MS = 10_000;
/**
 * And for how long the hosts spread what they do about it themselves then, for each of them: two reads
 * per check, when an account has some 300 a minute.
 */
const CHECK_SPREAD_MS = 500;
/** How long a host may hold the office while it starts; waiting for a free subnet has no end. */
const UNSERVED_MS = 60_000;
/** How long the end of the daemon waits for giving the office back. */
const RESIGN_MS = 2_000;

/** What is needed of a daemon; nothing of its host's kernel. */
export type AliVpcContext = Pick<
  RuntimeContext,
  "network" | "options" | "environment" | "registry" | "log" | "signal"
>;

/** What the daemon is given, as the part that knows the cloud is told of it. */
export function aliVpcOptions(context: AliVpcContext, config: AliVpcConfig): AliVpcOptions {
  const { network, options, environment, log, signal } = context;
  return {
    config,
    network: network.ipv4!.network,
    endpoints: aliVpcEndpoints(options),
    env: (name) => environment[name],
    log,
    signal,
  };
}

/**
 * Opens what `ali-vpc` needs: who this instance is and, if no other host writes the routes of the
 * cluster, the VPC's API with all the checks that must hold before a lease is written.
 *
 * @throws {OperatorError} What only a person can mend.
 * @throws {Error} What time may mend; call again.
 */
export async function openAliVpcRuntime(
  context: AliVpcContext,
  config: AliVpcConfig,
  { unservedMs = UNSERVED_MS }: { readonly unservedMs?: number } = {},
): Promise<BackendRuntime<AliVpcFacts>> {
  const { options, registry, signal } = context;
  const log = context.log.child("ali-vpc");
  await using stack = new AsyncDisposableStack();
  const identity = stack.use(
    await identifyAliVpc(aliVpcOptions({ ...context, log }, config)),
  );
  const wakeup = new Wakeup();
  let onElection = () => {};
  const election = new Election({
    space: registry.space(`${CLUSTER_FOLDER}/election`),
    key: "writer",
    holder: JSON.stringify({ instance: identity.instance.instanceId }),
    log,
    onChange: () => onElection(),
  });
  // Who never writes follows all the same, to tell whether anybody does.
  const mayWrite = options.aliRouteWriter === "auto";
  election.candidate = mayWrite;
  const running = childSignal(context.signal);
  stack.defer(async () => {
    using limit = deadline(RESIGN_MS, { signal: AbortSignal.any([]) });
    // Another host need not wait for the term to run out.
    await election.resign({ signal: limit.signal, pauseMs: Infinity }).catch(() => {});
  });
  const term = await election.tryOnce({ signal });
  // Until it can serve, this host stands for election no more: the start may be held up.
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
    const { full } = await identity.connect({ signal });
    // To be waited out without a lease, which would be held for nothing.
    if (full !== undefined && config.overflow === "none") throw new Error(`Cannot use ${full}`);
  }
  const onServing = () => {
    clearTimeout(unserved);
    election.candidate = mayWrite;
  };
  const runtime = new AliVpcRuntime({
    context,
    config,
    identity,
    election,
    onServing,
    log,
    wakeup,
  });
  onElection = () => runtime.electionChanged();
  const resources = stack.move();
  runtime.defer(() => resources.disposeAsync());
  return runtime;
}

interface AliVpcRuntimeOptions {
  readonly context: AliVpcContext;
  readonly config: AliVpcConfig;
  readonly identity: AliVpcIdentity;
  readonly election: Election;
  /** Called once this host can hold the office. */
  readonly onServing: () => void;
  readonly log: Logger;
  readonly wakeup: Wakeup;
}

/**
 * A host of an `ali-vpc` cluster. As a rule the route writer, which may be this daemon, sees to the
 * route entries of all, and each host reads what it publishes; a host that no writer takes care of
 * sees to its own.
 */
class AliVpcRuntime implements BackendRuntime<AliVpcFacts> {
  readonly #options: AliVpcRuntimeOptions;
  readonly #checks: SourceDestCheckTable;
  readonly facts: Cell<AliVpcFacts>;
  readonly #changes = new Cell(0);
  #follower: ClusterFollower | undefined;
  #writer: ClusterWriter | undefined;
  /** The own scope of the tables; opened once this host has to write itself. */
  #ownRoutes: HostRoutes | undefined;
  #self = false;
  /** As it was read last. */
  #clusterId: string | undefined;
  #uncoveredSince: number | undefined = performance.now();
  #uncheckedSince: number | undefined;
  #hosts = 1;
  readonly #lot = Math.random();
  #dispose: () => Promise<void> = () => Promise.resolve();

  constructor(options: AliVpcRuntimeOptions) {
    const { identity, config } = options;
    this.#options = options;
    this.remote = {
      resyncMs: config.resyncSeconds * 1_000,
      stages: (desired) => this.#stages(desired),
      gather: (own, peers, options) => this.#gather(own, peers, options),
      changes: this.#changes,
      waitingFor: () => this.#self ? undefined : this.#missing(),
      blockedBy: (own) => this.#blockedBy(own),
      leasesChanged: () => {
        this.#follower?.leaseChanged();
        this.#writer?.leasesChanged();
      },
      disown: () => this.#ownRoutes?.table.disown(),
    };
    const txChecksum = config.overflow === "vxlan" ? decideChecksumOffload("auto") : undefined;
    this.facts = new Cell<AliVpcFacts>({
      ...identity.instance,
      routeTableIds: [],
      ...(txChecksum === undefined ? {} : { txChecksum }),
    });
    this.#checks = identity.makeSourceDestCheck(() =>
      this.#seesToCheck ? [{ networkInterfaceId: identity.instance.networkInterfaceId }] : []
    );
  }

  defer(dispose: () => Promise<void>): void {
    this.#dispose = dispose;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dispose();
  }

  /** What the route writer has found to stand in the network, whatever of it is leased. */
  async occupied(options: { signal: AbortSignal }): Promise<Places> {
    const { registry } = this.#options.context;
    const summary = this.#follower?.summary ?? await readSummary(registry, options);
    return occupiedPlaces(summary?.occupied ?? []);
  }

  /** To be called when the office of the route writer is in other hands. */
  electionChanged(): void {
    this.#writer?.electionChanged();
    this.#options.wakeup.wake();
  }

  readonly remote: RemoteTables;

  #stages(desired: () => DesiredState | undefined): AnyStage[] {
    const { config } = this.#options;
    const routes = new SwitchedRoutes(() => this.#self ? this.#ownRoutes?.table : undefined, {
      freshMs: () => this.#hosts * APART_MS,
    });
    const stages: AnyStage[] = [{
      table: routes,
      // What the writer sees to is not looked at twice.
      desired: () => this.#self ? desired()?.cloudRoutes : [],
    }];
    // Who leaves the check to the operator may lack the right to read it, too.
    if (config.sourceDestCheck === "ignore") return stages;
    return [{
      table: this.#checks,
      desired: () => this.#seesToCheck ? desired()?.sourceDestChecks : [],
    }, ...stages];
  }

  /** Whether this host looks at the check of its interface by itself. */
  get #seesToCheck(): boolean {
    return this.#self || (this.#mayWrite && this.#uncheckedMs >= this.#checkPatienceMs);
  }

  get #checkPatienceMs(): number {
    return CHECK_PATIENCE_MS + this.#lot * this.#hosts * CHECK_SPREAD_MS;
  }

  /** For how long the host has been reached without the writer having seen its check off. */
  get #uncheckedMs(): number {
    return this.#uncheckedSince === undefined ? 0 : performance.now() - this.#uncheckedSince;
  }

  get #mayWrite(): boolean {
    return this.#options.context.options.aliRouteWriter === "auto";
  }

  /** What the writer says of this host, if it means this instance. */
  get #covered(): HostStatus | undefined {
    const status = this.#follower?.own;
    return status?.instanceId === this.#options.identity.instance.instanceId ? status : undefined;
  }

  /** Why the route is not there yet; `undefined` if it is, or the tunnel stands in for it. */
  #missing(): string | undefined {
    const { config, election, identity: { instance } } = this.#options;
    const summary = this.#follower?.summary;
    const status = this.#covered;
    const isWaiting = status === undefined || status.state === "pending";
    if (isWaiting && (election.vacantMs ?? 0) > 0) {
      return "no host writes the routes of the cluster at present; one that may must run " +
        '(docs/install-ecs.md, "RAM policy")';
    }
    const writer = summary?.writer === instance.instanceId
      ? "this host, as the route writer,"
      : `the route writer${summary ? ` ${summary.writer}` : ""}`;
    if (status === undefined) {
      const trouble = summary?.trouble ? `: ${summary.trouble}` : "";
      return `${writer} has not taken up this host yet${trouble}`;
    }
    const why = status.reason ?? summary?.trouble;
    if (status.state === "unrouted") return `there is no route to this host: ${why}`;
    if (status.state === "pending") {
      return why === undefined
        ? `${writer} has not set the route to this host yet`
        : `${writer} cannot set the route to this host: ${why}`;
    }
    if (config.sourceDestCheck === "disable" && !status.checkOff && !this.#seesToCheck) {
      return `${writer} has not seen the source/destination check of ` +
        `${instance.networkInterfaceId} off yet`;
    }
    return undefined;
  }

  /** The entry that keeps the route writer from routing the own subnet. */
  #blockedBy({ subnet: { ipv4 } }: Lease): string | undefined {
    if (this.#covered?.state !== "unrouted" || ipv4 === undefined) return undefined;
    return occupiedPlaces(this.#follower?.summary?.occupied ?? []).find(ipv4)?.what;
  }

  async #gather(
    own: Lease,
    peers: readonly Lease[],
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    this.#hosts = peers.length + 1;
    if (this.#self) {
      this.#ownRoutes ??= await this.#openOwnRoutes({ signal });
      this.#setRouteTables(await this.#ownRoutes.follow(own, peers, { signal }));
    }
    this.#setOverflow();
  }

  async #openOwnRoutes({ signal }: { signal: AbortSignal }): Promise<HostRoutes> {
    const { context: { network }, identity } = this.#options;
    const access = await identity.connect({ signal });
    const clusterId = await this.#findClusterId({ signal });
    const mark = { clusterId, network: network.ipv4!.network };
    return new HostRoutes(access, identity.instance.instanceId, mark);
  }

  /** The store's, or as it was read last: a host whose store is away sees to its route all the same. */
  async #findClusterId({ signal }: { signal: AbortSignal }): Promise<string> {
    const { context: { registry } } = this.#options;
    try {
      return this.#clusterId = await ensureClusterId(registry, { signal });
    } catch (error) {
      signal.throwIfAborted();
      const known = this.#clusterId ?? this.#follower?.summary?.cluster;
      if (known === undefined || !(error instanceof StoreError)) throw error;
      return known;
    }
  }

  /** Keeps the object while nothing in it changes. */
  #setRouteTables(routeTableIds: readonly string[]): void {
    const { value: facts } = this.facts;
    if (sameItems(facts.routeTableIds, routeTableIds)) return;
    this.facts.set({ ...facts, routeTableIds });
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

  /** Follows what is published, and serves as the writer when it is this host's turn. */
  async run(
    { leases, own }: Cluster,
    { signal }: { readonly signal: AbortSignal },
  ): Promise<void> {
    const { context, identity, election, config, log, wakeup } = this.#options;
    const { registry } = context;
    let onSummary = () => {};
    const follower = new ClusterFollower({
      registry,
      leaseKey: () => own().key,
      onChange: () => {
        onSummary();
        wakeup.wake();
      },
      log,
    });
    this.#follower = follower;
    const { network } = context;
    this.#writer = new ClusterWriter({
      identity,
      election,
      registry,
      config,
      network: network.ipv4!.network,
      approvalCommand: (brake) => this.#approvalCommand(brake),
      leases,
      log,
    });
    const statements = new SubnetStatements({
      registry,
      instanceId: identity.instance.instanceId,
      subnet: () => own().subnet.ipv4,
      summary: () => follower.summary,
      log,
    });
    onSummary = () => statements.summaryChanged();
    this.#options.onServing();
    await Promise.all([
      follower.run({ signal }),
      statements.run({ signal }),
      ...(this.#mayWrite ? [this.#writer.run({ signal })] : []),
      this.#watch({ leases, own }, { signal }),
    ]);
  }

  /** Says so whenever something that concerns this host has changed. */
  async #watch({ leases, own }: Cluster, { signal }: { signal: AbortSignal }): Promise<never> {
    let before = "";
    for (;;) {
      const dueMs = this.#decide(leases.size);
      this.#setOverflow();
      const now = JSON.stringify([
        this.#self,
        this.#missing(),
        this.#seesToCheck,
        this.#blockedBy(own()),
      ]);
      if (now !== before) this.#changes.set(this.#changes.value + 1);
      before = now;
      await this.#options.wakeup.sleep(dueMs, { signal });
    }
  }

  /** Decides who sees to this host's route; answers when that is to be decided anew. */
  #decide(hosts: number): number {
    const { config, election, log } = this.#options;
    const now = performance.now();
    this.#uncoveredSince = this.#covered === undefined ? this.#uncoveredSince ?? now : undefined;
    if (!this.#mayWrite) return Infinity;
    const { state, checkOff } = this.#covered ?? {};
    const isUnchecked = config.sourceDestCheck === "disable" && !checkOff &&
      (state === "routed" || state === "overflow");
    this.#uncheckedSince = isUnchecked ? this.#uncheckedSince ?? now : undefined;
    const waits = [
      this.#uncoveredSince === undefined ? 0 : now - this.#uncoveredSince,
      election.vacantMs ?? 0,
      this.#follower?.blindMs ?? 0,
    ];
    const longestMs = Math.max(...waits);
    const tunnels = config.overflow === "vxlan";
    const patienceMs = writerPatienceMs({ state, tunnels, hosts, lot: this.#lot });
    // Once it has begun it goes on, however many hosts come, until all is well.
    const self = patienceMs < Infinity && longestMs > 0 &&
      (this.#self || longestMs >= patienceMs);
    if (self !== this.#self) {
      this.#self = self;
      // The store's id may be another one by now.
      this.#ownRoutes = undefined;
      log.info(
        self
          ? "No route writer sees to this host's route: it does so itself until one does"
          : "A route writer sees to this host's route again",
      );
    }
    const dueMs = [
      ...(longestMs === 0 || self ? [] : [patienceMs - longestMs]),
      ...(isUnchecked && !this.#seesToCheck ? [this.#checkPatienceMs - this.#uncheckedMs] : []),
    ];
    return Math.min(...dueMs);
  }

  #approvalCommand(brake: Brake): string {
    const { options: { etcdPrefix: prefix }, registry: { api } } = this.#options.context;
    return approvalCommand({ api, prefix }, brake);
  }

  status(): Record<string, () => unknown> {
    return { cloud: () => this.#describe() };
  }

  #describe(): Record<string, unknown> {
    const { identity, election } = this.#options;
    const { instanceId, vpcId } = identity.instance;
    const { summary } = this.#follower ?? {};
    const writing = this.#writer?.status();
    return {
      instance: instanceId,
      vpc: vpcId,
      ...(identity.credentialsSource ? { credentials: identity.credentialsSource } : {}),
      role: writing ? "route writer" : this.#self ? "writes its own route" : "host",
      route: this.#self ? { routeTables: this.facts.value.routeTableIds } : this.#covered,
      // What the route writer says; of all hosts alike.
      cluster: summary && {
        id: summary.cluster,
        routeWriter: summary.writer,
        term: summary.term,
        ...(election.vacantMs ? { vacantSeconds: Math.round(election.vacantMs / 1_000) } : {}),
        ...(summary.trouble ? { trouble: summary.trouble } : {}),
        tables: summary.tables,
        overflow: summary.overflow,
        ...(summary.occupied ? { occupied: summary.occupied.map(({ entry }) => entry) } : {}),
        orphans: summary.orphans.map(({ routeTableId, destination, instanceId, state, ageMs }) => ({
          routeTableId,
          destination: String(destination),
          instance: instanceId,
          state,
          seconds: Math.round(ageMs / 1_000),
        })),
        ...(summary.brake === undefined ? {} : {
          waitsForApproval: {
            routes: summary.brake.routes,
            approve: this.#approvalCommand(summary.brake),
          },
        }),
      },
      ...(writing ? { writing } : {}),
    };
  }
}

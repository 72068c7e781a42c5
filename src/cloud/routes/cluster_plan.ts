/**
 * What the leader wants for the whole cluster. Pure: leases, what the route tables hold and
 * what was published before go in; the entries that should be, and what to publish, come out.
 *
 * @module
 */
import type { Prefix } from "../../net/mod.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type {
  ClusterState,
  ClusterSummary,
  HostState,
  HostStatus,
  TableStatus,
} from "./cluster_state.ts";
import type { Occupied } from "./occupied.ts";
import type { CloudRoute, RouteApi } from "./provider.ts";
import { describeConflict, keyOf, leadsTo } from "./route_entry.ts";
import type { RouteView, TableView } from "./route_view.ts";
import { type Overflow, quotaAdvice } from "./table_quota.ts";

/** A host that wants its subnet routed: the part of its lease that concerns route entries. */
export interface ClusterClaim {
  /** The lease's key. */
  readonly key: string;
  readonly destination: Prefix;
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  /** The address that the lease publishes. */
  readonly publicIp?: string;
}

export interface ClusterInputs {
  readonly claims: readonly ClusterClaim[];
  readonly routeTableIds: readonly string[];
  readonly view: RouteView;
  /** Whether an entry at a claimed destination is this network's, wherever it leads. */
  readonly owns: (entry: CloudRoute) => boolean;
  /** The id in the names of the cluster's entries. */
  readonly cluster?: string;
  readonly strays: Pick<ClusterSummary, "orphans" | "ask" | "brake">;
  /** Entries of others in the network. */
  readonly occupied?: readonly Occupied[];
  /** Whether the source/destination check of an interface was seen off; `undefined`: not seen. */
  readonly isCheckOff: (networkInterfaceId: string) => boolean | undefined;
  readonly former: ClusterState | undefined;
  readonly api: Pick<RouteApi, "words">;
  readonly overflow: Overflow;
  /** Entries that a table holds at most, if the operator says. */
  readonly routeQuota?: number | undefined;
  /** Whether hosts still keep the tunnel's device after the last overflow has ended. */
  readonly vtepLingers: boolean;
  /** On the clock of {@linkcode TableView.full}, in milliseconds. */
  readonly now: number;
  readonly term: string;
  /** The leader's instance. */
  readonly writer: string;
  readonly trouble?: string | undefined;
}

export interface ClusterPlan {
  readonly routes: readonly CloudRouteSpec[];
  readonly state: ClusterState;
}

/** A full table may have been given a larger quota: one host tries again. */
const PROBE_FULL_MS = 5 * 60_000;

/** What one claim has in one table. */
type Holding = "right" | "ours" | "foreign" | "free" | "unknown";

/**
 * Decides who gets a slot in the route tables. Whoever has one keeps it. Free slots go first to
 * hosts that had one, then to those in overflow, longest first, then to new ones; a host gets a
 * slot in all readable tables or in none. What does not fit is reached by the tunnel, or, without
 * one, not at all.
 */
export function planCluster(inputs: ClusterInputs): ClusterPlan {
  const { claims, view, former } = inputs;
  const tables = inputs.routeTableIds.map((id) => new Slots(id, inputs));
  const places = new Map(claims.map((claim) => [claim, tables.map((table) => table.look(claim))]));
  const accepted = new Set<ClusterClaim>();
  const refusals = new Map<ClusterClaim, string>();
  for (const claim of inOrder(inputs)) {
    const own = places.get(claim)!;
    const foreign = own.indexOf("foreign");
    if (foreign >= 0) {
      const entry = view.entries.get(tables[foreign]!.key(claim))!;
      refusals.set(claim, describeConflict(entry));
      continue;
    }
    const wanted = tables.filter((_, at) => own[at] === "free");
    const full = wanted.find((table) => !table.anyFree);
    if (full) refusals.set(claim, full.refusal);
    else {
      for (const table of wanted) table.take();
      accepted.add(claim);
    }
  }

  const routes: CloudRouteSpec[] = [];
  const hosts = new Map<string, HostStatus>();
  const overflow: string[] = [];
  for (const claim of claims) {
    const own = places.get(claim)!;
    tables.forEach(({ id, readable }, at) => {
      const keeps = own[at] === "right" || own[at] === "ours";
      if (!readable || !(keeps || (accepted.has(claim) && own[at] === "free"))) return;
      const { destination, instanceId } = claim;
      routes.push({ routeTableId: id, destination, instanceId });
    });
    const before = formerStatus(former, claim);
    const failure = tables.map((table) => view.failures.get(table.key(claim))).find(Boolean);
    const [state, reason] = judge({ own, refusal: refusals.get(claim), failure, before, inputs });
    if (state === "overflow") overflow.push(claim.key);
    hosts.set(claim.key, {
      instanceId: claim.instanceId,
      state,
      reason,
      // A new leader believes the former one until it has looked itself.
      checkOff: inputs.isCheckOff(claim.networkInterfaceId) ?? before?.checkOff ?? false,
    });
  }
  const summary = {
    term: inputs.term,
    writer: inputs.writer,
    tables: tables.map((table) => table.status()),
    overflow: inOverflowOrder(overflow, former),
    vtep: overflow.length > 0 || inputs.vtepLingers,
    cluster: inputs.cluster,
    ...inputs.strays,
    occupied: inputs.occupied?.length ? inputs.occupied : undefined,
    trouble: inputs.trouble,
  };
  return { routes, state: { summary, hosts } };
}

function judge(
  { own, refusal, failure, before, inputs }: {
    readonly own: readonly Holding[];
    readonly refusal: string | undefined;
    readonly failure: string | undefined;
    readonly before: HostStatus | undefined;
    readonly inputs: ClusterInputs;
  },
): readonly [HostState, string | undefined] {
  const known = own.filter((place) => place !== "unknown");
  const complete = known.length === own.length && own.length > 0;
  if (known.every((place) => place === "right")) {
    // What cannot be read counts as unchanged.
    if (complete || before?.state === "routed") return ["routed", undefined];
  }
  const blocked = own.includes("foreign");
  if (refusal !== undefined) {
    const tunnels = inputs.overflow === "vxlan" && !blocked;
    return tunnels ? ["overflow", refusal] : ["unrouted", refusal];
  }
  // Until its entry stands, a host in overflow is reached as before.
  if (before?.state === "overflow" && inputs.overflow === "vxlan") return ["overflow", failure];
  return ["pending", failure];
}

/** The slots of one table that are left. */
class Slots {
  readonly id: string;
  readonly #inputs: ClusterInputs;
  readonly #view: TableView | undefined;
  #free: number;

  constructor(id: string, inputs: ClusterInputs) {
    this.id = id;
    this.#inputs = inputs;
    this.#view = inputs.view.tables.get(id);
    const { used } = this.#view ?? {};
    const limit = this.#limit;
    this.#free = limit === undefined || used === undefined ? Infinity : Math.max(0, limit - used);
    // One host tries from time to time whether the table still takes no more.
    if (this.#free === 0 && this.#mayProbe) this.#free = 1;
  }

  get readable(): boolean {
    return this.#view !== undefined && this.#view.error === undefined;
  }

  get anyFree(): boolean {
    return this.#free > 0;
  }

  get refusal(): string {
    const used = this.#view?.full?.used ?? this.#view?.used;
    const limit = this.#limit ?? used;
    const fill = used === undefined ? "" : ` (${used} of ${limit})`;
    const { api, overflow } = this.#inputs;
    return `route table ${this.id} is full${fill}; ${quotaAdvice(api, overflow)}`;
  }

  key({ destination }: ClusterClaim): string {
    return keyOf({ routeTableId: this.id, destination });
  }

  look(claim: ClusterClaim): Holding {
    if (!this.readable) return "unknown";
    const entry = this.#inputs.view.entries.get(this.key(claim));
    if (entry === undefined) return "free";
    if (leadsTo(entry, claim.instanceId)) {
      if (entry.state === "ready") return "right";
      // Being renamed, say; it goes on leading there.
      const before = formerStatus(this.#inputs.former, claim)?.state;
      if (entry.state === "changing" && before === "routed") return "right";
      return "ours";
    }
    return this.#inputs.owns(entry) ? "ours" : "foreign";
  }

  take(): void {
    this.#free--;
  }

  status(): TableStatus {
    const { used, error } = this.#view ?? {};
    return { id: this.id, used, limit: this.#limit, trouble: error };
  }

  /** What the operator says, or what the table has shown by refusing more. */
  get #limit(): number | undefined {
    return this.#inputs.routeQuota ?? this.#view?.full?.used;
  }

  get #mayProbe(): boolean {
    const at = this.#view?.full?.at;
    return at !== undefined && this.#inputs.now - at >= PROBE_FULL_MS;
  }
}

function formerStatus(
  former: ClusterState | undefined,
  claim: ClusterClaim,
): HostStatus | undefined {
  const status = former?.hosts.get(claim.key);
  return status?.instanceId === claim.instanceId ? status : undefined;
}

/** Claims in the order in which slots are given away. */
function inOrder({ claims, former }: ClusterInputs): readonly ClusterClaim[] {
  const waiting = new Map(former?.summary.overflow.map((key, at) => [key, at]));
  const rank = (claim: ClusterClaim): number => {
    const state = formerStatus(former, claim)?.state;
    if (state === "routed" || state === "pending") return -1;
    return waiting.get(claim.key) ?? waiting.size;
  };
  const ranks = new Map(claims.map((claim) => [claim, rank(claim)]));
  return [...claims].sort((a, b) =>
    ranks.get(a)! - ranks.get(b)! || (a.key < b.key ? -1 : a.key > b.key ? 1 : 0)
  );
}

/** Those that have waited longest first. */
function inOverflowOrder(keys: readonly string[], former: ClusterState | undefined): string[] {
  const present = new Set(keys);
  const kept = (former?.summary.overflow ?? []).filter((key) => present.has(key));
  const known = new Set(kept);
  return [...kept, ...keys.filter((key) => !known.has(key)).sort()];
}

/** All of what is there, and as many new ones of each table as make full batches of `size`. */
export function inFullBatches(
  routes: readonly CloudRouteSpec[],
  size: number,
  isThere: (route: CloudRouteSpec) => boolean,
): readonly CloudRouteSpec[] {
  const added = routes.filter((route) => !isThere(route));
  const byTable = Map.groupBy(added, ({ routeTableId }) => routeTableId);
  return [
    ...routes.filter(isThere),
    ...[...byTable.values()].flatMap((some) => some.slice(0, some.length - some.length % size)),
  ];
}

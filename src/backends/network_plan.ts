/**
 * The desired state of a host, kept up to date: what follows from the host alone, and what each peer
 * adds. A lease that changes has its own part planned anew, and that of peers which claim the same.
 *
 * @module
 */
import type { Lease } from "../lease/lease.ts";
import type { ChangedLeases, Peers } from "../lease/peers.ts";
import { type Place, samePlace } from "../net/mod.ts";
import { compact, Desired, type PeerObjects, type PeerState, type Some } from "../state/desired.ts";
import type { DesiredState, SkippedPeer } from "../state/mod.ts";
import { sameItems } from "../util/cell.ts";
import type { Backend, NetworkFamilies, PlanContext } from "./backend.ts";
import { addressesInside, familySides, NOTHING } from "./peers.ts";

/** A backend's plan of one host, to be made peer by peer. */
export interface BoundPlan {
  planHost(): DesiredState;
  planPeer(peer: Lease, holderOf: (claim: string) => Lease): PeerState;
  claims(peer: Lease): readonly string[];
}

/** Gives the plan of a host, where other hosts have the addresses `inside` the network. */
export type BindPlan = (inside: readonly Place[]) => BoundPlan;

/** The plan of `backend` for a host. */
export function bindPlan<Config, Facts>(
  backend: Pick<Backend<Config, Facts>, "planHost" | "planPeer" | "claims">,
  known: Omit<PlanContext<Config, Facts>, "sides">,
): BindPlan {
  return (inside) => {
    const { network, host, own } = known;
    const context = { ...known, sides: familySides(network, host, own, inside) };
    return {
      planHost: () => backend.planHost(context),
      planPeer: (peer, holderOf) => backend.planPeer?.(context, peer, holderOf) ?? NOTHING,
      claims: (peer) => backend.claims?.(context, peer) ?? NO_CLAIMS,
    };
  };
}

const NO_CLAIMS: readonly string[] = [];

/** What a {@linkcode NetworkPlan} is made from. */
export interface PlanSources {
  readonly bind: BindPlan;
  readonly network: NetworkFamilies;
  /** The other hosts' leases by key. */
  readonly peers: Pick<Peers, "get"> & Iterable<Lease>;
}

/** Peers looked at between two steps; some tenths of a millisecond. */
const STEP_PEERS = 256;

/** A peer as it was planned last; thousands are kept. */
class PlannedPeer implements PeerObjects {
  lease: Lease;
  claims: Some<string>;
  neighbors: PeerObjects["neighbors"];
  fdb: PeerObjects["fdb"];
  forwarding: PeerObjects["forwarding"];
  routes: PeerObjects["routes"];

  constructor(lease: Lease) {
    this.lease = lease;
  }

  set state({ neighbors, fdb, forwarding, routes }: PeerState) {
    this.neighbors = compact(neighbors);
    this.fdb = compact(fdb);
    this.forwarding = compact(forwarding);
    this.routes = compact(routes);
  }
}

/** See the module's comment. */
export class NetworkPlan {
  readonly desired: Desired = new Desired();
  /** What is told of peers that are left out, wholly or in a family, by their keys. */
  readonly skipped: Map<string, readonly SkippedPeer[]> = new Map();
  readonly #peers = new Map<string, PlannedPeer>();
  /** Keys of the peers that claim something; mostly it is one. */
  readonly #claimants = new Map<string, Some<string>>();
  /** Hosts' addresses inside the network, by the hosts' keys. */
  readonly #inside = new Map<string, readonly Place[]>();
  #hostState: DesiredState = {};
  #plan: BoundPlan | undefined;

  /** Plans the host's own part alone; the peers' parts may have to follow. */
  planHost({ bind }: Pick<PlanSources, "bind">): BoundPlan {
    // Of several hosts with one address the same is named, whoever came first.
    const inside = [...this.#inside].toSorted(([a], [b]) => a < b ? -1 : 1);
    const plan = bind(inside.flatMap(([, places]) => places));
    const state = plan.planHost();
    this.desired.delete(this.#hostState);
    this.desired.add(state);
    this.desired.host = this.#hostState = state;
    return this.#plan = plan;
  }

  /**
   * Brings the plan up to date with what has `changed`, in slices, so that thousands of peers do not
   * block other work; `all` stands for host, config and facts, too. Nothing else may update the plan
   * meanwhile. After a failure the plan cannot be used any more.
   */
  *update(sources: PlanSources, changed: ChangedLeases): Generator<void, void> {
    let leases = this.#read(sources, changed);
    const isInsideAnother = yield* this.#noteInside(sources, leases);
    const isAll = changed === "all" || isInsideAnother || !this.#plan;
    if (isAll && changed !== "all") leases = this.#read(sources, "all");
    const plan = isAll ? this.planHost(sources) : this.#plan!;
    const { due, retired } = yield* this.#notePeers(plan, leases);
    const holderOf = (claim: string) => this.#peers.get(this.#holder(claim))!.lease;
    const states = new Map<PlannedPeer, PeerState>();
    let count = 0;
    for (const key of due) {
      if (++count % STEP_PEERS === 0) yield;
      const peer = this.#peers.get(key);
      if (peer) states.set(peer, plan.planPeer(peer.lease, holderOf));
      else this.skipped.delete(key);
    }
    // What one gives up another may take: all goes before anything comes.
    for (const state of retired) this.desired.delete(state);
    for (const peer of states.keys()) {
      if (++count % STEP_PEERS === 0) yield;
      this.desired.delete(peer);
      peer.state = NOTHING;
    }
    for (const [peer, state] of states) {
      if (++count % STEP_PEERS === 0) yield;
      this.desired.add(state);
      peer.state = state;
      if (state.skippedPeers) this.skipped.set(peer.lease.key, state.skippedPeers);
      else this.skipped.delete(peer.lease.key);
    }
  }

  /** The leases to be looked at, as they are now; `undefined` for one that is gone. */
  #read({ peers }: PlanSources, changed: ChangedLeases): Map<string, Lease | undefined> {
    const leases = new Map<string, Lease | undefined>();
    if (changed === "all") {
      for (const key of this.#peers.keys()) leases.set(key, undefined);
      for (const lease of peers) leases.set(lease.key, lease);
    } else {
      for (const key of changed) leases.set(key, peers.get(key));
    }
    return leases;
  }

  /** Takes down hosts' addresses inside the network; tells whether there are others than before. */
  *#noteInside(
    { network }: PlanSources,
    leases: ReadonlyMap<string, Lease | undefined>,
  ): Generator<void, boolean> {
    let isAnother = false;
    let count = 0;
    for (const [key, lease] of leases) {
      if (++count % STEP_PEERS === 0) yield;
      const before = this.#inside.get(key) ?? NO_PLACES;
      const places = lease ? addressesInside(network, lease) : NO_PLACES;
      if (sameItems(places, before, samePlace)) continue;
      isAnother = true;
      if (places.length > 0) this.#inside.set(key, places);
      else this.#inside.delete(key);
    }
    return isAnother;
  }

  /**
   * Takes down peers and their claims. Returns the keys of those that are to be planned, and what
   * was planned for those that have gone.
   */
  *#notePeers(
    plan: BoundPlan,
    leases: ReadonlyMap<string, Lease | undefined>,
  ): Generator<void, { readonly due: Set<string>; readonly retired: PeerObjects[] }> {
    const due = new Set<string>();
    const retired: PeerObjects[] = [];
    let count = 0;
    for (const [key, lease] of leases) {
      if (++count % STEP_PEERS === 0) yield;
      const former = this.#peers.get(key);
      due.add(key);
      const claims = lease ? plan.claims(lease) : NO_CLAIMS;
      for (const claim of [former?.claims ?? NO_CLAIMS].flat()) {
        if (!claims.includes(claim)) this.#setClaim(claim, key, false, due);
      }
      // Also of a claim that stays: who else has it depends on what its holder says.
      for (const claim of claims) this.#setClaim(claim, key, true, due);
      if (lease) {
        const peer = former ?? new PlannedPeer(lease);
        peer.lease = lease;
        peer.claims = compact(claims);
        if (!former) this.#peers.set(key, peer);
      } else if (former) {
        this.#peers.delete(key);
        retired.push(former);
      }
    }
    return { due, retired };
  }

  /** Notes whether a peer claims something; the others that do are `due`. */
  #setClaim(claim: string, key: string, isClaimed: boolean, due: Set<string>): void {
    const others = [this.#claimants.get(claim) ?? []].flat().filter((each) => each !== key);
    others.forEach((each) => due.add(each));
    const claimants = isClaimed ? [...others, key] : others;
    if (claimants.length === 0) this.#claimants.delete(claim);
    else this.#claimants.set(claim, compact(claimants));
  }

  #holder(claim: string): string {
    const claimants = this.#claimants.get(claim)!;
    return typeof claimants === "string"
      ? claimants
      : claimants.reduce((first, key) => key < first ? key : first);
  }
}

const NO_PLACES: readonly Place[] = [];

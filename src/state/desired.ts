/**
 * The desired state as it is kept: what peers add to it by key, the rest as lists.
 *
 * @module
 */
import {
  type DesiredState,
  fdbKey,
  type FdbSpec,
  forwardingKey,
  type ForwardingSpec,
  neighborKey,
  type NeighborSpec,
  routeKey,
  type RouteSpec,
} from "./mod.ts";
import { Wanted } from "./wanted.ts";

/** What of a {@linkcode DesiredState} is few, and another list whenever it may have changed. */
export type HostState = Omit<DesiredState, keyof PeerState>;

/** What of it each peer may add to. */
export type PeerState = Pick<
  DesiredState,
  "neighbors" | "fdb" | "forwarding" | "routes" | "skippedPeers"
>;

/** Items, where one is so much the rule that a list for it alone would cost more than the item. */
export type Some<T> = T | readonly T[] | undefined;

/** The objects that a peer adds. */
export interface PeerObjects {
  readonly neighbors?: Some<NeighborSpec>;
  readonly fdb?: Some<FdbSpec>;
  readonly forwarding?: Some<ForwardingSpec>;
  readonly routes?: Some<RouteSpec>;
}

/** `list`, or the one item in it. */
export function compact<T>(list: readonly T[] | undefined): Some<T> {
  return list?.length === 1 ? list[0]! : list;
}

function forEach<T extends object>(some: Some<T>, act: (item: T) => void): void {
  if (Array.isArray(some)) some.forEach(act);
  else if (some) act(some as T);
}

/** The desired state, changed in place. */
export class Desired {
  host: HostState = {};
  readonly neighbors: Wanted<NeighborSpec> = new Wanted<NeighborSpec>(neighborKey);
  readonly fdb: Wanted<FdbSpec> = new Wanted(fdbKey);
  readonly forwarding: Wanted<ForwardingSpec> = new Wanted<ForwardingSpec>(forwardingKey);
  readonly routes: Wanted<RouteSpec> = new Wanted(routeKey);

  /** The same as `state`. */
  static of(state: DesiredState): Desired {
    const desired = new Desired();
    desired.host = state;
    desired.add(state);
    return desired;
  }

  add({ neighbors, fdb, forwarding, routes }: PeerObjects): void {
    forEach(neighbors, (each) => this.neighbors.add(each));
    forEach(fdb, (each) => this.fdb.add(each));
    forEach(forwarding, (each) => this.forwarding.add(each));
    forEach(routes, (each) => this.routes.add(each));
  }

  delete({ neighbors, fdb, forwarding, routes }: PeerObjects): void {
    forEach(neighbors, (each) => this.neighbors.delete(each));
    forEach(fdb, (each) => this.fdb.delete(each));
    forEach(forwarding, (each) => this.forwarding.delete(each));
    forEach(routes, (each) => this.routes.delete(each));
  }
}

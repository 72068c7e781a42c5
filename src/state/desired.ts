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

  add({ neighbors, fdb, forwarding, routes }: PeerState): void {
    neighbors?.forEach((each) => this.neighbors.add(each));
    fdb?.forEach((each) => this.fdb.add(each));
    forwarding?.forEach((each) => this.forwarding.add(each));
    routes?.forEach((each) => this.routes.add(each));
  }

  delete({ neighbors, fdb, forwarding, routes }: PeerState): void {
    neighbors?.forEach((each) => this.neighbors.delete(each));
    fdb?.forEach((each) => this.fdb.delete(each));
    forwarding?.forEach((each) => this.forwarding.delete(each));
    routes?.forEach((each) => this.routes.delete(each));
  }
}

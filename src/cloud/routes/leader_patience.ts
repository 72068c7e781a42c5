/** How long hosts wait for a leader before they act for themselves. @module */
import type { HostState } from "./cluster_state.ts";

/** A host of which no leader has said anything for this long writes its own route. */
const PATIENCE_MS = 60_000;

/**
 * Hosts that lose the leader or the store at once look at their routes one after the other: each
 * makes up to one call of each action, of which an account has some 300 a minute.
 */
export const APART_MS = 300;

/** How long the leader may take to look at the check of a new host's interface. */
export const CHECK_PATIENCE_MS = 10_000;
/** Then hosts spread their own looks by this for each of them: two reads per check. */
export const CHECK_SPREAD_MS = 500;

export interface LeaderPatienceOptions {
  /** What a leader said of the host last, whether or not there is one at present. */
  readonly state: HostState | undefined;
  /** Whether hosts in overflow are reached by the tunnel. */
  readonly tunnels: boolean;
  /** Hosts of the cluster. */
  readonly hosts: number;
  /** In [0, 1): this host's place among them, which stays the same. */
  readonly position: number;
}

/**
 * How long a host waits for a leader before it writes its own route. One that is reached has time:
 * its route was seen to be there, or not to fit.
 */
export function leaderPatienceMs(options: LeaderPatienceOptions): number {
  const { state, tunnels, hosts, position } = options;
  switch (state) {
    case "overflow":
      // The table is full, and the tunnel serves.
      return tunnels ? Infinity : PATIENCE_MS;
    case "routed":
    case "unrouted":
      return PATIENCE_MS + position * hosts * APART_MS;
    default:
      return PATIENCE_MS;
  }
}

/** How long hosts do without a leader before they see to their own routes and interfaces. @module */
import type { HostState } from "./cluster_state.ts";

/** A host of which no leader has said anything for this long writes its own route. */
const PATIENCE_MS = 60_000;

/**
 * Hosts that lose the leader or the store at the same moment look at their routes one after the
 * other: each makes up to one call of each action, of which an account has some 300 a minute.
 */
export const APART_MS = 300;

/** How long the leader may take to look at the check of a new host's interface. */
export const CHECK_PATIENCE_MS = 10_000;
/**
 * And for how long the hosts spread what they do about it themselves then, for each of them: two reads
 * per check, when an account has some 300 a minute.
 */
export const CHECK_SPREAD_MS = 500;

/** What {@linkcode leaderPatienceMs} depends on. */
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
 * For how long a host does without a leader before it sees to its own route. One that is
 * reached has time: its route was seen to be there, or seen not to fit.
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

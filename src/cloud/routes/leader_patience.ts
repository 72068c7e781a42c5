import type { HostState } from "./cluster_state.ts";

/** A host of which no writer has said anything for this long writes its own route. */
const PATIENCE_MS = 60_000;

/**
 * Hosts that lose the writer or the store at the same moment look at their routes one after the
 * other: each makes up to one call of each action, of which an account has some 300 a minute.
 */
export const APART_MS = 300;

/** What {@linkcode writerPatienceMs} depends on. */
export interface WriterPatienceOptions {
  /** What a writer said of the host last, whether or not anybody writes at present. */
  readonly state: HostState | undefined;
  /** Whether hosts in overflow are reached by the tunnel. */
  readonly tunnels: boolean;
  /** Hosts of the cluster. */
  readonly hosts: number;
  /** In [0, 1): this host's place among them, which stays the same. */
  readonly lot: number;
}

/**
 * For how long a host does without a route writer before it sees to its own route. One that is
 * reached has time: its route was seen to be there, or seen not to fit.
 */
export function writerPatienceMs(options: WriterPatienceOptions): number {
  const { state, tunnels, hosts, lot } = options;
  switch (state) {
    case "overflow":
      // The table is full, and the tunnel serves.
      return tunnels ? Infinity : PATIENCE_MS;
    case "routed":
    case "unrouted":
      return PATIENCE_MS + lot * hosts * APART_MS;
    default:
      return PATIENCE_MS;
  }
}

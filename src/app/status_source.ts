/**
 * Gathers the daemon's status from its parts.
 *
 * @module
 */
import { enabledFamilies } from "../config/network_config.ts";
import type { Firewall } from "../firewall/mod.ts";
import type { HostNetwork } from "../host/host_network.ts";
import type { Surroundings } from "../host/surroundings.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import type { ConfiguredNetwork } from "../runtime/configured_network.ts";
import type { OpenBackend } from "../runtime/runtime.ts";
import type {
  Instant,
  LeaseStatus,
  LeftOutStatus,
  StatusSource,
  StoreStatus,
} from "../status/model.ts";
import type { ProblemLog } from "../status/problems.ts";
import type { Readiness } from "../status/readiness.ts";
import type { LeaseStore, OwnLease } from "../store/lease_store.ts";
import type { Planner } from "../runtime/planner.ts";

/** The parts of a running daemon that have a status. */
export interface RunningParts {
  readonly readiness: Readiness;
  readonly configured: ConfiguredNetwork;
  readonly store: Pick<LeaseStore, "description">;
  readonly hostNetwork: HostNetwork;
  readonly runtime: OpenBackend;
  readonly own: OwnLease;
  /** When the lease was taken. */
  readonly acquiredAt: () => Instant;
  readonly firewall: Firewall;
  readonly leases: LeaseMap;
  readonly planner: Planner;
  readonly skippedLeases: ProblemLog;
  readonly leftOut: ProblemLog;
  readonly surroundings: Surroundings;
}

/** The parts of a daemon that has started. */
export function statusOf(parts: RunningParts): Partial<StatusSource> {
  const { configured, hostNetwork, runtime, firewall, leases, planner, surroundings } = parts;
  return {
    network: () => enabledFamilies(configured).map(({ network }) => network),
    backend: () => configured.backend.type,
    interface: () => hostNetwork.describe(),
    overlaps: () => hostNetwork.reserved.describe(),
    lease: () => leaseStatus(parts),
    store: () => storeStatus(parts),
    peers: () =>
      leases.complete
        ? { count: planner.peers.size, leftOut: leftOutStatus(parts.leftOut) }
        : undefined,
    skippedLeases: () => leftOutStatus(parts.skippedLeases),
    firewall: () => firewall.describe(),
    surroundings: () => ({ problems: surroundings.problems }),
    ...runtime.status?.(leases.complete ? planner.peers : []),
  };
}

/** Problems listed of each kind. */
const LISTED = 100;

function leftOutStatus(problems: ProblemLog): LeftOutStatus {
  return { count: problems.count, problems: problems.first(LISTED) };
}

function leaseStatus({ own, readiness, acquiredAt }: RunningParts): LeaseStatus {
  const { key, subnet, attributes } = own.lease.value;
  const state = own.state.value;
  const { since, problems: [lost] } = readiness.condition("lease").status;
  const problem = state.held ? state.trouble : lost;
  return {
    key,
    subnet,
    attributes,
    state: state.held ? "held" : state.loss === "taken" ? "taken" : "lost",
    since,
    acquiredAt: acquiredAt(),
    expiresAt: state.held && state.expiresAt !== undefined
      ? performance.now() + state.expiresAt - Date.now()
      : undefined,
    ...(problem ? { problem } : {}),
  };
}

function storeStatus({ store, readiness }: RunningParts): StoreStatus {
  const { state, since, problems: [problem] } = readiness.condition("store").status;
  return {
    what: store.description,
    connected: state === "met",
    since,
    ...(problem ? { problem } : {}),
  };
}

import type { Host } from "../backends/mod.ts";
import type { Lease } from "../lease/lease.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import type { Address } from "../net/mod.ts";
import type { DesiredState, RouteSpec } from "../state/mod.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
import type { BackendRuntime } from "./backend_runtime.ts";

/** The metric of least preference. */
const LAST_METRIC = 2 ** 32 - 1;

/** What the desired state follows from. */
export interface PlannerInputs {
  readonly runtime: Pick<BackendRuntime, "plan">;
  readonly leases: LeaseMap;
  readonly host: () => Host;
  readonly own: () => Lease;
  /** `--ip-blackhole-route` */
  readonly blackhole: boolean;
  /** Called with each plan that is made. */
  readonly onPlan?: (desired: DesiredState) => void;
}

/** Keeps the desired state, made anew by the backend whenever an input has changed. */
export class Planner {
  readonly #inputs: PlannerInputs;
  #desired: DesiredState | undefined;
  #peers: readonly Lease[] | undefined;
  #peerAddresses: ReadonlySet<string> | undefined;

  constructor(inputs: PlannerInputs) {
    this.#inputs = inputs;
  }

  /** To be called after a change of any input. */
  invalidate(): void {
    this.#desired = undefined;
    this.#peers = undefined;
    this.#peerAddresses = undefined;
  }

  /** To be called when only facts of the backend have changed. */
  invalidatePlan(): void {
    this.#desired = undefined;
  }

  /** Whether another host publishes `address`. */
  isPeer(address: Address): boolean {
    this.#peerAddresses ??= new Set(
      this.peers.flatMap(({ attributes: { publicIp, publicIpv6 } }) =>
        [publicIp, publicIpv6].filter((each) => each !== undefined).map(String)
      ),
    );
    return this.#peerAddresses.has(address.toString());
  }

  /** The other hosts' leases. */
  get peers(): readonly Lease[] {
    const { leases, own } = this.#inputs;
    const ownKey = own().key;
    return this.#peers ??= [...leases.leases()].filter((lease) => lease.key !== ownKey);
  }

  /** The desired state; `undefined` before the first complete snapshot of the leases. */
  get desired(): DesiredState | undefined {
    const { runtime, leases, host, own, blackhole } = this.#inputs;
    if (!leases.complete) return undefined;
    if (this.#desired === undefined) {
      const planned = runtime.plan(host(), own(), this.peers);
      this.#desired = blackhole
        ? { ...planned, routes: [...planned.routes ?? [], ...blackholeRoutes(own())] }
        : planned;
      this.#inputs.onPlan?.(this.#desired);
    }
    return this.#desired;
  }
}

/**
 * A route that drops what goes to the own subnet while no bridge has it, so that it does not
 * follow the default route out and come back. Of all routes to the subnet it is the last resort:
 * with the kernel's usual metric it would come before the bridge's own.
 */
function blackholeRoutes({ subnet }: Lease): RouteSpec[] {
  return [subnet.ipv4, subnet.ipv6].filter((prefix) => prefix !== undefined).map((destination) => ({
    destination,
    type: "blackhole",
    metric: LAST_METRIC,
    protocol: ROUTE_PROTOCOL,
  }));
}

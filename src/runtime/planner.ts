/**
 * Keeps the desired state up to date: after each change it has the backend plan what that concerns.
 *
 * @module
 */
import { type BindPlan, type Host, type NetworkFamilies, NetworkPlan } from "../backends/mod.ts";
import type { Lease } from "../lease/lease.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import { type ChangedLeases, type Peers, peersOf } from "../lease/peers.ts";
import type { Address } from "../net/mod.ts";
import type { OpenBackend } from "./runtime.ts";
import type { Desired } from "../state/desired.ts";
import { ROUTE_PROTOCOL, type RouteSpec, type SkippedPeer } from "../state/mod.ts";
import { inSlices } from "../util/slices.ts";

/** The metric of least preference. */
const LAST_METRIC = 2 ** 32 - 1;

/** What the desired state follows from. */
export interface PlannerInputs {
  readonly runtime: Pick<OpenBackend, "bindPlan" | "gather">;
  readonly leases: LeaseMap;
  readonly network: NetworkFamilies;
  readonly host: () => Host;
  readonly own: () => Lease;
  /** `--ip-blackhole-route` */
  readonly blackhole: boolean;
  /** Called with the peers that are left out, by key, whenever plans of peers were made. */
  readonly onPlan?: (skipped: ReadonlyMap<string, readonly SkippedPeer[]>) => void;
}

/** Leases that wait for something to be done with them. */
class Due {
  #all = true;
  #keys = new Set<string>();

  get isEmpty(): boolean {
    return !this.#all && this.#keys.size === 0;
  }

  add(changed: ChangedLeases): void {
    if (changed === "all") this.#all = true;
    else if (!this.#all) changed.forEach((key) => this.#keys.add(key));
  }

  take(): ChangedLeases {
    const changed = this.#all ? "all" : this.#keys;
    this.#all = false;
    this.#keys = new Set();
    return changed;
  }
}

/** Keeps the desired state up to date with what it follows from. */
export class Planner {
  /** The other hosts' leases. */
  readonly peers: Peers;
  readonly #inputs: PlannerInputs;
  #plan = new NetworkPlan();
  /** Whether the plan has had all that was known at some time. */
  #isPlanned = false;
  readonly #toGather = new Due();
  readonly #toPlan = new Due();
  #isHostDue = true;
  /** Settles when the call of `prepare()` that was made last is over; it never rejects. */
  #last: Promise<void> = Promise.resolve();
  #peerAddresses: ReadonlySet<number | string> | undefined;

  constructor(inputs: PlannerInputs) {
    this.#inputs = inputs;
    this.peers = peersOf(inputs.leases, inputs.own);
  }

  /** To be called after a change of leases. */
  leasesChanged(changed: ChangedLeases): void {
    this.#toGather.add(changed);
    this.#toPlan.add(changed);
    this.#peerAddresses = undefined;
  }

  /** To be called after a change of the host, or of which lease is the own one. */
  invalidate(): void {
    this.leasesChanged("all");
    this.#isHostDue = true;
  }

  /** To be called when only facts of the backend have changed. */
  invalidatePlan(): void {
    this.#toPlan.add("all");
    this.#isHostDue = true;
  }

  /** Whether another host publishes `address`. */
  isPeer(address: Address): boolean {
    this.#peerAddresses ??= publishedAddresses(this.peers);
    return this.#peerAddresses.has(address.mapKey);
  }

  get own(): Lease {
    return this.#inputs.own();
  }

  /** The desired state as it was planned last; `undefined` before the leases are known. */
  get latest(): Desired | undefined {
    return this.#isPlanned ? this.#plan.desired : undefined;
  }

  /** The desired state with what follows from the host alone as it is now, whatever peers add. */
  get desired(): Desired | undefined {
    if (!this.#inputs.leases.complete) return undefined;
    if (this.#isHostDue) {
      this.#plan.planHost({ bind: this.#bind });
      this.#isHostDue = false;
    }
    return this.#plan.desired;
  }

  /**
   * Brings the desired state up to date, once the leases are known, with other work let in, which
   * thousands of peers would keep waiting. What changes meanwhile is left to the next call.
   */
  prepare(options: { signal: AbortSignal }): Promise<void> {
    const preparing = this.#last.then(() => this.#prepare(options));
    this.#last = preparing.catch(() => {});
    return preparing;
  }

  async #prepare({ signal }: { signal: AbortSignal }): Promise<void> {
    const { runtime, own, leases, network, onPlan } = this.#inputs;
    if (!leases.complete) return;
    if (runtime.gather) {
      const changed = this.#toGather.take();
      try {
        this.#toPlan.add(await runtime.gather(own(), this.peers, changed, { signal }));
      } catch (error) {
        this.#toGather.add(changed);
        throw error;
      }
    }
    if (this.#toPlan.isEmpty) return;
    const changed = this.#toPlan.take();
    if (changed === "all") this.#isHostDue = false;
    try {
      const sources = { bind: this.#bind, network, peers: this.peers };
      const updating = this.#plan.update(sources, changed);
      await inSlices(updating, { signal });
      this.#isPlanned = true;
    } catch (error) {
      this.#plan = new NetworkPlan();
      this.#isPlanned = false;
      this.invalidatePlan();
      throw error;
    }
    onPlan?.(this.#plan.skipped);
  }

  get #bind(): BindPlan {
    const { runtime, host, own: ownLease, blackhole } = this.#inputs;
    const own = ownLease();
    const bind = runtime.bindPlan(host(), own);
    if (!blackhole) return bind;
    return (inside) => {
      const plan = bind(inside);
      return {
        ...plan,
        planHost() {
          const state = plan.planHost();
          return { ...state, routes: [...state.routes ?? [], ...blackholeRoutes(own)] };
        },
      };
    };
  }
}

/** The addresses of `peers` by their map keys. */
function publishedAddresses(peers: Peers): ReadonlySet<number | string> {
  const addresses = new Set<number | string>();
  for (const { attributes: { publicIp, publicIpv6 } } of peers) {
    if (publicIp) addresses.add(publicIp.mapKey);
    if (publicIpv6) addresses.add(publicIpv6.mapKey);
  }
  return addresses;
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

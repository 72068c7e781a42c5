import type { Host, Planning } from "../backends/mod.ts";
import type { Lease } from "../lease/lease.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import type { Address } from "../net/mod.ts";
import type { DesiredState, RouteSpec } from "../state/mod.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
import { atOnce, inSlices } from "../util/slices.ts";
import type { OpenBackend } from "../runtime/runtime.ts";

/** The metric of least preference. */
const LAST_METRIC = 2 ** 32 - 1;

/** What the desired state follows from. */
export interface PlannerInputs {
  readonly runtime: Pick<OpenBackend, "plan">;
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
  #latest: DesiredState | undefined;
  /** Counts what changed about the inputs. */
  #edition = 0;
  /** The edition that the latest plan was made from. */
  #plannedEdition = -1;
  #peers: readonly Lease[] | undefined;
  #peerAddresses: ReadonlySet<number | string> | undefined;

  constructor(inputs: PlannerInputs) {
    this.#inputs = inputs;
  }

  /** To be called after a change of any input. */
  invalidate(): void {
    this.#edition++;
    this.#peers = undefined;
    this.#peerAddresses = undefined;
  }

  /** To be called when only facts of the backend have changed. */
  invalidatePlan(): void {
    this.#edition++;
  }

  /** Whether another host publishes `address`. */
  isPeer(address: Address): boolean {
    this.#peerAddresses ??= publishedAddresses(this.peers);
    return this.#peerAddresses.has(address.mapKey);
  }

  get own(): Lease {
    return this.#inputs.own();
  }

  /** The other hosts' leases. */
  get peers(): readonly Lease[] {
    const { leases, own } = this.#inputs;
    const ownKey = own().key;
    return this.#peers ??= [...leases.leases()].filter((lease) => lease.key !== ownKey);
  }

  /**
   * The desired state; `undefined` before the first complete snapshot of the leases. It is made at
   * once if it is due.
   */
  get desired(): DesiredState | undefined {
    const edition = this.#edition;
    if (this.#isDue) this.#take(atOnce(this.#plan()), edition);
    return this.#latest;
  }

  /** The desired state as it was made last, which may be due again; `undefined` before. */
  get latest(): DesiredState | undefined {
    return this.#latest;
  }

  /**
   * Makes the desired state if it is due, with other work let in, which thousands of peers would
   * else keep waiting. What changes meanwhile is left to the next call.
   */
  async prepare({ signal }: { signal: AbortSignal }): Promise<void> {
    if (!this.#isDue) return;
    const edition = this.#edition;
    const state = await inSlices(this.#plan(), { signal });
    // Somebody may have needed it at once.
    if (edition > this.#plannedEdition) this.#take(state, edition);
  }

  get #isDue(): boolean {
    return this.#inputs.leases.complete && this.#plannedEdition !== this.#edition;
  }

  *#plan(): Planning {
    const { runtime, host, own: ownLease, blackhole } = this.#inputs;
    const own = ownLease();
    const planned = yield* runtime.plan(host(), own, this.peers);
    return blackhole
      ? { ...planned, routes: [...planned.routes ?? [], ...blackholeRoutes(own)] }
      : planned;
  }

  #take(state: DesiredState, edition: number): void {
    this.#latest = state;
    this.#plannedEdition = edition;
    this.#inputs.onPlan?.(state);
  }
}

/** The addresses of `peers` by their map keys. */
function publishedAddresses(peers: readonly Lease[]): ReadonlySet<number | string> {
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

/**
 * What a route entry is to this daemon: whose it is, whether it is right, and what the next step
 * towards the desired entry is. Pure; {@linkcode RouteTable} does the steps.
 *
 * @module
 */
import type { Prefix } from "../../net/mod.ts";
import type { Kind } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { NextHop, RouteEntry, RouteEntryStatus } from "./client.ts";

/** A route entry as the Table reports it. A desired one has the fields of the spec alone. */
export interface CloudRoute extends CloudRouteSpec {
  readonly entryId?: string;
  readonly name?: string;
  readonly status?: RouteEntryStatus;
  readonly type?: string;
  readonly serviceType?: string;
  readonly nextHops?: readonly NextHop[];
  /** Whether it is one that flanneld may change once its subnet is claimed. */
  readonly owned?: boolean;
}

/** A live lease's word: the packets for its subnet belong to its instance. */
export interface RouteClaim {
  readonly destination: Prefix;
  readonly instanceId: string;
}

/** Claims by what is looked up. */
export class Claims {
  readonly #instances = new Map<string, string>();
  readonly #claimants = new Set<string>();
  readonly #unclaimed: ReadonlySet<string>;

  /** `unclaimed`: subnets of live leases that do not say their instance. */
  constructor(claims: readonly RouteClaim[], unclaimed: readonly Prefix[] = []) {
    this.#unclaimed = new Set(unclaimed.map(String));
    for (const { destination, instanceId } of claims) {
      this.#instances.set(destination.toString(), instanceId);
      this.#claimants.add(instanceId);
    }
  }

  /** The instance that the destination is claimed for. */
  at(destination: Prefix): string | undefined {
    return this.#instances.get(destination.toString());
  }

  /**
   * Whether a host that sees to its entries itself, such as upstream's, may need this one: its
   * subnet is leased, and the instance has no claim to another.
   */
  mayBeNeeded({ destination, instanceId }: RouteClaim): boolean {
    return this.#unclaimed.has(destination.toString()) && !this.isClaimant(instanceId);
  }

  /** Whether the instance has a claim, to whatever destination. */
  isClaimant(instanceId: string): boolean {
    return this.#claimants.has(instanceId);
  }
}

/** Who asks. It decides which entries are ours. */
export type Owner = HostOwner | ClusterOwner;

interface AnyOwner {
  readonly network: Prefix;
  /** Those of the scope: the host's own, or those of all hosts. */
  readonly claims: Claims;
  /** Entries of ours without a name are right too: they cannot be renamed. */
  readonly acceptUnnamed: boolean;
}

/** A host that looks after its own entries alone. */
export interface HostOwner extends AnyOwner {
  readonly instanceId: string;
}

/** The one that looks after all hosts' entries. */
export interface ClusterOwner extends AnyOwner {
  readonly instanceId?: undefined;
  /** The tables that claims are about; elsewhere nothing is needed. */
  readonly routeTableIds: ReadonlySet<string>;
  /** Whether an entry that nobody needs has been one for long enough to go. */
  readonly isDue: (actual: CloudRoute) => boolean;
  /** Whether it is this nameless entry's turn to be named; each takes a write of its own. */
  readonly isNameDue: (actual: CloudRoute) => boolean;
}

/**
 * The mark in `RouteEntryName` of every entry that a flanneld of `network` made. The name goes on
 * with the instance, so that a host finds all of its own entries with one filtered call, however
 * many there are in the table.
 */
export function routeEntryMarker(network: Prefix): string {
  return `flanneld/${network}`;
}

/** The whole name of an entry: `flanneld/10.24.0.0/16/i-bp1abc`. */
export function routeEntryName(network: Prefix, instanceId: string): string {
  return `${routeEntryMarker(network)}/${instanceId}`;
}

/** An entry of the API as one of the Table. */
export function toCloudRoute(entry: RouteEntry): CloudRoute {
  const [hop, ...others] = entry.nextHops;
  const single = hop !== undefined && others.length === 0 && hop.type === "instance";
  return {
    routeTableId: entry.routeTableId,
    destination: entry.destination,
    instanceId: single ? hop.id : "",
    entryId: entry.id,
    name: entry.name,
    status: entry.status,
    type: entry.type,
    serviceType: entry.serviceType,
    nextHops: entry.nextHops,
  };
}

/** Whether the entry may be written at all: custom, one hop, an instance, nobody's service. */
function isPlain(actual: CloudRoute): boolean {
  return actual.type === "Custom" && actual.instanceId !== "" &&
    (actual.serviceType ?? "") === "" && actual.destination.length > 0 &&
    (actual.entryId ?? "") !== "";
}

function isMarked(actual: CloudRoute, owner: Owner): boolean {
  return (actual.name ?? "").startsWith(`${routeEntryMarker(owner.network)}/`);
}

/**
 * Ours are, for a host: marked entries that lead here, wherever to (stale ones of an earlier
 * lease); marked entries of our own subnet, wherever they lead (the subnet's former holder is
 * gone: the lease says so); and the nameless entry of our own subnet that leads here, as upstream
 * flannel left it. For the cluster: the like at every claimed subnet, and stale entries once they
 * may go.
 */
export function isOwned(actual: CloudRoute, owner: Owner): boolean {
  if (!isPlain(actual)) return false;
  const claimant = owner.claims.at(actual.destination);
  if (owner.instanceId === undefined) {
    if (!isNeeded(actual, owner)) return isStale(actual, owner) && mayGo(actual, owner);
    return isMarked(actual, owner) || (actual.name === "" && actual.instanceId === claimant);
  }
  const here = actual.instanceId === owner.instanceId;
  if (isMarked(actual, owner)) return here || claimant !== undefined;
  return here && actual.name === "" && claimant !== undefined;
}

/** Whether an entry of this destination is to be in this table. */
export function isNeeded({ routeTableId, destination }: Place, owner: ClusterOwner): boolean {
  return owner.routeTableIds.has(routeTableId) && owner.claims.at(destination) !== undefined;
}

/**
 * Whether a flanneld of the network made the entry and nobody needs it now. One that somebody
 * pointed elsewhere is theirs.
 */
export function isStale(actual: CloudRoute, owner: ClusterOwner): boolean {
  return isPlain(actual) && !isNeeded(actual, owner) && !owner.claims.mayBeNeeded(actual) &&
    actual.name === routeEntryName(owner.network, actual.instanceId);
}

/**
 * Whether the entry would be ours to change if its subnet is claimed, now or by a lease to come.
 */
export function isOurs(actual: CloudRoute, owner: Owner): boolean {
  if (!isPlain(actual)) return false;
  return isMarked(actual, owner) ||
    (actual.name === "" && actual.instanceId === owner.claims.at(actual.destination));
}

/** A stale entry goes at once if its host has another subnet now, or when its grace is over. */
function mayGo(actual: CloudRoute, owner: ClusterOwner): boolean {
  const moved = owner.routeTableIds.has(actual.routeTableId) &&
    owner.claims.isClaimant(actual.instanceId);
  return moved || owner.isDue(actual);
}

/** Whether an entry that leads where it is to lead does not carry our name. */
export function lacksName(actual: CloudRoute, owner: Owner): boolean {
  return !owner.acceptUnnamed && isOwned(actual, owner) &&
    actual.name !== routeEntryName(owner.network, actual.instanceId);
}

function wantsName(actual: CloudRoute, owner: Owner): boolean {
  return lacksName(actual, owner) && (owner.instanceId !== undefined || owner.isNameDue(actual));
}

/** Whether `actual` leads to the instance, in whatever status. */
export function leadsTo(actual: CloudRoute, instanceId: string): boolean {
  return actual.type === "Custom" && (actual.serviceType ?? "") === "" &&
    actual.instanceId === instanceId;
}

/** Where an entry is: no table holds two of one destination. */
export type Place = Pick<CloudRouteSpec, "routeTableId" | "destination">;

/** The key of a place, as the Kind of route entries has it. */
export function keyOf({ routeTableId, destination }: Place): string {
  return `${routeTableId} ${destination}`;
}

/** The {@linkcode Kind} of route entries, as `owner()` sees them at the moment. */
export function routeEntryKind(owner: () => Owner): Kind<CloudRoute> {
  return {
    name: "route entry",
    key: keyOf,
    equal: (desired, actual) =>
      leadsTo(actual, desired.instanceId) && actual.status === "Available" &&
      !wantsName(actual, owner()),
    owns: (actual) => isOwned(actual, owner()),
    format: formatCloudRoute,
  };
}

/** `10.24.7.0/24 via i-a in vtb-1`, with what else a person needs to find the entry. */
export function formatCloudRoute(route: CloudRoute): string {
  const hops = route.nextHops?.map((hop) => hop.id === "" ? hop.type : hop.id) ?? [];
  const via = route.instanceId !== ""
    ? ` via ${route.instanceId}`
    : hops.length > 0
    ? ` via ${hops.join(", ")}`
    : "";
  const details = [
    route.entryId,
    route.name ? `"${route.name.slice(0, 128)}"` : undefined,
    route.type !== undefined && route.type !== "Custom" ? `type ${route.type}` : undefined,
    route.serviceType ? `managed by ${route.serviceType}` : undefined,
    route.status !== undefined && route.status !== "Available" ? route.status : undefined,
  ].filter((detail) => detail !== undefined && detail !== "");
  return `${route.destination}${via} in ${route.routeTableId}` +
    (details.length > 0 ? ` (${details.join(", ")})` : "");
}

/** What to say of a foreign entry that stands where ours should be. */
export function describeConflict(actual: CloudRoute): string {
  return `${formatCloudRoute(actual)} stands in its place and is not flanneld's; remove it, or ` +
    "give this host another subnet";
}

/** What to do about one entry now. */
export type Step =
  | { readonly do: "done" }
  | { readonly do: "wait"; readonly status: string }
  | { readonly do: "create" }
  | { readonly do: "modify"; readonly entryId: string; readonly repoint: boolean }
  | { readonly do: "delete"; readonly entryId: string }
  | { readonly do: "conflict"; readonly actual: CloudRoute };

/** The step from `actual` towards an Available entry as desired. */
export function stepTowards(
  desired: CloudRouteSpec,
  actual: CloudRoute | undefined,
  owner: Owner,
): Step {
  if (actual === undefined) return { do: "create" };
  const right = leadsTo(actual, desired.instanceId);
  if (!right && !isOwned(actual, owner)) return { do: "conflict", actual };
  if (actual.status !== "Available") return { do: "wait", status: actual.status ?? "unknown" };
  if (!right) return { do: "modify", entryId: actual.entryId ?? "", repoint: true };
  return wantsName(actual, owner)
    ? { do: "modify", entryId: actual.entryId ?? "", repoint: false }
    : { do: "done" };
}

/** The step from `actual` towards no entry of ours at `stale`'s place. */
export function stepAway(actual: CloudRoute | undefined, owner: Owner): Step {
  if (actual === undefined || !isOwned(actual, owner)) return { do: "done" };
  if (owner.instanceId !== undefined && actual.instanceId !== owner.instanceId) {
    return { do: "done" };
  }
  if (actual.status !== "Available") return { do: "wait", status: actual.status ?? "unknown" };
  return { do: "delete", entryId: actual.entryId ?? "" };
}

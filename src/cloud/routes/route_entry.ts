/**
 * Whose a route entry is, whether it is right, and the next step towards the desired one. Pure.
 *
 * @module
 */
import type { Prefix } from "../../net/mod.ts";
import type { Kind } from "../../reconcile/table.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { CloudRoute } from "./provider.ts";

/** The subnet of a live lease, and its instance. */
export interface RouteClaim {
  readonly destination: Prefix;
  readonly instanceId: string;
}

/** Claims by what is looked up. */
export class Claims {
  readonly #instances = new Map<string, string>();

  constructor(claims: readonly RouteClaim[]) {
    for (const { destination, instanceId } of claims) {
      this.#instances.set(destination.toString(), instanceId);
    }
  }

  /** The instance that the destination is claimed for. */
  at(destination: Prefix): string | undefined {
    return this.#instances.get(destination.toString());
  }
}

/** Who asks. It decides which entries are ours. */
export type Owner = HostOwner | ClusterOwner;

interface AnyOwner {
  readonly mark: ClusterMark;
  /** Those of the scope: the host's own, or those of all hosts. */
  readonly claims: Claims;
  /** The tables that claims are about; elsewhere nothing is needed. */
  readonly routeTableIds: ReadonlySet<string>;
  /** Entries of ours without a mark are right too: they cannot be given one. */
  readonly acceptUnmarked: boolean;
}

/** A host that looks after its own entries alone. */
export interface HostOwner extends AnyOwner {
  readonly instanceId: string;
  /** Subnets that this host has given back: what leads here from them goes, too. */
  readonly released: readonly Prefix[];
}

/** The one that looks after all hosts' entries. */
export interface ClusterOwner extends AnyOwner {
  readonly instanceId?: undefined;
  /**
   * Whether there is proof that the instance which an entry of ours leads to does not use it any
   * more, so that it may be removed or led elsewhere.
   */
  readonly mayTake: (actual: CloudRoute) => boolean;
  /** Whether any key of the store, junk or not, may stand for a lease of some of these addresses. */
  readonly isLeased: (destination: Prefix) => boolean;
  /** Whether it is this entry's turn to be marked; each takes a write of its own. */
  readonly isMarkDue: (actual: CloudRoute) => boolean;
}

/**
 * Tells a cluster's entries from others. The id is made once for a store, so that clusters with the
 * same network are told apart, and a store that has lost everything owns nothing.
 */
export interface ClusterMark {
  /** Absent where the store has none: then no entry is the cluster's. */
  readonly clusterId: string | undefined;
  readonly network: Prefix;
  /**
   * In a cloud whose entries carry no marks: whether the cluster's store knows that the instance
   * has held the subnet, so that an entry which leads there is the cluster's.
   */
  readonly isBooked?: (destination: Prefix, instanceId: string) => boolean;
}

/**
 * The mark of an entry: `flanneld/5c1fa89e03b7d264/10.24.0.0/16/<instance>`. The instance is in it,
 * so that a host finds all of its own entries with one filtered call, however many there are in
 * the table.
 */
export function routeMark({ clusterId, network }: ClusterMark, instanceId: string): string {
  return `flanneld/${clusterId ?? "none"}/${network}/${instanceId}`;
}

/**
 * Who made an entry: this cluster, releases which knew no cluster ids, or another cluster with the
 * same network.
 */
export function makerOf(
  { mark = "", destination, instanceId }: CloudRoute,
  { clusterId, network, isBooked }: ClusterMark,
): "ours" | "old" | "other" | undefined {
  if (isBooked !== undefined) return isBooked(destination, instanceId) ? "ours" : undefined;
  const [, id, rest] = /^flanneld\/([a-z0-9]+)\/(.*)$/s.exec(mark) ?? [];
  if (id !== undefined && rest?.startsWith(`${network}/`)) {
    return id === clusterId ? "ours" : "other";
  }
  return mark.startsWith(`flanneld/${network}/`) ? "old" : undefined;
}

/** Whether the entry may be written at all: static, nobody's service, one hop, an instance. */
function isPlain(actual: CloudRoute): boolean {
  return leadsTo(actual, actual.instanceId) && actual.instanceId !== "" &&
    actual.destination.length > 0 && (actual.entryId ?? "") !== "";
}

/**
 * Whether the entry may be changed. At a claimed subnet: an unmarked one (as upstream flannel left
 * it) or one of ours with an older mark, if it leads where it is to lead, since only its mark is
 * changed; and one that leads elsewhere, if its mark says that it was made for the claimant, or if
 * there is proof that nobody uses it. Everywhere else: a host's own entries that it knows to be
 * stale, and for the cluster those of which there is such proof.
 */
export function isOwned(actual: CloudRoute, owner: Owner): boolean {
  if (!isPlain(actual)) return false;
  if (isNeeded(actual, owner)) {
    const claimant = owner.claims.at(actual.destination)!;
    if (actual.instanceId === claimant) return isMarkable(actual, owner);
    return isOursFor(claimant, actual, owner) ||
      (owner.instanceId === undefined && isStray(actual, owner) && owner.mayTake(actual));
  }
  if (owner.instanceId === undefined) return isStray(actual, owner) && owner.mayTake(actual);
  if (actual.instanceId !== owner.instanceId) return false;
  if (owner.released.some((each) => each.equals(actual.destination))) {
    return owner.mark.isBooked !== undefined || makerOf(actual, owner.mark) !== undefined;
  }
  return isOursFor(owner.instanceId, actual, owner) &&
    owner.claims.at(actual.destination) === undefined;
}

export function isNeeded({ routeTableId, destination }: Place, owner: Owner): boolean {
  return owner.routeTableIds.has(routeTableId) && owner.claims.at(destination) !== undefined;
}

/** Whether this cluster made the entry for the instance. */
function isOursFor(instanceId: string, actual: CloudRoute, { mark }: Owner): boolean {
  if (mark.isBooked !== undefined) {
    return actual.instanceId === instanceId && mark.isBooked(actual.destination, instanceId);
  }
  return mark.clusterId !== undefined && actual.mark === routeMark(mark, instanceId);
}

/** Whether nobody minds a new mark: another cluster's entry keeps its own, like an operator's. */
function isMarkable(actual: CloudRoute, { mark }: Owner): boolean {
  if (mark.isBooked !== undefined || actual.mark === "") return true;
  const maker = makerOf(actual, mark);
  return maker === "ours" || maker === "old";
}

/**
 * Whether this cluster made the entry and no lease speaks for it. One that somebody pointed
 * elsewhere is theirs.
 */
export function isStale(actual: CloudRoute, owner: ClusterOwner): boolean {
  return isStray(actual, owner) && !owner.isLeased(actual.destination);
}

/**
 * Whether this cluster made the entry, and it leads to an instance that no lease names for this
 * subnet. Who holds the subnet now, if anybody does, is left open.
 */
export function isStray(actual: CloudRoute, owner: ClusterOwner): boolean {
  return isPlain(actual) && isOursFor(actual.instanceId, actual, owner) &&
    owner.claims.at(actual.destination) !== actual.instanceId;
}

/**
 * Whether the entry would be ours to change if its subnet is claimed, now or by a lease to come.
 */
export function isOurs(actual: CloudRoute, owner: Owner): boolean {
  if (!isPlain(actual)) return false;
  return makerOf(actual, owner.mark) === "ours" ||
    (actual.instanceId === owner.claims.at(actual.destination) && isMarkable(actual, owner));
}

/** Whether an entry that leads to its claimant lacks our mark. */
export function lacksMark(actual: CloudRoute, owner: Owner): boolean {
  return !owner.acceptUnmarked && isOwned(actual, owner) &&
    actual.mark !== routeMark(owner.mark, actual.instanceId);
}

function wantsMark(actual: CloudRoute, owner: Owner): boolean {
  return lacksMark(actual, owner) && (owner.instanceId !== undefined || owner.isMarkDue(actual));
}

/** Whether `actual` leads to the instance, in whatever status. */
export function leadsTo(actual: CloudRoute, instanceId: string): boolean {
  return actual.isStatic === true && (actual.managedBy ?? "") === "" &&
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
    id: "route-entry",
    name: "route entry",
    key: keyOf,
    equal: (desired, actual) =>
      leadsTo(actual, desired.instanceId) && actual.state === "ready" &&
      !wantsMark(actual, owner()),
    owns: (actual) => isOwned(actual, owner()),
    format: formatCloudRoute,
  };
}

/** `10.24.7.0/24 via <instance> in <table>`, with what else an operator needs to find the entry. */
export function formatCloudRoute(route: CloudRoute): string {
  const hops = route.instanceId === "" ? route.hops ?? [] : [route.instanceId];
  const via = hops.length > 0 ? ` via ${hops.join(", ")}` : "";
  const details = [
    route.entryId,
    route.mark ? `"${route.mark.slice(0, 128)}"` : undefined,
    route.type !== undefined && !route.isStatic ? `type ${route.type}` : undefined,
    route.managedBy ? `managed by ${route.managedBy}` : undefined,
    route.state === "ready" ? undefined : route.status,
  ].filter((detail) => detail !== undefined && detail !== "");
  return `${route.destination}${via} in ${route.routeTableId}` +
    (details.length > 0 ? ` (${details.join(", ")})` : "");
}

/** What to say of an entry that is in the way and left alone. */
export function describeConflict(actual: CloudRoute): string {
  const entry = formatCloudRoute(actual);
  return actual.mark?.startsWith("flanneld/")
    ? `${entry} stands in its place and may still be used by ${actual.instanceId || "its host"}; ` +
      'run "flanneld cleanup --release" there, remove the entry if that instance is gone, or give ' +
      "this host another subnet"
    : `${entry} stands in its place and is not flanneld's; remove it, or give this host another ` +
      "subnet";
}

export type Step =
  | { readonly do: "done" }
  | { readonly do: "wait"; readonly status: string }
  | { readonly do: "create" }
  | { readonly do: "repoint" | "rename" | "delete"; readonly entry: CloudRoute }
  | { readonly do: "conflict"; readonly actual: CloudRoute };

/** The step from `actual` towards a ready entry as desired. */
export function stepTowards(
  desired: CloudRouteSpec,
  actual: CloudRoute | undefined,
  owner: Owner,
): Step {
  if (actual === undefined) return { do: "create" };
  const right = leadsTo(actual, desired.instanceId);
  if (!right && !isOwned(actual, owner)) return { do: "conflict", actual };
  if (actual.state !== "ready") return { do: "wait", status: actual.status ?? "unknown" };
  if (!right) return { do: "repoint", entry: actual };
  return wantsMark(actual, owner) ? { do: "rename", entry: actual } : { do: "done" };
}

/** The step from `actual` towards no entry of ours at `stale`'s place. */
export function stepAway(actual: CloudRoute | undefined, owner: Owner): Step {
  if (actual === undefined || !isOwned(actual, owner)) return { do: "done" };
  if (owner.instanceId !== undefined && actual.instanceId !== owner.instanceId) {
    return { do: "done" };
  }
  if (actual.state !== "ready") return { do: "wait", status: actual.status ?? "unknown" };
  return { do: "delete", entry: actual };
}

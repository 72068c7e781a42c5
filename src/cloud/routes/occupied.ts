/**
 * Entries of the route tables that stand where a subnet could be leased, and that no lease may
 * replace: those of other instances, of dead upstream hosts, of other clusters, of the VPC.
 *
 * @module
 */
import { type Place, Places, type Prefix } from "../../net/mod.ts";
import type { CloudRoute } from "./provider.ts";
import { formatCloudRoute, leadsTo } from "./route_entry.ts";

/** An entry in the way. */
export interface Occupied {
  readonly destination: Prefix;
  /** Table, next hop and mark, for messages. */
  readonly entry: string;
}

/** Far more than tables hold as a rule; every host reads them. */
export const MAX_OCCUPIED = 400;
const MAX_TEXT_CHARS = 120;

export interface OccupiedInputs {
  readonly entries: Iterable<CloudRoute>;
  readonly routeTableIds: readonly string[];
  readonly network: Prefix;
  readonly claims: readonly { readonly destination: Prefix; readonly instanceId: string }[];
  /** Whether a lease holds exactly these addresses, such as an upstream host's. */
  readonly isLeased: (destination: Prefix) => boolean;
  /** Whether an entry is this network's, so that a lease's claim replaces it. */
  readonly owns: (entry: CloudRoute) => boolean;
}

/** The entries in the way, those of present leases first. */
export function findOccupied(inputs: OccupiedInputs): Occupied[] {
  const { network, owns } = inputs;
  const tables = new Set(inputs.routeTableIds);
  const claims = new Map(
    inputs.claims.map(({ destination, instanceId }) => [destination.toString(), instanceId]),
  );
  const found: { readonly occupied: Occupied; readonly claimed: boolean }[] = [];
  for (const entry of inputs.entries) {
    const { destination } = entry;
    // What is not smaller than the network is less specific than any subnet.
    if (!tables.has(entry.routeTableId) || destination.contains(network)) continue;
    if (!network.contains(destination)) continue;
    const claimant = claims.get(destination.toString());
    if (claimant === undefined ? inputs.isLeased(destination) : leadsTo(entry, claimant)) continue;
    if (owns(entry)) continue;
    const text = formatCloudRoute(entry);
    found.push({
      occupied: {
        destination,
        entry: text.length > MAX_TEXT_CHARS ? `${text.slice(0, MAX_TEXT_CHARS - 1)}…` : text,
      },
      claimed: claimant !== undefined,
    });
  }
  const order = (text: string, other: string) => text < other ? -1 : text > other ? 1 : 0;
  return found
    .sort((a, b) =>
      Number(b.claimed) - Number(a.claimed) || order(a.occupied.entry, b.occupied.entry)
    )
    .slice(0, MAX_OCCUPIED)
    .map(({ occupied }) => occupied);
}

/** What no subnet may take, as leases are drawn. */
export function occupiedPlaces(occupied: readonly Occupied[]): Places {
  return new Places(
    occupied.map(({ destination, entry }): Place => ({
      prefix: destination,
      what: `the route entry ${entry}`,
      yields: true,
    })),
  );
}

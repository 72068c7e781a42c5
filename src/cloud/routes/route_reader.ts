import type { RouteEntry, VpcClient } from "../ali/client.ts";
import type { Orphans } from "./orphans.ts";
import {
  type CloudRoute,
  isOurs,
  isStale,
  keyOf,
  leadsTo,
  type Owner,
  type Place,
  toCloudRoute,
} from "./route_entry.ts";
import type { RouteViewKeeper } from "./route_view.ts";

/** Options of {@linkcode RouteReader}. */
export interface RouteReaderOptions {
  readonly vpc: VpcClient;
  readonly view: RouteViewKeeper;
  readonly orphans: Orphans;
  readonly owner: () => Owner;
}

/** Destinations that one call can ask for. */
const MAX_DESTINATIONS = 20;
const PAGE_ENTRIES = 100;

/** Reads route entries; whatever is seen goes into the view and the book of orphans. */
export class RouteReader {
  readonly #options: RouteReaderOptions;

  constructor(options: RouteReaderOptions) {
    this.#options = options;
  }

  /**
   * The custom entries of a table, read once from end to end. What slips between two pages while
   * they shift is missing: creating it is refused as a duplicate, and looked at then.
   */
  async readTable(
    routeTableId: string,
    options: { signal: AbortSignal },
  ): Promise<readonly CloudRoute[]> {
    const { vpc, view, orphans, owner } = this.#options;
    const { entries, count } = await vpc.describeRouteEntryListOnce(
      routeTableId,
      { type: "Custom" },
      options,
    );
    const listed = entries.map((entry) => this.#toRoute(entry));
    const asOwner = owner();
    if (asOwner.instanceId === undefined) {
      orphans.note(routeTableId, listed.filter((entry) => isStale(entry, asOwner)));
    }
    view.saw(routeTableId, listed, count);
    for (const entry of listed) this.#noteSuccess(entry);
    return listed;
  }

  /** Custom entries with exactly this name. */
  async readNamed(
    routeTableId: string,
    name: string,
    options: { signal: AbortSignal },
  ): Promise<readonly CloudRoute[]> {
    const filter = { type: "Custom", name } as const;
    const entries = await this.#options.vpc.describeRouteEntryList(routeTableId, filter, options);
    return entries.map((entry) => this.#toRoute(entry)).filter((entry) => entry.name === name);
  }

  /** The entry of exactly this destination; a custom one hides a dynamic one. */
  async read(place: Place, options: { signal: AbortSignal }): Promise<CloudRoute | undefined> {
    const { vpc } = this.#options;
    const { routeTableId, destination } = place;
    const entries = await vpc.describeRouteEntryList(routeTableId, { destination }, options);
    const entry = pick(entries, place);
    return this.#see(place, entry && this.#toRoute(entry));
  }

  /**
   * The entries of these destinations of one table, by key, with as few calls as do. Dynamic
   * entries may be missing, so what is not found is to be looked at by itself.
   */
  async readMany(
    routeTableId: string,
    places: readonly Place[],
    options: { signal: AbortSignal },
  ): Promise<ReadonlyMap<string, CloudRoute>> {
    const { vpc, view } = this.#options;
    const calls = Math.ceil(places.length / MAX_DESTINATIONS);
    const used = view.tables.get(routeTableId)?.used;
    const pages = used === undefined ? Infinity : Math.ceil((used + places.length) / PAGE_ENTRIES);
    if (pages <= calls) {
      const listed = await this.readTable(routeTableId, options);
      return new Map(listed.map((entry) => [keyOf(entry), entry]));
    }
    const found = new Map<string, CloudRoute>();
    for (let at = 0; at < places.length; at += MAX_DESTINATIONS) {
      const chunk = places.slice(at, at + MAX_DESTINATIONS);
      const { entries } = await vpc.describeRouteEntryListOnce(
        routeTableId,
        { type: "Custom", destinations: chunk.map(({ destination }) => destination) },
        options,
      );
      for (const place of chunk) {
        const entry = pick(entries, place);
        const seen = this.#see(place, entry && this.#toRoute(entry));
        if (seen !== undefined) found.set(keyOf(place), seen);
      }
    }
    return found;
  }

  #toRoute(entry: RouteEntry): CloudRoute {
    const route = toCloudRoute(entry);
    return { ...route, owned: isOurs(route, this.#options.owner()) };
  }

  #see(place: Place, entry: CloudRoute | undefined): CloudRoute | undefined {
    this.#options.view.sawOne(place, entry);
    if (entry !== undefined) this.#noteSuccess(entry);
    return entry;
  }

  /** A place that is as it should be has no failure, whoever mended it. */
  #noteSuccess(entry: CloudRoute): void {
    const claimant = this.#options.owner().claims.at(entry.destination);
    const right = claimant !== undefined && leadsTo(entry, claimant);
    if (right && entry.status === "Available") this.#options.view.succeeded(keyOf(entry));
  }
}

function pick(entries: readonly RouteEntry[], { destination }: Place): RouteEntry | undefined {
  const same = entries.filter((entry) => entry.destination.equals(destination));
  return same.find((each) => each.type === "Custom") ?? same[0];
}

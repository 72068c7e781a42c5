/** Reads entries and notes what was seen. @module */
import type { Logger } from "../../log.ts";
import type { Orphans } from "./orphans.ts";
import type { CallOptions, Clock, CloudRoute, RouteApi } from "./provider.ts";
import {
  type ClusterMark,
  isOurs,
  isStale,
  keyOf,
  leadsTo,
  type Owner,
  type Place,
  routeMark,
} from "./route_entry.ts";
import type { RouteViewKeeper } from "./route_view.ts";

/** What a route table's reader, writer and batches share. */
export interface RouteContext extends Clock {
  readonly api: RouteApi;
  readonly mark: ClusterMark;
  readonly view: RouteViewKeeper;
  readonly orphans: Orphans;
  /** Who asks, at this moment: leases come and go while a write waits for its turn. */
  readonly owner: () => Owner;
  readonly fence: ((options: CallOptions) => Promise<void>) | undefined;
  /** How long one change waits for others before the next round looks at all of them anew. */
  readonly patienceMs: number;
  readonly log: Logger;
  readonly random: () => number;
}

export class RouteReader {
  readonly #options: RouteContext;

  constructor(options: RouteContext) {
    this.#options = options;
  }

  /**
   * The static entries of a table, read once from end to end. What slips between two pages while
   * they shift is missing: creating it is refused as a duplicate, and looked at then.
   */
  async readTable(routeTableId: string, options: CallOptions): Promise<readonly CloudRoute[]> {
    const { api, view, orphans, owner } = this.#options;
    const { entries, used } = await api.readTable(routeTableId, options);
    const listed = this.#onePerPlace(entries).map((entry) => this.#judge(entry));
    const asOwner = owner();
    if (asOwner.instanceId === undefined) {
      orphans.note(routeTableId, listed.filter((entry) => isStale(entry, asOwner)));
    }
    view.saw(routeTableId, listed, used);
    for (const entry of listed) this.#noteSuccess(entry);
    return listed;
  }

  /** The entries that the cloud knows as this instance's. */
  async readOwn(
    routeTableId: string,
    instanceId: string,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]> {
    const own = { instanceId, mark: routeMark(this.#options.owner().mark, instanceId) };
    const entries = await this.#options.api.readOwn(routeTableId, own, options);
    return this.#onePerPlace(entries).map((entry) => this.#judge(entry));
  }

  /** The entry of exactly this destination. */
  async read(place: Place, options: CallOptions): Promise<CloudRoute | undefined> {
    const { routeTableId, destination } = place;
    const entries = await this.#options.api.read(routeTableId, destination, options);
    return this.#see(place, this.#pick(entries, place));
  }

  /**
   * The entries of these destinations of one table, by key, with as few calls as do. Dynamic
   * entries may be missing, so what is not found is to be looked at by itself.
   */
  async readMany(
    routeTableId: string,
    places: readonly Place[],
    options: CallOptions,
  ): Promise<ReadonlyMap<string, CloudRoute>> {
    const { api, view } = this.#options;
    const { destinationsPerRead = 1 } = api;
    const calls = Math.ceil(places.length / destinationsPerRead);
    const used = view.tables.get(routeTableId)?.used;
    const pages = used === undefined
      ? Infinity
      : Math.ceil((used + places.length) / api.pageEntries);
    if (api.readMany === undefined || pages <= calls) {
      const listed = await this.readTable(routeTableId, options);
      return new Map(listed.map((entry) => [keyOf(entry), entry]));
    }
    const found = new Map<string, CloudRoute>();
    for (let at = 0; at < places.length; at += destinationsPerRead) {
      const some = places.slice(at, at + destinationsPerRead);
      const destinations = some.map(({ destination }) => destination);
      const entries = await api.readMany(routeTableId, destinations, options);
      for (const place of some) {
        const seen = this.#see(place, this.#pick(entries, place));
        if (seen !== undefined) found.set(keyOf(place), seen);
      }
    }
    return found;
  }

  #pick(entries: readonly CloudRoute[], { destination }: Place): CloudRoute | undefined {
    return this.#onePerPlace(entries).find((entry) => entry.destination.equals(destination));
  }

  /**
   * A static entry hides a dynamic one. Where a cloud lets several stand at one place, one that does
   * not lead to the claimant decides: it takes its share of the packets.
   */
  #onePerPlace(entries: readonly CloudRoute[]): readonly CloudRoute[] {
    const { claims } = this.#options.owner();
    const weight = (entry: CloudRoute) => {
      const claimant = claims.at(entry.destination);
      return (entry.isStatic ? 2 : 0) + (claimant && leadsTo(entry, claimant) ? 0 : 1);
    };
    const found = new Map<string, CloudRoute>();
    for (const entry of entries) {
      const known = found.get(keyOf(entry));
      if (known === undefined || weight(entry) > weight(known)) found.set(keyOf(entry), entry);
    }
    return [...found.values()];
  }

  #judge(entry: CloudRoute): CloudRoute {
    return { ...entry, owned: isOurs(entry, this.#options.owner()) };
  }

  #see(place: Place, found: CloudRoute | undefined): CloudRoute | undefined {
    const entry = found && this.#judge(found);
    this.#options.view.sawOne(place, entry);
    if (entry !== undefined) this.#noteSuccess(entry);
    return entry;
  }

  /** A place that is right has no failure, whoever repaired it. */
  #noteSuccess(entry: CloudRoute): void {
    const claimant = this.#options.owner().claims.at(entry.destination);
    const right = claimant !== undefined && leadsTo(entry, claimant);
    if (right && entry.state === "ready") this.#options.view.succeeded(keyOf(entry));
  }
}

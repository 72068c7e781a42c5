import { createAddressTable, createFdbTable, createNeighborTable } from "./link_entry_table.ts";
import { createLinkTable, LINK_ALIAS_PREFIX } from "./link_table.ts";
import type { Link, Netlink, NetlinkEvent } from "./netlink.ts";
import { createOffloadTable } from "./offload_table.ts";
import { isAdoptable } from "./route_adoption.ts";
import { LinkIndex } from "./links.ts";
import { createRouteTable, routeKind, specOfRoute } from "./route_table.ts";
import { createSysctlTable } from "./sysctl_table.ts";
import type { Logger } from "../log.ts";
import type { Address, Prefix } from "../net/mod.ts";
import type { AnyStage, ObjectNews } from "../reconcile/reconciler.ts";
import type { Table } from "../reconcile/table.ts";
import type { Desired } from "../state/desired.ts";
import { fdbKey, type KindId, type LinkSpec, neighborKey } from "../state/mod.ts";
import type { Wanted } from "../state/wanted.ts";

/** Options of {@linkcode KernelTables}. */
export interface KernelTablesOptions {
  readonly netlink: Netlink;
  /** Tells this daemon's links from those of others on the host; see {@linkcode linkAlias}. */
  readonly alias: string;
  /** The networks of this run and of those before. */
  readonly networks: readonly Prefix[];
  readonly externalLink: string;
  readonly log: Logger;
}

/** The same list each time: nothing has changed about it. */
const NONE: readonly never[] = [];

/** Tables whose objects and the kernel's depend on each other. */
export interface Companions {
  /** Before the kernel's links. */
  before(desired: () => Desired | undefined): AnyStage[];
  /** After links and addresses, before routes. */
  after(desired: () => Desired | undefined): AnyStage[];
}

/** What of ours an event may have changed: all, Tables of these kinds, or one object. */
export type Drift = "all" | readonly KindId[] | ObjectNews;

/**
 * What is written into own links' aliases. Daemons on one host have subnet files of their own, and
 * a daemon keeps its file over restarts, whatever else of its config changes.
 */
export function linkAlias(subnetFile: string): string {
  return LINK_ALIAS_PREFIX + subnetFile.slice(-200);
}

/** The kernel's Tables over one desired state, and what events mean for them. */
export class KernelTables {
  readonly #options: KernelTablesOptions;
  #desired: () => Desired | undefined = () => undefined;
  /** Names and kinds of the links that are wanted. */
  #links: { readonly list: readonly LinkSpec[]; readonly kinds: ReadonlyMap<string, string> } = {
    list: NONE,
    kinds: new Map(),
  };
  /** Links as last listed. */
  #known = new LinkIndex([]);

  constructor(options: KernelTablesOptions) {
    this.#options = options;
  }

  /** The Tables in the order of creation; `isPeer` tells the public addresses of other hosts. */
  stages(
    desired: () => Desired | undefined,
    isPeer: (address: Address) => boolean,
    companions?: Companions,
  ): AnyStage[] {
    this.#desired = desired;
    const { netlink, alias, log } = this.#options;
    const owned = {
      ownsLink: (name: string) => this.#linkKinds.has(name),
      links: () => Promise.resolve(this.#known),
    };
    const links = createLinkTable(netlink, {
      alias,
      ownsLink: (name, kind) => this.#linkKinds.get(name) === kind,
      onList: (links) => {
        this.#known = new LinkIndex(links);
      },
    });
    const stage = <Spec>(
      table: Table<Spec>,
      list: (state: Desired) => readonly Spec[] | Wanted<Spec> | undefined,
    ) => ({
      table,
      desired() {
        const state = desired();
        return state && (list(state) ?? NONE);
      },
    });
    return [
      ...companions?.before(desired) ?? [],
      { ...stage(links, ({ host }) => host.links), carriesLater: true },
      stage(
        createOffloadTable({
          links: () => (desired()?.host.offloads ?? []).map(({ link }) => link),
        }),
        ({ host }) => host.offloads,
      ),
      stage(
        createSysctlTable({
          wanted: () => desired()?.host.sysctls ?? [],
          onReadOnly: (name, reason) =>
            log.info(`Kernel parameter ${name} is left as it is: ${reason}`),
        }),
        ({ host }) => host.sysctls,
      ),
      {
        ...stage(
          createAddressTable(netlink, {
            ...owned,
            // As upstream: IPv4 addresses outside the network are somebody's own.
            ownsAddress: ({ address: { address } }) => address.family === 6 || this.#isOwn(address),
          }),
          ({ host }) => host.addresses,
        ),
        carriesLater: true,
      },
      stage(createNeighborTable(netlink, owned), ({ neighbors }) => neighbors),
      stage(createFdbTable(netlink, owned), ({ fdb }) => fdb),
      ...companions?.after(desired) ?? [],
      stage(
        createRouteTable(netlink, {
          links: owned.links,
          ownsDestination: (destination) => this.#isOwn(destination),
          adopts: (route, wasOurs) =>
            isAdoptable(route, {
              desired: desired()?.routes.get(route.destination.toString()),
              isPeer,
              isOwnLink: owned.ownsLink,
              wasOurs,
            }),
        }),
        ({ routes }) => routes,
      ),
    ];
  }

  #isOwn(place: Address | Prefix): boolean {
    return this.#options.networks.some((network) => network.contains(place));
  }

  get #linkKinds(): ReadonlyMap<string, string> {
    const list = this.#desired()?.host.links ?? NONE;
    if (this.#links.list !== list) {
      this.#links = { list, kinds: new Map(list.map(({ name, kind }) => [name, kind])) };
    }
    return this.#links.kinds;
  }

  /** Whether a route leads to pods. */
  isOwnDestination(destination: Prefix): boolean {
    return this.#isOwn(destination);
  }

  /** Whether an event is about the external interface, or a link that may be it. */
  concernsExternalLink(event: NetlinkEvent): boolean {
    if (event.kind !== "link" && event.kind !== "address") return event.kind === "lost";
    const link = this.#known.at(event.linkIndex ?? 0);
    return !link || link.name === this.#options.externalLink;
  }

  /** What of ours an event may have changed. */
  driftOf(event: NetlinkEvent): Drift {
    switch (event.kind) {
      case "lost":
        return "all";
      case "link": {
        const link = this.#known.at(event.linkIndex ?? 0);
        // A link that came just now may have a name that we want; all others are not our matter.
        if (!link) return event.removed ? [] : ["link"];
        return this.#isWatched(link) ? "all" : [];
      }
      case "address": {
        const link = this.#known.at(event.linkIndex ?? 0);
        if (!link) return [];
        if (link.name === this.#options.externalLink) return "all";
        // What goes with an address is looked at once the address is put back.
        return this.#isWatched(link) ? ["address"] : [];
      }
      case "route": {
        const { route, destination, removed } = event;
        if (!route || !destination || !this.#isOwn(destination)) return [];
        const link = route.linkIndex === undefined ? undefined : this.#known.at(route.linkIndex);
        if (route.linkIndex !== undefined && !link) return ["route"];
        const object = specOfRoute(route, link?.name);
        return object ? { kind: "route", key: routeKind.key(object), object, gone: removed } : [];
      }
      case "neighbor": {
        const link = this.#ownLink(event.linkIndex);
        if (!link || !event.address) return [];
        const key = neighborKey({ link, address: event.address });
        const { entry } = event;
        // One that is not permanent any more is none of those that the Table holds.
        if (event.removed || !entry) return { kind: "neighbor", key, gone: true };
        return { kind: "neighbor", key, object: { link, ...entry }, gone: false };
      }
      case "fdb": {
        const link = this.#ownLink(event.linkIndex);
        const { entry, removed } = event;
        if (!link || !entry || !("remote" in entry)) return [];
        const object = { link, mac: entry.mac, remote: entry.remote };
        return { kind: "fdb", key: fdbKey(object), object, gone: removed };
      }
      case "rule":
        return [];
    }
  }

  /** The name of a link of ours. */
  #ownLink(linkIndex: number | undefined): string | undefined {
    const link = this.#known.at(linkIndex ?? 0);
    return link && this.#linkKinds.has(link.name) ? link.name : undefined;
  }

  #isWatched({ name, alias }: Link): boolean {
    return name === this.#options.externalLink || alias === this.#options.alias ||
      this.#linkKinds.has(name);
  }
}

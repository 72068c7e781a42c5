import {
  createAddressTable,
  createFdbTable,
  createNeighborTable,
} from "../kernel/link_entry_table.ts";
import { createLinkTable, LINK_ALIAS_PREFIX } from "../kernel/link_table.ts";
import type { Link, Netlink, NetlinkEvent } from "../kernel/netlink.ts";
import { createOffloadTable } from "../kernel/offload_table.ts";
import { isAdoptable } from "../kernel/route_adoption.ts";
import { createRouteTable } from "../kernel/route_table.ts";
import { createSysctlTable } from "../kernel/sysctl_table.ts";
import type { Logger } from "../log.ts";
import type { Address, Prefix } from "../net/mod.ts";
import type { AnyStage } from "../reconcile/reconciler.ts";
import type { Table } from "../reconcile/table.ts";
import type { DesiredState, KindId, RouteSpec } from "../state/mod.ts";
import type { PlaneRuntime } from "../runtime/runtime.ts";

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

/** Which kinds of objects an event may have changed: all, or these. */
export type Drift = "all" | readonly KindId[];

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
  #desired: () => DesiredState | undefined = () => undefined;
  #wanted: { readonly state: DesiredState; readonly index: WantedIndex } | undefined;
  /** Links as last listed. */
  #known: ReadonlyMap<number, Link> = new Map();

  constructor(options: KernelTablesOptions) {
    this.#options = options;
  }

  /** The Tables in the order of creation; `isPeer` tells the public addresses of other hosts. */
  stages(
    desired: () => DesiredState | undefined,
    isPeer: (address: Address) => boolean,
    plane?: PlaneRuntime,
  ): AnyStage[] {
    this.#desired = desired;
    const { netlink, alias, log } = this.#options;
    const index = () => this.#index();
    const owned = { ownsLink: (name: string) => index().links.has(name) };
    const links = createLinkTable(netlink, {
      alias,
      ownsLink: (name, kind) => index().links.get(name) === kind,
      onList: (links) => {
        this.#known = new Map(links.map((link) => [link.index, link]));
      },
    });
    const stage = <Spec>(
      table: Table<Spec>,
      list: (state: DesiredState) => readonly Spec[] | undefined,
    ) => ({
      table,
      desired() {
        const state = desired();
        return state && (list(state) ?? NONE);
      },
    });
    return [
      ...plane?.before(desired) ?? [],
      { ...stage(links, ({ links }) => links), carriesLater: true },
      stage(
        createOffloadTable({ links: () => (desired()?.offloads ?? []).map(({ link }) => link) }),
        ({ offloads }) => offloads,
      ),
      stage(
        createSysctlTable({
          wanted: () => desired()?.sysctls ?? [],
          onReadOnly: (name, reason) =>
            log.info(`Kernel parameter ${name} is left as it is: ${reason}`),
        }),
        ({ sysctls }) => sysctls,
      ),
      {
        ...stage(
          createAddressTable(netlink, {
            ...owned,
            // As upstream: IPv4 addresses outside the network are somebody's own.
            ownsAddress: ({ address: { address } }) => address.family === 6 || this.#isOwn(address),
          }),
          ({ addresses }) => addresses,
        ),
        carriesLater: true,
      },
      stage(createNeighborTable(netlink, owned), ({ neighbors }) => neighbors),
      stage(createFdbTable(netlink, owned), ({ fdb }) => fdb),
      ...plane?.after(desired) ?? [],
      stage(
        createRouteTable(netlink, {
          ownsDestination: (destination) => this.#isOwn(destination),
          adopts: (route, wasOurs) =>
            isAdoptable(route, {
              desired: index().routes().get(route.destination.toString()),
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

  #index(): WantedIndex {
    const state = this.#desired() ?? {};
    if (this.#wanted?.state !== state) this.#wanted = { state, index: new WantedIndex(state) };
    return this.#wanted.index;
  }

  /** Whether a route leads to pods. */
  isOwnDestination(destination: Prefix): boolean {
    return this.#isOwn(destination);
  }

  /** Whether an event is about the external interface, or a link that may be it. */
  concernsExternalLink(event: NetlinkEvent): boolean {
    if (event.kind !== "link" && event.kind !== "address") return event.kind === "lost";
    const link = this.#known.get(event.linkIndex ?? 0);
    return !link || link.name === this.#options.externalLink;
  }

  /** What of ours an event may have changed. */
  driftOf(event: NetlinkEvent): Drift {
    switch (event.kind) {
      case "lost":
        return "all";
      case "link": {
        const link = this.#known.get(event.linkIndex ?? 0);
        // A link that came just now may have a name that we want; all others are not our matter.
        if (!link) return event.removed ? [] : ["link"];
        return this.#isWatched(link) ? "all" : [];
      }
      case "address": {
        const link = this.#known.get(event.linkIndex ?? 0);
        if (!link) return [];
        if (link.name === this.#options.externalLink) return "all";
        // What goes with an address is looked at once the address is put back.
        return this.#isWatched(link) ? ["address"] : [];
      }
      case "route":
        return event.destination && this.#isOwn(event.destination) ? ["route"] : [];
      case "neighbor":
        return this.#isOurs(event.linkIndex) ? ["neighbor"] : [];
      case "fdb":
        return this.#isOurs(event.linkIndex) ? ["fdb"] : [];
      case "rule":
        return [];
    }
  }

  #isOurs(linkIndex: number | undefined): boolean {
    const link = this.#known.get(linkIndex ?? 0);
    return link !== undefined && this.#index().links.has(link.name);
  }

  #isWatched({ name, alias }: Link): boolean {
    return name === this.#options.externalLink || alias === this.#options.alias ||
      this.#index().links.has(name);
  }
}

/** What a desired state holds, by name. */
class WantedIndex {
  /** Link names to kinds. */
  readonly links: ReadonlyMap<string, string>;
  readonly #state: DesiredState;
  #routes: ReadonlyMap<string, RouteSpec> | undefined;

  constructor(state: DesiredState) {
    this.#state = state;
    this.links = new Map((state.links ?? []).map(({ name, kind }) => [name, kind]));
  }

  /** Routes by destination; made only if a foreign route asks for it. */
  routes(): ReadonlyMap<string, RouteSpec> {
    return this.#routes ??= new Map(
      (this.#state.routes ?? []).map((route) => [route.destination.toString(), route]),
    );
  }
}

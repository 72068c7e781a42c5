import { NetlinkError } from "../../ffi/libnl/errors.ts";
import type { Address } from "../net/mod.ts";
import type { UnderlayPath } from "../state/mod.ts";
import { LinkIndex } from "./links.ts";
import type { Netlink, NetlinkEvent, Route } from "./netlink.ts";

/**
 * Keeps the kernel's answers to how it would send to each of many addresses, by address text. It
 * asks for those that are new, and for all again only after a change of what the answers follow
 * from.
 */
export class UnderlayPaths {
  readonly #netlink: Netlink;
  #paths: ReadonlyMap<string, UnderlayPath> = new Map();
  #linkIndexes: ReadonlySet<number> = new Set();
  #stale = false;
  #used = false;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** Whether answers must be asked for again. */
  get isStale(): boolean {
    return this.#stale;
  }

  /** The latest answers. Another object whenever one of them is another. */
  get paths(): ReadonlyMap<string, UnderlayPath> {
    return this.#paths;
  }

  /**
   * Whether an event may change answers, which are asked for again then. Routes into
   * `ownNetworks` lead to pods, and never to an address of the underlay.
   */
  observe(
    event: NetlinkEvent,
    isOwnDestination: (destination: NonNullable<Route["destination"]>) => boolean,
  ): boolean {
    if (!this.#used) return false;
    const concerns = event.kind === "lost" || event.kind === "rule" ||
      (event.kind === "route" && !(event.destination && isOwnDestination(event.destination))) ||
      (event.kind === "link" && this.#linkIndexes.has(event.linkIndex ?? 0));
    if (concerns) this.#stale = true;
    return concerns;
  }

  /** Brings the answers for `addresses`, and only these, up to date. */
  async update(
    addresses: readonly Address[],
    options: { signal: AbortSignal },
  ): Promise<ReadonlyMap<string, UnderlayPath>> {
    this.#used = true;
    const before = this.#paths;
    const asked = this.#stale
      ? addresses
      : addresses.filter((address) => !before.has(address.toString()));
    const wanted = new Set(addresses.map(String));
    if (asked.length === 0 && wanted.size === before.size) return before;
    this.#stale = false;
    let changed = wanted.size !== before.size;
    const paths = new Map<string, UnderlayPath>();
    for (const text of wanted) {
      const path = before.get(text);
      if (path) paths.set(text, path);
    }
    try {
      const answers = await this.#netlink.routeGetAll(asked, options);
      // Links after routes: one that is missing now took its routes with it.
      const links = await LinkIndex.read(this.#netlink, options);
      const used = new Set(this.#linkIndexes);
      asked.forEach((address, i) => {
        const answer = answers[i]!;
        if (!(answer instanceof Error) && answer.linkIndex !== undefined) {
          used.add(answer.linkIndex);
        }
        const path = describePath(answer, links);
        const former = paths.get(address.toString());
        if (former && samePath(former, path)) return;
        paths.set(address.toString(), path);
        changed = true;
      });
      this.#linkIndexes = used;
    } catch (error) {
      this.#stale = true;
      throw error;
    }
    if (changed) this.#paths = paths;
    return this.#paths;
  }
}

/** What a route, or the lack of one, means for a packet to its destination. */
function describePath(answer: Route | Error, links: LinkIndex): UnderlayPath {
  if (answer instanceof Error) {
    const code = answer instanceof NetlinkError ? answer.code : "";
    return {
      direct: false,
      reason: code === "ENETUNREACH" || code === "EHOSTUNREACH"
        ? "there is no route to it"
        : `the kernel finds no route to it (${code || answer.message})`,
    };
  }
  if (answer.type !== "unicast") {
    return {
      direct: false,
      reason: answer.type === "local"
        ? "it is an address of this host"
        : `its route is of type ${answer.type}`,
    };
  }
  const link = answer.linkIndex === undefined ? undefined : links.at(answer.linkIndex);
  if (!link) return { direct: false, reason: "there is no route to it" };
  if (answer.gateway) {
    return { direct: false, reason: `through gateway ${answer.gateway} on ${link.name}` };
  }
  if (answer.others.includes("encap")) {
    return { direct: false, reason: `its route on ${link.name} encapsulates` };
  }
  if (link.withoutNeighbors) {
    return {
      direct: false,
      link: link.name,
      reason: `link ${link.name} is point-to-point or without ARP`,
    };
  }
  return { direct: true, link: link.name };
}

function samePath(a: UnderlayPath, b: UnderlayPath): boolean {
  return a.direct === b.direct && a.link === b.link &&
    (a.direct || b.direct || a.reason === b.reason);
}

/** How the kernel would send to each of the other hosts. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import type { Address, Prefix } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type UnderlayPath } from "../state/mod.ts";
import { inSlices } from "../util/slices.ts";
import { LinkIndex } from "./links.ts";
import type { Netlink, NetlinkEvent, Route } from "./netlink.ts";

/** Addresses per slice: some tenths of a millisecond. */
const STEP_ADDRESSES = 256;

/**
 * Caches how the kernel would send to each of many addresses, by address text. New addresses are
 * looked up at once, all others only after an event that may change their path.
 */
export class UnderlayPaths {
  readonly #netlink: Netlink;
  #paths: ReadonlyMap<string, UnderlayPath> = new Map();
  #linkIndexes: ReadonlySet<number> = new Set();
  /** The addresses of the last update. */
  #addresses: readonly Address[] = [];
  #stale = false;
  #used = false;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** Whether all paths must be looked up again. */
  get isStale(): boolean {
    return this.#stale;
  }

  /** The latest paths; a new object whenever one of them differs. */
  get paths(): ReadonlyMap<string, UnderlayPath> {
    return this.#paths;
  }

  /**
   * Whether an event may change paths, which are then stale. Our own routes, and others to an
   * `isOwnDestination`, lead to pods and do not count, unless hosts have addresses there.
   */
  observe(
    event: NetlinkEvent,
    isOwnDestination: (destination: NonNullable<Route["destination"]>) => boolean,
  ): boolean {
    if (!this.#used) return false;
    const concerns = event.kind === "lost" || event.kind === "rule" ||
      (event.kind === "route" && event.protocol !== ROUTE_PROTOCOL &&
        !(event.destination && isOwnDestination(event.destination) &&
          !this.#holdsHosts(event.destination))) ||
      (event.kind === "link" && this.#linkIndexes.has(event.linkIndex ?? 0));
    if (concerns) this.#stale = true;
    return concerns;
  }

  #holdsHosts(destination: Prefix): boolean {
    return this.#addresses.some((address) => destination.contains(address));
  }

  /** Brings the paths to `addresses`, and only these, up to date. Duplicates are allowed. */
  async update(
    addresses: readonly Address[],
    options: { signal: AbortSignal },
  ): Promise<ReadonlyMap<string, UnderlayPath>> {
    this.#used = true;
    this.#addresses = addresses;
    const before = this.#paths;
    const askAll = this.#stale;
    // What changes from now on counts for the next time.
    this.#stale = false;
    try {
      const { paths, asked } = await inSlices(this.#sort(addresses, askAll), options);
      let changed = false;
      if (asked.length > 0) {
        const answers = await this.#netlink.routeGetAll(asked, options);
        // Links after routes: one that is missing now took its routes with it.
        const links = await LinkIndex.read(this.#netlink, options);
        changed = await inSlices(this.#enter(paths, asked, answers, links), options);
      }
      if (changed || paths.size !== before.size) this.#paths = paths;
    } catch (error) {
      this.#stale = true;
      throw error;
    }
    return this.#paths;
  }

  /** The known paths to `addresses`, and the addresses to look up. */
  *#sort(
    addresses: readonly Address[],
    askAll: boolean,
  ): Generator<void, { readonly paths: Map<string, UnderlayPath>; readonly asked: Address[] }> {
    const paths = new Map<string, UnderlayPath>();
    const unknown = new Set<string>();
    const asked: Address[] = [];
    let count = 0;
    for (const address of addresses) {
      if (++count % STEP_ADDRESSES === 0) yield;
      const text = address.toString();
      if (paths.has(text) || unknown.has(text)) continue;
      const path = this.#paths.get(text);
      if (path) paths.set(text, path);
      else unknown.add(text);
      if (askAll || !path) asked.push(address);
    }
    return { paths, asked };
  }

  /** Enters the results into `paths`; returns whether any of them differs. */
  *#enter(
    paths: Map<string, UnderlayPath>,
    asked: readonly Address[],
    answers: readonly (Route | Error)[],
    links: LinkIndex,
  ): Generator<void, boolean> {
    const used = new Set(this.#linkIndexes);
    let changed = false;
    for (const [i, address] of asked.entries()) {
      if (i % STEP_ADDRESSES === 0) yield;
      const answer = answers[i]!;
      if (!(answer instanceof Error) && answer.linkIndex !== undefined) used.add(answer.linkIndex);
      const path = describePath(answer, links);
      const former = paths.get(address.toString());
      if (former && samePath(former, path)) continue;
      paths.set(address.toString(), path);
      changed = true;
    }
    this.#linkIndexes = used;
    return changed;
  }
}

/** The path that a route, or the lack of one, amounts to. */
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

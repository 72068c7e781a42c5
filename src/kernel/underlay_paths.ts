/** How the kernel would send to each of the other hosts. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { type Address, type Prefix, sameAddress } from "../net/mod.ts";
import { ROUTE_PROTOCOL, type UnderlayPath } from "../state/mod.ts";
import { sameItems } from "../util/cell.ts";
import { inSlices } from "../util/slices.ts";
import { LinkIndex } from "./links.ts";
import type { Netlink, NetlinkEvent, Route } from "./netlink.ts";

/** Addresses per slice: some tenths of a millisecond. */
const STEP_ADDRESSES = 256;

/**
 * Caches how the kernel would send to hosts. New addresses are looked up at once, all others only
 * after an event that may change their path.
 */
export class UnderlayPaths {
  readonly #netlink: Netlink;
  readonly #paths = new Map<string, UnderlayPath>();
  /** Addresses by the keys of the hosts that have them. */
  readonly #addresses = new Map<string, readonly Address[]>();
  /** Keys of the hosts that have an address; mostly it is one. */
  readonly #hosts = new Map<string, string | readonly string[]>();
  #linkIndexes: ReadonlySet<number> = new Set();
  #stale = false;
  #used = false;

  constructor(netlink: Netlink) {
    this.#netlink = netlink;
  }

  /** The latest answers by address text; they are changed in place. */
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
    return this.#addresses.values().some((addresses) =>
      addresses.some((address) => destination.contains(address))
    );
  }

  /**
   * Takes down which `addresses` hosts have now, none where they are gone, and brings the answers up
   * to date. Returns the keys of the hosts to which the way is another. With `all`, there are no
   * other hosts.
   */
  async follow(
    addresses: ReadonlyMap<string, readonly Address[]>,
    { signal, all = false }: { readonly signal: AbortSignal; readonly all?: boolean },
  ): Promise<ReadonlySet<string>> {
    this.#used = true;
    const changed = new Set<string>();
    await inSlices(this.#note(addresses, all, changed), { signal });
    // What changes from now on counts for the next time.
    const askAll = this.#stale;
    this.#stale = false;
    try {
      const due = askAll ? this.#addresses : addresses;
      const asked = await inSlices(this.#unanswered(due, askAll), { signal });
      if (asked.length > 0) {
        const answers = await this.#netlink.routeGetAll(asked, { signal });
        // Links after routes: one that is missing now took its routes with it.
        const links = await LinkIndex.read(this.#netlink, { signal });
        await inSlices(this.#enter(asked, answers, links, changed), { signal });
      }
      return changed;
    } catch (error) {
      this.#stale = true;
      throw error;
    }
  }

  /** Takes down who has which addresses; `changed` are hosts that have others than before. */
  *#note(
    addresses: ReadonlyMap<string, readonly Address[]>,
    all: boolean,
    changed: Set<string>,
  ): Generator<void, void> {
    let count = 0;
    if (all) {
      for (const key of this.#addresses.keys()) if (!addresses.has(key)) this.#set(key, []);
    }
    for (const [key, list] of addresses) {
      if (++count % STEP_ADDRESSES === 0) yield;
      if (sameItems(this.#addresses.get(key) ?? [], list, sameAddress)) continue;
      this.#set(key, list);
      changed.add(key);
    }
  }

  #set(key: string, list: readonly Address[]): void {
    for (const address of this.#addresses.get(key) ?? []) {
      const text = address.toString();
      const others = [this.#hosts.get(text) ?? []].flat().filter((each) => each !== key);
      if (others.length > 0) this.#hosts.set(text, others);
      else {
        this.#hosts.delete(text);
        this.#paths.delete(text);
      }
    }
    if (list.length === 0) this.#addresses.delete(key);
    else this.#addresses.set(key, list);
    for (const address of list) {
      const text = address.toString();
      const others = this.#hosts.get(text);
      this.#hosts.set(text, others === undefined ? key : [others, key].flat());
    }
  }

  /** Those of `addresses` for which the kernel is to be asked, each once. */
  *#unanswered(
    addresses: ReadonlyMap<string, readonly Address[]>,
    askAll: boolean,
  ): Generator<void, Address[]> {
    const asked = new Map<string, Address>();
    let count = 0;
    for (const address of [...addresses.values()].flat()) {
      if (++count % STEP_ADDRESSES === 0) yield;
      const text = address.toString();
      if (askAll || !this.#paths.has(text)) asked.set(text, address);
    }
    return [...asked.values()];
  }

  /** Enters the answers; `changed` are the hosts for which one is another than before. */
  *#enter(
    asked: readonly Address[],
    answers: readonly (Route | Error)[],
    links: LinkIndex,
    changed: Set<string>,
  ): Generator<void, void> {
    const used = new Set(this.#linkIndexes);
    for (const [i, address] of asked.entries()) {
      if (i % STEP_ADDRESSES === 0) yield;
      const answer = answers[i]!;
      if (!(answer instanceof Error) && answer.linkIndex !== undefined) used.add(answer.linkIndex);
      const path = describePath(answer, links);
      const text = address.toString();
      const former = this.#paths.get(text);
      if (former && samePath(former, path)) continue;
      this.#paths.set(text, path);
      for (const key of [this.#hosts.get(text) ?? []].flat()) changed.add(key);
    }
    this.#linkIndexes = used;
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

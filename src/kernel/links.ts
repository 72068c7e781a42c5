/** Link names and indexes. @module */
import type { Link, Netlink } from "./netlink.ts";

/** Reads the links, possibly from a cache. */
export type ReadLinks = typeof LinkIndex.read;

/** A snapshot of which link has which name. Specs speak of names, the kernel of indexes. */
export class LinkIndex {
  readonly links: readonly Link[];
  readonly #byName = new Map<string, Link>();
  readonly #byIndex = new Map<number, Link>();

  constructor(links: readonly Link[]) {
    this.links = links;
    for (const link of links) {
      this.#byName.set(link.name, link);
      this.#byIndex.set(link.index, link);
    }
  }

  /** What is there now. */
  static async read(netlink: Netlink, options: { signal: AbortSignal }): Promise<LinkIndex> {
    return new LinkIndex(await netlink.listLinks(options));
  }

  named(name: string): Link | undefined {
    return this.#byName.get(name);
  }

  at(index: number): Link | undefined {
    return this.#byIndex.get(index);
  }

  /** The name of link `index`; `index 7` for one that is not there. */
  nameOf(index: number): string {
    return this.#byIndex.get(index)?.name ?? `index ${index}`;
  }

  /** The index of link `name`. @throws {Error} If there is none (yet). */
  indexOf(name: string): number {
    const link = this.#byName.get(name);
    if (!link) throw new Error(`there is no link ${name}`);
    return link.index;
  }
}

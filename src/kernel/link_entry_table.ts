/**
 * Tables of objects on links that flanneld owns: neighbours, forwarding entries, addresses. On
 * such a link everything of the kind is ours; on any other nothing is, and nothing is touched.
 *
 * @module
 */
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import {
  type AddressSpec,
  fdbKey,
  type FdbSpec,
  neighborKey,
  type NeighborSpec,
} from "../state/mod.ts";
import { applyChanges, GONE, resolving, type Step } from "./apply_changes.ts";
import { LinkIndex, type ReadLinks } from "./links.ts";
import type { Link, Netlink } from "./netlink.ts";

export interface OwnedLinksOptions {
  /** Whether the link of this name belongs to this daemon. */
  readonly ownsLink: (name: string) => boolean;
  /** The links, possibly cached. @default read from the kernel */
  readonly links?: ReadLinks;
}

const ALREADY_THERE: ReadonlySet<string> = new Set(["EEXIST"]);

/** The permanent neighbours on our links. */
export function createNeighborTable(
  netlink: Netlink,
  options: OwnedLinksOptions,
): Table<NeighborSpec> {
  return new LinkEntryTable<NeighborSpec>(netlink, options, {
    id: "neighbor",
    name: "neighbour",
    key: neighborKey,
    equal: (desired, actual) => desired.mac.equals(actual.mac),
    format: (spec) => `${spec.address} dev ${spec.link} lladdr ${spec.mac} nud permanent`,
    async list(link, signal) {
      const entries = await netlink.scanNeighbors({ signal, linkIndex: link.index });
      return mapLazily(entries, ({ address, mac }) => ({ link: link.name, address, mac }));
    },
    // `replace`, since the kernel may have a dynamic entry there, which is not listed.
    add: (spec, linkIndex) => [{
      request: { verb: "replace", noun: "neighbor", value: { ...spec, linkIndex } },
    }],
    remove: (spec, linkIndex) => [{
      request: { verb: "remove", noun: "neighbor", value: { ...spec, linkIndex } },
      accept: GONE,
    }],
  });
}

/** The permanent forwarding entries of our VXLAN devices. */
export function createFdbTable(netlink: Netlink, options: OwnedLinksOptions): Table<FdbSpec> {
  return new LinkEntryTable<FdbSpec>(netlink, options, {
    id: "fdb",
    name: "forwarding entry",
    key: fdbKey,
    equal: (desired, actual) => desired.remote.equals(actual.remote),
    format: (spec) => `${spec.mac} dev ${spec.link} dst ${spec.remote} self permanent`,
    async list(link, signal) {
      const entries = await netlink.scanFdb({ signal, linkIndex: link.index });
      return mapLazily(entries, ({ mac, remote }) => ({ link: link.name, mac, remote }));
    },
    add: (spec, linkIndex) => [{
      request: { verb: "replace", noun: "fdb", value: { ...spec, linkIndex } },
    }],
    remove: (spec, linkIndex) => [{
      request: { verb: "remove", noun: "fdb", value: { ...spec, linkIndex } },
      accept: GONE,
    }],
  });
}

export interface AddressTableOptions extends OwnedLinksOptions {
  /** Leaves out addresses on our links that others may have put there. @default all are ours */
  readonly ownsAddress?: (spec: AddressSpec) => boolean;
}

/** The addresses on our links, apart from IPv6 link-local ones, which are the kernel's. */
export function createAddressTable(
  netlink: Netlink,
  options: AddressTableOptions,
): Table<AddressSpec> {
  const { ownsAddress = () => true } = options;
  return new LinkEntryTable<AddressSpec>(netlink, options, {
    id: "address",
    name: "address",
    // IPv4 may have one address with several prefix lengths, IPv6 may not (ipv6_add_addr).
    key: ({ link, address }) =>
      `${link} ${address.address.family === 4 ? address : address.address}`,
    equal: (desired, actual) => desired.address.prefix.equals(actual.address.prefix),
    owns: ownsAddress,
    format: ({ link, address }) => `${address} dev ${link}`,
    async list(link, signal) {
      const addresses = await netlink.listAddresses({ signal });
      return addresses
        .filter(({ linkIndex, address: { address } }) =>
          linkIndex === link.index && !(address.family === 6 && address.isLinkLocal())
        )
        .map(({ address }) => ({ link: link.name, address }));
    },
    add: ({ address }, linkIndex) => [{
      request: { verb: "add", noun: "address", value: { linkIndex, address } },
      // In IPv4, only exactly this address can be in the way.
      ...(address.address.family === 4 ? { accept: ALREADY_THERE } : {}),
    }],
    remove: ({ address }, linkIndex) => [{
      request: { verb: "remove", noun: "address", value: { linkIndex, address } },
      accept: GONE,
    }],
    replaceByRemoval: true,
  });
}

interface Definition<Spec> extends Omit<Kind<Spec>, "owns"> {
  /** Which entries on our links are ours. @default all */
  owns?(spec: Spec): boolean;
  /** The entries on `link`. */
  list(link: Link, signal: AbortSignal): Promise<Iterable<Spec>>;
  /** Adds `spec`, replacing one of the same key. */
  add(spec: Spec, linkIndex: number): readonly Step[];
  remove(spec: Spec, linkIndex: number): readonly Step[];
  /** Whether an entry of the same key must be removed before another is added. */
  readonly replaceByRemoval?: boolean;
}

class LinkEntryTable<Spec extends { readonly link: string }> implements Table<Spec> {
  readonly kind: Kind<Spec>;
  readonly #netlink: Netlink;
  readonly #options: OwnedLinksOptions;
  readonly #definition: Definition<Spec>;

  constructor(netlink: Netlink, options: OwnedLinksOptions, definition: Definition<Spec>) {
    this.#netlink = netlink;
    this.#options = options;
    this.#definition = definition;
    const { id, name, key, equal, format } = definition;
    this.kind = {
      id,
      name,
      key,
      equal,
      format,
      owns: (spec) => options.ownsLink(spec.link) && (definition.owns?.(spec) ?? true),
    };
  }

  async list(options: { signal: AbortSignal }): Promise<readonly Spec[]> {
    return [...await this.scan(options)];
  }

  async scan({ signal }: { signal: AbortSignal }): Promise<Iterable<Spec>> {
    const { links } = await LinkIndex.read(this.#netlink, { signal });
    const lists: Iterable<Spec>[] = [];
    for (const link of links) {
      if (!this.#options.ownsLink(link.name)) continue;
      lists.push(await this.#definition.list(link, signal));
    }
    return lists.values().flatMap((list) => list);
  }

  async apply(
    changes: readonly Change<Spec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<Spec>[]> {
    if (changes.length === 0) return [];
    const links = await (this.#options.links ?? LinkIndex.read)(this.#netlink, options);
    return await applyChanges(
      this.#netlink,
      changes,
      (change) => this.#plan(change, links),
      options,
    );
  }

  #plan(change: Change<Spec>, links: LinkIndex): readonly Step[] {
    const { add, remove, format, name, replaceByRemoval } = this.#definition;
    const spec = change.op === "remove" ? change.actual : change.desired;
    // On a link that is gone there is nothing left to remove.
    if (change.op === "remove" && !links.named(spec.link)) return [];
    const linkIndex = resolving(() => `${change.op} ${name} ${format(spec)}`, () => {
      if (!this.#options.ownsLink(spec.link)) {
        throw new Error(`link ${spec.link} is not flanneld's`);
      }
      return links.indexOf(spec.link);
    });
    switch (change.op) {
      case "add":
        return add(spec, linkIndex);
      case "remove":
        return remove(spec, linkIndex);
      case "replace":
        return [
          ...(replaceByRemoval ? remove(change.actual, linkIndex) : []),
          ...add(spec, linkIndex),
        ];
    }
  }
}

function mapLazily<T, U>(values: Iterable<T>, to: (value: T) => U): Iterable<U> {
  return Iterator.from(values).map(to);
}

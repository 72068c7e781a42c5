/** {@linkcode Netlink} over the kernel's rtnetlink. @module */
import { NETLINK_ROUTE } from "../../../ffi/libnl/constants.ts";
import { NetlinkError } from "../../../ffi/libnl/errors.ts";
import type { MessageWriter } from "../../../ffi/libnl/messages.ts";
import * as rt from "../../../ffi/libnl_route/constants.ts";
import { type LibnlRoute, openLibnlRoute } from "../../../ffi/libnl_route/open.ts";
import type { Address, Family } from "../../net/mod.ts";
import {
  type FdbEntry,
  formatRequest,
  type Link,
  type LinkAddress,
  type Neighbor,
  type Netlink,
  type NetlinkEventKind,
  type NetlinkEvents,
  type NetlinkRequest,
  type Route,
  type RouteLookup,
  type Rule,
} from "../netlink.ts";
import { decodeAddress, encodeAddress, encodeAddressDump } from "./codec/address.ts";
import { decodeLink, encodeLink, encodeLinkDump } from "./codec/link.ts";
import {
  decodeFdbEntry,
  decodeNeighbor,
  encodeFdbDump,
  encodeNeighbor,
  encodeNeighborDump,
} from "./codec/neighbor.ts";
import { decodeRoute, encodeRoute, encodeRouteDump, encodeRouteGet } from "./codec/route.ts";
import { decodeRule, encodeRuleDump } from "./codec/rule.ts";
import { subscribeTo } from "./events.ts";
import { type Decode, only } from "./replies.ts";
import { type Encode, type NetlinkOptions, NetlinkTransport, type Query } from "./transport.ts";

/**
 * Opens the kernel's network configuration. Needs CAP_NET_ADMIN to change anything.
 *
 * @throws {LibraryNotFoundError} If libnl is missing, naming its packages.
 */
export function openNetlink(options: NetlinkOptions = {}): Netlink {
  return new RouteNetlink(NetlinkTransport.open(NETLINK_ROUTE, options));
}

class RouteNetlink implements Netlink {
  readonly #transport: NetlinkTransport;
  readonly #subscriptions = new Set<NetlinkEvents>();
  /** Opened when a link is first written: most backends never do. */
  #libnlRoute: LibnlRoute | undefined;

  constructor(transport: NetlinkTransport) {
    this.#transport = transport;
  }

  /** Dumps both families; one that this kernel lacks is empty. */
  async #dumpFamilies<T>(
    noun: string,
    encode: (family: Family) => Encode,
    decode: (family: Family) => Decode<T>,
    options: { signal: AbortSignal },
  ): Promise<T[]> {
    const read = (query: Query, family: Family) =>
      this.#transport.dump(query, decode(family), options);
    return (await this.#readFamilies(noun, encode, read)).flat();
  }

  /** Likewise; messages are decoded while the result is gone through. */
  async #scanFamilies<T>(
    noun: string,
    encode: (family: Family) => Encode,
    decode: (family: Family) => Decode<T>,
    options: { signal: AbortSignal },
  ): Promise<Iterable<T>> {
    const read = (query: Query, family: Family) =>
      this.#transport.scan(query, decode(family), options);
    const both = await this.#readFamilies(noun, encode, read);
    return both.values().flatMap((values) => values);
  }

  async #readFamilies<Found>(
    noun: string,
    encode: (family: Family) => Encode,
    read: (query: Query, family: Family) => Promise<Found>,
  ): Promise<Found[]> {
    const values: Found[] = [];
    for (const family of [4, 6] as const) {
      const query = { operation: `Cannot list ${noun}`, encode: encode(family) };
      try {
        values.push(await read(query, family));
      } catch (error) {
        if (!(error instanceof NetlinkError)) throw error;
        // ENOENT: there is no such routing table.
        if (error.code !== "ENOENT" && error.code !== "EAFNOSUPPORT") throw error;
      }
    }
    return values;
  }

  listLinks(options: { signal: AbortSignal }): Promise<readonly Link[]> {
    const query = { operation: "Cannot list links", encode: encodeLinkDump };
    return this.#transport.dump(query, only(rt.RTM_NEWLINK, decodeLink), options);
  }

  listAddresses(options: { signal: AbortSignal }): Promise<readonly LinkAddress[]> {
    const query = { operation: "Cannot list addresses", encode: encodeAddressDump };
    return this.#transport.dump(query, only(rt.RTM_NEWADDR, decodeAddress), options);
  }

  listRoutes(options: { signal: AbortSignal; table: number }): Promise<readonly Route[]> {
    return this.#dumpFamilies(...routeDump(options.table), options);
  }

  scanRoutes(options: { signal: AbortSignal; table: number }): Promise<Iterable<Route>> {
    return this.#scanFamilies(...routeDump(options.table), options);
  }

  scanNeighbors(
    options: { signal: AbortSignal; linkIndex: number },
  ): Promise<Iterable<Neighbor>> {
    const { linkIndex } = options;
    return this.#scanFamilies(
      `neighbours of link index ${linkIndex}`,
      (family) => (writer, sequence) => encodeNeighborDump(writer, { family, linkIndex }, sequence),
      (family) =>
        only(rt.RTM_NEWNEIGH, (view, message) => {
          const neighbor = decodeNeighbor(view, message, linkIndex);
          return neighbor?.address.family === family ? neighbor : undefined;
        }),
      options,
    );
  }

  async scanFdb(
    options: { signal: AbortSignal; linkIndex: number },
  ): Promise<Iterable<FdbEntry>> {
    const { linkIndex } = options;
    const query = {
      operation: `Cannot list forwarding entries of link index ${linkIndex}`,
      encode: (writer: MessageWriter, sequence: number) =>
        encodeFdbDump(writer, linkIndex, sequence),
    };
    try {
      return await this.#transport.scan(
        query,
        only(rt.RTM_NEWNEIGH, (view, message) => decodeFdbEntry(view, message, linkIndex)),
        options,
      );
    } catch (error) {
      // The link has just gone, and its entries with it.
      if (error instanceof NetlinkError && error.code === "ENODEV") return [];
      throw error;
    }
  }

  listRules(options: { signal: AbortSignal }): Promise<readonly Rule[]> {
    return this.#dumpFamilies(
      "rules",
      (family) => (writer, sequence) => encodeRuleDump(writer, family, sequence),
      () => only(rt.RTM_NEWRULE, decodeRule),
      options,
    );
  }

  routeGet(
    address: Address,
    { signal, ...lookup }: RouteLookup & { signal: AbortSignal },
  ): Promise<Route> {
    return this.#transport.get(routeQuery(address, lookup), only(rt.RTM_NEWROUTE, decodeRoute), {
      signal,
    });
  }

  routeGetAll(
    addresses: readonly Address[],
    options: { signal: AbortSignal },
  ): Promise<readonly (Route | Error)[]> {
    const queries = addresses.map((address) => routeQuery(address));
    return this.#transport.getAll(queries, only(rt.RTM_NEWROUTE, decodeRoute), options);
  }

  change(
    requests: readonly NetlinkRequest[],
    options: { signal: AbortSignal },
  ): Promise<readonly (Error | undefined)[]> {
    const encode = this.#encode.bind(this);
    // A link that goes takes all that is on it along.
    const isQuick = ({ noun }: NetlinkRequest) => noun !== "link" && noun !== "address";
    const format = { encode, describe: formatRequest, isQuick };
    return this.#transport.change(requests, format, options);
  }

  get #route(): LibnlRoute {
    return this.#libnlRoute ??= openLibnlRoute(this.#transport.libnl);
  }

  #encode(writer: MessageWriter, request: NetlinkRequest, sequence: number): void {
    switch (request.noun) {
      case "route":
        return encodeRoute(writer, request.verb, request.value, sequence);
      case "neighbor":
      case "fdb":
        return encodeNeighbor(writer, request.verb, request.value, sequence);
      case "address":
        return encodeAddress(writer, request.verb, request.value, sequence);
      case "link":
        return encodeLink(writer, this.#route, request, sequence);
    }
  }

  subscribe(
    options: { signal: AbortSignal; kinds?: readonly NetlinkEventKind[] },
  ): NetlinkEvents {
    const onClose = () => this.#subscriptions.delete(subscription);
    const subscription = subscribeTo(this.#transport, { ...options, onClose });
    this.#subscriptions.add(subscription);
    return subscription;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all([...this.#subscriptions].map((each) => each[Symbol.asyncDispose]()));
    await this.#transport[Symbol.asyncDispose]();
    this.#libnlRoute?.[Symbol.dispose]();
    this.#libnlRoute = undefined;
  }
}

function routeQuery(address: Address, lookup: RouteLookup = {}) {
  return {
    operation: `Cannot find the route to ${address}`,
    encode: (writer: MessageWriter, sequence: number) =>
      encodeRouteGet(writer, address, sequence, lookup),
  };
}

/** What a dump of the routes of `table` takes. */
function routeDump(table: number) {
  return [
    `routes of table ${table}`,
    (family: Family): Encode => (writer, sequence) =>
      encodeRouteDump(writer, { family, table }, sequence),
    (family: Family): Decode<Route> =>
      only(rt.RTM_NEWROUTE, (view, message) => decodeRoute(view, message, { family, table })),
  ] as const;
}

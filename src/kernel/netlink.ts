/**
 * The seam to the kernel's network configuration: nouns (links, addresses, routes, neighbours,
 * forwarding entries, policy rules) and verbs. The Tables, the interface selection and the monitor
 * know nothing below it.
 *
 * @module
 */
import { defaultMetric } from "../state/mod.ts";
import type { Address, Family, InterfaceAddress, MacAddress, Prefix } from "../net/mod.ts";

/** `rt_tables` number of table main. */
export const TABLE_MAIN = 254;

/** What makes a link a VXLAN device. */
export interface VxlanParameters {
  readonly vni: number;
  /** UDP destination port. */
  readonly port: number;
  /** Index of the underlay link; absent if it is bound to none. */
  readonly underlayIndex?: number;
  readonly local?: Address;
  readonly learning: boolean;
  readonly gbp: boolean;
  /** The default remote or multicast group. flanneld's devices have none. */
  readonly remote?: Address;
  /** Names of further modes that are on and that flanneld never asks for. */
  readonly otherModes: readonly string[];
}

/** What makes a link an IPv4-in-IPv4 tunnel. */
export interface IpipParameters {
  readonly local?: Address;
  /** The only host at the other end. flanneld's tunnel has none. */
  readonly remote?: Address;
}

/** A network interface. */
export interface Link {
  readonly index: number;
  readonly name: string;
  readonly mtuBytes: number;
  readonly mac?: MacAddress;
  /** IFF_UP. */
  readonly up: boolean;
  /** IFF_RUNNING: it has a carrier, or none is needed. */
  readonly running: boolean;
  readonly loopback: boolean;
  /** IFF_POINTOPOINT or IFF_NOARP: no neighbour discovery. */
  readonly withoutNeighbors: boolean;
  /** What its owner wrote there (`ip link set … alias`). */
  readonly alias?: string;
  /** The bridge or bond it is part of. */
  readonly masterIndex?: number;
  /** `vxlan`, `veth`, …; absent for hardware. */
  readonly kind?: string;
  readonly vxlan?: VxlanParameters;
  readonly ipip?: IpipParameters;
}

/** An address on a link. */
export interface LinkAddress {
  readonly linkIndex: number;
  readonly address: InterfaceAddress;
  /** `link` for IPv4 and IPv6 link-local addresses, `host` for loopback ones. */
  readonly scope: RouteScope;
  /** Has no end of validity. */
  readonly permanent: boolean;
  /** An IPv6 privacy address (RFC 8981). */
  readonly temporary: boolean;
  /** An IPv4 address in a subnet that the link had an address in before. */
  readonly secondary: boolean;
  readonly deprecated: boolean;
  /** Duplicate address detection is not finished. */
  readonly tentative: boolean;
  readonly dadFailed: boolean;
}

export type RouteScope = "universe" | "site" | "link" | "host" | "nowhere" | "other";

export type RouteType =
  | "unicast"
  | "local"
  | "broadcast"
  | "anycast"
  | "multicast"
  | "blackhole"
  | "unreachable"
  | "prohibit"
  | "throw"
  | "other";

/** One path of a route with several. */
export interface NextHop {
  readonly gateway?: Address;
  readonly linkIndex: number;
  readonly onlink: boolean;
  /** RTNH_F_DEAD: its link is down. */
  readonly dead: boolean;
  readonly weight: number;
}

/** A route, in any table. */
export interface Route {
  readonly destination: Prefix;
  readonly type: RouteType;
  readonly table: number;
  readonly protocol: number;
  readonly scope: RouteScope;
  readonly tos: number;
  /** RTA_PRIORITY; see {@linkcode defaultMetric}. */
  readonly metric: number;
  /** Next hop, possibly of the other family (RFC 5549). */
  readonly gateway?: Address;
  readonly linkIndex?: number;
  readonly onlink: boolean;
  /** RTNH_F_DEAD: its link is down. */
  readonly dead: boolean;
  /** Preferred source address. */
  readonly source?: Address;
  /** The paths of a multipath route, which has neither `gateway` nor `linkIndex`. */
  readonly nextHops: readonly NextHop[];
  /** Properties that this type cannot express, such as `encap`; none in routes to be written. */
  readonly others: readonly string[];
}

/** A permanent ARP or NDP entry. */
export interface Neighbor {
  readonly linkIndex: number;
  readonly address: Address;
  readonly mac: MacAddress;
}

/** A permanent entry of a VXLAN device's forwarding database. */
export interface FdbEntry {
  readonly linkIndex: number;
  readonly mac: MacAddress;
  readonly remote: Address;
}

/** What a policy rule does with a packet instead of a table lookup. */
export type RuleRefusal = "blackhole" | "unreachable" | "prohibit";

/** A policy rule that leads to a table, or refuses. */
export interface Rule {
  readonly family: Family;
  readonly priority: number;
  readonly table: number;
  /** `rtm_protocol`; 0 if unknown. */
  readonly protocol: number;
  readonly from?: Prefix;
  readonly to?: Prefix;
  readonly mark?: number;
  readonly mask?: number;
  readonly inputLink?: string;
  readonly outputLink?: string;
  /** Protocol number, such as 17 for UDP. */
  readonly ipProtocol?: number;
  readonly sourcePorts?: PortRange;
  readonly ports?: PortRange;
  /** Absent where it leads to `table`. */
  readonly refusal?: RuleRefusal;
  /** It matches packets for which its conditions do not hold. */
  readonly inverted?: true;
}

/** Ports from the first to the last. */
export type PortRange = readonly [first: number, last: number];

/** A link to create, set up at once. */
export interface NewLink {
  readonly name: string;
  readonly kind: string;
  readonly mtuBytes: number;
  readonly mac?: MacAddress;
  readonly vxlan?: Omit<VxlanParameters, "remote" | "otherModes">;
  readonly ipip?: { readonly local: Address };
}

/** What can be changed on a link in place; absent members stay as they are. */
export interface LinkChange {
  readonly index: number;
  /** For messages. */
  readonly name: string;
  readonly mtuBytes?: number;
  readonly mac?: MacAddress;
  readonly up?: true;
  readonly alias?: string;
  /** Parameters of a VXLAN device; the kernel takes them only without an MTU beside them. */
  readonly vxlan?: Partial<Pick<VxlanParameters, "learning" | "local" | "underlayIndex">>;
}

/**
 * One write. `add` fails with EEXIST if something is in the way; `replace` puts the object there in
 * any case, over whatever has its identity; `remove` fails with ESRCH, ENOENT, ENODEV or
 * EADDRNOTAVAIL if there is no such object. A route is removed only where destination, table,
 * metric, protocol, type, gateway and link all match.
 */
export type NetlinkRequest =
  | Write<"add", "link", NewLink>
  | Write<"set", "link", LinkChange>
  | Write<"remove", "link", Pick<LinkChange, "index" | "name">>
  | Write<"add" | "remove", "address", Pick<LinkAddress, "linkIndex" | "address">>
  | Write<"add" | "replace" | "remove", "route", Route>
  | Write<"add" | "replace" | "remove", "neighbor", Neighbor>
  | Write<"add" | "replace" | "remove", "fdb", FdbEntry>;

interface Write<Verb, Noun, Value> {
  readonly verb: Verb;
  readonly noun: Noun;
  readonly value: Value;
}

/** The tables that have events. `neighbor` covers `fdb`, which the kernel reports with it. */
export type NetlinkEventKind = "link" | "address" | "route" | "neighbor" | "fdb" | "rule";

/**
 * Something changed. An event says what was true once: by now there may be others after it, and own
 * changes that it knows nothing of.
 */
export type NetlinkEvent =
  | {
    readonly kind: NetlinkEventKind;
    readonly removed: boolean;
    /** The link it is about, for links, addresses, neighbours and forwarding entries. */
    readonly linkIndex?: number;
    /** `rtm_protocol`, for routes. */
    readonly protocol?: number;
    /** For routes; absent for a default route. */
    readonly destination?: Prefix;
    /** For routes: what has come, changed or gone. */
    readonly route?: Route;
    /** For neighbours. */
    readonly address?: Address;
    /** For neighbours and forwarding entries that a list would hold, likewise. */
    readonly entry?: Neighbor | FdbEntry;
  }
  /** Events were lost: every list must be read again. */
  | { readonly kind: "lost" };

/**
 * A subscription. Iteration yields what happened since the last step, oldest first, at least one
 * event; it rejects with `signal.reason` on abort. Only one iteration at a time.
 */
export interface NetlinkEvents extends AsyncIterable<readonly NetlinkEvent[]>, AsyncDisposable {}

/**
 * The kernel's network configuration, of one network namespace.
 *
 * Lists are complete or fail: a list that the kernel reports as interrupted is read again, and
 * fails with `DumpInterruptedError` if that goes on. Changes outlive the process.
 */
export interface Netlink extends AsyncDisposable {
  listLinks(options: { signal: AbortSignal }): Promise<readonly Link[]>;
  listAddresses(options: { signal: AbortSignal }): Promise<readonly LinkAddress[]>;
  /** The routes of `table`, of both families, in the order in which the kernel tries them. */
  listRoutes(options: { signal: AbortSignal; table: number }): Promise<readonly Route[]>;
  /** The same, each made when it is come to, since there may be thousands; to be gone through once. */
  scanRoutes(options: { signal: AbortSignal; table: number }): Promise<Iterable<Route>>;
  /** The permanent neighbours on one link, likewise. */
  scanNeighbors(
    options: { signal: AbortSignal; linkIndex: number },
  ): Promise<Iterable<Neighbor>>;
  /** The permanent forwarding entries, those with a remote, of one VXLAN device, likewise. */
  scanFdb(options: { signal: AbortSignal; linkIndex: number }): Promise<Iterable<FdbEntry>>;
  listRules(options: { signal: AbortSignal }): Promise<readonly Rule[]>;
  /**
   * The route that a packet to `address` would take, with the source address it would carry.
   *
   * @throws {NetlinkError} ENETUNREACH or EHOSTUNREACH if there is none.
   */
  routeGet(address: Address, options: RouteLookup & { signal: AbortSignal }): Promise<Route>;
  /**
   * {@linkcode Netlink.routeGet} for many addresses, in few datagrams: for each, in order,
   * its route or error.
   */
  routeGetAll(
    addresses: readonly Address[],
    options: { signal: AbortSignal },
  ): Promise<readonly (Route | Error)[]>;
  /**
   * Tries each request in order and returns, at the same place, its error or `undefined`. Throws
   * only if the kernel cannot be talked to, or on abort (between batches).
   */
  change(
    requests: readonly NetlinkRequest[],
    options: { signal: AbortSignal },
  ): Promise<readonly (Error | undefined)[]>;
  /**
   * Subscribes to changes, from the moment this returns. This object's own changes are left out
   * where the kernel says whose they are.
   *
   * @param options.kinds Default: all.
   */
  subscribe(
    options: { signal: AbortSignal; kinds?: readonly NetlinkEventKind[] },
  ): NetlinkEvents;
}

/** What else the route of a packet depends on. */
export interface RouteLookup {
  /** Its source address. */
  readonly from?: Address;
  /** The link it arrives on, if it is forwarded. */
  readonly inputLinkIndex?: number;
  /** Its destination port, if it is of UDP. */
  readonly udpPort?: number;
}

/** `request` in the style of iproute2, such as `add route 10.5.7.0/24 via 192.0.2.7`. */
export function formatRequest({ verb, noun, value }: NetlinkRequest): string {
  switch (noun) {
    case "link":
      return `${verb} link ${value.name}`;
    case "address":
      return `${verb} address ${value.address} of link index ${value.linkIndex}`;
    case "route":
      return `${verb} ${formatRoute(value)}`;
    case "neighbor":
      return `${verb} neighbour ${value.address} lladdr ${value.mac}`;
    case "fdb":
      return `${verb} forwarding entry ${value.mac} dst ${value.remote}`;
  }
}

/** `route 10.5.7.0/24 via 192.0.2.7 dev index 3`, for messages. */
function formatRoute(route: Route): string {
  const path = (hop: Pick<NextHop, "gateway"> & { readonly linkIndex?: number }) =>
    (hop.gateway ? ` via ${hop.gateway}` : "") +
    (hop.linkIndex === undefined ? "" : ` dev index ${hop.linkIndex}`);
  return "route " + (route.type === "unicast" ? "" : `${route.type} `) + route.destination +
    path(route) + route.nextHops.map((hop) => ` nexthop${path(hop)}`).join("") +
    (route.metric === defaultMetric(route.destination.family) ? "" : ` metric ${route.metric}`);
}

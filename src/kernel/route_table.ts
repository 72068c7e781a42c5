/** The Table of routes. @module */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import type { Change, FailedChange, Kind, Table } from "../reconcile/table.ts";
import { defaultMetric, ROUTE_PROTOCOL, routeKey, type RouteSpec } from "../state/mod.ts";
import { applyChanges, GONE, resolving, type Step } from "./apply_changes.ts";
import type { Prefix } from "../net/mod.ts";
import { LinkIndex, type ReadLinks } from "./links.ts";
import { type Netlink, type Route, TABLE_MAIN } from "./netlink.ts";

/** An actual route, with what a spec cannot express. */
interface ActualRoute extends RouteSpec {
  readonly kernel: Route;
  /**
   * 0 for the route that the kernel uses; counts the further ones of the same destination, tos and
   * metric, which `ip route append` (IPv4) or another next hop (IPv6) may have put behind it.
   */
  readonly position: number;
  /** See {@linkcode identity}; made once, since it is asked for several times a round. */
  readonly identity: string;
  /** The identities of which the listing has several routes; complete at its end. */
  readonly repeated: ReadonlyMap<string, number>;
}

function kernelRoute(spec: RouteSpec): ActualRoute | undefined {
  return "kernel" in spec ? spec as ActualRoute : undefined;
}

/** Destination, tos and metric: what the kernel tells routes of one table apart by. */
function identity({ destination, tos, metric }: Route): string {
  return destination.toString() + (tos === 0 ? "" : ` tos ${tos}`) +
    (metric === defaultMetric(destination.family) ? "" : ` metric ${metric}`);
}

/** Routes of table main. A desired route has tos 0. */
export const routeKind: Kind<RouteSpec> = {
  id: "route",
  name: "route",

  key(spec) {
    const actual = kernelRoute(spec);
    if (!actual) return routeKey(spec);
    return actual.position === 0 ? actual.identity : `${actual.identity} #${actual.position}`;
  },

  equal(desired, actual) {
    const kernel = kernelRoute(actual)?.kernel;
    if (
      !desired.destination.equals(actual.destination) || desired.type !== actual.type ||
      desired.protocol !== actual.protocol
    ) return false;
    if (
      kernel && (kernel.type !== desired.type || kernel.nextHops.length > 0 ||
        kernel.others.length > 0)
    ) return false;
    if (!sameAddress(desired.source, actual.source)) return false;
    // IPv6 has no scopes: the kernel always reports `universe`.
    if (
      desired.destination.family === 4 &&
      (desired.scope ?? "universe") !== (kernel?.scope ?? actual.scope ?? "universe")
    ) return false;
    // A blackhole has no path; IPv6 reports the loopback link.
    if (desired.type === "blackhole") return true;
    return sameAddress(desired.gateway, actual.gateway) &&
      (desired.link === undefined || desired.link === actual.link) &&
      (desired.onlink ?? false) === (actual.onlink ?? false);
  },

  owns(actual) {
    return actual.protocol === ROUTE_PROTOCOL;
  },

  format(spec) {
    const kernel = kernelRoute(spec)?.kernel;
    const type = kernel?.type ?? spec.type;
    const words: string[] = type === "unicast" ? [] : [type];
    words.push(spec.destination.toString());
    if (type === "unicast") {
      if (spec.gateway) words.push("via", spec.gateway.toString());
      if (spec.link !== undefined) words.push("dev", spec.link);
    }
    words.push("proto", String(spec.protocol));
    if (spec.scope === "link") words.push("scope", "link");
    if (spec.source) words.push("src", spec.source.toString());
    if (spec.onlink) words.push("onlink");
    const metric = kernel?.metric ?? spec.metric;
    if (metric !== undefined && metric !== defaultMetric(spec.destination.family)) {
      words.push("metric", String(metric));
    }
    if (kernel && kernel.nextHops.length > 0) words.push(`(${kernel.nextHops.length} next hops)`);
    for (const other of kernel?.others ?? []) words.push(`(${other})`);
    return words.join(" ");
  },
};

/** Whether a spec fully describes the route, so that replacing it loses nothing. */
function isPlain(spec: RouteSpec): boolean {
  const kernel = kernelRoute(spec)?.kernel;
  return !kernel || (kernel.tos === 0 && kernel.nextHops.length === 0 &&
    kernel.others.length === 0 && kernel.metric === defaultMetric(spec.destination.family));
}

function sameAddress(
  a: RouteSpec["gateway"],
  b: RouteSpec["gateway"],
): boolean {
  return a === b || (a !== undefined && b !== undefined && a.equals(b));
}

function toActual(
  route: Route,
  link: string | undefined,
  place: Pick<ActualRoute, "position" | "repeated" | "identity">,
): ActualRoute {
  const { destination, type, gateway, onlink, scope, source, protocol } = route;
  const { position, identity, repeated } = place;
  const spec: { -readonly [Name in keyof ActualRoute]: ActualRoute[Name] } = {
    destination,
    type: type === "blackhole" ? "blackhole" : "unicast",
    protocol,
    kernel: route,
    position,
    identity,
    repeated,
  };
  // Not spread: thousands are read at a time.
  if (gateway) spec.gateway = gateway;
  if (link !== undefined && type !== "blackhole") spec.link = link;
  if (onlink) spec.onlink = true;
  if (scope === "link") spec.scope = "link";
  if (source) spec.source = source;
  return spec;
}

/**
 * The routes of table main: all with {@linkcode ROUTE_PROTOCOL}, which are ours, and all others
 * that may stand in the way of one of ours. Routes outlive the process.
 */
export function createRouteTable(
  netlink: Netlink,
  options: RouteTableOptions = {},
): Table<RouteSpec> {
  return new RouteTable(netlink, options);
}

export interface RouteTableOptions {
  /**
   * Narrows down which routes with {@linkcode ROUTE_PROTOCOL} are ours, so that several daemons on
   * one host, each with a network of its own, leave each other's alone. @default all
   */
  readonly ownsDestination?: (destination: Prefix) => boolean;
  /**
   * Which routes without {@linkcode ROUTE_PROTOCOL}, and of one next hop, may be replaced and
   * removed as well; `wasOurs` says that this Table had an own one in their place before.
   * @default none
   */
  readonly adopts?: (route: RouteSpec, wasOurs: boolean) => boolean;
  /** The links, possibly cached. @default read from the kernel */
  readonly links?: ReadLinks;
}

/**
 * The spec of a route that an event tells of; `undefined` for one that can neither be ours nor be
 * in the way. It is taken for the one that the kernel uses.
 */
export function specOfRoute(route: Route, link: string | undefined): RouteSpec | undefined {
  if (!isOfInterest(route)) return undefined;
  return toActual(route, link, { identity: identity(route), position: 0, repeated: NONE });
}

const NONE: ReadonlyMap<string, number> = new Map();

/** A desired route has tos 0. */
function isOfInterest({ table, tos, protocol }: Route): boolean {
  return table === TABLE_MAIN && (tos === 0 || protocol === ROUTE_PROTOCOL);
}

class RouteTable implements Table<RouteSpec> {
  readonly kind: Kind<RouteSpec>;
  readonly #netlink: Netlink;
  readonly #readLinks: ReadLinks;
  /** Keys of the own routes that were seen or made, until they are removed. */
  readonly #held = new Set<string>();

  constructor(
    netlink: Netlink,
    { ownsDestination = () => true, adopts = () => false, links = LinkIndex.read }:
      RouteTableOptions,
  ) {
    this.kind = {
      ...routeKind,
      owns: (actual) =>
        routeKind.owns(actual)
          ? ownsDestination(actual.destination)
          : isPlain(actual) && ownsDestination(actual.destination) &&
            adopts(actual, this.#held.has(routeKind.key(actual))),
    };
    this.#netlink = netlink;
    this.#readLinks = links;
  }

  async list(options: { signal: AbortSignal }): Promise<readonly RouteSpec[]> {
    return [...await this.scan(options)];
  }

  async scan(options: { signal: AbortSignal }): Promise<Iterable<RouteSpec>> {
    const routes = await this.#netlink.scanRoutes({ ...options, table: TABLE_MAIN });
    // Links after routes: a link that is missing now took its routes with it.
    const links = await LinkIndex.read(this.#netlink, options);
    return this.#describe(routes, links);
  }

  /** `routes` as specs, without those that can neither be ours nor be in the way. */
  *#describe(routes: Iterable<Route>, links: LinkIndex): Generator<RouteSpec, void> {
    const seen = new Set<string>();
    /** Of what comes more than once: how often it came again. */
    const repeated = new Map<string, number>();
    for (const route of routes) {
      if (!isOfInterest(route)) continue;
      const link = route.linkIndex === undefined ? undefined : links.at(route.linkIndex);
      if (route.linkIndex !== undefined && !link) continue;
      const key = identity(route);
      let position = 0;
      if (seen.has(key)) repeated.set(key, position = (repeated.get(key) ?? 0) + 1);
      else seen.add(key);
      if (route.protocol === ROUTE_PROTOCOL) this.#held.add(key);
      yield toActual(route, link?.name, { identity: key, position, repeated });
    }
  }

  async apply(
    changes: readonly Change<RouteSpec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<RouteSpec>[]> {
    if (changes.length === 0) return [];
    const links = await this.#readLinks(this.#netlink, options);
    const plan = (change: Change<RouteSpec>) => planRoute(change, links);
    for (const change of changes) {
      if (change.op === "remove") this.#held.delete(routeKind.key(change.actual));
      else this.#held.add(routeKind.key(change.desired));
    }
    const failed = await applyChanges(this.#netlink, changes, plan, options);
    for (const { change } of failed) {
      if (change.op === "add") this.#held.delete(routeKind.key(change.desired));
    }
    const isExisting = ({ change, error }: FailedChange<RouteSpec>) =>
      change.op === "add" && error instanceof NetlinkError && error.code === "EEXIST";
    if (!failed.some(isExisting)) return failed;
    return await this.#settleExisting(failed, isExisting, plan, options);
  }

  /** A route has appeared where we add one: it is right, ours to replace, or in the way. */
  async #settleExisting(
    failed: readonly FailedChange<RouteSpec>[],
    isExisting: (failed: FailedChange<RouteSpec>) => boolean,
    plan: (change: Change<RouteSpec>) => readonly Step[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<RouteSpec>[]> {
    const actual = new Map((await this.list(options)).map((each) => [routeKind.key(each), each]));
    const remaining: FailedChange<RouteSpec>[] = [];
    const origins = new Map<Change<RouteSpec>, Change<RouteSpec>>();
    for (const failure of failed) {
      const { change } = failure;
      const found = change.op === "add" && isExisting(failure)
        ? actual.get(routeKind.key(change.desired))
        : undefined;
      if (!found || change.op !== "add") {
        remaining.push(failure);
      } else if (routeKind.equal(change.desired, found)) {
        continue;
      } else if (this.kind.owns(found)) {
        origins.set({ op: "replace", desired: change.desired, actual: found }, change);
      } else {
        const error = new Error(
          `Cannot add route ${routeKind.format(change.desired)}: ` +
            `a route that is not flanneld's is in the way (${routeKind.format(found)})`,
          { cause: failure.error },
        );
        remaining.push({ change, error });
      }
    }
    const again = await applyChanges(this.#netlink, [...origins.keys()], plan, options);
    for (const { change, error } of again) remaining.push({ change: origins.get(change)!, error });
    return remaining;
  }
}

function planRoute(change: Change<RouteSpec>, links: LinkIndex): readonly Step[] {
  if (change.op === "remove") {
    const { actual } = change;
    // A link that is gone took its routes with it.
    if (actual.link !== undefined && !links.named(actual.link)) return [];
    const value = kernelRoute(actual)?.kernel ?? toKernel("remove", actual, links);
    return [{ request: { verb: "remove", noun: "route", value }, accept: GONE }];
  }
  const value = toKernel(change.op, change.desired, links);
  if (change.op === "replace" && value.destination.family === 6) {
    const { actual } = change;
    const kernel = kernelRoute(actual)?.kernel ?? toKernel("replace", actual, links);
    // Among several IPv6 routes, NLM_F_REPLACE takes the first that may be part of a multipath
    // route (ip6_fib.c, fib6_add_rt2node): maybe not ours. A short gap is the lesser evil.
    const listed = kernelRoute(actual);
    if (!listed?.repeated.has(listed.identity) && !isInOwnWay(value, kernel)) {
      return [{ request: { verb: "replace", noun: "route", value } }];
    }
    return [
      { request: { verb: "remove", noun: "route", value: kernel }, accept: GONE },
      { request: { verb: "add", noun: "route", value } },
    ];
  }
  return [{ request: { verb: change.op, noun: "route", value } }];
}

/**
 * Whether the kernel refuses `value` because of the very route that it is to replace: an on-link
 * IPv6 gateway must not be behind another link (route.c, ip6_route_check_nh_onlink), and a peer's
 * is in the peer's own subnet.
 */
function isInOwnWay(value: Route, kernel: Route): boolean {
  return value.onlink && value.gateway !== undefined && kernel.type === "unicast" &&
    kernel.linkIndex !== value.linkIndex && kernel.destination.contains(value.gateway);
}

function toKernel(verb: string, spec: RouteSpec, links: LinkIndex): Route {
  const { destination, link } = spec;
  const linkIndex = link === undefined || spec.type === "blackhole"
    ? undefined
    : resolving(() => `${verb} route ${routeKind.format(spec)}`, () => links.indexOf(link));
  return {
    destination,
    type: spec.type,
    table: TABLE_MAIN,
    protocol: spec.protocol,
    scope: spec.scope ?? "universe",
    tos: 0,
    metric: spec.metric ?? defaultMetric(destination.family),
    ...(spec.gateway ? { gateway: spec.gateway } : {}),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    onlink: spec.onlink ?? false,
    dead: false,
    ...(spec.source ? { source: spec.source } : {}),
    nextHops: [],
    others: [],
  };
}

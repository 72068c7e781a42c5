/** Watches which addresses the host needs for itself. @module */
import { lookup } from "node:dns/promises";
import type { Options } from "../cli/options.ts";
import type { FamilyConfig, NetworkConfig } from "../config/network_config.ts";
import type { InterfaceFacts } from "../kernel/own_address.ts";
import { type Netlink, type NetlinkEvent, type Route, TABLE_MAIN } from "../kernel/netlink.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import { Address, type Place, Places, Prefix, samePlace } from "../net/mod.ts";
import { ROUTE_PROTOCOL } from "../state/mod.ts";
import type { DaemonStatus, Finding } from "../status/model.ts";
import { Outage, ProblemLog, sentenceOf } from "../status/problems.ts";
import { abortable } from "../util/abortable.ts";
import { Cell, type ReadableCell, sameItems } from "../util/cell.ts";
import { deadline, delay } from "../util/time.ts";
import { Wakeup } from "../util/wakeup.ts";
import { type HostFacts, type HostNeeds, nameServers, planHostNeeds } from "./host_needs.ts";

/** Period of checks besides those on events: a changed name server causes no event. */
const LOOK_MS = 60_000;
/** Least time between two checks. */
const PAUSE_MS = 500;
/**
 * A new need counts if it is still there after this. A route that replaced one of ours is repaired by
 * then, and our own writes cause no event.
 */
const CONFIRM_MS = 1_500;
/** How long to wait for the resolution of etcd's names. */
const LOOKUP_MS = 2_000;
/** Overlaps that a message names at most. */
const NAMED = 4;

/** The second has the real servers where the first names a local stub. */
const RESOLVER_FILES = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

export interface ReservedSpaceOptions {
  readonly netlink: Pick<Netlink, "listLinks" | "listAddresses" | "listRoutes">;
  readonly network: NetworkConfig;
  readonly options: Pick<Options, "etcdEndpoints">;
  /** What else is called at addresses that no pod may have. */
  readonly services: HostFacts["services"];
  /** The lists by which the external interface was chosen. */
  readonly facts: InterfaceFacts;
  readonly externalLink: string;
  /** The alias of this daemon's links. */
  readonly alias: string;
  /** The subnet of the last run. */
  readonly own: LeaseSubnet | undefined;
  readonly log: Logger;
}

/**
 * Follows which addresses the host needs for itself, and logs once per overlap with the network or
 * the own subnet.
 */
export class ReservedSpace {
  readonly #options: ReservedSpaceOptions;
  readonly #wakeup = new Wakeup();
  #facts: HostFacts;
  #own: LeaseSubnet | undefined;
  readonly #latest: Cell<HostNeeds>;
  #routesDue = true;
  #namesDue = true;
  #endpoints: HostFacts["services"] = [];
  readonly #problems: ProblemLog;
  readonly #looking: Outage;

  constructor(options: ReservedSpaceOptions) {
    this.#options = options;
    this.#problems = new ProblemLog(options.log, {
      over: (problem) => [`No longer true: ${sentenceOf(problem)}`],
    });
    this.#looking = new Outage(options.log, {
      code: "look-failed",
      object: "host needs",
      failed: "Cannot look at what this host needs for itself",
      andThen: "; trying again",
      recovered: "Could look at what this host needs for itself",
    });
    this.#own = options.own;
    const { links, addresses, routes } = options.facts;
    this.#facts = { links, addresses, routes: foreign(routes), services: [] };
    this.#latest = new Cell(planHostNeeds(this.#facts, this.#context()), sameNeeds);
  }

  /** What no peer's subnet may take, and what no subnet that this host leases may take. */
  get needs(): ReadableCell<HostNeeds> {
    return this.#latest;
  }

  /** The overlaps with the network. */
  describe(): NonNullable<DaemonStatus["overlaps"]> {
    const { network } = this.#options;
    const places = [network.ipv4, network.ipv6].flatMap((family) =>
      family
        ? outermost(this.needs.value.needs.within(family.network).list).map(({ what }) => what)
        : []
    );
    return { places, problems: this.#problems.problems };
  }

  /** Whether a link has an address in `subnet`, as the pods' bridge does. */
  isServed(subnet: LeaseSubnet): boolean {
    return this.#facts.addresses.some(({ address: { address } }) =>
      subnet[`ipv${address.family}`]?.contains(address)
    );
  }

  /** Sets the subnet that this host serves. */
  serve(own: LeaseSubnet): void {
    this.#own = own;
    this.#plan();
  }

  /** Notes events that may change the needs. */
  observe(event: NetlinkEvent): void {
    if (event.kind === "lost") this.#routesDue = true;
    else if (event.kind === "route" && this.#concerns(event)) this.#routesDue = true;
    else if (event.kind !== "address") return;
    this.#wakeup.wake();
  }

  /** Checks again on changes and periodically, until aborted. */
  async run({ signal }: { readonly signal: AbortSignal }): Promise<never> {
    for (;; await delay(PAUSE_MS, { signal })) {
      try {
        const facts = await this.#read({ signal });
        const needs = planHostNeeds(facts, this.#context());
        if (addsTo(this.#latest.value, needs)) {
          await delay(CONFIRM_MS, { signal });
          this.#routesDue = true;
          await this.look({ signal });
        } else {
          this.#accept(facts, needs);
        }
        this.#looking.working();
      } catch (error) {
        signal.throwIfAborted();
        this.#looking.failing(error);
        this.#routesDue = true;
      }
      await this.#wakeup.sleep(LOOK_MS, { signal });
    }
  }

  /** Reads the host's state and files now, without waiting for confirmation. */
  async look(options: { readonly signal: AbortSignal }): Promise<void> {
    this.#accept(await this.#read(options));
  }

  async #read({ signal }: { readonly signal: AbortSignal }): Promise<HostFacts> {
    const { netlink } = this.#options;
    const routesDue = this.#routesDue;
    this.#routesDue = false;
    const links = await netlink.listLinks({ signal });
    const addresses = await netlink.listAddresses({ signal });
    const routes = routesDue
      ? foreign(await netlink.listRoutes({ signal, table: TABLE_MAIN }))
      : this.#facts.routes;
    const services = [...await readNameServers(), ...await this.#services({ signal })];
    return { links, addresses, routes, services };
  }

  #accept(facts: HostFacts, needs?: HostNeeds): void {
    this.#facts = facts;
    this.#plan(needs);
  }

  /** Routes to single pods do not matter, and may be many. */
  #concerns({ protocol, destination }: { protocol?: number; destination?: Prefix }): boolean {
    if (protocol === ROUTE_PROTOCOL) return false;
    if (!destination) return true;
    const { network } = this.#options;
    const family = network[`ipv${destination.family}`];
    const own = this.#own?.[`ipv${destination.family}`];
    return family !== undefined && family.network.overlaps(destination) &&
      !own?.contains(destination);
  }

  async #services({ signal }: { readonly signal: AbortSignal }): Promise<HostFacts["services"]> {
    const { options, services } = this.#options;
    if (!this.#namesDue) return this.#endpoints;
    this.#namesDue = false;
    const remote = options.etcdEndpoints.filter(({ path }) => path === undefined);
    const endpoints = remote.map(async ({ url, hostname }) => {
      const what = `the etcd endpoint ${url}`;
      return (await resolve(hostname, { signal })).map((address) => ({ address, what }));
    });
    return this.#endpoints = [...(await Promise.all(endpoints)).flat(), ...services];
  }

  #context() {
    const { network, externalLink, alias } = this.#options;
    return { network, own: this.#own, externalLink, alias };
  }

  #plan(latest: HostNeeds = planHostNeeds(this.#facts, this.#context())): void {
    this.#problems.set([...this.#overlaps(latest.needs), ...this.#ownOverlaps(latest.needs)]);
    this.#latest.set(latest);
  }

  *#overlaps(needs: Places): Generator<Finding> {
    const { network } = this.#options;
    for (const family of [network.ipv4, network.ipv6]) {
      if (!family) continue;
      const found = outermost(needs.within(family.network).list);
      if (found.length === 0) continue;
      const names = found.slice(0, NAMED).map(({ what }) => what).join(", ") +
        (found.length > NAMED ? ` and ${found.length - NAMED} more` : "");
      const message =
        `The network ${family.network} overlaps what this host needs for itself: ${names}; ` +
        (found.some((place) => isInRange(place, family))
          ? "a subnet that takes any of it is neither leased nor routed here. Keep SubnetMin " +
            "and SubnetMax, or the network, apart from it"
          : "packets of pods to it keep the pods' addresses, as they do within the network");
      // Another overlap is logged, too.
      yield { code: "network-overlap", object: `${family.network}`, message, cause: names };
    }
  }

  *#ownOverlaps(needs: Places): Generator<Finding> {
    for (const subnet of [this.#own?.ipv4, this.#own?.ipv6]) {
      const place = subnet && needs.find(subnet);
      if (!place) continue;
      yield {
        code: "subnet-overlap",
        object: `${subnet}`,
        message: `This host's own subnet ${subnet} overlaps ${place.what}; it is kept as long as ` +
          "pods may have addresses of it",
        remedy: "To get another one, remove the pods, stop flanneld, and delete subnet.env and " +
          "this host's lease",
      };
    }
  }
}

/** Whether `needs` has a place that `known` lacks; linear, as routes may be many. */
function addsTo(known: HostNeeds, { needs, occupied }: HostNeeds): boolean {
  return hasMore(known.needs, needs) || hasMore(known.occupied, occupied);
}

function hasMore(known: Places, places: Places): boolean {
  const keyOf = ({ prefix, what, yields }: Place) => `${prefix} ${yields} ${what}`;
  const keys = new Set(known.list.map(keyOf));
  return places.list.some((place) => !keys.has(keyOf(place)));
}

function sameNeeds(a: HostNeeds, b: HostNeeds): boolean {
  return sameItems(a.needs.list, b.needs.list, samePlace) &&
    sameItems(a.occupied.list, b.occupied.list, samePlace);
}

/** Routes of others than flanneld; of its own there may be thousands. */
function foreign(routes: readonly Route[]): readonly Route[] {
  return routes.filter(({ protocol }) => protocol !== ROUTE_PROTOCOL);
}

/** The prefixes of one family that no other one contains. */
function outermost(places: readonly Place[]): Place[] {
  const ordered = places
    .map((place) => ({ first: place.prefix.address.value, place }))
    .sort((a, b) =>
      a.first < b.first ? -1 : a.first > b.first ? 1 : a.place.prefix.length - b.place.prefix.length
    );
  const found: Place[] = [];
  for (const { place } of ordered) {
    if (!found.at(-1)?.prefix.contains(place.prefix)) found.push(place);
  }
  return found;
}

/** Whether a leasable subnet overlaps `place`. */
function isInRange({ prefix }: Place, { subnetMin, subnetMax, subnetLength }: FamilyConfig) {
  return prefix.last.value >= subnetMin.value &&
    prefix.address.value <= new Prefix(subnetMax, subnetLength).last.value;
}

async function readNameServers(): Promise<HostFacts["services"]> {
  const found = new Map<string, Address>();
  for (const path of RESOLVER_FILES) {
    const text = await Deno.readTextFile(path).catch(() => "");
    for (const address of nameServers(text, Address.tryParse)) found.set(`${address}`, address);
  }
  return [...found.values()].map((address) => ({ address, what: `the name server ${address}` }));
}

/** The addresses of a name or address; none if it does not resolve in time. */
async function resolve(
  hostname: string,
  { signal }: { readonly signal: AbortSignal },
): Promise<Address[]> {
  const literal = Address.tryParse(hostname);
  if (literal) return [literal];
  using limit = deadline(LOOKUP_MS, { signal });
  const answer = lookup(hostname, { all: true }).then((found) => found, () => []);
  const found = await abortable(answer, limit).catch(() => []);
  signal.throwIfAborted();
  return found.flatMap(({ address }) => Address.tryParse(address) ?? []);
}

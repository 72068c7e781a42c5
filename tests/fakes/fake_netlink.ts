/**
 * A kernel in memory behind the {@linkcode Netlink} seam, for tests without root. It keeps the
 * kernel's rules as far as flanneld meets them: identities, error codes, what disappears with a
 * link. The contract suite holds it to the real one.
 *
 * @module
 */
import { constants } from "node:os";
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import {
  type FdbEntry,
  formatRequest,
  type Link,
  type LinkAddress,
  type Neighbor,
  type Netlink,
  type NetlinkEvent,
  type NetlinkEventKind,
  type NetlinkEvents,
  type NetlinkRequest,
  type NewLink,
  type Route,
  type Rule,
  TABLE_MAIN,
} from "../../src/kernel/netlink.ts";
import {
  type Address,
  addressBits,
  InterfaceAddress,
  MacAddress,
  Prefix,
} from "../../src/net/mod.ts";
import { defaultMetric } from "../../src/state/mod.ts";

const RTPROT_KERNEL = 2;

/** A request was refused, by the kernel's error name. */
class Refusal extends Error {
  readonly code: keyof typeof constants.errno;
  constructor(code: keyof typeof constants.errno) {
    super(code);
    this.code = code;
  }
}

function refuseUnless(condition: unknown, code: keyof typeof constants.errno): asserts condition {
  if (!condition) throw new Refusal(code);
}

/** One network namespace. {@linkcode FakeKernel.open} gives a process's view of it. */
export class FakeKernel {
  links: Link[] = [];
  addresses: LinkAddress[] = [];
  routes: Route[] = [];
  neighbors: Neighbor[] = [];
  fdb: FdbEntry[] = [];
  rules: Rule[] = [];
  /** Kinds of links for which the kernel has no module. */
  readonly missingKinds = new Set<string>();
  /** Asked before each request; a code it returns is the answer. */
  refuse: (request: NetlinkRequest) => keyof typeof constants.errno | undefined = () => undefined;
  /** Every request that was tried, by any process. */
  readonly log: string[] = [];
  readonly #handles = new Set<FakeNetlink>();
  #nextIndex = 1;

  constructor() {
    this.links.push({
      index: this.#nextIndex++,
      name: "lo",
      mtuBytes: 65_536,
      up: true,
      running: true,
      loopback: true,
      withoutNeighbors: false,
    });
    for (const text of ["127.0.0.1/8", "::1/128"]) {
      this.addAddress("lo", text, { scope: "host" });
    }
  }

  /** A handle with an identity of its own. */
  open(): FakeNetlink {
    const handle = new FakeNetlink(this, () => this.#handles.delete(handle));
    this.#handles.add(handle);
    return handle;
  }

  /** Adds a hardware link, up, by someone else's doing. */
  addLink(name: string, link: Partial<Omit<Link, "index" | "name">> = {}): Link {
    const added: Link = {
      mtuBytes: 1500,
      up: true,
      running: true,
      loopback: false,
      withoutNeighbors: false,
      ...link,
      index: this.#nextIndex++,
      name,
    };
    this.links.push(added);
    this.publish({ kind: "link", removed: false, linkIndex: added.index });
    return added;
  }

  /** Adds an address in any state, by someone else's doing. */
  addAddress(
    link: string,
    text: string,
    state: Partial<Omit<LinkAddress, "linkIndex" | "address">> = {},
  ): void {
    const linkIndex = this.links.find(({ name }) => name === link)!.index;
    const address = InterfaceAddress.parse(text);
    this.#putAddress({
      scope: address.address.isLinkLocal() ? "link" : "universe",
      permanent: true,
      temporary: false,
      secondary: this.#isSecondary(linkIndex, address),
      deprecated: false,
      tentative: false,
      dadFailed: false,
      ...state,
      linkIndex,
      address,
    });
    this.publish({ kind: "address", removed: false, linkIndex });
  }

  /** Adds a route to table main, by someone else's doing; `dev` as in iproute2. */
  addRoute(destination: string, route: Partial<Route> & { readonly dev?: string } = {}): void {
    const { dev, ...rest } = route;
    const prefix = Prefix.parse(destination);
    const link = dev === undefined ? undefined : this.links.find(({ name }) => name === dev)!;
    const added: Route = {
      destination: prefix,
      type: "unicast",
      table: TABLE_MAIN,
      protocol: 3,
      scope: "universe",
      tos: 0,
      metric: defaultMetric(prefix.family),
      onlink: false,
      dead: false,
      nextHops: [],
      others: [],
      ...(link ? { linkIndex: link.index } : {}),
      ...rest,
    };
    this.routes.push(added);
    this.publish(routeEvent(added, false));
  }

  /** Removes a link, by someone else's doing. */
  removeLink(name: string): void {
    this.#removeLink(this.links.find((link) => link.name === name)!.index, undefined);
  }

  /** Tells every subscription that events were lost. */
  loseEvents(): void {
    for (const handle of this.#handles) handle.deliver({ kind: "lost" });
  }

  /** Hands an event to all subscriptions, apart from those of `origin` (links and FDB to all). */
  publish(event: Exclude<NetlinkEvent, { kind: "lost" }>, origin?: FakeNetlink): void {
    for (const handle of this.#handles) {
      const own = handle === origin && event.kind !== "link" && event.kind !== "fdb";
      if (!own) handle.deliver(event);
    }
  }

  /** One request by `origin`; an error or `undefined`. */
  request(request: NetlinkRequest, origin: FakeNetlink): Error | undefined {
    this.log.push(formatRequest(request));
    try {
      const code = this.refuse(request);
      if (code) throw new Refusal(code);
      this.#perform(request, origin);
      return undefined;
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return new NetlinkError(`Cannot ${formatRequest(request)}`, constants.errno[error.code]);
    }
  }

  #perform(request: NetlinkRequest, origin: FakeNetlink): void {
    switch (request.noun) {
      case "link":
        return this.#changeLink(request, origin);
      case "address":
        return this.#changeAddress(request, origin);
      case "route":
        return this.#changeRoute(request, origin);
      case "neighbor": {
        const { value, verb } = request;
        refuseUnless(this.#link(value.linkIndex), "ENODEV");
        const same = (each: Neighbor) =>
          each.linkIndex === value.linkIndex && each.address.equals(value.address);
        const found = this.neighbors.some(same);
        refuseUnless(!(found && verb === "add"), "EEXIST");
        refuseUnless(found || verb !== "remove", "ENOENT");
        this.neighbors = this.neighbors.filter((each) => !same(each));
        if (verb !== "remove") this.neighbors.push({ ...value });
        const { linkIndex, address } = value;
        const removed = verb === "remove";
        return this.publish({
          ...{ kind: "neighbor", removed, linkIndex, address },
          ...(removed ? {} : { entry: value }),
        }, origin);
      }
      case "fdb": {
        const { value, verb } = request;
        const link = this.#link(value.linkIndex);
        refuseUnless(link, "ENODEV");
        refuseUnless(link.kind === "vxlan", "EOPNOTSUPP");
        const same = (each: FdbEntry) =>
          each.linkIndex === value.linkIndex && each.mac.equals(value.mac);
        const found = this.fdb.some(same);
        refuseUnless(!(found && verb === "add"), "EEXIST");
        refuseUnless(found || verb !== "remove", "ENOENT");
        this.fdb = this.fdb.filter((each) => !same(each));
        if (verb !== "remove") this.fdb.push({ ...value });
        const { linkIndex } = value;
        const removed = verb === "remove";
        return this.publish({ kind: "fdb", removed, linkIndex, entry: value }, origin);
      }
    }
  }

  #link(index: number): Link | undefined {
    return this.links.find((link) => link.index === index);
  }

  #changeLink(request: NetlinkRequest & { noun: "link" }, origin: FakeNetlink): void {
    switch (request.verb) {
      case "add":
        return this.#newLink(request.value, origin);
      case "remove":
        refuseUnless(this.#link(request.value.index), "ENODEV");
        return this.#removeLink(request.value.index, origin);
      case "set": {
        const { index, mtuBytes, mac, up, alias, vxlan } = request.value;
        const link = this.#link(index);
        refuseUnless(link, "ENODEV");
        refuseUnless(!vxlan || mtuBytes === undefined, "EOPNOTSUPP");
        const family = link.vxlan?.local?.family;
        refuseUnless((vxlan?.local?.family ?? family) === family, "EOPNOTSUPP");
        const changed: Link = {
          ...link,
          ...(mtuBytes === undefined ? {} : { mtuBytes }),
          ...(mac ? { mac } : {}),
          ...(up ? { up } : {}),
          ...(alias === undefined ? {} : { alias }),
          ...(link.vxlan && vxlan ? { vxlan: { ...link.vxlan, ...vxlan } } : {}),
        };
        this.links = this.links.map((each) => each === link ? changed : each);
        return this.publish({ kind: "link", removed: false, linkIndex: index }, origin);
      }
    }
  }

  #newLink({ name, kind, mtuBytes, mac, vxlan, ipip }: NewLink, origin: FakeNetlink): void {
    refuseUnless(!this.links.some((link) => link.name === name), "EEXIST");
    refuseUnless(!this.missingKinds.has(kind), "EOPNOTSUPP");
    refuseUnless(!vxlan?.underlayIndex || this.#link(vxlan.underlayIndex), "ENODEV");
    const index = this.#nextIndex++;
    const underlay = vxlan?.underlayIndex === undefined
      ? undefined
      : this.#link(vxlan.underlayIndex);
    const headroomBytes = vxlan?.local?.family === 6 ? 70 : 50;
    this.links.push({
      index,
      name,
      kind,
      mtuBytes: underlay ? Math.min(mtuBytes, underlay.mtuBytes - headroomBytes) : mtuBytes,
      mac: mac ?? MacAddress.fromBytes(new Uint8Array([2, 0, 0, 0, 0, index])),
      up: true,
      running: kind !== "bridge",
      loopback: false,
      withoutNeighbors: kind === "ipip",
      ...(vxlan ? { vxlan: { ...vxlan, otherModes: [] } } : {}),
      ...(ipip ? { ipip } : {}),
    });
    this.publish({ kind: "link", removed: false, linkIndex: index }, origin);
  }

  #removeLink(index: number, origin: FakeNetlink | undefined): void {
    for (const upper of this.links) {
      // A VXLAN device does not outlive its underlay (vxlan_handle_lowerdev_unregister).
      if (upper.vxlan?.underlayIndex === index) this.#removeLink(upper.index, origin);
    }
    this.links = this.links.filter((link) => link.index !== index);
    this.addresses = this.addresses.filter(({ linkIndex }) => linkIndex !== index);
    this.routes = this.routes.filter(({ linkIndex }) => linkIndex !== index);
    this.neighbors = this.neighbors.filter(({ linkIndex }) => linkIndex !== index);
    this.fdb = this.fdb.filter(({ linkIndex }) => linkIndex !== index);
    this.publish({ kind: "link", removed: true, linkIndex: index }, origin);
  }

  #isSecondary(linkIndex: number, { address, prefix }: InterfaceAddress): boolean {
    return address.family === 4 &&
      this.addresses.some((each) =>
        each.linkIndex === linkIndex && !each.secondary && each.address.prefix.equals(prefix)
      );
  }

  #putAddress(added: LinkAddress): void {
    this.addresses.push(added);
    const { address: { address, prefix }, linkIndex, scope } = added;
    if (prefix.length === addressBits(address.family) || scope === "host") return;
    this.routes.push({
      destination: prefix,
      type: "unicast",
      table: TABLE_MAIN,
      protocol: RTPROT_KERNEL,
      scope: address.family === 4 ? "link" : "universe",
      tos: 0,
      metric: address.family === 4 ? 0 : 256,
      linkIndex,
      ...(address.family === 4 ? { source: address } : {}),
      onlink: false,
      dead: false,
      nextHops: [],
      others: [],
    });
  }

  #changeAddress(
    { verb, value: { linkIndex, address } }: NetlinkRequest & { noun: "address" },
    origin: FakeNetlink,
  ): void {
    refuseUnless(this.#link(linkIndex), "ENODEV");
    const same = (each: LinkAddress) =>
      each.linkIndex === linkIndex && each.address.address.equals(address.address) &&
      (address.address.family === 6 || each.address.prefix.equals(address.prefix));
    const found = this.addresses.find(same);
    if (verb === "add") {
      refuseUnless(!found, "EEXIST");
      this.#putAddress({
        linkIndex,
        address,
        scope: "universe",
        permanent: true,
        temporary: false,
        secondary: this.#isSecondary(linkIndex, address),
        deprecated: false,
        tentative: false,
        dadFailed: false,
      });
    } else {
      refuseUnless(found, "EADDRNOTAVAIL");
      this.addresses = this.addresses.filter((each) => each !== found);
      this.routes = this.routes.filter((route) =>
        !(route.protocol === RTPROT_KERNEL && route.linkIndex === linkIndex &&
          route.destination.equals(found.address.prefix))
      );
    }
    this.publish({ kind: "address", removed: verb === "remove", linkIndex }, origin);
  }

  #changeRoute(
    { verb, value }: NetlinkRequest & { noun: "route" },
    origin: FakeNetlink,
  ): void {
    const same = (each: Route) =>
      each.table === value.table && each.destination.equals(value.destination) &&
      each.tos === value.tos && each.metric === value.metric;
    if (verb === "remove") {
      const at = this.routes.findIndex((each) =>
        same(each) && each.type === value.type && each.protocol === value.protocol &&
        (!value.gateway || each.gateway?.equals(value.gateway)) &&
        (value.linkIndex === undefined || each.linkIndex === value.linkIndex)
      );
      refuseUnless(at >= 0, "ESRCH");
      this.routes.splice(at, 1);
    } else {
      const route = this.#resolve(value);
      const at = this.routes.findIndex(same);
      refuseUnless(!(at >= 0 && verb === "add"), "EEXIST");
      if (at >= 0) this.routes[at] = route;
      else this.routes.push(route);
    }
    this.publish(routeEvent(value, verb === "remove"), origin);
  }

  /** `route` with its link, as the kernel finds it by the gateway. */
  #resolve(route: Route): Route {
    const loopback = this.links.find((link) => link.loopback)!.index;
    if (route.type !== "unicast") {
      return route.destination.family === 6 ? { ...route, linkIndex: loopback } : route;
    }
    refuseUnless(route.linkIndex === undefined || this.#link(route.linkIndex), "ENODEV");
    if (!route.gateway || route.onlink) {
      refuseUnless(route.linkIndex !== undefined, "ENODEV");
      return route;
    }
    const { gateway } = route;
    const path = this.routes.find((each) =>
      each.table === TABLE_MAIN && each.linkIndex !== undefined && !each.gateway &&
      each.destination.contains(gateway) &&
      (route.linkIndex === undefined || each.linkIndex === route.linkIndex)
    );
    refuseUnless(path, route.destination.family === 4 ? "ENETUNREACH" : "EHOSTUNREACH");
    return { ...route, linkIndex: path.linkIndex! };
  }

  /** The route that a packet to `address` takes. */
  lookUp(address: Address): Route {
    const host = new Prefix(address, addressBits(address.family));
    const local = this.addresses.find((each) => each.address.address.equals(address));
    const [best] = local ? [] : this.routes
      .filter((each) => each.table === TABLE_MAIN && each.destination.contains(address))
      .toSorted((a, b) => b.destination.length - a.destination.length || a.metric - b.metric);
    const loopback = this.links.find((link) => link.loopback)!.index;
    if (!local && best?.type !== "unicast") {
      const errno = best ? constants.errno.EHOSTUNREACH : constants.errno.ENETUNREACH;
      throw new NetlinkError(`Cannot find the route to ${address}`, errno);
    }
    const hop = best?.nextHops[0] ?? best;
    const linkIndex = local ? loopback : hop!.linkIndex!;
    const source = best?.source ??
      this.addresses.find((each) =>
        each.linkIndex === (local?.linkIndex ?? linkIndex) &&
        each.address.address.family === address.family
      )?.address.address;
    return {
      destination: host,
      type: local ? "local" : "unicast",
      table: TABLE_MAIN,
      protocol: 0,
      scope: "universe",
      tos: 0,
      metric: best?.metric ?? 0,
      ...(hop?.gateway ? { gateway: hop.gateway } : {}),
      linkIndex,
      ...(source ? { source } : {}),
      onlink: false,
      dead: false,
      nextHops: [],
      others: [],
    };
  }
}

/** A process's handle on a {@linkcode FakeKernel}. */
export class FakeNetlink implements Netlink {
  readonly #kernel: FakeKernel;
  readonly #onClose: () => void;
  readonly #subscriptions = new Set<FakeEvents>();

  constructor(kernel: FakeKernel, onClose: () => void) {
    this.#kernel = kernel;
    this.#onClose = onClose;
  }

  deliver(event: NetlinkEvent): void {
    for (const subscription of this.#subscriptions) subscription.deliver(event);
  }

  async #read<T>({ signal }: { signal: AbortSignal }, read: () => readonly T[]) {
    signal.throwIfAborted();
    await Promise.resolve();
    return [...read()];
  }

  listLinks(options: { signal: AbortSignal }) {
    return this.#read(options, () => this.#kernel.links);
  }

  listAddresses(options: { signal: AbortSignal }) {
    return this.#read(options, () => this.#kernel.addresses);
  }

  listRoutes(options: { signal: AbortSignal; table: number }) {
    return this.#read(options, () =>
      this.#kernel.routes
        .filter(({ table }) => table === options.table)
        .toSorted((a, b) => a.destination.family - b.destination.family || a.metric - b.metric));
  }

  scanRoutes(options: { signal: AbortSignal; table: number }) {
    return this.listRoutes(options);
  }

  scanNeighbors(options: { signal: AbortSignal; linkIndex: number }) {
    return this.#read(
      options,
      () => this.#kernel.neighbors.filter(({ linkIndex }) => linkIndex === options.linkIndex),
    );
  }

  scanFdb(options: { signal: AbortSignal; linkIndex: number }) {
    return this.#read(
      options,
      () => this.#kernel.fdb.filter(({ linkIndex }) => linkIndex === options.linkIndex),
    );
  }

  listRules(options: { signal: AbortSignal }) {
    return this.#read(options, () => this.#kernel.rules);
  }

  async routeGet(address: Address, { signal }: { signal: AbortSignal }): Promise<Route> {
    signal.throwIfAborted();
    await Promise.resolve();
    return this.#kernel.lookUp(address);
  }

  async routeGetAll(addresses: readonly Address[], options: { signal: AbortSignal }) {
    return await Promise.all(
      addresses.map((address) => this.routeGet(address, options).catch((error: Error) => error)),
    );
  }

  async change(requests: readonly NetlinkRequest[], { signal }: { signal: AbortSignal }) {
    signal.throwIfAborted();
    await Promise.resolve();
    return requests.map((request) => this.#kernel.request(request, this));
  }

  subscribe(
    options: { signal: AbortSignal; kinds?: readonly NetlinkEventKind[] },
  ): NetlinkEvents {
    options.signal.throwIfAborted();
    const events = new FakeEvents(options, () => this.#subscriptions.delete(events));
    this.#subscriptions.add(events);
    return events;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const subscription of this.#subscriptions) await subscription[Symbol.asyncDispose]();
    this.#onClose();
  }
}

function routeEvent(route: Route, removed: boolean) {
  const { protocol, destination } = route;
  const about = destination.length > 0 ? { destination } : {};
  return { kind: "route", removed, protocol, route, ...about } as const;
}

class FakeEvents implements NetlinkEvents {
  readonly #signal: AbortSignal;
  readonly #kinds: ReadonlySet<NetlinkEventKind> | undefined;
  readonly #onClose: () => void;
  #queue: NetlinkEvent[] = [];
  #closed = false;
  #wake: () => void = () => {};

  constructor(
    { signal, kinds }: { signal: AbortSignal; kinds?: readonly NetlinkEventKind[] },
    onClose: () => void,
  ) {
    this.#signal = signal;
    this.#kinds = kinds && new Set(kinds);
    this.#onClose = onClose;
  }

  deliver(event: NetlinkEvent): void {
    if (event.kind !== "lost" && this.#kinds && !this.#kinds.has(event.kind)) return;
    this.#queue.push(event);
    this.#wake();
  }

  async *[Symbol.asyncIterator](): AsyncGenerator<readonly NetlinkEvent[], void, void> {
    for (;;) {
      this.#signal.throwIfAborted();
      if (this.#closed) throw new TypeError("Cannot wait for netlink events: closed");
      if (this.#queue.length > 0) {
        const events = this.#queue;
        this.#queue = [];
        yield events;
        continue;
      }
      const { promise, resolve } = Promise.withResolvers<void>();
      this.#wake = resolve;
      this.#signal.addEventListener("abort", this.#wake, { once: true });
      await promise;
      this.#signal.removeEventListener("abort", this.#wake);
    }
  }

  // deno-lint-ignore require-await -- nothing to wait for here; the real one has
  async [Symbol.asyncDispose](): Promise<void> {
    this.#closed = true;
    this.#wake();
    this.#onClose();
  }
}

import type { NetworkNamespace } from "../support/namespace.ts";

/**
 * MAC address of the router on every port. A VPC answers each ARP request of an instance with this
 * one address, whoever is asked for: instances share no layer 2, not even within a vSwitch.
 */
export const VPC_MAC = "ee:ff:ff:ff:ff:ff";

/** Preference of the first port's rule: after the main table, which has the hosts themselves. */
const FIRST_PREFERENCE = 33_000;
/** Kernel number of the first route table. */
const FIRST_TABLE = 1000;

/** An address of a machine's interface. */
export interface PortAddress {
  /** IPv4, but where the underlay has IPv6 alone. */
  readonly address: string;
  /** Gateway address of the machine's vSwitch; the router answers for it. */
  readonly gateway: string;
  /** Prefix length of the vSwitch. */
  readonly prefixLength: number;
}

/** A machine's connection to the VPC, or to a segment of a `Fabric`. */
export interface Port extends PortAddress {
  /** Name of the router's end of the veth. */
  readonly name: string;
  readonly mac: string;
  /** The IPv6 address, where the underlay is of both families. */
  readonly also?: PortAddress;
}

/** What the VPC does with packets; all of it, each time. */
export interface RouterState {
  /** Route table that decides for packets coming in at each port, by port name. */
  readonly tableOfPort: ReadonlyMap<string, string>;
  readonly routes: readonly RouterRoute[];
  /** Names of ports whose source/destination check is on. */
  readonly checkedPorts: ReadonlySet<string>;
}

/** One entry in force. */
export interface RouterRoute {
  readonly tableId: string;
  /** Destination in CIDR notation. */
  readonly destination: string;
  /** Port of the machine that gets the packets; without one they vanish. */
  readonly port: string | undefined;
}

/**
 * A VPC's virtual router in a network namespace: forwards between its ports by one route table per
 * port's vSwitch, drops what the source/destination check of an interface forbids, and can be made
 * to lose packets. It has no state of its own to decide by: {@linkcode VpcRouter.apply} gives all.
 */
export class VpcRouter {
  readonly namespace: NetworkNamespace;
  readonly #ports = new Map<string, Port>();
  readonly #tableNumbers = new Map<string, number>();
  readonly #routes = new Map<string, RouterRoute>();
  readonly #tableOfPort = new Map<string, string>();
  readonly #isolated = new Set<string>();
  readonly #offline = new Set<string>();
  readonly #cuts = new Set<string>();
  #filling = Promise.resolve();
  #checked = "";

  constructor(namespace: NetworkNamespace) {
    this.namespace = namespace;
  }

  /** Prepares the namespace; `serviceAddresses` are those of the cloud's own services. */
  async open(
    serviceAddresses: readonly string[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    await this.namespace.sysctl({
      "net/ipv4/ip_forward": "1",
      "net/ipv4/conf/all/proxy_arp": "1",
      "net/ipv4/conf/all/rp_filter": "0",
      "net/ipv4/conf/default/rp_filter": "0",
      "net/ipv4/conf/all/send_redirects": "0",
      "net/ipv4/conf/default/send_redirects": "0",
    }, options);
    await this.namespace.ip([
      "link set lo up",
      ...serviceAddresses.map((address) => `address add ${address}/32 dev lo`),
    ], options);
    await this.namespace.nft(RULES, options);
  }

  /** Connects machines: a veth from `eth0` of each to the port's name here. */
  async connect(
    machines: readonly { readonly port: Port; readonly namespace: NetworkNamespace }[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    await this.namespace.ip(
      machines.flatMap(({ port, namespace }) => [
        `link add ${port.name} address ${VPC_MAC} type veth ` +
        `peer name eth0 address ${port.mac} netns ${namespace.name}`,
        `address add ${port.gateway}/32 dev ${port.name}`,
        `link set ${port.name} up`,
        `route add ${port.address}/32 dev ${port.name}`,
      ]),
      options,
    );
    // Otherwise an answer on behalf of another machine waits up to 0.8 s. New interfaces do not
    // take this from a default of their namespace.
    await this.namespace.sysctl(
      Object.fromEntries(
        machines.map(({ port }) => [`net/ipv4/neigh/${port.name}/proxy_delay`, "0"]),
      ),
      options,
    );
    await Promise.all(machines.map(({ port, namespace }) =>
      namespace.ip([
        "link set lo up",
        `address add ${port.address}/${port.prefixLength} dev eth0`,
        "link set eth0 up",
        `route add default via ${port.gateway} dev eth0`,
      ], options)
    ));
    const own = machines.map(({ port }) => `"${port.name}" . ${port.address}`);
    for (const { port } of machines) this.#ports.set(port.name, port);
    await this.namespace.nft(`add element inet vpc own { ${own.join(", ")} }\n`, options);
  }

  /** Makes the router do exactly `state`; changes only what differs from the last call. */
  async apply(state: RouterState, options: { signal: AbortSignal }): Promise<void> {
    await this.namespace.ip(
      [...this.#ruleChanges(state.tableOfPort), ...this.#routeChanges(state.routes)],
      options,
    );
    const checked = [...state.checkedPorts].filter((name) => this.#ports.has(name)).sort();
    if (checked.join() !== this.#checked) {
      await this.#fill("checked", checked.map((name) => `"${name}"`), options);
      this.#checked = checked.join();
    }
  }

  /** Silently loses all packets of the machine at `port`, in both directions, until healed. */
  async isolate(port: Port, options: { signal: AbortSignal }): Promise<void> {
    this.#isolated.add(port.name);
    await this.#fillFaults(options);
  }

  /** Silently loses the packets between two machines, in both directions, until healed. */
  async cut(a: Port, b: Port, options: { signal: AbortSignal }): Promise<void> {
    this.#cuts.add(`"${a.name}" . "${b.name}"`).add(`"${b.name}" . "${a.name}"`);
    await this.#fillFaults(options);
  }

  /** Silently loses what the machine at `port` sends to the cloud's services, until healed. */
  async cutServices(port: Port, options: { signal: AbortSignal }): Promise<void> {
    this.#offline.add(port.name);
    await this.#fillFaults(options);
  }

  /**
   * Ends every fault of {@linkcode isolate}, {@linkcode cut} and {@linkcode cutServices}, or those
   * of one machine.
   */
  async heal(options: { signal: AbortSignal; port?: Port }): Promise<void> {
    const { port } = options;
    for (const faults of [this.#isolated, this.#cuts, this.#offline]) {
      for (const fault of faults) {
        const isMeant = port === undefined || fault === port.name ||
          fault.split(" . ").includes(`"${port.name}"`);
        if (isMeant) faults.delete(fault);
      }
    }
    await this.#fillFaults(options);
  }

  /** Packets dropped so far by the source/destination check. */
  async checkDrops(options: { signal: AbortSignal }): Promise<number> {
    const text = await this.namespace.run(
      "nft",
      ["list", "counter", "inet", "vpc", "check_drops"],
      options,
    );
    return Number(/packets (\d+)/.exec(text)?.[1]);
  }

  #ruleChanges(tableOfPort: ReadonlyMap<string, string>): string[] {
    const commands: string[] = [];
    for (const [index, name] of [...this.#ports.keys()].entries()) {
      const wanted = tableOfPort.get(name);
      const current = this.#tableOfPort.get(name);
      if (wanted === current) continue;
      const rule = `iif ${name} preference ${FIRST_PREFERENCE + index}`;
      if (wanted !== undefined) {
        commands.push(`rule add ${rule} lookup ${this.#tableNumber(wanted)}`);
        this.#tableOfPort.set(name, wanted);
      } else this.#tableOfPort.delete(name);
      if (current !== undefined) {
        commands.push(`rule del ${rule} lookup ${this.#tableNumber(current)}`);
      }
    }
    return commands;
  }

  #routeChanges(routes: readonly RouterRoute[]): string[] {
    const commands: string[] = [];
    const desired = new Map<string, RouterRoute>();
    for (const route of routes) desired.set(`${route.tableId} ${route.destination}`, route);
    for (const [key, route] of this.#routes) {
      if (desired.has(key)) continue;
      commands.push(
        `route del ${route.destination} table ${this.#tableNumber(route.tableId)}`,
      );
      this.#routes.delete(key);
    }
    for (const [key, route] of desired) {
      const current = this.#routes.get(key);
      if (current && current.port === route.port) continue;
      const port = route.port === undefined ? undefined : this.#ports.get(route.port);
      const table = this.#tableNumber(route.tableId);
      commands.push(
        port
          ? `route replace ${route.destination} via ${port.address} dev ${port.name} onlink table ${table}`
          : `route replace blackhole ${route.destination} table ${table}`,
      );
      this.#routes.set(key, route);
    }
    return commands;
  }

  #tableNumber(tableId: string): number {
    let number = this.#tableNumbers.get(tableId);
    if (number === undefined) {
      number = FIRST_TABLE + this.#tableNumbers.size;
      this.#tableNumbers.set(tableId, number);
    }
    return number;
  }

  /** One after the other: a process started earlier may end later, and would undo the last word. */
  #fillFaults(options: { signal: AbortSignal }): Promise<void> {
    const filled = this.#filling.then(async () => {
      await this.#fill("isolated", [...this.#isolated].map((name) => `"${name}"`), options);
      await this.#fill("offline", [...this.#offline].map((name) => `"${name}"`), options);
      await this.#fill("cut", [...this.#cuts], options);
    });
    this.#filling = filled.catch(() => {/* told to whoever asked */});
    return filled;
  }

  async #fill(
    set: string,
    elements: readonly string[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    const add = elements.length > 0
      ? `add element inet vpc ${set} { ${elements.join(", ")} }\n`
      : "";
    await this.namespace.nft(`flush set inet vpc ${set}\n${add}`, options);
  }
}

/**
 * What is dropped. With its source/destination check on, an interface sends only from its own
 * address and receives only for its own address.
 */
const RULES = `
table inet vpc {
  counter check_drops { }
  set own { type ifname . ipv4_addr; }
  set checked { type ifname; }
  set isolated { type ifname; }
  set offline { type ifname; }
  set cut { type ifname . ifname; }
  chain ingress {
    type filter hook prerouting priority raw;
    iifname @isolated drop
    iifname @checked iifname . ip saddr != @own counter name check_drops drop
  }
  chain services {
    type filter hook input priority filter;
    iifname @offline drop
  }
  chain transit {
    type filter hook forward priority filter;
    iifname . oifname @cut drop
    oifname @checked oifname . ip daddr != @own counter name check_drops drop
  }
  chain egress {
    type filter hook postrouting priority raw;
    oifname @isolated drop
  }
}
`;

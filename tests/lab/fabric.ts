import type { NetworkNamespace } from "../support/namespace.ts";
import type { UnderlayFamilies, VSwitchPlan } from "./plan.ts";
import type { Port } from "./vpc_router.ts";

/** Ports of a bridge in this state lose every frame, in both directions, and say nothing. */
const DISABLED = 0;
/** Ports of a bridge without spanning tree are in this state. */
const FORWARDING = 3;

/**
 * Ethernet segments and the router between them, in one namespace: hosts of a segment share a
 * layer 2, those of different segments meet at the router. There is no route to any pod here:
 * those are the business of the hosts.
 */
export class Fabric {
  readonly namespace: NetworkNamespace;
  readonly #isolated = new Set<string>();
  readonly #bridges = new Map<string, string>();

  constructor(namespace: NetworkNamespace) {
    this.namespace = namespace;
  }

  /** Prepares the namespace: one bridge per segment, with the gateway's addresses on it. */
  async open(
    segments: readonly VSwitchPlan[],
    underlay: UnderlayFamilies,
    options: { signal: AbortSignal },
  ): Promise<void> {
    for (const { id } of segments) this.#bridges.set(id, `br${this.#bridges.size}`);
    await this.namespace.sysctl(ROUTER_SYSCTLS, options);
    await this.namespace.ip([
      "link set lo up",
      ...segments.flatMap(({ id, prefix, gateway, prefixV6, gatewayV6 }) => {
        const dev = this.#bridges.get(id);
        const v4 = `address add ${gateway}/${prefix.length} dev ${dev}`;
        const v6 = `address add ${gatewayV6}/${prefixV6.length} dev ${dev}`;
        return [
          `link add ${dev} type bridge`,
          ...{ v4: [v4], v6: [v6], dual: [v4, v6] }[underlay],
          `link set ${dev} up`,
        ];
      }),
    ], options);
  }

  /** Connects machines: a veth from `eth0` of each to the port's name here, in its segment. */
  async connect(
    machines: readonly {
      readonly port: Port;
      readonly vSwitchId: string;
      readonly namespace: NetworkNamespace;
    }[],
    options: { signal: AbortSignal },
  ): Promise<void> {
    await Promise.all(machines.map(({ namespace }) => namespace.sysctl(NO_DAD, options)));
    await this.namespace.ip(
      machines.flatMap(({ port, vSwitchId, namespace }) => [
        `link add ${port.name} type veth ` +
        `peer name eth0 address ${port.mac} netns ${namespace.name}`,
        `link set ${port.name} master ${this.#bridges.get(vSwitchId)} up`,
      ]),
      options,
    );
    await Promise.all(
      machines.map(({ port, namespace }) => namespace.ip(addressCommands(port), options)),
    );
  }

  /**
   * Puts a machine behind a router of its own that translates addresses one to one: what comes for
   * the address of `outside` goes to the machine, and what the machine sends comes from there.
   * `router` is connected to a segment already.
   */
  async connectBehindNat(
    { inside, outside, router, machine }: {
      readonly inside: Port;
      readonly outside: Port;
      readonly router: NetworkNamespace;
      readonly machine: NetworkNamespace;
    },
    options: { signal: AbortSignal },
  ): Promise<void> {
    await router.sysctl(ROUTER_SYSCTLS, options);
    await router.ip([
      `link add ${inside.name} type veth ` +
      `peer name eth0 address ${inside.mac} netns ${machine.name}`,
      `address add ${inside.gateway}/${inside.prefixLength} dev ${inside.name}`,
      `link set ${inside.name} up`,
    ], options);
    await router.nft(
      `
      table ip lab_nat {
        chain prerouting {
          type nat hook prerouting priority dstnat;
          iifname "eth0" ip daddr ${outside.address} dnat to ${inside.address}
        }
        chain postrouting {
          type nat hook postrouting priority srcnat;
          oifname "eth0" ip saddr ${inside.address} snat to ${outside.address}
        }
      }`,
      options,
    );
    await machine.ip(addressCommands(inside), options);
  }

  /** Silently loses all packets of the machine at `port`, in both directions, until healed. */
  async isolate(port: Port, options: { signal: AbortSignal }): Promise<void> {
    this.#isolated.add(port.name);
    await this.#setState(port.name, DISABLED, options);
  }

  /** Ends {@linkcode isolate} for all. */
  async heal(options: { signal: AbortSignal }): Promise<void> {
    for (const name of this.#isolated) await this.#setState(name, FORWARDING, options);
    this.#isolated.clear();
  }

  async #setState(port: string, state: number, options: { signal: AbortSignal }): Promise<void> {
    await this.namespace.run(
      "bridge",
      ["link", "set", "dev", port, "state", String(state)],
      options,
    );
  }
}

/** Nobody else can have an address here; without the wait, addresses hold at once. */
const NO_DAD = {
  "net/ipv6/conf/all/accept_dad": "0",
  "net/ipv6/conf/default/accept_dad": "0",
};

/** What makes a namespace a router. */
const ROUTER_SYSCTLS = {
  "net/ipv4/ip_forward": "1",
  "net/ipv6/conf/all/forwarding": "1",
  ...NO_DAD,
  "net/ipv4/conf/all/send_redirects": "0",
  "net/ipv4/conf/default/send_redirects": "0",
};

/** What gives a machine's `eth0` its addresses and default routes. */
function addressCommands(port: Port): string[] {
  const families = port.also ? [port, port.also] : [port];
  return [
    "link set lo up",
    ...families.map(({ address, prefixLength }) =>
      `address add ${address}/${prefixLength} dev eth0`
    ),
    "link set eth0 up",
    ...families.map(({ gateway }) => `route add default via ${gateway} dev eth0`),
  ];
}

/**
 * What a backend is: pure functions from config, leases and facts to desired state.
 *
 * @module
 */
import type { FamilyConfig, NetworkConfig } from "../config/network_config.ts";
import type { Json, Lease, LeaseAttributes } from "../lease/lease.ts";
import type { Address, Family, Places, Prefix } from "../net/mod.ts";
import type { PeerState } from "../state/desired.ts";
import type { DesiredState } from "../state/mod.ts";

/** The external interface and the addresses that peers use. */
export interface Host {
  readonly link: string;
  readonly mtuBytes: number;
  /** Interface addresses that traffic leaves from. */
  readonly address?: Address;
  readonly addressV6?: Address;
  /** Advertised addresses; they differ from the interface's behind NAT. */
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
  /** What the host itself needs: no peer's subnet may take it. @default nothing */
  readonly needs?: Places;
}

/**
 * A backend: pure functions from config and leases to what should be true. No clock, randomness,
 * log or I/O; facts that need I/O are gathered before and come in `Facts`.
 */
export interface Backend<Config = unknown, Facts = undefined> {
  /** `Backend.Type` in lower case. */
  readonly type: string;
  /** Families it can carry. */
  readonly families: readonly (4 | 6)[];
  /**
   * Reads the `Backend` object of the network config; keys match without case.
   *
   * @throws {ConfigError} With every fault.
   */
  parseConfig(options: Readonly<Record<string, unknown>>): {
    config: Config;
    warnings: readonly string[];
  };
  /** Faults of `config` in a network of these families, one sentence each. @default none */
  checkNetwork?(config: Config, network: NetworkFamilies): readonly string[];
  /** Whether it has links, routes or settings of the kernel made. @default always */
  changesKernel?(config: Config): boolean;
  /** Device files that it opens. @default none */
  readonly devices?: readonly string[];
  /**
   * Whether the network between hosts sees packets of pods as they are, and has no part in routing
   * them: a cloud's drops them. @default false
   */
  readonly exposesPods?: boolean;
  /** Bytes that encapsulation takes from the external MTU. */
  overheadBytes(config: Config): number;
  /** What pods get as MTU. @default {the external MTU less the overhead} */
  podMtuBytes?(config: Config, network: NetworkFamilies, host: Host): number;
  /** What this host publishes. */
  announce(config: Config, host: Host, facts: Facts): LeaseAttributes;
  /** What does not depend on single peers. */
  planHost(context: PlanContext<Config, Facts>): DesiredState;
  /**
   * What one peer adds, or why that is less than for others. `holderOf` tells which peer holds a
   * claim that this one has too.
   */
  planPeer?(
    context: PlanContext<Config, Facts>,
    peer: Lease,
    holderOf: (claim: string) => Lease,
  ): PeerState;
  /**
   * Names of what only one peer can have: of all that claim one, the peer whose key comes first
   * holds it, on every host and at every time, since what matters is that the choice stands still.
   *
   * @default none
   */
  claims?(context: PlanContext<Config, Facts>, peer: Lease): readonly string[];
}

/** What a plan is made from. */
export interface PlanContext<Config = unknown, Facts = unknown> {
  readonly config: Config;
  readonly network: NetworkFamilies;
  readonly host: Host;
  readonly facts: Facts;
  readonly own: Lease;
  /** The families of the network for which the host has an address and a subnet, IPv4 first. */
  readonly sides: readonly FamilySide[];
}

/** One family's side of host, lease and network. */
export interface FamilySide {
  readonly family: Family;
  /** The whole network. */
  readonly network: Prefix;
  /** The own subnet. */
  readonly subnet: Prefix;
  /** The address of the external interface. */
  readonly local: Address;
  /** The address that peers use. */
  readonly publicAddress: Address | undefined;
  /** What of the network is no pod's: hosts' addresses, and what the host itself needs. */
  readonly occupied: Places;
}

/** The families of a network. */
export type NetworkFamilies = Pick<NetworkConfig, "ipv4" | "ipv6">;

/** The MTU that pods get on `host`; subnet.env tells it. */
export function podMtuBytes<Config>(
  backend: Pick<Backend<Config, never>, "overheadBytes" | "podMtuBytes">,
  config: Config,
  network: NetworkFamilies,
  host: Host,
): number {
  return backend.podMtuBytes?.(config, network, host) ??
    host.mtuBytes - backend.overheadBytes(config);
}

export type { FamilyConfig, Json };

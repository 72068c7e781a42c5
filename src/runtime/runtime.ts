/**
 * What a backend may have besides its pure functions: facts that they follow from, Tables of its
 * own, and loops. The daemon knows every backend by these interfaces alone; `entry.ts` ties one to
 * its types, and the table in `mod.ts` lists all.
 *
 * @module
 */
import type { BindPlan, Host, NetworkFamilies } from "../backends/mod.ts";
import type { Companions } from "../kernel/kernel_tables.ts";
import type { Options } from "../cli/options.ts";
import type { NetworkConfig } from "../config/network_config.ts";
import type { HostNetwork } from "../host/host_network.ts";
import type { Lease, LeaseAttributes } from "../lease/lease.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import type { ChangedLeases, Peers } from "../lease/peers.ts";
import type { Logger } from "../log.ts";
import type { Address, Family, Places, Prefix } from "../net/mod.ts";
import type { AnyStage } from "../reconcile/reconciler.ts";
import type { Desired } from "../state/desired.ts";
import type { BackendStatus, Finding } from "../status/model.ts";
import type { LeaseStore } from "../store/lease_store.ts";
import type { ReadableCell } from "../util/cell.ts";
import type { FormerPath } from "./udp/former_path.ts";

/** What a backend's own file opens. */
export interface BackendRuntime<Facts> extends AsyncDisposable {
  /** What announcement and plan follow from besides config, host and leases. */
  readonly facts: ReadableCell<Facts>;
  /** Takes over what the own lease has published so far, before it is written again. */
  inherit?(former: LeaseAttributes): void;
  /** What of the network's addresses is in use; no new subnet may take them. */
  occupied?(options: { readonly signal: AbortSignal }): Promise<Places>;
  /**
   * Brings `facts` up to date, before each round of the kernel's Tables; `changed` are the leases
   * that have changed since the last time. Returns which peers are to be planned anew although
   * `facts` is the same value.
   */
  gather?(
    own: Lease,
    peers: Peers,
    changed: ChangedLeases,
    options: { readonly signal: AbortSignal },
  ): Promise<ChangedLeases>;
  /** Tables that are reconciled with the kernel's. */
  readonly withKernel?: KernelCompanions;
  /** Tables that are reconciled apart, since they are slow and shared with other hosts. */
  readonly remote?: RemoteTables;
  /** What goes on beside the rounds, until `signal` aborts. */
  run?(cluster: Cluster, options: { readonly signal: AbortSignal }): Promise<unknown>;
  status?(peers: Iterable<Lease>): BackendStatus;
}

/** Tables of this process that are reconciled with the kernel's. */
export interface KernelCompanions extends Companions {
  /** Changes when something has gone that a round brings back. */
  readonly drift: ReadableCell<number>;
}

/** Tables with a reconciler of their own. */
export interface RemoteTables {
  readonly resyncMs: number;
  stages(desired: () => Desired | undefined): AnyStage[];
  /** Brings the facts up to date that these Tables need, before each of their rounds. */
  gather?(own: Lease, peers: Peers, options: { readonly signal: AbortSignal }): Promise<void>;
  /** Changes when the Tables are to be looked at although the plan is the same. */
  readonly changes: ReadableCell<number>;
  /** Why this host is not reached yet although its own Tables are in order. */
  waitingFor(): Finding | undefined;
  /** What stands in the place of the own subnet, which can never be reached while it does. */
  blockedBy?(own: Lease): string | undefined;
  /** To be called when any lease has changed; `changes` tells whether that is worth a round. */
  leasesChanged(): void;
  /** The own lease is lost: nothing of it is written until `gather` is called. */
  disown(): void;
}

/** What is known of the network once this host has a lease. */
export interface Cluster {
  readonly leases: LeaseMap;
  readonly own: () => Lease;
}

/** What a backend's runtime is opened with. */
export interface RuntimeContext {
  readonly network: NetworkConfig;
  readonly options: Options;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** What the last run left of a packet path; ends unless it is taken. */
  readonly formerPath: FormerPath;
  readonly hostNetwork: HostNetwork;
  readonly store: LeaseStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** What is given to remove what a host has left outside of itself. */
export interface ReleaseContext {
  readonly network: NetworkConfig;
  readonly options: Options;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** The subnets that the host has given back. */
  readonly released: readonly Prefix[];
  readonly store: LeaseStore;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Something that hosts call at a fixed address. */
export interface Service {
  readonly address: Address;
  /** For messages: `the metadata service 100.100.100.200`. */
  readonly what: string;
}

/** What a host leaves outside of itself, besides its lease. */
export interface Remnants {
  /** One of them: `route entry`. */
  readonly kind: string;
  /** All of them: `route entries in the VPC`. */
  readonly what: string;
  /** Said before the reason why they could not be removed. */
  readonly warning: string;
  /**
   * Removes them; returns how many.
   *
   * @throws {Error} With what could not be removed.
   */
  remove(context: ReleaseContext): Promise<number>;
}

/** A part of the program that only one backend loads, to be tried without touching anything. */
export interface SelfTest {
  readonly name: string;
  /** @throws If the part is missing or does not work; returns a word about it. */
  use(options: { readonly signal: AbortSignal }): Promise<string | void>;
}

/** A backend with its runtime, whose config and facts are its own affair. */
export interface BackendEntry {
  readonly type: string;
  readonly families: readonly Family[];
  /**
   * Reads the `Backend` object of the network config.
   *
   * @throws {ConfigError} With every fault.
   */
  configure(
    options: Readonly<Record<string, unknown>>,
  ): { readonly backend: ConfiguredBackend; readonly warnings: readonly string[] };
  readonly selfTest?: SelfTest;
}

/** A backend with its part of the network config. */
export interface ConfiguredBackend {
  readonly type: string;
  readonly families: readonly Family[];
  /** As the backend has read it. */
  readonly config: unknown;
  /** Whether it has links, routes or settings of the kernel made. */
  readonly changesKernel: boolean;
  /** Device files that it opens. */
  readonly devices: readonly string[];
  /** Whether the network between hosts sees packets of pods as they are. */
  readonly exposesPods: boolean;
  /** What it calls at addresses that no pod may have. */
  services(options: Options): readonly Service[];
  /** Faults of the config in a network of these families, one sentence each. */
  checkNetwork(network: NetworkFamilies): readonly string[];
  /** What pods get as MTU on `host`. */
  podMtuBytes(network: NetworkFamilies, host: Host): number;
  /**
   * Opens what the backend needs besides the kernel and checks it, before a lease is written.
   *
   * @throws {OperatorError} What needs an operator.
   * @throws {Error} What may pass; call again.
   */
  open(context: RuntimeContext): Promise<OpenBackend>;
  /** What `cleanup --release` has to remove besides the lease. */
  readonly remnants?: Remnants;
}

/** A running backend: its pure functions, bound to config and facts, and its runtime. */
export interface OpenBackend extends BackendRuntime<unknown> {
  /** @throws {OperatorError} If there is nothing that this host can publish. */
  announce(host: Host): LeaseAttributes;
  /** The plan of this host, by what is known now. */
  bindPlan(host: Host, own: Lease): BindPlan;
}

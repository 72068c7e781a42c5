/**
 * What a backend may have besides its pure plan: facts that the plan needs, Tables of its own, and
 * loops.
 *
 * @module
 */
import type { Host, Planning } from "../backends/mod.ts";
import type { ConfiguredNetwork } from "../backends/configured_network.ts";
import type { Options } from "../cli/options.ts";
import type { HostNetwork } from "../host/host_network.ts";
import type { Lease, LeaseAttributes } from "../lease/lease.ts";
import type { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import type { Places } from "../net/mod.ts";
import type { AnyStage } from "../reconcile/reconciler.ts";
import type { DesiredState } from "../state/mod.ts";
import type { EtcdRegistry } from "../store/etcd/open.ts";
import type { Registry } from "../store/etcd/key_space.ts";
import type { FormerPath } from "./udp/former_path.ts";

/** The part of a backend that needs the world: facts gathered, and Tables beyond the kernel's. */
export interface BackendRuntime extends AsyncDisposable {
  announce(host: Host): LeaseAttributes;
  /** Takes over what the own lease has published so far, before it is written again. */
  inherit?(former: LeaseAttributes): void;
  plan(host: Host, own: Lease, peers: readonly Lease[]): Planning;
  /** What of the network's addresses the backend finds in use; no new subnet may take them. */
  avoid?(options: { signal: AbortSignal }): Promise<Places>;
  readonly cloud?: CloudRuntime;
  readonly plane?: PlaneRuntime;
  readonly underlay?: UnderlayRuntime;
}

/** What a plan depends on besides leases and the host: the underlay, and other hosts' data. */
export interface UnderlayRuntime {
  /**
   * Gathers it before a round of the kernel's Tables; answers whether announcement and plan must
   * be made anew.
   */
  follow(own: Lease, peers: readonly Lease[], options: { signal: AbortSignal }): Promise<boolean>;
  /** For the status page, each fact as a function that tells it. */
  status(peers: readonly Lease[]): Record<string, () => unknown>;
}

/** Tables of this process that belong to the data plane, reconciled with the kernel's. */
export interface PlaneRuntime {
  /** Stages before the kernel's links, over what {@linkcode BackendRuntime.plan} says. */
  before(desired: () => DesiredState | undefined): AnyStage[];
  /** Stages after links and addresses, before routes. */
  after(desired: () => DesiredState | undefined): AnyStage[];
  /** Called when something has gone that a round brings back. */
  onDrift: () => void;
  /** For the status page. */
  status(): Record<string, unknown>;
}

/** Tables of a cloud, which have a reconciler of their own: they are slow and each call counts. */
export interface CloudRuntime {
  readonly resyncMs: number;
  /** Stages over what {@linkcode BackendRuntime.plan} says. */
  stages(desired: () => DesiredState | undefined): AnyStage[];
  /** Gathers facts before a round; answers whether the plan must be made anew. */
  follow(own: Lease, peers: readonly Lease[], options: { signal: AbortSignal }): Promise<boolean>;
  /** Why this host is not reached yet although its own Tables are in order. */
  waitingFor(): string | undefined;
  /** What stands in the place of the own subnet, which can never be reached while it does. */
  blockedBy?(own: Lease): string | undefined;
  /** To be called when any lease has changed. */
  leasesChanged(): void;
  /** Another host holds the own lease now: nothing of it is written until `follow` is called. */
  disown(): void;
  /** Runs what goes on beside the rounds, until `signal` aborts. */
  run(context: CloudRunContext, options: { signal: AbortSignal }): Promise<unknown>;
  /** For the status page. */
  status(): Record<string, unknown>;
}

/** What {@linkcode CloudRuntime.run} is given. */
export interface CloudRunContext {
  readonly leases: LeaseMap;
  readonly own: () => Lease;
  /** Called when something has changed: what `plan` answers, or `waitingFor` alone. */
  readonly onChange: (change: { readonly plan: boolean }) => void;
}

/** Options of `openBackendRuntime()`. */
export interface BackendRuntimeOptions {
  readonly configured: ConfiguredNetwork;
  readonly options: Options;
  readonly environment: Readonly<Record<string, string | undefined>>;
  /** What the last run left of its packet path. */
  readonly formerPath: FormerPath;
  readonly hostNetwork: HostNetwork;
  readonly registry: Registry & Partial<Pick<EtcdRegistry, "api">>;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

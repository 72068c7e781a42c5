/**
 * The seam to what a network's hosts share: its config, their leases, small documents and the
 * election of a leader. A store may let hosts choose their subnets, as etcd does, or be given them,
 * as Kubernetes is; leases may expire in it or last as long as the host.
 *
 * @module
 */
import type { NetworkConfig } from "../config/network_config.ts";
import type { Lease, LeaseAttributes, LeaseSubnet } from "../lease/lease.ts";
import type { LeaseEntry } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import type { Address, Places } from "../net/mod.ts";
import type { Problem } from "../status/model.ts";
import type { ReadableCell } from "../util/cell.ts";
import type { Documents } from "./documents.ts";
import type { Election, ElectionOptions } from "./election.ts";
import type { CallOptions } from "./errors.ts";

/** Where the network config is read. */
export interface ConfigSource {
  /** Its text; `undefined` while there is none. */
  read(options: CallOptions): Promise<string | undefined>;
  /** Yields the present text, then each that differs; `undefined` for none. Ends on abort only. */
  follow(options: CallOptions): AsyncIterable<string | undefined>;
  /**
   * For an operator, after `read` returned `undefined`: what is missing where, and how to write
   * `example` there. No secret.
   */
  explainMissing(example: string, options: CallOptions): Promise<string>;
}

export interface LeaseRequest {
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  readonly attributes: LeaseAttributes;
  /**
   * Told of what the own lease publishes when it is found in the store; returns what to publish
   * instead of `attributes`.
   */
  readonly inherit?: (former: LeaseAttributes) => LeaseAttributes;
  /** All addresses of this host: its pods' subnet is among them. */
  readonly addresses?: (options: CallOptions) => Promise<readonly Address[]>;
  /** The subnet of the last run, from subnet.env. */
  readonly previous: LeaseSubnet | undefined;
  /** What no new subnet may cover besides other leases and hosts; asked before each choice. */
  readonly occupied?: (options: CallOptions) => Promise<Places>;
  readonly log: Logger;
  /** Told why no subnet is to be had at present; for the service manager. */
  readonly onWaiting?: (reason: string) => void;
}

export type LeaseState =
  | {
    readonly held: true;
    /** Milliseconds since the epoch; `undefined` if it does not expire. */
    readonly expiresAt: number | undefined;
    /** Why renewing fails. */
    readonly trouble?: Problem;
  }
  | {
    readonly held: false;
    /** `taken`: another host holds it now, and what belongs to the subnet is that host's. */
    readonly loss: "gone" | "expired" | "taken";
    /** The same for people, with what keeps the lease from being taken back. */
    readonly message: string;
  };

/** This host's lease. */
export interface OwnLease {
  /** The lease held, or held last. */
  readonly lease: ReadableCell<Lease>;
  /** May be set to an equal state, too. */
  readonly state: ReadableCell<LeaseState>;
  /** Publishes other attributes, such as a changed address; `run` writes them. */
  publish(attributes: LeaseAttributes): void;
  /**
   * Asks for another subnet, since what `reason` names is in the way of this one, or another host
   * has it. To be called only while no pod needs an address of it. A store whose subnets are given
   * does nothing.
   */
  redraw(reason: string): void;
  /**
   * Told whether pods have a network here, where a store has a place to say so, as Kubernetes has
   * for its scheduler.
   */
  setReady?(isReady: boolean): void;
  /**
   * Keeps the lease: renews it, takes it back if it is lost, writes what is published. Changes are
   * seen by {@linkcode LeaseStore.followLeases}. Ends on abort only, with `signal.reason`.
   */
  run(options: CallOptions): Promise<never>;
}

/**
 * All leases: first a snapshot, then changes in order. A further snapshot replaces all that came
 * before. `disconnected` says, once per outage, that nothing newer is known until the next update.
 */
export type LeaseUpdate =
  | { readonly type: "snapshot"; readonly entries: readonly LeaseEntry[] }
  | { readonly type: "events"; readonly events: readonly LeaseEvent[] }
  | { readonly type: "disconnected"; readonly error: Error };

/** A change of one lease. A deletion is also how an expiry shows. */
export type LeaseEvent =
  | { readonly type: "put"; readonly entry: LeaseEntry }
  | { readonly type: "delete"; readonly key: string };

export interface ReleaseRequest {
  /** By which the host owned its leases. */
  readonly addresses: readonly Address[];
  readonly log: Logger;
}

/** What became of the leases of a host. */
export interface Released {
  readonly released: readonly LeaseSubnet[];
  /** Given to the host by others, who alone may take them back. */
  readonly kept: readonly LeaseSubnet[];
}

/** Addresses that an operator gave this host in the store. */
export interface StoredAddresses {
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
}

/** A store. Calls fail with `StoreError`, and do not retry beyond their deadline. */
export interface LeaseStore extends AsyncDisposable {
  /** For messages: `etcd v3 at http://10.0.0.5:2379`. */
  readonly description: string;
  /** Read first: where it is found is where all else is. */
  readonly config: ConfigSource;
  /** What stands before the flags `--public-ip` and `--public-ipv6`. */
  storedAddresses?(options: CallOptions): Promise<StoredAddresses>;
  /** Returns this host's lease, once one is to be had. */
  acquire(request: LeaseRequest, options: CallOptions): Promise<OwnLease>;
  /**
   * Follows the leases of all hosts, the own one included. Never throws for trouble of the store;
   * ends on abort only.
   */
  followLeases(options: CallOptions): AsyncIterable<LeaseUpdate>;
  /** Gives back the leases of a host whose daemon is gone. */
  release(request: ReleaseRequest, options: CallOptions): Promise<Released>;
  /**
   * Documents of one name: words of letters, digits, dots and hyphens with slashes between them,
   * such as `ali-vpc/state`.
   *
   * @throws {RangeError} If the name is not such a one, or is not free for documents.
   */
  documents(name: string): Documents;
  election(options: ElectionOptions): Election;
  /**
   * To be called when this host's addresses have changed: connections from a former one get no
   * response any more.
   */
  addressesChanged(): void;
}

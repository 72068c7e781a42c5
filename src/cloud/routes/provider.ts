/**
 * What a cloud provides so that its route tables can carry the traffic of pods. All of this folder
 * works against it; each cloud implements it in a folder of its own.
 *
 * @module
 */
import type { Lease } from "../../lease/lease.ts";
import type { Prefix } from "../../net/mod.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { delay } from "../../util/time.ts";
import type { CloudApiError } from "./cloud_error.ts";
import type { Silence } from "./silence.ts";

/** Options of every call. */
export interface CallOptions {
  readonly signal: AbortSignal;
}

/** Options of a call that changes something. */
export interface WriteOptions extends CallOptions {
  /**
   * Awaited each time after all other waits, so that what it finds still holds when the request
   * goes; if it rejects, nothing is sent, and the call rejects with its reason.
   */
  readonly beforeSend?: (options: CallOptions) => Promise<void>;
}

/** Time as a cloud's calls and waits use it. */
export interface Clock {
  /** Milliseconds on a clock that only goes forward. */
  readonly now: () => number;
  readonly delay: typeof delay;
}

/** `changing` entries still lead where they did; `pending` ones do not lead yet, or not for long. */
export type EntryState = "ready" | "changing" | "pending";

/** A route entry as a cloud lists it. A desired one has the fields of the spec alone. */
export interface CloudRoute extends CloudRouteSpec {
  /** By what the cloud writes it; without one it cannot be written. */
  readonly entryId?: string;
  /** What it says about whose it is, in a cloud whose entries can say something. */
  readonly mark?: string;
  readonly state?: EntryState;
  /** The cloud's word for the state. */
  readonly status?: string;
  /** Whether it was written by somebody, counts against the quota and hides a dynamic one. */
  readonly isStatic?: boolean;
  /** The cloud's word for where it comes from. */
  readonly type?: string;
  /** Another service that looks after it. */
  readonly managedBy?: string;
  /** All its next hops, in the cloud's words. */
  readonly hops?: readonly string[];
  /** Whether it is one that flanneld may change once its subnet is claimed. */
  readonly owned?: boolean;
}

/** An entry to create. */
export interface NewRoute extends CloudRouteSpec {
  readonly mark: string;
}

/** Something that a cloud has accepted and is still at. */
export interface Operation {
  /** Resolves once the cloud has carried it out. @throws {CloudApiError} If it has not. */
  finished(options: CallOptions): Promise<void>;
}

/** What a write comes to: carried out or accepted, unless there is an operation that tells. */
export type Accepted = Operation | undefined;

/**
 * The route tables of a network. Optional methods are what not every cloud can do: without
 * `repoint`, an entry is deleted and created anew; without `rename`, an entry keeps its mark;
 * without batches, entries are written one by one. Every method throws {@linkcode CloudApiError}.
 */
export interface RouteApi {
  readonly words: RouteWords;
  /** Whether entries carry a mark; otherwise the store alone tells whose they are. */
  readonly hasMarks: boolean;
  /** Entries that one page of a list holds. */
  readonly pageEntries: number;
  /** Entries per table that the cloud grants where nobody asked for more. */
  readonly defaultQuota: number;
  /** Writes that may be under way at a time. */
  readonly writesAtOnce: number;

  /** The static entries of a table, read once from end to end, and how many count. */
  readTable(routeTableId: string, options: CallOptions): Promise<TableListing>;
  /** The static entries with exactly this mark, or, where there are no marks, of the instance. */
  readOwn(
    routeTableId: string,
    own: { readonly mark: string; readonly instanceId: string },
    options: CallOptions,
  ): Promise<readonly CloudRoute[]>;
  /** The entries of exactly this destination, dynamic ones too. */
  read(
    routeTableId: string,
    destination: Prefix,
    options: CallOptions,
  ): Promise<readonly CloudRoute[]>;
  /** The static entries of these destinations, in calls of `destinationsPerRead` each. */
  readMany?(
    routeTableId: string,
    destinations: readonly Prefix[],
    options: CallOptions,
  ): Promise<readonly CloudRoute[]>;
  readonly destinationsPerRead?: number;
  /** How many entries count against the quota. */
  count(routeTableId: string, options: CallOptions): Promise<number>;

  /** `token` is the same for each try of one logical create. */
  create(route: NewRoute, options: WriteOptions & { readonly token: string }): Promise<Accepted>;
  remove(entry: CloudRoute, options: WriteOptions): Promise<Accepted>;
  /** Leads an entry to another instance without a gap: in place, or by one that takes its place. */
  repoint?(
    entry: CloudRoute,
    to: { readonly instanceId: string; readonly mark: string },
    options: WriteOptions,
  ): Promise<Accepted>;
  rename?(entry: CloudRoute, mark: string, options: WriteOptions): Promise<Accepted>;
  readonly batches?: RouteBatchApi;
}

/** Several entries of one table in one call; why each was refused comes back in their order. */
export interface RouteBatchApi {
  readonly maxEntries: number;
  /** The actions, as the cloud's policies name them. */
  readonly actions: { readonly create: string; readonly delete: string };
  create(
    routes: readonly NewRoute[],
    options: WriteOptions,
  ): Promise<readonly (CloudApiError | undefined)[]>;
  delete(
    entries: readonly CloudRoute[],
    options: WriteOptions,
  ): Promise<readonly (CloudApiError | undefined)[]>;
}

export interface TableListing {
  readonly entries: readonly CloudRoute[];
  readonly used: number;
}

export interface RouteWords {
  /** `Waiting for Example Cloud's rate limit`. */
  readonly waitingForRate: string;
  /** `the route service`. */
  readonly service: string;
  /** What an operator does about a full table: `raise the quota …`. */
  readonly raiseQuota: string;
  /** Where the rights are described that writing routes needs. */
  readonly rights: string;
}

/** A network interface. */
export interface InterfaceInfo {
  readonly id: string;
  /** Empty while it is attached to none. */
  readonly instanceId: string;
  readonly vpcId: string;
  readonly isPrimary: boolean;
  /** Absent where the cloud does not check here. */
  readonly sourceDestCheck?: boolean;
}

/** The interfaces of instances, where the cloud drops packets with other hosts' addresses. */
export interface InterfaceApi {
  readonly perCall: number;
  isId(text: string): boolean;
  /** Those of `ids` that exist; up to `perCall`. */
  read(ids: readonly string[], options: CallOptions): Promise<readonly InterfaceInfo[]>;
  disableCheck(id: string, options: CallOptions): Promise<void>;
  /** `… denies the action`. */
  denial(action: string): string;
  /** What an operator does to have the check of `id` off: which rights to give, or where else. */
  remedy(id: string): string;
}

/** Who this instance is. */
export interface CloudInstance {
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  readonly vpcId: string;
}

/** Which tables are to hold entries. */
export interface ChosenTables {
  readonly routeTableIds: readonly string[];
  /** Other tables that serve instances, where nothing of ours is created. */
  readonly otherTableIds: readonly string[];
}

/** What a host can use that may write routes. */
export interface CloudAccess {
  /** The tables that this instance needs for itself. */
  readonly routeTableIds: readonly string[];
  /** Which of them has no room for this instance's entry, and what to do; absent if all have. */
  readonly full?: string;
  /** The tables for these leases; what cannot be found out now leaves the choice as it was. */
  tablesFor(leases: readonly Lease[], options: CallOptions): Promise<ChosenTables>;
}

/** A cloud, as seen from this instance. No call needs credentials until `connect` is called. */
export interface Cloud extends AsyncDisposable {
  readonly instance: CloudInstance;
  readonly routes: RouteApi;
  /** Absent where nothing drops such packets. */
  readonly interfaces?: InterfaceApi;
  readonly clock: Partial<Clock>;
  /** Where the credentials come from, for messages; `undefined` until they were needed. */
  readonly credentialsSource: string | undefined;
  /** For how long the route service has returned nothing to this process's calls. */
  readonly silence: Silence;
  /**
   * Whether the account has the instance here, running or not. @throws {Error} If that is not
   * known.
   */
  instanceExists(instanceId: string, options: CallOptions): Promise<boolean>;
  /**
   * Makes sure that this host can write routes: the credentials work and suffice, the right route
   * tables are found, and the network is clear of the cloud's own ranges. Once that succeeded, and
   * there is room for this host's entry, it returns the same without a call; concurrent callers
   * share one attempt, which one whose `signal` aborts leaves to the others.
   *
   * @throws {OperatorError} What needs an operator.
   * @throws {Error} What may pass (throttling, 5xx, no connection): call again.
   */
  connect(options: CallOptions): Promise<CloudAccess>;
  /** All tables that may hold entries of this instance; throws as `connect` does. */
  listTables(options: CallOptions): Promise<readonly string[]>;
}

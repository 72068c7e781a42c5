/**
 * The daemon's state as one typed value. Readiness, `/readyz`, `/status`, the service manager's
 * status line and the log render it. Any folder may report in these types.
 *
 * @module
 */
import type { Prefix } from "../net/mod.ts";
import type { KindId, PeerFault } from "../state/mod.ts";

/** A moment on the monotonic clock, in the milliseconds of `performance.now()`. */
export type Instant = number;

/** The codes of problems and their meanings, which never change: scripts match them. */
const PROBLEM_CODES = {
  // the start
  "starting": "the daemon is still starting",
  // Tables
  "not-set-up": "a reconciler has not had its first round",
  "not-in-place": "an object is missing or wrong, and is being written",
  "conflict": "an object that is not ours stands where ours should be",
  "write-failed": "an object could not be written or removed",
  "read-failed": "a Table, or what its plan depends on, could not be read",
  // lease and store
  "lease-lost": "the lease is not held",
  "lease-not-renewed": "the lease is held, but cannot be renewed",
  "store-unreachable": "the store cannot be followed at present",
  "entry-skipped": "an entry in the store is not a lease of this network",
  "announcement-refused": "the backend cannot publish this host's present addresses",
  // peers
  "peer-backend": "a peer's lease is for another backend",
  "peer-subnet": "a peer has no subnet in a family of the network",
  "peer-address": "a peer publishes no address, or one that cannot be its own",
  "peer-overlap": "a peer's subnet covers an address that hosts need",
  "peer-device": "the MAC of a peer's device is missing, unreadable or another host's too",
  "peer-next-hop": "a peer cannot be the next hop of a route",
  "peer-stranger": "a peer is not a host of this kind, so it sends nothing back",
  "no-peer-reached": "every peer is left out",
  "peers-left-out": "some peers are left out",
  // cloud
  "cloud-waiting": "the leader has not set up this host's routes yet",
  "cloud-unrouted": "there can be no route to this host",
  "no-leader": "no host is the cluster's leader",
  "leader-failed": "this host, elected as leader, cannot do its work",
  "check-enabled": "the cloud's source/destination check of the interface is on",
  // surroundings: what others do on this host
  "forwarding-off": "the kernel does not forward packets",
  "pods-diverted": "another program's rule or route diverts packets of pods",
  "host-diverted": "another program's rule or route diverts this host's packets to pods",
  "tunnel-diverted": "another program's rule or route diverts the tunnel's packets",
  "pods-refused": "another program's firewall rejects packets of pods",
  "some-pods-refused": "another program's firewall rejects packets of some pods",
  "tunnel-refused": "another program's firewall rejects the tunnel's packets",
  "foreign-rule": "another program's rule changes or drops the network's packets",
  "forward-policy": "the policy of the FORWARD chain is DROP",
  "two-iptables": "both variants of iptables have rules",
  "cloud-network": "the cloud's network drops what this backend sends",
  "network-overlap": "the network covers addresses that the host needs",
  "subnet-overlap": "this host's own subnet covers addresses that the host needs",
  "look-failed": "something on the host could not be examined",
  // this process
  "file-not-written": "a file of the daemon's own could not be written",
  "stray-error": "a library failed outside of any operation",
} as const satisfies Readonly<Record<PeerFault, string> & Record<string, string>>;

export type ProblemCode = keyof typeof PROBLEM_CODES;

/** Something that is wrong. Code and object are its identity, whatever the message. */
export interface Finding {
  readonly code: ProblemCode;
  /** What it is about: `route 10.5.7.0/24`, a lease's key, a chain. */
  readonly object: string;
  /** One sentence for people, without full stop. */
  readonly message: string;
  /** What to do about it, where that is known: a clause, or a sentence of its own. */
  readonly remedy?: string;
  /** Code of the error behind it, such as `ECONNREFUSED`: a further one is logged, too. */
  readonly cause?: string;
}

/** A {@linkcode Finding} and since when it lasts. */
export interface Problem extends Finding {
  readonly since: Instant;
}

/** One Table against the desired state. */
export interface TableStatus {
  readonly kind: KindId;
  /** `undefined`: not known yet. */
  readonly desired: number | undefined;
  /** Objects of ours that were found. */
  readonly actual: number | undefined;
  /** Of very many, the first ones. */
  readonly problems: readonly Problem[];
  readonly inSync: boolean;
  /** Since when `inSync` is what it is. */
  readonly since: Instant;
  /** When an object was written or removed last. */
  readonly lastChangeAt: Instant | undefined;
  /** How long the last round took over it. */
  readonly lastRoundMs: number | undefined;
}

/** A reconciler and its Tables. */
export interface ReconcilerStatus {
  readonly inSync: boolean;
  /** Objects written or removed in the last round. */
  readonly changed: number;
  /** Of all its Tables, and of what their plan depends on; of very many, the first ones. */
  readonly problems: readonly Problem[];
  /** How many there are. */
  readonly problemCount: number;
  /** Whether the problems are all of reading: what was right before may still be. */
  readonly unseen: boolean;
  readonly tables: readonly TableStatus[];
}

/** Everything that readiness depends on. */
const CONDITIONS = [
  "start-up",
  "peers",
  "backend",
  "lease",
  "store",
  "kernel",
  "firewall",
  "cloud",
  "subnet file",
  "traffic",
] as const;

export type ConditionId = typeof CONDITIONS[number];

/** `doubtful` held a moment ago and may still hold: it counts as met for a while. */
export type ConditionState = "met" | "doubtful" | "unmet";

/** One condition of readiness. */
export interface ConditionStatus {
  readonly id: ConditionId;
  readonly state: ConditionState;
  /** Since when `state` is what it is. */
  readonly since: Instant;
  /** Why it is not met; or, if it is, what is degraded all the same. */
  readonly problems: readonly Problem[];
}

/** The own lease. */
export interface LeaseStatus {
  readonly key: string;
  readonly subnet: { readonly ipv4?: Prefix; readonly ipv6?: Prefix };
  /** What this host publishes with it. */
  readonly attributes: unknown;
  /** `taken`: another host holds it now. */
  readonly state: "held" | "lost" | "taken";
  /** Since when `state` is what it is. */
  readonly since: Instant;
  /** When this process acquired or adopted it. */
  readonly acquiredAt: Instant;
  /** `undefined` for a reservation, and in a store where nothing expires. */
  readonly expiresAt: Instant | undefined;
  readonly problem?: Problem;
}

/** The lease store. */
export interface StoreStatus {
  /** `etcd v3 at http://10.0.0.5:2379`; holds no secret. */
  readonly what: string;
  readonly connected: boolean;
  /** Since when `connected` is what it is. */
  readonly since: Instant;
  readonly problem?: Problem;
}

/** The cluster's leader. */
export interface LeaderStatus {
  /** The last one that is known. */
  readonly holder: string | undefined;
  /** How long there has been none. */
  readonly vacantMs?: number;
}

/** The external interface. */
export interface InterfaceStatus {
  readonly link: string;
  readonly mtuBytes: number;
  /** Addresses and how they were chosen. */
  readonly [fact: string]: unknown;
}

/** The packet path in user space: its counters by name. */
export type DataPlaneStatus = Readonly<Record<string, number>>;

/** How packets go to peers, where the backend looks that up. */
export interface PathsStatus {
  readonly direct: number;
  readonly others: number;
  /** Lease key and address to the path; of very many, the first ones. */
  readonly peers: Readonly<Record<string, string>>;
}

/** Leases that are not served as they are. */
export interface LeftOutStatus {
  readonly count: number;
  /** Of very many, the first ones; one per lease. */
  readonly problems: readonly Problem[];
}

/** The other hosts. */
export interface PeersStatus {
  readonly count: number;
  readonly leftOut: LeftOutStatus;
}

/** The program for our rules, and foreign rules that interfere. */
export interface FirewallStatus {
  /** `iptables 1.8.9 (nft)`; `none` where no rules are wanted. */
  readonly program: string;
  readonly problems: readonly Problem[];
}

/** The state of the cluster's routes, as its leader publishes it for all hosts. */
export interface ClusterStatus {
  readonly id: string | undefined;
  readonly term: string;
  /** Why the leader cannot write. */
  readonly trouble?: string | undefined;
  readonly tables: readonly {
    readonly id: string;
    readonly used?: number | undefined;
    readonly limit?: number | undefined;
  }[];
  /** Keys of the leases whose hosts are reached by the tunnel. */
  readonly overflow: readonly string[];
  /** Entries of others in the network. */
  readonly occupied?: readonly string[];
  /** Entries of ours without a lease, and why they still stand. */
  readonly orphans: readonly {
    readonly routeTableId: string;
    readonly destination: Prefix;
    readonly instanceId?: string | undefined;
    readonly state?: string | undefined;
    readonly ageMs: number;
  }[];
  /** Removals that need an operator's approval, and the command that gives it. */
  readonly held?: { readonly routes: readonly string[]; readonly approve: string };
}

/** A host's place in a cloud. */
export interface CloudStatus {
  /** The own instance, and the cloud's network that it is in. */
  readonly instance: string;
  readonly network: string;
  /** Where the credentials come from; no secret. */
  readonly credentials?: string;
  readonly role: "leader" | "own routes" | "host";
  /** Tables whose entries this host writes itself, as long as no leader does. */
  readonly ownTables?: readonly string[];
  /** What the leader says of this host. */
  readonly place?: {
    readonly instanceId: string;
    readonly state: string;
    readonly reason?: string | undefined;
    readonly checkOff: boolean;
  };
  readonly leader: LeaderStatus;
  readonly cluster?: ClusterStatus;
  /** As leader: how many hosts are in each state, and its last round. */
  readonly leading?: LeadingStatus;
}

export interface LeadingStatus {
  readonly hosts: Readonly<Record<string, number>>;
  readonly round: ReconcilerStatus;
}

/** Parts that the start has not reached are missing. */
export interface DaemonStatus {
  readonly version: string;
  readonly conditions: readonly ConditionStatus[];
  readonly network?: readonly Prefix[];
  /** Its type. */
  readonly backend?: string;
  readonly interface?: InterfaceStatus;
  /** What of the network the host needs for itself. */
  readonly overlaps?: {
    readonly places: readonly string[];
    readonly problems: readonly Problem[];
  };
  readonly lease?: LeaseStatus;
  readonly store?: StoreStatus;
  /** Missing until the leases are known. */
  readonly peers?: PeersStatus;
  /** Entries of the store that are no leases. */
  readonly skippedLeases?: LeftOutStatus;
  readonly firewall?: FirewallStatus;
  readonly surroundings?: { readonly problems: readonly Problem[] };
  readonly reconcilers: Readonly<Partial<Record<ConditionId, ReconcilerStatus>>>;
  readonly paths?: PathsStatus;
  readonly cloud?: CloudStatus;
  readonly dataPlane?: DataPlaneStatus;
}

/** A function per part, called only on request. */
export type StatusSource = {
  readonly [Part in keyof DaemonStatus]: () => DaemonStatus[Part];
};

/** The parts that a backend reports. */
export type BackendStatus = Partial<Pick<StatusSource, "paths" | "cloud" | "dataPlane">>;

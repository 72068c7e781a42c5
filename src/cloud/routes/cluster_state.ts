/**
 * What the leader publishes for all hosts, beside the leases:
 *
 * ```text
 *   <prefix>/<cloud>/state/summary     the tables, who is reached by the tunnel, entries to go
 *   <prefix>/<cloud>/hosts-<n>/doc     what is true of each host whose lease falls into shard n
 * ```
 *
 * Hosts are spread over shards so that one host's change wakes the hosts of its shard alone. Each
 * value is written by compare-and-set, and rewritten by a new leader with its own term: what a
 * former one still wants to write then comes too late.
 *
 * @module
 */
import * as v from "valibot";
import { Prefix } from "../../net/mod.ts";
import { MAX_OCCUPIED, type Occupied } from "./occupied.ts";

/** A route table of the cluster, as the leader sees it. */
export interface TableStatus {
  readonly id: string;
  /** Entries that count against the quota; absent while the table cannot be read. */
  readonly used?: number | undefined;
  /** What the table holds at most, where that is known. */
  readonly limit?: number | undefined;
  /** Why it cannot be read or written. */
  readonly trouble?: string | undefined;
}

/**
 * - `routed`: every table leads to it;
 * - `pending`: the leader is at it;
 * - `overflow`: there is no room for its entry, it is reached by the tunnel;
 * - `unrouted`: there is no entry, and `reason` says why.
 */
export type HostState = "routed" | "pending" | "overflow" | "unrouted";

/** What the leader says of one host. */
export interface HostStatus {
  readonly instanceId: string;
  readonly state: HostState;
  readonly reason?: string | undefined;
  /** Whether the leader has seen the source/destination check of its interface off. */
  readonly checkOff: boolean;
}

/**
 * Why an entry of ours still leads to an instance without a lease for its subnet: `grace`: the host
 * may return; `exists`: the cloud still has the instance, which may be in use without a daemon;
 * `unknown`: the cloud could not be asked; `foreign`: nothing shows that the instance ever held the
 * subnet; `held`: too many go at once without an operator's approval; `going`: nothing is in the
 * way.
 */
export type StrayState = (typeof STRAY_STATES)[number];

const STRAY_STATES = ["grace", "exists", "unknown", "foreign", "held", "going"] as const;

/** An entry of ours that leads to an instance without a lease for its subnet. */
export interface Stray {
  readonly routeTableId: string;
  readonly destination: Prefix;
  /** Absent in what former releases have published. */
  readonly instanceId?: string | undefined;
  readonly state?: StrayState | undefined;
  /** For how long leaders have watched it stand for nobody, up to the whole grace. */
  readonly ageMs: number;
}

/** Removals that wait for an operator's approval. */
export interface Brake {
  /** What the operator writes to the store to approve exactly these. */
  readonly token: string;
  /** `10.24.7.0/24 via <instance>` of each. */
  readonly routes: readonly string[];
}

/** What every host reads. */
export interface ClusterSummary {
  /** The leader's term. */
  readonly term: string;
  readonly writer: string;
  readonly tables: readonly TableStatus[];
  /** Keys of the leases whose hosts are reached by the tunnel. */
  readonly overflow: readonly string[];
  /** Whether hosts are to have the tunnel's device. */
  readonly vtep: boolean;
  /** The id in the names of the cluster's entries. */
  readonly cluster?: string | undefined;
  /** Entries of ours that no lease speaks for, and those in the way of another's lease. */
  readonly orphans: readonly Stray[];
  /** Instances that these lead to are to state their subnets, with this token. */
  readonly ask?: string | undefined;
  readonly brake?: Brake | undefined;
  /** Entries of others where subnets could be leased: no new lease is to take these. */
  readonly occupied?: readonly Occupied[] | undefined;
  /** Why nothing is written at present. */
  readonly trouble?: string | undefined;
}

/** All that is published. */
export interface ClusterState {
  readonly summary: ClusterSummary;
  /** By the lease's key. */
  readonly hosts: ReadonlyMap<string, HostStatus>;
}

export const HOST_SHARDS = 16;

/** The shard of a lease: FNV-1a of its key, so that neighbours in the network are spread. */
export function shardOf(leaseKey: string): number {
  let hash = 0x811c9dc5;
  for (let at = 0; at < leaseKey.length; at++) {
    hash = Math.imul(hash ^ leaseKey.charCodeAt(at), 0x01000193) >>> 0;
  }
  return hash % HOST_SHARDS;
}

/** Longer texts are cut off, as hosts refuse a document with more. */
const MAX_TEXT_CHARS = 2_000;
const Text = v.pipe(v.string(), v.maxLength(MAX_TEXT_CHARS));
const Id = v.pipe(v.string(), v.regex(/^[A-Za-z0-9_.:/-]{0,128}$/));
const RouteText = v.pipe(v.string(), v.maxLength(200));
/** No grace is longer. */
const MAX_AGE_SECONDS = 86_400;
const Count = v.pipe(v.number(), v.integer(), v.minValue(0));
const Cidr = v.pipe(
  v.string(),
  v.rawTransform<string, Prefix>(({ dataset, addIssue, NEVER }) => {
    const prefix = Prefix.tryParse(dataset.value);
    if (prefix !== undefined) return prefix;
    addIssue({ message: "is not in CIDR notation" });
    return NEVER;
  }),
);

const SummaryText = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    term: Id,
    writer: Id,
    tables: v.array(v.object({
      id: Id,
      used: v.optional(Count),
      limit: v.optional(Count),
      trouble: v.optional(Text),
    })),
    overflow: v.array(Id),
    vtep: v.boolean(),
    cluster: v.optional(Id),
    orphans: v.array(v.pipe(
      v.object({
        routeTableId: Id,
        destination: Cidr,
        instance: v.optional(Id),
        state: v.optional(v.picklist(STRAY_STATES)),
        // Former releases wrote a time on some other host's clock: the grace begins anew.
        ageSeconds: v.optional(v.pipe(Count, v.maxValue(MAX_AGE_SECONDS)), 0),
      }),
      v.transform(({ routeTableId, destination, instance, state, ageSeconds }): Stray => ({
        routeTableId,
        destination,
        instanceId: instance,
        state,
        ageMs: ageSeconds * 1_000,
      })),
    )),
    ask: v.optional(Id),
    brake: v.optional(v.object({ token: Id, routes: v.array(RouteText) })),
    occupied: v.optional(v.pipe(
      v.array(v.object({ destination: Cidr, entry: RouteText })),
      v.maxLength(MAX_OCCUPIED),
    )),
    trouble: v.optional(Text),
  }),
);

const HOST_STATES = ["routed", "pending", "overflow", "unrouted"] as const;

const HostsText = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    term: Id,
    hosts: v.record(
      Id,
      v.object({
        instance: Id,
        state: v.picklist(HOST_STATES),
        reason: v.optional(Text),
        check: v.optional(v.literal("off")),
      }),
    ),
  }),
);

export function encodeSummary(summary: ClusterSummary): string {
  return JSON.stringify({
    ...summary,
    tables: summary.tables.map((table) => ({ ...table, trouble: cut(table.trouble) })),
    trouble: cut(summary.trouble),
    orphans: summary.orphans.map(({ routeTableId, destination, instanceId, state, ageMs }) => ({
      routeTableId,
      destination: String(destination),
      instance: instanceId,
      state,
      ageSeconds: Math.round(ageMs / 1_000),
      // Former releases refuse the document without it.
      sinceMs: 0,
    })),
  });
}

/** @throws {Error} If `text` is no summary. */
export function parseSummary(text: string): ClusterSummary {
  return parse(SummaryText, text, "the summary");
}

export function encodeHosts(term: string, hosts: Iterable<[string, HostStatus]>): string {
  const sorted = [...hosts].sort(([a], [b]) => a < b ? -1 : 1);
  return JSON.stringify({
    term,
    hosts: Object.fromEntries(sorted.map(([key, { instanceId, state, reason, checkOff }]) => [
      key,
      { instance: instanceId, state, reason: cut(reason), ...(checkOff ? { check: "off" } : {}) },
    ])),
  });
}

/** @throws {Error} If `text` is no document of hosts. */
export function parseHosts(
  text: string,
): { readonly term: string; readonly hosts: ReadonlyMap<string, HostStatus> } {
  const { term, hosts } = parse(HostsText, text, "a document of hosts");
  return {
    term,
    hosts: new Map(
      Object.entries(hosts).map(([key, { instance, state, reason, check }]) => [
        key,
        { instanceId: instance, state, reason, checkOff: check === "off" },
      ]),
    ),
  };
}

function cut(text: string | undefined): string | undefined {
  return text === undefined || text.length <= MAX_TEXT_CHARS
    ? text
    : `${text.slice(0, MAX_TEXT_CHARS - 1)}…`;
}

function parse<Schema extends v.GenericSchema>(
  schema: Schema,
  text: string,
  noun: string,
): v.InferOutput<Schema> {
  const result = v.safeParse(schema, text);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const where = v.getDotPath(issue!) ?? "it";
  throw new Error(`Cannot read ${noun} of the route leader: ${where}: ${issue!.message}`);
}

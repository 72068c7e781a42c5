/**
 * Which route entries of the cluster may be taken away from the instances that they lead to. A
 * store that has forgotten a host is no reason: its pods may run without a daemon. What is needed:
 *
 * 1. the entry has this cluster's mark, and this store's book knows that the instance held the
 *    subnet;
 * 2. no key below `subnets/`, junk or not, may stand for a lease of its addresses, and the grace is
 *    over; the latter is not waited for if another host has leased the very subnet, or the host
 *    itself states another one;
 * 3. one of: the cloud does not know the instance any more; its own daemon, asked in this term,
 *    states another subnet; or, where another host has leased the subnet, the former lease was
 *    seen to end by itself in this term;
 * 4. few go at once, or an operator lets them go.
 *
 * @module
 */
import type { Brake, ClusterSummary, Stray, StrayState } from "./cluster_state.ts";
import type { Orphans } from "./orphans.ts";
import type { CloudRoute } from "./provider.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Prefix } from "../../net/mod.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { ClaimStore } from "./claim_store.ts";
import { requireClusterId } from "./cluster_identity.ts";
import { approvalCommand, keyOfTaking, RemovalBrake } from "./removal_brake.ts";
import { readStatements } from "./subnet_statement.ts";
import type { ClusterStore } from "./cluster_store.ts";

export type Holder =
  /** Nobody, as far as any key of the store can tell. */
  | { readonly is: "nobody" }
  /** A host, by exactly this subnet; upstream's say only their address. */
  | { readonly is: "host"; readonly instanceId?: string; readonly publicIp?: string }
  /** Some key overlaps it that is no such lease. */
  | { readonly is: "unclear" };

export interface ClearanceOptions {
  readonly store: ClusterStore;
  readonly clusterId: string;
  readonly book: ClaimStore;
  readonly orphans: Orphans;
  /** Whether the cloud knows an instance. */
  readonly instanceExists: (instanceId: string, options: CallOptions) => Promise<boolean>;
  /** This host's own instance, which the cloud must know for its word to count. */
  readonly ownInstanceId: string;
  readonly holderOf: (destination: Prefix) => Holder;
  /** Whether the instance's lease of the subnet was seen to end in this term, by itself. */
  readonly hasEnded: (destination: Prefix, instanceId: string) => boolean;
  readonly log: Logger;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
}

/** One subnet that entries lead to an instance from which no lease names for it. */
interface Case {
  readonly destination: Prefix;
  readonly instanceId: string;
  readonly routes: readonly CloudRoute[];
  /** Another host has leased it. */
  readonly blocks: boolean;
  /**
   * The host most likely runs upstream's daemon again, which leases its subnet without naming the
   * instance: its entry still serves it, unless another instance has its address now.
   */
  readonly isSameHost: boolean;
  /** Its own daemon states another subnet, which it has leased. */
  readonly hasMoved: boolean;
}

/** What became of a case, at the last look and before. */
interface Verdict {
  state: StrayState;
  readonly reason: string | undefined;
  /** At the look before; a state is logged once it lasts. */
  before?: StrayState;
  told?: StrayState;
}

/** What the cloud said of an instance. */
interface Known {
  readonly state: "gone" | "exists" | "unknown";
  readonly reason?: string;
  readonly at: number;
}

/** `grace`: it is asked about later. */
type Finding =
  | Pick<Known, "state" | "reason">
  | { readonly state: "grace"; readonly reason?: string };

/** An instance that was there is asked for again after this. */
const ASK_AGAIN_MS = 10 * 60_000;
/** Instances asked for in one round. */
const ASKED_PER_ROUND = 20;
/** Routes named in one line. */
const NAMED = 5;
/** The list of what is held changes while hosts leave; it is logged this often at most. */
const TELL_AGAIN_MS = 10 * 60_000;

export class Clearance {
  readonly #options: Required<ClearanceOptions>;
  readonly #brake: RemovalBrake;
  readonly #instances = new Map<string, Known>();
  #ask = newQuestion();
  readonly #verdicts = new Map<string, Verdict>();
  #obstacles: readonly CloudRoute[] = [];
  #held: Brake | undefined;
  #toldAt = -Infinity;

  constructor(options: ClearanceOptions) {
    this.#options = { now: () => performance.now(), ...options };
    this.#brake = new RemovalBrake(options.store);
  }

  seed(brake: Brake | undefined): void {
    this.#brake.seed(brake);
  }

  /**
   * Asks the hosts again. To be called when the leases were read as a whole: a backup restored in
   * this term may hold a statement for this very question, from before the host moved.
   */
  askAnew(): void {
    this.#ask = newQuestion();
    for (const verdict of this.#verdicts.values()) {
      if (verdict.state === "going") verdict.state = "grace";
    }
  }

  /** Whether the entry may be removed, or led elsewhere. */
  mayTake(route: CloudRoute): boolean {
    if (this.#verdicts.get(keyOf(route))?.state !== "going") return false;
    const holder = this.#options.holderOf(route.destination);
    return holder.is === "nobody" || (holder.is === "host" && !isHeldBy(route, holder));
  }

  /** What is to be published. */
  get report(): Pick<ClusterSummary, "orphans" | "ask" | "brake"> {
    const orphans = [
      ...this.#options.orphans.list(),
      ...this.#obstacles.map((route) => ({ ...pick(route), ageMs: 0 })),
    ].map((stray): Stray => ({
      ...stray,
      state: this.#verdicts.get(keyOf(stray))?.state ?? "grace",
    }));
    return { orphans, ask: orphans.length === 0 ? undefined : this.#ask, brake: this.#held };
  }

  /**
   * Judges the entries of ours without a lease for their subnet; `entries` is how many are ours in
   * all.
   *
   * @throws {OtherClusterError} If the store is not this cluster's any more.
   * @throws {StoreError}
   */
  async look(
    strays: readonly CloudRoute[],
    entries: number,
    options: CallOptions,
  ): Promise<void> {
    const cases = await this.#casesOf(strays, options);
    this.#obstacles = cases.flatMap(({ blocks, isSameHost, routes }) =>
      blocks && !isSameHost ? routes : []
    );
    const keys = new Set(cases.map(keyOf));
    for (const key of this.#verdicts.keys()) if (!keys.has(key)) this.#verdicts.delete(key);
    const due = cases.filter((each) =>
      each.blocks || each.hasMoved ||
      each.routes.every((route) => this.#options.orphans.isDue(route))
    );
    for (const each of cases) {
      if (!due.includes(each)) this.#set(each, "grace");
    }
    if (due.length === 0) {
      this.#held = undefined;
      return;
    }
    await this.#requireSameStore(due, options);
    const proved: Case[] = [];
    let asked = 0;
    let isUnasked = false;
    for (const each of due) {
      const verdict = this.#isBooked(each)
        ? await this.#judge(each, () => asked < ASKED_PER_ROUND && ++asked > 0, options)
        : { state: "foreign" } as const;
      isUnasked ||= verdict.state === "grace";
      if (verdict.state === "going") proved.push(each);
      else this.#set(each, verdict.state, verdict.reason);
    }
    if (!isUnasked) await this.#release(proved, entries, options);
    else {
      // How many go together is known once all were asked about.
      for (const each of proved) {
        if (this.#verdicts.get(keyOf(each))?.state !== "going") this.#set(each, "grace");
      }
    }
    this.#tell(due.filter(({ isSameHost }) => !isSameHost));
  }

  async #casesOf(
    strays: readonly CloudRoute[],
    options: CallOptions,
  ): Promise<readonly Case[]> {
    const groups = Map.groupBy(strays, keyOf);
    if (groups.size === 0) return [];
    const { store } = this.#options;
    const statements = await readStatements(store, this.#ask, options);
    return [...groups.values()].flatMap((routes): Case[] => {
      const { destination, instanceId } = routes[0]!;
      const holder = this.#options.holderOf(destination);
      if (holder.is === "unclear" || isHeldBy(routes[0]!, holder)) return [];
      const blocks = holder.is === "host";
      const stated = statements.get(instanceId);
      const now = stated && this.#options.holderOf(stated);
      const hasMoved = stated !== undefined && !stated.overlaps(destination) &&
        now?.is === "host" && now.instanceId === instanceId;
      const booked = this.#options.book.get(String(destination), instanceId);
      const isSameHost = holder.is === "host" && holder.instanceId === undefined &&
        booked !== undefined &&
        (booked.publicIp === undefined || booked.publicIp === holder.publicIp);
      return [{ destination, instanceId, routes, blocks, isSameHost, hasMoved }];
    });
  }

  /** What this process remembers is no proof once the store has forgotten it. */
  async #requireSameStore(cases: readonly Case[], options: CallOptions): Promise<void> {
    const { store, clusterId, book } = this.#options;
    await requireClusterId(store, clusterId, options);
    await book.reread(cases.map(({ destination }) => String(destination)), options);
  }

  #isBooked({ destination, instanceId }: Case): boolean {
    return this.#options.book.get(String(destination), instanceId) !== undefined;
  }

  async #judge(
    each: Case,
    mayAsk: () => boolean,
    options: CallOptions,
  ): Promise<{ readonly state: StrayState; readonly reason?: string }> {
    const { destination, instanceId, blocks, isSameHost } = each;
    if (blocks && !isSameHost && this.#options.hasEnded(destination, instanceId)) {
      return { state: "going" };
    }
    if (each.hasMoved) return { state: "going" };
    const { state, reason } = await this.#lookUp(instanceId, mayAsk, options);
    return state === "gone"
      ? { state: "going" }
      : { state, ...(reason === undefined ? {} : { reason }) };
  }

  async #lookUp(
    instanceId: string,
    mayAsk: () => boolean,
    options: CallOptions,
  ): Promise<Finding> {
    const { now, instanceExists, ownInstanceId } = this.#options;
    const known = this.#instances.get(instanceId);
    const isFresh = known !== undefined &&
      (known.state === "gone" || now() - known.at < ASK_AGAIN_MS);
    if (isFresh) return known;
    if (!mayAsk()) return known ?? { state: "grace" };
    let found: Pick<Known, "state" | "reason">;
    try {
      if (await instanceExists(instanceId, options)) found = { state: "exists" };
      else if (await instanceExists(ownInstanceId, options)) found = { state: "gone" };
      else found = { state: "unknown", reason: `it does not know ${ownInstanceId} either` };
    } catch (error) {
      options.signal.throwIfAborted();
      found = { state: "unknown", reason: describeError(error) };
    }
    this.#instances.set(instanceId, { ...found, at: now() });
    return found;
  }

  async #release(proved: readonly Case[], entries: number, options: CallOptions): Promise<void> {
    if (proved.length === 0) {
      this.#held = undefined;
      return;
    }
    const takings = proved.map(({ destination, instanceId }) => ({
      destination: String(destination),
      instanceId,
    }));
    const { released, brake } = await this.#brake.release(takings, entries, options);
    proved.forEach((each, at) => {
      this.#set(each, released.has(keyOfTaking(takings[at]!)) ? "going" : "held");
    });
    this.#tellBrake(brake);
  }

  #set(each: Case, state: StrayState, reason?: string): void {
    this.#verdicts.set(keyOf(each), {
      ...this.#verdicts.get(keyOf(each)),
      state,
      reason,
    });
  }

  #tellBrake(brake: Brake | undefined): void {
    const { log, now, store } = this.#options;
    const before = this.#held;
    this.#held = brake;
    if (brake === undefined) {
      if (before !== undefined) log.info("No removal of route entries waits for approval any more");
      return;
    }
    if (brake.token === before?.token) return;
    if (before !== undefined && now() - this.#toldAt < TELL_AGAIN_MS) return;
    this.#toldAt = now();
    log.warn(
      "Removals of route entries wait for an operator's approval, as they are many: " +
        `${nameSome(brake.routes)}. If these instances do not use them any more, let them go: ` +
        approvalCommand(store, brake),
    );
  }

  /** Says once of each entry why it is left. */
  #tell(cases: readonly Case[]): void {
    const bySense = new Map<string, string[]>();
    for (const each of cases) {
      const verdict = this.#verdicts.get(keyOf(each))!;
      const { state, reason, before, told } = verdict;
      // A host that has moved states it within a round.
      const isLasting = before === state;
      verdict.before = state;
      const remedy = REMEDIES[state];
      if (!isLasting || remedy === undefined || told === state) continue;
      verdict.told = state;
      const sense = state === "unknown" && reason ? `${remedy} (${reason})` : remedy;
      const route = `${each.destination} via ${each.instanceId}`;
      bySense.set(sense, [...bySense.get(sense) ?? [], route]);
    }
    for (const [sense, routes] of bySense) {
      this.#options.log.warn(
        `Leaves route entries that no lease of their instances asks for: ${nameSome(routes)}: ` +
          sense,
      );
    }
  }
}

/** Why an entry is left, and what to do about it. */
const REMEDIES: Partial<Record<StrayState, string>> = {
  exists: 'the instance still exists; run "flanneld cleanup --release" there, or release it, or ' +
    "delete the entry",
  unknown: "whether the instance exists cannot be found out",
  foreign: "this store does not know that the instance ever held the subnet; delete the entry if " +
    "it is not used",
};

function newQuestion(): string {
  return crypto.getRandomValues(new Uint8Array(8)).toHex();
}

function nameSome(routes: readonly string[]): string {
  const more = routes.length - NAMED;
  return routes.slice(0, NAMED).join(", ") + (more > 0 ? ` and ${more} more` : "");
}

function isHeldBy({ instanceId }: { instanceId: string }, holder: Holder): boolean {
  return holder.is === "host" && holder.instanceId === instanceId;
}

function keyOf(
  { destination, instanceId = "" }: {
    readonly destination: Prefix;
    readonly instanceId?: string | undefined;
  },
): string {
  return `${destination} ${instanceId}`;
}

function pick({ routeTableId, destination, instanceId }: CloudRoute) {
  return { routeTableId, destination, instanceId };
}

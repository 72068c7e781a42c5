import type { NetworkConfig } from "../../config/network_config.ts";
import { OperatorError } from "../../errors.ts";
import {
  encodeLeaseKey,
  encodeLeaseValue,
  parseLeaseKey,
  parseLeasesInSteps,
  parseLeaseValue,
} from "../../lease/codec.ts";
import {
  formatSubnet,
  type Lease,
  type LeaseAttributes,
  type LeaseSubnet,
} from "../../lease/lease.ts";
import type { Logger } from "../../log.ts";
import type { Address, Places } from "../../net/mod.ts";
import { LineBudget } from "../../util/line_budget.ts";
import { inSlices } from "../../util/slices.ts";
import { Outage } from "../../status/problems.ts";
import type { Clocks } from "../../util/stopwatch.ts";
import { Backoff } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { findEarlierRival, hasAddressOf, isOwnedBy, planAcquire, sharesSubnet } from "./acquire.ts";
import { LeaseTerm } from "./lease_term.ts";
import type { Entry, KnownEntries, Registry, WatchUpdate } from "./key_space.ts";

/** Upstream's lease time. */
const LEASE_TTL_SECONDS = 24 * 3600;

/** Longest sleep in one piece, so that a clock that jumps (a suspended VM) is noticed. */
const MAX_SLEEP_MS = 5 * 60_000;

/** How often a lost subnet is looked at besides the watch. */
const LOST_POLL_MS = 30_000;

/** A foreign write over our own value is answered at most this often, lest two writers race. */
const REWRITE_INTERVAL_MS = 60_000;

/** Lines an hour about what others do to the own key, which they may do as often as they like. */
const LINES_OF_OTHERS = 6;

/** Options of {@linkcode LeaseKeeper}. */
export interface LeaseKeeperOptions extends Clocks {
  readonly registry: Registry;
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  readonly attributes: LeaseAttributes;
  /**
   * Told of what the own lease publishes when it is found in the store; answers what to publish
   * instead of `attributes`.
   */
  readonly inherit?: (former: LeaseAttributes) => LeaseAttributes;
  /** All addresses of this host; see {@linkcode planAcquire}. */
  readonly addresses?: (options: { signal: AbortSignal }) => Promise<readonly Address[]>;
  /** The subnet of the last run, from subnet.env. */
  readonly previous: LeaseSubnet | undefined;
  /** What no new subnet may cover besides other leases and hosts; asked before each choice. */
  readonly occupied?: (options: { signal: AbortSignal }) => Promise<Places>;
  /** The lease is renewed this long before it ends. */
  readonly renewMarginSeconds: number;
  /** Whether to take another subnet when another host holds ours. */
  readonly onLeaseLoss: "keep" | "reassign";
  readonly log: Logger;
  /** @default {LEASE_TTL_SECONDS} */
  readonly ttlSeconds?: number;
  readonly random?: () => number;
  /** Told why no subnet is to be had at present; for the service manager. */
  readonly onWaiting?: (reason: string) => void;
  /** Called after each change of {@linkcode LeaseKeeper.state} or {@linkcode LeaseKeeper.lease}. */
  readonly onChange?: () => void;
}

/** How things stand with the own lease. */
export type LeaseState =
  | {
    readonly held: true;
    /** Milliseconds since the epoch; `undefined` for a reservation. */
    readonly expiresAt: number | undefined;
    /** Why renewing fails at present. */
    readonly trouble?: string;
  }
  | {
    readonly held: false;
    readonly reason: string;
    /** Whether another host holds it now: what belongs to the subnet is that host's. */
    readonly taken: boolean;
  };

/**
 * Takes a lease and keeps it. The key is created in a transaction and written only while its
 * revision and owner are what was seen.
 *
 * ```text
 *   acquire ──► held ──(key gone)──► retake the same subnet ──► held
 *                 ▲                          │ another host has it
 *                 └──(its key goes)── lost ◄─┘        (reassign: acquire again)
 * ```
 */
export class LeaseKeeper {
  readonly #options: LeaseKeeperOptions;
  readonly #ttlSeconds: number;
  readonly #renewing: Outage;
  #attributes: LeaseAttributes;
  #value: string;
  #lease: Lease;
  #entry: Entry;
  /** `undefined` for a reservation, and while the lease is not held. */
  #term: LeaseTerm | undefined;
  /** Why the lease is not held. */
  #lost: string | undefined;
  /** Whether that is because another host holds it. */
  #taken = false;
  #trouble: string | undefined;
  /** The store may hold something else than `#entry` under our key. */
  #suspect = false;
  /** A lease that shared our subnet has gone, see {@linkcode LeaseKeeper.observe}. */
  #announce = false;
  #lastRewrite = -Infinity;
  /** Why another subnet is to be drawn. */
  #redraw: string | undefined;
  /** Keys of further leases that are this host's by all that they say. */
  readonly #spares = new Set<string>();
  /** Those that were given up, or are kept; each is judged once. */
  readonly #judgedSpares = new Set<string>();
  readonly #wakeup = new Wakeup();
  readonly #ofOthers: LineBudget;
  /** Whether the present loss was logged. */
  #toldLoss = false;

  /** What the store held when the lease was acquired. */
  #known: KnownEntries | undefined;

  private constructor(
    options: LeaseKeeperOptions,
    { lease, entry, listed }: Acquired,
  ) {
    this.#options = options;
    this.#ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
    this.#renewing = new Outage(options.log, {
      code: "lease-not-renewed",
      object: lease.key,
      failed: "Cannot renew the lease",
      andThen: "; trying again",
      recovered: "Lease is in order again",
      now: options.monotonicNow ?? (() => performance.now()),
    });
    this.#ofOthers = new LineBudget({
      lines: LINES_OF_OTHERS,
      windowMs: 3_600_000,
      now: () => this.#monotonicNow(),
    });
    this.#attributes = lease.attributes;
    this.#value = encodeLeaseValue(lease.attributes);
    this.#lease = lease;
    this.#entry = entry;
    this.#known = { listed, written: entry };
    this.#markHeld(entry);
  }

  /**
   * Acquires a lease: the one that our public address has, else the subnet of the last run, else
   * a free one. A lost race starts again from a fresh list. Waits for a free subnet; fails with
   * what the store fails with.
   */
  static async acquire(
    options: LeaseKeeperOptions,
    { signal }: { signal: AbortSignal },
  ): Promise<LeaseKeeper> {
    return new LeaseKeeper(options, await acquire(options, { signal }));
  }

  /** What the store held when the lease was acquired, for a watch to go on from. Given once. */
  takeKnown(): KnownEntries | undefined {
    const known = this.#known;
    this.#known = undefined;
    return known;
  }

  /** The lease held, or last held. */
  get lease(): Lease {
    return this.#lease;
  }

  get state(): LeaseState {
    const because = this.#trouble === undefined ? "" : `: ${this.#trouble}`;
    if (this.#lost !== undefined) {
      return { held: false, reason: this.#lost + because, taken: this.#taken };
    }
    if (this.#term?.isOver) {
      const reason = `the lease has expired and is not renewed yet${because}`;
      return { held: false, reason, taken: false };
    }
    return {
      held: true,
      expiresAt: this.#term?.endsAt,
      ...(this.#trouble === undefined ? {} : { trouble: this.#trouble }),
    };
  }

  /** Publishes other attributes, such as a changed address, under the same key. */
  publish(attributes: LeaseAttributes): void {
    const value = encodeLeaseValue(attributes);
    if (value === this.#value) return;
    this.#attributes = attributes;
    this.#value = value;
    this.#lease = { ...this.#lease, attributes };
    this.#lastRewrite = -Infinity;
    this.#suspect = true;
    this.#wakeup.wake();
    this.#changed();
  }

  /**
   * Asks for another subnet, since something that `reason` names stands in the place of this one.
   * To be called only while no pod can have an address of it.
   */
  redraw(reason: string): void {
    if (this.#redraw !== undefined || !this.#entry.expires) return;
    this.#redraw = reason;
    this.#wakeup.wake();
  }

  /**
   * Takes note of what a watch of the store says about the own key, and of the end of a lease that
   * shared our subnet, as two dual-stack ones may: upstream's daemons then remove what leads to the
   * subnet, whosever it is. The own lease is written once more, which makes them add it again.
   * Further leases of this very host are given up, see `#giveUpSpares`.
   */
  observe(update: WatchUpdate): void {
    const ours = (entry: Entry) =>
      entry.revision === this.#entry.revision && entry.value === this.#value;
    let suspect = this.#suspect;
    if (update.type === "snapshot") {
      this.#spares.clear();
      update.entries.forEach((each) => this.#noteSpare(each));
      const entry = update.entries.find((each) => each.key === this.#lease.key);
      suspect = entry === undefined || !ours(entry);
    } else if (update.type === "events") {
      for (const event of update.events) {
        if (event.type === "put") this.#noteSpare(event.entry);
        else this.#spares.delete(event.key);
        if (event.type === "delete" && event.key === this.#lease.key) suspect = true;
        else if (event.type === "delete" && sharesSubnet(event.key, this.#lease.subnet)) {
          this.#announce = suspect = true;
        }
        if (event.type === "put" && event.entry.key === this.#lease.key) {
          suspect = !ours(event.entry);
          if (!suspect) this.#announce = false; // it was written after that end
        }
      }
    }
    if (suspect && !this.#suspect) {
      this.#suspect = true;
      this.#wakeup.wake();
    }
  }

  /**
   * Renews the lease in time, takes it back when it was revoked or has expired, and says so when
   * another host holds it. Ends on abort only, with `signal.reason`.
   */
  async run({ signal }: { signal: AbortSignal }): Promise<never> {
    const failures = new Backoff({ initialMs: 1_000, maxMs: 60_000 });
    const races = new Backoff({ initialMs: 50, maxMs: 5_000 });
    while (true) {
      await this.#sleep(signal);
      try {
        if (this.#suspect || this.#lost !== undefined) await this.#verify(signal);
        else if (this.#redraw !== undefined) await this.#drawAnother(this.#redraw, signal);
        else if (this.#spares.size > 0) await this.#giveUpSpares(signal);
        else if (this.#term?.renewalIsDue) await this.#renew(signal);
        else continue;
      } catch (error) {
        signal.throwIfAborted();
        this.#trouble = this.#renewing.failing(error).message;
        this.#changed();
        await failures.wait({ signal });
        continue;
      }
      if (this.#trouble !== undefined) {
        this.#trouble = undefined;
        this.#renewing.working();
        this.#changed();
      }
      failures.reset();
      // Somebody else wrote in between: look again, though not at the same moment as they.
      if (this.#suspect) await races.wait({ signal });
      else races.reset();
    }
  }

  /** Sleeps until the lease is due or something was observed. */
  async #sleep(signal: AbortSignal): Promise<void> {
    if (this.#suspect || (this.#spares.size > 0 && this.#lost === undefined)) return;
    const waitMs = this.#lost === undefined
      ? this.#term?.untilRenewalMs ?? Infinity
      : LOST_POLL_MS * (0.75 + this.#random() / 2);
    if (waitMs > 0) await this.#wakeup.sleep(Math.min(waitMs, MAX_SLEEP_MS), { signal });
  }

  #noteSpare(entry: Entry): void {
    const { key } = entry;
    this.#spares.delete(key);
    if (key === this.#lease.key || !this.#isSpare(entry) || this.#judgedSpares.has(key)) return;
    if (this.#options.addresses === undefined) return;
    this.#spares.add(key);
    this.#wakeup.wake();
  }

  /**
   * Gives up leases that this host has besides its own, as after a restore of a backup from before
   * it moved: whoever got that subnet since is cut off while the lease is here. One whose subnet
   * pods may use is kept, and so is one that comes back, as somebody must need it.
   */
  async #giveUpSpares(signal: AbortSignal): Promise<void> {
    const { registry, log, addresses } = this.#options;
    const local = await addresses!({ signal });
    for (const key of [...this.#spares]) {
      const spare = key === this.#lease.key ? undefined : await registry.get(key, { signal });
      if (
        spare !== undefined && this.#isSpare(spare) && !this.#isInUse(key, local) &&
        await registry.remove(key, spare.revision, { signal })
      ) {
        log.warn("A further lease of this host is given up, as it serves another subnet", {
          subnet: formatSubnet(this.#lease.subnet),
          further: key,
        });
      }
      this.#spares.delete(key);
      if (spare !== undefined) this.#judgedSpares.add(key);
    }
  }

  /** An address alone may have been another host's, as a virtual IP; a reservation is not ours. */
  #isSpare({ value, expires }: Entry): boolean {
    const { backendData = this.#attributes.backendV6Data } = this.#attributes;
    return expires && value === this.#value && backendData !== undefined;
  }

  #isInUse(key: string, local: readonly Address[]): boolean {
    try {
      return sharesSubnet(key, this.#lease.subnet) || hasAddressOf(local, parseLeaseKey(key));
    } catch {
      return true; // junk; the watch counts and names it
    }
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { registry, log } = this.#options;
    const entry = await registry.renew(this.#lease.key, this.#entry.revision, this.#ttlSeconds, {
      signal,
    });
    if (!entry) return await this.#verify(signal);
    this.#markHeld(entry);
    log.debug("Lease renewed", { subnet: formatSubnet(this.#lease.subnet) });
  }

  /** Puts another subnet in the place of the present one, if there is a better one. */
  async #drawAnother(reason: string, signal: AbortSignal): Promise<void> {
    const { registry, network, log, random = Math.random, occupied } = this.#options;
    const former = formatSubnet(this.#lease.subnet);
    const step = planAcquire({
      network,
      owner: {}, // the own lease is one of those not to be taken
      entries: await registry.list({ signal }),
      previous: undefined,
      ...(occupied ? { occupied: await occupied({ signal }) } : {}),
      random,
    });
    this.#redraw = undefined;
    if (step.action !== "create") {
      if ("reason" in step) log.error(`${reason} stands in the place of ${former}. ${step.reason}`);
      return;
    }
    const attributes = this.#attributes;
    const key = encodeLeaseKey(step.subnet);
    const value = encodeLeaseValue(attributes);
    const entry = await registry.move(this.#entry, key, value, this.#ttlSeconds, { signal });
    if (entry === undefined) {
      this.#suspect = true; // see what happened
      return;
    }
    log.warn(`Another subnet was leased: ${reason} stands in the place of the first`, {
      subnet: formatSubnet(step.subnet),
      former,
    });
    this.#lease = { key, subnet: step.subnet, attributes: this.#attributes };
    this.#suspect = this.#attributes !== attributes;
    this.#markHeld(entry);
  }

  /** Brings the own key to what it should be, whatever happened to it. */
  async #verify(signal: AbortSignal): Promise<void> {
    const { registry, log } = this.#options;
    const subnet = formatSubnet(this.#lease.subnet);
    this.#suspect = false;
    const announce = this.#announce;
    this.#announce = false; // what goes from now on is another matter
    try {
      const entry = await registry.get(this.#lease.key, { signal });
      if (!entry) {
        if (!this.#taken) this.#lost = `${subnet} is gone from the store`;
        const created = await registry.create(this.#lease.key, this.#value, this.#ttlSeconds, {
          signal,
        });
        if (!created) {
          this.#suspect = true; // someone was faster; see who
          return;
        }
        this.#tellOfOthers("warn", "Lease was gone from the store and has been taken back");
        this.#markHeld(created);
        return;
      }
      const untouched = entry.revision === this.#entry.revision;
      let owner: LeaseAttributes | undefined;
      try {
        owner = parseLeaseValue(entry.value);
      } catch { /* not a lease: nobody's */ }
      if (owner && !untouched && !isOwnedBy(owner, this.#attributes)) {
        await this.#lose(`${owner.publicIp ?? owner.publicIpv6} holds ${subnet} now`, signal);
        return;
      }
      if (entry.value === this.#value && !announce) {
        await this.#adopt(entry, signal);
        return;
      }
      // Our address but another value: an upstream daemon on this host, or someone's edit.
      const changed = entry.value !== this.#value;
      if (
        changed && !untouched && this.#monotonicNow() - this.#lastRewrite < REWRITE_INTERVAL_MS
      ) {
        await this.#adopt(entry, signal);
        return;
      }
      if (!changed) {
        this.#tellOfOthers(
          "info",
          "Publishing the lease again: one that shared its subnet is gone",
        );
      } else {
        this.#lastRewrite = this.#monotonicNow();
        if (untouched) log.info("Publishing changed attributes of this host", { subnet });
        else {this.#tellOfOthers(
            "warn",
            "Lease value was changed by someone else and is written again",
          );}
      }
      const updated = await registry.update(
        entry.key,
        this.#value,
        entry.revision,
        entry.expires ? this.#ttlSeconds : undefined,
        { signal },
      );
      if (updated) this.#markHeld(updated);
      else this.#suspect = true;
    } catch (error) {
      this.#suspect = true;
      this.#announce ||= announce;
      throw error;
    }
  }

  /** Holds `entry`, which someone else may have written, for as long as the store keeps it. */
  async #adopt(entry: Entry, signal: AbortSignal): Promise<void> {
    const seconds = entry.expires
      ? await this.#options.registry.timeToLive(entry.key, { signal })
      : undefined;
    this.#markHeld(entry, seconds);
  }

  async #lose(reason: string, signal: AbortSignal): Promise<void> {
    const { log, onLeaseLoss } = this.#options;
    if (!this.#taken) {
      this.#toldLoss = this.#tellOfOthers(
        "error",
        `Lease lost: ${reason}; ` +
          (onLeaseLoss === "reassign"
            ? "taking another subnet"
            : "the subnet stays as it is under running pods and this host is not ready; restart " +
              "flanneld with --on-lease-loss=reassign, or remove the other host's lease"),
      );
    }
    this.#lost = reason;
    this.#taken = true;
    this.#term = undefined;
    this.#changed();
    if (onLeaseLoss !== "reassign") return;
    const { lease, entry } = await acquire(
      { ...this.#options, attributes: this.#attributes, previous: undefined },
      { signal },
    );
    log.warn("Another subnet was leased in place of the lost one", {
      subnet: formatSubnet(lease.subnet),
      lost: formatSubnet(this.#lease.subnet),
    });
    // Other attributes may have been published meanwhile; they are written next.
    this.#lease = { ...lease, attributes: this.#attributes };
    this.#markHeld(entry);
  }

  #markHeld(entry: Entry, seconds: number = this.#ttlSeconds): void {
    this.#entry = entry;
    const { renewMarginSeconds, random } = this.#options;
    this.#term = entry.expires
      ? new LeaseTerm({ seconds, renewMarginSeconds, random, clocks: this.#options })
      : undefined;
    if (this.#taken && this.#toldLoss) {
      this.#options.log.info("Lease is held again", { subnet: formatSubnet(this.#lease.subnet) });
    }
    this.#lost = undefined;
    this.#taken = false;
    this.#changed();
  }

  /** Logs what others did to the own key, unless they did it often of late; whether it did. */
  #tellOfOthers(level: "info" | "warn" | "error", message: string): boolean {
    const take = this.#ofOthers.take();
    if (take === "no") return false;
    const more = take === "last" ? "; what comes next is not logged, until an hour has passed" : "";
    this.#options.log[level](message + more, { subnet: formatSubnet(this.#lease.subnet) });
    return true;
  }

  #changed(): void {
    this.#options.onChange?.();
  }

  #random(): number {
    return (this.#options.random ?? Math.random)();
  }

  #monotonicNow(): number {
    return (this.#options.monotonicNow ?? (() => performance.now()))();
  }
}

/**
 * Says that a lease with our address may be another host's: this host had another subnet before. A
 * virtual IP that fails over takes the lease of its former host along, which lives on.
 */
function warnOfSharedAddress(
  { key, subnet }: Lease,
  { previous, log }: LeaseKeeperOptions,
  { publicIp, publicIpv6 }: LeaseAttributes,
): void {
  if (!previous || sharesSubnet(key, previous)) return;
  log.warn(
    `The lease of ${formatSubnet(subnet)} has the address of this host, ${
      publicIp ?? publicIpv6
    }, but this host had ${formatSubnet(previous)} before: if another host has that address too, ` +
      "such as a virtual IP, both would share one subnet; give each host its own with --iface or " +
      "--public-ip",
  );
}

/** A lease as it was acquired, and the list of all from before. */
interface Acquired {
  readonly lease: Lease;
  readonly entry: Entry;
  readonly listed: readonly Entry[];
}

async function acquire(
  options: LeaseKeeperOptions,
  { signal }: { signal: AbortSignal },
): Promise<Acquired> {
  const { registry, network, log } = options;
  let { attributes } = options;
  const ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
  const races = new Backoff({ initialMs: 50, maxMs: 5_000 });
  const exhausted = new Backoff({ initialMs: 5_000, maxMs: 60_000 });
  if (!attributes.publicIp && !attributes.publicIpv6) {
    throw new OperatorError("Cannot lease a subnet: this host has no public address to own it by");
  }
  let { previous } = options;
  for (let waiting = false;; await races.wait({ signal })) {
    let listed = await registry.list({ signal });
    await inSlices(parseLeasesInSteps(listed), { signal });
    const step = planAcquire({
      network,
      owner: attributes,
      entries: listed,
      previous,
      ...(options.addresses ? { addresses: await options.addresses({ signal }) } : {}),
      ...(options.occupied ? { occupied: await options.occupied({ signal }) } : {}),
      random: options.random ?? Math.random,
    });
    if ("lease" in step) attributes = options.inherit?.(step.lease.attributes) ?? attributes;
    const value = encodeLeaseValue(attributes);
    let entry: Entry | undefined;
    let subnet: LeaseSubnet;
    switch (step.action) {
      case "wait":
        if (!waiting) log.error(step.reason);
        waiting = true;
        options.onWaiting?.(step.reason);
        await exhausted.wait({ signal });
        continue;
      case "remove":
        log.warn(`Removing the own lease ${step.entry.key}: ${step.reason}`);
        await registry.remove(step.entry.key, step.entry.revision, { signal });
        continue;
      case "reuse":
        subnet = step.lease.subnet;
        warnOfSharedAddress(step.lease, options, attributes);
        // An unchanged value is only prolonged, which other hosts do not see.
        entry = !step.entry.expires && step.entry.value === value
          ? step.entry
          : step.entry.value === value
          ? await registry.renew(step.entry.key, step.entry.revision, ttlSeconds, { signal })
          : await registry.update(
            step.entry.key,
            value,
            step.entry.revision,
            step.entry.expires ? ttlSeconds : undefined,
            { signal },
          );
        if (entry) log.info("Lease kept", { subnet: formatSubnet(subnet) });
        break;
      case "move": {
        subnet = step.subnet;
        const key = encodeLeaseKey(subnet);
        const ttl = step.entry.expires ? ttlSeconds : undefined;
        entry = await registry.move(step.entry, key, value, ttl, { signal });
        if (!entry) break;
        log.info("Lease changed", {
          subnet: formatSubnet(subnet),
          before: formatSubnet(step.lease.subnet),
          why: step.reason,
        });
        // What stays now has priority over whatever else happens.
        previous = { ...previous, ...step.kept };
        // Another host may have chosen the added subnet at the same time; and a watch is to go on
        // from a list without the old key.
        listed = await registry.list({ signal });
        if (entry.expires && findEarlierRival(entry, listed) !== undefined) continue;
        break;
      }
      case "create":
        subnet = step.subnet;
        // Where the outcome stays unknown this throws, and the next attempt finds our own lease.
        entry = await registry.create(encodeLeaseKey(subnet), value, ttlSeconds, { signal });
        // With one family, who shares the subnet shares the key.
        if (entry && subnet.ipv4 && subnet.ipv6) {
          const rival = findEarlierRival(entry, await registry.list({ signal }));
          if (rival !== undefined) {
            log.info("Another host leased a part of the subnet at the same time; giving it back", {
              subnet: formatSubnet(subnet),
              other: rival,
            });
            await registry.remove(entry.key, entry.revision, { signal });
            entry = undefined;
          }
        }
        if (entry) log.info("Lease taken", { subnet: formatSubnet(subnet), why: step.reason });
        break;
    }
    if (entry) return { lease: { key: entry.key, subnet, attributes }, entry, listed };
    log.debug("Lost a race for a subnet; listing again", { subnet: formatSubnet(subnet) });
  }
}

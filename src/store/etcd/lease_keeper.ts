/**
 * Keeps a lease: renews it, and writes its key only while revision and owner are what was seen.
 *
 * @module
 */
import { encodeLeaseKey, encodeLeaseValue, parseLeaseValue } from "../../lease/codec.ts";
import { formatSubnet, type Lease, type LeaseAttributes } from "../../lease/lease.ts";
import { isOwnedBy, sharesSubnet } from "../../lease/ownership.ts";
import { Cell, type ReadableCell } from "../../util/cell.ts";
import { BudgetedLog } from "../../util/line_budget.ts";
import type { Problem } from "../../status/model.ts";
import { Outage } from "../../status/problems.ts";
import type { Clocks } from "../../util/stopwatch.ts";
import { Backoff } from "../../util/time.ts";
import { Wakeup } from "../../util/wakeup.ts";
import type { CallOptions } from "../errors.ts";
import type { LeaseState, OwnLease } from "../lease_store.ts";
import { acquire, type Acquired, type AcquireOptions, LEASE_TTL_SECONDS } from "./acquire.ts";
import type { Entry, KnownEntries, WatchUpdate } from "../keys/key_space.ts";
import { Lifetime } from "../keys/lifetime.ts";
import { planAcquire } from "./plan_acquire.ts";
import { type OwnEntry, SpareLeases } from "./spare_leases.ts";

/** Longest sleep in one piece, so that a clock that jumps (a suspended VM) is noticed. */
const MAX_SLEEP_MS = 5 * 60_000;

const LOST_POLL_MS = 30_000;

/** A foreign write is overwritten at most this often, lest two writers race. */
const REWRITE_INTERVAL_MS = 60_000;

export interface LeaseKeeperOptions extends AcquireOptions, Clocks {
  /** The lease is renewed this long before it ends. */
  readonly renewMarginSeconds: number;
}

/**
 * Takes a lease and keeps it.
 *
 * ```text
 *   acquire ──► held ──(key gone)──► retake the same subnet ──► held
 *                 ▲                          │ another host has it
 *                 └──(its key goes)── lost ◄─┘        (redraw: acquire again)
 * ```
 */
export class LeaseKeeper implements OwnLease {
  readonly #options: LeaseKeeperOptions;
  readonly #ttlSeconds: number;
  readonly #renewing: Outage;
  readonly #spares: SpareLeases;
  readonly #ofOthers: BudgetedLog;
  readonly #wakeup = new Wakeup();
  readonly #lease: Cell<Lease>;
  readonly #state: Cell<LeaseState>;
  /** By the clocks of the moment it is read in. */
  readonly state: ReadableCell<LeaseState>;
  #value: string;
  #entry: Entry;
  /** `undefined` for a reservation, and while the lease is not held. */
  #term: Lifetime | undefined;
  /** Why the lease is not held, unless its time is up. */
  #loss: { readonly loss: "gone" | "taken"; readonly message: string } | undefined;
  #trouble: Problem | undefined;
  /** The store may hold something else than `#entry` under our key. */
  #suspect = false;
  /** A lease that shared our subnet has gone, see {@linkcode LeaseKeeper.observe}. */
  #announce = false;
  #lastRewrite = -Infinity;
  /** Why another subnet is to be drawn. */
  #redraw: string | undefined;
  /** What the store held when the lease was acquired. */
  #known: KnownEntries | undefined;

  private constructor(options: LeaseKeeperOptions, { lease, entry, listed }: Acquired) {
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
    this.#spares = new SpareLeases(options);
    this.#ofOthers = new BudgetedLog(options.log, { now: () => this.#monotonicNow() });
    this.#lease = new Cell(lease);
    this.#value = encodeLeaseValue(lease.attributes);
    this.#entry = entry;
    this.#term = this.#termOf(entry);
    this.#known = { listed, written: entry };
    const state = this.#state = new Cell(this.#currentState());
    const currentState = () => this.#currentState();
    this.state = {
      get value() {
        return currentState();
      },
      subscribe: (listener) => state.subscribe(listener),
    };
  }

  static async acquire(options: LeaseKeeperOptions, each: CallOptions): Promise<LeaseKeeper> {
    return new LeaseKeeper(options, await acquire(options, each));
  }

  /** What the store held then, for a watch to go on from. Given once. */
  takeKnown(): KnownEntries | undefined {
    const known = this.#known;
    this.#known = undefined;
    return known;
  }

  get lease(): ReadableCell<Lease> {
    return this.#lease;
  }

  publish(attributes: LeaseAttributes): void {
    const value = encodeLeaseValue(attributes);
    if (value === this.#value) return;
    this.#value = value;
    this.#lastRewrite = -Infinity;
    this.#suspect = true;
    this.#wakeup.wake();
    this.#lease.set({ ...this.#lease.value, attributes });
  }

  redraw(reason: string): void {
    if (this.#redraw !== undefined || !(this.#entry.expires || this.#isTaken)) return;
    this.#redraw = reason;
    this.#wakeup.wake();
  }

  /**
   * Takes note of changes of the own key, and of the end of a lease that shared our subnet, as two
   * dual-stack ones may: upstream's daemons then remove what leads to the subnet, whoever has it.
   * Writing the own lease again makes them add it again. Further leases of this host are given up,
   * see {@linkcode SpareLeases}.
   */
  observe(update: WatchUpdate): void {
    const { key, subnet } = this.#lease.value;
    const isOurs = (entry: Entry) =>
      entry.version === this.#entry.version && entry.value === this.#value;
    let suspect = this.#suspect;
    if (update.type === "snapshot") {
      const entry = update.entries.find((each) => each.key === key);
      suspect = entry === undefined || !isOurs(entry);
    } else if (update.type === "events") {
      for (const event of update.events) {
        if (event.type === "delete" && event.key === key) suspect = true;
        else if (event.type === "delete" && sharesSubnet(event.key, subnet)) {
          this.#announce = suspect = true;
        }
        if (event.type === "put" && event.entry.key === key) {
          suspect = !isOurs(event.entry);
          if (!suspect) this.#announce = false; // it was written after that end
        }
      }
    }
    const isSpare = this.#spares.observe(update, this.#own);
    if (isSpare || (suspect && !this.#suspect)) this.#wakeup.wake();
    this.#suspect ||= suspect;
  }

  async run({ signal }: CallOptions): Promise<never> {
    const failures = new Backoff({ initialMs: 1_000, maxMs: 60_000 });
    const races = new Backoff({ initialMs: 50, maxMs: 5_000 });
    while (true) {
      await this.#sleep(signal);
      try {
        if (!await this.#doWhatIsDue(signal)) continue;
      } catch (error) {
        signal.throwIfAborted();
        this.#trouble = this.#renewing.failing(error);
        this.#tell();
        await failures.wait({ signal });
        continue;
      }
      this.#trouble = undefined;
      this.#renewing.working();
      this.#tell();
      failures.reset();
      // Somebody else wrote in between: look again, though not at the same moment as they.
      if (this.#suspect) await races.wait({ signal });
      else races.reset();
    }
  }

  /** Sleeps until the lease is due or something was observed. */
  async #sleep(signal: AbortSignal): Promise<void> {
    if (this.#suspect || this.#redraw !== undefined) return;
    if (this.#spares.isAny && this.#loss === undefined) return;
    const waitMs = this.#loss === undefined
      ? this.#term?.untilRenewalMs ?? Infinity
      : LOST_POLL_MS * (0.75 + this.#random() / 2);
    if (waitMs > 0) await this.#wakeup.sleep(Math.min(waitMs, MAX_SLEEP_MS), { signal });
  }

  async #doWhatIsDue(signal: AbortSignal): Promise<boolean> {
    const mayMove = this.#redraw !== undefined && this.#isTaken;
    if (this.#suspect || (this.#loss !== undefined && !mayMove)) await this.#verify(signal);
    else if (mayMove) await this.#acquireAnother(signal);
    else if (this.#redraw !== undefined) await this.#drawAnother(this.#redraw, signal);
    else if (this.#spares.isAny) await this.#spares.giveUp(() => this.#own, { signal });
    else if (this.#term?.renewalIsDue) await this.#renew(signal);
    else return false;
    return true;
  }

  async #renew(signal: AbortSignal): Promise<void> {
    const { space, log } = this.#options;
    const { subnet } = this.#lease.value;
    const entry = await space.renew(this.#entry, this.#ttlSeconds, { signal });
    if (!entry) return await this.#verify(signal);
    this.#markHeld(entry);
    log.debug("Lease renewed", { subnet: formatSubnet(subnet) });
  }

  /** Leases another subnet instead, if there is a better one. */
  async #drawAnother(reason: string, signal: AbortSignal): Promise<void> {
    const { space, network, log, random = Math.random, occupied } = this.#options;
    const former = formatSubnet(this.#lease.value.subnet);
    const step = planAcquire({
      network,
      owner: {}, // the own lease is one of those not to be taken
      entries: await space.list({ signal }),
      previous: undefined,
      ...(occupied ? { occupied: await occupied({ signal }) } : {}),
      random,
    });
    this.#redraw = undefined;
    if (step.action !== "create") {
      if ("reason" in step) log.error(`${reason} is in the way of ${former}. ${step.reason}`);
      return;
    }
    const { subnet } = step;
    const key = encodeLeaseKey(subnet);
    const value = this.#value;
    const entry = await space.move(this.#entry, key, value, {
      signal,
      lifetimeSeconds: this.#ttlSeconds,
    });
    if (entry === undefined) {
      this.#suspect = true; // see what happened
      return;
    }
    log.warn(`Another subnet was leased: ${reason} is in the way of the first`, {
      subnet: formatSubnet(subnet),
      former,
    });
    this.#suspect = this.#value !== value;
    this.#markHeld(entry, { lease: { key, subnet } });
  }

  /** Takes another subnet in place of the one that another host has. */
  async #acquireAnother(signal: AbortSignal): Promise<void> {
    const { attributes, subnet: lost } = this.#lease.value;
    try {
      const options = { ...this.#options, attributes, previous: undefined };
      const { lease, entry } = await acquire(options, { signal });
      this.#options.log.warn("Another subnet was leased in place of the lost one", {
        subnet: formatSubnet(lease.subnet),
        lost: formatSubnet(lost),
      });
      this.#markHeld(entry, { lease });
    } catch (error) {
      this.#suspect = true; // the lost one may be free by then
      throw error;
    }
  }

  /** Brings the own key to what it should be. */
  async #verify(signal: AbortSignal): Promise<void> {
    const { space, log } = this.#options;
    const { key, attributes } = this.#lease.value;
    const subnet = formatSubnet(this.#lease.value.subnet);
    this.#suspect = false;
    const announce = this.#announce;
    this.#announce = false; // what goes from now on is another matter
    try {
      const entry = await space.get(key, { signal });
      if (!entry) {
        if (!this.#isTaken) {
          this.#loss = { loss: "gone", message: `${subnet} is gone from the store` };
        }
        const created = await space.create(key, this.#value, {
          signal,
          lifetimeSeconds: this.#ttlSeconds,
        });
        if (!created) {
          this.#suspect = true; // someone was faster; see who
          return;
        }
        this.#ofOthers.write("warn", "Lease was gone from the store and has been taken back", {
          subnet,
        });
        this.#markHeld(created);
        return;
      }
      const untouched = entry.version === this.#entry.version;
      let owner: LeaseAttributes | undefined;
      try {
        owner = parseLeaseValue(entry.value);
      } catch { /* not a lease: nobody's */ }
      if (owner && !untouched && !isOwnedBy(owner, attributes)) {
        this.#lose(`${owner.publicIp ?? owner.publicIpv6} holds ${subnet} now`);
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
        this.#ofOthers.write(
          "info",
          "Publishing the lease again: one that shared its subnet is gone",
          { subnet },
        );
      } else {
        this.#lastRewrite = this.#monotonicNow();
        if (untouched) log.info("Publishing changed attributes of this host", { subnet });
        else {
          this.#ofOthers.write(
            "warn",
            "Lease value was changed by someone else and is written again",
            { subnet },
          );
        }
      }
      const updated = await space.update(entry, this.#value, {
        signal,
        lifetimeSeconds: entry.expires ? this.#ttlSeconds : undefined,
      });
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
      ? await this.#options.space.timeToLive(entry.key, { signal })
      : undefined;
    this.#markHeld(entry, { seconds });
  }

  #lose(message: string): void {
    this.#loss = { loss: "taken", message };
    this.#trouble = undefined;
    this.#term = undefined;
    this.#tell();
  }

  /** @param how.lease A lease in place of the former one; attributes published meanwhile stay. */
  #markHeld(
    entry: Entry,
    how: { lease?: Pick<Lease, "key" | "subnet">; seconds?: number | undefined } = {},
  ): void {
    this.#entry = entry;
    this.#term = this.#termOf(entry, how.seconds);
    if (this.#isTaken) this.#redraw = undefined;
    this.#loss = undefined;
    if (how.lease) {
      const { key, subnet } = how.lease;
      this.#lease.set({ ...this.#lease.value, key, subnet });
    }
    this.#tell();
  }

  #termOf(entry: Entry, seconds = this.#ttlSeconds): Lifetime | undefined {
    const { renewMarginSeconds, random } = this.#options;
    if (!entry.expires) return undefined;
    return new Lifetime({ seconds, renewMarginSeconds, random, clocks: this.#options });
  }

  get #isTaken(): boolean {
    return this.#loss?.loss === "taken";
  }

  get #own(): OwnEntry {
    return { lease: this.#lease.value, value: this.#value };
  }

  #currentState(): LeaseState {
    const because = this.#trouble === undefined ? "" : `: ${this.#trouble.message}`;
    if (this.#loss !== undefined) {
      return { held: false, ...this.#loss, message: this.#loss.message + because };
    }
    if (this.#term?.isOver) {
      const message = `the lease has expired and is not renewed yet${because}`;
      return { held: false, loss: "expired", message };
    }
    return {
      held: true,
      expiresAt: this.#term?.endsAt,
      ...(this.#trouble === undefined ? {} : { trouble: this.#trouble }),
    };
  }

  #tell(): void {
    this.#state.set(this.#currentState());
  }

  #random(): number {
    return (this.#options.random ?? Math.random)();
  }

  #monotonicNow(): number {
    return (this.#options.monotonicNow ?? (() => performance.now()))();
  }
}

import type { NetworkConfig } from "../config/network_config.ts";
import { describeError, OperatorError } from "../errors.ts";
import { encodeLeaseKey, encodeLeaseValue, parseLeaseValue } from "../lease/codec.ts";
import {
  formatSubnet,
  type Lease,
  type LeaseAttributes,
  type LeaseSubnet,
} from "../lease/lease.ts";
import type { Logger } from "../log.ts";
import { Backoff } from "../util/time.ts";
import { Wakeup } from "../util/wakeup.ts";
import { isOwnedBy, planAcquire } from "./acquire.ts";
import { type Entry, type Registry, StoreError, type WatchUpdate } from "./registry.ts";

/** Upstream's lease time. */
export const LEASE_TTL_SECONDS = 24 * 3600;

/** Longest sleep in one piece, so that a clock that jumps (a suspended VM) is noticed. */
const MAX_SLEEP_MS = 5 * 60_000;

/** How often a lost subnet is looked at besides the watch. */
const LOST_POLL_MS = 30_000;

/** A foreign write over our own value is answered at most this often, lest two writers race. */
const REWRITE_INTERVAL_MS = 60_000;

/** Options of {@linkcode LeaseKeeper}. */
export interface LeaseKeeperOptions {
  readonly registry: Registry;
  readonly network: Pick<NetworkConfig, "ipv4" | "ipv6">;
  readonly attributes: LeaseAttributes;
  /** The subnet of the last run, from subnet.env. */
  readonly previous: LeaseSubnet | undefined;
  /** The lease is renewed this long before it ends. */
  readonly renewMarginSeconds: number;
  /** Whether to take another subnet when another host holds ours. */
  readonly onLeaseLoss: "keep" | "reassign";
  readonly log: Logger;
  /** @default {LEASE_TTL_SECONDS} */
  readonly ttlSeconds?: number;
  readonly random?: () => number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
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
  | { readonly held: false; readonly reason: string };

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
  readonly #now: () => number;
  #attributes: LeaseAttributes;
  #value: string;
  #lease: Lease;
  #entry: Entry;
  #expiresAt: number | undefined;
  #lost: string | undefined;
  #trouble: string | undefined;
  /** The store may hold something else than `#entry` under our key. */
  #suspect = false;
  #lastRewrite = -Infinity;
  readonly #wakeup = new Wakeup();

  private constructor(options: LeaseKeeperOptions, lease: Lease, entry: Entry) {
    this.#options = options;
    this.#ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
    this.#now = options.now ?? Date.now;
    this.#attributes = options.attributes;
    this.#value = encodeLeaseValue(options.attributes);
    this.#lease = lease;
    this.#entry = entry;
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
    const { lease, entry } = await acquire(options, { signal });
    return new LeaseKeeper(options, lease, entry);
  }

  /** The lease held, or last held. */
  get lease(): Lease {
    return this.#lease;
  }

  get state(): LeaseState {
    if (this.#lost !== undefined) return { held: false, reason: this.#lost };
    return {
      held: true,
      expiresAt: this.#expiresAt,
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

  /** Takes note of what a watch of the store says about the own key. */
  observe(update: WatchUpdate): void {
    const ours = (entry: Entry) =>
      entry.revision === this.#entry.revision && entry.value === this.#value;
    let suspect = this.#suspect;
    if (update.type === "snapshot") {
      const entry = update.entries.find((each) => each.key === this.#lease.key);
      suspect = entry === undefined || !ours(entry);
    } else if (update.type === "events") {
      for (const event of update.events) {
        if (event.type === "delete" && event.key === this.#lease.key) suspect = true;
        if (event.type === "put" && event.entry.key === this.#lease.key) {
          suspect = !ours(event.entry);
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
    const backoff = new Backoff({ initialMs: 1_000, maxMs: 60_000 });
    while (true) {
      await this.#sleep(signal);
      try {
        if (this.#suspect || this.#lost !== undefined) await this.#verify(signal);
        else if (this.#renewDue()) await this.#renew(signal);
        else continue;
        if (this.#trouble !== undefined) {
          this.#options.log.info("Lease is in order again", {
            subnet: formatSubnet(this.#lease.subnet),
          });
          this.#trouble = undefined;
          this.#changed();
        }
        backoff.reset();
      } catch (error) {
        signal.throwIfAborted();
        this.#fail(error);
        await backoff.wait({ signal });
      }
    }
  }

  #renewDue(): boolean {
    return this.#expiresAt !== undefined &&
      this.#now() >= this.#expiresAt - this.#options.renewMarginSeconds * 1_000;
  }

  /** Sleeps until the lease is due or something was observed. */
  async #sleep(signal: AbortSignal): Promise<void> {
    if (this.#suspect || this.#renewDue()) return;
    const due = this.#expiresAt === undefined
      ? Infinity
      : this.#expiresAt - this.#options.renewMarginSeconds * 1_000 - this.#now();
    const lostPoll = this.#lost === undefined ? Infinity : LOST_POLL_MS;
    await this.#wakeup.sleep(Math.min(due, lostPoll, MAX_SLEEP_MS), { signal });
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

  /** Brings the own key to what it should be, whatever happened to it. */
  async #verify(signal: AbortSignal): Promise<void> {
    const { registry, log } = this.#options;
    const subnet = formatSubnet(this.#lease.subnet);
    this.#suspect = false;
    try {
      const entry = await registry.get(this.#lease.key, { signal });
      if (!entry) {
        const created = await registry.create(this.#lease.key, this.#value, this.#ttlSeconds, {
          signal,
        });
        if (!created) {
          this.#suspect = true; // someone was faster; see who
          return;
        }
        log.warn("Lease was gone from the store and has been taken back", { subnet });
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
      if (entry.value === this.#value) {
        await this.#adopt(entry, signal);
        return;
      }
      // Our address but another value: an upstream daemon on this host, or someone's edit.
      if (!untouched && this.#now() - this.#lastRewrite < REWRITE_INTERVAL_MS) {
        await this.#adopt(entry, signal);
        return;
      }
      this.#lastRewrite = this.#now();
      if (untouched) log.info("Publishing changed attributes of this host", { subnet });
      else log.warn("Lease value was changed by someone else and is written again", { subnet });
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
      throw error;
    }
  }

  /** Holds `entry`, which someone else may have written, for as long as the store keeps it. */
  async #adopt(entry: Entry, signal: AbortSignal): Promise<void> {
    const seconds = entry.expires
      ? await this.#options.registry.timeToLive(entry.key, { signal })
      : undefined;
    this.#markHeld(entry);
    if (seconds !== undefined) this.#expiresAt = this.#now() + seconds * 1_000;
  }

  async #lose(reason: string, signal: AbortSignal): Promise<void> {
    const { log, onLeaseLoss } = this.#options;
    if (this.#lost === undefined) {
      log.error(
        `Lease lost: ${reason}; ` +
          (onLeaseLoss === "reassign"
            ? "taking another subnet"
            : "the subnet stays as it is under running pods and this host is not ready; restart " +
              "flanneld with --on-lease-loss=reassign, or remove the other host's lease"),
      );
    }
    this.#lost = reason;
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
    this.#lease = lease;
    this.#markHeld(entry);
  }

  #markHeld(entry: Entry): void {
    this.#entry = entry;
    this.#expiresAt = entry.expires ? this.#now() + this.#ttlSeconds * 1_000 : undefined;
    const changed = this.#lost !== undefined;
    this.#lost = undefined;
    if (changed) {
      this.#options.log.info("Lease is held again", { subnet: formatSubnet(this.#lease.subnet) });
    }
    this.#changed();
  }

  #fail(error: unknown): void {
    const reason = describeError(error);
    if (this.#trouble === undefined) {
      this.#options.log.warn(`Cannot renew the lease: ${reason}; trying again`, {
        subnet: formatSubnet(this.#lease.subnet),
      });
    }
    this.#trouble = reason;
    this.#changed();
  }

  #changed(): void {
    this.#options.onChange?.();
  }
}

async function acquire(
  options: LeaseKeeperOptions,
  { signal }: { signal: AbortSignal },
): Promise<{ lease: Lease; entry: Entry }> {
  const { registry, network, attributes, log } = options;
  const ttlSeconds = options.ttlSeconds ?? LEASE_TTL_SECONDS;
  const value = encodeLeaseValue(attributes);
  const races = new Backoff({ initialMs: 50, maxMs: 5_000 });
  const exhausted = new Backoff({ initialMs: 5_000, maxMs: 60_000 });
  if (!attributes.publicIp && !attributes.publicIpv6) {
    throw new OperatorError("Cannot lease a subnet: this host has no public address to own it by");
  }
  for (let waiting = false;; await races.wait({ signal })) {
    const entries = await registry.list({ signal });
    const step = planAcquire({
      network,
      owner: attributes,
      entries,
      previous: options.previous,
      random: options.random ?? Math.random,
    });
    let entry: Entry | undefined;
    let subnet: LeaseSubnet;
    switch (step.action) {
      case "wait":
        if (!waiting) log.error(step.reason);
        waiting = true;
        await exhausted.wait({ signal });
        continue;
      case "remove":
        log.warn(`Removing the own lease ${step.entry.key}: ${step.reason}`);
        await registry.remove(step.entry.key, step.entry.revision, { signal });
        continue;
      case "reuse":
        subnet = step.lease.subnet;
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
      case "create":
        subnet = step.subnet;
        // Where the outcome stays unknown this throws, and the next attempt finds our own lease.
        entry = await registry.create(encodeLeaseKey(subnet), value, ttlSeconds, { signal });
        if (entry) log.info("Lease taken", { subnet: formatSubnet(subnet), why: step.reason });
        break;
    }
    if (entry) return { lease: { key: entry.key, subnet, attributes }, entry };
    log.debug("Lost a race for a subnet; listing again", { subnet: formatSubnet(subnet) });
  }
}

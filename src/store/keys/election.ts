/** An election by one key that expires. @module */
import { Cell, type ReadableCell } from "../../util/cell.ts";
import { childSignal } from "../../util/child_signal.ts";
import { Outage } from "../../status/problems.ts";
import { type Clocks, Countdown, Stopwatch } from "../../util/stopwatch.ts";
import { Backoff, deadline } from "../../util/time.ts";
import { Turns } from "../../util/turns.ts";
import { Wakeup } from "../../util/wakeup.ts";
import type { ConfirmOptions, Election, ElectionOptions, Leadership, Term } from "../election.ts";
import { type CallOptions, isTransient } from "../errors.ts";
import { HeldTerm } from "./held_term.ts";
import type { Entry, KeySpace } from "./key_space.ts";
import { Lifetime } from "./lifetime.ts";

export const ELECTION_TTL_SECONDS = 15;

/** Default of {@linkcode ConfirmOptions}. */
const CONFIRM_MARGIN_MS = 5_000;

/** Candidates that see the lead fall vacant are spread over this. */
const CAMPAIGN_SPREAD_MS = 2_000;

/** How long the store may take to say whether a key that seems deleted is there. */
const VERIFY_MS = 2_000;

/** How often a clock that jumps (a suspended virtual machine) is checked. */
const TICK_MS = 1_000;

export interface KeyElectionOptions extends Pick<ElectionOptions, "holder" | "log">, Clocks {
  /** Nothing else should be kept in it: each change in it wakes all who follow. */
  readonly space: KeySpace;
  /** A key of the space. */
  readonly key: string;
  /** Whole seconds. @default {ELECTION_TTL_SECONDS} */
  readonly ttlSeconds?: number;
  /** A number in [0, 1). @default {Math.random} */
  readonly random?: () => number;
  /** How often clocks are looked at where something depends on them. @default {1_000} */
  readonly tickMs?: number;
}

interface Known {
  readonly entry: Entry | undefined;
  /** `undefined` while somebody leads. */
  readonly vacantFor: Stopwatch | undefined;
}

/**
 * An election of one holder among any number of candidates, by a key of the store that expires.
 *
 * ```text
 *            key absent: create it               renew every third of the TTL
 *   vacant ─────────────────────────► our term ◄─┐
 *     ▲ │ another was faster           │  │  └───┘
 *     │ ▼                              │  │ key changed: another holds it
 *   held by another ◄──────────────────│──┘
 *     ▲ │ its key is gone              │ time is up, key deleted, resigned
 *     └─┴──────── vacant ◄─────────────┘
 * ```
 *
 * A single key instead of a queue of keys: while somebody leads, those who wait cost the store
 * one watch each and nothing else. What the holder does must be fenced by {@linkcode Term.confirm},
 * as no clock can keep a process from being stopped between two lines.
 *
 * A key that does not expire was written by hand, and no holder keeps it alive: it counts as vacant.
 */
export class KeyElection implements Election {
  readonly #options: KeyElectionOptions;
  readonly #ttlSeconds: number;
  readonly #tickMs: number;
  readonly #following: Outage;
  readonly #campaigning: Outage;
  readonly #wakeup = new Wakeup();
  readonly #turns = new Turns();
  readonly #failures = new Backoff({ initialMs: 500, maxMs: 5_000 });
  /** Asking again does not give us rights that we lack. */
  readonly #denials = new Backoff({ initialMs: 5_000, maxMs: 60_000 });
  readonly #leadership = new Cell<Leadership | undefined>(undefined, sameLeadership);
  #candidate = true;
  #known: Known | undefined;
  #term: HeldTerm | undefined;
  /** The revision at which the key was last known to be ours: of this run, or of a former one. */
  #ownRevision: string | undefined;
  /** A write of ours may have been carried out, or not. */
  #isUnsure = false;
  /** The store may hold something else than `#term` says. */
  #isSuspect = false;
  /** Not before this is over: a draw against other candidates, a failure, a pause. */
  #draw: Countdown | undefined;
  #retry: Countdown | undefined;
  #pause: Countdown | undefined;

  constructor(options: KeyElectionOptions) {
    this.#options = options;
    this.#ttlSeconds = options.ttlSeconds ?? ELECTION_TTL_SECONDS;
    this.#tickMs = options.tickMs ?? TICK_MS;
    const now = options.monotonicNow ?? (() => performance.now());
    const election = `election of the ${options.key}`;
    this.#following = new Outage(options.log, {
      code: "store-unreachable",
      object: election,
      failed: `Cannot follow the ${election}`,
      andThen: "; trying again",
      recovered: `Following the ${election} again`,
      now,
    });
    this.#campaigning = new Outage(options.log, {
      code: "store-unreachable",
      object: `candidacy as the ${options.key}`,
      failed: `Cannot take part in the ${election}`,
      andThen: "; trying again",
      recovered: `Taking part in the ${election} again`,
      now,
    });
  }

  get leadership(): ReadableCell<Leadership | undefined> {
    return this.#leadership;
  }

  get vacantMs(): number | undefined {
    if (this.term !== undefined) return 0;
    return this.#known === undefined ? undefined : this.#known.vacantFor?.elapsedMs ?? 0;
  }

  get term(): Term | undefined {
    this.#term?.check();
    return this.#term;
  }

  get candidate(): boolean {
    return this.#candidate;
  }

  set candidate(candidate: boolean) {
    if (candidate === this.#candidate) return;
    this.#candidate = candidate;
    if (!candidate) this.#term?.end("this host is no candidate any more");
    this.#wakeup.wake();
  }

  tryOnce({ signal }: CallOptions): Promise<Term | undefined> {
    return this.#inTurn(signal, () => this.#campaign(signal));
  }

  async run({ signal }: CallOptions): Promise<void> {
    using scope = childSignal(signal);
    const loops = [this.#follow(scope.signal), this.#act(scope.signal)];
    try {
      await Promise.all(loops);
    } catch (error) {
      if (!signal.aborted) throw error;
    } finally {
      scope.abort(new DOMException("The election is left", "AbortError"));
      await Promise.allSettled(loops);
      this.#term?.end("the election is left");
    }
  }

  async resign(options: CallOptions & { readonly pauseMs: number }): Promise<void> {
    this.#pause = new Countdown(options.pauseMs, this.#options);
    this.#term?.end("this host has resigned");
    await this.#release(options.signal);
  }

  async #follow(signal: AbortSignal): Promise<void> {
    const { space, key } = this.#options;
    for await (const update of space.watch({ signal })) {
      if (update.type === "disconnected") {
        this.#following.failing(update.error);
        continue;
      }
      this.#following.working();
      if (update.type === "snapshot") {
        this.#observe(update.entries.find((entry) => entry.key === key));
      } else {
        for (const event of update.events) {
          if (event.type === "delete" && event.key === key) this.#observe(undefined);
          if (event.type === "put" && event.entry.key === key) this.#observe(event.entry);
        }
      }
    }
  }

  /** What the watch says comes late: some of it may be from before our term. */
  #observe(entry: Entry | undefined): void {
    const term = this.#term;
    if (term === undefined) {
      this.#note(entry);
    } else if (!this.#isOurs(entry, term)) {
      if (entry !== undefined && BigInt(entry.version) < BigInt(term.revision)) return;
      if (entry !== undefined && entry.value !== this.#options.holder) this.#lose(term, entry);
      // A deletion has no revision; and our own text may be our own renewal, under way.
      else this.#isSuspect = true;
    }
    this.#wakeup.wake();
  }

  async #act(signal: AbortSignal): Promise<void> {
    while (true) {
      const waitMs = this.#untilDue();
      if (waitMs > 0) {
        await this.#wakeup.sleep(waitMs, { signal });
        continue;
      }
      const term = this.#term;
      this.#draw = this.#retry = undefined;
      try {
        if (term !== undefined) await this.#keep(term, signal);
        else if (this.#candidate) await this.tryOnce({ signal });
        else await this.#release(signal);
        this.#campaigning.working();
        this.#failures.reset();
        this.#denials.reset();
      } catch (error) {
        signal.throwIfAborted();
        if (term?.signal.aborted) continue; // that was logged, and is no failure of the store
        this.#campaigning.failing(error);
        const backoff = isTransient(error) ? this.#failures : this.#denials;
        this.#retry = new Countdown(backoff.next(), this.#options);
      }
    }
  }

  /** Milliseconds until there may be something to do; not positive if there is now. */
  #untilDue(): number {
    this.#term?.check();
    const retryMs = this.#retry?.leftMs ?? 0;
    const atMost = (ms: number) => Math.min(this.#tickMs, ms);
    if (this.#term !== undefined) {
      return atMost(Math.max(retryMs, this.#isSuspect ? 0 : this.#term.time.untilRenewalMs));
    }
    const known = this.#known;
    const mayBeOurs = known?.entry !== undefined && this.#mayTakeOver(known.entry);
    if (!this.#candidate) return mayBeOurs ? atMost(retryMs) : Infinity;
    if (known === undefined || (known.vacantFor === undefined && !mayBeOurs)) {
      this.#draw = undefined;
      return Infinity;
    }
    this.#draw ??= new Countdown(
      this.#ownRevision === undefined
        ? (this.#options.random ?? Math.random)() * CAMPAIGN_SPREAD_MS
        : 0,
      this.#options,
    );
    return atMost(Math.max(retryMs, this.#draw.leftMs, this.#pause?.leftMs ?? 0));
  }

  get #isPausing(): boolean {
    return (this.#pause?.leftMs ?? 0) > 0;
  }

  async #campaign(signal: AbortSignal): Promise<Term | undefined> {
    const { space, key, holder, log } = this.#options;
    if (this.term !== undefined) return this.term;
    if (!this.#candidate || this.#isPausing) return undefined;
    const found = await space.get(key, { signal });
    this.#note(found);
    if (found?.expires && !this.#mayTakeOver(found)) return undefined;
    const since = new Stopwatch(this.#options);
    const taken = await this.#writing(() =>
      found === undefined
        ? space.create(key, holder, { signal, lifetimeSeconds: this.#ttlSeconds })
        : space.update(found, holder, { signal, lifetimeSeconds: this.#ttlSeconds })
    );
    if (taken === undefined) return undefined; // another was faster
    if (found !== undefined && !found.expires) {
      log.warn(`Key ${key} was written by hand, without an end, and is replaced`);
    }
    this.#ownRevision = taken.version;
    const term = new HeldTerm({
      entry: taken,
      time: this.#time(since),
      tickMs: this.#tickMs,
      confirm: (term, options) => this.#confirm(term, options),
      onEnd: (term, reason) => this.#ended(term, reason),
    });
    this.#term = term;
    this.#isSuspect = false;
    this.#known = { entry: taken, vacantFor: undefined };
    log.info(`This host is the ${key} now`, { term: term.id });
    this.#wakeup.wake();
    this.#tell();
    // What was asked for while the request was under way.
    if (!this.#candidate) term.end("this host is no candidate any more");
    else if (this.#isPausing) term.end("this host has resigned");
    return this.term;
  }

  /** Renews `term`, or looks whether it is still ours. */
  async #keep(term: HeldTerm, signal: AbortSignal): Promise<void> {
    const { space, key } = this.#options;
    using scope = childSignal(signal, term.signal);
    await this.#inTurn(scope.signal, async () => {
      if (!this.#isSuspect) {
        const since = new Stopwatch(this.#options);
        const renewed = await this.#writing(() =>
          space.renew({ key, version: term.revision }, this.#ttlSeconds, scope)
        );
        if (renewed !== undefined) {
          this.#ownRevision = renewed.version;
          term.renewed(renewed.version, this.#time(since));
          return;
        }
      }
      let entry: Entry | undefined;
      try {
        using limit = deadline(VERIFY_MS, scope);
        entry = await space.get(key, limit);
      } catch (error) {
        scope.signal.throwIfAborted();
        term.end("the key seems to have gone, and the store cannot be asked");
        throw error;
      }
      this.#isSuspect = false;
      if (!this.#isOurs(entry, term)) this.#lose(term, entry);
    });
  }

  async #confirm(term: HeldTerm, options: ConfirmOptions): Promise<void> {
    const { space, key } = this.#options;
    const { marginMs = CONFIRM_MARGIN_MS } = options;
    options.signal.throwIfAborted();
    term.throwIfOver();
    using scope = childSignal(options.signal, term.signal);
    // Not while a renewal is under way, which may change the revision.
    const entry = await this.#inTurn(scope.signal, () => space.get(key, scope));
    if (!this.#isOurs(entry, term)) this.#lose(term, entry);
    term.throwIfOver(); // by the clocks, too: this process may have been stopped meanwhile
    const { leftMs } = term.time;
    if (leftMs >= marginMs) return;
    throw new Error(
      `Cannot confirm to be the ${key}: ${Math.floor(leftMs)} ms are left of the term, ` +
        `and ${marginMs} ms are needed; it has not been renewed in time`,
    );
  }

  /** Deletes the key if it is ours. */
  #release(signal: AbortSignal): Promise<void> {
    const { space, key } = this.#options;
    return this.#inTurn(signal, async () => {
      if (this.#term !== undefined) return; // won again meanwhile
      if (this.#ownRevision === undefined && !this.#isUnsure) return;
      const entry = await space.get(key, { signal });
      const removed = entry !== undefined && this.#mayTakeOver(entry) &&
        await space.remove(entry, { signal });
      this.#note(removed ? undefined : entry);
    });
  }

  #isOurs(entry: Entry | undefined, term: HeldTerm): boolean {
    return entry?.version === term.revision && entry.value === this.#options.holder;
  }

  /** Whether `entry` is our own, of a former run or a term that ended here too early. */
  #mayTakeOver(entry: Entry): boolean {
    // Only then: should two processes have one name, they must not take it from each other in turn.
    return entry.value === this.#options.holder &&
      (this.#isUnsure || entry.version === this.#ownRevision);
  }

  /** Ends `term`, because the store holds `entry` instead. */
  #lose(term: HeldTerm, entry: Entry | undefined): void {
    term.end(
      entry === undefined
        ? "the key has been deleted"
        : entry.value === this.#options.holder
        ? "the key has been rewritten under the name of this host"
        : "the key has been changed by somebody else",
    );
    this.#note(entry);
  }

  #ended(term: HeldTerm, reason: string): void {
    const { key, log } = this.#options;
    if (this.#term !== term) return;
    this.#term = undefined;
    this.#isSuspect = false;
    // If somebody leads, the next look or the watch shows it.
    this.#known = { entry: this.#known?.entry, vacantFor: new Stopwatch(this.#options) };
    log.info(`This host is no longer the ${key}: ${reason}`, { term: term.id });
    this.#wakeup.wake();
    this.#tell();
  }

  #note(entry: Entry | undefined): void {
    const before = this.#known;
    const isHeld = entry !== undefined && entry.expires;
    // At first sight our own text is that of a former run.
    if (before === undefined && isHeld && entry.value === this.#options.holder) {
      this.#ownRevision = entry.version;
    }
    if (!isHeld || !this.#mayTakeOver(entry)) this.#ownRevision = undefined;
    if (isHeld && entry.value !== this.#options.holder) this.#isUnsure = false;
    const vacantFor = isHeld ? undefined : before?.vacantFor ?? new Stopwatch(this.#options);
    this.#known = { entry, vacantFor };
    this.#tell();
  }

  #tell(): void {
    const { vacantFor, entry } = this.#known ?? {};
    const term = this.#term;
    const holder = term !== undefined
      ? this.#options.holder
      : vacantFor === undefined
      ? entry?.value
      : undefined;
    this.#leadership.set({ holder, term });
  }

  /** Runs `task` after all before it: they use the key one at a time. */
  async #inTurn<T>(signal: AbortSignal, task: () => Promise<T>): Promise<T> {
    using _turn = await this.#turns.take({ signal });
    return await task();
  }

  /** Carries out a write, and remembers whether its outcome is unknown. */
  async #writing<T>(write: () => Promise<T>): Promise<T> {
    this.#isUnsure = true;
    const result = await write();
    this.#isUnsure = false;
    return result;
  }

  #time(since: Stopwatch): Lifetime {
    return new Lifetime({
      seconds: this.#ttlSeconds,
      renewMarginSeconds: this.#ttlSeconds * 2 / 3,
      clocks: this.#options,
      since,
      random: () => 0, // there is only one holder: nothing is to be spread
    });
  }
}

function sameLeadership(a: Leadership | undefined, b: Leadership | undefined): boolean {
  return a !== undefined && b !== undefined && a.holder === b.holder && a.term === b.term;
}

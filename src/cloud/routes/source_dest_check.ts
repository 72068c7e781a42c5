/** Switches off what drops packets with the addresses of pods. @module */
import { describeError, OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";
import type { SourceDestCheckSpec } from "../../state/mod.ts";
import { Backoff, delay } from "../../util/time.ts";
import { cleanText } from "../clean_text.ts";
import { CloudApiError } from "./cloud_error.ts";
import type { CloudRoutesConfig } from "./config.ts";
import type { Clock, Cloud, InterfaceApi, InterfaceInfo } from "./provider.ts";

/** An interface whose check is looked after, and who says that it is a host's. */
export interface NamedInterface {
  readonly networkInterfaceId: string;
  /**
   * Where a lease names the interface: the instance and the VPC that it must belong to as the
   * primary one. Absent for this host's own, which the metadata service names.
   */
  readonly instanceId?: string;
  readonly vpcId?: string;
}

export interface SourceDestCheckTableOptions extends Partial<Clock> {
  readonly api: InterfaceApi;
  /** No other interface is ever read or changed. Read anew each time. */
  readonly interfaces: () => readonly NamedInterface[];
  readonly log: Logger;
  /** Called after each look at some of them: a round over many may take minutes. */
  readonly onLook?: () => void;
  /** How long a check that was seen off counts as off without another call. @default {300_000} */
  readonly freshMs?: number;
}

/**
 * What the last look at an interface found. `unknown`: this host may not read it. `alone`: it is not what
 * a lease says, so it is none of ours.
 */
interface Seen {
  readonly check: "on" | "off" | "unknown" | "alone";
  readonly at: number;
  /** Why it is left alone. */
  readonly reason?: string;
}

/** What a call met that every other one would meet as well. */
interface Trouble {
  readonly thrown: unknown;
}

/** A conflicting operation on an interface ends within seconds. */
const TRIES = 8;
/**
 * So many refusals with no success between them are a policy without the right; fewer may be one
 * that speaks of single interfaces.
 */
const DENIALS = 3;
/** So many switches, then a look: meanwhile hosts that start together switch off their own. */
const SETS_PER_LOOK = 20;
/** Interfaces named in one line. */
const NAMED = 5;

/**
 * The source/destination checks of primary interfaces. While one is on, the cloud drops packets of
 * pods silently.
 */
export class SourceDestCheckTable implements Table<SourceDestCheckSpec> {
  readonly kind: Kind<SourceDestCheckSpec>;
  readonly #options: Required<SourceDestCheckTableOptions>;
  readonly #seen = new Map<string, Seen>();
  #denialSaid = false;

  constructor(options: SourceDestCheckTableOptions) {
    this.#options = {
      onLook: () => {},
      freshMs: 300_000,
      now: () => performance.now(),
      delay,
      ...options,
    };
    this.kind = {
      id: "source-dest-check",
      name: "source/destination check",
      key: (spec) => spec.networkInterfaceId,
      equal: (_, actual) => !actual.enabled,
      owns: (actual) => this.#seen.has(actual.networkInterfaceId),
      format: (spec) => `${spec.networkInterfaceId} ${spec.enabled ? "on" : "off"}`,
    };
  }

  /** Every check off, once for each interface however many leases name it. */
  allOff(): readonly SourceDestCheckSpec[] {
    return [...this.#named().keys()].map((networkInterfaceId) => ({
      networkInterfaceId,
      enabled: false,
    }));
  }

  /**
   * Whether the last look found the check of the interface off; `undefined` if there was none, or
   * nothing could be seen.
   */
  isOff(networkInterfaceId: string): boolean | undefined {
    const { check } = this.#seen.get(networkInterfaceId) ?? {};
    return check === undefined || check === "unknown" ? undefined : check === "off";
  }

  /**
   * One call for each page of interfaces, or none while earlier replies are fresh: only an operator
   * switches a check on again. A region without the feature counts as a check that is off; so does
   * one that may not be read, as most are off and the route serves then. An interface that is not
   * what a lease says is left alone: it is named in the log and counts as off, too.
   */
  async list(options: { signal: AbortSignal }): Promise<readonly SourceDestCheckSpec[]> {
    const named = this.#named();
    for (const id of this.#seen.keys()) if (!named.has(id)) this.#seen.delete(id);
    await this.#look(this.#due(named), named, options);
    return [...named.keys()].map((networkInterfaceId) => ({
      networkInterfaceId,
      enabled: this.#isOn(networkInterfaceId),
    }));
  }

  /** A removal is no change: nobody owns the absence of a switch. */
  async apply(
    changes: readonly Change<SourceDestCheckSpec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<SourceDestCheckSpec>[]> {
    options.signal.throwIfAborted();
    const ids = changes.flatMap((change) =>
      change.op === "remove" ? [] : [change.desired.networkInterfaceId]
    );
    const errors = new Map<string, Error>();
    let rest = [...new Set(ids)].filter((id) => this.#seen.has(id));
    while (rest.length > 0) {
      const some = rest.slice(0, SETS_PER_LOOK);
      rest = rest.slice(SETS_PER_LOOK);
      const trouble = await this.#disableAll(some, errors, options);
      await this.#awaitAll(some.filter((id) => !errors.has(id)), rest, errors, options);
      if (trouble !== undefined) {
        for (const id of rest) errors.set(id, this.#explain("switch off", [id], trouble.thrown));
        break;
      }
      // Meanwhile other hosts have seen to their own.
      rest = rest.filter((id) => this.#isOn(id));
    }
    return changes.flatMap((change) => {
      if (change.op === "remove") return [];
      const error = errors.get(change.desired.networkInterfaceId);
      return error === undefined ? [] : [{ change, error }];
    });
  }

  /** Who names each interface: several leases may name one, and only one of them rightly. */
  #named(): ReadonlyMap<string, readonly NamedInterface[]> {
    return Map.groupBy(this.#options.interfaces(), (each) => each.networkInterfaceId);
  }

  #isOn(networkInterfaceId: string): boolean {
    return this.#seen.get(networkInterfaceId)?.check === "on";
  }

  /**
   * The interfaces to read now. The room in the last call goes to those read longest ago, so that
   * hosts that joined one by one do not cost a call each for ever.
   */
  #due(named: ReadonlyMap<string, unknown>): readonly string[] {
    const { api: { perCall }, now, freshMs } = this.#options;
    const time = now();
    const staleAt = (id: string) => {
      const seen = this.#seen.get(id);
      return seen === undefined || seen.check === "on" ? time : seen.at + freshMs;
    };
    const byNeed = [...named.keys()].sort((a, b) => staleAt(a) - staleAt(b));
    const stale = byNeed.filter((id) => staleAt(id) <= time).length;
    return byNeed.slice(0, Math.ceil(stale / perCall) * perCall);
  }

  /** Reads interfaces and keeps what it saw; what one call told stays when another one fails. */
  async #look(
    ids: readonly string[],
    named: ReadonlyMap<string, readonly NamedInterface[]>,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const { api, now } = this.#options;
    const news: string[] = [];
    const see = (id: string, check: Seen["check"], reason?: string) => {
      if (reason !== undefined && named.get(id)?.some((each) => each.instanceId === undefined)) {
        throw new Error(`Cannot read the source/destination check: ${id} ${reason}`);
      }
      if (reason !== undefined && this.#seen.get(id)?.reason !== reason) {
        news.push(`${cleanText(id, 80)} ${cleanText(reason)}`);
      }
      this.#seen.set(id, { check, at: now(), ...(reason === undefined ? {} : { reason }) });
    };
    // One malformed id in a lease must not spoil the call for the others.
    for (const id of ids) if (!api.isId(id)) see(id, "alone", "is no id of an interface");
    const readable = ids.filter((id) => api.isId(id));
    for (let at = 0; at < readable.length; at += api.perCall) {
      const some = readable.slice(at, at + api.perCall);
      const found = await this.#describe(some, options);
      for (const id of some) {
        const interfaceInfo = found?.get(id);
        const fault = found && faultOf(interfaceInfo, named.get(id) ?? []);
        if (found === undefined) see(id, "unknown");
        else if (fault !== undefined) see(id, "alone", fault);
        else see(id, interfaceInfo?.sourceDestCheck === true ? "on" : "off");
      }
    }
    this.#tellLeftAlone(news);
    this.#options.onLook();
  }

  /** The interfaces that exist of `ids`, by id; `undefined` if they may not be read. */
  async #describe(
    ids: readonly string[],
    options: { signal: AbortSignal },
  ): Promise<ReadonlyMap<string, InterfaceInfo> | undefined> {
    const { api, log } = this.#options;
    try {
      const found = await api.read(ids, options);
      return new Map(found.map((each) => [each.id, each]));
    } catch (error) {
      options.signal.throwIfAborted();
      // A host without key or role may read as little as one that is denied it.
      if (!isDenied(error) && !(error instanceof OperatorError)) throw error;
      if (!this.#denialSaid) {
        log.warn(`${this.#explain("read", ids, error).message}. Until then it is taken to be off`);
      }
      this.#denialSaid = true;
      return undefined;
    }
  }

  #tellLeftAlone(news: readonly string[]): void {
    if (news.length === 0) return;
    const more = news.length - NAMED;
    this.#options.log.warn(
      "Leaves source/destination checks alone whose interfaces are not what leases say: " +
        news.slice(0, NAMED).join("; ") + (more > 0 ? `; and ${more} more` : ""),
    );
  }

  /**
   * Asks for each switch of `ids`, and again for those that are held up; why some were refused is
   * in `errors` then. Returns trouble that every other interface would have as well.
   */
  async #disableAll(
    ids: readonly string[],
    errors: Map<string, Error>,
    options: { signal: AbortSignal },
  ): Promise<Trouble | undefined> {
    const backoff = new Backoff({ initialMs: 1_000, maxMs: 15_000 });
    for (let tries = 1, waiting = ids;; tries++) {
      const { held, trouble } = await this.#disableSome(waiting, errors, options);
      if (waiting.some((id) => !errors.has(id))) {
        tries = 0;
        backoff.reset();
      }
      if (held.length === 0 || tries === TRIES) return trouble;
      await this.#options.delay(backoff.next(), options);
      waiting = held;
    }
  }

  /**
   * One try for each of `ids`, with its outcome in `errors`; returns those worth another one. What
   * holds up one interface does not hold up the others, but trouble of the service does.
   */
  async #disableSome(
    ids: readonly string[],
    errors: Map<string, Error>,
    options: { signal: AbortSignal },
  ): Promise<{ readonly held: readonly string[]; readonly trouble?: Trouble }> {
    const held: string[] = [];
    let denials = 0;
    for (const [at, id] of ids.entries()) {
      try {
        await this.#options.api.disableCheck(id, options);
        errors.delete(id);
        denials = 0;
      } catch (thrown) {
        options.signal.throwIfAborted();
        const kind = troubleOf(thrown);
        denials = kind === "denied" ? denials + 1 : 0;
        const forAll = kind === "service" || denials === DENIALS;
        const failed = forAll ? ids.slice(at) : [id];
        for (const each of failed) errors.set(each, this.#explain("switch off", [each], thrown));
        if (kind === "service" || kind === "conflict") held.push(...failed);
        if (forAll) return { held, trouble: { thrown } };
      }
    }
    return { held };
  }

  /**
   * Reads back: an interface may still be in the hands of another operation. The room in the call
   * goes to `others`.
   */
  async #awaitAll(
    ids: readonly string[],
    others: readonly string[],
    errors: Map<string, Error>,
    options: { signal: AbortSignal },
  ): Promise<void> {
    const backoff = new Backoff({ initialMs: 1_000, maxMs: 15_000 });
    let open = ids;
    for (let tries = 1; open.length > 0; tries++) {
      const looked = [...open, ...others].slice(0, this.#options.api.perCall);
      try {
        await this.#look(looked, this.#named(), options);
      } catch (error) {
        options.signal.throwIfAborted();
        for (const id of open) errors.set(id, this.#explain("read", [id], error));
        return;
      }
      open = open.filter((id) => this.#isOn(id));
      if (tries === TRIES) break;
      if (open.length > 0) await this.#options.delay(backoff.next(), options);
    }
    for (const id of open) {
      const message = `Cannot switch the source/destination check of ${id}: it stays as it was`;
      errors.set(id, new Error(message));
    }
  }

  #explain(verb: string, ids: readonly string[], error: unknown): Error {
    if (!(error instanceof Error)) return new Error(describeError(error));
    const { api } = this.#options;
    let reason = error.message;
    if (error instanceof CloudApiError) {
      if (!isDenied(error)) return error;
      reason = api.denial(error.action);
    } else if (!(error instanceof OperatorError)) return error;
    const which = ids.length === 1 ? ids[0] : `${ids.length} interfaces`;
    return new OperatorError(
      `Cannot ${verb} the source/destination check of ${which}: ${reason}. While the check is on, ` +
        `packets of pods are dropped. ${api.remedy(ids[0]!)} and set "SourceDestCheck": "ignore" ` +
        "in the backend config",
      { cause: error },
    );
  }
}

function isDenied(error: unknown): boolean {
  return error instanceof CloudApiError && error.reaction.do === "denied";
}

/** Why an interface is not the primary one of any host that names it. */
function faultOf(
  found: InterfaceInfo | undefined,
  names: readonly NamedInterface[],
): string | undefined {
  if (found === undefined) return "does not exist";
  const faults = names.map(({ instanceId, vpcId }) => {
    if (instanceId === undefined) return undefined;
    if (found.instanceId !== instanceId) {
      return `belongs to ${found.instanceId || "no instance"} and not to ${instanceId}`;
    }
    if (vpcId !== undefined && found.vpcId !== vpcId) return `is not in ${vpcId}`;
    return found.isPrimary ? undefined : `is not the primary interface of ${instanceId}`;
  });
  return faults.includes(undefined) ? undefined : faults[0];
}

/** What stands in the way: something with this interface, or with every call. */
function troubleOf(thrown: unknown): "denied" | "conflict" | "service" | "refused" {
  if (isDenied(thrown)) return "denied";
  if (!(thrown instanceof CloudApiError) || thrown.reaction.do !== "retry") return "refused";
  const { cause } = thrown.reaction;
  return cause === "turn" || cause === "changing" || cause === "instance" ? "conflict" : "service";
}

/** Checks are looked at every so many resyncs: 5 min by default. */
const FRESH_RESYNCS = 5;

/**
 * The checks of `interfaces`, which are read anew each time; none of them costs no call. `undefined`
 * where the cloud has no such checks, or they are left to the operator, so that this host may lack
 * the right to read them, too.
 */
export function makeChecks(
  { interfaces: api, clock }: Cloud,
  { sourceDestCheck, resyncSeconds }: CloudRoutesConfig,
  options: Pick<SourceDestCheckTableOptions, "interfaces" | "onLook" | "log">,
): SourceDestCheckTable | undefined {
  if (api === undefined || sourceDestCheck === "ignore") return undefined;
  const freshMs = resyncSeconds * FRESH_RESYNCS * 1_000;
  return new SourceDestCheckTable({ ...options, ...clock, api, freshMs });
}

import { describeError, OperatorError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { Change, FailedChange, Kind, Table } from "../../reconcile/table.ts";
import type { SourceDestCheckSpec } from "../../state/mod.ts";
import { Backoff, delay } from "../../util/time.ts";
import type { EcsClient } from "./client.ts";
import { AliApiError } from "./errors.ts";

/** Options of {@linkcode SourceDestCheckTable}. */
export interface SourceDestCheckTableOptions {
  readonly ecs: EcsClient;
  /** The primary interface of this instance; no other is ever read or changed. */
  readonly networkInterfaceId: string;
  readonly log: Logger;
  /** How long a check that was seen off counts as off without another call. @default {300_000} */
  readonly freshMs?: number;
  /** Milliseconds on a clock that only goes forward. @default {performance.now} */
  readonly now?: () => number;
  /** @default {delay} */
  readonly delay?: typeof delay;
}

/** A conflicting operation on the interface ends within seconds. */
const TRIES = 8;

/**
 * The source/destination check of this instance's primary interface. While it is on, the VPC drops
 * packets of pods without a word. It is on by default for accounts that are new to such routing.
 * See https://www.alibabacloud.com/help/en/ecs/user-guide/source-and-destination-check
 */
export class SourceDestCheckTable implements Table<SourceDestCheckSpec> {
  readonly kind: Kind<SourceDestCheckSpec>;
  readonly #options: Required<SourceDestCheckTableOptions>;
  readonly #id: string;
  #seenOffAt = -Infinity;
  #denialSaid = false;

  constructor(options: SourceDestCheckTableOptions) {
    this.#options = { freshMs: 300_000, now: () => performance.now(), delay, ...options };
    this.#id = options.networkInterfaceId;
    this.kind = {
      name: "source/destination check",
      key: (spec) => spec.networkInterfaceId,
      equal: (desired, actual) => desired.enabled === actual.enabled,
      owns: (actual) => actual.networkInterfaceId === this.#id,
      format: (spec) => `${spec.networkInterfaceId} ${spec.enabled ? "on" : "off"}`,
    };
  }

  /**
   * One call, or none while an earlier answer is fresh: only a person switches the check on again,
   * and each round of every host would ask. A region without the feature counts as a check that is
   * off; so does one that may not be read, as most are off and the route serves then.
   */
  async list(options: { signal: AbortSignal }): Promise<readonly SourceDestCheckSpec[]> {
    const { now, freshMs } = this.#options;
    const enabled = now() - this.#seenOffAt >= freshMs && await this.#read(options);
    return [{ networkInterfaceId: this.#id, enabled }];
  }

  /** A removal is no change: nobody owns the absence of a switch. */
  async apply(
    changes: readonly Change<SourceDestCheckSpec>[],
    options: { signal: AbortSignal },
  ): Promise<readonly FailedChange<SourceDestCheckSpec>[]> {
    options.signal.throwIfAborted();
    const failed: FailedChange<SourceDestCheckSpec>[] = [];
    for (const change of changes) {
      if (change.op === "remove" || change.desired.networkInterfaceId !== this.#id) continue;
      try {
        await this.#set(change.desired.enabled, options);
      } catch (thrown) {
        options.signal.throwIfAborted();
        failed.push({
          change,
          error: thrown instanceof Error ? thrown : new Error(String(thrown)),
        });
      }
    }
    return failed;
  }

  async #set(enabled: boolean, options: { signal: AbortSignal }): Promise<void> {
    const backoff = new Backoff({ initialMs: 1_000, maxMs: 15_000 });
    for (let tries = 1;; tries++) {
      try {
        await this.#options.ecs.setSourceDestCheck(this.#id, enabled, options);
        break;
      } catch (error) {
        const retriable = error instanceof AliApiError && error.reaction.do === "retry";
        if (!retriable || tries === TRIES) {
          options.signal.throwIfAborted();
          throw this.#explain("switch off", error);
        }
        await this.#options.delay(backoff.next(), options);
      }
    }
    // Read back: the interface may still be in the hands of another operation.
    for (let tries = 1; tries <= TRIES; tries++) {
      if (await this.#read(options) === enabled) return;
      await this.#options.delay(backoff.next(), options);
    }
    throw new Error(
      `Cannot switch the source/destination check of ${this.#id}: it stays as it was`,
    );
  }

  /** Whether the check is on, as far as it can be known. */
  async #read(options: { signal: AbortSignal }): Promise<boolean> {
    const { ecs, log, now } = this.#options;
    let enabled = false;
    try {
      const found = await ecs.describeNetworkInterface(this.#id, options);
      if (found === undefined) {
        throw new Error(
          `Cannot read the source/destination check: there is no interface ${this.#id}`,
        );
      }
      enabled = found.sourceDestCheck ?? false;
    } catch (error) {
      options.signal.throwIfAborted();
      if (!(error instanceof AliApiError) || !error.denied) throw error;
      if (!this.#denialSaid) {
        log.warn(
          `${describeError(this.#explain("read", error))}. Until then it is taken to be off`,
        );
      }
      this.#denialSaid = true;
    }
    this.#seenOffAt = enabled ? -Infinity : now();
    return enabled;
  }

  /** A denial tells exactly what to do instead. */
  #explain(verb: string, error: unknown): unknown {
    if (!(error instanceof AliApiError) || !error.denied) return error;
    return new OperatorError(
      `Cannot ${verb} the source/destination check of ${this.#id}: RAM denies ${error.action}. ` +
        "While the check is on, packets of pods are dropped. Either allow " +
        "ecs:DescribeNetworkInterfaces and ecs:ModifyNetworkInterfaceAttribute in the RAM policy; " +
        `or switch it off once in the console (ECS > Elastic Network Interfaces > ${this.#id} > ` +
        'Source/Destination Check) and set "SourceDestCheck": "ignore" in the backend config',
      { cause: error },
    );
  }
}

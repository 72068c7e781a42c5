import { OperatorError } from "../../errors.ts";
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
  readonly #ecs: EcsClient;
  readonly #id: string;
  readonly #delay: typeof delay;

  constructor(options: SourceDestCheckTableOptions) {
    this.#ecs = options.ecs;
    this.#id = options.networkInterfaceId;
    this.#delay = options.delay ?? delay;
    this.kind = {
      name: "source/destination check",
      key: (spec) => spec.networkInterfaceId,
      equal: (desired, actual) => desired.enabled === actual.enabled,
      owns: (actual) => actual.networkInterfaceId === this.#id,
      format: (spec) => `${spec.networkInterfaceId} ${spec.enabled ? "on" : "off"}`,
    };
  }

  /** One call. A region without the feature counts as a check that is off. */
  async list(options: { signal: AbortSignal }): Promise<readonly SourceDestCheckSpec[]> {
    let found;
    try {
      found = await this.#ecs.describeNetworkInterface(this.#id, options);
    } catch (error) {
      throw this.#explain("read", error, options);
    }
    if (found === undefined) {
      throw new Error(
        `Cannot read the source/destination check: there is no interface ${this.#id}`,
      );
    }
    return [{ networkInterfaceId: found.id, enabled: found.sourceDestCheck ?? false }];
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
        await this.#ecs.setSourceDestCheck(this.#id, enabled, options);
        break;
      } catch (error) {
        const retriable = error instanceof AliApiError && error.reaction.do === "retry";
        if (!retriable || tries === TRIES) {
          throw this.#explain("switch off", error, options);
        }
        await this.#delay(backoff.next(), options);
      }
    }
    // Read back: the interface may still be in the hands of another operation.
    for (let tries = 1; tries <= TRIES; tries++) {
      const [actual] = await this.list(options);
      if (actual?.enabled === enabled) return;
      await this.#delay(backoff.next(), options);
    }
    throw new Error(
      `Cannot switch the source/destination check of ${this.#id}: it stays as it was`,
    );
  }

  /** A denial tells exactly what to do instead. */
  #explain(verb: string, error: unknown, options: { signal: AbortSignal }): unknown {
    options.signal.throwIfAborted();
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

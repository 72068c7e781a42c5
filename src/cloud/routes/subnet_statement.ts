/**
 * A host's own statement that it uses another subnet now. The leader asks instances that entries
 * without a lease lead to; only a daemon that runs now knows the question, so that no backup of the
 * store and no forgotten lease can pass for a statement:
 *
 * ```text
 *   <prefix>/<cloud>/state/summary … "ask": "4be1…", "orphans": [{ "instance": "a", … }]
 *   <prefix>/<cloud>/statements/<instance> {"ask":"4be1…","subnet":"10.24.9.0/24"}
 * ```
 *
 * @module
 */
import * as v from "valibot";
import type { ClusterSummary } from "./cluster_state.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import type { CallOptions } from "../../store/errors.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { type ClusterStore, SharedDocument } from "./cluster_store.ts";

/** A store that did not take a statement is tried again after this. */
const AGAIN_MS = 30_000;
/** Long enough for the leader to read it. */
const TTL_SECONDS = 3_600;
/** While it is asked for, it is given again before it ends. */
const FRESH_MS = TTL_SECONDS * 1_000 / 2;

const StatementText = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({ ask: v.string(), subnet: v.string() }),
);

function statements(store: ClusterStore) {
  return store.documents("statements");
}

export interface SubnetStatementsOptions {
  readonly store: ClusterStore;
  readonly instanceId: string;
  /** The subnet in use. */
  readonly subnet: () => Prefix | undefined;
  readonly summary: () => ClusterSummary | undefined;
  readonly log: Logger;
}

/** What the summary asks an instance with this subnet, if it asks it anything. */
export function questionFor(
  summary: ClusterSummary | undefined,
  instanceId: string,
  subnet: Prefix | undefined,
): string | undefined {
  const { ask, orphans = [] } = summary ?? {};
  if (ask === undefined || subnet === undefined) return undefined;
  const isAsked = orphans.some((orphan) =>
    orphan.instanceId === instanceId && !orphan.destination.overlaps(subnet)
  );
  return isAsked ? ask : undefined;
}

/** States this host's subnet when the leader asks for it. */
export class SubnetStatements {
  readonly #options: SubnetStatementsOptions;
  readonly #wakeup = new Wakeup();

  constructor(options: SubnetStatementsOptions) {
    this.#options = options;
  }

  summaryChanged(): void {
    this.#wakeup.wake();
  }

  async run({ signal }: CallOptions): Promise<never> {
    const { instanceId, log } = this.#options;
    let stated = "";
    let statedAt = -Infinity;
    for (;;) {
      const subnet = this.#options.subnet();
      const ask = questionFor(this.#options.summary(), instanceId, subnet);
      const news = `${ask} ${subnet}`;
      const isAsked = ask !== undefined && subnet !== undefined;
      let againMs = isAsked
        ? news === stated ? Math.max(0, statedAt + FRESH_MS - performance.now()) : 0
        : Infinity;
      if (isAsked && againMs === 0) {
        try {
          await this.#state(JSON.stringify({ ask, subnet: String(subnet) }), { signal });
          stated = news;
          statedAt = performance.now();
          againMs = FRESH_MS;
        } catch (error) {
          signal.throwIfAborted();
          log.debug("Cannot state the subnet in use", { error: describeError(error) });
          againMs = AGAIN_MS;
        }
      }
      await this.#wakeup.sleep(againMs, { signal });
    }
  }

  async #state(value: string, options: CallOptions): Promise<void> {
    const { store, instanceId } = this.#options;
    const document = new SharedDocument(statements(store), instanceId);
    await document.read(options);
    if (await document.write(value, { ...options, lifetimeSeconds: TTL_SECONDS })) return;
    throw new Error("the statement was changed at the same time");
  }
}

/** The subnets that instances have stated for this question. @throws {StoreError} */
export async function readStatements(
  store: ClusterStore,
  ask: string,
  options: CallOptions,
): Promise<ReadonlyMap<string, Prefix>> {
  const stated = new Map<string, Prefix>();
  for (const { key, value } of await statements(store).list(options)) {
    const statement = v.safeParse(StatementText, value);
    if (!statement.success || statement.output.ask !== ask) continue;
    const subnet = Prefix.tryParse(statement.output.subnet);
    if (subnet !== undefined) stated.set(key, subnet);
  }
  return stated;
}

/**
 * Keeps a backend's remote Tables in order, such as a cloud's route entries.
 *
 * @module
 */
import type { LeaseMap } from "../lease/lease_map.ts";
import type { Logger } from "../log.ts";
import type { AnyStage, Reconciler } from "../reconcile/reconciler.ts";
import type { OwnLease } from "../store/lease_store.ts";
import type { RemoteTables } from "./runtime.ts";
import type { Planner } from "./planner.ts";
import type { Condition } from "../status/readiness.ts";
import { sameItems } from "../util/cell.ts";
import { watchedReconciler } from "./watched_reconciler.ts";

export interface RemoteLoopOptions {
  readonly cloud: RemoteTables;
  readonly planner: Planner;
  readonly leases: LeaseMap;
  readonly keeper: Pick<OwnLease, "lease" | "state">;
  /** Holds while the Tables are in order and this host is reached. */
  readonly condition: Condition;
  readonly log: Logger;
  /** Called when something stands in the place of the own subnet. */
  readonly onBlocked?: (reason: string) => void;
}

/**
 * Keeps what is outside of this host as it should be. It is shared: it belongs to the lease's
 * holder. And each look at it costs a call, so that only what concerns it is worth a round between
 * resyncs.
 */
export class RemoteLoop {
  readonly reconciler: Reconciler;
  readonly #options: RemoteLoopOptions;
  readonly #stages: readonly AnyStage[];
  /** What each stage desired when it was looked at last. */
  #wanted: readonly unknown[] | undefined;

  constructor(options: RemoteLoopOptions) {
    const { cloud, planner, leases, keeper, condition, log } = options;
    this.#options = options;
    this.#stages = cloud.stages(() => this.#isLost ? undefined : planner.latest);
    this.reconciler = watchedReconciler({
      condition,
      log,
      stages: this.#stages,
      resyncMs: cloud.resyncMs,
      prepare: async ({ signal }) => {
        if (!leases.complete || this.#isLost) return;
        await cloud.gather?.(keeper.lease.value, planner.peers, { signal });
        await planner.prepare({ signal });
      },
      hold: () => cloud.waitingFor(),
    });
    keeper.state.subscribe((state, before) => {
      if (!state.held) cloud.disown();
      else if (!before.held) this.reconciler.desiredChanged();
    });
    cloud.changes.subscribe(() => {
      this.reconciler.desiredChanged();
      this.#lookForBlocker();
    });
  }

  /** To be called after any lease has changed. */
  leasesChanged(): void {
    this.#options.cloud.leasesChanged();
  }

  /** To be called when the planner's desired state may be another one. */
  planChanged(): void {
    const wanted = this.#options.planner.desired && this.#stages.map((stage) => stage.desired());
    const isSame = wanted !== undefined && this.#wanted !== undefined &&
      this.#stages.every(({ table: { kind } }, at) => {
        const [before, now] = [this.#wanted![at], wanted[at]];
        if (!Array.isArray(before) || !Array.isArray(now)) return before === now;
        return sameItems(before, now, (a, b) => kind.key(a) === kind.key(b) && kind.equal(a, b));
      });
    if (!isSame) this.reconciler.desiredChanged();
    this.#wanted = wanted;
  }

  #lookForBlocker(): void {
    const { cloud, keeper, onBlocked } = this.#options;
    const blocker = cloud.blockedBy?.(keeper.lease.value);
    if (blocker !== undefined) onBlocked?.(blocker);
  }

  /**
   * Whether the own lease is lost. It may be another host's, also where it has just expired: who is
   * cut off from the store for so long does not hear of that, and must not take its route.
   */
  get #isLost(): boolean {
    return !this.#options.keeper.state.value.held;
  }
}

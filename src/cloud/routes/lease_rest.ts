/** Collects hosts that come together, so that one batch serves them. @module */
import type { LeaseMap } from "../../lease/lease_map.ts";
import { abortable } from "../../util/abortable.ts";
import { delay } from "../../util/time.ts";
import type { CallOptions } from "./provider.ts";

/** New leases are waited for this long, unless they fill a batch. */
const QUIET_MS = 1_000;
const MAX_QUIET_MS = 8_000;

/**
 * Waits until leases have come to rest, so that hosts that come together share a batch. Before the
 * leases are known, every entry would look like an orphan.
 */
export class LeaseRest {
  readonly #leases: LeaseMap;
  readonly #known = Promise.withResolvers<void>();
  #changedAt = -Infinity;

  constructor(leases: LeaseMap) {
    this.#leases = leases;
  }

  /** To be called when leases have changed; `concerns` says whether the claims of hosts have. */
  changed(concerns: boolean): void {
    if (this.#leases.complete) this.#known.resolve();
    if (concerns) this.#changedAt = performance.now();
  }

  /** Resolves to `false` as soon as `isEnough`, although there may be more to come. */
  async reached({ signal }: CallOptions, isEnough = () => false): Promise<boolean> {
    await abortable(this.#known.promise, { signal });
    const begin = performance.now();
    for (;;) {
      const now = performance.now();
      const restMs = Math.min(this.#changedAt + QUIET_MS, begin + MAX_QUIET_MS) - now;
      if (restMs <= 0) return true;
      // Not at once, lest rounds follow each other as fast as leases change.
      if (now - begin >= QUIET_MS / 2 && isEnough()) return false;
      await delay(Math.min(restMs, QUIET_MS / 2), { signal });
    }
  }
}

/**
 * Leads the cluster in the terms that this host wins: writes the route entries of all hosts.
 *
 * ```text
 *   leases ──► claims ─┐
 *   tables (list) ─────┼─► planCluster() ─┬─► desired entries ─► Reconciler ─► batches of writes
 *   published before ──┘                  └─► state ─► <prefix>/<cloud>/…, read by all hosts
 * ```
 *
 * @module
 */
import { describeError, OperatorError } from "../../errors.ts";
import { StoreError } from "../../store/errors.ts";
import type { Election, Term } from "../../store/election.ts";
import { childSignal } from "../../util/child_signal.ts";
import type { LeadingStatus } from "../../status/model.ts";
import { Outage } from "../../status/problems.ts";
import { Wakeup } from "../../util/wakeup.ts";
import { reactionTo } from "./cloud_error.ts";
import { ensureClusterId, OtherClusterError } from "./cluster_identity.ts";
import { LeaderTerm, type LeaderTermOptions, PUBLISH_EVERY_MS } from "./leader_term.ts";
import { OvertakenError } from "./publication.ts";

export interface ClusterLeaderOptions extends LeaderTermOptions {
  readonly election: Election;
}

/**
 * Long enough for any other candidate to be elected. No longer, as there must be a leader even when
 * none fares better: otherwise every host would write its own route, and call the cloud for it.
 */
const HELPLESS_PAUSE_MS = 30_000;
/** The store, without which nobody could write, did not tell what was published before. */
const STORE_PAUSE_MS = 5_000;
/** One that may not write, or is told that it must not, tries again only now and then. */
const DENIED_PAUSE_MS = 15 * 60_000;

export class ClusterLeader {
  readonly #options: ClusterLeaderOptions;
  readonly #elected = new Wakeup();
  readonly #trouble: Outage;
  #current: LeaderTerm | undefined;

  constructor(options: ClusterLeaderOptions) {
    this.#options = options;
    this.#trouble = new Outage(options.log, {
      code: "leader-failed",
      object: "cluster",
      failed: "Cannot act as the route leader",
      andThen: "; leaving it to another host",
      recovered: "Can act as the route leader again",
    });
  }

  electionChanged(): void {
    this.#elected.wake();
  }

  leasesChanged(): void {
    this.#current?.leasesChanged();
  }

  /** For the status page; `undefined` while another host leads. */
  status(): LeadingStatus | undefined {
    return this.#current?.status();
  }

  /** Leads in each term that is won, until `signal` aborts. */
  async run({ signal }: { signal: AbortSignal }): Promise<void> {
    const { election } = this.#options;
    while (!signal.aborted) {
      const { term } = election;
      if (term === undefined || term.signal.aborted) {
        await this.#elected.sleep(Infinity, { signal });
        continue;
      }
      const pauseMs = await this.#lead(term, signal);
      if (pauseMs !== undefined) await this.#resign(pauseMs, signal);
    }
  }

  /** Without the store, the term runs out. */
  async #resign(pauseMs: number, signal: AbortSignal): Promise<void> {
    const { election, log } = this.#options;
    try {
      await election.resign({ signal, pauseMs });
    } catch (error) {
      signal.throwIfAborted();
      log.debug("Cannot give the lead up", {
        error: describeError(error),
      });
    }
  }

  /** Leads for a term; returns for how long to stand back, if it was not the term that ended. */
  async #lead(term: Term, signal: AbortSignal): Promise<number | undefined> {
    using scope = childSignal(AbortSignal.any([signal, term.signal]));
    const { cloud, store, log } = this.#options;
    try {
      const access = await cloud.connect({ signal: scope.signal });
      const clusterId = await ensureClusterId(store, { signal: scope.signal });
      this.#current = new LeaderTerm(this.#options, { access, term, clusterId });
      log.info("This host writes the routes of the cluster", { term: term.id });
      return await this.#current.run(scope.signal, () => this.#trouble.working());
    } catch (error) {
      signal.throwIfAborted();
      if (term.signal.aborted) {
        log.info("Another host may write the routes of the cluster now", {
          reason: describeError(term.signal.reason),
        });
        return undefined;
      }
      if (error instanceof OvertakenError) {
        log.info("Another host writes the routes of the cluster now");
        return PUBLISH_EVERY_MS;
      }
      if (error instanceof OtherClusterError) {
        log.warn(`Starting over as the route leader: ${error.message}`);
        return PUBLISH_EVERY_MS;
      }
      this.#trouble.failing(error);
      if (error instanceof StoreError) return STORE_PAUSE_MS;
      return error instanceof OperatorError || reactionTo(error) === "denied"
        ? DENIED_PAUSE_MS
        : HELPLESS_PAUSE_MS;
    } finally {
      this.#current = undefined;
    }
  }
}

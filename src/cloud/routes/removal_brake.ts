/**
 * How many route entries may be taken from their instances without an operator's approval. Removals
 * are kept in the store for an hour, so that neither a change of leader nor a clock loses count:
 * `removals/<subnet>.<instance>` for each, and `approval/removals` with the token that the operator
 * was shown.
 *
 * @module
 */
import type { Brake } from "./cluster_state.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { Documents } from "../../store/documents.ts";
import type { ClusterStore } from "./cluster_store.ts";

/** A subnet that is to be taken away from an instance, in whichever tables. */
export interface Taking {
  readonly destination: string;
  readonly instanceId: string;
}

const HOUR_SECONDS = 3_600;
/** So many go within an hour, or a tenth of all, if that is less; but two do in any cluster. */
const MOST_AN_HOUR = 5;
const LEAST_AN_HOUR = 2;
const APPROVAL_KEY = "removals";
/** Lists of which an operator may still write the token. */
const SHOWN_LISTS = 20;
/** Approved by an operator, so that it does not count. */
const ALLOWED = "allowed";
const COUNTED = "counted";

/** How many of so many entries may go within an hour. */
function removalsAnHour(entries: number): number {
  return Math.max(LEAST_AN_HOUR, Math.min(MOST_AN_HOUR, Math.floor(entries / 10)));
}

/** What an operator runs to let go what is held. */
export function approvalCommand(store: ClusterStore, { token }: Brake): string {
  return store.documents("approval").writeCommand(APPROVAL_KEY, token);
}

/** Lets few removals go, and more only with an operator's approval. */
export class RemovalBrake {
  readonly #removals: Documents;
  readonly #approval: Documents;
  readonly #shown = new Map<string, readonly string[]>();

  constructor(store: ClusterStore) {
    this.#removals = store.documents("removals");
    this.#approval = store.documents("approval");
  }

  seed(brake: Brake | undefined): void {
    if (brake !== undefined) this.#remember(brake);
  }

  /**
   * Which of these may go now, and what holds the others: all wait where they are too many
   * together. What may go counts from now on, whether or not it goes.
   *
   * @throws {StoreError}
   */
  async release(
    takings: readonly Taking[],
    entries: number,
    options: CallOptions,
  ): Promise<{ readonly released: ReadonlySet<string>; readonly brake?: Brake }> {
    const taken = await this.#removals.list(options);
    const known = new Set(taken.map(({ key }) => key));
    const counted = taken.filter(({ value }) => value !== ALLOWED).length;
    const released = new Set(takings.map(keyOfTaking).filter((key) => known.has(key)));
    let waiting = takings.filter((each) => !known.has(keyOfTaking(each)));
    if (waiting.length === 0) return { released };
    const room = removalsAnHour(entries) - counted;
    if (waiting.length <= room) {
      await this.#take(waiting, COUNTED, released, options);
      return { released };
    }
    const approval = await this.#approval.get(APPROVAL_KEY, options);
    const approved = new Set(this.#shown.get(approval?.value.trim() ?? ""));
    const allowed = waiting.filter((each) => approved.has(formatTaking(each)));
    if (allowed.length > 0) {
      await this.#take(allowed, ALLOWED, released, options);
      waiting = waiting.filter((each) => !allowed.includes(each));
    }
    // An approval holds once.
    if (approval !== undefined && approved.size > 0) await this.#approval.remove(approval, options);
    if (waiting.length === 0) return { released };
    const routes = waiting.map(formatTaking).sort();
    const brake = { token: await tokenOf(routes), routes };
    this.#remember(brake);
    return { released, brake };
  }

  async #take(
    takings: readonly Taking[],
    value: string,
    released: Set<string>,
    options: CallOptions,
  ): Promise<void> {
    for (const taking of takings) {
      const key = keyOfTaking(taking);
      // One that is there already was another leader's, at the turn of two terms.
      await this.#removals.create(key, value, { ...options, lifetimeSeconds: HOUR_SECONDS });
      released.add(key);
    }
  }

  #remember({ token, routes }: Brake): void {
    this.#shown.delete(token);
    this.#shown.set(token, routes);
    const [oldest] = this.#shown.keys();
    if (this.#shown.size > SHOWN_LISTS) this.#shown.delete(oldest!);
  }
}

/** The key of a removal, of characters that every store takes. */
export function keyOfTaking({ destination, instanceId }: Taking): string {
  return `${destination.replace("/", "-")}.${instanceId}`;
}

function formatTaking({ destination, instanceId }: Taking): string {
  return `${destination} via ${instanceId}`;
}

async function tokenOf(routes: readonly string[]): Promise<string> {
  const bytes = new TextEncoder().encode(routes.join("\n"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 16);
}

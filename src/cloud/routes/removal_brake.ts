/**
 * How many route entries may be taken away from their instances without a person's word. What was
 * taken is kept in the store, with a life of an hour, so that no change of the writer and no clock
 * loses count:
 *
 * ```text
 *   <prefix>/ali-vpc/removals/<subnet>.<instance>   taken within the hour
 *   <prefix>/ali-vpc/approval/removals              the word of a person: the token that was shown
 * ```
 *
 * @module
 */
import type { Brake } from "./cluster_state.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { Entry, KeySpace } from "../../store/etcd/key_space.ts";
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
/** Lists of which a person may still write the token. */
const SHOWN_LISTS = 20;
/** What a removal says that a person has allowed, which does not count. */
const ALLOWED = "allowed";
const COUNTED = "counted";

/** How many of so many entries may go within an hour. */
function removalsAnHour(entries: number): number {
  return Math.max(LEAST_AN_HOUR, Math.min(MOST_AN_HOUR, Math.floor(entries / 10)));
}

/** The key that an operator writes the token to, below the cluster's folder. */
export const APPROVAL_PATH = `approval/${APPROVAL_KEY}`;

/** Lets few removals go, and more only with a person's word. */
export class RemovalBrake {
  readonly #removals: KeySpace;
  readonly #approval: KeySpace;
  readonly #shown = new Map<string, readonly string[]>();

  constructor(store: ClusterStore) {
    this.#removals = store.space("removals");
    this.#approval = store.space("approval");
  }

  /** Takes over what a former writer has shown. */
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
    if (approval !== undefined && approved.size > 0) await this.#spend(approval, options);
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
      // One that is there already was another writer's, at the turn of two terms.
      await this.#removals.create(key, value, HOUR_SECONDS, options);
      released.add(key);
    }
  }

  /** A word is good once. */
  async #spend({ key, revision }: Entry, options: CallOptions): Promise<void> {
    await this.#approval.remove(key, revision, options);
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

/** Stands for exactly these routes, in order. */
async function tokenOf(routes: readonly string[]): Promise<string> {
  const bytes = new TextEncoder().encode(routes.join("\n"));
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex().slice(0, 16);
}

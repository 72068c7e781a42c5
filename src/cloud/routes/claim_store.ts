/** Keeps the book of claims in the store. @module */
import {
  type BookedClaim,
  type BookNews,
  type BookPage,
  encodeBookPage,
  pageOf,
  parseBookPage,
  turnPage,
} from "./claim_book.ts";
import type { ClusterClaim } from "./cluster_plan.ts";
import { HOST_SHARDS } from "./cluster_state.ts";
import type { ChosenTables } from "./provider.ts";
import type { RouteView } from "./route_view.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { CallOptions } from "../../store/errors.ts";
import { type ClusterStore, parseOrWarn, SharedDocument } from "./cluster_store.ts";

/** Another leader may write the same page for a moment, at the turn of two terms. */
const TRIES = 3;

interface Page {
  readonly document: SharedDocument;
  readonly number: number;
  claims: BookPage;
}

/** The book of claims in the store: read once, then written where something is new. */
export class ClaimStore {
  readonly #pages: readonly Page[];
  readonly #log: Logger;
  #read = false;

  constructor(store: ClusterStore, options: { log: Logger }) {
    this.#log = options.log;
    this.#pages = Array.from({ length: HOST_SHARDS }, (_, number) => ({
      document: new SharedDocument(store.documents(`claims-${number}`), "doc"),
      number,
      claims: new Map(),
    }));
  }

  /** What is booked of an instance's claim to a subnet, as far as was read. */
  get(destination: string, instanceId: string): BookedClaim | undefined {
    return this.#pages[pageOf(destination)]!.claims.get(destination)
      ?.find((claim) => claim.instanceId === instanceId);
  }

  /** Has all pages read again at the next update: the store may be another one. */
  forget(): void {
    this.#read = false;
  }

  /**
   * Reads the pages of these subnets anew, as the store may have lost them. @throws {StoreError}
   */
  async reread(destinations: Iterable<string>, options: CallOptions): Promise<void> {
    const numbers = new Set([...destinations].map(pageOf));
    await Promise.all([...numbers].map((number) => this.#load(this.#pages[number]!, options)));
  }

  /** Writes down who holds which subnet, for as long as entries in sight may lead there. */
  async keep(
    claims: readonly ClusterClaim[],
    { tables, entries }: RouteView,
    { routeTableIds }: ChosenTables,
    options: CallOptions,
  ): Promise<void> {
    const isSeen = routeTableIds.map((id) => tables.get(id))
      .every((table) => table !== undefined && table.error === undefined);
    const leads = new Set<string>();
    for (const { destination, instanceId } of entries.values()) {
      leads.add(`${destination} ${instanceId}`);
    }
    const booked = claims.map(({ destination, instanceId, publicIp }) =>
      [
        String(destination),
        { instanceId, ...(publicIp === undefined ? {} : { publicIp }) },
      ] as const
    );
    try {
      await this.update({
        claims: new Map(booked),
        mayLead: (destination, instanceId) => !isSeen || leads.has(`${destination} ${instanceId}`),
      }, options);
    } catch (error) {
      options.signal.throwIfAborted();
      // Entries of those who are not in it stay.
      this.#log.debug("Cannot keep the book of claims", { error: describeError(error) });
    }
  }

  async update(news: BookNews, options: CallOptions): Promise<void> {
    if (!this.#read) {
      await Promise.all(this.#pages.map((page) => this.#load(page, options)));
      this.#read = true;
    }
    await Promise.all(this.#pages.map((page) => this.#turn(page, news, options)));
  }

  async #turn(page: Page, news: BookNews, options: CallOptions): Promise<void> {
    for (let tries = 1; tries <= TRIES; tries++) {
      const next = turnPage(page.claims, page.number, news);
      const value = encodeBookPage(next);
      if (value === (page.document.value ?? "{}")) return;
      if (await page.document.write(value, options)) {
        page.claims = next;
        return;
      }
      // What is not there any more is not to be put back from memory.
      await this.#load(page, options);
    }
  }

  async #load(page: Page, options: CallOptions): Promise<void> {
    page.claims = parseOrWarn(await page.document.read(options), parseBookPage, {
      log: this.#log,
      warning: "A page of the record of claims is started afresh",
    }) ?? new Map();
  }
}

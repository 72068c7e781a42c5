import {
  type BookedClaim,
  type BookNews,
  type BookPage,
  encodeBookPage,
  pageOf,
  parseBookPage,
  turnPage,
} from "./claim_book.ts";
import { HOST_SHARDS } from "./cluster_state.ts";
import { describeError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import type { CallOptions } from "../../store/errors.ts";
import type { Entry, KeySpace } from "../../store/etcd/key_space.ts";
import type { ClusterStore } from "./cluster_store.ts";

const PAGE_KEY = "doc";
/** Another writer may be at the same page for a moment, at the turn of two terms. */
const TRIES = 3;

interface Page {
  readonly space: KeySpace;
  readonly number: number;
  entry: Entry | undefined;
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
      space: store.space(`claims-${number}`),
      number,
      entry: undefined,
      claims: new Map(),
    }));
  }

  /** What is booked of an instance's claim to a subnet, as far as was read. */
  get(destination: string, instanceId: string): BookedClaim | undefined {
    return this.#pages[pageOf(destination)]!.claims.get(destination)
      ?.find((claim) => claim.instanceId === instanceId);
  }

  /** To be called when the store may be another one: all pages are read again at the next update. */
  forget(): void {
    this.#read = false;
  }

  /**
   * Reads the pages of these subnets anew: the store may have lost them meanwhile.
   *
   * @throws {StoreError}
   */
  async reread(destinations: Iterable<string>, options: CallOptions): Promise<void> {
    const numbers = new Set([...destinations].map(pageOf));
    await Promise.all([...numbers].map((number) => this.#load(this.#pages[number]!, options)));
  }

  /**
   * Brings the book up to date.
   *
   * @throws {StoreError}
   */
  async update(news: BookNews, options: CallOptions): Promise<void> {
    if (!this.#read) {
      await Promise.all(this.#pages.map((page) => this.#load(page, options)));
      this.#read = true;
    }
    await Promise.all(this.#pages.map((page) => this.#turn(page, news, options)));
  }

  async #turn(page: Page, news: BookNews, options: CallOptions): Promise<void> {
    for (let tries = 1; tries <= TRIES; tries++) {
      const { space, number, entry } = page;
      const next = turnPage(page.claims, number, news);
      const value = encodeBookPage(next);
      if (value === (entry?.value ?? "{}")) return;
      const written = entry === undefined
        ? await space.create(PAGE_KEY, value, undefined, options)
        : await space.update(PAGE_KEY, value, entry.revision, undefined, options);
      if (written !== undefined) {
        page.entry = written;
        page.claims = next;
        return;
      }
      // What is not there any more is not to be put back from memory.
      await this.#load(page, options);
    }
  }

  async #load(page: Page, options: CallOptions): Promise<void> {
    page.entry = await page.space.get(PAGE_KEY, options);
    page.claims = new Map();
    if (page.entry === undefined) return;
    try {
      page.claims = parseBookPage(page.entry.value);
    } catch (error) {
      this.#log.warn("A page of the book of claims is begun anew", {
        error: describeError(error),
      });
    }
  }
}

/**
 * What the store knows of who has held which subnet, for as long as route entries may lead there:
 * `<prefix>/<cloud>/claims-<n>/doc` is `{"10.24.7.0/24":[{"instance":"a","ip":"10.0.0.7"}], …}`. An
 * entry is only ever taken from an instance in this book, so that a store that has lost its leases,
 * was restored from an old backup or is the wrong one takes nothing.
 *
 * @module
 */
import * as v from "valibot";
import { shardOf } from "./cluster_state.ts";

/** An instance that has held a subnet. */
export interface BookedClaim {
  readonly instanceId: string;
  /** The address that the host's lease published. */
  readonly publicIp?: string;
}

/** By the subnet's text: who holds it, and who held it before and may still have an entry. */
export type BookPage = ReadonlyMap<string, readonly BookedClaim[]>;

const PageText = v.pipe(
  v.string(),
  v.parseJson(),
  v.record(
    v.pipe(v.string(), v.regex(/^[0-9.]{7,15}\/\d{1,2}$/)),
    v.array(v.object({
      instance: v.pipe(v.string(), v.regex(/^[A-Za-z0-9-]{1,128}$/)),
      ip: v.optional(v.pipe(v.string(), v.regex(/^[0-9.]{7,15}$/))),
    })),
  ),
);

export function pageOf(destination: string): number {
  return shardOf(destination);
}

export function encodeBookPage(page: BookPage): string {
  const sorted = [...page].sort(([a], [b]) => a < b ? -1 : 1);
  return JSON.stringify(Object.fromEntries(
    sorted.map(([destination, claims]) => [
      destination,
      claims.map(({ instanceId, publicIp }) => ({ instance: instanceId, ip: publicIp })),
    ]),
  ));
}

/** @throws {Error} If `text` is no page of the book. */
export function parseBookPage(text: string): BookPage {
  const result = v.safeParse(PageText, text);
  if (!result.success) {
    throw new Error(`Cannot read a page of the book of claims: ${result.issues[0].message}`);
  }
  return new Map(
    Object.entries(result.output).map(([destination, claims]) => [
      destination,
      claims.map(({ instance, ip }) => ({
        instanceId: instance,
        ...(ip === undefined ? {} : { publicIp: ip }),
      })),
    ]),
  );
}

/** What a page is brought up to date with. */
export interface BookNews {
  /** The claims of present leases, by subnet. */
  readonly claims: ReadonlyMap<string, BookedClaim>;
  /** Whether an entry may lead from the subnet to the instance. */
  readonly mayLead: (destination: string, instanceId: string) => boolean;
}

/**
 * The next version of a page: the holders, and former ones that an entry may still lead to. So each
 * is in it before its entry is made, and the book stays as small as the tables.
 */
export function turnPage(page: BookPage, number: number, news: BookNews): BookPage {
  const next = new Map<string, readonly BookedClaim[]>();
  for (const [destination, booked] of page) {
    const claim = news.claims.get(destination);
    const former = booked.filter(({ instanceId }) =>
      instanceId !== claim?.instanceId && news.mayLead(destination, instanceId)
    );
    const holders = claim === undefined ? former : [...former, claim];
    if (holders.length > 0) next.set(destination, holders);
  }
  for (const [destination, claim] of news.claims) {
    if (pageOf(destination) === number && !page.has(destination)) next.set(destination, [claim]);
  }
  return next;
}

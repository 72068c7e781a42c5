/** Ranges of keys of etcd v3, read page by page at one revision. @module */
import type { IKeyValue, IRangeRequest, IRangeResponse } from "etcd3";
import { Buffer } from "node:buffer";
import { EtcdError } from "./error.ts";
import { type Entry, orderOf } from "../keys/key_space.ts";

/** A range of keys of etcd v3. */
export interface KeyRange {
  readonly start: Buffer;
  /** The first key after the range; `undefined` for the one key `start`. */
  readonly end: Buffer | undefined;
  /** This many bytes at the start of a key are not part of an {@linkcode Entry}'s key. */
  readonly prefixBytes: number;
}

/** All keys that begin with `prefix`. */
export function prefixRange(prefix: string): KeyRange {
  const start = Buffer.from(prefix);
  const end = Buffer.from(start);
  // The prefixes end in a slash, so the last byte can always be counted up.
  end[end.length - 1]! += 1;
  return { start, end, prefixBytes: start.length };
}

/** The one key `key`. */
export function singleKey(key: string): KeyRange {
  const start = Buffer.from(key);
  return { start, end: undefined, prefixBytes: start.length };
}

/** A range as it was at `revision`. */
export interface RangeSnapshot {
  readonly entries: readonly Entry[];
  readonly revision: bigint;
  readonly clusterId: string;
}

/** Keys per request: large enough to be quick, small enough that a page is some 250 kB. */
const PAGE_KEYS = 1_000;

/** Reads a range as of one revision. The first page is linearizable. */
export async function readRange(
  range: KeyRange,
  request: (request: IRangeRequest) => Promise<IRangeResponse>,
): Promise<RangeSnapshot> {
  for (;;) {
    try {
      return await readPages(range, request);
    } catch (error) {
      // Compacted between two pages: the next reading is of a newer revision.
      if (!(error instanceof EtcdError) || error.kind !== "compacted") throw error;
    }
  }
}

async function readPages(
  range: KeyRange,
  request: (request: IRangeRequest) => Promise<IRangeResponse>,
): Promise<RangeSnapshot> {
  const entries: Entry[] = [];
  let snapshot: { revision: string; clusterId: string } | undefined;
  let limit = PAGE_KEYS;
  let start = range.start;
  for (;;) {
    let page: IRangeResponse;
    try {
      page = await request({
        key: start,
        limit,
        ...(range.end === undefined ? {} : { range_end: range.end }),
        ...(snapshot === undefined ? {} : { revision: snapshot.revision }),
      });
    } catch (error) {
      // Someone keeps large values here: fewer at a time.
      if (!(error instanceof EtcdError) || error.kind !== "too-large" || limit === 1) throw error;
      limit = Math.ceil(limit / 8);
      continue;
    }
    snapshot ??= { revision: page.header.revision, clusterId: page.header.cluster_id };
    for (const kv of page.kvs) entries.push(toEntry(kv, range));
    const last = page.kvs.at(-1);
    if (!page.more || last === undefined) {
      const { revision, clusterId } = snapshot;
      return { entries, revision: BigInt(revision), clusterId };
    }
    start = Buffer.concat([last.key, Buffer.of(0)]);
  }
}

/** A key-value pair of etcd as the registry's users see it. */
export function toEntry(kv: IKeyValue, range: KeyRange): Entry {
  return {
    key: entryKey(kv, range),
    value: kv.value.toString(),
    version: kv.mod_revision,
    order: orderOf(kv.create_revision),
    expires: kv.lease !== "0",
  };
}

/** The part of a key after the range's prefix. */
export function entryKey(kv: IKeyValue, range: KeyRange): string {
  return kv.key.toString("utf8", range.prefixBytes);
}

/** What `nft -j` prints: objects, and addresses in them. @module */
import * as v from "valibot";
import { Prefix } from "../net/mod.ts";

const Listing = v.object({ nftables: v.array(v.record(v.string(), v.unknown())) });
const PrefixText = v.object({ prefix: v.object({ addr: v.string(), len: v.number() }) });

/** The objects of a listing, each with its kind. @throws {Error} If `text` is no listing. */
export function readListing(text: string): [kind: string, value: unknown][] {
  try {
    return v.parse(Listing, JSON.parse(text)).nftables.flatMap((each) => Object.entries(each));
  } catch (cause) {
    throw new Error("Cannot read rules: nft printed no such listing", { cause });
  }
}

/** An address or prefix, as a prefix; `undefined` for anything else. */
export function readAddressText(value: unknown): Prefix | undefined {
  if (v.is(PrefixText, value)) return Prefix.tryParse(`${value.prefix.addr}/${value.prefix.len}`);
  return typeof value === "string" ? Prefix.tryParseOrHost(value) : undefined;
}

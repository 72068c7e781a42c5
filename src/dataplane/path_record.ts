/**
 * The last state of a packet path, left for the next run so that packets pass again before the
 * store has been read. Other backends' routes stay in the kernel meanwhile; this path ends with its
 * process.
 *
 * @module
 */
import * as v from "valibot";
import { Address, Prefix } from "../net/mod.ts";
import { present } from "../util/present.ts";

/** What a path is opened with, and cannot change later. */
export interface PathSettings {
  readonly allowAnySource: boolean;
  readonly natTraversal: boolean;
  /** Families of inner packets. */
  readonly families: readonly (4 | 6)[];
}

/** A path that carried packets. */
export interface PathRecord {
  readonly settings: PathSettings;
  readonly mtuBytes: number;
  /** Bases of the own subnets. */
  readonly ipv4?: Address;
  readonly ipv6?: Address;
  readonly sockets: readonly { readonly address: Address; readonly port: number }[];
  readonly forwarding: readonly {
    readonly destination: Prefix;
    readonly address: Address;
    readonly port: number;
  }[];
}

/** Records of other versions are ignored. */
const VERSION = 1;

const Port = v.pipe(v.number(), v.integer(), v.minValue(1), v.maxValue(65_535));
const AddressText = v.pipe(
  v.string(),
  v.check((text) => Address.tryParse(text) !== undefined, "is no IP address"),
  v.transform(Address.parse),
);
const PrefixText = v.pipe(
  v.string(),
  v.check((text) => Prefix.tryParse(text) !== undefined, "is not in CIDR notation"),
  v.transform(Prefix.parse),
);

const RecordText = v.pipe(
  v.string(),
  v.parseJson(),
  v.object({
    version: v.literal(VERSION),
    settings: v.object({
      allowAnySource: v.boolean(),
      natTraversal: v.boolean(),
      families: v.array(v.picklist([4, 6])),
    }),
    mtuBytes: v.pipe(v.number(), v.integer(), v.minValue(68), v.maxValue(65_535)),
    ipv4: v.optional(AddressText),
    ipv6: v.optional(AddressText),
    sockets: v.array(v.object({ address: AddressText, port: Port })),
    forwarding: v.array(v.tuple([PrefixText, AddressText, Port])),
  }),
);

/** The record as JSON; with 10,000 peers about half a megabyte. */
export function encodePathRecord(record: PathRecord): string {
  const { settings, mtuBytes, ipv4, ipv6, sockets, forwarding } = record;
  return JSON.stringify({
    version: VERSION,
    settings,
    mtuBytes,
    ipv4,
    ipv6,
    sockets: sockets.map(({ address, port }) => ({ address, port })),
    forwarding: forwarding.map(({ destination, address, port }) => [destination, address, port]),
  });
}

/** The record in `text`; `undefined` if it is not one, or of another version. */
export function parsePathRecord(text: string): PathRecord | undefined {
  const result = v.safeParse(RecordText, text);
  if (!result.success) return undefined;
  const { settings, mtuBytes, ipv4, ipv6, sockets, forwarding } = result.output;
  return present({
    settings,
    mtuBytes,
    ipv4,
    ipv6,
    sockets,
    forwarding: forwarding.map(([destination, address, port]) => ({ destination, address, port })),
  });
}

/** Whether paths opened with `a` and `b` are the same. */
export function sameSettings(a: PathSettings, b: PathSettings): boolean {
  return a.allowAnySource === b.allowAnySource && a.natTraversal === b.natTraversal &&
    a.families.length === b.families.length &&
    a.families.every((each) => b.families.includes(each));
}

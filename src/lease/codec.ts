/**
 * The store's bytes: keys such as `10.3.4.0-24` and the JSON value that upstream flannel writes
 * under them (field names, order and omissions included), so that mixed clusters work. Whatever is
 * read comes from other hosts and is refused unless it is exactly a lease.
 *
 * @module
 */
import * as v from "valibot";
import { Address, Prefix } from "../net/mod.ts";
import type { Json, Lease, LeaseAttributes, LeaseSubnet } from "./lease.ts";

const KEY = /^(\d{1,3}(?:\.\d{1,3}){3})-(\d{1,2})(?:&([0-9a-f:]+)-(\d{1,3}))?$/;

/** Stands for "no IPv4 subnet" in the key of an IPv6-only lease. */
const NO_IPV4 = "0.0.0.0-0";

/** `10.3.4.0-24`, `10.3.4.0-24&fd00:1::-64`, or `0.0.0.0-0&fd00:1::-64` without IPv4. */
export function encodeLeaseKey(subnet: LeaseSubnet): string {
  const ipv4 = subnet.ipv4 ? `${subnet.ipv4.address}-${subnet.ipv4.length}` : NO_IPV4;
  return subnet.ipv6 ? `${ipv4}&${subnet.ipv6.address}-${subnet.ipv6.length}` : ipv4;
}

/**
 * The subnets that a key names.
 *
 * @throws {SyntaxError} If `key` is not what {@linkcode encodeLeaseKey} writes for some subnet:
 * host bits, IPv6 text that is not canonical and IPv4 lengths above 31 (which upstream refuses)
 * are junk, so that one subnet can never stand under two keys.
 */
export function parseLeaseKey(key: string): LeaseSubnet {
  const match = KEY.exec(key);
  try {
    if (match) {
      const [, address4, length4, address6, length6] = match;
      const subnet: LeaseSubnet = {
        ...(`${address4}-${length4}` === NO_IPV4
          ? {}
          : { ipv4: new Prefix(Address.parse(address4!), Number(length4)) }),
        ...(address6 === undefined
          ? {}
          : { ipv6: new Prefix(Address.parse(address6), Number(length6)) }),
      };
      const usable = (subnet.ipv4 ?? subnet.ipv6) !== undefined &&
        (subnet.ipv4 === undefined || subnet.ipv4.length <= 31) &&
        (subnet.ipv4 === undefined || subnet.ipv4.family === 4) &&
        (subnet.ipv6 === undefined || (subnet.ipv6.family === 6 && subnet.ipv6.length <= 127));
      if (usable && encodeLeaseKey(subnet) === key) return subnet;
    }
  } catch { /* not a prefix: junk like the rest */ }
  throw new SyntaxError(`Cannot read lease key: "${printable(key)}" is not <subnet>-<length>`);
}

/**
 * The value as upstream writes it: PublicIP and PublicIPv6 always, the rest only when set.
 * `{"PublicIP":"192.0.2.1","PublicIPv6":null,"BackendType":"vxlan","BackendData":{…}}`
 */
export function encodeLeaseValue(attributes: LeaseAttributes): string {
  return JSON.stringify({
    PublicIP: attributes.publicIp ?? "0.0.0.0",
    PublicIPv6: attributes.publicIpv6 ?? null,
    ...(attributes.backendType === "" ? {} : { BackendType: attributes.backendType }),
    ...(attributes.backendData === undefined ? {} : { BackendData: attributes.backendData }),
    ...(attributes.backendV6Data === undefined ? {} : { BackendV6Data: attributes.backendV6Data }),
  });
}

/** The leases that entries of a store have turned out to be. */
const leases = new WeakMap<object, Lease>();

/** An entry of a store; see `LeaseEntry`. */
interface EntryText {
  readonly key: string;
  readonly subnet?: string;
  readonly value: string;
}

/**
 * The lease in an entry of a store. One entry is looked at by several, and read once.
 *
 * @throws {SyntaxError} If its key or value is no lease's.
 */
export function parseLease(entry: EntryText): Lease {
  let lease = leases.get(entry);
  if (!lease) {
    const subnet = parseLeaseKey(entry.subnet ?? entry.key);
    lease = { key: entry.key, subnet, attributes: parseLeaseValue(entry.value) };
    leases.set(entry, lease);
  }
  return lease;
}

/** Entries read between two steps; some milliseconds. */
const STEP_ENTRIES = 128;

/** Reads `entries` ahead, with pauses, since thousands keep other work waiting. */
export function* parseLeasesInSteps(
  entries: Iterable<EntryText>,
): Generator<void, void> {
  let count = 0;
  for (const entry of entries) {
    if (++count % STEP_ENTRIES === 0) yield;
    try {
      parseLease(entry);
    } catch { /* no lease; who needs one is told */ }
  }
}

const json: v.GenericSchema<Json> = v.any();

const value = v.object({
  publicip: v.optional(v.string(), "0.0.0.0"),
  publicipv6: v.nullish(v.string()),
  backendtype: v.nullish(v.string(), ""),
  backenddata: v.optional(json),
  backendv6data: v.optional(json),
});

/**
 * The attributes in a lease's value. As in Go, keys match without case, the last duplicate wins
 * and unknown keys are ignored.
 *
 * @throws {SyntaxError} If the text is not JSON of that shape, or an address in it is none, or is
 * one that no host can have (multicast, loopback, IPv4-mapped).
 */
export function parseLeaseValue(text: string): LeaseAttributes {
  let raw: unknown;
  try {
    raw = JSON.parse(text);
  } catch {
    throw new SyntaxError("Cannot read lease value: it is not JSON");
  }
  if (typeof raw !== "object" || raw === null || Array.isArray(raw)) {
    throw new SyntaxError("Cannot read lease value: it is not a JSON object");
  }
  const folded: Record<string, unknown> = Object.create(null);
  for (const [key, member] of Object.entries(raw)) folded[key.toLowerCase()] = member;
  const result = v.safeParse(value, folded);
  if (!result.success) {
    const fault = result.issues[0]!;
    throw new SyntaxError(
      `Cannot read lease value: ${v.getDotPath(fault) ?? "it"}: ${printable(fault.message)}`,
    );
  }
  const { publicip, publicipv6, backendtype, backenddata, backendv6data } = result.output;
  const publicIp = hostAddress("PublicIP", publicip, 4);
  const publicIpv6 = publicipv6 === null || publicipv6 === undefined
    ? undefined
    : hostAddress("PublicIPv6", publicipv6, 6);
  return {
    ...(publicIp ? { publicIp } : {}),
    ...(publicIpv6 ? { publicIpv6 } : {}),
    backendType: backendtype ?? "",
    ...(backenddata === undefined ? {} : { backendData: backenddata }),
    ...(backendv6data === undefined ? {} : { backendV6Data: backendv6data }),
  };
}

/** The address, `undefined` for the unspecified one. */
function hostAddress(name: string, text: string, family: 4 | 6): Address | undefined {
  const address = Address.tryParse(text);
  if (address?.family !== family) {
    throw new SyntaxError(
      `Cannot read lease value: ${name} "${printable(text)}" is not an IPv${family} address`,
    );
  }
  if (address.isUnspecified()) return undefined;
  if (address.isMulticast() || address.isLoopback() || address.isIpv4Mapped()) {
    throw new SyntaxError(`Cannot read lease value: ${name} ${address} is not a host's address`);
  }
  return address;
}

/** Text of unknown origin, short and free of control characters, for a message. */
function printable(text: string): string {
  // deno-lint-ignore no-control-regex
  const clean = text.replaceAll(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]/g, "?");
  return clean.length > 80 ? clean.slice(0, 77) + "…" : clean;
}

/**
 * The external interface: the link and the addresses by which other hosts reach this one. The
 * choice is a pure function of the flags and the kernel's lists, and says why each candidate loses.
 *
 * @module
 */
import { Address, type Family } from "../net/mod.ts";
import { nearest } from "../util/nearest.ts";
import { present } from "../util/present.ts";
import type { Link, LinkAddress } from "./netlink.ts";
import {
  defaultPaths,
  type InterfaceFacts,
  isHostLength,
  isVirtual,
  TENTATIVE,
  unfitness,
  usableAddresses,
} from "./own_address.ts";

/** What determines the external interface. */
export interface InterfaceCriteria {
  /** The families that the network uses; the interface needs an address of each. */
  readonly families: readonly Family[];
  /** `--iface`: names or addresses, in order. */
  readonly interfaces: readonly string[];
  /** `--iface-regex`, in order, after `interfaces`; not anchored. */
  readonly patterns: readonly { test(text: string): boolean; toString(): string }[];
  /** `--iface-can-reach`, after `patterns`. */
  readonly canReach?: Address;
  /** `--public-ip`: advertised instead of the interface's address. */
  readonly publicIp?: Address;
  /** `--public-ipv6`. */
  readonly publicIpv6?: Address;
}

/** The interface chosen. */
export interface ExternalInterface {
  readonly link: string;
  readonly linkIndex: number;
  readonly mtuBytes: number;
  /** IPv4 address of the interface, if the network uses IPv4. */
  readonly address?: Address;
  /** IPv6 address of the interface, if the network uses IPv6. */
  readonly addressV6?: Address;
  /** Advertised addresses. */
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
  /** Why it was chosen, such as `it has the default route with the lowest metric, 100`. */
  readonly reason: string;
  /** An address stands in for one of another kind that is gone; the next of its kind is taken. */
  readonly standIn?: true;
}

/** The choice, if there is one (yet); `explain` has a line per candidate. */
export type InterfaceChoice =
  | { readonly found: ExternalInterface; readonly explain: readonly string[] }
  | { readonly found?: undefined; readonly explain: readonly string[] };

/**
 * Chooses the external interface: by each `--iface` in order, then each `--iface-regex` (addresses
 * first, then names), then `--iface-can-reach`. If none of these is given: the owner of the public
 * IPv4 or else IPv6 address, or else the link of the best default route.
 *
 * A link must be up and have, for each family, an address that is of global or link-local scope
 * and neither temporary, deprecated, tentative nor a duplicate. Of several the host's own is taken,
 * not a virtual IP beside it: see {@linkcode usableAddresses}. Global ones are preferred to
 * link-local ones even if that means to wait for one that is tentative.
 */
export function selectExternalInterface(
  criteria: InterfaceCriteria,
  facts: InterfaceFacts,
): InterfaceChoice {
  const explain: string[] = [];
  for (const candidate of candidates(criteria, facts, explain)) {
    const result = qualify(candidate, criteria, facts);
    if (typeof result === "string") {
      explain.push(`${candidate.link.name} (${candidate.reason}): ${result}`);
      continue;
    }
    explain.push(`${result.link}: chosen, ${result.reason}`);
    return { found: result, explain };
  }
  return { explain };
}

/**
 * The interface `found`, as it is now: the addresses of before as long as they are fit, else the
 * best others of the link. `undefined` if it has none, has only a link-local one or a single
 * address without a subnet left in place of a better one, or has lost one that was named
 * (`--iface` with an address), which nothing else stands in for. Where a permanent address is all
 * that is left after a leased one, the result is marked as a stand-in: it may be a virtual IP that
 * was there beside it, or what the host has been given instead.
 *
 * @param before The lists by which `found` was chosen or last confirmed.
 */
export function refreshExternalInterface(
  found: ExternalInterface,
  criteria: InterfaceCriteria,
  facts: InterfaceFacts,
  before: InterfaceFacts,
): ExternalInterface | undefined {
  const link = facts.links.find(({ name }) => name === found.link);
  if (!link) return undefined;
  const former = [found.address, found.addressV6].filter((address) => address !== undefined);
  const preferred = found.standIn ? [] : former;
  const required = former.filter((address) =>
    criteria.interfaces.some((text) => Address.tryParse(text)?.equals(address))
  );
  const { standIn: _, ...reasoned } = found;
  const result = qualify({ link, required, preferred, reason: reasoned.reason }, criteria, facts);
  if (typeof result === "string") return undefined;
  let standIn = false;
  for (const name of ["address", "addressV6"] as const) {
    const [old, now] = [found[name], result[name]];
    if (!old || !now) continue;
    if (old.equals(now)) {
      standIn ||= found.standIn === true;
      continue;
    }
    // A link that is configured anew has its link-local address first, and a virtual IP never
    // leaves it. Once taken, either would stay.
    if (now.isLinkLocal() && !old.isLinkLocal()) return undefined;
    const [was, is] = [ownAddress(old, found, before), ownAddress(now, result, facts)];
    if (was && is && isHostLength(is) && !isHostLength(was)) return undefined;
    if (was && is && is.permanent && !was.permanent) standIn = true;
  }
  return { ...result, ...(standIn ? { standIn } : {}) };
}

function ownAddress(
  address: Address,
  { linkIndex }: ExternalInterface,
  { addresses }: InterfaceFacts,
): LinkAddress | undefined {
  return addresses.find((each) =>
    each.linkIndex === linkIndex && each.address.address.equals(address)
  );
}

/** A link that qualifies, and the addresses it was found by. */
interface Candidate {
  readonly link: Link;
  /** The address that was named and must be used. */
  readonly required?: readonly Address[];
  /** An address to be used if it is fit. */
  readonly preferred?: readonly Address[];
  readonly reason: string;
}

function* candidates(
  criteria: InterfaceCriteria,
  facts: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const { interfaces, patterns, canReach, publicIp, publicIpv6 } = criteria;
  const asked = interfaces.length > 0 || patterns.length > 0 || canReach !== undefined;
  for (const text of interfaces) yield* byNameOrAddress(text, facts, explain);
  for (const pattern of patterns) yield* byPattern(pattern, criteria, facts, explain);
  if (canReach) yield* byReach(canReach, facts, explain);
  if (asked) return;
  const advertised = publicIp ?? publicIpv6;
  if (advertised) {
    yield* byAddress(advertised, publicIp ? "--public-ip" : "--public-ipv6", facts, explain);
  } else {
    yield* byDefaultRoute(criteria, facts, explain);
  }
}

function* byNameOrAddress(
  text: string,
  facts: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const address = Address.tryParse(text);
  if (address) {
    yield* byAddress(address, "--iface", facts, explain);
    return;
  }
  const link = facts.links.find(({ name }) => name === text);
  if (link) {
    yield { link, reason: `it is --iface ${text}` };
    return;
  }
  const hint = nearest(text, facts.links.map(({ name }) => name));
  explain.push(
    `${text} (--iface): there is no such link` +
      (hint === undefined ? "" : `; did you mean ${hint}?`),
  );
}

function* byAddress(
  address: Address,
  flag: string,
  facts: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const owners = facts.addresses.filter((each) => each.address.address.equals(address));
  for (const { linkIndex } of owners) {
    const link = facts.links.find(({ index }) => index === linkIndex);
    if (link) yield { link, required: [address], reason: `it has ${flag} ${address}` };
  }
  if (owners.length === 0) {
    const hint = flag === "--iface"
      ? ""
      : `; if this host is behind NAT, name the interface with --iface as well`;
    explain.push(`${address} (${flag}): no link has this address${hint}`);
  }
}

function* byPattern(
  pattern: InterfaceCriteria["patterns"][number],
  criteria: InterfaceCriteria,
  facts: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const links = facts.links.toSorted((a, b) => a.index - b.index);
  const byAddress: { readonly candidate: Candidate; readonly isBare: boolean }[] = [];
  for (const link of links) {
    const found = criteria.families.map((family) =>
      usableAddresses(link, family, facts).find(({ address }) =>
        pattern.test(address.address.toString())
      )
    );
    const matching = found.map((each) => each?.address.address);
    const required = matching.filter((address) => address !== undefined);
    if (required.length === 0 || required.length < matching.length) continue;
    const reason = `${required.map(String).join(" and ")} matches --iface-regex ${pattern}`;
    const isBare = found.some((each) => each && isHostLength(each));
    byAddress.push({ candidate: { link, required, reason }, isBare });
  }
  // Virtual and service IPs are also kept on links of their own, such as lo or kube-ipvs0.
  for (const isBare of [false, true]) {
    yield* byAddress.filter((each) => each.isBare === isBare).map(({ candidate }) => candidate);
  }
  let matches = byAddress.length;
  for (const link of links) {
    if (!pattern.test(link.name)) continue;
    matches++;
    yield { link, reason: `its name matches --iface-regex ${pattern}` };
  }
  if (matches === 0) {
    explain.push(`${pattern} (--iface-regex): no usable address and no name matches`);
  }
}

function* byReach(
  canReach: Address,
  facts: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const { links, routeToCanReach: route } = facts;
  const subject = `${canReach} (--iface-can-reach)`;
  if (!route) {
    explain.push(`${subject}: there is no route to it`);
  } else if (route.type !== "unicast") {
    explain.push(`${subject}: the route to it is of type ${route.type}`);
  } else {
    const link = links.find(({ index }) => index === route.linkIndex);
    const { source } = route;
    const reason = `the route to ${canReach} leaves by it`;
    if (link && source && !isVirtual(source, link, facts)) {
      yield { link, required: [source], reason };
    } else if (link) yield { link, reason };
    else explain.push(`${subject}: the route to it leaves by no link that is known`);
  }
}

function* byDefaultRoute(
  { families }: InterfaceCriteria,
  { links, routes }: InterfaceFacts,
  explain: string[],
): Generator<Candidate> {
  const paths = families.map((family) => defaultPaths(family, routes));
  families.forEach((family, i) => {
    if (paths[i]!.length === 0) explain.push(`no IPv${family} default route in table main`);
  });
  const seen = new Set<number>();
  for (const path of paths[0] ?? []) {
    if (seen.has(path.linkIndex)) continue;
    seen.add(path.linkIndex);
    const link = links.find(({ index }) => index === path.linkIndex);
    if (!link) continue;
    const others = paths.slice(1).map((list) =>
      list.find(({ linkIndex }) => linkIndex === link.index)
    );
    const lacking = families.slice(1).filter((_, i) => others[i] === undefined);
    if (lacking.length > 0) {
      explain.push(
        `${link.name}: has the IPv${families[0]} default route with metric ${path.metric}, but ` +
          `no IPv${lacking.join(" and IPv")} default route`,
      );
      continue;
    }
    yield {
      link,
      reason: `it has the ${
        seen.size === 1 ? "best" : "next best"
      } default route, metric ${path.metric}`,
    };
  }
}

/** The interface of `candidate`, or why it cannot be used. */
function qualify(
  candidate: Candidate,
  criteria: InterfaceCriteria,
  facts: InterfaceFacts,
): ExternalInterface | string {
  const { link, required = [], preferred = [], reason } = candidate;
  const { families, publicIp, publicIpv6 } = criteria;
  if (!link.up) return "it is down";
  if (link.mtuBytes <= 0) return "it has no MTU";
  for (const address of required) {
    const own = facts.addresses.find((each) =>
      each.linkIndex === link.index && each.address.address.equals(address)
    );
    if (!own) return `${address} is not an address of it`;
    const fault = unfitness(own);
    if (fault) return `${address} is ${fault}`;
  }
  if (publicIpv6 && required.some(({ family }) => family === 4) && families.includes(6)) {
    const owner = facts.addresses.find((each) => each.address.address.equals(publicIpv6));
    if (owner && owner.linkIndex !== link.index) {
      return `another link has --public-ipv6 ${publicIpv6}`;
    }
  }
  const chosen = new Map<Family, Address>();
  for (const family of families) {
    const usable = usableAddresses(link, family, facts).map(({ address }) => address.address);
    const isUsable = (address: Address) => usable.some((each) => each.equals(address));
    const address = required.find((each) => each.family === family) ??
      preferred.find((each) => each.family === family && isUsable(each)) ?? usable[0];
    if (!address) return `it has no usable IPv${family} address${unusable(link, family, facts)}`;
    // A link-local address is fit sooner; once advertised it would stay.
    const coming = address.isLinkLocal() && !required.includes(address)
      ? facts.addresses.find((each) =>
        each.linkIndex === link.index && each.address.address.family === family &&
        !each.address.address.isLinkLocal() && unfitness(each) === TENTATIVE
      )
      : undefined;
    if (coming) return `${coming.address.address} is still ${TENTATIVE}`;
    chosen.set(family, address);
  }
  const address = chosen.get(4);
  const addressV6 = chosen.get(6);
  return present({
    link: link.name,
    linkIndex: link.index,
    mtuBytes: link.mtuBytes,
    address,
    addressV6,
    publicIp: address && (publicIp ?? address),
    publicIpv6: addressV6 && (publicIpv6 ?? addressV6),
    reason,
  });
}

/** ` (10.0.0.5 is tentative)`, or nothing if the link has no address of `family` at all. */
function unusable(link: Link, family: Family, { addresses }: InterfaceFacts): string {
  const faults = addresses
    .filter((each) => each.linkIndex === link.index && each.address.address.family === family)
    .map((each) => `${each.address.address} is ${unfitness(each)}`);
  return faults.length === 0 ? "" : ` (${faults.join(", ")})`;
}

/**
 * Foreign policy rules and routes that divert packets from our routes: nm-cloud-setup, Tailscale,
 * Cilium and VRFs have tables that the kernel consults before table main. The kernel itself is asked
 * how it would send; nothing is changed.
 *
 * @module
 */
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { IPPROTO_UDP } from "../../ffi/tun/constants.ts";
import type { Address, Prefix } from "../net/mod.ts";
import { present } from "../util/present.ts";
import { LinkIndex } from "./links.ts";
import { type Netlink, type Route, type RouteLookup, type Rule, TABLE_MAIN } from "./netlink.ts";

/** A packet to look up, and the way that it should take. */
export interface PathCheck {
  /** `packets of pods`, for the message. */
  readonly title: string;
  readonly destination: Address;
  /** The network that it is an address of. */
  readonly network: Prefix;
  readonly from?: Address;
  /** The link it arrives on; absent for the host's own packets. */
  readonly inputLink?: string;
  /** Its destination port, where it is known to be of UDP. */
  readonly udpPort?: number;
  /** The expected link; any if absent, as for the packets of a tunnel. */
  readonly expected?: { readonly link: string; readonly gateway?: Address };
}

/** A packet that takes another way. */
export interface Diversion {
  readonly check: PathCheck;
  /** `10.5.2.2 from 10.5.1.2` */
  readonly packets: string;
  /** What happens to them, and the cause. */
  readonly message: string;
  readonly remedy: string;
}

/** At most this many rules are named. */
const NAMED_RULES = 3;

/** Lookup errors of a route or rule that refuses, or of none at all. */
const REFUSALS: ReadonlySet<string> = new Set(["ENETUNREACH", "EHOSTUNREACH", "EACCES", "EINVAL"]);

/** Looks each of `checks` up; those that take another way than expected are described. */
export async function findDiversions(
  netlink: Netlink,
  checks: readonly PathCheck[],
  options: { signal: AbortSignal },
): Promise<Diversion[]> {
  if (checks.length === 0) return [];
  const links = await LinkIndex.read(netlink, options);
  const found: Diversion[] = [];
  let rules: readonly Rule[] | undefined;
  for (const check of checks) {
    const { destination, from, inputLink, udpPort, expected } = check;
    const input = inputLink === undefined ? undefined : links.named(inputLink);
    if (inputLink !== undefined && !input) continue;
    const lookup: RouteLookup = present({ from, inputLinkIndex: input?.index, udpPort });
    let way: string;
    try {
      const route = await netlink.routeGet(destination, { ...options, ...lookup });
      if (isExpected(route, links, expected)) continue;
      way = describeWay(route, links);
    } catch (error) {
      if (!(error instanceof NetlinkError) || !REFUSALS.has(error.code)) continue;
      // A blackhole has the same error as a source that is invalid on a link.
      if (
        error.code === "EINVAL" && input && from && await isLocal(from, netlink, options)
      ) continue;
      way = "nowhere";
    }
    rules ??= await netlink.listRules(options);
    const culprits = rules.filter((rule) => mayDivert(rule, check))
      .toSorted((one, other) => one.priority - other.priority);
    const named = culprits.slice(0, NAMED_RULES).map(formatRule).join('", "');
    const ip = destination.family === 6 ? "ip -6" : "ip";
    const before = Math.max(1, (culprits[0]?.priority ?? 0) - 1);
    const because = culprits.length > 0
      ? `rules come before table main: "${named}"`
      : expected
      ? "a route that is not ours comes first"
      : "no route leads there, or one refuses";
    const packets = `${destination}${from ? ` from ${from}` : ""}`;
    const how = expected
      ? `do not take the route ${formatExpected(expected)}, but go ${way}`
      : `go ${way}`;
    found.push({
      check,
      packets,
      message: `${check.title} to ${packets} ${how}: ${because}`,
      remedy: culprits.length > 0
        ? `To let the network come first: ${ip} rule add to ${check.network} lookup main ` +
          `priority ${before}`
        : `see "ip route get ${packets}${inputLink ? ` iif ${inputLink}` : ""}` +
          `${udpPort === undefined ? "" : ` ipproto udp dport ${udpPort}`}"`,
    });
  }
  return found;
}

async function isLocal(address: Address, netlink: Netlink, options: { signal: AbortSignal }) {
  try {
    return (await netlink.routeGet(address, options)).type === "local";
  } catch (error) {
    if (error instanceof NetlinkError) return false;
    throw error;
  }
}

function isExpected(
  { type, linkIndex, gateway }: Route,
  links: LinkIndex,
  expected: PathCheck["expected"],
): boolean {
  if (!expected) return type === "unicast" || type === "local";
  if (type !== "unicast" || linkIndex === undefined) return false;
  return links.at(linkIndex)?.name === expected.link &&
    (expected.gateway === undefined || (gateway?.equals(expected.gateway) ?? false));
}

function formatExpected({ link, gateway }: NonNullable<PathCheck["expected"]>): string {
  return `${gateway ? `via ${gateway} ` : ""}on ${link}`;
}

function describeWay({ type, linkIndex, gateway }: Route, links: LinkIndex): string {
  if (type !== "unicast") return type === "local" ? "to this host itself" : `to a ${type} route`;
  return (gateway ? `via ${gateway} ` : "") + `on ${links.nameOf(linkIndex ?? 0)}`;
}

/** From the kernel's own rules for tables main and local. */
const MAIN_PRIORITY = 32_766;
const TABLE_LOCAL = 255;

function mayDivert(rule: Rule, check: PathCheck): boolean {
  return rule.family === check.destination.family && rule.priority < MAIN_PRIORITY &&
    (rule.refusal !== undefined || (rule.table !== TABLE_MAIN && rule.table !== TABLE_LOCAL)) &&
    (rule.inverted || selects(rule, check));
}

/** Whether the packet is one that the rule's conditions may hold for. */
function selects(rule: Rule, { destination, from, inputLink, udpPort }: PathCheck): boolean {
  const { ports } = rule;
  return !rule.mark && rule.outputLink === undefined && rule.sourcePorts === undefined &&
    (rule.ipProtocol === undefined || (rule.ipProtocol === IPPROTO_UDP && udpPort !== undefined)) &&
    (!ports || (udpPort !== undefined && ports[0] <= udpPort && udpPort <= ports[1])) &&
    (rule.from === undefined || (from !== undefined && rule.from.contains(from))) &&
    (rule.to === undefined || rule.to.contains(destination)) &&
    (rule.inputLink === undefined || rule.inputLink === inputLink);
}

function formatRule(rule: Rule): string {
  const { priority, from, to, mark, mask, inputLink, outputLink, table, refusal } = rule;
  const { ipProtocol, sourcePorts, ports } = rule;
  const hex = (value: number) => `0x${value.toString(16)}`;
  const parts = [
    ...(rule.inverted ? ["not"] : []),
    `from ${from ?? "all"}`,
    ...(to ? [`to ${to}`] : []),
    ...(inputLink ? [`iif ${inputLink}`] : []),
    ...(outputLink ? [`oif ${outputLink}`] : []),
    ...(ipProtocol === undefined
      ? []
      : [`ipproto ${ipProtocol === IPPROTO_UDP ? "udp" : ipProtocol}`]),
    ...(sourcePorts ? [`sport ${sourcePorts.join("-")}`] : []),
    ...(ports ? [`dport ${ports[0] === ports[1] ? ports[0] : ports.join("-")}`] : []),
    ...(mark === undefined ? [] : [`fwmark ${hex(mark)}/${hex(mask ?? 0xffff_ffff)}`]),
    refusal ?? `lookup ${table}`,
    `priority ${priority}`,
  ];
  return parts.join(" ");
}

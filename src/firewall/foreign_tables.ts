/**
 * Foreign chains that drop or reject what the network needs: packets between pods of this host and
 * of others, and those of the tunnel between hosts. A packet must pass every base chain of each hook
 * that it reaches, so no rule of ours can override such a chain. It is reported, with a command that
 * lets the network through, and never changed.
 *
 * @module
 */
import * as v from "valibot";
import { type Address, type Family, Prefix } from "../net/mod.ts";
import type { Finding } from "../status/model.ts";
import { present } from "../util/present.ts";
import { identityOf } from "../status/problems.ts";
import type { RuleProgramOptions } from "./nft_command.ts";
import { adviseOnDocker } from "./docker.ts";
import { saveForeignIptables } from "./iptables_command.ts";
import { readIptablesTables } from "./iptables_content.ts";
import { listNftBaseChains, listNftChain, listNftTable } from "./nft_command.ts";
import { readAddressText } from "./nft_listing.ts";
import {
  type BaseChain,
  findRefusal,
  type Flow,
  readBaseChains,
  readDevices,
  readNftTable,
  type Refusal,
  type TableContent,
} from "./nft_verdicts.ts";
import { nftTableName } from "./nft_ruleset.ts";

/** Which way packets of one family take through this host. */
export interface PodPaths {
  readonly family: Family;
  readonly network: Prefix;
  readonly subnet: Prefix;
  /** The link of this host's pods, such as `cni0`. */
  readonly inside: string;
  /** The links to other hosts' pods. */
  readonly outside: readonly string[];
  /** How packets are carried between hosts, if in a tunnel. */
  readonly tunnel?: TunnelPath;
}

/** Part of {@linkcode PodPaths}. */
export interface TunnelPath {
  readonly protocol: "udp" | "ipip";
  readonly port?: number;
  /** The external interface, its address, and another host's. */
  readonly link: string;
  readonly local: Address;
  readonly peer: Address;
}

type Hook =
  | "ingress"
  | "prerouting"
  | "input"
  | "forward"
  | "output"
  | "postrouting"
  | "egress";

/**
 * A foreign chain that refuses packets: all of pods, of the tunnel, or only those of some pods, such
 * as those with published ports, which Docker 28 closes to other hosts by default.
 */
export interface ForeignRefusal extends Finding {
  readonly code: "pods-refused" | "tunnel-refused" | "some-pods-refused";
}

/** Packets and where they pass. */
interface Passage {
  readonly kind: "pods" | "tunnel";
  readonly flow: Flow;
  readonly hooks: readonly Hook[];
}

/** Chains of these types decide; those of type `nat` only translate. */
const DECIDING_TYPES: ReadonlySet<string> = new Set(["filter", "route"]);

/** kube-proxy's table may be very large, and refuses only services without endpoints. */
const HARMLESS_TABLES: ReadonlySet<string> = new Set([
  nftTableName(4),
  nftTableName(6),
  "kube-proxy",
]);

export interface ForeignTablesOptions extends RuleProgramOptions {
  /** Whether the kernel's own ip_tables holds tables; listing them would make it set them up. */
  readonly hasLegacyTables: (family: Family) => boolean;
}

/** Finds the foreign chains that refuse packets of `paths`. */
export async function surveyForeignTables(
  paths: readonly PodPaths[],
  options: ForeignTablesOptions,
): Promise<ForeignRefusal[]> {
  const tables: TableContent[] = [];
  for (const family of new Set(paths.map(({ family }) => family))) {
    const { signal } = options;
    const hasLegacy = options.hasLegacyTables(family);
    const texts = await saveForeignIptables(family, { signal, hasLegacy });
    tables.push(...texts.flatMap((text) => readIptablesTables(text, family)));
  }
  const seen = new Set(
    tables.flatMap(({ chains, program }) =>
      [...chains.values()].flatMap(({ base }) => base && program ? [placeOf(base)] : [])
    ),
  );
  const listing = await listNftBaseChains(options);
  const wanted = listing === undefined
    ? []
    : readBaseChains(listing).filter((chain) =>
      ["inet", "ip", "ip6", "netdev"].includes(chain.family) && DECIDING_TYPES.has(chain.type) &&
      !HARMLESS_TABLES.has(chain.table) && !seen.has(placeOf(chain))
    );
  for (const chains of Map.groupBy(wanted, ({ family, table }) => `${family} ${table}`).values()) {
    const text = await listNftTable(chains[0]!, options);
    if (text === undefined) continue;
    const { chains: all, sets } = readNftTable(text);
    const bases = new Map(
      await Promise.all(
        chains.map(async (chain) => [chain.name, await withDevices(chain, options)] as const),
      ),
    );
    tables.push({
      sets,
      // Chains that iptables has printed are read in its wording.
      chains: new Map([...all].map(([name, { base: _, ...chain }]) => {
        const base = bases.get(name);
        return [name, base ? { ...chain, base } : chain];
      })),
    });
  }
  return unique(tables.flatMap((table) => findRefusals(table, paths)));
}

/** `chain` with the links that it is for, if it is at such a hook. */
async function withDevices(chain: BaseChain, options: RuleProgramOptions): Promise<BaseChain> {
  if ((chain.hook !== "ingress" && chain.hook !== "egress") || chain.devices) return chain;
  return { ...chain, devices: readDevices(await listNftChain(chain, options) ?? "") };
}

/** Whether packets of `flow` reach `base`: some chains are for single links. */
function isAtDevice({ hook, devices = [] }: BaseChain, flow: Flow): boolean {
  if (hook !== "ingress" && hook !== "egress") return true;
  return devices.includes((hook === "ingress" ? flow.inputLink : flow.outputLink) ?? "");
}

function placeOf({ family, table, name }: BaseChain): string {
  return `${family} ${table} ${name}`;
}

function unique(refusals: readonly ForeignRefusal[]): ForeignRefusal[] {
  return [...new Map(refusals.map((each) => [identityOf(each), each])).values()];
}

/** What each base chain of `table` refuses of the packets of `paths`. */
export function findRefusals(table: TableContent, paths: readonly PodPaths[]): ForeignRefusal[] {
  const found: ForeignRefusal[] = [];
  for (const { base } of table.chains.values()) {
    if (!base || !DECIDING_TYPES.has(base.type)) continue;
    for (const path of paths) {
      if (!["inet", "netdev", path.family === 4 ? "ip" : "ip6"].includes(base.family)) continue;
      for (const kind of ["pods", "tunnel"] as const) {
        for (const { flow, ...passage } of passages(path, base.hook as Hook, table)) {
          if (passage.kind !== kind || !passage.hooks.includes(base.hook as Hook)) continue;
          if (!isAtDevice(base, flow)) continue;
          const refusal = findRefusal(table, base.name, flow);
          if (!refusal) continue;
          found.push(describeRefusal(base, refusal, { ...passage, flow }, path, table));
          break; // one packet of a kind is enough
        }
      }
    }
  }
  return unique(found);
}

function isOnePod({ destination }: Flow, { subnet }: PodPaths): boolean {
  return destination.length > subnet.length && subnet.contains(destination);
}

const POD_HOOKS: readonly Hook[] = ["ingress", "prerouting", "forward", "postrouting", "egress"];
const IN_HOOKS: readonly Hook[] = ["ingress", "prerouting", "input"];
const OUT_HOOKS: readonly Hook[] = ["output", "postrouting", "egress"];

/** What passes `hook`, as known there: the outgoing link only once there is a route. */
function passages(path: PodPaths, hook: Hook, table: TableContent): Passage[] {
  const { family, network, subnet, inside, outside, tunnel } = path;
  const links = (inputLink: string, outputLink: string) => ({
    ...(OUT_HOOKS.includes(hook) ? {} : { inputLink }),
    ...(IN_HOOKS.includes(hook) ? {} : { outputLink }),
  });
  const pods = outside.flatMap((link): Omit<Flow, "family">[] => [
    { source: subnet, destination: network, ...links(inside, link) },
    ...[{ destination: subnet }, ...namedTargets(table, path)]
      .map((target) => ({ source: network, ...target, ...links(link, inside) })),
  ]).map((flow): Passage => ({ kind: "pods", hooks: POD_HOOKS, flow: { family, ...flow } }));
  if (!tunnel || tunnel.local.family !== family) return pods;
  const { protocol, port, link } = tunnel;
  const carried = { ...present({ family, protocol, port }), ...links(link, link) };
  const [local, peer] = [Prefix.host(tunnel.local), Prefix.host(tunnel.peer)];
  const incoming = { ...carried, source: peer, destination: local, isLocal: true };
  const outgoing = { ...carried, source: local, destination: peer };
  return [
    ...pods,
    { kind: "tunnel", hooks: IN_HOOKS, flow: incoming },
    { kind: "tunnel", hooks: OUT_HOOKS, flow: outgoing },
  ];
}

/** At most this many of the pods that rules name are checked. */
const MAX_TARGETS = 4;

/** Pods of this host that rules of `table` name one by one, as Docker does, and their ports. */
function namedTargets(
  { chains }: TableContent,
  { family, subnet }: PodPaths,
): Pick<Flow, "destination" | "protocol" | "port">[] {
  const targets = new Map<string, Pick<Flow, "destination" | "protocol" | "port">>();
  for (const { rules } of chains.values()) {
    for (const { expr } of rules) {
      const match = (field: string) =>
        expr.flatMap((statement) => {
          const found = v.is(EqualMatch, statement) ? statement.match : undefined;
          const left = found && JSON.stringify(found.left);
          return left?.includes(`"${field}"`) ? [found!.right] : [];
        })[0];
      const destination = readAddressText(match("daddr"));
      if (destination?.family !== family || !subnet.contains(destination)) continue;
      if (destination.length <= subnet.length) continue;
      const port = match("dport");
      const protocol = match("l4proto") === "udp" ? "udp" : "tcp";
      const target = {
        destination,
        protocol,
        ...(typeof port === "number" ? { port } : {}),
      } as const;
      targets.set(`${destination} ${protocol} ${port}`, target);
      if (targets.size >= MAX_TARGETS) return [...targets.values()];
    }
  }
  return [...targets.values()];
}

const EqualMatch = v.object({
  match: v.object({ op: v.literal("=="), left: v.unknown(), right: v.unknown() }),
});

function describeRefusal(
  base: BaseChain,
  refusal: Refusal,
  { kind, flow }: Passage,
  path: PodPaths,
  table: TableContent,
): ForeignRefusal {
  const place = `${base.family} ${base.table}`;
  const code = kind === "tunnel"
    ? "tunnel-refused"
    : isOnePod(flow, path)
    ? "some-pods-refused"
    : "pods-refused";
  const port = flow.port === undefined ? "" : ` port ${flow.port}`;
  const [whose, what] = {
    "some-pods-refused": [
      `${flow.destination.address}${port}`,
      `packets of other hosts' pods for ${flow.destination.address}${port}`,
    ],
    "pods-refused": [
      `${path.network}`,
      `packets of ${path.network} between pods of this host and of others`,
    ],
    "tunnel-refused": [
      tunnelName(path.tunnel),
      `packets of the tunnel between hosts (${tunnelName(path.tunnel)})`,
    ],
  }[code] as [string, string];
  const { chain, rule } = refusal;
  const how = rule === undefined
    ? `its policy is drop`
    : rule.text === undefined
    ? `the rule with handle ${rule.handle} of chain ${chain} does; see ` +
      `"nft -a list chain ${place} ${chain}"`
    : `the rule "-A ${chain} ${rule.text}" does`;
  const owner = table.program === undefined
    ? `nft table "${place}"`
    : `table ${base.table} of ${table.program}`;
  const advice = adviseOnDocker(base, refusal, path) ?? adviseOn(base, kind, path, table);
  return {
    code,
    object: `${place} ${base.name} ${whose}`,
    message: `Chain ${base.name} (hook ${base.hook}) of ${owner} ` +
      `${refusal.verdict === "drop" ? "drops" : "rejects"} ${what}: ${how}. ` +
      `Rules in other tables cannot override that`,
    remedy: `To let them through: ${advice}`,
  };
}

function tunnelName(tunnel: TunnelPath | undefined): string {
  return [tunnel?.protocol, tunnel?.port].filter((part) => part !== undefined).join(" port ");
}

/** Commands that let packets through, for the program that owns the table. */
function adviseOn(
  { family, table, name }: BaseChain,
  kind: Passage["kind"],
  path: PodPaths,
  { chains }: TableContent,
): string {
  const { network, tunnel } = path;
  const [protocol, port] = [tunnel?.protocol ?? "udp", tunnel?.port];
  if (table === "firewalld") {
    const what = kind === "pods"
      ? `--zone=trusted --add-source=${network}`
      : protocol === "udp"
      ? `--add-port=${port}/udp`
      : `--add-protocol=ipencap`;
    return `firewall-cmd --permanent ${what} && firewall-cmd --reload`;
  }
  const isIptables = family !== "inet" && family !== "netdev" && /^[A-Z]+$/.test(name) &&
    ["filter", "mangle", "raw", "security"].includes(table);
  if (isIptables && [...chains.keys()].some((each) => /^ufw6?-/.test(each))) {
    return kind === "pods"
      ? `ufw route allow from ${network}; ufw route allow to ${network}`
      : `ufw allow ${port === undefined ? "proto ipip from any" : `${port}/udp`}`;
  }
  const ip = family === "inet" || family === "netdev" ? (path.family === 4 ? "ip" : "ip6") : family;
  if (isIptables) {
    const program = path.family === 4 ? "iptables" : "ip6tables";
    const into = `${program} -t ${table} -I ${chains.has("DOCKER-USER") ? "DOCKER-USER" : name}`;
    if (kind === "pods") return `${into} -s ${network} -j ACCEPT; ${into} -d ${network} -j ACCEPT`;
    return `${program} -t ${table} -I ${name} ${
      port === undefined ? "-p 4" : `-p udp --dport ${port}`
    } -j ACCEPT`;
  }
  const into = `nft insert rule ${family} ${table} ${name}`;
  if (kind === "pods") {
    return `${into} ${ip} saddr ${network} accept; ${into} ${ip} daddr ${network} accept`;
  }
  return `${into} ${port === undefined ? "meta l4proto 4" : `udp dport ${port}`} accept`;
}

/**
 * Chains of others in nftables that drop or reject what the network needs: packets between pods of
 * this host and of others, and those of the tunnel between hosts. A packet must pass every base
 * chain of each hook it comes to, so no rule of ours can outvote such a chain. It is named, with a
 * command that lets the network through, and never changed.
 *
 * @module
 */
import { type Address, addressBits, type Family, Prefix } from "../net/mod.ts";
import type { RuleProgramOptions } from "./nft_command.ts";
import { listNftBaseChains, listNftTableOf } from "./nft_command.ts";
import {
  type BaseChain,
  findRefusal,
  type Flow,
  type NftTableContent,
  readBaseChains,
  readNftTable,
  type Refusal,
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

type Hook = "prerouting" | "input" | "forward" | "output" | "postrouting";

/** Packets and where they pass. */
interface Passage {
  readonly kind: "pods" | "tunnel";
  readonly flow: Flow;
  readonly hooks: readonly Hook[];
}

/** Chains of these types decide; those of type `nat` only translate. */
const DECIDING_TYPES: ReadonlySet<string> = new Set(["filter", "route"]);

/** kube-proxy's table may be very large, and refuses only services without endpoints. */
const HARMLESS_TABLES: ReadonlySet<string> = new Set(["kube-proxy"]);

/** Reads the rules of others and names the chains that refuse packets of `paths`. */
export async function surveyForeignTables(
  paths: readonly PodPaths[],
  options: RuleProgramOptions,
): Promise<string[]> {
  const listing = await listNftBaseChains(options);
  if (listing === undefined) return [];
  const wanted = readBaseChains(listing).filter(({ family, table, type }) =>
    ["inet", "ip", "ip6"].includes(family) && DECIDING_TYPES.has(type) &&
    table !== nftTableName(4) && table !== nftTableName(6) && !HARMLESS_TABLES.has(table)
  );
  const sentences: string[] = [];
  for (const chains of Map.groupBy(wanted, ({ family, table }) => `${family} ${table}`).values()) {
    const text = await listNftTableOf(chains[0]!, options);
    if (text !== undefined) sentences.push(...findRefusals(readNftTable(text), paths));
  }
  return sentences;
}

/** One sentence for each base chain of `table` that refuses packets of `paths`. */
export function findRefusals(table: NftTableContent, paths: readonly PodPaths[]): string[] {
  const found: string[] = [];
  for (const { base } of table.chains.values()) {
    if (!base || !DECIDING_TYPES.has(base.type)) continue;
    for (const path of paths) {
      if (!["inet", path.family === 4 ? "ip" : "ip6"].includes(base.family)) continue;
      for (const kind of ["pods", "tunnel"] as const) {
        const refusals = passages(path, base.hook as Hook)
          .filter((passage) => passage.kind === kind && passage.hooks.includes(base.hook as Hook))
          .map(({ flow }) => findRefusal(table, base.name, flow));
        const refusal = refusals.find(Boolean);
        if (refusal) found.push(describeRefusal(base, refusal, kind, path, table));
      }
    }
  }
  return [...new Set(found)];
}

/** What passes, as it is seen at `hook`: no outgoing link is known before the route is. */
function passages(path: PodPaths, hook: Hook): Passage[] {
  const { family, network, subnet, inside, outside, tunnel } = path;
  const links = (inputLink: string, outputLink: string) => ({
    ...(hook === "postrouting" || hook === "output" ? {} : { inputLink }),
    ...(hook === "prerouting" || hook === "input" ? {} : { outputLink }),
  });
  const podHooks: Hook[] = ["prerouting", "forward", "postrouting"];
  const pods = outside.flatMap((link): Passage[] => [
    {
      kind: "pods",
      hooks: podHooks,
      flow: { family, source: subnet, destination: network, ...links(inside, link) },
    },
    {
      kind: "pods",
      hooks: podHooks,
      flow: { family, source: network, destination: subnet, ...links(link, inside) },
    },
  ]);
  if (!tunnel || tunnel.local.family !== family) return pods;
  const { protocol, port, link, local, peer } = tunnel;
  const only = (address: Address) => new Prefix(address, addressBits(family));
  const carried = { family, protocol, ...(port === undefined ? {} : { port }) };
  const both = links(link, link);
  return [
    ...pods,
    {
      kind: "tunnel",
      hooks: ["prerouting", "input"],
      flow: {
        ...carried,
        ...both,
        source: only(peer),
        destination: only(local),
        isLocal: true,
      },
    },
    {
      kind: "tunnel",
      hooks: ["output", "postrouting"],
      flow: { ...carried, ...both, source: only(local), destination: only(peer) },
    },
  ];
}

function describeRefusal(
  base: BaseChain,
  refusal: Refusal,
  kind: Passage["kind"],
  path: PodPaths,
  table: NftTableContent,
): string {
  const place = `${base.family} ${base.table}`;
  const what = kind === "pods"
    ? `packets of ${path.network} between pods of this host and of others`
    : `packets of the tunnel between hosts (${tunnelName(path.tunnel!)})`;
  const how = refusal.handle === undefined
    ? `its policy is drop`
    : `the rule with handle ${refusal.handle} of chain ${refusal.chain} does; see ` +
      `"nft -a list chain ${place} ${refusal.chain}"`;
  return `Chain ${base.name} (hook ${base.hook}) of nft table "${place}" ` +
    `${refusal.verdict === "drop" ? "drops" : "rejects"} ${what}: ${how}. ` +
    `Rules in other tables cannot override that. To let them through: ` +
    adviseOn(base, kind, path, table);
}

function tunnelName({ protocol, port }: TunnelPath): string {
  return port === undefined ? protocol : `${protocol} port ${port}`;
}

/** Commands that let packets through, in the words of whoever keeps the table. */
function adviseOn(
  { family, table, name }: BaseChain,
  kind: Passage["kind"],
  path: PodPaths,
  { chains }: NftTableContent,
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
  const isIptables = family !== "inet" && /^[A-Z]+$/.test(name) &&
    ["filter", "mangle", "raw", "security"].includes(table);
  if (isIptables && [...chains.keys()].some((each) => /^ufw6?-/.test(each))) {
    return kind === "pods"
      ? `ufw route allow from ${network}; ufw route allow to ${network}`
      : `ufw allow ${port === undefined ? "proto ipip from any" : `${port}/udp`}`;
  }
  const ip = family === "inet" ? (path.family === 4 ? "ip" : "ip6") : family;
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

/** The format of subnet.env: what the CNI plugin, Docker and the next start read. @module */
import type { FamilyNetwork } from "../firewall/mod.ts";
import type { LeaseSubnet } from "../lease/lease.ts";
import { type Family, InterfaceAddress, type Prefix } from "../net/mod.ts";

/** What the CNI plugin, Docker's helper and the next start read from subnet.env. */
export interface SubnetEnv {
  /** At most one per family. The file names the first address of each subnet, the bridge's. */
  readonly families: readonly FamilyNetwork[];
  /** MTU of the pods' links. */
  readonly mtuBytes: number;
  /** Whether flanneld masquerades, so that others must not. */
  readonly masquerade: boolean;
}

/** How the names of each family's variables begin. */
const PREFIXES = { 4: "FLANNEL_", 6: "FLANNEL_IPV6_" } as const;
const FAMILIES = [4, 6] as const;

/**
 * The text of subnet.env: upstream's lines in upstream's order, LF, no quotes. No other
 * lines, since some readers fail on them.
 */
export function renderSubnetEnv(env: SubnetEnv): string {
  const lines: string[] = [];
  for (const { network, subnet } of env.families) {
    const prefix = PREFIXES[network.family];
    const first = new InterfaceAddress(subnet.address.add(1n), subnet.length);
    lines.push(`${prefix}NETWORK=${network}`, `${prefix}SUBNET=${first}`);
  }
  lines.push(`FLANNEL_MTU=${env.mtuBytes}`, `FLANNEL_IPMASQ=${env.masquerade}`);
  return lines.join("\n") + "\n";
}

/**
 * The variables of a dotenv text: `KEY=value` or `KEY: value`, `export` in front, values in single
 * or double quotes, comments. The last assignment to a name wins. Other lines are
 * skipped; nothing is expanded.
 */
export function parseDotenv(text: string): Map<string, string> {
  const variables = new Map<string, string>();
  for (const line of text.split(/\r?\n/)) {
    const match = /^\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*[=:]\s*(.*?)\s*$/.exec(line);
    if (!match) continue;
    const [, name, raw] = match;
    const quoted = /^(?:"((?:[^"\\]|\\.)*)"|'([^']*)')\s*(?:#.*)?$/.exec(raw!);
    if (quoted) variables.set(name!, quoted[1]?.replaceAll(/\\(.)/g, "$1") ?? quoted[2]!);
    else if (!/^["']/.test(raw!)) variables.set(name!, raw!.replace(/(?:^|\s+)#.*$/, ""));
  }
  return variables;
}

/**
 * The subnet that an earlier run wrote into subnet.env, to request again; `undefined` if there is
 * none. Read as upstream does: a comma-separated list, of whose entries exactly one must be a
 * prefix of the family.
 */
export function previousSubnet(text: string): LeaseSubnet | undefined {
  const variables = parseDotenv(text);
  const subnet: { ipv4?: Prefix; ipv6?: Prefix } = {};
  for (const family of FAMILIES) {
    const found = prefixes(variables.get(`${PREFIXES[family]}SUBNET`), family);
    if (found.length === 1) subnet[`ipv${family}`] = found[0]!;
  }
  return subnet.ipv4 || subnet.ipv6 ? subnet : undefined;
}

/** The networks that an earlier run served, according to subnet.env. */
export function previousNetworks(text: string): Prefix[] {
  const variables = parseDotenv(text);
  return FAMILIES.flatMap((family) =>
    prefixes(variables.get(`${PREFIXES[family]}NETWORK`), family).filter(({ length }) => length > 0)
  );
}

/** The prefixes of `family` in a comma-separated list; other entries are skipped. */
function prefixes(list: string | undefined, family: Family): Prefix[] {
  return (list ?? "").split(",").flatMap((entry) => {
    try {
      const { prefix } = InterfaceAddress.parse(entry.trim());
      return prefix.family === family ? [prefix] : [];
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      return [];
    }
  });
}

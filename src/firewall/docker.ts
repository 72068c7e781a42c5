/**
 * Docker 28 and later refuse what other hosts send to a container's own address: rules in table
 * `raw` for each container, and one in chain DOCKER for each of its bridges.
 *
 * @module
 */
import { Address, type Family, type Prefix } from "../net/mod.ts";
import type { Dump } from "./iptables_dump.ts";
import { readRule } from "./iptables_rule.ts";
import type { BaseChain, Refusal } from "./nft_verdicts.ts";

/** Lists the links of this host with their addresses, as Deno.networkInterfaces(). */
export type ListInterfaces = () => readonly { readonly name: string; readonly address: string }[];

/**
 * Whether Docker refuses packets for containers whose bridge has its address in one of `networks`.
 * Docker's other bridges are not our concern.
 */
export function isClosedByDocker(
  dump: Dump,
  networks: readonly Prefix[],
  listInterfaces: ListInterfaces,
): boolean {
  const filter = dump.get("filter");
  if (!filter?.has("DOCKER-USER")) return false;
  const closed = new Set<string>();
  for (const text of filter.get("DOCKER")?.rules ?? []) {
    const { inInterface, outInterface, source, destination, other, target } = readRule(text);
    const isForAll = !source && !destination && !other && inInterface === `!${outInterface}`;
    if (target === "DROP" && isForAll && outInterface) closed.add(outInterface);
  }
  return closed.size > 0 && listInterfaces().some(({ name, address }) => {
    const own = closed.has(name) ? Address.tryParse(address) : undefined;
    return own && networks.some((network) => network.contains(own));
  });
}

/** Docker's settings for routing to containers; `undefined` if something else refuses the packets. */
export function adviseOnDocker(
  { table, hook }: BaseChain,
  { chain, rule }: Refusal,
  { network, family, outside }: {
    readonly network: Prefix;
    readonly family: Family;
    readonly outside: readonly string[];
  },
): string | undefined {
  const isDockers = table === DOCKER_TABLE || /^DOCKER/.test(chain) ||
    /! -i (docker|br-)/.test(rule?.text ?? "") || /"(docker0|br-[0-9a-f]{12})"/.test(
      JSON.stringify(rule?.expr ?? []),
    );
  if (!isDockers) return undefined;
  const program = family === 4 ? "iptables" : "ip6tables";
  const own = `for a Docker network of its own, the option com.docker.network.bridge.`;
  if (hook === "prerouting") {
    return `set "allow-direct-routing": true in /etc/docker/daemon.json and restart Docker (28.2 ` +
      `and later; before, DOCKER_INSECURE_NO_IPTABLES_RAW=1 in its environment); or, ${own}` +
      `trusted_host_interfaces=${outside.join(":")}`;
  }
  const unprotected = `${own}gateway_mode_ipv${family}=nat-unprotected`;
  return table === DOCKER_TABLE
    ? `set "firewall-backend": "iptables" in /etc/docker/daemon.json and restart Docker; or, ` +
      unprotected
    : `${program} -I DOCKER-USER -s ${network} -d ${network} -j ACCEPT; or, ${unprotected}`;
}

/** Docker's table in nftables, which no rule elsewhere can override. */
const DOCKER_TABLE = "docker-bridges";

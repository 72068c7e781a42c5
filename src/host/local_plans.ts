/**
 * Plans that depend only on this host: the traffic rules and subnet.env. Both follow from options,
 * config and the own lease, whatever the backend.
 *
 * @module
 */
import type { Host, NetworkFamilies } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import {
  type FamilyNetwork,
  type Firewall,
  type FirewallMode,
  planRuleSets,
  type RuleSetSpec,
} from "../firewall/mod.ts";
import { renderSubnetEnv } from "./subnet_env.ts";
import type { SubnetFileSpec } from "./subnet_file_table.ts";
import type { Lease } from "../lease/lease.ts";
import { enabledFamilies, type NetworkConfig } from "../config/network_config.ts";

/** What of the network config matters here. */
interface Configured {
  readonly network: NetworkConfig;
  readonly backend: { podMtuBytes(network: NetworkFamilies, host: Host): number };
}

/** Where the config wants traffic rules. */
export function firewallMode({ network }: Pick<Configured, "network">): FirewallMode {
  return network.enableNFTables ? "nftables" : "iptables";
}

/** The families of the lease `own`: IPv4 first. */
export function ownFamilies(
  configured: Pick<Configured, "network">,
  own: Lease,
): readonly FamilyNetwork[] {
  return enabledFamilies(configured).flatMap(({ name, network }) => {
    const subnet = own.subnet[name];
    return subnet ? [{ network, subnet }] : [];
  });
}

/** The traffic rules for the subnet of the lease `own`. */
export function planTrafficRules(
  options: Options,
  configured: Configured,
  firewall: Pick<Firewall, "randomFully" | "docker">,
  own: Lease,
): readonly RuleSetSpec[] {
  return planRuleSets({
    mode: firewallMode(configured),
    families: ownFamilies(configured, own),
    masquerade: options.ipMasq,
    forward: options.iptablesForwardRules,
    noMasqueradeCidrs: options.noMasqCidr,
    randomFully: firewall.randomFully,
    docker: firewall.docker,
  });
}

/** subnet.env for the subnet of the lease `own`. */
export function planSubnetFile(
  options: Options,
  configured: Configured,
  host: Host,
  own: Lease,
): SubnetFileSpec {
  const { backend, network } = configured;
  return {
    path: options.subnetFile,
    text: renderSubnetEnv({
      families: ownFamilies(configured, own),
      mtuBytes: backend.podMtuBytes(network, host),
      masquerade: options.ipMasq,
    }),
  };
}

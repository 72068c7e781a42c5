/**
 * What this host alone decides: the traffic rules and subnet.env. Both follow from options, config
 * and the own lease, whatever the backend.
 *
 * @module
 */
import { type Host, podMtuBytes } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import {
  type Firewall,
  type FirewallMode,
  planRuleSets,
  type RuleSetSpec,
} from "../firewall/mod.ts";
import { renderSubnetEnv } from "./subnet_env.ts";
import type { SubnetFileSpec } from "./subnet_file_table.ts";
import type { Lease } from "../lease/lease.ts";
import { type ConfiguredNetwork, enabledFamilies } from "../backends/configured_network.ts";

/** Where the config wants traffic rules. */
export function firewallMode({ network }: ConfiguredNetwork): FirewallMode {
  return network.enableNFTables ? "nftables" : "iptables";
}

/** The traffic rules for the subnet of the lease `own`. */
export function planTrafficRules(
  options: Options,
  configured: ConfiguredNetwork,
  firewall: Pick<Firewall, "randomFully">,
  own: Lease,
): readonly RuleSetSpec[] {
  return planRuleSets({
    mode: firewallMode(configured),
    families: enabledFamilies(configured).flatMap(({ name, network }) => {
      const subnet = own.subnet[name];
      return subnet ? [{ network, subnet }] : [];
    }),
    masquerade: options.ipMasq,
    forward: options.iptablesForwardRules,
    noMasqueradeCidrs: options.noMasqCidr,
    randomFully: firewall.randomFully,
  });
}

/** subnet.env for the subnet of the lease `own`. */
export function planSubnetFile(
  options: Options,
  configured: ConfiguredNetwork,
  host: Host,
  own: Lease,
): SubnetFileSpec {
  const families = Object.fromEntries(
    enabledFamilies(configured).flatMap(({ name, network }) => {
      const subnet = own.subnet[name];
      return subnet ? [[name, { network, subnet }]] : [];
    }),
  );
  const { backend, backendConfig, network } = configured;
  return {
    path: options.subnetFile,
    text: renderSubnetEnv({
      ...families,
      mtuBytes: podMtuBytes(backend, backendConfig, network, host),
      masquerade: options.ipMasq,
    }),
  };
}

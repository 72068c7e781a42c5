/**
 * The host's traffic rules: masquerading of what pods send beyond the network, and leave to
 * forward their packets. `planRuleSets()` says which rules should exist, `openFirewall()` finds the
 * kernel's, in iptables (legacy or over nf_tables) or in nftables, and changes what is ours.
 *
 * @module
 */
export type { PodPaths, TunnelPath } from "./foreign_tables.ts";
export * from "./open_firewall.ts";
export * from "./plan.ts";

/**
 * The kernel's network configuration: Tables of routes, neighbours, forwarding entries, addresses
 * and links, the choice of the external interface, and a monitor of changes, all above the seam
 * {@linkcode Netlink}. What is written outlives the process, and only objects that are ours are
 * changed: routes by their protocol, everything else by the link that it is or lies on.
 *
 * @module
 */
export * from "./external_interface.ts";
export * from "./link_entry_table.ts";
export * from "./link_table.ts";
export * from "./netlink.ts";
export * from "./offload_table.ts";
export * from "./open_netlink.ts";
export * from "./route_adoption.ts";
export * from "./route_table.ts";
export * from "./sysctl.ts";
export * from "./sysctl_table.ts";
export * from "./underlay_paths.ts";
export * from "./watch_kernel.ts";

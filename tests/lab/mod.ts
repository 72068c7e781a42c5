/**
 * A cluster on one machine for demo, tests and bench: hosts as network namespaces in vSwitches that
 * share no layer 2, the VPC as a router fed from the simulated cloud's route entries in force,
 * real etcd, real daemons, pods behind a bridge.
 *
 * ```
 *   pods ─ cni0 ─ host1 ─ eth0 ──┐ h1        e1 ┌── etcd1   10.0.0.0/24
 *   pods ─ cni0 ─ host3 ─ eth0 ──┤ h3  router   │
 *            10.0.1.0/24         │              │   on the router: 100.100.100.200 metadata,
 *   pods ─ cni0 ─ host2 ─ eth0 ──┘ h2           │   100.100.0.10 API (the simulator)
 *            10.0.2.0/24
 * ```
 *
 * For backends of the kernel, `topology: "l2"` or `"routed"` puts the hosts on Ethernet segments of
 * IPv4, IPv6 or both instead, and `natHosts` some of them behind NAT:
 *
 * ```
 *   pods ─ cni0 ─ host1 ─ eth0 ─┐ h1 ┌─────┐         ┌─────┐ e1 ┌─ etcd1
 *   pods ─ cni0 ─ host3 ─ eth0 ─┤ h3 ┤ br1 ├─ routes ┤ br0 ├────┘
 *             10.0.1.0/24            └─────┘    │    └─────┘
 *             fd00:10:0:1::/64               ┌──┴──┐ h2 ┌─ eth0 ─ nat ─ eth0 ─ host2 ─ cni0 ─ pods
 *                               10.0.2.0/24  │ br2 ├────┘       192.168.77.0/24
 *                                            └─────┘
 * ```
 *
 * Start with {@linkcode openLab}; everything is removed when the lab is disposed, when its process
 * is killed, or at the latest when the next one starts.
 *
 * @module
 */
export * from "./cloud.ts";
export * from "./daemon.ts";
export * from "./etcd.ts";
export * from "./fabric.ts";
export * from "./host.ts";
export * from "./iperf.ts";
export * from "./lab.ts";
export * from "./lab_test_case.ts";
export * from "./loss_probe.ts";
export * from "./ping.ts";
export * from "./plan.ts";
export * from "./program.ts";
export * from "./running_cloud.ts";
export * from "./subnet_env.ts";
export * from "./upstream_node.ts";
export * from "./vpc_router.ts";

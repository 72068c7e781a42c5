/**
 * The backends, each a pure {@linkcode Backend} in a file of its own. What else they need is in
 * `src/runtime`, and so is the table of them all.
 *
 * @module
 */
export { alloc } from "./alloc.ts";
export {
  aliVpc,
  type AliVpcClaim,
  type AliVpcConfig,
  type AliVpcFacts,
  type AliVpcOverflow,
  readAliVpcClaim,
} from "./ali_vpc.ts";
export * from "./backend.ts";
export { hostGw, type HostGwConfig, type HostGwFacts } from "./host_gw.ts";
export { ipip, type IpipConfig, type IpipFacts } from "./ipip.ts";
export * from "./network_plan.ts";
export type { PeerPaths } from "./peers.ts";
export { udp, UDP_LINK_NAME, type UdpConfig } from "./udp.ts";
export { vxlanLinkName } from "./vtep.ts";
export { readVtepMac, vxlan, type VxlanConfig, type VxlanFacts } from "./vxlan.ts";

/**
 * The table of backends: each one is a pure {@linkcode Backend} in a file of its own, and adding
 * one is that file and a line here.
 *
 * @module
 */
import { ConfigError } from "../errors.ts";
import { aliVpc } from "./ali_vpc.ts";
import { alloc } from "./alloc.ts";
import type { Backend } from "./backend.ts";
import { hostGw } from "./host_gw.ts";
import { ipip } from "./ipip.ts";
import { udp } from "./udp.ts";
import { vxlan } from "./vxlan.ts";

export { aliVpc, alloc, hostGw, ipip, udp, vxlan };
export {
  type AliVpcClaim,
  type AliVpcConfig,
  type AliVpcFacts,
  type AliVpcOverflow,
  readAliVpcClaim,
} from "./ali_vpc.ts";
export * from "./backend.ts";
export type { HostGwConfig, HostGwFacts } from "./host_gw.ts";
export type { IpipConfig, IpipFacts } from "./ipip.ts";
export { type PeerPaths, STEP_PEERS } from "./peers.ts";
export { UDP_LINK_NAME, type UdpConfig } from "./udp.ts";
export { vxlanLinkName } from "./vtep.ts";
export { readVtepMac, type VxlanConfig, type VxlanFacts } from "./vxlan.ts";

/** Every backend by its `Backend.Type` in lower case. */
export const backends = {
  "alloc": alloc,
  "ali-vpc": aliVpc,
  "host-gw": hostGw,
  "ipip": ipip,
  "udp": udp,
  "vxlan": vxlan,
} as const;

/** A backend whose config and facts only itself understands. */
// deno-lint-ignore no-explicit-any
export type AnyBackend = Backend<any, any>;

/**
 * The backend of `Backend.Type`.
 *
 * @throws {ConfigError} Naming the backends there are.
 */
export function findBackend(type: string): AnyBackend {
  if (Object.hasOwn(backends, type)) return backends[type as keyof typeof backends];
  throw new ConfigError("network config", [
    `unknown backend type "${type}"; this flanneld has ${Object.keys(backends).join(", ")}`,
  ]);
}

/**
 * The table of backends: each one is a pure {@linkcode Backend} in a file of its own, and adding
 * one is that file and a line here.
 *
 * @module
 */
import { printable } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import { firstOddCharacter } from "../util/characters.ts";
import { nearest } from "../util/nearest.ts";
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

/** Upstream's types that are not built here, and the last release that had those it gave up. */
const UPSTREAM_TYPES: ReadonlyMap<string, string | undefined> = new Map([
  ["extension", undefined],
  ["ipsec", undefined],
  ["tencent-vpc", undefined],
  ["wireguard", undefined],
  ["aws-vpc", "v0.19"],
  ["gce", "v0.19"],
]);

/**
 * The backend of `Backend.Type`.
 *
 * @throws {ConfigError} Naming the nearest type, and those that there are.
 */
export function findBackend(type: string): AnyBackend {
  if (Object.hasOwn(backends, type)) return backends[type as keyof typeof backends];
  const names = Object.keys(backends);
  const present = `this flanneld has ${names.join(", ")}`;
  const hint = nearest(type, [...names, ...UPSTREAM_TYPES.keys()]);
  if (hint !== undefined && UPSTREAM_TYPES.has(hint)) {
    const last = UPSTREAM_TYPES.get(hint);
    const whose = last === undefined ? "upstream flannel's" : `upstream flannel's until ${last}`;
    throw new ConfigError("network config", [
      `backend type ${JSON.stringify(hint)} is ${whose} and is not built here yet; ${present}`,
    ]);
  }
  const shown = printable(type);
  const odd = firstOddCharacter(type);
  throw new ConfigError("network config", [
    `unknown backend type ${shown.startsWith('"') ? shown : `"${shown}"`}` +
    (odd === undefined ? "" : `, which holds ${odd}`) +
    (hint === undefined ? "" : `; did you mean "${hint}"?`) + `; ${present}`,
  ]);
}

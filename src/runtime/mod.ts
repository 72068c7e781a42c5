/**
 * The table of backends. Adding one is its pure file in `src/backends`, a file here if it needs more
 * than its plan, and an entry in the table.
 *
 * @module
 */
import { aliVpc, alloc, hostGw, ipip, udp, vxlan } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import { printable } from "../config/fields.ts";
import { ConfigError } from "../errors.ts";
import { Address } from "../net/mod.ts";
import { firstOddCharacter } from "../util/characters.ts";
import { nearest } from "../util/nearest.ts";
import { backendEntry, PLAN_ONLY } from "./entry.ts";
import type { BackendEntry } from "./runtime.ts";

/** What the hint at a missing config shows; the network of the Alibaba guide. */
export const EXAMPLE_CONFIG = '{"Network":"10.24.0.0/16","Backend":{"Type":"ali-vpc"}}';

/** Every backend. What only one of them needs, such as a cloud's SDK, is loaded by it alone. */
export const backends: readonly BackendEntry[] = [
  backendEntry(alloc, PLAN_ONLY),
  backendEntry(aliVpc, {
    open: async (context, config) =>
      (await import("./cloud.ts"))
        .openCloudRuntime(await aliCloud(context.options), context, config),
    services({ aliMetadataEndpoint: { hostname } }) {
      const address = Address.tryParse(hostname);
      return address ? [{ address, what: `the metadata service ${address}` }] : [];
    },
    remnants: {
      kind: "route entry",
      what: "route entries in the VPC",
      warning: "Route entries of this host may be left in the VPC, until its instance is " +
        "released and the route leader removes them",
      remove: async (context, config) =>
        (await import("./cloud.ts"))
          .removeRemnants(await aliCloud(context.options), context, config),
    },
    selfTest: {
      name: "Alibaba Cloud client",
      use: async (options) => (await import("../cloud/ali/self_check.ts")).useClient(options),
    },
  }),
  backendEntry(hostGw, {
    open: async (...args) => (await import("./kernel.ts")).openHostGw(...args),
  }),
  backendEntry(ipip, { open: async (...args) => (await import("./kernel.ts")).openIpip(...args) }),
  backendEntry(udp, {
    open: async (...args) => (await import("./udp/runtime.ts")).openUdpRuntime(...args),
    selfTest: {
      name: "packet worker",
      use: async (options) => (await import("./udp/self_check.ts")).useWorker(options),
    },
  }),
  backendEntry(vxlan, {
    open: async (...args) => (await import("./kernel.ts")).openVxlan(...args),
  }),
];

/** Alibaba Cloud, as the command line would have it. */
async function aliCloud(options: Options) {
  const { aliVpc: cloud } = await import("../cloud/ali/mod.ts");
  return cloud({
    mayLead: options.aliRouteWriter === "auto",
    endpoints: {
      ...(options.aliVpcEndpoint ? { vpc: options.aliVpcEndpoint.href } : {}),
      ...(options.aliEcsEndpoint ? { ecs: options.aliEcsEndpoint.href } : {}),
      metadata: options.aliMetadataEndpoint.href,
    },
  });
}

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
 * The entry of `Backend.Type` in `table`.
 *
 * @throws {ConfigError} Naming the nearest type, and those that there are.
 */
export function findBackend(
  type: string,
  table: readonly BackendEntry[] = backends,
): BackendEntry {
  const found = table.find((entry) => entry.type === type);
  if (found) return found;
  const names = table.map((entry) => entry.type);
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

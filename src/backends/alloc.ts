/**
 * Backend `alloc`: a lease and subnet.env, nothing else.
 *
 * @module
 */
import { FieldReader } from "../config/fields.ts";
import type { Backend } from "./backend.ts";

/** `alloc` has no settings. */
export type AllocConfig = Readonly<Record<never, never>>;

/**
 * `alloc`: takes a lease and programs nothing. The lease holds one public address and nothing
 * else, as upstream writes it, and the MTU is the external link's.
 */
export const alloc: Backend<AllocConfig> = {
  type: "alloc",
  families: [4, 6],

  parseConfig(options) {
    const fields = new FieldReader(options, { subject: "Backend" });
    fields.string("Type");
    return { config: {}, warnings: fields.finish() };
  },

  changesKernel: () => false,

  overheadBytes: () => 0,

  // With both families upstream publishes the IPv4 address alone; a host is known by one of them.
  announce: (_config, { publicIp, publicIpv6 }) => ({
    ...(publicIp ? { publicIp } : publicIpv6 ? { publicIpv6 } : {}),
    backendType: "",
  }),

  planHost: () => ({}),
};

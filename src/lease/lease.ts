/**
 * What a lease is.
 *
 * @module
 */
import type { Address, Prefix } from "../net/mod.ts";

/** Any JSON value. */
export type Json = null | boolean | number | string | readonly Json[] | {
  readonly [key: string]: Json;
};

/** The subnets of one host; at least one family is present. */
export interface LeaseSubnet {
  readonly ipv4?: Prefix;
  readonly ipv6?: Prefix;
}

/** What a host publishes about itself. */
export interface LeaseAttributes {
  readonly publicIp?: Address;
  readonly publicIpv6?: Address;
  /** Empty for udp, alloc and the cloud backends, as upstream writes it. */
  readonly backendType: string;
  readonly backendData?: Json;
  readonly backendV6Data?: Json;
}

/** One host's share of the network. */
export interface Lease {
  /** Identity in the store; in etcd its text for the subnets, such as `10.3.4.0-24`. */
  readonly key: string;
  readonly subnet: LeaseSubnet;
  readonly attributes: LeaseAttributes;
}

/** `10.3.4.0/24` or `10.3.4.0/24 and fd00::/64`, for messages. */
export function formatSubnet(subnet: LeaseSubnet): string {
  return [subnet.ipv4, subnet.ipv6].filter((prefix) => prefix !== undefined).join(" and ");
}

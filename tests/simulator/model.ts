/**
 * The objects of the simulated cloud, as plain data: what a snapshot carries.
 *
 * @module
 */

/** Life cycle of a route entry. An entry that is deleted ceases to exist. */
export type RouteStatus = "Pending" | "Available" | "Modifying" | "Deleting";

export type RouteEntryType = "Custom" | "System" | "BGP" | "CEN" | "ECR";

/** Hop types that the create calls accept (VPC API 2016-04-28, CreateRouteEntry). */
export const NEXT_HOP_TYPES = [
  "Instance",
  "HaVip",
  "RouterInterface",
  "NetworkInterface",
  "VpnGateway",
  "IPv6Gateway",
  "NatGateway",
  "Attachment",
  "VpcPeer",
  "Ipv4Gateway",
  "GatewayEndpoint",
  "CenBasic",
  "Ecr",
  "GatewayLoadBalancerEndpoint",
  "RouteTargetGroup",
] as const;

export type NextHopType = typeof NEXT_HOP_TYPES[number] | "local";

export interface NextHop {
  type: NextHopType;
  /** Empty for `local`. */
  id: string;
  weight?: number;
}

export interface RouteEntry {
  readonly id: string;
  readonly routeTableId: string;
  /** Canonical CIDR. */
  readonly destination: string;
  type: RouteEntryType;
  status: RouteStatus;
  name: string;
  description: string;
  nextHops: NextHop[];
  /** "TR" where a transit router hosts the entry. */
  serviceType?: string;
  modifiedAtMs: number;
}

export interface RouteTable {
  readonly id: string;
  readonly vpcId: string;
  readonly type: "System" | "Custom";
  /** A gateway table is bound to an IPv4 gateway and has its own API. */
  readonly associate: "VSwitch" | "Gateway";
  readonly gatewayId?: string;
  name: string;
  /** Limit of custom entries; absent where the account's limit holds. */
  quota?: number;
}

export interface Vpc {
  readonly id: string;
  readonly regionId: string;
  readonly accountId: string;
  readonly name: string;
  readonly cidr: string;
  readonly secondaryCidrs: string[];
  readonly userCidrs: string[];
  readonly ipv6Cidr?: string;
  readonly routerId: string;
  status: "Available" | "Pending";
  /** Hops other than instances and interfaces: gateways, VPN, peers. */
  readonly gateways: { readonly id: string; readonly type: NextHopType }[];
}

export interface VSwitch {
  readonly id: string;
  readonly vpcId: string;
  readonly zoneId: string;
  readonly name: string;
  readonly cidr: string;
  readonly ipv6Cidr?: string;
  /** The table that decides where packets of this vSwitch go. */
  routeTableId: string;
}

export interface NetworkInterface {
  readonly id: string;
  readonly instanceId: string;
  readonly vpcId: string;
  readonly vSwitchId: string;
  readonly mac: string;
  readonly type: "Primary" | "Secondary";
  readonly privateIp: string;
  readonly ipv6s: string[];
  /** Prefixes delegated to the interface. */
  readonly ipv4Prefixes: string[];
  readonly ipv6Prefixes: string[];
  sourceDestCheck: boolean;
}

export interface Instance {
  readonly id: string;
  readonly name: string;
  readonly vpcId: string;
  readonly vSwitchId: string;
  readonly privateIp: string;
  readonly publicIp?: string;
  readonly mac: string;
  readonly networkInterfaceId: string;
  status: "Running" | "Stopped" | "Starting" | "Stopping";
  /** RAM role whose credentials the metadata service hands out. */
  ramRole?: string;
  /** `required`: the metadata service answers only with a token (IMDSv2). */
  httpTokens: "optional" | "required";
}

/** One hop that packets really take: an entry in force, resolved to an interface. */
export interface ForwardingEntry {
  readonly routeTableId: string;
  readonly destination: string;
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  /** Private IPv4 address of the interface. */
  readonly via: string;
}

/** The whole data-plane relevant state at one moment. */
export interface CloudSnapshot {
  /** Grows with each change of the state. */
  readonly version: number;
  readonly vpcs: readonly Vpc[];
  readonly vSwitches: readonly VSwitch[];
  readonly routeTables: readonly RouteTable[];
  readonly routeEntries: readonly RouteEntry[];
  readonly instances: readonly Instance[];
  readonly networkInterfaces: readonly NetworkInterface[];
  /**
   * What a router should do now: the instance and interface hops of entries in force. An entry in
   * status Modifying keeps its old hop until the change is Available; a Pending or Deleting one
   * carries nothing, nor does one whose instance is gone or not running.
   */
  readonly forwarding: readonly ForwardingEntry[];
}

/** One request as the simulator saw it. Never holds a secret, signature or token. */
export interface RequestRecord {
  readonly sequence: number;
  readonly service: "vpc" | "ecs" | "sts" | "metadata";
  /** The API action, or `GET /path` for the metadata service. */
  readonly action: string;
  readonly method: string;
  readonly params: Readonly<Record<string, string>>;
  readonly accessKeyId: string;
  /** Address of the caller's end of the connection. */
  readonly source: string;
  readonly startedAtMs: number;
  /** -1 until answered. */
  finishedAtMs: number;
  /** HTTP status, or 0 where the connection ended without an answer. */
  status: number;
  /** `OK`, the error code, or `dropped`, `truncated`, `no answer`. */
  code: string;
  /** Whether a write took effect, also where the answer was lost. */
  performed: boolean;
  requestId: string;
}

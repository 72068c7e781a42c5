import { Address, addressBits, type Family, Prefix } from "../../src/net/mod.ts";
import { ApiError } from "./api_error.ts";
import {
  NEXT_HOP_TYPES,
  type NextHop,
  type NextHopType,
  type RouteTable,
  type Vpc,
} from "./model.ts";
import type { Network } from "./network.ts";

/** Metadata, DNS and other cloud services live here; no route may point elsewhere. */
export const SERVICE_RANGE = Prefix.parse("100.64.0.0/10");

/** Where a checked destination and its hops are to go. */
export interface Target {
  readonly vpc: Vpc;
  readonly table: RouteTable;
}

/**
 * A destination as the API takes it: a CIDR without host bits, or a bare address as /32 or /128.
 *
 * @throws {ApiError} `InvalidCidrBlock.Malformed`
 */
export function parseDestination(text: string): Prefix {
  const bare = Address.tryParse(text);
  if (bare) return new Prefix(bare, addressBits(bare.family));
  const prefix = Prefix.tryParse(text);
  if (!prefix || !prefix.address.equals(Address.parse(text.slice(0, text.indexOf("/"))))) {
    throw new ApiError(
      400,
      "InvalidCidrBlock.Malformed",
      `The specified CIDR block ${text} is not valid.`,
    );
  }
  return prefix;
}

/**
 * Applies the destination rules of CreateRouteEntry.
 *
 * @throws {ApiError} With the code of the rule that is broken.
 */
export function checkDestination(destination: Prefix, target: Target, network: Network): void {
  if (destination.family === 6) return checkIpv6Destination(destination, target, network);
  if (destination.overlaps(SERVICE_RANGE) && destination.length >= SERVICE_RANGE.length) {
    throw new ApiError(
      400,
      "InvalidDestinationCidrBlock",
      "The specified DestinationCidrBlock is not valid: 100.64.0.0/10 is reserved.",
    );
  }
  const isDefault = destination.length === 0;
  const first = destination.address;
  if (!isDefault && (first.isMulticast() || first.isLoopback() || first.isLinkLocal())) {
    throw invalidBlock();
  }
  for (const vSwitch of network.vSwitchesOf(target.vpc.id)) {
    if (Prefix.parse(vSwitch.cidr).contains(destination)) throw invalidBlock();
  }
}

function checkIpv6Destination(destination: Prefix, { vpc, table }: Target, network: Network): void {
  if (vpc.ipv6Cidr === undefined) {
    throw new ApiError(
      400,
      "OperationDenied.VpcIpv6NotEnabled",
      "The operation is not allowed because IPv6 is not enabled for the VPC.",
    );
  }
  if (table.type === "Custom") {
    throw new ApiError(
      400,
      "OperationDenied.Ipv6EntryOnCustomTable",
      "The custom route table does not support IPv6 route entries.",
    );
  }
  for (const { ipv6Cidr } of network.vSwitchesOf(vpc.id)) {
    if (ipv6Cidr !== undefined && Prefix.parse(ipv6Cidr).contains(destination)) {
      throw new ApiError(
        400,
        "OperationUnsupported.DestinationCidrBlockOverlapWithVSwitch",
        "The DestinationCidrBlock overlaps with the IPv6 CIDR block of a vSwitch.",
      );
    }
  }
}

/**
 * The hop that `type` and `id` name, if packets of `family` may be sent to it from `vpc`.
 *
 * @param type As sent; absent means Instance.
 * @throws {ApiError} With the code for a hop that is unknown, elsewhere or unfit.
 */
export function checkNextHop(
  hop: { readonly type: string | undefined; readonly id: string },
  options: { readonly vpc: Vpc; readonly family: Family; readonly network: Network },
): NextHop {
  const { vpc, family, network } = options;
  const type = parseHopType(hop.type ?? "Instance");
  if (type === "Instance") {
    const instance = network.instances.get(hop.id);
    if (!instance || network.vpc(instance.vpcId).accountId !== vpc.accountId) {
      throw new ApiError(
        404,
        "InvalidInstanId.NotFound",
        "The specified InstanceId does not exist.",
      );
    }
    if (instance.vpcId !== vpc.id) {
      throw new ApiError(
        404,
        "OperationFailed.InstanceDismatchCurrentVpc",
        "The instance does not belong to the current VPC.",
      );
    }
    if (instance.status === "Starting" || instance.status === "Stopping") {
      throw new ApiError(400, "IncorrectInstanceStatus", "The instance status is incorrect.");
    }
    if (family === 6) checkIpv6Hop(network.interfacesOf(instance.id)[0]?.ipv6s ?? []);
    return { type, id: hop.id };
  }
  if (type === "NetworkInterface") {
    const found = network.interfaces.get(hop.id);
    if (!found || found.vpcId !== vpc.id) throw unknownHop();
    if (family === 6) {
      if (found.type === "Primary") {
        throw new ApiError(
          400,
          "OperationUnsupported.Ipv6EntryOnPrimaryNetworkInterface",
          "The primary network interface cannot be the next hop of an IPv6 route entry.",
        );
      }
      checkIpv6Hop(found.ipv6s);
    }
    return { type, id: hop.id };
  }
  if (!vpc.gateways.some((each) => each.id === hop.id && each.type === type)) throw unknownHop();
  return { type, id: hop.id };
}

function checkIpv6Hop(addresses: readonly string[]): void {
  if (addresses.length === 0) {
    throw new ApiError(
      400,
      "OperationFailed.NotSupportIPV6",
      "The next hop does not support IPv6.",
    );
  }
  if (addresses.length > 1) {
    throw new ApiError(
      400,
      "OperationUnsupported.MutipleIpv6Address",
      "The next hop has several IPv6 addresses.",
    );
  }
}

function parseHopType(text: string): NextHopType {
  const known = NEXT_HOP_TYPES.find((type) => type.toLowerCase() === text.toLowerCase());
  if (!known) {
    throw new ApiError(400, "IllegalParam.NextHopType", "The specified NextHopType is not valid.");
  }
  return known;
}

/** @throws {ApiError} If a name or description is too long or looks like a URL. */
export function checkText(field: string, value: string | undefined, maxLength: number): void {
  if (value === undefined) return;
  if (value.length > maxLength || /^https?:\/\//.test(value)) {
    throw new ApiError(400, `IllegalParam.${field}`, `The specified ${field} is not valid.`);
  }
}

function invalidBlock(): ApiError {
  return new ApiError(400, "InvalidCidrBlock", "Specified CIDR block is not valid.");
}

function unknownHop(): ApiError {
  return new ApiError(404, "InvalidNextHopId.NotFound", "The specified NextHopId does not exist.");
}

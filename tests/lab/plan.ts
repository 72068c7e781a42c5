import { Address, MacAddress, Prefix } from "../../src/net/mod.ts";
import type { HostIdentity } from "./host.ts";
import type { Port } from "./vpc_router.ts";

/** Where instances find the metadata service, as on ECS. */
export const METADATA_ADDRESS = "100.100.100.200";
/** Where they find the APIs. */
export const API_ADDRESS = "100.100.0.10";

export const REGION_ID = "cn-hangzhou";
export const VPC_ID = "vpc-bp1lab";
export const VPC_CIDR = "10.0.0.0/16";
export const ROUTER_ID = "vrt-bp1lab";
export const SYSTEM_TABLE_ID = "vtb-bp1lab";
/** The vSwitch that etcd is in. */
export const SERVICE_VSWITCH_ID = "vsw-bp1lab-service";

/** The machine addresses of an ECS instance begin with Xen's prefix. */
const MAC_BASE = 0x00163e000000n;
/** First address of a vSwitch that a host gets; the guide's etcd has number 5. */
const FIRST_HOST = 10n;
const FIRST_ETCD = 5n;

/** IPv6 addresses of the lab's underlay; the fourth group is the number of the vSwitch. */
const UNDERLAY_V6 = Prefix.parse("fd00:10::/48");
/** Between a NAT router and the host behind it. */
const INSIDE_NAT = Prefix.parse("192.168.77.0/24");

/** The address families of a lab's underlay. */
export type UnderlayFamilies = "v4" | "v6" | "dual";

/** A vSwitch of the lab, or an Ethernet segment where there is no cloud. */
export interface VSwitchPlan {
  readonly id: string;
  readonly zoneId: string;
  readonly prefix: Prefix;
  /** The gateway is the third address from the end, as in a real vSwitch. */
  readonly gateway: Address;
  readonly prefixV6: Prefix;
  readonly gatewayV6: Address;
  readonly routeTableId: string;
}

/** Names and addresses of a lab; nothing of it exists yet. */
export interface LabPlan {
  readonly vSwitches: readonly VSwitchPlan[];
  readonly serviceVSwitch: VSwitchPlan;
  readonly hosts: readonly HostIdentity[];
  readonly etcdPorts: readonly Port[];
}

/** Options of {@linkcode planLab}. */
export interface PlanOptions {
  readonly hosts: number;
  readonly vSwitches: number;
  readonly etcdMembers: number;
  /** `own`: each vSwitch is bound to a custom table; `system`: all to the system table. */
  readonly routeTables: "system" | "own";
  /** @default {"v4"} */
  readonly underlay?: UnderlayFamilies;
  /** Labels of hosts that sit behind a NAT router of their own; IPv4 only. @default {[]} */
  readonly natHosts?: readonly string[];
}

/**
 * Spreads hosts over vSwitches in turn.
 *
 * @throws {RangeError} If the numbers do not fit a VPC of 10.0.0.0/16 with /24 vSwitches.
 */
export function planLab(options: PlanOptions): LabPlan {
  const { hosts, vSwitches, etcdMembers, routeTables, underlay = "v4", natHosts = [] } = options;
  if (natHosts.length > 0 && underlay !== "v4") {
    throw new RangeError("Cannot put hosts behind NAT: that is for underlays of IPv4 alone");
  }
  for (
    const [what, value, max] of [
      ["vSwitches", vSwitches, 200],
      ["hosts", hosts, vSwitches * 200],
      ["etcd members", etcdMembers, 7],
    ] as const
  ) {
    const least = what === "vSwitches" ? 1 : 0;
    if (!Number.isInteger(value) || value < least || value > max) {
      throw new RangeError(
        `Cannot make a lab with ${value} ${what}: it is not in ${least}..${max}`,
      );
    }
  }
  const switches = Array.from({ length: vSwitches }, (_, index) => {
    const number = index + 1;
    const tableId = routeTables === "own" ? `${SYSTEM_TABLE_ID}-${number}` : SYSTEM_TABLE_ID;
    return planVSwitch(
      `vsw-bp1lab-${number}`,
      `${REGION_ID}-${"hijk"[index % 4]}`,
      number,
      tableId,
    );
  });
  const serviceVSwitch = planVSwitch(SERVICE_VSWITCH_ID, `${REGION_ID}-h`, 0, SYSTEM_TABLE_ID);
  return {
    vSwitches: switches,
    serviceVSwitch,
    hosts: Array.from({ length: hosts }, (_, index) => {
      const vSwitch = switches[index % vSwitches]!;
      const number = String(index + 1);
      const label = `host${number}`;
      const address = FIRST_HOST + BigInt(Math.floor(index / vSwitches));
      const port = planPort(`h${number}`, vSwitch, address, underlay);
      return {
        label,
        instanceId: `i-bp1lab${number.padStart(3, "0")}`,
        networkInterfaceId: `eni-bp1lab${number.padStart(3, "0")}`,
        vSwitchId: vSwitch.id,
        ...(natHosts.includes(label) ? { port: planInsidePort(), outside: port } : { port }),
      };
    }),
    etcdPorts: Array.from(
      { length: etcdMembers },
      (_, index) => planPort(`e${index + 1}`, serviceVSwitch, FIRST_ETCD + BigInt(index), underlay),
    ),
  };
}

function planVSwitch(
  id: string,
  zoneId: string,
  number: number,
  routeTableId: string,
): VSwitchPlan {
  const prefix = new Prefix(Prefix.parse(VPC_CIDR).address.add(BigInt(number) << 8n), 24);
  const prefixV6 = new Prefix(UNDERLAY_V6.address.add(BigInt(number) << 64n), 64);
  return {
    id,
    zoneId,
    prefix,
    gateway: prefix.last.add(-2n),
    prefixV6,
    gatewayV6: prefixV6.address.add(253n),
    routeTableId,
  };
}

function planPort(
  name: string,
  vSwitch: VSwitchPlan,
  number: bigint,
  underlay: UnderlayFamilies,
): Port {
  const v4 = {
    address: vSwitch.prefix.address.add(number).toString(),
    gateway: vSwitch.gateway.toString(),
    prefixLength: vSwitch.prefix.length,
  };
  const v6 = {
    address: vSwitch.prefixV6.address.add(number).toString(),
    gateway: vSwitch.gatewayV6.toString(),
    prefixLength: vSwitch.prefixV6.length,
  };
  return {
    name,
    mac: macOf(v4.address),
    ...(underlay === "v6" ? v6 : v4),
    ...(underlay === "dual" ? { also: v6 } : {}),
  };
}

/** The port of a host behind NAT, towards its own router. Each such host has the same address. */
function planInsidePort(): Port {
  const address = INSIDE_NAT.address.add(FIRST_HOST).toString();
  const gateway = INSIDE_NAT.address.add(1n).toString();
  return { name: "inside", mac: macOf(address), address, gateway, prefixLength: INSIDE_NAT.length };
}

function macOf(address: string): string {
  const mac = new Uint8Array(8);
  new DataView(mac.buffer).setBigUint64(0, MAC_BASE + (Address.parse(address).value & 0xffffffn));
  return MacAddress.fromBytes(mac.subarray(2)).toString();
}

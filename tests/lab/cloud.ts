import type { BehaviourConfig, CloudConfig, FaultConfig } from "../simulator/config.ts";
import type { CloudSnapshot } from "../simulator/model.ts";
import {
  type LabPlan,
  REGION_ID,
  ROUTER_ID,
  SYSTEM_TABLE_ID,
  VPC_CIDR,
  VPC_ID,
  type VSwitchPlan,
} from "./plan.ts";
import type { RouterState } from "./vpc_router.ts";

/** The RAM role that instances may be given; nobody has it by default. */
export const RAM_ROLE = "flannel-node";
/** A next hop that is nobody's instance: the default route of every table leads there. */
export const NAT_GATEWAY_ID = "ngw-bp1lab";

/** How a lab's cloud differs from a well-behaved one. */
export interface LabCloudOptions {
  readonly behaviour?: BehaviourConfig;
  readonly faults?: readonly FaultConfig[];
  /** Seed of the simulator's randomness. @default {1} */
  readonly seed?: number;
  /** Gives every instance the RAM role {@linkcode RAM_ROLE}. @default {false} */
  readonly ramRole?: boolean;
  /** Whether the check of new instances' interfaces is on. @default {true} */
  readonly sourceDestCheck?: boolean;
  /** PEM files; with them the APIs are served by HTTPS on port 443, else by HTTP on port 80. */
  readonly tls?: { readonly certFile: string; readonly keyFile: string };
  /** Last word on the config. */
  readonly customise?: (config: CloudConfig) => CloudConfig;
}

/** A key of the cloud account. */
export interface AccessKey {
  readonly id: string;
  readonly secret: string;
}

/** The cloud of a plan: one VPC with its vSwitches, route tables and instances. */
export function planCloud(
  plan: LabPlan,
  accessKey: AccessKey,
  options: LabCloudOptions = {},
): CloudConfig {
  const vSwitches = [plan.serviceVSwitch, ...plan.vSwitches];
  const tableIds = [...new Set([SYSTEM_TABLE_ID, ...vSwitches.map((each) => each.routeTableId)])];
  const config: CloudConfig = {
    ...(options.seed === undefined ? {} : { seed: options.seed }),
    regionId: REGION_ID,
    vpcs: [{
      id: VPC_ID,
      name: "lab",
      cidr: VPC_CIDR,
      routerId: ROUTER_ID,
      gateways: [{ id: NAT_GATEWAY_ID, type: "NatGateway" }],
    }],
    vSwitches: vSwitches.map(({ id, zoneId, prefix, routeTableId }: VSwitchPlan) => ({
      id,
      zoneId,
      cidr: prefix.toString(),
      routeTableId,
    })),
    routeTables: tableIds.map((id) => ({
      id,
      type: id === SYSTEM_TABLE_ID ? "System" : "Custom",
      entries: [{
        destination: "0.0.0.0/0",
        nextHops: [{ type: "NatGateway", id: NAT_GATEWAY_ID }],
        name: "internet",
      }],
    })),
    instances: plan.hosts.map((host) => ({
      id: host.instanceId,
      name: host.label,
      vSwitchId: host.vSwitchId,
      privateIp: host.port.address,
      mac: host.port.mac,
      networkInterfaceId: host.networkInterfaceId,
      sourceDestCheck: options.sourceDestCheck ?? true,
      ...(options.ramRole ? { ramRole: RAM_ROLE } : {}),
    })),
    accessKeys: [{ id: accessKey.id, secret: accessKey.secret }],
    roles: [{ name: RAM_ROLE }],
    behaviour: options.behaviour ?? {},
    faults: [...options.faults ?? []],
  };
  return options.customise?.(config) ?? config;
}

/** What the lab's router has to do, by the cloud's own account of what is in force. */
export function routerState(snapshot: CloudSnapshot, plan: LabPlan): RouterState {
  const tableOfVSwitch = new Map(snapshot.vSwitches.map((each) => [each.id, each.routeTableId]));
  const tableOf = (vSwitchId: string) => {
    const table = tableOfVSwitch.get(vSwitchId);
    if (table === undefined) throw new Error(`Cannot route for ${vSwitchId}: the cloud lacks it`);
    return table;
  };
  const tableOfPort = new Map([
    ...plan.hosts.map(({ port, vSwitchId }) => [port.name, tableOf(vSwitchId)] as const),
    ...plan.etcdPorts.map(({ name }) => [name, tableOf(plan.serviceVSwitch.id)] as const),
  ]);
  const tables = new Set(tableOfPort.values());
  const checked = new Set(
    snapshot.networkInterfaces.filter((each) => each.sourceDestCheck).map(({ id }) => id),
  );
  return {
    tableOfPort,
    routes: snapshot.forwarding.filter(({ routeTableId }) => tables.has(routeTableId)).map(
      ({ routeTableId, destination, networkInterfaceId }) => ({
        tableId: routeTableId,
        destination,
        port: plan.hosts.find((host) => host.networkInterfaceId === networkInterfaceId)?.port.name,
      }),
    ),
    checkedPorts: new Set(
      plan.hosts.filter(({ networkInterfaceId }) => checked.has(networkInterfaceId))
        .map(({ port }) => port.name),
    ),
  };
}

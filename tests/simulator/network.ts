import type { InferOutput } from "valibot";
import { Prefix } from "../../src/net/mod.ts";
import { type cloudConfig, type InstanceConfig, instanceConfig, parseConfig } from "./config.ts";
import type { Instance, NetworkInterface, RouteTable, Vpc, VSwitch } from "./model.ts";
import type { SeededRandom } from "./random.ts";

type ParsedCloud = InferOutput<typeof cloudConfig>;

/** VPCs, vSwitches, route tables without their entries, instances and interfaces. */
export class Network {
  readonly vpcs = new Map<string, Vpc>();
  readonly vSwitches = new Map<string, VSwitch>();
  readonly routeTables = new Map<string, RouteTable>();
  readonly instances = new Map<string, Instance>();
  readonly interfaces = new Map<string, NetworkInterface>();
  readonly #random: SeededRandom;

  constructor(config: ParsedCloud, context: { random: SeededRandom }) {
    this.#random = context.random;
    for (const vpc of config.vpcs) {
      const { ipv6Cidr, ...rest } = vpc;
      this.vpcs.set(vpc.id, {
        ...rest,
        ...(ipv6Cidr === undefined ? {} : { ipv6Cidr }),
        cidr: canonical(vpc.cidr),
        regionId: vpc.regionId ?? config.regionId,
        accountId: vpc.accountId ?? config.accountId,
        routerId: vpc.routerId ?? `vrt-${vpc.id.replace(/^vpc-/, "")}`,
        status: "Available",
      });
    }
    for (const table of config.routeTables) {
      this.routeTables.set(table.id, {
        id: table.id,
        vpcId: this.#vpcOf(table).id,
        type: table.type,
        associate: table.gatewayId === undefined ? "VSwitch" : "Gateway",
        name: table.name,
        ...(table.gatewayId === undefined ? {} : { gatewayId: table.gatewayId }),
        ...(table.quota === undefined ? {} : { quota: table.quota }),
      });
    }
    for (const vpc of this.vpcs.values()) {
      if (this.#tablesOf(vpc.id).some((table) => table.type === "System")) continue;
      const id = `vtb-${vpc.id.replace(/^vpc-/, "")}`;
      this.routeTables.set(id, {
        id,
        vpcId: vpc.id,
        type: "System",
        associate: "VSwitch",
        name: "",
      });
    }
    for (const vSwitch of config.vSwitches) {
      const vpc = this.#vpcOf(vSwitch);
      const { ipv6Cidr, ...rest } = vSwitch;
      this.vSwitches.set(vSwitch.id, {
        ...rest,
        ...(ipv6Cidr === undefined ? {} : { ipv6Cidr }),
        cidr: canonical(vSwitch.cidr),
        vpcId: vpc.id,
        zoneId: vSwitch.zoneId ?? `${vpc.regionId}-a`,
        routeTableId: vSwitch.routeTableId ?? this.systemTable(vpc.id).id,
      });
      this.table(this.vSwitches.get(vSwitch.id)!.routeTableId);
    }
    for (const instance of config.instances) this.addInstance(instance);
  }

  vpc(id: string): Vpc {
    return this.#get(this.vpcs, id, "VPC");
  }

  vSwitch(id: string): VSwitch {
    return this.#get(this.vSwitches, id, "vSwitch");
  }

  table(id: string): RouteTable {
    return this.#get(this.routeTables, id, "route table");
  }

  instance(id: string): Instance {
    return this.#get(this.instances, id, "instance");
  }

  interface(id: string): NetworkInterface {
    return this.#get(this.interfaces, id, "network interface");
  }

  systemTable(vpcId: string): RouteTable {
    return this.#tablesOf(vpcId).find((table) => table.type === "System")!;
  }

  vSwitchesOf(vpcId: string): VSwitch[] {
    return [...this.vSwitches.values()].filter((each) => each.vpcId === vpcId);
  }

  /** vSwitches whose packets `tableId` decides about. */
  vSwitchesBoundTo(tableId: string): VSwitch[] {
    return [...this.vSwitches.values()].filter((each) => each.routeTableId === tableId);
  }

  tablesOf(vpcId: string): RouteTable[] {
    return this.#tablesOf(vpcId);
  }

  /** Interfaces of an instance, primary first. */
  interfacesOf(instanceId: string): NetworkInterface[] {
    return [...this.interfaces.values()].filter((each) => each.instanceId === instanceId)
      .sort((a, b) => Number(b.type === "Primary") - Number(a.type === "Primary"));
  }

  /** The instance that sends from `address`. */
  instanceAt(address: string): Instance | undefined {
    for (const each of this.interfaces.values()) {
      if (each.privateIp === address || each.ipv6s.includes(address)) {
        return this.instances.get(each.instanceId);
      }
    }
    return undefined;
  }

  addInstance(input: InstanceConfig): Instance {
    const config = parseConfig(instanceConfig, input);
    const vSwitch = this.vSwitch(config.vSwitchId);
    if (this.instances.has(config.id)) {
      throw new Error(`Cannot add instance ${config.id}: it exists`);
    }
    if (this.instanceAt(config.privateIp)) {
      throw new Error(`Cannot add instance ${config.id}: ${config.privateIp} is taken`);
    }
    const networkInterfaceId = config.networkInterfaceId ?? `eni-${config.id.replace(/^i-/, "")}`;
    const instance: Instance = {
      id: config.id,
      name: config.name || config.id,
      vpcId: vSwitch.vpcId,
      vSwitchId: vSwitch.id,
      privateIp: config.privateIp,
      ...(config.publicIp === undefined ? {} : { publicIp: config.publicIp }),
      mac: config.mac ?? this.#mac(),
      networkInterfaceId,
      status: "Running",
      ...(config.ramRole === undefined ? {} : { ramRole: config.ramRole }),
      httpTokens: config.httpTokens,
    };
    this.instances.set(instance.id, instance);
    const owner = { instanceId: instance.id, vpcId: vSwitch.vpcId };
    this.interfaces.set(networkInterfaceId, {
      ...owner,
      id: networkInterfaceId,
      vSwitchId: vSwitch.id,
      mac: instance.mac,
      type: "Primary",
      privateIp: config.privateIp,
      ipv6s: config.ipv6s,
      ipv4Prefixes: config.ipv4Prefixes,
      ipv6Prefixes: config.ipv6Prefixes,
      sourceDestCheck: config.sourceDestCheck,
    });
    for (const each of config.secondaryInterfaces) {
      this.interfaces.set(each.id, {
        ...owner,
        id: each.id,
        vSwitchId: each.vSwitchId ?? vSwitch.id,
        mac: each.mac ?? this.#mac(),
        type: "Secondary",
        privateIp: each.privateIp,
        ipv6s: [],
        ipv4Prefixes: [],
        ipv6Prefixes: [],
        sourceDestCheck: each.sourceDestCheck,
      });
    }
    return instance;
  }

  /** The instance and its interfaces cease to exist; routes that lead to it stay. */
  removeInstance(id: string): void {
    this.instance(id);
    for (const each of this.interfacesOf(id)) this.interfaces.delete(each.id);
    this.instances.delete(id);
  }

  #vpcOf(item: { readonly id: string; readonly vpcId?: string | undefined }): Vpc {
    if (item.vpcId !== undefined) return this.vpc(item.vpcId);
    if (this.vpcs.size > 1) {
      throw new Error(`Cannot place ${item.id}: it names none of several VPCs`);
    }
    return [...this.vpcs.values()][0]!;
  }

  #tablesOf(vpcId: string): RouteTable[] {
    return [...this.routeTables.values()].filter((table) => table.vpcId === vpcId);
  }

  #get<T>(items: ReadonlyMap<string, T>, id: string, kind: string): T {
    const item = items.get(id);
    if (item === undefined) throw new Error(`Cannot find ${kind} ${id} in the simulated cloud`);
    return item;
  }

  #mac(): string {
    const octets = Array.from({ length: 4 }, () => this.#random.integer(0, 255));
    return ["00", "16", ...octets.map((each) => each.toString(16).padStart(2, "0"))].join(":");
  }
}

function canonical(cidr: string): string {
  return Prefix.parse(cidr).toString();
}

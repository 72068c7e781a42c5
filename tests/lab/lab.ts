import { OperatorError } from "../../src/errors.ts";
import { type NamespaceSet, type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { settleAll } from "../support/settle_all.ts";
import { EtcdCluster, type EtcdOptions } from "./etcd.ts";
import { Host } from "./host.ts";
import { pingMatrix, type PingOptions, type PingResult } from "./ping.ts";
import { type AccessKey, type LabCloudOptions, planCloud } from "./cloud.ts";
import { Fabric } from "./fabric.ts";
import {
  API_ADDRESS,
  type LabPlan,
  METADATA_ADDRESS,
  planLab,
  type UnderlayFamilies,
} from "./plan.ts";
import { type DaemonProgram, daemonProgram } from "./program.ts";
import { RunningCloud } from "./running_cloud.ts";
import { type Port, VpcRouter } from "./vpc_router.ts";

/** Where flannel's keys are unless told otherwise. */
export const ETCD_PREFIX = "/coreos.com/network";

/** The network config of flannel's guide for Alibaba Cloud. */
export const GUIDE_CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "ali-vpc" } };

/** Options of {@linkcode openLab}. */
export interface LabOptions {
  readonly signal: AbortSignal;
  /**
   * `vpc`: hosts share no layer 2, and the cloud's route entries lead to pods. `l2`: all hosts are
   * on one Ethernet segment. `routed`: hosts are on several segments, with a router between them
   * that knows no pods. The latter two have no cloud. @default {"vpc"}
   */
  readonly topology?: "vpc" | "l2" | "routed";
  /** The address families of the hosts; a VPC has IPv4 alone. @default {"v4"} */
  readonly underlay?: UnderlayFamilies;
  /**
   * Hosts, such as `host2`, each behind a NAT router of its own, in `l2` and `routed`. Their daemons
   * are told the public address, and the interface since no link has that. @default {[]}
   */
  readonly natHosts?: readonly string[];
  /** @default {3} */
  readonly hosts?: number;
  /** Hosts are spread over these, or over so many segments, in turn. @default {2, 1 in l2} */
  readonly vSwitches?: number;
  /** `own`: each vSwitch is bound to a custom route table of its own. @default {"system"} */
  readonly routeTables?: "system" | "own";
  /** `false`: no etcd. @default {{ members: 1 }} */
  readonly etcd?: EtcdOptions | false;
  /** `false`: no cloud; the router is told by hand what to do. @default {{}} */
  readonly cloud?: LabCloudOptions | false;
  /** The daemon that the hosts run. @default the binary in `LAB_BINARY`, else the sources */
  readonly program?: DaemonProgram;
}

/**
 * Builds a cluster in network namespaces: hosts in vSwitches that share no layer 2, the VPC as a
 * router between them, etcd; or hosts on Ethernet segments, see `topology`. Disposing it leaves nothing behind; nor does being killed, see
 * `openNamespaces()`. Nothing outside the namespaces is touched.
 *
 * @throws {OperatorError} Without root.
 */
export async function openLab(options: LabOptions): Promise<Lab> {
  requireRoot();
  const { signal, etcd = {}, topology = "vpc", underlay = "v4", natHosts = [] } = options;
  const cloudOptions = topology === "vpc" ? options.cloud ?? {} : false;
  if (topology === "vpc" && (underlay !== "v4" || natHosts.length > 0)) {
    throw new RangeError("Cannot make a VPC with IPv6 or NAT: those are for other topologies");
  }
  const accessKey: AccessKey = { id: "LTAI5tLabKey00000001", secret: crypto.randomUUID() };
  const plan = planLab({
    hosts: options.hosts ?? 3,
    vSwitches: options.vSwitches ?? (topology === "l2" ? 1 : 2),
    etcdMembers: etcd === false ? 0 : etcd.members ?? 1,
    routeTables: options.routeTables ?? "system",
    underlay,
    natHosts,
  });
  await using stack = new AsyncDisposableStack();
  const set = stack.use(await openNamespaces({ signal }));
  const [routerNamespace, ...rest] = await set.add([
    "router",
    ...plan.hosts.map(({ label }) => label),
    ...plan.etcdPorts.map((_, index) => `etcd${index + 1}`),
  ], { signal });
  const hostNamespaces = rest.slice(0, plan.hosts.length);
  const etcdMachines = plan.etcdPorts.map((port, index) => ({
    port,
    namespace: rest[plan.hosts.length + index]!,
  }));

  const cluster = stack.use(new EtcdCluster(etcdMachines, set.directory, etcd || {}));
  const hosts = plan.hosts.map((identity, index) =>
    new Host(identity, hostNamespaces[index]!, set, {
      program: options.program ?? daemonProgram(),
      flags: [
        `--etcd-endpoints=${cluster.endpoints.join(",")}`,
        ...(cloudOptions === false ? [] : [
          `--ali-vpc-endpoint=http://${API_ADDRESS}`,
          `--ali-ecs-endpoint=http://${API_ADDRESS}`,
        ]),
        ...(identity.outside ? ["--iface=eth0", `--public-ip=${identity.outside.address}`] : []),
      ],
      env: cloudOptions === false
        ? {}
        : { ACCESS_KEY_ID: accessKey.id, ACCESS_KEY_SECRET: accessKey.secret },
    })
  );
  const router = topology === "vpc" ? new VpcRouter(routerNamespace!) : undefined;
  const fabric = topology === "vpc" ? undefined : new Fabric(routerNamespace!);
  await settleAll([
    router?.open([METADATA_ADDRESS, API_ADDRESS], { signal }),
    fabric?.open([plan.serviceVSwitch, ...plan.vSwitches], underlay, { signal }),
    ...hosts.map((host) => host.open({ signal })),
  ]);
  await router?.connect([
    ...plan.hosts.map(({ port }, index) => ({ port, namespace: hostNamespaces[index]! })),
    ...etcdMachines,
  ], { signal });
  if (fabric) await connectToFabric(fabric, { plan, set, hosts, etcdMachines, signal });

  const [cloud] = await settleAll([
    cloudOptions === false || !router ? undefined : RunningCloud.start({
      config: planCloud(plan, accessKey, cloudOptions),
      ...(cloudOptions.tls ? { tls: cloudOptions.tls } : {}),
      plan,
      router,
      directory: set.directory,
      signal,
    }).then((cloud) => stack.use(cloud)),
    cluster.start({ signal }),
  ]);
  return new Lab({ plan, set, router, fabric, hosts, cluster, cloud, accessKey }, stack.move());
}

async function connectToFabric(fabric: Fabric, { plan, set, hosts, etcdMachines, signal }: {
  readonly plan: LabPlan;
  readonly set: NamespaceSet;
  readonly hosts: readonly Host[];
  readonly etcdMachines: readonly { port: Port; namespace: NetworkNamespace }[];
  readonly signal: AbortSignal;
}): Promise<void> {
  const hidden = hosts.filter(({ identity }) => identity.outside);
  const routers = await set.add(hidden.map(({ label }) => `${label}-nat`), { signal });
  await fabric.connect([
    ...hosts.map(({ identity, namespace, label }) => ({
      vSwitchId: identity.vSwitchId,
      port: identity.outside ?? identity.port,
      namespace: identity.outside
        ? routers[hidden.findIndex((each) => each.label === label)]!
        : namespace,
    })),
    ...etcdMachines.map((machine) => ({ ...machine, vSwitchId: plan.serviceVSwitch.id })),
  ], { signal });
  for (const [index, { identity, namespace }] of hidden.entries()) {
    await fabric.connectBehindNat({
      inside: identity.port,
      outside: identity.outside!,
      router: routers[index]!,
      machine: namespace,
    }, { signal });
  }
}

/** @throws {OperatorError} Saying what a lab needs, unless this process is root. */
export function requireRoot(): void {
  if (Deno.uid() === 0) return;
  throw new OperatorError(
    "Cannot make network namespaces: this needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN), " +
      "so run it with sudo -E or in a privileged container",
  );
}

interface LabParts {
  readonly plan: LabPlan;
  readonly set: NamespaceSet;
  readonly router: VpcRouter | undefined;
  readonly fabric: Fabric | undefined;
  readonly hosts: readonly Host[];
  readonly cluster: EtcdCluster;
  readonly cloud: RunningCloud | undefined;
  readonly accessKey: AccessKey;
}

/** A cluster that {@linkcode openLab} has built. */
export class Lab implements AsyncDisposable {
  readonly plan: LabPlan;
  readonly hosts: readonly Host[];
  readonly etcd: EtcdCluster;
  /** The key that the daemons are given. */
  readonly accessKey: AccessKey;
  readonly #router: VpcRouter | undefined;
  readonly #fabric: Fabric | undefined;
  readonly #cloud: RunningCloud | undefined;
  readonly #set: NamespaceSet;
  readonly #stack: AsyncDisposableStack;

  constructor(parts: LabParts, stack: AsyncDisposableStack) {
    this.plan = parts.plan;
    this.#router = parts.router;
    this.#fabric = parts.fabric;
    this.hosts = parts.hosts;
    this.etcd = parts.cluster;
    this.accessKey = parts.accessKey;
    this.#cloud = parts.cloud;
    this.#set = parts.set;
    this.#stack = stack;
  }

  /** The simulated cloud; `control` is its console. @throws {Error} In a lab without one. */
  get cloud(): RunningCloud {
    if (!this.#cloud) throw new Error("Cannot use the cloud: this lab was opened without one");
    return this.#cloud;
  }

  /** The VPC's router. @throws {Error} In a lab of another topology. */
  get router(): VpcRouter {
    if (!this.#router) throw new Error("Cannot use the VPC's router: this lab is no VPC");
    return this.#router;
  }

  /** The segments of hosts and the router between them. @throws {Error} In a VPC. */
  get fabric(): Fabric {
    if (!this.#fabric) throw new Error("Cannot use the fabric: this lab is a VPC");
    return this.#fabric;
  }

  /** Whether the hosts are in a VPC. */
  get isVpc(): boolean {
    return this.#router !== undefined;
  }

  /** Where packets between hosts pass. */
  get routerNamespace(): NetworkNamespace {
    return (this.#router ?? this.#fabric!).namespace;
  }

  /** What the names of the lab's namespaces begin with. */
  get name(): string {
    return this.#set.name;
  }

  /** Where logs, sockets and state are; removed with the lab. */
  get directory(): string {
    return this.#set.directory;
  }

  /** The host called `label`, such as `host1`. */
  host(label: string): Host {
    const host = this.hosts.find((each) => each.label === label);
    if (!host) throw new RangeError(`Cannot find ${label}: the lab has ${this.hosts.length} hosts`);
    return host;
  }

  /** Writes the network config where daemons look for it. */
  async writeConfig(
    config: unknown,
    options: { signal: AbortSignal; api?: 2 | 3 },
  ): Promise<void> {
    await this.etcd.put(`${ETCD_PREFIX}/config`, JSON.stringify(config), options);
  }

  /** The leases in the v3 store: key below the prefix's `subnets/`, and value. */
  async leases(options: { signal: AbortSignal }): Promise<Map<string, string>> {
    const prefix = `${ETCD_PREFIX}/subnets/`;
    const entries = await this.etcd.list(prefix, options);
    return new Map([...entries].map(([key, value]) => [key.slice(prefix.length), value]));
  }

  /** Brings each host to have `count` pods, by its subnet.env. */
  async ensurePods(count: number, options: { signal: AbortSignal }): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.ensurePods(count, options)));
  }

  /** Pings from each pod to each other pod. */
  pingPods(options: PingOptions): Promise<PingResult[]> {
    return pingMatrix(this.hosts.flatMap((host) => [...host.pods]), options);
  }

  /** Ends the daemons, then everything else. */
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.hosts.map((host) => host.killDaemon()));
    await this.#stack[Symbol.asyncDispose]();
  }
}

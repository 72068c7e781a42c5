import { InterfaceAddress } from "../../src/net/mod.ts";
import { runProgram, type RunResult } from "../../src/util/process.ts";
import type { NamespaceSet, NetworkNamespace } from "../support/namespace.ts";
import { Daemon, startDaemon } from "./daemon.ts";
import type { Endpoint } from "./ping.ts";
import { daemonCommand, type DaemonProgram, denoEnvironment } from "./program.ts";
import { parseSubnetEnv, type SubnetEnv } from "./subnet_env.ts";
import type { Port } from "./vpc_router.ts";

/** A machine of the cloud that a {@linkcode Host} is. */
export interface HostIdentity {
  /** `host1`, `host2`, … */
  readonly label: string;
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  readonly vSwitchId: string;
  /** What its `eth0` is connected by. */
  readonly port: Port;
  /** Of a host behind NAT: the port of its router, by whose address others reach it. */
  readonly outside?: Port;
}

/** What a daemon is started with unless told otherwise. */
export interface DaemonDefaults {
  readonly program: DaemonProgram;
  readonly flags: readonly string[];
  readonly env: Readonly<Record<string, string>>;
}

/** Options of {@linkcode Host.startDaemon}. */
export interface HostDaemonOptions {
  /** Flags after the lab's own, so that they win. */
  readonly flags?: readonly string[];
  /** Variables beside, or in place of, the lab's own. */
  readonly env?: Readonly<Record<string, string>>;
  /** In place of the lab's own flags. */
  readonly defaultFlags?: readonly string[];
  readonly program?: DaemonProgram;
}

/** A pod: a namespace on the host's bridge. */
export interface Pod extends Endpoint {
  readonly addresses: readonly string[];
  readonly host: Host;
}

const NO_DAD = {
  "net/ipv6/conf/all/accept_dad": "0",
  "net/ipv6/conf/default/accept_dad": "0",
};

/** An ECS instance: a namespace with one interface, `eth0`, towards the VPC. */
export class Host {
  readonly identity: HostIdentity;
  readonly namespace: NetworkNamespace;
  /** Where its subnet.env and its log are. */
  readonly directory: string;
  readonly #set: NamespaceSet;
  readonly #defaults: DaemonDefaults;
  #daemon: Daemon | undefined;
  #pods: Pod[] = [];
  #podSubnets: readonly InterfaceAddress[] | undefined;

  constructor(
    identity: HostIdentity,
    namespace: NetworkNamespace,
    set: NamespaceSet,
    defaults: DaemonDefaults,
  ) {
    this.identity = identity;
    this.namespace = namespace;
    this.directory = `${set.directory}/${identity.label}`;
    this.#set = set;
    this.#defaults = defaults;
  }

  get label(): string {
    return this.identity.label;
  }

  /** Address of `eth0`, of IPv4 if there are two. */
  get address(): string {
    return this.identity.port.address;
  }

  /** All addresses of `eth0`. */
  get addresses(): string[] {
    const { port } = this.identity;
    return port.also ? [port.address, port.also.address] : [port.address];
  }

  get subnetFile(): string {
    return `${this.directory}/subnet.env`;
  }

  /** What all daemons of this host have written, oldest first. */
  get logFile(): string {
    return `${this.directory}/flanneld.log`;
  }

  /** The daemon started last. @throws {Error} If there was none. */
  get daemon(): Daemon {
    if (!this.#daemon) throw new Error(`Cannot use the daemon of ${this.label}: none was started`);
    return this.#daemon;
  }

  /** The end of the log of the daemon started last, if there was one, under the host's name. */
  daemonLog(lines = 20): string {
    return this.#daemon ? `${this.label}:\n${this.#daemon.process.tail(lines)}` : "";
  }

  get pods(): readonly Pod[] {
    return this.#pods;
  }

  /**
   * Prepares an instance that forwards packets, as the guide tells its owner to; to be called
   * before it is connected.
   */
  async open(options: { signal: AbortSignal }): Promise<void> {
    await Deno.mkdir(this.directory, { recursive: true, mode: 0o700 });
    await this.namespace.sysctl({
      "net/ipv4/ip_forward": "1",
      // Nobody else can have an address here; without the wait, the host's state is settled at once.
      ...(hasIpv6()
        ? {
          "net/ipv6/conf/all/forwarding": "1",
          ...NO_DAD,
        }
        : {}),
    }, options);
  }

  /** Starts the daemon, whose flags are the lab's followed by the given ones. */
  async startDaemon(options: HostDaemonOptions = {}): Promise<Daemon> {
    if (this.#daemon && this.#daemon.process.ended === undefined) {
      throw new Error(`Cannot start a daemon on ${this.label}: one is running`);
    }
    await this.#daemon?.stop();
    this.#daemon = startDaemon({
      title: this.label,
      program: options.program ?? this.#defaults.program,
      namespace: this.namespace,
      directory: this.directory,
      logFile: this.logFile,
      flags: [
        `--subnet-file=${this.subnetFile}`,
        ...(options.defaultFlags ?? this.#defaults.flags),
        ...(options.flags ?? []),
      ],
      env: { ...this.#defaults.env, ...options.env },
    });
    return this.#daemon;
  }

  /** Runs `flanneld cleanup`, with the lab's flags followed by the given ones, to its end. */
  async cleanUp(options: HostDaemonOptions & { readonly signal: AbortSignal }): Promise<RunResult> {
    const { program, args } = daemonCommand(options.program ?? this.#defaults.program, [
      "cleanup",
      `--subnet-file=${this.subnetFile}`,
      ...(options.defaultFlags ?? this.#defaults.flags),
      ...(options.flags ?? []),
    ]);
    const environment = { ...denoEnvironment(), ...this.#defaults.env, ...options.env };
    return await runProgram("ip", [
      ...["netns", "exec", this.namespace.name, "env", "-i"],
      ...Object.entries(environment).map((entry) => entry.join("=")),
      ...[program, ...args],
    ], { signal: options.signal, timeoutMs: 120_000 });
  }

  /** Kills the daemon, if one runs. */
  async killDaemon(): Promise<void> {
    await this.#daemon?.kill();
  }

  /** The values in subnet.env. */
  async readSubnetEnv(): Promise<SubnetEnv> {
    return parseSubnetEnv(await Deno.readTextFile(this.subnetFile));
  }

  /**
   * Brings the host to have `count` pods, on a bridge `cni0` with the addresses and MTU that
   * subnet.env gives; a bridge and pods of earlier subnets are removed first.
   */
  async ensurePods(count: number, options: { signal: AbortSignal }): Promise<readonly Pod[]> {
    const { families, mtuBytes } = await this.readSubnetEnv();
    const subnets = families.map(({ subnet }) => subnet);
    if (this.#podSubnets && this.#podSubnets.join() !== subnets.join()) {
      await this.removePods(options);
    }
    if (!this.#podSubnets) {
      await this.namespace.ip([
        `link add cni0 mtu ${mtuBytes} type bridge`,
        ...subnets.map((subnet) => `address add ${subnet} dev cni0`),
        "link set cni0 up",
      ], options);
      this.#podSubnets = subnets;
    }
    const added = Array.from(
      { length: Math.max(0, count - this.#pods.length) },
      (_, index) => this.#pods.length + index + 1,
    );
    if (added.length === 0) return this.#pods;
    const labels = added.map((number) => `${this.label}-pod${number}`);
    const namespaces = await this.#set.add(labels, options);
    // Before there are links, which take it over when they are made.
    if (hasIpv6()) {
      await Promise.all(namespaces.map((namespace) => namespace.sysctl(NO_DAD, options)));
    }
    const pods = namespaces.map((namespace, index): Pod => {
      const addresses = subnets.map(({ prefix }) =>
        prefix.address.add(1n + BigInt(added[index]!)).toString()
      );
      return { label: labels[index]!, address: addresses[0]!, addresses, namespace, host: this };
    });
    await this.namespace.ip(
      pods.flatMap(({ namespace }, index) => [
        `link add pod${added[index]} mtu ${mtuBytes} type veth ` +
        `peer name eth0 mtu ${mtuBytes} netns ${namespace.name}`,
        `link set pod${added[index]} master cni0 up`,
      ]),
      options,
    );
    await Promise.all(pods.map(async ({ namespace, addresses }) => {
      await namespace.ip([
        "link set lo up",
        ...addresses.map((address, family) =>
          `address add ${address}/${subnets[family]!.prefix.length} dev eth0`
        ),
        "link set eth0 up",
        ...subnets.map(({ address }) => `route add default via ${address}`),
      ], options);
    }));
    this.#pods.push(...pods);
    return this.#pods;
  }

  /** Removes the pods and their bridge. */
  async removePods(options: { signal: AbortSignal }): Promise<void> {
    const pods = this.#pods;
    this.#pods = [];
    // By hand: the kernel removes the links of a namespace some time after the namespace, and
    // their names are wanted again.
    await this.namespace.ip(pods.map((_, index) => `link del pod${index + 1}`), options);
    for (const pod of pods) await this.#set.remove(pod.namespace);
    if (this.#podSubnets) await this.namespace.ip(["link del cni0"], options);
    this.#podSubnets = undefined;
  }
}

function hasIpv6(): boolean {
  try {
    return Deno.statSync("/proc/sys/net/ipv6").isDirectory;
  } catch {
    return false;
  }
}

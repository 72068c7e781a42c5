/**
 * The daemons that the campaign `syscall-kill` kills: one of each kind of backend, each a cluster of
 * its own, with peers that no daemon runs for.
 *
 * @module
 */
import { type Host, type Lab, VPC_ID } from "../lab/mod.ts";
import { CLUSTER_ID } from "../process/cloud_support.ts";
import { flannelLines, kernelState } from "../process/kernel_support.ts";

/** Backends of the kernel, of the daemon's own packet path, and of the cloud. */
export type SubjectType = "vxlan" | "udp" | "ali-vpc";

/** Peers of each subject; in the cloud, the writer makes their entries too. */
export const PEERS = 4;

/** A daemon's host, and all that the daemon is to set up there and elsewhere. */
export class Subject {
  readonly type: SubjectType;
  readonly host: Host;
  readonly #lab: Lab;
  readonly #signal: AbortSignal;
  readonly #prefix: string;
  readonly #network: string;
  readonly #peers: ReadonlyMap<string, string>;

  private constructor(
    lab: Lab,
    host: Host,
    type: SubjectType,
    { signal, octet }: { readonly signal: AbortSignal; readonly octet: number },
  ) {
    this.type = type;
    this.host = host;
    this.#lab = lab;
    this.#signal = signal;
    this.#prefix = `/${host.label}`;
    this.#network = `10.${octet}.0.0/16`;
    this.#peers = new Map(Array.from({ length: PEERS }, (_, index) => [
      `${this.#prefix}/subnets/10.${octet}.${200 + index}.0-24`,
      JSON.stringify(this.#peer(index)),
    ]));
  }

  /** Makes the cluster of `host` with its peers. */
  static async open(
    lab: Lab,
    host: Host,
    type: SubjectType,
    options: { readonly signal: AbortSignal },
  ): Promise<Subject> {
    const octet = 30 + lab.hosts.indexOf(host);
    const subject = new Subject(lab, host, type, { ...options, octet });
    const config = {
      Network: subject.#network,
      SubnetMax: `10.${octet}.99.0`,
      Backend: { Type: type, ...(type === "ali-vpc" ? { ResyncSeconds: 10 } : {}) },
    };
    await lab.etcd.put(`${subject.#prefix}/config`, JSON.stringify(config), options);
    await Deno.mkdir(subject.temporary, { mode: 0o700 });
    if (type === "ali-vpc") {
      await lab.etcd.put(`${subject.#prefix}/ali-vpc/cluster`, CLUSTER_ID, options);
      for (let index = 0; index < PEERS; index++) {
        await lab.cloud.control.addInstance({
          id: subject.#instance(index),
          vSwitchId: host.identity.vSwitchId,
          privateIp: subject.#address(index),
        });
      }
    }
    return subject;
  }

  get flags(): string[] {
    return [
      `--etcd-prefix=${this.#prefix}`,
      "--ip-masq",
      "--ip-blackhole-route",
      "--iptables-resync=1",
    ];
  }

  /** Where the daemon's temporary files go. */
  get temporary(): string {
    return `${this.#lab.directory}/${this.host.label}-tmp`;
  }

  /** Lets the peers come. */
  async addPeers(): Promise<void> {
    await this.#transact([...this.#peers].map(([key, value]) => `put ${key} ${value}`));
  }

  async removePeers(): Promise<void> {
    await this.#transact([...this.#peers.keys()].map((key) => `del ${key}`));
  }

  /** Something of everything happens: peers come, the lease goes, device and rules go. */
  async disturb(): Promise<void> {
    const [key] = await this.leaseKeys();
    await this.#transact([
      ...(key === undefined ? [] : [`del ${key}`]),
      ...[...this.#peers].map(([key, value]) => `put ${key} ${value}`),
    ]);
    const link = { vxlan: "flannel.1", udp: "flannel0", "ali-vpc": undefined }[this.type];
    if (link !== undefined) await this.#try(`ip link delete ${link}`);
    await this.#try("iptables -t nat -F FLANNEL-POSTRTG");
  }

  /** As if no daemon had ever run here. */
  async reset(): Promise<void> {
    await this.#try(
      "ip link delete flannel.1; ip link delete flannel0; ip route flush proto 102; " +
        "nft flush ruleset",
    );
    for (const { name } of Deno.readDirSync(this.host.directory)) {
      if (name.includes("subnet.env")) await Deno.remove(`${this.host.directory}/${name}`);
    }
    const keys = await this.#lab.etcd.list(`${this.#prefix}/`, { signal: this.#signal });
    await this.#transact(
      [...keys.keys()].filter((key) => !/\/config$|\/ali-vpc\/cluster$/.test(key))
        .map((key) => `del ${key}`),
    );
    for (const { routeTableId, destination } of await this.#entries()) {
      await this.#lab.cloud.control.deleteRoute({ routeTableId, destination });
    }
  }

  /** The keys of this host's leases, of which there may be one. */
  async leaseKeys(): Promise<string[]> {
    const leases = await this.#lab.etcd.list(`${this.#prefix}/subnets/`, { signal: this.#signal });
    return [...leases].filter(([, value]) => value.includes(`"${this.host.address}"`))
      .map(([key]) => key);
  }

  /** The text of subnet.env, if it is there. */
  async subnetEnv(): Promise<string | undefined> {
    return await Deno.readTextFile(this.host.subnetFile).catch(() => undefined);
  }

  /** How many peers the record for the next run of a packet path has; `undefined` without one. */
  async recordedPeers(): Promise<number | undefined> {
    const text = await Deno.readTextFile(`${this.host.subnetFile}.udp`).catch(() => undefined);
    return text === undefined ? undefined : JSON.parse(text).forwarding.length;
  }

  /**
   * All that the daemon has set up, line by line, whatever its subnet is: in the kernel, in the
   * firewall, on the disk, in the store and in the cloud.
   */
  async state(): Promise<string[]> {
    const options = { signal: this.#signal };
    const { host } = this;
    const [kernel, rest, leases, entries, text] = await Promise.all([
      kernelState(host, options),
      host.namespace.run("sh", [
        "-c",
        "iptables-save; ip6tables-save | grep -i flannel; iptables-legacy-save | grep -i flannel; " +
        "nft list tables | sort; ip rule; ip route show table all type blackhole",
      ], options),
      this.#lab.etcd.list(`${this.#prefix}/subnets/`, options),
      this.#entries(),
      this.subnetEnv(),
    ]);
    const files = [...Deno.readDirSync(host.directory)].map(({ name }) => name)
      // It comes when it is due; beside it, the socket that the daemon speaks to and its log.
      .filter((name) => !/^notify-|\.log$|\.udp$/.test(name)).sort();
    const lines = [
      ...flannelLines(kernel),
      ...kernel.filter((line) => /^route/.test(line) && line.includes(this.#network.slice(0, 6))),
      ...rest.split("\n").filter((line) => !/^#|^$/.test(line))
        .map((line) => line.replace(/\[\d+:\d+\]/, "[]").trim()),
      ...[...leases].map(([key, value]) => `lease ${key} ${value}`).sort(),
      ...entries.map(({ routeTableId, destination, name, nextHops, status }) =>
        `entry ${routeTableId} ${destination} ${nextHops.map(({ id }) => id)} ${name} ${status}`
      ).sort(),
      ...(text ?? "no subnet.env").trim().split("\n"),
      `files ${files}`,
    ];
    // What is drawn at random differs from start to start.
    const own = [...leases].find(([, value]) => value.includes(`"${host.address}"`));
    const base = own && /\/subnets\/([\d.]+)\.0-24$/.exec(own[0])?.[1];
    const mac = own && /"VtepMAC":"([^"]+)"/.exec(own[1])?.[1];
    return lines.map((line) => base ? line.replaceAll(`${base}.`, "OWN.") : line)
      .map((line) => mac ? line.replaceAll(mac, "MAC") : line);
  }

  /** Whether `state` has a way to each peer; a packet path of the daemon's own does not show it. */
  isComplete(state: readonly string[]): boolean {
    const ways = state.filter((line) => /^route|^entry.* Available$/.test(line));
    const subnets = [...this.#peers.keys()].map((key) => key.replace(/.*\/(.*)-24$/, "$1/24"));
    return this.type === "udp" ||
      subnets.every((subnet) => ways.some((line) => line.includes(` ${subnet} `)));
  }

  async #entries() {
    if (this.type !== "ali-vpc") return [];
    const { routeEntries } = await this.#lab.cloud.control.snapshot();
    return routeEntries.filter(({ name }) => name.startsWith("flanneld/"));
  }

  async #transact(commands: readonly string[]): Promise<void> {
    if (commands.length > 0) await this.#lab.etcd.transact(commands, { signal: this.#signal });
  }

  async #try(script: string): Promise<void> {
    await this.host.namespace.try("sh", ["-c", script], { signal: this.#signal });
  }

  #address(index: number): string {
    return this.host.address.replace(/\d+$/, `${200 + index}`);
  }

  #instance(index: number): string {
    return `i-bp1${this.host.label}peer${index}`;
  }

  #peer(index: number): Record<string, unknown> {
    const PublicIP = this.#address(index);
    if (this.type === "udp") return { PublicIP };
    if (this.type === "ali-vpc") {
      const InstanceID = this.#instance(index);
      const NetworkInterfaceID = InstanceID.replace(/^i-/, "eni-");
      const VSwitchID = this.host.identity.vSwitchId;
      return {
        PublicIP,
        BackendData: { InstanceID, NetworkInterfaceID, VpcID: VPC_ID, VSwitchID },
      };
    }
    return {
      PublicIP,
      BackendType: "vxlan",
      BackendData: { VNI: 1, VtepMAC: `02:00:5e:00:00:0${index + 1}` },
    };
  }
}

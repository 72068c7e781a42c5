/**
 * Several clusters in one VPC and route table, each with a prefix and a pod network of its own, so
 * that much can go wrong side by side; and a judge of all that they write.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type ClusterSummary, parseSummary } from "../../src/cloud/routes/cluster_state.ts";
import { describeError } from "../../src/errors.ts";
import type { CloudSnapshot, RouteEntry } from "../simulator/model.ts";
import {
  type Host,
  type Lab,
  type LabOptions,
  openLab,
  SYSTEM_TABLE_ID,
  VPC_ID,
} from "../lab/mod.ts";
import { delay } from "../../src/util/time.ts";
import { eventually } from "../support/eventually.ts";
import { startLogged } from "../support/logged_process.ts";
import { brisk } from "./cloud_support.ts";
import { CloudOracle, type JudgedCluster } from "./cloud_oracle.ts";

interface CallOptions {
  readonly signal: AbortSignal;
}

/** `RouteGraceSeconds` of the clusters: the least that can be asked for. */
export const GRACE_SECONDS = 60;

/** Longer than anything that starts or heals takes, and shorter than a test. */
const SETTLE_MS = 60_000;

/** Options of {@linkcode openClusters}. */
export interface ClustersOptions extends Omit<LabOptions, "hosts"> {
  /** A title per cluster, with how many hosts run a daemon. */
  readonly clusters: Readonly<Record<string, number>>;
  /** Further keys of the backend of all clusters. */
  readonly backend?: object;
  /** See {@linkcode CloudOracle}. */
  readonly ownPlaces?: boolean;
}

/** A lab whose hosts are spread over clusters; nothing runs on them yet. */
export async function openClusters(options: ClustersOptions): Promise<Clusters> {
  const { clusters, backend = {}, signal } = options;
  const counts = Object.values(clusters);
  await using stack = new AsyncDisposableStack();
  const lab = stack.use(
    await openLab({ ...options, hosts: counts.reduce((sum, count) => sum + count) }),
  );
  const left = [...lab.hosts];
  const all = await Promise.all(
    Object.entries(clusters).map(async ([title, count], index) => {
      const cluster = new Cluster(lab, title, index + 1, left.splice(0, count));
      const config = brisk({ RouteGraceSeconds: GRACE_SECONDS, ...backend }, {
        Network: cluster.network,
      });
      await lab.etcd.put(`${cluster.prefix}/config`, JSON.stringify(config), { signal });
      await lab.etcd.put(`${cluster.prefix}/ali-vpc/cluster`, cluster.id, { signal });
      return cluster;
    }),
  );
  const watch = stack.use(new CloudWatch(lab, all, options.ownPlaces ?? false));
  stack.move();
  return new Clusters(lab, all, watch);
}

/** What {@linkcode openClusters} has opened. */
export class Clusters implements AsyncDisposable {
  readonly lab: Lab;
  readonly all: readonly Cluster[];
  readonly #watch: CloudWatch;

  constructor(lab: Lab, all: readonly Cluster[], watch: CloudWatch) {
    this.lab = lab;
    this.all = all;
    this.#watch = watch;
  }

  /** Starts all daemons, and waits until all are ready. */
  async start(options: CallOptions): Promise<void> {
    await Promise.all(this.all.map((cluster) => cluster.start(options)));
  }

  /** Runs a story per cluster side by side; names those that failed. */
  async tell(
    stories: Readonly<Record<string, (cluster: Cluster) => Promise<void>>>,
  ): Promise<void> {
    const outcomes = await Promise.allSettled(this.all.map(async (cluster) => {
      try {
        await stories[cluster.title]!(cluster);
      } catch (cause) {
        const logs = cluster.hosts.map((host) => host.daemonLog(30)).join("\n");
        throw new Error(`${cluster.title}: ${describeError(cause)}\n${logs}`, { cause });
      }
    }));
    const failures = outcomes.flatMap((outcome) =>
      outcome.status === "rejected" ? [outcome.reason] : []
    );
    if (failures.length === 1) throw failures[0];
    if (failures.length > 0) throw new AggregateError(failures, "Several clusters failed");
  }

  /** Asserts that each write so far was justified, and that there were some. */
  async assertJustified(options: CallOptions): Promise<void> {
    const { faults, writes } = await this.#watch.judge(options);
    assert.deepEqual(faults, []);
    assert(writes > 0, "nothing was written at all");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#watch[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
  }
}

/** A cluster of its own among others. */
export class Cluster {
  readonly title: string;
  readonly prefix: string;
  readonly network: string;
  /** What is in the names of its entries. */
  readonly id: string;
  readonly hosts: readonly Host[];
  readonly lab: Lab;
  readonly #number: number;
  readonly #guests: Guest[] = [];

  constructor(lab: Lab, title: string, number: number, hosts: readonly Host[]) {
    this.lab = lab;
    this.title = title;
    this.hosts = hosts;
    this.#number = number;
    this.prefix = `/cluster${number}`;
    this.network = `10.${100 + number}.0.0/16`;
    this.id = `c0ffee000000000${number}`;
  }

  /** A subnet that no host of few takes by itself. */
  subnet(number: number): string {
    return `10.${100 + this.#number}.${200 + number}.0/24`;
  }

  async startHost(host: Host, flags: readonly string[] = []): Promise<void> {
    await host.startDaemon({ flags: [`--etcd-prefix=${this.prefix}`, ...flags] });
  }

  /** Starts the daemons, and waits until all are ready. */
  async start({ signal }: CallOptions): Promise<void> {
    await Promise.all(this.hosts.map(async (host) => {
      await this.startHost(host);
      await host.daemon.ready({ signal });
    }));
  }

  /** An instance without a daemon, whose leases are written by hand. */
  async addGuest(): Promise<Guest> {
    const number = this.#guests.length + 1;
    const id = `${this.#number}${String(number).padStart(2, "0")}`;
    const { vSwitchId, port } = this.hosts[0]!.identity;
    const guest = new Guest(this, {
      instanceId: `i-bp1guest${id}`,
      networkInterfaceId: `eni-bp1guest${id}`,
      address: port.address.replace(/\d+$/, String(100 + this.#number * 20 + number)),
      vSwitchId,
    });
    await this.lab.cloud.control.addInstance({
      id: guest.instanceId,
      vSwitchId,
      privateIp: guest.address,
      networkInterfaceId: guest.networkInterfaceId,
    });
    this.#guests.push(guest);
    return guest;
  }

  /**
   * From now on guests say which subnet they took last, as their daemons would, and a person lets
   * removals go that are held.
   */
  liven({ signal }: CallOptions): AsyncDisposable {
    const ending = new AbortController();
    const options = { signal: AbortSignal.any([signal, ending.signal]) };
    const living = this.#live(options).catch((error) => {
      if (!options.signal.aborted) throw error;
    });
    return {
      async [Symbol.asyncDispose]() {
        ending.abort();
        await living;
      },
    };
  }

  async #live(options: CallOptions): Promise<never> {
    const answered = new Map<string, string>();
    for (;; await delay(500, options)) {
      const { summary } = await this.published(options);
      for (const { instanceId } of summary?.orphans ?? []) {
        const guest = this.#guests.find((each) => each.instanceId === instanceId);
        const answer = `${guest?.subnet} ${summary?.ask}`;
        if (guest?.subnet === undefined || answered.get(guest.instanceId) === answer) continue;
        await guest.state(guest.subnet, options);
        answered.set(guest.instanceId, answer);
      }
      if (summary?.brake) {
        const key = `${this.prefix}/ali-vpc/approval/removals`;
        await this.lab.etcd.put(key, summary.brake.token, options);
      }
    }
  }

  /** The subnets that are leased, with the instances that the leases name, if they do. */
  async leases(options: CallOptions): Promise<Map<string, string | undefined>> {
    const folder = `${this.prefix}/subnets/`;
    const entries = await this.lab.etcd.list(folder, options);
    return new Map([...entries].map(([key, value]) => [
      key.slice(folder.length).replace("-", "/"),
      JSON.parse(value).BackendData?.InstanceID,
    ]));
  }

  /** The leader, if there is one. */
  async writer(options: CallOptions): Promise<Host | undefined> {
    const [text] = (await this.lab.etcd.list(`${this.prefix}/ali-vpc/election/`, options)).values();
    const instance = text && JSON.parse(text).instance;
    return this.hosts.find(({ identity }) => identity.instanceId === instance);
  }

  /** Waits until somebody leads who is not `former`. */
  async successor(
    former: Host | undefined,
    options: CallOptions & { readonly timeoutMs?: number },
  ): Promise<Host> {
    return await eventually(async () => {
      const writer = await this.writer(options);
      return writer === former ? undefined : writer;
    }, { timeoutMs: SETTLE_MS, ...options, title: `another writer than ${former?.label}` });
  }

  /** Those entries that are marked as this cluster's. */
  async entries(): Promise<RouteEntry[]> {
    const { routeEntries } = await this.lab.cloud.control.snapshot();
    return routeEntries.filter(({ name }) =>
      name.startsWith(`flanneld/${this.id}/${this.network}/`)
    );
  }

  /**
   * Waits until the tables hold the entries of all leases of ours, in force, and none else but
   * those in `orphans`; and what is published says so, by whoever leads.
   */
  async settled(
    options: CallOptions & {
      readonly tables?: readonly string[];
      readonly orphans?: readonly string[];
      /** Tables that are not looked at. */
      readonly apart?: readonly string[];
      readonly timeoutMs?: number;
    },
  ): Promise<void> {
    const { tables = [SYSTEM_TABLE_ID], orphans = [], apart = [] } = options;
    await eventually(async () => {
      const leases = await this.leases(options);
      const ours = [...leases].filter(([, instanceId]) => instanceId !== undefined);
      const expected = tables.flatMap((table) =>
        ours.map(([subnet, id]) =>
          `${table} ${subnet} ${id} Available flanneld/${this.id}/${this.network}/${id}`
        )
      );
      const entries = (await this.entries()).filter(({ destination, routeTableId }) =>
        !apart.includes(routeTableId) && (!orphans.includes(destination) || leases.has(destination))
      );
      assert.deepEqual(
        entries.map(({ routeTableId, destination, nextHops, status, name }) =>
          `${routeTableId} ${destination} ${nextHops[0]?.id} ${status} ${name}`
        ).sort(),
        expected.sort(),
      );
      const { writer, hosts } = await this.published(options);
      assert.equal(writer, (await this.writer(options))?.identity.instanceId);
      const routed = [...hosts].filter(([, state]) => state === "routed").map(([subnet]) => subnet);
      assert.deepEqual(routed.sort(), ours.map(([subnet]) => subnet).sort());
      return true;
    }, {
      timeoutMs: SETTLE_MS,
      ...options,
      title: `${this.title} to be in order`,
      intervalMs: 250,
    });
  }

  /** What the writer says: who it is, and each subnet's state. */
  async published(options: CallOptions): Promise<Published> {
    const entries = await this.lab.etcd.list(`${this.prefix}/ali-vpc/`, options);
    const text = entries.get(`${this.prefix}/ali-vpc/state/summary`);
    const summary = text === undefined ? undefined : parseSummary(text);
    const hosts = [...entries].filter(([key]) => /\/hosts-\d+\/doc$/.test(key)).flatMap(
      ([, text]) =>
        Object.entries<{ state: string }>(JSON.parse(text).hosts).map(([key, { state }]) =>
          [key.replace("-", "/"), state] as const
        ),
    );
    return { writer: summary?.writer, summary, hosts: new Map(hosts) };
  }

  /** Asserts that each of the daemons runs and is ready. */
  assertReady(): void {
    for (const { daemon, label } of this.hosts) {
      assert.equal(daemon.process.ended, undefined, `${label} runs`);
      assert(daemon.isReady(), `${label} is ready`);
    }
  }
}

/** What a cluster's writer says. */
export interface Published {
  readonly writer: string | undefined;
  readonly summary: ClusterSummary | undefined;
  readonly hosts: ReadonlyMap<string, string>;
}

/** An instance whose leases the test writes. */
export class Guest {
  readonly instanceId: string;
  readonly networkInterfaceId: string;
  readonly address: string;
  /** That it took last. */
  subnet: string | undefined;
  readonly #vSwitchId: string;
  readonly #cluster: Cluster;

  constructor(cluster: Cluster, identity: {
    readonly instanceId: string;
    readonly networkInterfaceId: string;
    readonly address: string;
    readonly vSwitchId: string;
  }) {
    this.#cluster = cluster;
    this.instanceId = identity.instanceId;
    this.networkInterfaceId = identity.networkInterfaceId;
    this.address = identity.address;
    this.#vSwitchId = identity.vSwitchId;
  }

  /** Takes the lease of a subnet, also if somebody else has it. */
  async take(subnet: string, options: CallOptions): Promise<void> {
    this.subnet = subnet;
    await this.#put(subnet, {
      BackendData: {
        InstanceID: this.instanceId,
        NetworkInterfaceID: this.networkInterfaceId,
        VpcID: VPC_ID,
        VSwitchID: this.#vSwitchId,
      },
    }, options);
  }

  /** Takes it as an upstream daemon does, which says nothing of its instance. */
  async takeAsUpstream(subnet: string, options: CallOptions): Promise<void> {
    await this.#put(subnet, {}, options);
  }

  /** Ends the lease of a subnet. */
  async leave(subnet: string, options: CallOptions): Promise<void> {
    await this.#cluster.lab.etcd.ctl(["del", this.#key(subnet)], options);
  }

  /** Says, once asked, which subnet it uses, as a daemon does. */
  async state(subnet: string, options: CallOptions): Promise<void> {
    const ask = await eventually(async () => {
      const { summary } = await this.#cluster.published(options);
      const isAsked = summary?.orphans.some(({ instanceId }) => instanceId === this.instanceId);
      return isAsked && summary?.ask;
    }, {
      ...options,
      title: `${this.instanceId} to be asked for its subnet`,
      timeoutMs: SETTLE_MS,
    });
    await this.#cluster.lab.etcd.put(
      `${this.#cluster.prefix}/ali-vpc/statements/${this.instanceId}`,
      JSON.stringify({ ask, subnet }),
      options,
    );
  }

  async #put(subnet: string, data: object, options: CallOptions): Promise<void> {
    const { etcd } = this.#cluster.lab;
    const granted = await etcd.ctl(["lease", "grant", "86400"], options);
    const lease = /^lease ([0-9a-f]+) granted/.exec(granted)![1]!;
    const value = JSON.stringify({ PublicIP: this.address, PublicIPv6: null, ...data });
    await etcd.ctl(["put", `--lease=${lease}`, this.#key(subnet), value], options);
  }

  #key(subnet: string): string {
    return `${this.#cluster.prefix}/subnets/${subnet.replace("/", "-")}`;
  }
}

/** Tells an oracle what happens in the store and in the cloud, from the beginning on. */
class CloudWatch implements AsyncDisposable {
  readonly #lab: Lab;
  readonly #oracle: CloudOracle;
  readonly #store;
  readonly #ending = new AbortController();
  readonly #following: readonly Promise<void>[];
  /** Up to which version of the cloud everything was noted. */
  #version = 0;
  #failure: unknown;

  constructor(lab: Lab, clusters: readonly Cluster[], ownPlaces: boolean) {
    this.#lab = lab;
    const judged = clusters.map(({ id, prefix, network, hosts }): JudgedCluster => ({
      id,
      prefix,
      network,
      graceMs: GRACE_SECONDS * 1_000,
      instances: new Map(
        hosts.map(({ address, identity }) => [address, identity.instanceId]),
      ),
    }));
    this.#oracle = new CloudOracle(judged, { ownPlaces });
    const [member] = lab.etcd.members;
    const { program, args } = member!.namespace.command("etcdctl", [
      `--endpoints=${member!.endpoint}`,
      ...["watch", "--prefix", "/cluster", "--rev=1", "-w", "json"],
    ]);
    this.#store = startLogged({ program, args }, {
      title: "etcdctl watch",
      logFile: `${lab.directory}/watch.log`,
      env: { PATH: Deno.env.get("PATH") ?? "/usr/sbin:/usr/bin:/sbin:/bin", ETCDCTL_API: "3" },
    });
    this.#following = [this.#followStore(), this.#followCloud()].map((following) =>
      following.catch((error) => {
        if (!this.#ending.signal.aborted) this.#failure = error;
      })
    );
  }

  /** Judges every write so far, once all that is known of now was noted. */
  async judge({ signal }: CallOptions): Promise<{ faults: readonly string[]; writes: number }> {
    const { control } = this.#lab.cloud;
    const requests = await control.requests();
    const { version } = await control.snapshot();
    await eventually(() => this.#failure !== undefined || this.#version >= version, {
      signal,
      title: "the watch of the cloud to catch up",
    });
    if (this.#failure !== undefined) throw this.#failure;
    const isWrite = ({ action, performed }: typeof requests[number]) =>
      performed && /RouteEntr(y|ies)$/.test(action);
    return {
      faults: this.#oracle.judge(requests),
      writes: requests.filter(isWrite).length,
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#ending.abort(new DOMException("The lab is closed", "AbortError"));
    await this.#store.kill();
    await Promise.all(this.#following);
  }

  async #followStore(): Promise<void> {
    const { signal } = this.#ending;
    for (let at = 0;; at++) {
      const line = await this.#store.waitForLine(/^/, { signal, from: at, timeoutMs: 3_600_000 });
      const { Events = [] } = JSON.parse(line) as {
        Events?: { type?: number; kv: { key: string; value?: string } }[];
      };
      for (const { type, kv } of Events) {
        const value = type === 1 ? undefined : decode(kv.value ?? "");
        this.#oracle.noteKey(Date.now(), decode(kv.key), value);
      }
    }
  }

  async #followCloud(): Promise<void> {
    const { signal } = this.#ending;
    for (;;) {
      const { version, routeEntries }: CloudSnapshot = await this.#lab.cloud.control.waitForChange(
        this.#version,
        { signal },
      );
      this.#oracle.noteEntries(Date.now(), routeEntries);
      this.#version = version;
    }
  }
}

function decode(base64: string): string {
  return new TextDecoder().decode(Uint8Array.fromBase64(base64));
}

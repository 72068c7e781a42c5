/**
 * A simulated VPC with clusters of light hosts in it, on virtual time, and an oracle that sees each
 * change of a route entry: it knows which instances run, whatever any store says.
 *
 * @module
 */
import { Prefix } from "../../src/net/mod.ts";
import { delay } from "../../src/util/time.ts";
import { MemoryRegistry, MemoryStore, openMemoryStore } from "../fakes/memory_registry.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { type RouteEntry, type Simulator, startSimulator } from "../simulator/mod.ts";
import { flagsOfSimulator, type LightHosts, startLightHosts } from "../support/light_host.ts";
import { settleAll } from "../support/settle_all.ts";
import { TimedProcess, VirtualTime } from "../support/virtual_time.ts";
import { seededRandom } from "./campaign.ts";

/** One cluster of a {@linkcode World}. */
export interface ClusterPlan {
  readonly name: string;
  /** Its `Network`. */
  readonly network: string;
  /** How many instances it may ever have. */
  readonly instances: number;
  /** Which of the example's two vSwitches, and so which table, each instance is in, in turn. */
  readonly vSwitches: readonly (0 | 1)[];
  readonly graceSeconds: number;
}

interface WorldOptions {
  readonly time: VirtualTime;
  readonly clusters: readonly ClusterPlan[];
  readonly random: () => number;
  readonly signal: AbortSignal;
}

const SUBNET_LENGTH = 24;
/** Of the simulated VPC, between a write and its effect. */
const WRITE_MS = { minMs: 300, maxMs: 2_000 };
/** How often what is looked for is looked at. */
const LOOK_MS = 2_000;

/** Opens a VPC with clusters whose hosts are still to be started. */
async function openWorld(options: WorldOptions): Promise<World> {
  const { clusters, time, random, signal } = options;
  const example = exampleConfig();
  const ids = clusters.flatMap(({ name, instances }) =>
    Array.from({ length: instances }, (_, n) => `i-${name}${n}`)
  );
  const vSwitchOf = clusters.flatMap(({ instances, vSwitches }) =>
    Array.from({ length: instances }, (_, n) => vSwitches[n % vSwitches.length]!)
  );
  const simulator = await startSimulator({
    config: {
      ...example,
      seed: Math.floor(random() * 2 ** 31),
      instances: [
        ...example.instances ?? [],
        ...ids.map((id, n) => ({
          id,
          vSwitchId: EXAMPLE.vSwitchIds[vSwitchOf[n]!],
          privateIp: `192.168.${vSwitchOf[n]! + 1}.${100 + n}`,
        })),
      ],
      accessKeys: [
        ...example.accessKeys ?? [],
        ...ids.map((id) => ({ id: keyOf(id), secret: `secret-of-${id}` })),
      ],
      behaviour: { quota: 500, delays: WRITE_MS },
    },
    nowMs: () => time.nowMs,
  });
  return new World(simulator, time, signal, clusters);
}

function keyOf(instanceId: string): string {
  return `LTAI5tCampaign${instanceId.replaceAll("-", "")}`;
}

/** What came of a story. */
export interface Judged {
  readonly violations: readonly string[];
  /** Entries that were removed or re-pointed. */
  readonly removals: number;
  readonly virtualSeconds: number;
}

/** Tells a story in a VPC of its own, on a clock of its own, and judges what was written. */
export async function tellInWorld<Told extends object>(
  { clusters, seed, signal }: {
    readonly clusters: readonly ClusterPlan[];
    readonly seed: number;
    readonly signal: AbortSignal;
  },
  story: (world: World, random: () => number) => Promise<Told>,
): Promise<Told & Judged> {
  const random = seededRandom(seed);
  using time = new VirtualTime({ random });
  time.grainMs = 250;
  const play = async () => {
    await using world = await openWorld({ time, random, signal, clusters });
    time.onJump = () => world.clusters.forEach((cluster) => cluster.tick());
    const told = await story(world, random);
    const { violations, removals } = world.oracle;
    return { ...told, violations, removals, virtualSeconds: time.elapsedMs / 1_000 };
  };
  return await time.run(play());
}

/** What {@linkcode openWorld} has opened. */
export class World implements AsyncDisposable {
  readonly simulator: Simulator;
  readonly time: VirtualTime;
  readonly signal: AbortSignal;
  readonly clusters: readonly Cluster[];
  readonly oracle: Oracle;

  constructor(
    simulator: Simulator,
    time: VirtualTime,
    signal: AbortSignal,
    plans: readonly ClusterPlan[],
  ) {
    this.simulator = simulator;
    this.time = time;
    this.signal = signal;
    this.clusters = plans.map((plan, n) => {
      const before = plans.slice(0, n).reduce((sum, { instances }) => sum + instances, 0);
      return new Cluster(this, plan, before);
    });
    this.oracle = new Oracle(this);
  }

  /** Lets virtual time pass. */
  sleep(seconds: number): Promise<void> {
    return delay(seconds * 1_000, this);
  }

  /** Waits until `isSo`; answers whether it was within the time. */
  async until(isSo: () => boolean, withinSeconds: number): Promise<boolean> {
    const until = this.time.elapsedMs + withinSeconds * 1_000;
    while (!isSo()) {
      if (this.time.elapsedMs > until) return false;
      await delay(LOOK_MS, this);
    }
    return true;
  }

  /** Entries of every table that lead to one of the clusters' instances. */
  entries(): RouteEntry[] {
    return this.simulator.cloud.routeEntries().filter(({ nextHops }) =>
      this.hostOf(nextHops[0]?.id ?? "") !== undefined
    );
  }

  hostOf(instanceId: string): WorldHost | undefined {
    for (const { hosts } of this.clusters) {
      const host = hosts.find((each) => each.instanceId === instanceId);
      if (host !== undefined) return host;
    }
    return undefined;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.oracle[Symbol.dispose]();
    await settleAll(this.clusters.flatMap(({ hosts }) => hosts.map((host) => host.stop())));
    await this.simulator[Symbol.asyncDispose]();
  }
}

/** A cluster with its store. */
export class Cluster {
  readonly world: World;
  readonly plan: ClusterPlan;
  /** All instances that it may ever have; those that were never started are no hosts yet. */
  readonly hosts: readonly WorldHost[];
  /** Where daemons that start from now on look. */
  store = new MemoryStore();
  readonly #ticking: { readonly store: MemoryStore; seconds: number }[] = [];

  constructor(world: World, plan: ClusterPlan, firstNumber: number) {
    this.world = world;
    this.plan = plan;
    this.hosts = Array.from({ length: plan.instances }, (_, n) =>
      new WorldHost(this, {
        instanceId: `i-${plan.name}${n}`,
        privateIp: `192.168.${plan.vSwitches[n % plan.vSwitches.length]! + 1}.${
          100 + firstNumber + n
        }`,
      }));
    this.configure(this.store);
  }

  /** Writes the config into a store, as an operator does, and lets time pass in it. */
  configure(store: MemoryStore): void {
    const { network, graceSeconds } = this.plan;
    store.setConfig(JSON.stringify({
      Network: network,
      SubnetLen: SUBNET_LENGTH,
      Backend: { Type: "ali-vpc", RouteGraceSeconds: graceSeconds },
    }));
    if (this.#ticking.some((each) => each.store === store)) return;
    this.#ticking.push({ store, seconds: this.world.time.elapsedMs / 1_000 });
  }

  /** Lets the stores' leases run out; to be called whenever time has passed. */
  tick(): void {
    const now = this.world.time.elapsedMs / 1_000;
    for (const ticking of this.#ticking) {
      ticking.store.advance(now - ticking.seconds);
      ticking.seconds = now;
    }
  }

  /** Those whose daemon runs. */
  get running(): readonly WorldHost[] {
    return this.hosts.filter((host) => host.isRunning);
  }

  /** Those that were never started. */
  get fresh(): readonly WorldHost[] {
    return this.hosts.filter((host) => host.isFresh);
  }

  /** The host that writes the routes, by what the store says. */
  get writer(): WorldHost | undefined {
    const text = this.store.area("ali-vpc/election").get("writer")?.value;
    const instance = text === undefined ? undefined : JSON.parse(text).instance;
    return this.hosts.find(({ instanceId }) => instanceId === instance);
  }

  /** Waits until every daemon that runs is ready. */
  ready(withinSeconds: number): Promise<boolean> {
    return this.world.until(
      () => this.running.every((host) => host.isReady),
      withinSeconds,
    );
  }

  /** The connections of all hosts fail, or work again. */
  cut(isCut: boolean): void {
    for (const host of this.hosts) host.cut(isCut);
  }
}

/** An instance, with its daemon or without. */
export class WorldHost {
  readonly cluster: Cluster;
  readonly instanceId: string;
  readonly privateIp: string;
  readonly process = new TimedProcess();
  isReleased = false;
  /** When its lease was deleted, on the world's clock; nobody may take its entries at once. */
  leaseEndedMs: number | undefined;
  isFresh = true;
  #daemon: LightHosts | undefined;
  #registry: MemoryRegistry | undefined;
  #subnet: string | undefined;

  constructor(
    cluster: Cluster,
    { instanceId, privateIp }: { readonly instanceId: string; readonly privateIp: string },
  ) {
    this.cluster = cluster;
    this.instanceId = instanceId;
    this.privateIp = privateIp;
  }

  get accessKeyId(): string {
    return keyOf(this.instanceId);
  }

  get isRunning(): boolean {
    return this.#daemon !== undefined;
  }

  get isReady(): boolean {
    return this.#daemon?.hosts[0]?.ready ?? false;
  }

  /** Why it is not ready. */
  get reasons(): readonly string[] {
    return this.#daemon?.hosts[0]?.reasons ?? ["no daemon runs"];
  }

  get log(): readonly string[] {
    return this.#daemon?.lines ?? [];
  }

  /**
   * The subnet of its pods: what its daemon holds, or held last (`subnet.env` outlives it);
   * `undefined` once the instance is released.
   */
  get subnet(): string | undefined {
    this.#subnet = this.#daemon?.hosts[0]?.subnet ?? this.#subnet;
    return this.isReleased ? undefined : this.#subnet;
  }

  start(subnet = this.subnet): void {
    if (this.#daemon !== undefined || this.isReleased) return;
    const { world, store } = this.cluster;
    const registry = this.#registry = new MemoryRegistry(store);
    registry.gate = this.process.gate;
    this.isFresh = false;
    world.time.as(this.process, () => {
      this.#daemon = startLightHosts({
        flagsOf: flagsOfSimulator(world.simulator),
        openStore: () => Promise.resolve(openMemoryStore(registry)),
        instances: [{
          id: this.instanceId,
          privateIp: this.privateIp,
          ...(subnet === undefined ? {} : { previous: { ipv4: Prefix.parse(subnet) } }),
        }],
        environment: {
          ACCESS_KEY_ID: this.accessKeyId,
          ACCESS_KEY_SECRET: `secret-of-${this.instanceId}`,
        },
        signal: world.signal,
      });
    });
  }

  /** Ends the daemon as SIGTERM does. */
  async stop(): Promise<void> {
    void this.subnet;
    const daemon = this.#daemon;
    this.#daemon = undefined;
    await daemon?.[Symbol.asyncDispose]();
  }

  /** Ends it as SIGKILL does: nothing is given back. */
  async kill(): Promise<void> {
    this.process.resume();
    this.cut(true);
    await this.stop();
  }

  /** The instance ceases to exist, for good. Its lease is as it was. */
  async release(): Promise<void> {
    await this.kill();
    this.isReleased = true;
    this.cluster.world.simulator.cloud.releaseInstance(this.instanceId);
  }

  /** Deletes its lease, as `flanneld cleanup --release` or the end of its time does. */
  dropLease(): void {
    this.leaseEndedMs = this.cluster.world.time.elapsedMs;
    for (const { key, value } of this.cluster.store.entries()) {
      if (value.includes(`"${this.instanceId}"`)) this.cluster.store.delete(key);
    }
  }

  /**
   * Stops the whole process for a while, with its clocks going on, or the whole machine, whose
   * monotonic clock stands still.
   */
  async suspend(seconds: number, what: "process" | "machine"): Promise<void> {
    const { world } = this.cluster;
    const { cloud } = world.simulator;
    this.process.suspend();
    // Nothing is sent meanwhile; what was asked before is answered, and read afterwards.
    const fault = cloud.addFault({
      match: { accessKeyId: this.accessKeyId },
      effect: { kind: "drop" },
    });
    await world.sleep(seconds);
    cloud.removeFault(fault);
    if (what === "machine") this.process.missedMs += seconds * 1_000;
    this.process.resume();
  }

  cut(isCut: boolean): void {
    if (isCut) this.#registry?.disconnect();
    else this.#registry?.reconnect();
  }
}

/**
 * Looks at each change of an entry. What must not happen:
 *
 * - an entry that leads to the subnet of a running instance ceases to lead there;
 * - an entry of an instance that is gone goes before its grace is over, and nobody else has the
 *   subnet;
 * - a daemon writes an entry of another cluster's instance.
 */
export class Oracle implements Disposable {
  readonly violations: string[] = [];
  /** Entries that were removed or re-pointed, of whomever. */
  removals = 0;
  readonly #world: World;
  readonly #subscription: Disposable;
  #known = new Map<string, { readonly destination: string; readonly host: WorldHost }>();
  #judged = 0;

  constructor(world: World) {
    this.#world = world;
    this.#subscription = world.simulator.cloud.subscribe(() => this.#look());
  }

  [Symbol.dispose](): void {
    this.#subscription[Symbol.dispose]();
  }

  #look(): void {
    const { simulator, time } = this.#world;
    const before = this.#known;
    this.#judgeWriters();
    const now = new Map<string, { readonly destination: string; readonly host: WorldHost }>();
    for (const { id, destination, nextHops, status } of simulator.cloud.routes.all()) {
      const host = this.#world.hostOf(nextHops[0]?.id ?? "");
      if (host !== undefined && status !== "Deleting") now.set(id, { destination, host });
    }
    this.#known = now;
    for (const [id, { destination, host }] of before) {
      const after = now.get(id);
      if (after?.host === host) continue;
      this.removals++;
      this.#judgeGrace(destination, host, after !== undefined);
      if (host.subnet !== destination) continue;
      const what = after === undefined ? "removed" : `re-pointed to ${after.host.instanceId}`;
      this.violations.push(
        `${clock(time.elapsedMs)}: ${destination} of ${host.instanceId}, which runs` +
          `${host.isRunning ? "" : " without its daemon"}, was ${what} by ${this.#lastWriter()}`,
      );
    }
  }

  #judgeGrace(destination: string, host: WorldHost, isRepointed: boolean): void {
    const { isReleased, leaseEndedMs, cluster } = host;
    if (!isReleased || isRepointed || leaseEndedMs === undefined) return;
    const isLeased = cluster.hosts.some(({ subnet }) => subnet === destination);
    const ageMs = this.#world.time.elapsedMs - leaseEndedMs;
    // Who looks on another clock may be off by a moment.
    if (isLeased || ageMs >= (cluster.plan.graceSeconds - 2) * 1_000) return;
    this.violations.push(
      `${clock(this.#world.time.elapsedMs)}: ${destination} of ${host.instanceId} was removed ` +
        `${Math.round(ageMs / 1_000)} s after its lease ended by ${this.#lastWriter()}`,
    );
  }

  #judgeWriters(): void {
    const requests = this.#world.simulator.cloud.requests({ sinceSequence: this.#judged });
    for (const { params, action, accessKeyId, sequence } of requests) {
      this.#judged = Math.max(this.#judged, sequence);
      if (!/^(Modify|Delete)RouteEntr/.test(action)) continue;
      const writer = this.#byKey(accessKeyId);
      for (const [name, value] of Object.entries(params)) {
        const known = /(^|\.)RouteEntryId$/.test(name) ? this.#known.get(value) : undefined;
        if (known === undefined || known.host.cluster === writer?.cluster) continue;
        this.violations.push(
          `${clock(this.#world.time.elapsedMs)}: ${action} of ${known.destination} of ` +
            `${known.host.instanceId} by ${writer?.instanceId} of another cluster`,
        );
      }
    }
  }

  #lastWriter(): string {
    const last = this.#world.simulator.cloud.requests().findLast(({ action }) =>
      /^(Create|Modify|Delete)RouteEntr/.test(action)
    );
    return last === undefined
      ? "nobody"
      : `${this.#byKey(last.accessKeyId)?.instanceId} (${last.action})`;
  }

  #byKey(accessKeyId: string): WorldHost | undefined {
    for (const { hosts } of this.#world.clusters) {
      const host = hosts.find((each) => each.accessKeyId === accessKeyId);
      if (host !== undefined) return host;
    }
    return undefined;
  }
}

/** `1:02:03`, for messages. */
export function clock(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1_000);
  const two = (n: number) => String(n % 60).padStart(2, "0");
  return `${Math.floor(seconds / 3_600)}:${two(Math.floor(seconds / 60))}:${two(seconds)}`;
}

/** The items in a random order. */
export function shuffled<Item>(items: readonly Item[], random: () => number): Item[] {
  return items.map((item) => ({ item, at: random() })).sort((a, b) => a.at - b.at)
    .map(({ item }) => item);
}

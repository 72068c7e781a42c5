/**
 * Light hosts: everything of a cloud's daemon but the kernel's part, many in one process. The store
 * is a real etcd, the cloud is simulated, and between them runs the daemon's own code.
 *
 * @module
 */
import { RemoteLoop } from "../../src/runtime/remote_loop.ts";
import { findBackend } from "../../src/runtime/mod.ts";
import type { BackendEntry, RuntimeContext } from "../../src/runtime/runtime.ts";
import { followLeases } from "../../src/runtime/follow_leases.ts";
import { followNetworkConfig, waitForNetworkConfig } from "../../src/runtime/await_config.ts";
import { openStore } from "../../src/app/open_store.ts";
import { patiently } from "../../src/status/patience.ts";
import { Planner } from "../../src/runtime/planner.ts";
import { ProblemLog } from "../../src/status/problems.ts";
import { Readiness, reasonsOf } from "../../src/status/readiness.ts";
import type { Host } from "../../src/backends/mod.ts";
import type { Options } from "../../src/cli/options.ts";
import { parseCommandLine } from "../../src/cli/parse.ts";
import { describeError } from "../../src/errors.ts";
import type { LeaseSubnet } from "../../src/lease/lease.ts";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { createLogger, type Logger } from "../../src/log.ts";
import { Address, Places } from "../../src/net/mod.ts";
import { watchLeaseLoss } from "../../src/store/lease_loss.ts";
import type { LeaseStore, OwnLease } from "../../src/store/lease_store.ts";
import { delay } from "../../src/util/time.ts";
import type { Simulator } from "../simulator/mod.ts";
import { settleAll } from "./settle_all.ts";

/** Options of {@linkcode startLightHosts}. */
export interface LightHostsOptions {
  /** Flags by which the host on an instance finds its cloud. @default none */
  readonly flagsOf?: (instanceId: string) => readonly string[];
  /** The backend of the host on an instance. @default {`ali-vpc`} */
  readonly backendOf?: (instanceId: string) => BackendEntry;
  readonly etcdEndpoint?: string;
  /** Opens the store, where it is not the etcd at `etcdEndpoint` with the default prefix. */
  readonly openStore?: () => Promise<LeaseStore>;
  /** Each becomes a host. */
  readonly instances: readonly {
    readonly id: string;
    readonly privateIp: string;
    /** The subnet of the last run. */
    readonly previous?: LeaseSubnet;
  }[];
  /** The environment of each, for credentials. @default {{}} */
  readonly environment?: Readonly<Record<string, string>>;
  /**
   * How many hosts share one connection to etcd and one view of the leases, as daemons do not. More
   * than 1 where a process could not hold that many. @default {1}
   */
  readonly hostsPerConnection?: number;
  /** The hosts start within this time, one after the other. @default {0}, all at once */
  readonly startWithinMs?: number;
  readonly signal: AbortSignal;
}

/** The flags of hosts whose cloud is `simulator`. */
export function flagsOfSimulator(simulator: Simulator): (instanceId: string) => readonly string[] {
  return (instanceId) => [
    `--ali-vpc-endpoint=${simulator.vpcEndpoint}`,
    `--ali-ecs-endpoint=${simulator.ecsEndpoint}`,
    `--ali-metadata-endpoint=${simulator.metadataEndpoint(instanceId)}`,
  ];
}

/** Lines of all hosts' logs that are kept. */
const KEPT_LINES = 2_000;
const MTU_BYTES = 1500;

/** Starts a host on each instance, all at once; they come up by themselves. */
export function startLightHosts(options: LightHostsOptions): LightHosts {
  return new LightHosts(options);
}

/** Hosts that were started together. Disposing stops all. */
export class LightHosts implements AsyncDisposable {
  readonly hosts: readonly LightHost[];
  /** The last lines of all hosts' logs, `info` and above. */
  readonly lines: string[] = [];
  readonly #startedAt = performance.now();
  readonly #stop: (reason: unknown) => void;
  readonly #stores: readonly SharedStore[];

  constructor(options: LightHostsOptions) {
    const { instances, hostsPerConnection = 1, startWithinMs = 0 } = options;
    // One signal for all would have a list of listeners that takes longer than what is measured.
    const stops: AbortController[] = [];
    const makeSignal = () => {
      const stop = new AbortController();
      stops.push(stop);
      return stop.signal;
    };
    this.#stop = (reason) => stops.forEach((stop) => stop.abort(reason));
    options.signal.addEventListener("abort", () => this.#stop(options.signal.reason), {
      once: true,
    });
    const log = createLogger({
      format: "human",
      verbosity: 0,
      write: (line) => {
        this.lines.push(line);
        if (this.lines.length > KEPT_LINES) this.lines.shift();
      },
    });
    const stores: SharedStore[] = [];
    this.hosts = instances.map((instance, at) => {
      if (at % hostsPerConnection === 0) {
        stores.push(new SharedStore(options, { log, signal: makeSignal() }));
      }
      return new LightHost(options, instance, stores.at(-1)!, {
        log: log.child(instance.id),
        signal: makeSignal(),
        delayMs: startWithinMs * at / instances.length,
      });
    });
    this.#stores = stores;
  }

  /**
   * Waits until all hosts are ready; answers the seconds from their start until the last one was.
   *
   * @throws {Error} If one has failed for good, or after `timeoutMs`.
   */
  async ready(
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<number> {
    const until = performance.now() + timeoutMs;
    while (this.hosts.some(({ readyAt }) => readyAt === undefined)) {
      const failed = this.hosts.find(({ failure }) => failure !== undefined);
      if (failed) throw failed.failure;
      if (performance.now() > until) {
        throw new Error(`Not ready after ${timeoutMs / 1_000} s: ${this.describe()}`);
      }
      await delay(100, { signal });
    }
    return (Math.max(...this.hosts.map(({ readyAt }) => readyAt!)) - this.#startedAt) / 1_000;
  }

  /** Who is not ready, and the end of the log; for messages. */
  describe(): string {
    const waiting = this.hosts.filter(({ ready }) => !ready);
    const [first] = waiting;
    const such = first ? `, such as ${first.instanceId}: ${first.reasons.join("; ")}` : "";
    return `${waiting.length} of ${this.hosts.length} light hosts are not ready${such}\n` +
      this.lines.slice(-50).join("\n");
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // All at once, so that none takes up the work of another that has stopped before.
    this.#stop(new Error("The light hosts are stopped"));
    await settleAll(this.hosts.map((host) => host[Symbol.asyncDispose]()));
    await settleAll(this.#stores.map((store) => store[Symbol.asyncDispose]()));
  }
}

/** What a host is given besides. */
interface LightHostContext {
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly delayMs: number;
}

/** One host. */
export class LightHost implements AsyncDisposable {
  readonly instanceId: string;
  /** When it was ready for the first time, on the clock of `performance.now()`. */
  readyAt: number | undefined;
  /** What has ended it, if not its stop. */
  failure: Error | undefined;
  readonly #readiness = new Readiness();
  readonly #resources = new AsyncDisposableStack();
  readonly #running: Promise<void>;
  #keeper: OwnLease | undefined;

  constructor(
    options: LightHostsOptions,
    instance: LightHostsOptions["instances"][number],
    store: SharedStore,
    context: LightHostContext,
  ) {
    this.instanceId = instance.id;
    for (const id of ["lease", "cloud", "store"] as const) {
      this.#readiness.condition(id).unmet({
        code: "starting",
        object: instance.id,
        message: "not there yet",
      });
    }
    this.#readiness.unmet.subscribe((unmet) => {
      if (unmet.length === 0) this.readyAt ??= performance.now();
    });
    this.#running = this.#run(options, instance, store, context).catch((error) => {
      if (context.signal.aborted) return;
      this.failure = new Error(`Light host ${instance.id} has ended`, { cause: error });
    });
  }

  get ready(): boolean {
    return this.#readiness.ready;
  }

  /** Why it is not ready. */
  get reasons(): readonly string[] {
    return reasonsOf(this.#readiness.statuses.value);
  }

  /** The subnet that it holds, in CIDR notation. */
  get subnet(): string | undefined {
    return this.#keeper?.lease.value.subnet.ipv4?.toString();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running;
    await this.#resources.disposeAsync();
  }

  async #run(
    { flagsOf, backendOf = () => findBackend("ali-vpc"), environment = {} }: LightHostsOptions,
    instance: LightHostsOptions["instances"][number],
    store: SharedStore,
    { log, signal, delayMs }: LightHostContext,
  ): Promise<void> {
    const resources = this.#resources;
    await delay(delayMs, { signal });
    const options = parseFlags([...store.flags, ...flagsOf?.(instance.id) ?? []]);
    const address = Address.parse(instance.privateIp);
    const host: Host = { link: "eth0", mtuBytes: MTU_BYTES, address, publicIp: address };
    const registry = await store.registry;
    const shared = { log, signal, onStatus: () => {} };
    const backends = [backendOf(instance.id)];
    const configured = await waitForNetworkConfig({ ...shared, store: registry, backends });
    const { network, backend } = configured;
    const runtime = resources.use(
      await patiently(
        "prepare backend",
        () =>
          backend.open(
            {
              ...shared,
              network,
              options,
              environment,
              store: registry,
            } as unknown as RuntimeContext,
          ),
        shared,
      ),
    );
    const keeper = await patiently("lease a subnet", () =>
      registry.acquire({
        network,
        attributes: runtime.announce(host),
        previous: instance.previous,
        // The bridge of its pods has an address of the subnet that they have.
        addresses: () => {
          const served = this.#keeper?.lease.value.subnet ?? instance.previous;
          return Promise.resolve([address, ...(served?.ipv4 ? [served.ipv4.address.add(1n)] : [])]);
        },
        occupied: async (each) => await runtime.occupied?.(each) ?? Places.none,
        log,
      }, { signal }), shared);
    this.#keeper = keeper;

    const readiness = resources.use(this.#readiness);
    const leases = await store.leasesOf(network);
    const own = () => keeper.lease.value;
    const planner = new Planner({
      ...{ runtime, leases, network, own, blackhole: false },
      host: () => host,
    });
    const cloud = new RemoteLoop({
      cloud: runtime.remote!,
      planner,
      leases,
      keeper,
      condition: readiness.condition("cloud"),
      log,
      onBlocked: (reason) => {
        // A host that was ready has pods, and so has one that knows the subnet from its last run.
        const isKnown = String(instance.previous?.ipv4) === this.subnet;
        if (this.readyAt === undefined && !isKnown) keeper.redraw(reason);
      },
    });
    runtime.facts.subscribe(() => {
      planner.invalidatePlan();
      cloud.planChanged();
    });
    const onLeases = () => {
      cloud.leasesChanged();
      planner.invalidate();
      cloud.planChanged();
    };
    const onState = () => {
      const state = keeper.state.value;
      const object = keeper.lease.value.key;
      const condition = readiness.condition("lease");
      if (state.held) condition.met();
      else condition.unmet({ code: "lease-lost", object, message: state.message });
    };
    onState();
    resources.use(keeper.state.subscribe(onState));
    resources.use(keeper.lease.subscribe(({ key }, before) => {
      if (key !== before.key) onLeases();
    }));
    resources.use(watchLeaseLoss(keeper, { onLeaseLoss: options.onLeaseLoss, log }));
    resources.use(store.subscribe(onLeases));
    if (leases.complete) onLeases();
    readiness.condition("store").met();
    const running = [
      runtime.run!({ leases, own }, { signal }),
      followNetworkConfig(registry, configured, shared),
      keeper.run({ signal }),
      cloud.reconciler.run({ signal }),
    ];
    try {
      await Promise.race(running);
    } finally {
      if (signal.aborted) await Promise.allSettled(running);
    }
  }
}

/** One connection to etcd, and what is known of the leases through it. */
class SharedStore implements AsyncDisposable {
  readonly flags: readonly string[];
  readonly registry: Promise<LeaseStore>;
  readonly #context: { readonly log: Logger; readonly signal: AbortSignal };
  readonly #followers = new Set<() => void>();
  #leases: LeaseMap | undefined;
  #following: Promise<void> = Promise.resolve();

  constructor(
    { etcdEndpoint, openStore: open }: LightHostsOptions,
    context: { readonly log: Logger; readonly signal: AbortSignal },
  ) {
    this.flags = etcdEndpoint === undefined ? [] : [`--etcd-endpoints=${etcdEndpoint}`];
    this.#context = context;
    this.registry = open?.() ?? openStore(parseFlags(this.flags), { environment: {}, ...context });
  }

  /** The leases, followed from the first call on. */
  async leasesOf(network: ConstructorParameters<typeof LeaseMap>[0]["network"]): Promise<LeaseMap> {
    if (this.#leases !== undefined) return this.#leases;
    const leases = this.#leases = new LeaseMap({ network });
    const { log, signal } = this.#context;
    const condition = new Readiness().condition("store");
    const tell = async (registry: LeaseStore) => {
      await followLeases({
        store: registry,
        leases,
        skipped: new ProblemLog(log),
        condition,
        log,
        onChange: () => this.#followers.forEach((onLeases) => onLeases()),
        signal,
      });
    };
    this.#following = tell(await this.registry).catch((error) => {
      if (!signal.aborted) log.error("Leases are not followed", { error: describeError(error) });
    });
    return leases;
  }

  subscribe(onLeases: () => void): Disposable {
    this.#followers.add(onLeases);
    return { [Symbol.dispose]: () => void this.#followers.delete(onLeases) };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#following;
    await (await this.registry)[Symbol.asyncDispose]();
  }
}

function parseFlags(flags: readonly string[]): Options {
  const command = parseCommandLine(flags, {});
  if (command.action !== "run") throw new Error("Cannot use flags: they do not run a daemon");
  return command.options;
}

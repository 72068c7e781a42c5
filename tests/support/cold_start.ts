/**
 * A whole cluster of light hosts that starts at once, on a cloud as slow and as strict as the real
 * one is.
 *
 * @module
 */
import { delay } from "../../src/util/time.ts";
import type { CloudConfig, RequestRecord, RouteEntry, Simulator } from "../simulator/mod.ts";
import { startSimulator } from "../simulator/mod.ts";
import { EtcdServers } from "./etcd_process.ts";
import {
  flagsOfSimulator,
  type LightHosts,
  type LightHostsOptions,
  startLightHosts,
} from "./light_host.ts";

/** Options of {@linkcode openColdCluster}. */
export interface ColdClusterOptions extends
  Pick<
    LightHostsOptions,
    "hostsPerConnection" | "startWithinMs" | "backendOf" | "signal"
  > {
  readonly hosts: number;
}

const TABLE_ID = "vtb-cold";

/**
 * What is known of the service: a write takes seconds and holds up all others of its VPC, and calls
 * are limited by action, account and minute (ModifyRouteEntry 300, GetVpcRouteEntrySummary 120;
 * others are taken to be like the former).
 */
const BEHAVIOUR = {
  delays: { minMs: 1_000, maxMs: 3_000 },
  throttle: { windowMs: 60_000, limit: 300, limits: { GetVpcRouteEntrySummary: 120 } },
};

/** Opens the cloud and the store; {@linkcode ColdCluster.start} starts the hosts. */
export async function openColdCluster(options: ColdClusterOptions): Promise<ColdCluster> {
  await using stack = new AsyncDisposableStack();
  const etcd = stack.use(await EtcdServers.start(options));
  const simulator = stack.use(await startSimulator({ config: planCloud(options.hosts) }));
  const config = { Network: "10.16.0.0/12", SubnetLen: 24, Backend: { Type: "ali-vpc" } };
  await etcd.any.ctl(["put", "/coreos.com/network/config", JSON.stringify(config)], options);
  return new ColdCluster(options, { etcd, simulator, resources: stack.move() });
}

/** A cluster whose hosts start at once. Disposing ends all of it. */
export class ColdCluster implements AsyncDisposable {
  readonly #options: ColdClusterOptions;
  readonly #etcd: EtcdServers;
  readonly #simulator: Simulator;
  readonly #resources: AsyncDisposableStack;

  constructor(
    options: ColdClusterOptions,
    { etcd, simulator, resources }: {
      readonly etcd: EtcdServers;
      readonly simulator: Simulator;
      readonly resources: AsyncDisposableStack;
    },
  ) {
    this.#options = options;
    this.#etcd = etcd;
    this.#simulator = simulator;
    this.#resources = resources;
  }

  /** Starts all hosts. */
  start(): LightHosts {
    const { cloud } = this.#simulator;
    return this.#resources.use(startLightHosts({
      ...this.#options,
      flagsOf: flagsOfSimulator(this.#simulator),
      etcdEndpoint: this.#etcd.any.endpoint,
      instances: [...cloud.network.instances.values()],
    }));
  }

  /**
   * Waits until as many entries as there are hosts are in force; answers the seconds that it took.
   *
   * @throws {Error} After `timeoutMs`.
   */
  async allRouted(
    { timeoutMs, signal }: { readonly timeoutMs: number; readonly signal: AbortSignal },
  ): Promise<number> {
    const begin = performance.now();
    for (;;) {
      const routed = this.entries().filter(({ status }) => status === "Available").length;
      const passedMs = performance.now() - begin;
      if (routed === this.#options.hosts) return passedMs / 1_000;
      if (passedMs > timeoutMs) {
        throw new Error(
          `${routed} of ${this.#options.hosts} routes are in force after ${timeoutMs / 1_000} s`,
        );
      }
      await delay(100, { signal });
    }
  }

  /** Entries that lead to an instance. */
  entries(): readonly RouteEntry[] {
    return this.#simulator.cloud.routeEntries(TABLE_ID).filter(({ type }) => type === "Custom");
  }

  /** Calls to an API so far, or after `since`. */
  calls(service: "vpc" | "ecs", since = 0): readonly RequestRecord[] {
    return this.#simulator.cloud.requests({ sinceSequence: since })
      .filter((each) => each.service === service);
  }

  /** Where the record of calls ends now. */
  get mark(): number {
    return this.#simulator.requests.at(-1)?.sequence ?? 0;
  }

  /** The instances that have made `calls`; each host has a role of its own. */
  callers(calls: readonly RequestRecord[]): readonly string[] {
    const { credentials } = this.#simulator.cloud;
    return [
      ...new Set(
        calls.map(({ accessKeyId }) =>
          credentials.find(accessKeyId)?.session?.role.replace(/^of-/, "") ?? accessKeyId
        ),
      ),
    ];
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#resources.disposeAsync();
  }
}

/** `12 × DescribeRouteEntryList, 2 × CreateRouteEntries (TaskConflict), …`, most frequent first. */
export function describeCalls(calls: readonly RequestRecord[]): string {
  const groups = Map.groupBy(
    calls,
    ({ action, code }) => code === "OK" ? action : `${action} (${code})`,
  );
  return [...groups].sort(([, a], [, b]) => b.length - a.length)
    .map(([name, { length }]) => `${length} × ${name}`).join(", ");
}

function planCloud(hosts: number): CloudConfig {
  const ids = Array.from({ length: hosts }, (_, n) => `i-cold${String(n + 1).padStart(4, "0")}`);
  return {
    vpcs: [{ id: "vpc-cold", cidr: "192.168.0.0/16" }],
    vSwitches: [{
      id: "vsw-cold",
      vpcId: "vpc-cold",
      cidr: "192.168.0.0/17",
      routeTableId: TABLE_ID,
    }],
    routeTables: [{ id: TABLE_ID, vpcId: "vpc-cold", type: "System" }],
    instances: ids.map((id, n) => ({
      id,
      vSwitchId: "vsw-cold",
      privateIp: `192.168.${1 + (n >> 7)}.${1 + (n & 127)}`,
      ramRole: `of-${id}`,
    })),
    roles: ids.map((id) => ({ name: `of-${id}` })),
    behaviour: { ...BEHAVIOUR, quota: Math.max(200, hosts) },
  };
}

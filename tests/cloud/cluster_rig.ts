/**
 * The route Table in the scope of all hosts, against the simulated cloud: the real client and
 * reconciler, without leases, election and plan.
 *
 * @module
 */
import * as v from "valibot";
import { VpcClient } from "../../src/cloud/ali/vpc_client.ts";
import { CredentialsChain } from "../../src/cloud/ali/credentials.ts";
import { Metadata } from "../../src/cloud/ali/metadata.ts";
import { RouteTable, type RouteTableOptions } from "../../src/cloud/routes/route_table.ts";
import { type RouteClaim, routeMark } from "../../src/cloud/routes/route_entry.ts";
import { type Parameters, PopRpc, type Rpc } from "../../src/cloud/ali/rpc.ts";
import type { WriteOptions } from "../../src/cloud/routes/provider.ts";
import { RateLimiter } from "../../src/cloud/rate_limiter.ts";
import { Prefix } from "../../src/net/mod.ts";
import { Reconciler } from "../../src/reconcile/reconciler.ts";
import { type RoundJson, roundJson } from "../../src/status/json.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { type BehaviourConfig, type Simulator, startSimulator } from "../simulator/mod.ts";
import { CLUSTER_ID, fastClock, keyEnv, LineLog, NETWORK, parse } from "./support.ts";

/** The VPC of the example with `hosts` instances: `i-0`, `i-1`, … */
export function startWithHosts(
  hosts: number,
  behaviour: BehaviourConfig = {},
  nowMs?: () => number,
): Promise<Simulator> {
  const example = exampleConfig();
  const instances = Array.from({ length: hosts }, (_, n) => ({
    id: `i-${n}`,
    vSwitchId: EXAMPLE.vSwitchIds[0],
    privateIp: `192.168.${10 + Math.floor(n / 250)}.${n % 250 + 1}`,
  }));
  return startSimulator({
    config: {
      ...example,
      instances: [...example.instances ?? [], ...instances],
      behaviour: { quota: 2_000, ...behaviour },
    },
    ...(nowMs === undefined ? {} : { nowMs }),
  });
}

/** The subnet of host `n` in a network of /16: a /26, so that a thousand fit. */
export function subnetOf(n: number, network: Prefix = NETWORK): string {
  const [a, b] = network.address.toString().split(".");
  return `${a}.${b}.${Math.floor(n / 4)}.${n % 4 * 64}/26`;
}

/** Claims of the hosts `from` to `to - 1`. */
export function claimsOf(from: number, to: number, network?: Prefix): RouteClaim[] {
  return Array.from({ length: to - from }, (_, at) => ({
    destination: Prefix.parse(subnetOf(from + at, network)),
    instanceId: `i-${from + at}`,
  }));
}

/** One writer for all hosts. */
export interface ClusterRig extends AsyncDisposable {
  readonly routes: RouteTable;
  readonly log: LineLog;
  /** Sets the scope and runs one round of the reconciler; every claim is wanted in every table. */
  round(claims: readonly RouteClaim[], options?: RoundOptions): Promise<RoundJson>;
}

export interface RoundOptions {
  readonly routeTableIds?: readonly string[];
  readonly otherTableIds?: readonly string[];
  readonly signal?: AbortSignal;
}

export type RigOptions =
  & Partial<Pick<RouteTableOptions, "fence" | "graceMs" | "onView" | "now" | "delay" | "mayTake">>
  & {
    readonly network?: Prefix;
    /** Comes between the writer and the service. */
    readonly tamper?: Tamper;
  };

/** Sees a call's parameters, forwards them as it likes, and gives the answer. */
export type Tamper = (
  action: string,
  parameters: Parameters,
  forward: (parameters: Parameters) => Promise<Record<string, unknown>>,
) => Promise<unknown>;

/** Opens a writer on the simulated cloud. */
export function openCluster(
  simulator: Simulator,
  { network = NETWORK, tamper, ...options }: RigOptions = {},
): ClusterRig {
  const clock = { ...fastClock(50), ...options };
  const log = new LineLog();
  const env = keyEnv();
  const credentials = new CredentialsChain({
    config: parse({}),
    env: (name) => env[name],
    metadata: new Metadata({ endpoint: "http://127.0.0.1:9", allowV1: true }),
    stsEndpoint: () => Promise.resolve(simulator.stsEndpoint),
  });
  const rpc = new PopRpc({
    service: "vpc",
    endpoint: () => Promise.resolve(simulator.vpcEndpoint),
    apiVersion: "2016-04-28",
    credentials,
    limiter: new RateLimiter({ burst: 1_000, perSecond: 1_000, ...clock }),
  });
  const api = new VpcClient(tamper ? new TamperedRpc(rpc, tamper) : rpc, EXAMPLE);
  let scope: readonly RouteClaim[] = [];
  const routes: RouteTable = new RouteTable({
    api,
    mark: { clusterId: CLUSTER_ID, network },
    log,
    // As if there were proof that instances do not use what no claim says that they do.
    mayTake: (route) =>
      scope.some(({ destination, instanceId }) =>
        instanceId === route.instanceId || destination.equals(route.destination)
      ) || routes.orphans.isDue(route),
    ...clock,
  });
  const setScope = routes.setScope.bind(routes);
  routes.setScope = (next) => {
    scope = next.claims;
    setScope(next);
  };
  return {
    routes,
    log,
    async round(claims, roundOptions = {}) {
      const {
        routeTableIds = [EXAMPLE.systemTableId],
        otherTableIds = [],
        signal = AbortSignal.timeout(100_000),
      } = roundOptions;
      routes.setScope({ routeTableIds, otherTableIds, claims });
      const desired = routeTableIds.flatMap((routeTableId) =>
        claims.map((claim) => ({ routeTableId, ...claim }))
      );
      const reconciler = new Reconciler({
        name: "cluster",
        stages: [{ table: routes, desired: () => desired }],
        resyncMs: 60_000,
        log,
      });
      return roundJson(await reconciler.round({ signal }));
    },
    async [Symbol.asyncDispose]() {
      await rpc[Symbol.asyncDispose]();
      credentials[Symbol.dispose]();
    },
  };
}

class TamperedRpc implements Rpc {
  readonly #rpc: Rpc;
  readonly #tamper: Tamper;

  constructor(rpc: Rpc, tamper: Tamper) {
    this.#rpc = rpc;
    this.#tamper = tamper;
  }

  async call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters,
    schema: Schema,
    options: WriteOptions,
  ): Promise<v.InferOutput<Schema>> {
    const answer = await this.#tamper(
      action,
      parameters,
      (forwarded) => this.#rpc.call(action, forwarded, v.looseObject({}), options),
    );
    return v.parse(schema, answer);
  }
}

/** The entries of a table within `network`, as `10.24.0.0/26 i-0`, those without our name marked. */
export function entriesOf(
  simulator: Simulator,
  { tableId = EXAMPLE.systemTableId, network = NETWORK }: { tableId?: string; network?: Prefix } =
    {},
): string[] {
  return simulator.cloud.routeEntries(tableId)
    .filter(({ destination }) => network.contains(Prefix.parse(destination)))
    .map(({ destination, nextHops, name, status }) => {
      const hop = nextHops.map(({ id }) => id).join();
      const marks = [
        name === routeMark({ clusterId: CLUSTER_ID, network }, hop) ? "" : ` "${name}"`,
        status === "Available" ? "" : ` ${status}`,
      ];
      return `${destination} ${hop}${marks.join("")}`;
    });
}

/** What {@linkcode entriesOf} shows when the claims are in place. */
export function wanted(claims: readonly RouteClaim[]): string[] {
  return claims.map(({ destination, instanceId }) => `${destination} ${instanceId}`);
}

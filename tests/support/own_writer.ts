import {
  type AliVpcInstance,
  type AliVpcOptions,
  identifyAliVpc,
} from "../../src/cloud/ali/identify.ts";
import { startPatience } from "../../src/cloud/routes/patience.ts";
import { RouteTable } from "../../src/cloud/routes/route_table.ts";
import { scopeOwnRoutes } from "../../src/cloud/routes/switched_routes.ts";
import { makeChecks, type SourceDestCheckTable } from "../../src/cloud/routes/source_dest_check.ts";
import type { Lease } from "../../src/lease/lease.ts";

/** The id of the cluster, whose store is left out here. */
export const CLUSTER_ID = "c0ffee0123456789";

/** A host without a route leader: it looks after its own entry and its own check alone. */
export interface OwnWriter extends AsyncDisposable {
  readonly facts: AliVpcInstance & { readonly routeTableIds: readonly string[] };
  readonly routes: RouteTable;
  readonly sourceDestCheck: SourceDestCheckTable;
  readonly credentialsSource: string | undefined;
  /** See {@linkcode scopeOwnRoutes}; returns the same object while the facts stay the same. */
  follow(
    own: Lease,
    peers: readonly Lease[],
    options: { signal: AbortSignal },
  ): Promise<OwnWriter["facts"]>;
}

/** Opens all at once what the daemon opens when it needs it; a full table is an error. */
export async function openOwnWriter(options: AliVpcOptions): Promise<OwnWriter> {
  const { config, log, signal, clock = {} } = options;
  await using stack = new AsyncDisposableStack();
  const cloud = stack.use(await identifyAliVpc(options));
  const { networkInterfaceId } = cloud.instance;
  const access = await cloud.connect({ signal });
  if (access.full !== undefined) throw new Error(`Cannot use ${access.full}`);
  const interfaces = () => [{ networkInterfaceId }];
  const sourceDestCheck = makeChecks(cloud, { ...config, sourceDestCheck: "disable" }, {
    interfaces,
    log,
  })!;
  if (config.sourceDestCheck === "disable") {
    await startPatience({ words: cloud.routes.words, log, signal, clock })(() =>
      sourceDestCheck.list({ signal })
    );
  }
  const { routes: api, instance: { instanceId } } = cloud;
  const mark = { clusterId: CLUSTER_ID, network: options.network };
  const table = new RouteTable({ ...clock, api, mark, instanceId, log });
  let facts = { ...cloud.instance, routeTableIds: access.routeTableIds };
  const resources = stack.move();
  return {
    get facts() {
      return facts;
    },
    routes: table,
    sourceDestCheck,
    get credentialsSource() {
      return cloud.credentialsSource;
    },
    async follow(own, peers, each) {
      const hosts = { instanceId, own, peers };
      const routeTableIds = await scopeOwnRoutes({ table, access }, hosts, each);
      if (routeTableIds.join() !== facts.routeTableIds.join()) facts = { ...facts, routeTableIds };
      return facts;
    },
    [Symbol.asyncDispose]: () => resources.disposeAsync(),
  };
}

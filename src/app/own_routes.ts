import type { AliVpcConfig } from "../backends/mod.ts";
import type { Options } from "../cli/options.ts";
import { identifyAliVpc } from "../cloud/ali/identify.ts";
import { readClusterId } from "../cloud/routes/cluster_identity.ts";
import type { ReleaseContext } from "../runtime/runtime.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import { Backoff } from "../util/time.ts";

/** Rounds of looking and removing. */
const ATTEMPTS = 3;

/** Where the command line says that `ali-vpc` finds its services; else the usual places. */
export function aliVpcEndpoints(options: Options) {
  return {
    ...(options.aliVpcEndpoint ? { vpc: options.aliVpcEndpoint.href } : {}),
    ...(options.aliEcsEndpoint ? { ecs: options.aliEcsEndpoint.href } : {}),
    metadata: options.aliMetadataEndpoint.href,
  };
}

/**
 * Removes the route entries of this instance from all tables of its VPC: those of its cluster, and
 * at the subnets that it has given back also those with an older or another cluster's mark, which
 * lead here just as well. To be used once its lease is released, since the route writer would make
 * them again. Returns how many went.
 *
 * @throws {Error} With what could not be removed.
 */
export async function removeOwnRoutes(
  { network, options, environment, released, registry, log, signal }: ReleaseContext,
  config: AliVpcConfig,
): Promise<number> {
  const clusterId = await readClusterId(registry, { signal });
  await using identity = await identifyAliVpc({
    config,
    network: network.ipv4!.network,
    endpoints: aliVpcEndpoints(options),
    env: (name) => environment[name],
    log,
    signal,
  });
  const table = await identity.openLeftovers({ clusterId, released, signal });
  const reconciler = new Reconciler({
    name: "cloud",
    stages: [{ table, desired: () => [] }],
    resyncMs: Infinity,
    log,
  });
  const backoff = new Backoff({ initialMs: 1_000, maxMs: 5_000 });
  let removed = 0;
  for (let attempt = 1;; attempt++) {
    const { problems, changed } = await reconciler.round({ signal });
    removed += changed;
    const unread = [...table.view.tables].flatMap(([id, { error }]) =>
      error === undefined ? [] : [`Cannot read route table ${id}: ${error}`]
    );
    const [problem] = [...problems, ...unread];
    if (problem === undefined) return removed;
    if (attempt === ATTEMPTS) throw new Error(problem);
    await backoff.wait({ signal });
  }
}

/** Opens the store of a network in Kubernetes. @module */
import * as v from "valibot";
import { ConfigError, UsageError } from "../../errors.ts";
import type { Logger } from "../../log.ts";
import { patiently } from "../../status/patience.ts";
import { type CallOptions, isTransient, StoreError } from "../errors.ts";
import type { LeaseStore } from "../lease_store.ts";
import type { AccessOptions } from "./access.ts";
import { annotationNames } from "./annotations.ts";
import { KubeClient } from "./client.ts";
import { configFile } from "./config_file.ts";
import type { FollowTiming } from "./follow.ts";
import { NodeApi } from "./nodes.ts";
import { KubeStore } from "./store.ts";

/** Where upstream's manifests put everything. */
const DEFAULT_NAMESPACE = "kube-flannel";

/** Options of {@linkcode openKubeStore}. */
export interface OpenKubeStoreOptions extends AccessOptions {
  readonly annotationPrefix: string;
  readonly netConfigPath: string;
  readonly setsCondition: boolean;
  readonly log: Logger;
  readonly timing?: FollowTiming;
  /** How often the config file is looked at. */
  readonly lookMs?: number;
}

/**
 * Opens the store. The API need not be up, but where `NODE_NAME` is not set: then the pod is asked
 * for its node, for as long as it takes.
 *
 * @throws {ConfigError} If options, files or environment are wrong.
 */
export async function openKubeStore(
  options: OpenKubeStoreOptions,
  { signal }: CallOptions,
): Promise<LeaseStore> {
  const { log, annotationPrefix, netConfigPath, setsCondition, timing, lookMs } = options;
  const names = annotationNames(annotationPrefix);
  if (typeof names === "string") throw new UsageError(`--kube-annotation-prefix: ${names}`);
  const client = await KubeClient.open(options, log);
  try {
    const node = await nodeName(client, options, signal);
    return new KubeStore({
      client,
      nodes: new NodeApi({ client, names, timing }),
      config: configFile(netConfigPath, lookMs === undefined ? {} : { lookMs }),
      node,
      namespace: options.environment["POD_NAMESPACE"] || client.namespace || DEFAULT_NAMESPACE,
      setsCondition,
      timing,
      log,
    });
  } catch (error) {
    client[Symbol.dispose]();
    throw error;
  }
}

const pod = v.object({ spec: v.object({ nodeName: v.string() }) });

/** The name of this host's node: `NODE_NAME`, or what the own pod says. */
async function nodeName(
  client: KubeClient,
  { environment, log }: OpenKubeStoreOptions,
  signal: AbortSignal,
): Promise<string> {
  const { NODE_NAME, POD_NAME, POD_NAMESPACE } = environment;
  if (NODE_NAME) return NODE_NAME;
  if (!POD_NAME || !POD_NAMESPACE) {
    throw new ConfigError("the environment", [
      "NODE_NAME is not set: with --kube-subnet-mgr it is the name of this host's Node object " +
      "(in a pod, from spec.nodeName; or set POD_NAME and POD_NAMESPACE)",
    ]);
  }
  const found = await patiently(
    "find the node of this pod",
    () =>
      client.request({
        what: `get pods/${POD_NAME} in namespace ${POD_NAMESPACE}`,
        path: `/api/v1/namespaces/${encodeURIComponent(POD_NAMESPACE)}/pods/` +
          encodeURIComponent(POD_NAME),
      }, { signal }),
    {
      log,
      signal,
      maxMs: 10_000,
      // Rights may be given while we wait.
      isFatal: (error) =>
        !isTransient(error) && !(error instanceof StoreError && error.reason === "denied"),
    },
  );
  const parsed = v.safeParse(pod, found);
  if (!parsed.success) throw new ConfigError(`pod ${POD_NAME}`, ["it has no node yet"]);
  return parsed.output.spec.nodeName;
}

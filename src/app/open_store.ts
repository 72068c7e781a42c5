/**
 * The store that the command line names.
 *
 * @module
 */
import type { Options } from "../cli/options.ts";
import type { Logger } from "../log.ts";
import { openEtcdStore, type OpenEtcdStoreOptions } from "../store/etcd/open.ts";
import type { LeaseStore } from "../store/lease_store.ts";

/** What is told of a run besides its options. */
export interface OpenStoreContext {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly log: Logger;
  readonly signal: AbortSignal;
}

/** Opens the store. It need not be up: its calls fail while it is not. */
export async function openStore(options: Options, context: OpenStoreContext): Promise<LeaseStore> {
  const { environment, log, signal } = context;
  if (options.kube === undefined) return await openEtcdStore(etcdOptions(options, log));
  const { openKubeStore } = await import("../store/kube/open.ts");
  return await openKubeStore({ ...options.kube, environment, log: log.child("kube") }, { signal });
}

/** What the command line says about etcd. */
export function etcdOptions(options: Options, log: Logger): OpenEtcdStoreOptions {
  return {
    endpoints: options.etcdEndpoints.map(({ url }) => url),
    prefix: options.etcdPrefix,
    api: options.etcdApi,
    ...(options.etcdCafile ? { caFile: options.etcdCafile } : {}),
    ...(options.etcdCertfile ? { certFile: options.etcdCertfile } : {}),
    ...(options.etcdKeyfile ? { keyFile: options.etcdKeyfile } : {}),
    ...(options.etcdUsername ? { username: options.etcdUsername } : {}),
    ...(options.etcdPassword ? { password: options.etcdPassword } : {}),
    renewMarginSeconds: options.subnetLeaseRenewMarginMinutes * 60,
    log: log.child("etcd"),
  };
}

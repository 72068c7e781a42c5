import { type ConfiguredNetwork, configureNetwork } from "../runtime/configured_network.ts";
import type { Options } from "../cli/options.ts";
import type { Logger } from "../log.ts";
import type { BackendEntry } from "../runtime/runtime.ts";
import { isTransient } from "../store/errors.ts";
import type { EtcdRegistry, OpenRegistryOptions } from "../store/etcd/open.ts";
import { Backoff } from "../util/time.ts";
import { patiently } from "../status/patience.ts";

/** What the command line says about the store. */
export function registryOptions(options: Options, log: Logger): OpenRegistryOptions {
  return {
    endpoints: options.etcdEndpoints.map(({ url }) => url),
    prefix: options.etcdPrefix,
    api: options.etcdApi,
    ...(options.etcdCafile ? { caFile: options.etcdCafile } : {}),
    ...(options.etcdCertfile ? { certFile: options.etcdCertfile } : {}),
    ...(options.etcdKeyfile ? { keyFile: options.etcdKeyfile } : {}),
    ...(options.etcdUsername ? { username: options.etcdUsername } : {}),
    ...(options.etcdPassword ? { password: options.etcdPassword } : {}),
    log: log.child("etcd"),
  };
}

/** What the hint shows; the network of the Alibaba guide. */
const EXAMPLE_CONFIG = '{"Network":"10.24.0.0/16","Backend":{"Type":"ali-vpc"}}';

/** Options of {@linkcode waitForNetworkConfig}. */
export interface WaitForNetworkConfigOptions {
  /** @default all */
  readonly backends?: readonly BackendEntry[];
  readonly registry: EtcdRegistry;
  readonly log: Logger;
  readonly signal: AbortSignal;
  readonly onStatus: (text: string) => void;
}

/**
 * The network config, as soon as the store has one.
 *
 * @throws {ConfigError} If it is wrong; with every fault.
 */
export async function waitForNetworkConfig(
  options: WaitForNetworkConfigOptions,
): Promise<ConfiguredNetwork> {
  const { registry, log, signal, onStatus } = options;
  const absent = new Backoff({ initialMs: 1_000, maxMs: 10_000 });
  for (let waiting = false;; waiting = true) {
    const text = await patiently(
      "read the network config",
      () => registry.readConfig({ signal }),
      {
        log,
        signal,
        onStatus,
        isFatal: (error) => !isTransient(error),
        initialMs: 500,
        maxMs: 10_000,
      },
    );
    if (text !== undefined) return configureNetwork(text, log, options.backends);
    if (!waiting) {
      const hint = await registry.explainMissingConfig(EXAMPLE_CONFIG, { signal })
        .catch(() => `There is no network config in ${registry.description}`);
      log.warn(`${hint}; waiting for it`);
      onStatus(hint);
    }
    await absent.wait({ signal });
  }
}

/** The config is read at start only; a change of it is said, and awaits the operator. */
export async function followNetworkConfig(
  registry: Pick<EtcdRegistry, "watchConfig">,
  configured: ConfiguredNetwork,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  let known: string | undefined = configured.text;
  for await (const text of registry.watchConfig({ signal })) {
    if (text === known) continue;
    known = text;
    if (text === undefined) {
      log.warn("The network config was removed from the store; going on with the present one");
    } else if (text === configured.text) {
      log.info("The network config is the one in use again");
    } else {
      log.warn("The network config was changed; restart flanneld to apply it");
    }
  }
}

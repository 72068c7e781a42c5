/**
 * Waits for the network config, and tells of changes of it.
 *
 * @module
 */
import { type ConfiguredNetwork, configureNetwork } from "./configured_network.ts";
import { EXAMPLE_CONFIG } from "./mod.ts";
import type { Logger } from "../log.ts";
import type { BackendEntry } from "./runtime.ts";
import { isTransient } from "../store/errors.ts";
import type { LeaseStore } from "../store/lease_store.ts";
import { Backoff } from "../util/time.ts";
import { patiently } from "../status/patience.ts";

/** Options of {@linkcode waitForNetworkConfig}. */
export interface WaitForNetworkConfigOptions {
  /** @default all */
  readonly backends?: readonly BackendEntry[];
  readonly store: Pick<LeaseStore, "config" | "description">;
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
  const { store, log, signal, onStatus } = options;
  const absent = new Backoff({ initialMs: 1_000, maxMs: 10_000 });
  for (let waiting = false;; waiting = true) {
    const text = await patiently(
      "read the network config",
      () => store.config.read({ signal }),
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
      const hint = await store.config.explainMissing(EXAMPLE_CONFIG, { signal })
        .catch(() => `There is no network config in ${store.description}`);
      log.warn(`${hint}; waiting for it`);
      onStatus(hint);
    }
    await absent.wait({ signal });
  }
}

/** The config is read at start only; a change of it is said, and awaits the operator. */
export async function followNetworkConfig(
  { config }: Pick<LeaseStore, "config">,
  configured: ConfiguredNetwork,
  { log, signal }: { readonly log: Logger; readonly signal: AbortSignal },
): Promise<void> {
  let known: string | undefined = configured.text;
  for await (const text of config.follow({ signal })) {
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

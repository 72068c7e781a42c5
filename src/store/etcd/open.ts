/** Opens the store of a network in etcd. @module */
import { ConfigError, describeError } from "../../errors.ts";
import type { LeaseStore } from "../lease_store.ts";
import { type EtcdApi, EtcdChoice } from "./choice.ts";
import { loadEtcd3 } from "./connection.ts";
import { type EtcdOptions, type EtcdSettings, parseEtcdOptions } from "./options.ts";
import { EtcdStore, type EtcdStoreOptions } from "./store.ts";
import { readTlsFiles } from "./tls_files.ts";
import { requireTlsSockets } from "./tls_socket.ts";

export interface OpenEtcdStoreOptions extends EtcdOptions, EtcdStoreOptions {
  /** `auto` is v3, and v2 if only v2 holds the config or only v2 is served. */
  readonly api: EtcdApi | "auto";
}

/**
 * Opens the store that `options` describe. etcd need not be up: connections are made by the calls,
 * and fail there. Warnings are logged.
 *
 * @throws {ConfigError} If options are wrong or TLS files cannot be used.
 * @throws {OperatorError} If this build cannot use an endpoint at all.
 */
export async function openEtcdStore(options: OpenEtcdStoreOptions): Promise<LeaseStore> {
  return new EtcdStore(await openEtcdKeys(options), options);
}

export async function openEtcdKeys(
  options: EtcdOptions & Pick<OpenEtcdStoreOptions, "api">,
): Promise<EtcdChoice> {
  const settings = parseEtcdOptions(options);
  await checkTlsFiles(settings);
  for (const warning of settings.warnings) options.log.warn(warning);
  if (options.api !== "v2") {
    settings.endpoints.filter(({ secure, path }) => secure || path !== undefined)
      .forEach(requireTlsSockets);
    // Loading takes a tenth of a second: let it pass while others wait for the network.
    loadEtcd3().catch(() => {}); // the first call meets the error
  }
  return new EtcdChoice(settings, options.api);
}

async function checkTlsFiles(settings: EtcdSettings): Promise<void> {
  try {
    await readTlsFiles(settings.tls);
  } catch (cause) {
    throw new ConfigError("the etcd options", [describeError(cause)], { cause });
  }
}

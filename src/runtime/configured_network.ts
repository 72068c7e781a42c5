/**
 * The network config together with its backend: what the daemon is configured to do.
 *
 * @module
 */
import { type NetworkConfig, parseNetworkConfig } from "../config/network_config.ts";
import { ConfigError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { backends, findBackend } from "./mod.ts";
import type { BackendEntry, ConfiguredBackend } from "./runtime.ts";

/** The network config, and the backend with its part of it. */
export interface ConfiguredNetwork {
  readonly text: string;
  readonly network: NetworkConfig;
  readonly backend: ConfiguredBackend;
}

/**
 * Parses the network config and its backend's part.
 *
 * @param table The backends there are.
 * @throws {ConfigError} With every fault.
 */
export function configureNetwork(
  text: string,
  log: Logger,
  table: readonly BackendEntry[] = backends,
): ConfiguredNetwork {
  const configure = ({ type, options }: NetworkConfig["backend"]) =>
    findBackend(type, table).configure(options);
  const { config: network, warnings } = parseNetworkConfig(text, {
    readBackend: (backend) => configure(backend).warnings,
  });
  for (const warning of warnings) log.warn(warning);
  const { backend } = configure(network.backend);
  requireFamilies(backend, network);
  const faults = backend.checkNetwork(network);
  if (faults.length > 0) throw new ConfigError("network config", faults);
  return { text, network, backend };
}

function requireFamilies(backend: ConfiguredBackend, network: NetworkConfig): void {
  const missing = ([4, 6] as const).filter((family) =>
    network[family === 4 ? "ipv4" : "ipv6"] && !backend.families.includes(family)
  );
  if (missing.length > 0) {
    throw new ConfigError(
      "network config",
      missing.map((family) =>
        `backend ${backend.type} cannot carry IPv${family}; set EnableIPv${family} to false, or ` +
        "choose another backend"
      ),
    );
  }
}

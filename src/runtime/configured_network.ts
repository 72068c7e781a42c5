/**
 * The network config together with its backend: what the daemon is configured to do.
 *
 * @module
 */
import type { NetworkFamilies } from "../backends/mod.ts";
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
  log: Pick<Logger, "warn">,
  table: readonly BackendEntry[] = backends,
): ConfiguredNetwork {
  let backend: ConfiguredBackend | undefined;
  const { config: network, warnings } = parseNetworkConfig(text, {
    readBackend({ type, options }, families) {
      const configured = findBackend(type, table).configure(options);
      backend = configured.backend;
      const faults = [...familyFaults(backend, families), ...backend.checkNetwork(families)];
      if (faults.length > 0) throw new ConfigError("network config", faults);
      return configured.warnings;
    },
  });
  for (const warning of warnings) log.warn(warning);
  return { text, network, backend: backend! }; // it is only missing beside a fault
}

function familyFaults(backend: ConfiguredBackend, families: NetworkFamilies): string[] {
  const missing = ([4, 6] as const).filter((family) =>
    families[family === 4 ? "ipv4" : "ipv6"] && !backend.families.includes(family)
  );
  return missing.map((family) =>
    `backend ${backend.type} cannot carry IPv${family}; set EnableIPv${family} to false, or ` +
    "choose another backend"
  );
}

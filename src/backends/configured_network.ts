/**
 * The network config together with its backend: what the daemon is configured to do.
 *
 * @module
 */
import { type NetworkConfig, parseNetworkConfig } from "../config/network_config.ts";
import { ConfigError } from "../errors.ts";
import type { Logger } from "../log.ts";
import { type AnyBackend, findBackend } from "./mod.ts";

/** The network config, and its backend's part of it. */
export interface ConfiguredNetwork {
  readonly text: string;
  readonly network: NetworkConfig;
  readonly backend: AnyBackend;
  /** What `backend.parseConfig()` made of the `Backend` object. */
  readonly backendConfig: unknown;
}

/** Parses the network config and its backend's part; all faults are reported together. */
export function configureNetwork(text: string, log: Logger): ConfiguredNetwork {
  let backendConfig: unknown;
  const { config: network, warnings } = parseNetworkConfig(text, {
    readBackend({ type, options }) {
      const parsed = findBackend(type).parseConfig(options);
      backendConfig = parsed.config;
      return parsed.warnings;
    },
  });
  for (const warning of warnings) log.warn(warning);
  const backend = findBackend(network.backend.type);
  requireFamilies(backend, network);
  const faults = backend.checkNetwork?.(backendConfig, network) ?? [];
  if (faults.length > 0) throw new ConfigError("network config", faults);
  return { text, network, backend, backendConfig };
}

function requireFamilies(backend: AnyBackend, network: NetworkConfig): void {
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

/** The enabled families of the config. */
export function enabledFamilies({ network }: Pick<ConfiguredNetwork, "network">) {
  return (["ipv4", "ipv6"] as const).flatMap((name) => {
    const family = network[name];
    return family ? [{ name, network: family.network }] : [];
  });
}

/**
 * `flanneld --check-config`: whether the daemon would take a network config, by its own parsers.
 *
 * @module
 */
import { enabledFamilies } from "../config/network_config.ts";
import { ConfigError, describeError } from "../errors.ts";
import { configureNetwork } from "../runtime/configured_network.ts";
import type { BackendEntry } from "../runtime/runtime.ts";

/** Options of {@linkcode checkConfig}. */
export interface CheckConfigOptions {
  readonly backends: readonly BackendEntry[];
  /** Told what the config means. */
  readonly say: (line: string) => void;
  /** Told each fault and each warning. */
  readonly complain: (line: string) => void;
}

/** Says what is wrong with the config in `file`, or in stdin for `-`; returns whether it is valid. */
export async function checkConfig(
  file: string,
  { backends, say, complain }: CheckConfigOptions,
): Promise<boolean> {
  const where = file === "-" ? "stdin" : file;
  let text: string;
  try {
    text = await readText(file);
  } catch (error) {
    complain(describeError(error, `Cannot read ${where}`));
    return false;
  }
  try {
    const configured = configureNetwork(text, {
      warn: (warning) => complain(`${where}: warning: ${warning}`),
    }, backends);
    const networks = enabledFamilies(configured).map(({ network, subnetLength }) =>
      `${network} in subnets of /${subnetLength}`
    );
    say(`${where}: valid: ${networks.join(" and ")}, backend ${configured.backend.type}`);
    return true;
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error;
    for (const fault of error.faults) complain(`${where}: ${fault}`);
    return false;
  }
}

async function readText(file: string): Promise<string> {
  if (file !== "-") return await Deno.readTextFile(file);
  return await new Response(Deno.stdin.readable).text();
}

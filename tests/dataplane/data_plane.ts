import { askStatus } from "../process/support.ts";
import type { Counters } from "../../src/dataplane/shared_state.ts";
import type { Host } from "../lab/mod.ts";

/** Where daemons answer; each host has a network of its own, so one port does. */
export const HEALTH_PORT = 8471;
/** Flags for {@linkcode dataPlaneOf}. */
export const HEALTH_FLAGS = ["--healthz-ip=127.0.0.1", `--healthz-port=${HEALTH_PORT}`];

/** What the daemon of `host` tells about its data plane on `/status`. */
export async function dataPlaneOf(
  host: Host,
  options: { readonly signal: AbortSignal },
): Promise<Counters> {
  return (await askStatus(host, options)).status.dataPlane;
}

/**
 * The `udp` backend's part that needs the world: the packet path, and the record that lets the next
 * run carry packets on at once.
 *
 * @module
 */
import type { UdpConfig } from "../../backends/mod.ts";
import { Cell } from "../../util/cell.ts";
import type { BackendRuntime, RuntimeContext } from "../runtime.ts";
import { TunnelPath } from "./tunnel_path.ts";

/** Opens what the tunnel needs; packets pass once the first plan is in place. */
export async function openUdpRuntime(
  { network, formerPath, log }: RuntimeContext,
  { allowAnySource, natTraversal }: UdpConfig,
): Promise<BackendRuntime<undefined>> {
  const families = ([4, 6] as const).filter((family) => network[`ipv${family}`]);
  const settings = { allowAnySource, natTraversal, families };
  const { fdStore, record } = formerPath;
  const path = await formerPath.take(settings) ?? new TunnelPath(settings, fdStore, log);
  path.changes.subscribe(() => record.note(() => path.describe()));
  return {
    facts: new Cell(undefined),
    withKernel: {
      before: (desired) => path.stagesBefore(desired),
      after: (desired) => path.stagesAfter(desired),
      drift: path.drift,
    },
    status: () => ({ dataPlane: () => ({ ...path.counters() }) }),
    async [Symbol.asyncDispose]() {
      await record.flush(); // what the path does cannot be told once it has ended
      await path[Symbol.asyncDispose]();
    },
  };
}

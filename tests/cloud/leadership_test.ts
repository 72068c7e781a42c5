/** Who may lead while it starts. */
import assert from "node:assert/strict";
import { aliVpc } from "../../src/cloud/ali/mod.ts";
import { openCloudRuntime } from "../../src/runtime/cloud.ts";
import type { BackendRuntime } from "../../src/runtime/runtime.ts";
import type { AliVpcFacts } from "../../src/backends/mod.ts";
import type { NetworkConfig } from "../../src/config/network_config.ts";
import { parseCommandLine } from "../../src/cli/parse.ts";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { MemoryRegistry, MemoryStore, openMemoryStore } from "../fakes/memory_registry.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { startSimulator } from "../simulator/mod.ts";
import { eventually } from "../support/eventually.ts";
import { keyEnv, lease, LineLog, NETWORK, parse } from "./support.ts";

const network = { ipv4: { network: NETWORK } } as NetworkConfig;

Deno.test("a host that does not get beyond its start leaves the lead to one that does", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  const store = new MemoryStore();
  const stop = new AbortController();
  const { signal } = stop;
  const reader = new MemoryRegistry(store).space("ali-vpc/election");
  const holder = async () => (await reader.get("writer", { signal }))?.value;
  const open = (instanceId: string, unservedMs?: number): Promise<BackendRuntime<AliVpcFacts>> => {
    const command = parseCommandLine([], {});
    assert(command.action === "run");
    const endpoints = {
      vpc: simulator.vpcEndpoint,
      ecs: simulator.ecsEndpoint,
      metadata: simulator.metadataEndpoint(instanceId),
    };
    return openCloudRuntime(
      aliVpc({ mayLead: true, endpoints }),
      {
        network,
        options: command.options,
        environment: keyEnv(),
        store: openMemoryStore(new MemoryRegistry(store)),
        log: new LineLog(),
        signal,
      },
      parse({}),
      unservedMs === undefined ? {} : { unservedMs },
    );
  };
  const [first, second] = EXAMPLE.instanceIds;
  await using _held = await open(first, 2_000);
  assert.match(await holder() ?? "", new RegExp(first));
  await using other = await open(second!);
  await eventually(async () => await holder() === undefined, { signal, title: "a vacancy" });

  const leases = new LeaseMap({ network });
  leases.replace([]);
  const own = () => lease("10.24.2.0/24", "192.168.1.2");
  const running = other.run!({ leases, own }, { signal });
  const title = "the second host as the leader";
  await eventually(async () => (await holder())?.includes(second!), { signal, title });
  // With a call under way, the end would leave a timer of the SDK behind.
  const state = new MemoryRegistry(store).space("ali-vpc/state");
  const published = async () => await state.get("summary", { signal }) !== undefined;
  await eventually(published, { signal, title: "a summary" });
  stop.abort(new Error("stop"));
  await running.catch(() => {});
});

/** Two clouds that have little in common. @module */
import { Prefix } from "../../src/net/mod.ts";
import { SmallCloud, smallCloudEntry } from "../fakes/small_cloud.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { startSimulator } from "../simulator/mod.ts";
import { flagsOfSimulator } from "../support/light_host.ts";
import { clusterContract } from "./cluster_contract.ts";
import { keyEnv } from "./support.ts";

clusterContract("small cloud", { sharesDestinations: true }, () => {
  const service = new SmallCloud();
  const instances = Array.from({ length: 4 }, (_, n) => ({
    id: `vm-${n}`,
    privateIp: `192.168.1.${n + 1}`,
  }));
  for (const { id } of instances) service.instances.add(id);
  return Promise.resolve({
    type: "small-cloud",
    instances,
    hostOptions: { backendOf: (id: string) => smallCloudEntry(service, id) },
    routes: () =>
      [...service.routes.values()].map(({ destination, hop }) => `${destination} ${hop}`),
    addForeign(destination: string) {
      const name = `foreign-${service.routes.size}`;
      service.routes.set(name, { name, destination: Prefix.parse(destination), hop: "vm-3" });
      return `${destination} vm-3`;
    },
    remove(destination: string) {
      for (const route of service.routes.values()) {
        if (String(route.destination) === destination) service.routes.delete(route.name);
      }
    },
    release: (id: string) => void service.instances.delete(id),
    setQuota: (routes: number) => service.quota = routes,
    failNext: (writes: number) => service.failing = writes,
    isWriting: () => service.busy > 0,
    get writes() {
      return service.writes.length;
    },
    [Symbol.asyncDispose]: () => Promise.resolve(),
  });
});

clusterContract("Alibaba Cloud", {}, async ({ nowMs }) => {
  const example = exampleConfig();
  const instances = Array.from({ length: 4 }, (_, n) => ({
    id: `i-host${n}`,
    vSwitchId: EXAMPLE.vSwitchIds[0],
    privateIp: `192.168.1.${100 + n}`,
  }));
  const simulator = await startSimulator({
    config: {
      ...example,
      instances: [...example.instances ?? [], ...instances],
      behaviour: { quota: 500, delays: { minMs: 1_000, maxMs: 3_000 } },
    },
    nowMs,
  });
  const { cloud } = simulator;
  const others = cloud.routeEntries(EXAMPLE.systemTableId)
    .filter(({ type }) => type === "Custom").length;
  const ours = () =>
    cloud.routeEntries(EXAMPLE.systemTableId).filter(({ type }) => type === "Custom");
  return {
    type: "ali-vpc",
    instances,
    hostOptions: { flagsOf: flagsOfSimulator(simulator), environment: keyEnv() },
    routes: () => ours().map(({ destination, nextHops }) => `${destination} ${nextHops[0]?.id}`),
    addForeign(destination: string) {
      cloud.addRoute(EXAMPLE.systemTableId, {
        destination,
        nextHops: [{ type: "Instance", id: EXAMPLE.instanceIds[0]! }],
        name: "by hand",
      });
      return `${destination} ${EXAMPLE.instanceIds[0]}`;
    },
    remove(destination: string) {
      cloud.deleteRoute({ routeTableId: EXAMPLE.systemTableId, destination });
    },
    release: (id: string) => cloud.releaseInstance(id),
    setQuota: (routes: number) => cloud.setQuota(routes + others),
    failNext: (writes: number) =>
      void cloud.addFault({
        match: { action: "CreateRouteEntries" },
        times: writes,
        effect: { kind: "error", status: 503, code: "ServiceUnavailable" },
      }),
    isWriting: () => ours().some(({ status }) => status !== "Available"),
    get writes() {
      return simulator.requests.filter(({ action, params }) =>
        /^(Create|Modify|Delete)RouteEntr/.test(action) && params["DryRun"] !== "true"
      ).length;
    },
    [Symbol.asyncDispose]: () => simulator[Symbol.asyncDispose](),
  };
});

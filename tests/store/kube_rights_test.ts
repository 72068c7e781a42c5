/** With no more rights than upstream's manifest gives, on a real API server. */
import assert from "node:assert/strict";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { Address } from "../../src/net/mod.ts";
import { openKubeStore } from "../../src/store/kube/open.ts";
import { skippable } from "../prerequisites.ts";
import { eventually } from "../support/eventually.ts";
import { KubeServer, missingKube } from "../support/kube_process.ts";
import { MemoryLogger, NETWORK } from "./support.ts";

const RBAC = "/apis/rbac.authorization.k8s.io/v1";
const BINDING = {
  metadata: { name: "flannel" },
  roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "ClusterRole", name: "flannel" },
  subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: "flannel" }],
};
const RULES = [
  { apiGroups: [""], resources: ["pods"], verbs: ["get"] },
  { apiGroups: [""], resources: ["nodes"], verbs: ["get", "list", "watch"] },
  { apiGroups: [""], resources: ["nodes/status"], verbs: ["patch"] },
];

const obstacle = missingKube();
Deno.test({
  name: skippable("kube: upstream's rights are enough, and are waited for", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const stop = new AbortController();
    const { signal } = stop;
    await using api = await KubeServer.start({ signal });
    const podCIDR = "10.24.1.0/24";
    await api.request("POST", "/api/v1/nodes", {
      metadata: { name: "own" },
      spec: { podCIDR, podCIDRs: [podCIDR] },
    });
    await api.request("POST", `${RBAC}/clusterroles`, {
      metadata: { name: "flannel" },
      rules: RULES,
    });
    const kubeconfigFile = `${api.directory}/flannel`;
    await Deno.writeTextFile(kubeconfigFile, api.kubeconfigOf("flanneltoken"));
    const log = new MemoryLogger();
    await using store = await openKubeStore({
      ...{ kubeconfigFile, environment: { NODE_NAME: "own" }, netConfigPath: "/dev/null", log },
      ...{ annotationPrefix: "flannel.alpha.coreos.com", setsCondition: true },
    }, { signal });
    const waiting: string[] = [];
    const acquiring = store.acquire({
      network: NETWORK,
      attributes: { publicIp: Address.parse("192.0.2.1"), backendType: "host-gw" },
      previous: undefined,
      log,
      onWaiting: (reason) => waiting.push(reason),
    }, { signal });
    await eventually(() => waiting.length > 0, { signal, title: "the refusal" });
    assert.match(waiting[0]!, /User "flannel" cannot get resource "nodes"/);
    await api.request("POST", `${RBAC}/clusterrolebindings`, BINDING);
    const own = await acquiring;
    const leases = new LeaseMap({ network: NETWORK });
    const running = [
      own.run({ signal }).catch(() => {}),
      (async () => {
        for await (const update of store.followLeases({ signal })) {
          if (update.type === "snapshot") leases.replace(update.entries);
        }
      })(),
    ];
    own.setReady!(true);
    await eventually(() => leases.size === 1, { signal, title: "the lease" });
    await eventually(async () => {
      const node = await (await api.request("GET", "/api/v1/nodes/own")).json();
      return JSON.stringify(node.status.conditions ?? []).includes("FlannelIsUp");
    }, { signal, title: "the condition" });

    await api.request("DELETE", `${RBAC}/clusterrolebindings/flannel`);
    own.publish({ publicIp: Address.parse("192.0.2.2"), backendType: "host-gw" });
    const trouble = () => own.state.value.held ? own.state.value.trouble?.message : undefined;
    await eventually(() => trouble() !== undefined, { signal, title: "the trouble" });
    assert.match(trouble()!, /cannot patch resource "nodes\/status"/);
    await api.request("POST", `${RBAC}/clusterrolebindings`, BINDING);
    await eventually(() => trouble() === undefined, { signal, title: "its end" });
    const node = await (await api.request("GET", "/api/v1/nodes/own")).json();
    assert.equal(node.metadata.annotations["flannel.alpha.coreos.com/public-ip"], "192.0.2.2");
    stop.abort();
    await Promise.all(running);
  },
});

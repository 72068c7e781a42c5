/** The lease store over Kubernetes: a fake API server, and a real one where there is one. */
import { openKubeStore } from "../../src/store/kube/open.ts";
import { FakeKubeApi } from "../fakes/kube_api.ts";
import { KubeServer, missingKube, type StartKubeOptions } from "../support/kube_process.ts";
import { skippable } from "../prerequisites.ts";
import { type ContractNetwork, testLeaseStoreContract } from "./lease_store_contract.ts";
import { MemoryLogger } from "./support.ts";

/** What both kinds of server have. */
interface ApiServer {
  readonly access: { readonly apiUrl?: string; readonly kubeconfigFile?: string };
  admin(method: string, path: string, body?: unknown): Promise<Response>;
}

let serial = 0;

/** A cluster of two nodes, whose CIDRs come somewhat late. */
async function network({ access, admin }: ApiServer): Promise<ContractNetwork> {
  const namespace = `test-${serial++}`;
  await admin("POST", "/api/v1/namespaces", { metadata: { name: namespace } });
  for (const host of [1, 2]) {
    await admin("DELETE", `/api/v1/nodes/node-${host}`);
    await admin("POST", "/api/v1/nodes", { metadata: { name: `node-${host}` } });
  }
  const assigning = setTimeout(async () => {
    for (const host of [1, 2]) {
      const podCIDR = `10.24.${host}.0/24`;
      const spec = { podCIDR, podCIDRs: [podCIDR] };
      await admin("PATCH", `/api/v1/nodes/node-${host}`, { spec });
    }
  }, 20);
  const folder = await Deno.makeTempDir();
  const netConfigPath = `${folder}/net-conf.json`;
  return {
    open: (host) =>
      openKubeStore({
        ...access,
        environment: { NODE_NAME: `node-${host}`, POD_NAMESPACE: namespace },
        annotationPrefix: "flannel.alpha.coreos.com",
        setsCondition: true,
        log: new MemoryLogger(),
        serviceAccountFolder: folder,
        netConfigPath,
        lookMs: 20,
      }, { signal: new AbortController().signal }),
    async setConfig(text) {
      if (text === undefined) await Deno.remove(netConfigPath);
      else await Deno.writeTextFile(netConfigPath, text);
    },
    close: () => {
      clearTimeout(assigning);
      Deno.removeSync(folder, { recursive: true });
    },
  };
}

for (const hasWatchList of [true, false]) {
  const how = hasWatchList ? "with WatchList" : "with pages";
  Deno.test(`Kubernetes fulfils the contract of a lease store (fake, ${how})`, async (t) => {
    await using api = new FakeKubeApi();
    api.hasWatchList = hasWatchList;
    const server: ApiServer = {
      access: { apiUrl: api.url },
      admin: (method, path, body) => api.admin(method, path, body),
    };
    await testLeaseStoreContract(t, () => network(server));
  });
}

const REAL: Readonly<Record<string, Omit<StartKubeOptions, "signal">>> = {
  "etcd 3.6": {},
  "etcd 3.4": { etcd: "3.4" },
  "WatchList off": { flags: ["--feature-gates=WatchList=false"] },
};

for (const [how, options] of Object.entries(REAL)) {
  const obstacle = missingKube();
  Deno.test({
    name: skippable(`Kubernetes fulfils the contract of a lease store (real, ${how})`, obstacle),
    ignore: obstacle !== undefined,
    fn: async (t) => {
      const { signal } = new AbortController();
      await using api = await KubeServer.start({ signal, ...options });
      const server: ApiServer = {
        access: { kubeconfigFile: api.kubeconfig },
        admin: (method, path, body) => api.request(method, path, body),
      };
      await testLeaseStoreContract(t, () => network(server));
    },
  });
}

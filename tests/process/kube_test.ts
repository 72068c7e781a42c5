/** The daemon on hosts whose subnets are pod CIDRs, with a real API server. */
import assert from "node:assert/strict";
import { type Host, type Lab, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { KubeServer, missingKube } from "../support/kube_process.ts";
import { assertPodsPing, openKernelLab } from "./kernel_support.ts";
import { askHealth, HEALTH_FLAGS, startReady } from "./support.ts";

const PREFIX = "flannel.alpha.coreos.com/";

/** What kubectl says of a node. */
interface NodeObject {
  readonly metadata: { readonly annotations?: Readonly<Record<string, string>> };
  readonly spec: { readonly podCIDR?: string };
  readonly status: {
    readonly conditions?: readonly { readonly type: string; readonly status: string }[];
  };
}

/** A lab beside an API server, in the place of etcd. */
class KubeLab implements AsyncDisposable {
  private constructor(readonly lab: Lab, readonly api: KubeServer, readonly config: string) {}

  static async open(backend: string, signal: AbortSignal): Promise<KubeLab> {
    await using stack = new AsyncDisposableStack();
    const config = { Network: "10.24.0.0/16", Backend: { Type: backend } };
    const lab = stack.use(await openKernelLab({ signal, hosts: 2, config }));
    const [{ namespace, port } = assert.fail()] = lab.etcd.members;
    const api = stack.use(
      await KubeServer.start({ signal, at: { namespace, address: port.address } }),
    );
    const path = `${lab.directory}/net-conf.json`;
    await Deno.writeTextFile(path, JSON.stringify(config));
    stack.move();
    return new KubeLab(lab, api, path);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.api[Symbol.asyncDispose]();
    await this.lab[Symbol.asyncDispose]();
  }

  async createNode(name: string, podCIDR?: string): Promise<void> {
    await this.api.kubectl(["create", "-f", "-"], {
      ...{ apiVersion: "v1", kind: "Node", metadata: { name } },
      spec: podCIDR === undefined ? {} : { podCIDR, podCIDRs: [podCIDR] },
    });
  }

  async node(name: string): Promise<NodeObject> {
    return JSON.parse(await this.api.kubectl(["get", "node", name, "-o", "json"]));
  }

  async start(host: Host, signal: AbortSignal): Promise<void> {
    await startReady(host, {
      signal,
      defaultFlags: [],
      env: { NODE_NAME: host.label },
      flags: [
        ...HEALTH_FLAGS,
        "--kube-subnet-mgr",
        `--kubeconfig-file=${this.api.kubeconfig}`,
        `--net-config-path=${this.config}`,
      ],
    });
  }
}

for (const backend of ["vxlan", "host-gw"]) {
  labTest(
    `kube: nodes form one network (${backend}), which outlives the API server, and follow a new CIDR`,
    async ({ signal }) => {
      await using kube = await KubeLab.open(backend, signal);
      const { lab, api } = kube;
      const [one, two] = lab.hosts as [Host, Host];
      await kube.createNode(one.label, "10.24.1.0/24");
      await kube.createNode(two.label);
      const late = kube.start(two, signal);
      await kube.start(one, signal);
      await api.kubectl([
        ...["patch", "node", two.label],
        ...["-p", '{"spec":{"podCIDR":"10.24.2.0/24","podCIDRs":["10.24.2.0/24"]}}'],
      ]);
      await late;
      await Promise.all(lab.hosts.map((host) => host.ensurePods(1, { signal })));
      await assertPodsPing(lab, { signal, title: "both" });
      const { metadata: { annotations = {} } } = await kube.node(one.label);
      assert.equal(annotations[`${PREFIX}kube-subnet-manager`], "true");
      assert.equal(annotations[`${PREFIX}backend-type`], backend);
      assert.equal(annotations[`${PREFIX}public-ip`], one.address);
      await eventually(async () => {
        const { status: { conditions = [] } } = await kube.node(one.label);
        return conditions.some(({ type, status }) =>
          type === "NetworkUnavailable" && status === "False"
        );
      }, { signal, title: "the condition" });

      await api.killApi();
      await assertPodsPing(lab, { signal, title: "without an API server" });
      assert.equal((await askHealth(one, "/healthz", { signal })).status, 200);
      api.startApi();
      await api.ready();

      await api.kubectl(["delete", "node", two.label]);
      await kube.createNode(two.label, "10.24.7.0/24");
      await eventually(async () => {
        const { subnet } = await two.readSubnetEnv();
        return String(subnet.prefix) === "10.24.7.0/24";
      }, { signal, title: "the other subnet" });
      await two.ensurePods(1, { signal });
      await assertPodsPing(lab, { signal, title: "with the other subnet" });
    },
    { needs: ["openssl"], obstacle: missingKube, timeoutMs: 180_000 },
  );
}

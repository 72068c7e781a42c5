/**
 * Hosts of `ali-vpc` with `Overflow` under a real kernel, with packets: three hosts behind a router
 * that stands for the VPC, each with a pod. The planned state is applied by the daemon's own Tables.
 *
 * ```
 *   pod1 ─ host1 ─ eth0 10.0.1.2 ─┐
 *   pod2 ─ host2 ─ eth0 10.0.2.2 ─┼─ router: 10.24.n.0/24 for each route entry there is
 *   pod3 ─ host3 ─ eth0 10.0.3.2 ─┘
 * ```
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  daemonCommand,
  daemonProgram,
  denoEnvironment,
  describeLosses,
  type Endpoint,
  labTest,
  type LossProbe,
  ping,
  pingMatrix,
  REPOSITORY,
  startLossProbe,
} from "../lab/mod.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { runProgram } from "../../src/util/process.ts";
import { delay } from "../../src/util/time.ts";
import { kernelState, note } from "./kernel_support.ts";
import { hostAddress, NETWORK, type OverflowRequest, subnetOf } from "./overflow_host.ts";

const HOSTS = [1, 2, 3];
const STRICT = "1";
const LOOSE = "2";

/** What {@linkcode Cluster.apply} gives a host. */
type Wanted = Partial<Pick<OverflowRequest, "overflow" | "vtep" | "backend" | "hosts">>;

/** Hosts, pods and the VPC between them. */
class Cluster implements AsyncDisposable {
  readonly directory: string;
  readonly pods: readonly Endpoint[];
  readonly #set: AsyncDisposable;
  readonly #router: NetworkNamespace;
  readonly #hosts: readonly NetworkNamespace[];
  readonly #signal: AbortSignal;

  private constructor(
    set: AsyncDisposable & { readonly directory: string },
    [router, ...others]: readonly NetworkNamespace[],
    signal: AbortSignal,
  ) {
    this.#set = set;
    this.directory = set.directory;
    this.#router = router!;
    this.#hosts = others.slice(0, HOSTS.length);
    this.#signal = signal;
    this.pods = HOSTS.map((n) => ({
      label: `pod${n}`,
      address: podAddress(n),
      namespace: others[HOSTS.length + n - 1]!,
    }));
  }

  static async open(signal: AbortSignal): Promise<Cluster> {
    await using stack = new AsyncDisposableStack();
    const set = stack.use(await openNamespaces({ signal }));
    const labels = ["router", ...HOSTS.map((n) => `host${n}`), ...HOSTS.map((n) => `pod${n}`)];
    const cluster = new Cluster(set, await set.add(labels, { signal }), signal);
    await cluster.#connect();
    stack.move();
    return cluster;
  }

  async #connect(): Promise<void> {
    const options = { signal: this.#signal };
    await this.#router.sysctl({ "net/ipv4/ip_forward": "1" }, options);
    for (const n of HOSTS) {
      const host = this.host(n);
      const pod = this.pod(n).namespace;
      // Strict wherever a host may say so, as RHEL and Alibaba Cloud Linux have it.
      await host.sysctl({
        "net/ipv4/ip_forward": "1",
        "net/ipv4/conf/all/rp_filter": STRICT,
        "net/ipv4/conf/default/rp_filter": STRICT,
      }, options);
      await host.ip([
        `link add eth0 type veth peer name h${n} netns ${this.#router.name}`,
        `address add ${hostAddress(n)}/24 dev eth0`,
        "link set eth0 up",
        `link add cni0 type veth peer name eth0 netns ${pod.name}`,
        `address add ${subnetOf(n).replace("0/24", "1/24")} dev cni0`,
        "link set cni0 up",
      ], options);
      await this.#router.ip([
        `address add 10.0.${n}.1/24 dev h${n}`,
        `link set h${n} up`,
      ], options);
      await host.ip([`route add default via 10.0.${n}.1`], options);
      await pod.ip([
        `address add ${podAddress(n)}/24 dev eth0`,
        "link set eth0 up",
        `route add default via ${subnetOf(n).replace("0/24", "1")}`,
      ], options);
    }
  }

  host(n: number): NetworkNamespace {
    return this.#hosts[n - 1]!;
  }

  pod(n: number): Endpoint {
    return this.pods[n - 1]!;
  }

  subnetFile(n: number): string {
    return `${this.directory}/host${n}.env`;
  }

  /** Makes the VPC's route entries those of `hosts`. */
  async enter(...hosts: readonly number[]): Promise<void> {
    for (const n of HOSTS) {
      await this.#router.ip([
        hosts.includes(n)
          ? `route replace ${subnetOf(n)} via ${hostAddress(n)}`
          // As the VPC has it: silence.
          : `route replace blackhole ${subnetOf(n)}`,
      ], { signal: this.#signal });
    }
  }

  /** Brings host `n` to what it plans. */
  async apply(n: number, wanted: Wanted): Promise<void> {
    const request: OverflowRequest = {
      host: n,
      hosts: HOSTS,
      subnetFile: this.subnetFile(n),
      backend: "ali-vpc",
      overflow: [],
      vtep: false,
      ...wanted,
    };
    const environment = Object.entries(denoEnvironment()).map((entry) => entry.join("="));
    await this.host(n).run("env", [
      ...["-i", ...environment, Deno.execPath(), "run", "-A", "--cached-only", "--no-check"],
      ...[`${REPOSITORY}tests/process/overflow_host.ts`, JSON.stringify(request)],
    ], { signal: this.#signal });
  }

  async applyAll(wanted: Wanted): Promise<void> {
    await Promise.all(HOSTS.map((n) => this.apply(n, wanted)));
  }

  async assertReachable(title: string): Promise<void> {
    const results = await pingMatrix(this.pods, { signal: this.#signal, seconds: 3 });
    assert.equal(describeLosses(results), "", title);
  }

  /** `rp_filter` of a link, as it stands there. */
  async rpFilter(n: number, link: string): Promise<string> {
    const text = await this.host(n).run("cat", [`/proc/sys/net/ipv4/conf/${link}/rp_filter`], {
      signal: this.#signal,
    });
    return text.trim();
  }

  async states(): Promise<string[][]> {
    return await Promise.all(
      HOSTS.map((n) => kernelState({ namespace: this.host(n) }, { signal: this.#signal })),
    );
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#set[Symbol.asyncDispose]();
  }
}

function podAddress(n: number): string {
  return subnetOf(n).replace("0/24", "2");
}

labTest(
  "ali-vpc: a host without a route entry is reached by VXLAN, and moves to the table losslessly",
  async ({ signal }) => {
    await using cluster = await Cluster.open(signal);
    const [pod1, pod2, pod3] = cluster.pods as [Endpoint, Endpoint, Endpoint];
    await cluster.enter(1, 2);
    await cluster.applyAll({});
    const before = await cluster.states();
    assert.ok(await ping(pod1, pod2.address, { signal, seconds: 3 }) !== undefined);
    assert.equal(await ping(pod1, pod3.address, { signal }), undefined, "there is no way yet");

    const watch = (from: Endpoint, to: Endpoint) =>
      startLossProbe(from, to, { signal, directory: cluster.directory, intervalMs: 2 });
    const assertNothingLost = async (probes: readonly LossProbe[]) => {
      for (const probe of probes) {
        const report = await probe.stop({ signal });
        note(`while hosts change over: ${JSON.stringify(report)}`);
        assert.equal(report.lost, 0);
        assert.ok(report.sent > 300);
      }
    };
    const probes = [await watch(pod1, pod2)];
    await cluster.applyAll({ overflow: [3], vtep: true });
    await cluster.assertReachable("with one host in overflow");
    for (const n of HOSTS) {
      const target = podAddress(n % 3 + 1);
      const host = { namespace: cluster.host(n) };
      assert.ok(await ping(host, target, { signal, seconds: 3 }) !== undefined, `host${n}`);
      assert.equal(await cluster.rpFilter(n, "eth0"), LOOSE);
      assert.equal(await cluster.rpFilter(n, "flannel.1"), LOOSE);
    }
    // Each path has its own MTU: 1472 bytes of payload make a packet of 1500.
    const fits = (to: Endpoint, payloadBytes: number, dontFragment = true) =>
      ping(pod1, to.address, { signal, seconds: 2, payloadBytes, dontFragment })
        .then((time) => time !== undefined);
    assert.ok(await fits(pod2, 1472), "the VPC takes 1500 bytes");
    assert.ok(!await fits(pod3, 1423), "more than the tunnel takes");
    assert.ok(await fits(pod3, 1422), "what the tunnel takes");
    assert.ok(await fits(pod3, 1472, false), "in fragments");
    const learnt = await pod1.namespace.run("ip", ["route", "get", pod3.address], { signal });
    assert.match(learnt, /mtu 1450/, "the host has told the pod");

    // A place is free: the entry comes first, then one host after another learns of it.
    probes.push(await watch(pod3, pod1));
    // A host's own packets leave the device with its address, and are answered while that is there.
    const host2 = { label: "host2", address: hostAddress(2), namespace: cluster.host(2) };
    const ofHost = await watch(host2, pod3);
    await delay(300, { signal });
    await cluster.enter(1, 2, 3);
    for (const n of [1, 3, 2]) {
      await cluster.apply(n, { vtep: true });
      await delay(300, { signal });
    }
    await assertNothingLost([ofHost]);
    // And when nobody needs the device any more, it goes.
    await cluster.applyAll({});
    await assertNothingLost(probes);
    assert.deepEqual(await cluster.states(), before);
    await cluster.assertReachable("with entries for all");

    // One host sends through the tunnel and gets its answers by the VPC, as while they change over:
    // with a strict filter that is silence.
    await cluster.apply(3, { vtep: true });
    await cluster.apply(1, { overflow: [3], vtep: true });
    assert.ok(await fits(pod3, 56), "there by the tunnel, back by the VPC");
    for (const n of [1, 3]) {
      const strict = { "net/ipv4/conf/eth0/rp_filter": STRICT };
      await cluster.host(n).sysctl(strict, { signal });
    }
    await cluster.host(3).sysctl({ "net/ipv4/conf/flannel.1/rp_filter": STRICT }, { signal });
    assert.ok(!await fits(pod3, 56), "the kernel filters");
    await cluster.apply(1, { overflow: [3], vtep: true });
    await cluster.apply(3, { vtep: true });
    assert.ok(await fits(pod3, 56), "the Table has put it right");
  },
  { timeoutMs: 180_000 },
);

labTest(
  "ali-vpc: another backend and cleanup leave nothing of the overflow's device",
  async ({ signal }) => {
    await using cluster = await Cluster.open(signal);
    await cluster.enter();
    await cluster.applyAll({});
    const before = await cluster.states();

    await cluster.applyAll({ backend: "vxlan" });
    await cluster.assertReachable("with vxlan");
    const vxlan = await cluster.states();
    await cluster.enter(1, 2);
    await cluster.applyAll({ overflow: [3], vtep: true });
    const overflow = await cluster.states();
    await cluster.assertReachable("with ali-vpc after vxlan");
    const devices = overflow.map((lines) => lines.filter((line) => /^link flannel/.test(line)));
    assert.deepEqual(
      devices.map((lines) => lines.map((line) => /mtu 1450 (0e:a1:\S+)/.exec(line)?.[1])),
      HOSTS.map((n) => [`0e:a1:0a:00:0${n}:02`]),
    );
    // Only what the one host needs is left of the tunnels that vxlan had to all.
    const tunnels = (lines: readonly string[] | undefined) =>
      lines!.filter((line) => /^(fdb|neighbor|route) .*flannel/.test(line)).length;
    assert.deepEqual(vxlan.map(tunnels), [6, 6, 6]);
    assert.deepEqual(overflow.map(tunnels), [3, 3, 6]);
    await cluster.applyAll({ backend: "vxlan" });
    assert.deepEqual(await cluster.states(), vxlan);

    await cluster.applyAll({ overflow: [3], vtep: true });
    assert.deepEqual(await cluster.states(), overflow, "whatever was there before");
    for (const n of HOSTS) await cleanUp(cluster, n, signal);
    assert.deepEqual(await cluster.states(), before);
  },
);

/** Runs `flanneld cleanup` on a host that has a subnet.env and no store. */
async function cleanUp(cluster: Cluster, n: number, signal: AbortSignal): Promise<void> {
  const subnetFile = cluster.subnetFile(n);
  await Deno.writeTextFile(
    subnetFile,
    `FLANNEL_NETWORK=${NETWORK}\nFLANNEL_SUBNET=${subnetOf(n).replace("0/24", "1/24")}\n` +
      "FLANNEL_MTU=1500\nFLANNEL_IPMASQ=false\n",
  );
  const { program, args } = daemonCommand(daemonProgram(), [
    "cleanup",
    `--subnet-file=${subnetFile}`,
  ]);
  const environment = Object.entries(denoEnvironment()).map((entry) => entry.join("="));
  const command = cluster.host(n).command("env", ["-i", ...environment, program, ...args]);
  const result = await runProgram(command.program, command.args, { signal, timeoutMs: 60_000 });
  assert.equal(result.code, 0, result.stderr);
  await assert.rejects(Deno.stat(subnetFile), Deno.errors.NotFound);
}

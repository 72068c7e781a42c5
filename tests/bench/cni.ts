/**
 * Fifty pods added at the same time, by real `bridge` and `host-local`: with the config that the
 * daemon writes, and through the plug-in `flannel`.
 *
 * @module
 */
import { renderConflist } from "../../src/cni/conflist.ts";
import { runProgram } from "../../src/util/process.ts";
import { createTestNamespace } from "../kernel/namespace.ts";
import { daemonCommand, denoEnvironment } from "../lab/program.ts";
import { binaryProgram } from "./program.ts";
import type { Report } from "./report.ts";

const PODS = 50;
const ROUNDS = 3;
const PLUGINS = "/usr/lib/cni";
const SUBNET_ENV =
  "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n";

export async function run(report: Report, { signal }: { signal: AbortSignal }): Promise<void> {
  report.section(`${PODS} pods added at the same time: time for each`);
  if (!(await Deno.stat(`${PLUGINS}/bridge`).catch(() => undefined))?.isFile) {
    report.note(`Skipped: Debian's containernetworking-plugins are not in ${PLUGINS}`);
    return;
  }
  const plugin = daemonCommand(await binaryProgram(report), ["cni"]);
  const directory = await Deno.makeTempDir({ prefix: "flanneld-bench-cni-" });
  try {
    await Deno.writeTextFile(`${directory}/subnet.env`, SUBNET_ENV);
    const common = {
      cniVersion: "0.3.1",
      name: "cbr0",
      ipam: { type: "host-local", dataDir: `${directory}/ipam` },
    };
    const { plugins: [bridge] } = JSON.parse(renderConflist(SUBNET_ENV));
    const plain = { ...bridge, ...common, ipam: { ...bridge.ipam, ...common.ipam } };
    const flannel = {
      ...{ ...common, type: "flannel" },
      ...{ subnetFile: `${directory}/subnet.env`, dataDir: `${directory}/data` },
      delegate: { hairpinMode: true, isDefaultGateway: true },
    };
    const bridgeCommand = { program: `${PLUGINS}/bridge`, args: [] };
    for (
      const [name, command, conf] of [
        ["with the config that the daemon writes", bridgeCommand, plain],
        ["through the plug-in flannel", plugin, flannel],
      ] as const
    ) {
      const times: number[] = [];
      for (let n = 0; n < ROUNDS; n++) times.push(await storm(command, conf, signal));
      report.figure(name, times, "ms");
    }
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

/** Adds all pods at once in a host of their own, then deletes them; milliseconds for each ADD. */
async function storm(
  { program, args }: { program: string; args: readonly string[] },
  conf: object,
  signal: AbortSignal,
): Promise<number> {
  await using stack = new AsyncDisposableStack();
  const host = stack.use(await createTestNamespace());
  const pods: { path: string }[] = [];
  for (let n = 0; n < PODS; n++) pods.push(stack.use(await createTestNamespace()));
  const call = async (verb: string, pod: number) => {
    const wholeEnv = {
      ...denoEnvironment(),
      CNI_COMMAND: verb,
      CNI_CONTAINERID: `pod${pod}`,
      CNI_NETNS: pods[pod]!.path,
      CNI_IFNAME: "eth0",
      CNI_PATH: PLUGINS,
    };
    const words = ["netns", "exec", host.name, program, ...args];
    const stdin = JSON.stringify(conf);
    const result = await runProgram("ip", words, { signal, stdin, wholeEnv, timeoutMs: 120_000 });
    if (result.code !== 0) throw new Error(`${verb} failed: ${result.stdout}${result.stderr}`);
  };
  const begin = performance.now();
  await Promise.all(pods.map((_, pod) => call("ADD", pod)));
  const took = performance.now() - begin;
  for (const pod of pods.keys()) await call("DEL", pod);
  return took / PODS;
}

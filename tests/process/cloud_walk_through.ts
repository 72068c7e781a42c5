import assert from "node:assert/strict";
import {
  API_ADDRESS,
  daemonCommand,
  type DaemonProgram,
  daemonProgram,
  GUIDE_CONFIG,
  REGION_ID,
  startLossProbe,
} from "../lab/mod.ts";
import { VPC_ID } from "../lab/plan.ts";
import { TestCa } from "../support/test_ca.ts";
import {
  assertPodsReachable,
  assertRightRoutes,
  callsSince,
  countCalls,
  foreignOf,
  mark,
  note,
  openCloudLab,
  startAll,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";

/** What the services are called inside a VPC. */
const SERVICE_NAMES = ["vpc", "ecs"].map((name) => `${name}-vpc.${REGION_ID}.aliyuncs.com`);

/** `program` on a machine whose resolver knows the services' names. */
async function withServiceNames(
  program: DaemonProgram,
  directory: string,
): Promise<DaemonProgram> {
  const hosts = `${directory}/hosts`;
  await Deno.writeTextFile(
    hosts,
    `127.0.0.1 localhost\n${API_ADDRESS} ${SERVICE_NAMES.join(" ")}\n`,
  );
  const command = daemonCommand(program, []);
  const words = [command.program, ...command.args].map((word) => `'${word}'`).join(" ");
  const path = `${directory}/flanneld-with-names`;
  // `ip netns exec` gives the program a mount namespace of its own, which hides what it mounts.
  const script = `#!/bin/sh\nset -e\nmount --bind ${hosts} /etc/hosts\nexec ${words} "$@"\n`;
  await Deno.writeTextFile(path, script, { mode: 0o755 });
  return { kind: "binary", path };
}

/**
 * Walks through flannel's guide for Alibaba Cloud as it is written, on two hosts, with packets;
 * then restarts the daemons, which no packet and no write call may show.
 */
export async function walkThrough(
  options: { readonly signal: AbortSignal; readonly program?: DaemonProgram },
): Promise<void> {
  const { signal } = options;
  await using ca = await TestCa.create({ signal });
  const tls = await ca.issue("aliyun", {
    subjectAltNames: SERVICE_NAMES.map((name) => `DNS:${name}`),
  });
  await using lab = await openCloudLab({
    signal,
    hosts: 2,
    config: GUIDE_CONFIG,
    cloud: { behaviour: { delays: { minMs: 300, maxMs: 900 }, requireTls: true }, tls },
  });
  const [first, second] = lab.hosts;
  const before = await foreignOf(lab);
  const guide = {
    signal,
    program: await withServiceNames(options.program ?? daemonProgram(), lab.directory),
    defaultFlags: [`--etcd-endpoints=${lab.etcd.endpoints.join(",")}`],
    env: { DENO_CERT: ca.caFile },
  };
  assert.deepEqual(guide.defaultFlags, ["--etcd-endpoints=http://10.0.0.5:2379"]);
  await startAll(lab, guide);

  const leases = await lab.leases({ signal });
  const subnets = await Promise.all(lab.hosts.map(subnetOf));
  assert.deepEqual(
    [...leases.keys()].sort(),
    subnets.map((each) => each.replace("/", "-")).sort(),
  );
  for (const [index, host] of lab.hosts.entries()) {
    // As upstream's daemons write it, so that they can read it, and what the route leader asks for.
    const { instanceId, networkInterfaceId, vSwitchId } = host.identity;
    assert.equal(
      leases.get(subnets[index]!.replace("/", "-")),
      `{"PublicIP":"${host.address}","PublicIPv6":null,"BackendData":{` +
        `"InstanceID":"${instanceId}","NetworkInterfaceID":"${networkInterfaceId}",` +
        `"VpcID":"${VPC_ID}","VSwitchID":"${vSwitchId}"}}`,
    );
    assert.equal((await host.readSubnetEnv()).mtuBytes, 1500);
  }
  await assertRightRoutes(lab);
  await lab.ensurePods(1, { signal });
  await assertPodsReachable(lab, { signal });
  const start = await callsSince(lab, 0);
  note(`calls of the first start of both (${start.length}): ${countCalls(start)}`);
  assert.ok(start.length <= 20, countCalls(start));
  assert.equal(new Set(start.map(({ source }) => source)).size, 1, "one writes for both");

  // From now on every packet counts, and every call.
  const probe = await startLossProbe(first!.pods[0]!, second!.pods[0]!, {
    signal,
    directory: lab.directory,
    intervalMs: 5,
  });
  await using _probe = probe;
  const from = await mark(lab);
  for (const host of lab.hosts) {
    const stopped = await host.daemon.stop();
    assert.equal(stopped.code, 0);
  }
  await startAll(lab, guide);
  const { sent, lost } = await probe.stop({ signal });
  assert.ok(sent > 100, `${sent} packets were sent`);
  assert.equal(lost, 0, `${lost} of ${sent} packets were lost`);
  const restart = await callsSince(lab, from);
  note(`calls of both restarts (${restart.length}): ${countCalls(restart)}`);
  assert.deepEqual(writesAmong(restart), []);
  assert.deepEqual(restart.filter(({ params }) => params["DryRun"] === "true"), []);
  // The lead may pass to the second when the first stops, and to either when both are back.
  assert.ok(restart.length <= 20, countCalls(restart));
  assert.deepEqual(await lab.leases({ signal }), leases);
  assert.deepEqual(await Promise.all(lab.hosts.map(subnetOf)), subnets);
  await assertRightRoutes(lab);
  assert.deepEqual(await foreignOf(lab), before);
}

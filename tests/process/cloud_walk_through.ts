import assert from "node:assert/strict";
import { type DaemonProgram, GUIDE_CONFIG, startLossProbe } from "../lab/mod.ts";
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

/**
 * Walks through flannel's guide for Alibaba Cloud as it is written, on two hosts, with packets;
 * then restarts the daemons, which no packet and no write call may show.
 */
export async function walkThrough(
  options: { readonly signal: AbortSignal; readonly program?: DaemonProgram },
): Promise<void> {
  const { signal } = options;

  await using lab = await openCloudLab({
    ...options,
    hosts: 2,
    config: GUIDE_CONFIG,
    cloud: { behaviour: { delays: { minMs: 300, maxMs: 900 } } },
  });
  const [first, second] = lab.hosts;
  const before = await foreignOf(lab);
  const guide = {
    signal,
    defaultFlags: [`--etcd-endpoints=${lab.etcd.endpoints.join(",")}`],
    // The service's own names lead nowhere in the lab.
    env: {
      FLANNELD_ALI_VPC_ENDPOINT: "http://100.100.0.10",
      FLANNELD_ALI_ECS_ENDPOINT: "http://100.100.0.10",
    },
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
    // As upstream's daemons write it, so that they can read it.
    assert.equal(
      leases.get(subnets[index]!.replace("/", "-")),
      `{"PublicIP":"${host.address}","PublicIPv6":null}`,
    );
    assert.equal((await host.readSubnetEnv()).mtuBytes, 1500);
  }
  await assertRightRoutes(lab);
  await lab.ensurePods(1, { signal });
  await assertPodsReachable(lab, { signal });
  const start = await callsSince(lab, 0, first);
  note(`calls of one host's first start (${start.length}): ${countCalls(start)}`);
  assert.ok(start.length <= 20, countCalls(start));

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
  const restart = await callsSince(lab, from, first);
  note(`calls of one host's restart (${restart.length}): ${countCalls(restart)}`);
  assert.deepEqual(writesAmong(await callsSince(lab, from)), []);
  assert.deepEqual(restart.filter(({ params }) => params["DryRun"] === "true"), []);
  assert.ok(restart.length <= 10, countCalls(restart));
  assert.deepEqual(await lab.leases({ signal }), leases);
  assert.deepEqual(await Promise.all(lab.hosts.map(subnetOf)), subnets);
  await assertRightRoutes(lab);
  assert.deepEqual(await foreignOf(lab), before);
}

/** What `flanneld cleanup --release` leaves of a host in the cloud. */
import assert from "node:assert/strict";
import type { RunResult } from "../../src/util/process.ts";
import { type Host, labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import {
  addForeignEntries,
  brisk,
  callsSince,
  CLEAR_OF_FOREIGN,
  countCalls,
  foreignOf,
  healed,
  mark,
  openCloudLab,
  routesOf,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";
import { askStatus, HEALTH_FLAGS } from "./support.ts";

const DENIED = { id: "LTAI5tMayOnlyRead001", secret: "a-secret-of-forty-characters-for-testing" };

/** Among the foreign entries: that of a host of the network whose lease has ended. */
const STRANDED = "10.24.203.0/24";

labTest("cleanup --release takes a host's own route entries with it", async ({ signal }) => {
  await using lab = await openCloudLab({
    signal,
    hosts: 5,
    config: brisk({}, CLEAR_OF_FOREIGN),
    cloud: {
      behaviour: { delays: { minMs: 50, maxMs: 300 } },
      customise: (config) => ({
        ...config,
        accessKeys: [
          ...config.accessKeys ?? [],
          { ...DENIED, allow: ["vpc:Describe*", "ecs:Describe*"] },
        ],
      }),
    },
  });
  const [writer, leaving, denied, cut, reserved] = lab.hosts as [Host, Host, Host, Host, Host];
  await addForeignEntries(lab, leaving);
  const before = await foreignOf(lab);
  await (await writer.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
  for (const host of [leaving, denied, cut, reserved]) {
    await host.startDaemon({ flags: HEALTH_FLAGS });
  }
  for (const host of lab.hosts) await host.daemon.ready({ signal });
  await assertStatus(writer, "route writer", writer, signal);
  await assertStatus(leaving, "host", writer, signal);
  const subnets = new Map<Host, string>();
  for (const host of lab.hosts) subnets.set(host, await subnetOf(host));
  const key = (host: Host) => subnets.get(host)!.replace("/", "-");
  // The operator keeps a subnet for a host by a key without an end.
  const value = (await lab.leases({ signal })).get(key(reserved))!;
  await lab.etcd.put(`/coreos.com/network/subnets/${key(reserved)}`, value, { signal });
  for (const host of [leaving, denied, cut, reserved]) await host.daemon.stop();

  const from = await mark(lab);
  const released = await leaving.cleanUp({ signal, flags: ["--release"] });
  assert.equal(released.code, 0, released.stderr);
  assert.match(released.stderr, /cloud: remove route entry .* via i-bp1lab002/);
  assert.deepEqual(warningsOf(released), []);
  assert.deepEqual(await routesOf(lab, leaving), []);
  const writes = writesAmong(await callsSince(lab, from));
  assert.equal(countCalls(writes), "1 × DeleteRouteEntry OK", "and nobody makes it again");
  assert.deepEqual(await foreignOf(lab), before, "what somebody else leads here stays");

  const unable = await denied.cleanUp({
    signal,
    flags: ["--release"],
    env: { ACCESS_KEY_ID: DENIED.id, ACCESS_KEY_SECRET: DENIED.secret },
  });
  const lost = await cut.cleanUp({
    signal,
    flags: ["--release", "--ali-metadata-endpoint=http://127.0.0.1:9"],
  });
  for (
    const [result, reason] of [
      [unable, /allow vpc:DeleteRouteEntry in the RAM policy/],
      [lost, /Cannot read metadata/],
    ] as const
  ) {
    assert.equal(result.code, 0, result.stderr);
    const said = warningsOf(result).filter((line) => /until its instance is released/.test(line));
    assert.equal(said.length, 1, result.stderr);
    assert.match(said[0]!, reason);
  }
  const kept = await reserved.cleanUp({ signal, flags: ["--release"] });
  assert.equal(kept.code, 0, kept.stderr);
  assert.match(kept.stderr, /Reservation of .* is kept, with its routes/);

  for (const host of [leaving, denied, cut, reserved]) {
    await assert.rejects(Deno.stat(host.subnetFile), Deno.errors.NotFound, host.label);
  }
  assert.deepEqual(
    [...(await lab.leases({ signal })).keys()].sort(),
    [key(writer), key(reserved)].sort(),
  );
  // What is left is known to the writer, which gives the hosts time to come back.
  const orphans = await eventually(async () => {
    const { cloud } = (await askStatus(writer, { signal })).status;
    return cloud.cluster?.orphans.length === 3 && cloud.cluster.orphans;
  }, { signal, title: "the writer to know of two more without a lease", timeoutMs: 30_000 });
  assert.deepEqual(
    destinationsOf(orphans),
    [STRANDED, ...[denied, cut].map((host) => subnets.get(host)!)].sort(),
  );
  assert.equal((await routesOf(lab, reserved)).length, 1);

  const again = await leaving.cleanUp({ signal, flags: ["--release"] });
  assert.equal(again.code, 0, again.stderr);
  assert.deepEqual(warningsOf(again), []);
  // Hosts that come back find their entries, or get them anew.
  for (const host of [leaving, denied, cut, reserved]) {
    await host.startDaemon({ flags: HEALTH_FLAGS });
  }
  for (const host of lab.hosts) await host.daemon.ready({ signal });
  for (const host of lab.hosts) await healed(lab, host, { signal });
  assert.deepEqual(await foreignOf(lab), before);
}, { timeoutMs: 180_000 });

function destinationsOf(orphans: { destination: string }[]): string[] {
  return orphans.map(({ destination }) => destination).sort();
}

/** What `/status` says of a cluster whose tables have room, on a host that is reached. */
async function assertStatus(
  host: Host,
  role: string,
  writer: Host,
  signal: AbortSignal,
): Promise<void> {
  const { cloud } = (await askStatus(host, { signal })).status;
  assert.equal(cloud.role, role);
  assert.equal(cloud.instance, host.identity.instanceId);
  assert.deepEqual(cloud.route, {
    instanceId: host.identity.instanceId,
    state: "routed",
    checkOff: true,
  });
  const { routeWriter, tables, overflow, orphans, trouble } = cloud.cluster;
  assert.equal(routeWriter, writer.identity.instanceId);
  assert.deepEqual([overflow, trouble], [[], undefined]);
  assert.deepEqual(destinationsOf(orphans), [STRANDED]);
  assert.deepEqual(tables.map(({ id }: { id: string }) => id), [SYSTEM_TABLE_ID]);
  assert.ok(tables[0].used > 5, JSON.stringify(tables));
}

function warningsOf({ stderr }: RunResult): string[] {
  return stderr.split("\n").filter((line) => / (WARN|ERROR) /.test(line));
}

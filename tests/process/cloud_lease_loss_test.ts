/** What a host does to the cloud once another host holds its lease. */
import assert from "node:assert/strict";
import { labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import {
  callsSince,
  countCalls,
  healed,
  mark,
  openCloudLab,
  STRANGER_ID,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";
import { askHealth, HEALTH_FLAGS, linesOf } from "./support.ts";

labTest(
  "a host whose lease is lost leaves the route to the lease's new holder",
  async ({ signal }) => {
    await using lab = await openCloudLab({ signal });
    const [host] = lab.hosts;
    const { control } = lab.cloud;
    const daemon = await host!.startDaemon({ flags: HEALTH_FLAGS });
    await daemon.ready({ signal });
    const destination = await subnetOf(host!);
    const key = `/coreos.com/network/subnets/${destination.replace("/", "-")}`;
    const stranger = host!.address.replace(/\d+$/, "200");
    await control.addInstance({
      id: STRANGER_ID,
      vSwitchId: host!.identity.vSwitchId,
      privateIp: stranger,
    });

    const from = await mark(lab);
    await lab.etcd.ctl(["put", key, JSON.stringify({ PublicIP: stranger })], { signal });
    await daemon.process.waitForLine(/Lease lost/, { signal });
    // The new holder does what a flanneld does that holds a lease.
    await control.deleteRoute({ routeTableId: SYSTEM_TABLE_ID, destination });
    const theirs = await control.addRoute(SYSTEM_TABLE_ID, {
      destination,
      nextHops: [{ type: "Instance", id: STRANGER_ID }],
      name: `flanneld/10.24.0.0/16/${STRANGER_ID}`,
    });
    // More than two resyncs, in which it would be taken back.
    await new Promise((resolve) => setTimeout(resolve, 25_000));
    const writes = writesAmong(await callsSince(lab, from, host));
    assert.deepEqual(writes, [], countCalls(writes));
    const { routeEntries } = await control.snapshot();
    const entry = routeEntries.find((each) => each.destination === destination);
    assert.equal(entry?.id, theirs.id);
    assert.deepEqual(entry?.nextHops.map(({ id }) => id), [STRANGER_ID]);
    const { status, body } = await askHealth(host!, "/readyz", { signal });
    assert.equal(status, 503);
    assert.match(body, new RegExp(`^lease: ${stranger} holds ${destination} now`, "m"));

    // Once the lease is free it is ours again, and so is the route.
    await lab.etcd.ctl(["del", key], { signal });
    await daemon.process.waitForLine(/Lease is held again/, { signal });
    await healed(lab, host!, { signal, timeoutMs: 60_000 });
    await eventually(async () => (await askHealth(host!, "/readyz", { signal })).status === 200, {
      signal,
      title: `the host to be ready again\n${daemon.process.tail()}`,
      timeoutMs: 60_000,
    });
    assert.equal(linesOf(daemon, /Lease lost/).length, 1);
  },
  { timeoutMs: 180_000 },
);

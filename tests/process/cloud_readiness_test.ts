/** When a host on the cloud counts as not ready, and what it leaves alone then. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import {
  callsSince,
  CLUSTER_ID,
  countCalls,
  healed,
  mark,
  openCloudLab,
  statusSays,
  STRANGER_ID,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";
import { askHealth, HEALTH_FLAGS, labTestsAtOnce, linesOf } from "./support.ts";

const atOnce = labTestsAtOnce("when a host on the cloud is ready", { timeoutMs: 240_000 });

atOnce(
  "a cloud that cannot be asked is no reason not to be ready; a missing route is",
  async ({ signal }) => {
    await using lab = await openCloudLab({ signal });
    const [host] = lab.hosts;
    const { control } = lab.cloud;
    const daemon = await host!.startDaemon({ flags: HEALTH_FLAGS });
    await daemon.ready({ signal });
    const readiness = () => askHealth(host!, "/readyz", { signal });

    const from = await mark(lab);
    await control.addFault({
      match: { service: "vpc" },
      effect: { kind: "error", status: 503, code: "ServiceUnavailable" },
    });
    await eventually(
      async () =>
        (await callsSince(lab, from, host)).filter(({ code }) => code === "ServiceUnavailable")
          .length >= 4,
      { signal, title: `four calls in vain\n${daemon.process.tail()}`, timeoutMs: 60_000 },
    );
    assert.equal((await readiness()).status, 200, daemon.process.tail());
    assert.deepEqual(linesOf(daemon, /Not ready/), []);
    assert.equal(linesOf(daemon, /ServiceUnavailable/).length, 1, daemon.process.tail());

    await control.clearFaults();
    await control.addFault({
      match: { action: "CreateRouteEntry" },
      effect: { kind: "error", status: 403, code: "Forbidden.RAM" },
    });
    const destination = await subnetOf(host!);
    await control.deleteRoute({ routeTableId: SYSTEM_TABLE_ID, destination });
    const reason = await eventually(async () => {
      const { status, body } = await readiness();
      return status === 503 && /Forbidden/.test(body) && body;
    }, { signal, title: `/readyz to say so\n${daemon.process.tail()}`, timeoutMs: 60_000 });
    assert.match(
      reason,
      /^cloud: this host, as the route leader, cannot set the route to this host: .*allow vpc:CreateRouteEntry in the RAM/m,
    );
    const [said = ""] = linesOf(daemon, /routes: Cannot add route entry .*Forbidden\.RAM/);
    assert.ok(said.includes(destination), daemon.process.tail());

    await control.clearFaults();
    await healed(lab, host!, { signal, timeoutMs: 90_000 });
    await eventually(async () => (await readiness()).status === 200, {
      signal,
      title: `the host to be ready again\n${daemon.process.tail()}`,
      timeoutMs: 60_000,
    });
    assert.equal(linesOf(daemon, /Not ready: cloud/).length, 1, daemon.process.tail());
    assert.equal(linesOf(daemon, /Ready: the subnet is usable/).length, 2, daemon.process.tail());
    assert.equal(linesOf(daemon, /Forbidden\.RAM/).length, 2, daemon.process.tail());
  },
);

atOnce(
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
      name: `flanneld/${CLUSTER_ID}/10.24.0.0/16/${STRANGER_ID}`,
    });
    // More than two resyncs, in which it would be taken back.
    await delay(25_000, { signal });
    const writes = writesAmong(await callsSince(lab, from, host));
    assert.deepEqual(writes, [], countCalls(writes));
    const { routeEntries } = await control.snapshot();
    const entry = routeEntries.find((each) => each.destination === destination);
    assert.equal(entry?.id, theirs.id);
    assert.deepEqual(entry?.nextHops.map(({ id }) => id), [STRANGER_ID]);
    const { status, body } = await askHealth(host!, "/readyz", { signal });
    assert.equal(status, 503);
    assert.match(body, new RegExp(`^lease: ${stranger} holds ${destination} now`, "m"));

    // Once the lease is free it is ours again; the route is when the other has taken away its own,
    // which its pods may use.
    await lab.etcd.ctl(["del", key], { signal });
    await daemon.process.waitForLine(/Lease is held again/, { signal });
    await statusSays(daemon, /may still be used by i-bp1stranger/, { signal });
    await control.deleteRoute({ routeTableId: SYSTEM_TABLE_ID, destination });
    await healed(lab, host!, { signal, timeoutMs: 60_000 });
    await eventually(async () => (await askHealth(host!, "/readyz", { signal })).status === 200, {
      signal,
      title: `the host to be ready again\n${daemon.process.tail()}`,
      timeoutMs: 60_000,
    });
    assert.equal(linesOf(daemon, /Lease lost/).length, 1);
  },
);

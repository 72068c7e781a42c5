/** When a host on the cloud counts as not ready, and when it does not. */
import assert from "node:assert/strict";
import { labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { callsSince, healed, mark, openCloudLab, subnetOf } from "./cloud_support.ts";
import { askHealth, HEALTH_FLAGS, linesOf } from "./support.ts";

labTest(
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
    assert.match(reason, /^cloud: Cannot add route entry .*allow vpc:CreateRouteEntry in the RAM/m);
    assert.ok(reason.includes(destination), reason);

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
  { timeoutMs: 240_000 },
);

/** Route tables in which others' entries stand where subnets could be leased. */
import assert from "node:assert/strict";
import { type Host, labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { assertRightRoutes, brisk, openCloudLab, STRANGER_ID } from "./cloud_support.ts";
import { askStatus, HEALTH_FLAGS, linesOf } from "./support.ts";

labTest(
  "new hosts draw subnets that no dead upstream host's entry stands for",
  async ({ signal }) => {
    const network = { Network: "10.24.0.0/16", SubnetMin: "10.24.1.0", SubnetMax: "10.24.8.0" };
    await using lab = await openCloudLab({
      signal,
      hosts: 3,
      config: { ...brisk(), ...network },
    });
    const { control } = lab.cloud;
    // Upstream gives its entries no name, and never removes one.
    const stale = [1, 2, 3, 5, 8].map((number) => `10.24.${number}.0/24`);
    for (const destination of stale) {
      await control.addRoute(SYSTEM_TABLE_ID, {
        destination,
        nextHops: [{ type: "Instance", id: STRANGER_ID }],
      });
    }
    const [first, second, powerless] = lab.hosts as [Host, Host, Host];
    // Nothing is published yet: the writer itself may have to draw again.
    await (await first.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
    await (await second.startDaemon({ flags: HEALTH_FLAGS })).ready({ signal });
    const never = {
      flags: [...HEALTH_FLAGS, "--ali-route-writer=never"],
      env: { ACCESS_KEY_ID: "", ACCESS_KEY_SECRET: "" },
    };
    await (await powerless.startDaemon(never)).ready({ signal });
    await assertRightRoutes(lab);
    const leases = [...(await lab.leases({ signal })).keys()];
    assert.equal(leases.length, 3);
    for (const key of leases) assert.ok(!stale.includes(key.replace("-", "/")), key);
    for (const { daemon } of [second, powerless]) {
      assert.deepEqual(linesOf(daemon, /Another subnet was leased/), [], "they knew before");
    }
    const { status } = await askStatus(powerless, { signal });
    assert.equal(status.cloud.cluster.occupied.length, stale.length);
    for (const [at, text] of status.cloud.cluster.occupied.entries()) {
      assert.ok(text.startsWith(`${stale[at]} via ${STRANGER_ID} in ${SYSTEM_TABLE_ID}`), text);
    }
    const entries = await control.routeEntries();
    for (const destination of stale) {
      const entry = entries.find((each) => each.destination === destination);
      assert.equal(entry?.nextHops[0]?.id, STRANGER_ID, "nobody touched it");
    }
  },
);

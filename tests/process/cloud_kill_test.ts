/** Daemons that are killed outright while they start, a hundred times. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Host, labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { linesOf } from "./support.ts";
import {
  addForeignEntries,
  assertRightRoutes,
  brisk,
  callsSince,
  CLEAR_OF_FOREIGN,
  foreignOf,
  note,
  openCloudLab,
  routesOf,
  startAll,
  subnetOf,
  writesAmong,
} from "./cloud_support.ts";

const HOSTS = 5;
const KILLS_PER_HOST = 20;
/** A kill comes within this after one of the moments. */
const SPREAD_MS = 1_000;
const MOMENTS = [
  / Starting /,
  /External interface is/,
  /Ready to use Alibaba Cloud/,
  /lease: Lease (taken|kept)/,
  /Leases of the network are known/,
];

labTest(
  "kill -9 at any moment of a start leaves one lease and one route per host",
  async ({ signal }) => {
    await using lab = await openCloudLab({
      signal,
      hosts: HOSTS,
      config: brisk({}, CLEAR_OF_FOREIGN),
      cloud: { behaviour: { delays: { minMs: 100, maxMs: 600 }, conflictProbability: 0.1 } },
    });
    await addForeignEntries(lab, lab.hosts[0]!);
    const before = await foreignOf(lab);
    const kills = { before: 0, leased: 0, writing: 0, ready: 0 };
    await Promise.all(lab.hosts.map(async (host) => {
      for (let kill = 0; kill < KILLS_PER_HOST; kill++) {
        // A host that has all it needs writes nothing, and nothing could be cut in two.
        if (kill % 3 === 1) await forgetRoute(host);
        if (kill % 3 === 2) await forgetLease(host);
        const daemon = await host.startDaemon();
        await daemon.process.waitForLine(MOMENTS[kill % MOMENTS.length]!, { signal });
        await delay(Math.random() * SPREAD_MS, { signal });
        assert.equal(daemon.process.ended, undefined, daemon.process.tail());
        const changing = (await lab.cloud.control.snapshot()).routeEntries.some((entry) =>
          entry.status !== "Available" && entry.nextHops[0]?.id === host.identity.instanceId
        );
        const ready = daemon.isReady();
        await daemon.kill();
        kills[
          ready
            ? "ready"
            : changing
            ? "writing"
            : linesOf(daemon, MOMENTS[3]!).length > 0
            ? "leased"
            : "before"
        ]++;
      }
    }));
    const calls = await callsSince(lab, 0);
    const writes = writesAmong(calls).filter(({ performed }) => performed);
    note(
      `${HOSTS * KILLS_PER_HOST} kills (${JSON.stringify(kills)}) amid ${writes.length} writes`,
    );
    assert.ok(kills.before > 0 && kills.leased > 0 && kills.writing > 0, JSON.stringify(kills));

    await startAll(lab, { signal });
    await assertRightRoutes(lab);
    const leases = await lab.leases({ signal });
    assert.deepEqual(
      [...leases.keys()].sort(),
      (await Promise.all(lab.hosts.map(subnetOf))).map((each) => each.replace("/", "-")).sort(),
      "one lease per host, all different",
    );
    assert.deepEqual(await foreignOf(lab), before);

    /** As if it had been deleted in the console. */
    async function forgetRoute(host: Host): Promise<void> {
      for (const line of await routesOf(lab, host)) {
        const [routeTableId = SYSTEM_TABLE_ID, destination = ""] = line.split(" ");
        await lab.cloud.control.deleteRoute({ routeTableId, destination });
      }
    }

    /** As if it had expired and its subnet had been given away: the next start gets another. */
    async function forgetLease(host: Host): Promise<void> {
      for (const [key, value] of await lab.leases({ signal })) {
        if (!value.includes(`"${host.address}"`)) continue;
        await lab.etcd.ctl(["del", `/coreos.com/network/subnets/${key}`], { signal });
      }
      await Deno.remove(host.subnetFile).catch(() => {/* not written yet */});
    }
  },
  { timeoutMs: 240_000 },
);

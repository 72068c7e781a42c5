/** Daemons that are killed outright while they start, a hundred times. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Host, labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { linesOf } from "./support.ts";
import {
  addForeignEntries,
  brisk,
  callsSince,
  CLEAR_OF_FOREIGN,
  foreignOf,
  healed,
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
const LEASED = /lease: Lease (taken|kept)/;
const KNOWN = /Leases of the network are known/;
const MOMENTS = [
  / Starting /,
  /External interface is/,
  LEASED,
  KNOWN,
];
/** In every fifth run the route leader is given so long to begin to write. */
const WRITING_MS = 10_000;

labTest(
  "kill -9 at any moment, of the route leader too, leaves one lease and one route per host",
  async ({ signal }) => {
    await using lab = await openCloudLab({
      signal,
      hosts: HOSTS,
      config: brisk({}, CLEAR_OF_FOREIGN),
      cloud: { behaviour: { delays: { minMs: 500, maxMs: 1_500 }, conflictProbability: 0.1 } },
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
        const moment = MOMENTS[kill % (MOMENTS.length + 1)];
        await daemon.process.waitForLine(moment ?? KNOWN, { signal });
        const found = moment === undefined && await somethingChanges();
        // A write takes longer than this, so that it is cut in two.
        await delay(Math.random() * (found ? SPREAD_MS / 4 : SPREAD_MS), { signal });
        assert.equal(daemon.process.ended, undefined, daemon.process.tail());
        const writing = await isWriter(host) && await changes();
        const ready = daemon.isReady();
        await daemon.kill();
        kills[
          writing
            ? "writing"
            : ready
            ? "ready"
            : linesOf(daemon, LEASED).length > 0
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
    // What a host had before it got another subnet goes soon after.
    await Promise.all(lab.hosts.map((host) => healed(lab, host, { signal, timeoutMs: 60_000 })));
    const leases = await lab.leases({ signal });
    assert.deepEqual(
      [...leases.keys()].sort(),
      (await Promise.all(lab.hosts.map(subnetOf))).map((each) => each.replace("/", "-")).sort(),
      "one lease per host, all different",
    );
    assert.deepEqual(await foreignOf(lab), before);

    /** Whether the VPC is at a write. */
    async function changes(): Promise<boolean> {
      const { routeEntries } = await lab.cloud.control.snapshot();
      return routeEntries.some(({ status }) => status !== "Available");
    }

    async function somethingChanges(): Promise<boolean> {
      const end = performance.now() + WRITING_MS;
      while (performance.now() < end) {
        if (await changes()) return true;
        await delay(50, { signal });
      }
      return false;
    }

    async function isWriter(host: Host): Promise<boolean> {
      const key = "/coreos.com/network/ali-vpc/election/writer";
      const holder = await lab.etcd.ctl(["get", "--print-value-only", key], { signal });
      return holder.includes(`"${host.identity.instanceId}"`);
    }

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

/**
 * A family that is switched on or off in the config of a running cluster: what the other family's
 * pods have stays, and no packet of theirs is lost.
 *
 * @module
 */
import assert from "node:assert/strict";
import { ETCD_PREFIX, type Lab, labTest, startLossProbe } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import {
  assertPodsPing,
  type Families,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
} from "./kernel_support.ts";
import { askStatus, HEALTH_FLAGS, linesOf, startReady } from "./support.ts";

/** The keys of the leases in either API. */
async function keys(lab: Lab, api: 2 | 3, options: { signal: AbortSignal }): Promise<string[]> {
  if (api === 3) return [...(await lab.leases(options)).keys()].sort();
  const folder = `${ETCD_PREFIX}/subnets`;
  const text = await lab.etcd.ctl(["ls", folder], { ...options, api });
  return text.split("\n").filter((line) => line !== "").map((line) => line.slice(folder.length + 1))
    .sort();
}

/** Restarts one daemon after the other. */
async function roll(lab: Lab, options: { signal: AbortSignal }): Promise<void> {
  for (const host of lab.hosts) {
    await host.daemon.stop();
    await startReady(host, { ...options, flags: HEALTH_FLAGS });
  }
}

for (const api of [3, 2] as const) {
  labTest(
    `IPv6 is switched on and off, etcd v${api}: IPv4 subnets stay, and no packet is lost`,
    async ({ signal }) => {
      await using lab = await openKernelLab({
        signal,
        hosts: 3,
        underlay: "dual",
        etcd: { v2: api === 2 },
        config: {},
      });
      await lab.etcd.ctl(["del", `${ETCD_PREFIX}/config`], { signal });
      const configure = (families: Families) =>
        lab.writeConfig(networkConfig(families, { Type: "vxlan" }), { signal, api });
      await configure("v4");
      await startCluster(lab, { signal });
      await assertPodsPing(lab, { signal, title: "IPv4 alone" });
      const before = await keys(lab, api, { signal });
      assert.equal(before.length, 3);

      for (const families of ["dual", "v4"] as const) {
        await configure(families);
        const [from, , to] = lab.hosts.map((host) => host.pods[0]!);
        const { directory } = lab.hosts[0]!;
        await using probe = await startLossProbe(from!, to!, { signal, directory });
        await roll(lab, { signal });
        await eventually(async () => {
          const pages = await Promise.all(lab.hosts.map((host) => askStatus(host, { signal })));
          return pages.every(({ status }) =>
            status.peers === 2 && status.skippedPeers.count === 0 &&
            Object.keys(status.skippedLeases).length === 0
          );
        }, { signal, title: `every peer in ${families}` });
        const { sent, lost, longestGapMs } = await probe.stop({ signal });
        note(`${families}: ${sent} sent, ${lost} lost, longest gap ${longestGapMs} ms`);
        assert.equal(lost, 0);
        const now = await keys(lab, api, { signal });
        assert.deepEqual(now.map((key) => key.replace(/&.*/, "")), before);
        assert.ok(
          now.every((key) => key.includes("&fd00:24:0:") === (families === "dual")),
          `${now}`,
        );
        for (const { daemon } of lab.hosts) {
          assert.equal(linesOf(daemon, /Lease changed/).length, 1, daemon.process.tail(40));
        }
        // The pods of before have one family; new ones get what there is.
        await Promise.all(lab.hosts.map((host) => host.ensurePods(1, { signal })));
        await assertPodsPing(lab, { signal, title: families });
      }
      assert.deepEqual(await keys(lab, api, { signal }), before);
    },
  );
}

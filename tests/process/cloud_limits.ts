/**
 * What a VPC does not allow, and what the operator has kept for himself.
 *
 * @module
 */
import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { askHealth, HEALTH_FLAGS, linesOf } from "./support.ts";
import {
  callsSince,
  countCalls,
  healed,
  lastWords,
  openCloudLab,
  ownCluster,
  ownLeases,
  routesOf,
  type Scenario,
  statusSays,
  subnetOf,
  together,
  writesAmong,
} from "./cloud_support.ts";

const [FULL, TIGHT] = ["vtb-full", "vtb-tight"];

/** A full table is waited out, an overlap is refused, and SourceDestCheck is left alone if asked. */
export async function meetLimits(options: { readonly signal: AbortSignal }): Promise<void> {
  const { signal } = options;

  const scenarios: Record<string, Scenario> = {
    "the VPC's block": overlapping("10.0.128.0/17", /overlaps 10\.0\.0\.0\/16 of VPC vpc-bp1lab/),
    "a secondary block": overlapping("172.16.0.0/12", /overlaps 172\.31\.0\.0\/16 of VPC/),
    "the service range": overlapping("100.80.0.0/16", /overlaps 100\.64\.0\.0\/10/),
    "a table that is full at start": async (host) => {
      const flags = await ownCluster(lab, host, { signal, backend: { RouteTableID: FULL } });
      const daemon = await host.startDaemon({ flags });
      const said = await statusSays(daemon, /full/, { signal });
      assert.match(said, /route table vtb-full: route table is full \(3 of 3\); raise the quota/);
      assert.equal(
        (await ownLeases(lab, host, { signal })).size,
        0,
        "no lease is held for nothing",
      );
      assert.equal(linesOf(daemon, /is full/).length, 1);
      await control.setQuota(4, { routeTableId: FULL });
      await daemon.ready({ signal });
      await healed(lab, host, { signal, tables: [FULL] });
    },
    "a table that fills up while the route is missing": async (host) => {
      const cluster = await ownCluster(lab, host, { signal, backend: { RouteTableID: TIGHT } });
      const flags = [...cluster, ...HEALTH_FLAGS];
      const daemon = await host.startDaemon({ flags });
      await daemon.ready({ signal });
      await control.addRoute(TIGHT, {
        destination: "172.30.0.0/24",
        nextHops: [{ type: "NatGateway", id: "ngw-bp1lab" }],
      });
      await control.deleteRoute({ routeTableId: TIGHT, destination: await subnetOf(host) });
      const said = await statusSays(daemon, /full/, { signal });
      assert.match(
        said,
        /no route to this host: route table vtb-tight is full \(2 of 2\); raise the quota/,
      );
      const { status, body } = await askHealth(host, "/readyz", { signal });
      assert.equal(status, 503);
      assert.match(body, /route table vtb-tight is full \(2 of 2\)/);
      await control.deleteRoute({ routeTableId: TIGHT, destination: "172.30.0.0/24" });
      await healed(lab, host, { signal, tables: [TIGHT] });
      await eventually(
        async () => (await askHealth(host, "/readyz", { signal })).status === 200,
        { signal, title: "the host to be ready again" },
      );
      const once = [/WARN .*routes: Cannot add route entry .*is full/, /Not ready: .*is full/];
      for (const pattern of once) assert.equal(linesOf(daemon, pattern).length, 1, `${pattern}`);
      // And again when this host has taken the place that had got free.
      assert.equal(linesOf(daemon, /WARN .* Route table vtb-tight is full/).length, 2);
      assert.equal(linesOf(daemon, /is full/).length, 4, linesOf(daemon, /is full/).join("\n"));
    },
    "a check that is the operator's": async (host) => {
      const backend = { SourceDestCheck: "ignore" };
      const flags = await ownCluster(lab, host, { signal, backend });
      await (await host.startDaemon({ flags })).ready({ signal });
      const calls = await callsSince(lab, 0, host);
      assert.equal(countCalls(calls.filter(({ service }) => service === "ecs")), "");
      const { networkInterfaces } = await control.snapshot();
      const found = networkInterfaces.find(({ id }) => id === host.identity.networkInterfaceId);
      assert.equal(found?.sourceDestCheck, true);
    },
  };
  await using lab = await openCloudLab({
    signal,
    hosts: Object.keys(scenarios).length,
    cloud: {
      customise: (config) => ({
        ...config,
        vpcs: config.vpcs.map((vpc) => ({ ...vpc, secondaryCidrs: ["172.31.0.0/16"] })),
        routeTables: [
          ...config.routeTables ?? [],
          { id: FULL, quota: 3 },
          { id: TIGHT, quota: 2, entries: [filler("172.30.1.0/24")] },
        ],
      }),
    },
  });
  const { control } = lab.cloud;
  await control.fillTable(FULL);
  await together(lab, scenarios);
  assert.equal((await routesOf(lab, lab.hosts[0]!)).length, 0);

  function overlapping(network: string, says: RegExp): Scenario {
    return async (host) => {
      const flags = await ownCluster(lab, host, { signal, network });
      const words = await lastWords(await host.startDaemon({ flags }), { signal });
      assert.match(words, new RegExp(`Cannot use network ${network}: it `));
      assert.match(words, says);
      assert.equal((await ownLeases(lab, host, { signal })).size, 0);
      assert.deepEqual(writesAmong(await callsSince(lab, 0, host)), []);
    };
  }
}

function filler(destination: string) {
  return { destination, nextHops: [{ type: "NatGateway" as const, id: "ngw-bp1lab" }] };
}

/** Whose route entries are whose, and in which tables ours belong. */
import assert from "node:assert/strict";
import { encodeBookPage, pageOf } from "../../src/cloud/routes/claim_book.ts";
import { describeLosses, type Host, labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { pingMatrix } from "../lab/ping.ts";
import { settleAll } from "../support/settle_all.ts";
import {
  addForeignEntries,
  assertPodsReachable,
  assertRightRoutes,
  brisk,
  callsSince,
  CLEAR_OF_FOREIGN,
  CLUSTER_ID,
  countCalls,
  foreignOf,
  healed,
  lastWords,
  mark,
  openCloudLab,
  ownCluster,
  ownLeases,
  routeName,
  routesOf,
  statusSays,
  STRANGER_ID,
  wish,
  writesAmong,
} from "./cloud_support.ts";

// Both mostly wait for resyncs, each on a cloud of its own.
labTest("routes stand where they belong, and other people's are left alone", async ({ signal }) => {
  await settleAll([keepForeignEntries({ signal }), useRightTables({ signal })]);
}, { timeoutMs: 180_000 });

/** Every way to a right route leaves other people's entries as they were. */
async function keepForeignEntries({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  await using lab = await openCloudLab({
    signal,
    hosts: 6,
    config: brisk({}, CLEAR_OF_FOREIGN),
    cloud: { behaviour: { delays: { minMs: 50, maxMs: 300 } } },
  });
  const { control } = lab.cloud;
  const [deleted, repointed, adopting, replacing, stale, blocked] = lab.hosts;
  await addForeignEntries(lab, deleted!);
  const before = await foreignOf(lab);
  const instance = (id: string) => [{ type: "Instance" as const, id }];
  const place = (destination: string) => ({ routeTableId: SYSTEM_TABLE_ID, destination });

  // What an upstream daemon has left.
  await wish(adopting!, "10.24.13.0/24");
  const adopted = await control.addRoute(SYSTEM_TABLE_ID, {
    destination: "10.24.13.0/24",
    nextHops: instance(adopting!.identity.instanceId),
  });
  // What the former holder of the subnet has left, whose instance is no more.
  await control.addInstance({
    id: "i-bp1dead",
    vSwitchId: replacing!.identity.vSwitchId,
    privateIp: replacing!.address.replace(/\d+$/, "210"),
  });
  await wish(replacing!, "10.24.14.0/24");
  const orphan = await control.addRoute(SYSTEM_TABLE_ID, {
    destination: "10.24.14.0/24",
    nextHops: instance("i-bp1dead"),
    name: `flanneld/${CLUSTER_ID}/10.24.0.0/16/i-bp1dead`,
  });
  await control.releaseInstance("i-bp1dead");
  // What an earlier run of the same host has left.
  await control.addRoute(SYSTEM_TABLE_ID, {
    destination: "10.24.50.0/24",
    nextHops: instance(stale!.identity.instanceId),
    name: routeName(stale!),
  });
  // The store knows that both have held these subnets.
  for (
    const [subnet, instanceId] of [
      ["10.24.14.0/24", "i-bp1dead"],
      ["10.24.50.0/24", stale!.identity.instanceId],
    ] as const
  ) {
    const key = `/coreos.com/network/ali-vpc/claims-${pageOf(subnet)}/doc`;
    await lab.etcd.put(key, encodeBookPage(new Map([[subnet, [{ instanceId }]]])), { signal });
  }
  // What somebody else has put where our route belongs.
  await wish(blocked!, "10.24.16.0/24");
  await control.addRoute(SYSTEM_TABLE_ID, {
    destination: "10.24.16.0/24",
    nextHops: instance(STRANGER_ID),
    name: "to the legacy farm",
  });

  // Those with a wish first: the others draw any subnet that is free.
  for (const host of [adopting!, replacing!, blocked!]) {
    const { process } = await host.startDaemon();
    await process.waitForLine(/lease: Lease taken .*the subnet of the last run/, { signal });
  }
  await Promise.all([deleted!, repointed!, stale!].map((host) => host.startDaemon()));
  const waiting = blocked!.daemon;
  const ready = lab.hosts.filter((host) => host !== blocked);
  // An entry that is right but for its name serves before it is named.
  await Promise.all(ready.map(async (host) => {
    await host.daemon.ready({ signal });
    await healed(lab, host, { signal });
  }));
  const said = await statusSays(waiting, /stands in its place/, { signal });
  assert.match(said, /10\.24\.16\.0\/24 via i-bp1stranger .*"to the legacy farm"/);
  assert.match(said, /is not ours|not flanneld's/);
  assert.equal(waiting.isReady(), false);
  const others = (await foreignOf(lab)).filter(({ name }) => name !== "to the legacy farm");
  assert.deepEqual(others, before);

  const { routeEntries } = await control.snapshot();
  const idOf = (destination: string) =>
    routeEntries.find((entry) => entry.destination === destination)?.id;
  assert.equal(idOf("10.24.13.0/24"), adopted.id, "the same entry, named");
  assert.equal(idOf("10.24.14.0/24"), orphan.id, "the same entry, re-pointed");
  // Whichever host writes them: for each entry, one write.
  const writesTo = async (id: string | undefined, from: number) =>
    writesAmong(await callsSince(lab, from))
      .filter(({ params, performed }) => performed && params["RouteEntryId"] === id)
      .map(({ action }) => action);
  for (const { id } of [adopted, orphan]) {
    assert.deepEqual(await writesTo(id, 0), ["ModifyRouteEntry"]);
  }

  // An operator's slips in the console, and a repaired one.
  const from = await mark(lab);
  const right = new Map(
    await Promise.all(
      ready.map(async (host) =>
        [host, (await host.readSubnetEnv()).subnet.prefix.toString()] as const
      ),
    ),
  );
  await control.deleteRoute(place(right.get(deleted!)!));
  await control.repointRoute(place(right.get(repointed!)!), STRANGER_ID);
  await control.deleteRoute(place("10.24.16.0/24"));
  await Promise.all([
    healed(lab, deleted!, { signal }),
    healed(lab, repointed!, { signal }),
    waiting.ready({ signal }).then(() => healed(lab, blocked!, { signal })),
  ]);
  const astray = idOf(right.get(repointed!)!);
  assert.deepEqual(await writesTo(astray, from), ["ModifyRouteEntry"], "without a gap");
  const writes = writesAmong(await callsSince(lab, 0)).filter(({ performed }) => performed);
  assert.equal(
    writes.filter(({ action }) => action === "DeleteRouteEntry").length,
    1,
    `only the stale entry was deleted: ${countCalls(writes)}`,
  );
  await assertRightRoutes(lab);
  assert.deepEqual(await foreignOf(lab), before);
}

/** Each table that a peer's vSwitch uses gets the route, or the tables that are named. */
async function useRightTables({ signal }: { readonly signal: AbortSignal }): Promise<void> {
  const [first, second] = [`${SYSTEM_TABLE_ID}-1`, `${SYSTEM_TABLE_ID}-2`];
  await using lab = await openCloudLab({
    signal,
    hosts: 4,
    routeTables: "own",
    cloud: {
      behaviour: { delays: { minMs: 50, maxMs: 300 } },
      // More than one page of tables, and the right ones at the end.
      customise: (config) => ({
        ...config,
        routeTables: [
          ...Array.from({ length: 60 }, (_, n) => ({ id: `vtb-spare-${n}` })),
          { id: "vtb-gateway", gatewayId: "ipv4gw-1" },
          ...config.routeTables ?? [],
        ],
      }),
    },
  });
  const [one, two, named, listed] = lab.hosts;
  const before = await foreignOf(lab);
  await (await one!.startDaemon()).ready({ signal });
  await assertRightRoutes(lab, [one!], [first]);
  // The first peer in another vSwitch: both have to be in both tables.
  await (await two!.startDaemon()).ready({ signal });
  await Promise.all(
    [one!, two!].map((host) => healed(lab, host, { signal, tables: [first, second] })),
  );
  await Promise.all([one!, two!].map((host) => host.ensurePods(1, { signal })));
  await assertPodsReachable(lab, { signal });

  // The config says which tables for a whole cluster.
  const start = async (tables: string[], ...hosts: Host[]) => {
    const flags = await ownCluster(lab, hosts, { signal, backend: { RouteTableID: tables } });
    return await Promise.all(hosts.map((host) => host.startDaemon({ flags })));
  };
  const [wrong] = await start(["vtb-absent", "vtb-gateway"], named!);
  const words = await lastWords(wrong!, { signal });
  assert.match(words, /VPC vpc-bp1lab has no route table vtb-absent/);
  assert.match(words, /vtb-gateway is a gateway's route table/);
  assert.ok(words.includes(first) && words.includes(second), words);
  assert.equal((await ownLeases(lab, named!, { signal })).size, 0, "no lease was written");

  const [single] = await start([first], named!);
  await single!.ready({ signal });
  assert.deepEqual((await routesOf(lab, named!)).map((line) => line.split(" ")[0]), [first]);
  await single!.stop();
  for (const daemon of await start([second, first], named!, listed!)) {
    await daemon.ready({ signal });
  }
  for (const host of [named!, listed!]) {
    await healed(lab, host, { signal, tables: [first, second] });
    await host.ensurePods(1, { signal });
  }
  await lab.cloud.inForce({ signal });
  const pings = await pingMatrix([...named!.pods, ...listed!.pods], { signal, seconds: 3 });
  assert.equal(describeLosses(pings), "");
  await assertRightRoutes(lab, [one!, two!], [first, second]);
  assert.deepEqual(await foreignOf(lab), before);
}

/** vSwitches bound to tables in a mix, and bound anew while everything runs. */
import assert from "node:assert/strict";
import { labTest, SYSTEM_TABLE_ID } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { assertPodsReachable } from "./cloud_support.ts";
import { type Cluster, openClusters } from "./cloud_clusters.ts";

const [FIRST, SECOND, THIRD, FOURTH] = [1, 2, 3, 4].map((n) => `${SYSTEM_TABLE_ID}-${n}`) as [
  string,
  string,
  string,
  string,
];
/** The writer looks up which vSwitch uses which table every two minutes at most. */
const NOTICED_MS = 160_000;

labTest("vSwitches may use any tables, and one bad table does not hold up the others", async ({
  signal,
}) => {
  await using clusters = await openClusters({
    signal,
    clusters: { "of many tables": 4 },
    vSwitches: 4,
    routeTables: "own",
    cloud: { behaviour: { delays: { minMs: 100, maxMs: 300 } } },
  });
  const { lab, all: [cluster] } = clusters as typeof clusters & { all: readonly [Cluster] };
  const { control } = lab.cloud;
  const [, , third, fourth] = lab.plan.vSwitches;
  // Two vSwitches share a table, and one uses the system's.
  await control.bindVSwitch(third!.id, FIRST);
  await control.unbindVSwitch(fourth!.id);
  await clusters.start({ signal });
  await cluster.settled({ signal, tables: [FIRST, SECOND, SYSTEM_TABLE_ID] });
  await lab.ensurePods(1, { signal });
  await assertPodsReachable(lab, { signal });

  // One table fails in every way; a new host gets its entries in the others.
  const fault = await control.addFault({
    match: { routeTableId: SECOND },
    effect: { kind: "error", status: 500, code: "InternalError" },
  });
  const guest = await cluster.addGuest();
  await guest.take(cluster.subnet(1), { signal });
  const tablesOf = async (subnet: string) =>
    (await cluster.entries()).filter(({ destination, status }) =>
      destination === subnet && status === "Available"
    ).map(({ routeTableId }) => routeTableId).sort();
  await eventually(async () => {
    assert.deepEqual(await tablesOf(cluster.subnet(1)), [SYSTEM_TABLE_ID, FIRST].sort());
    return true;
  }, { signal, title: "the new host's entries in the tables that work", timeoutMs: 40_000 });
  const writer = await cluster.writer({ signal });
  assert.notEqual((await cluster.published({ signal })).hosts.get(cluster.subnet(1)), "routed");
  await control.removeFault(fault);
  await cluster.settled({ signal, tables: [FIRST, SECOND, SYSTEM_TABLE_ID] });
  assert.equal(await cluster.writer({ signal }), writer, "one bad table is no reason to resign");

  // One vSwitch is bound to a table without any of our entries, and one table has none any more.
  await control.bindVSwitch(third!.id, THIRD);
  await control.unbindVSwitch(lab.plan.vSwitches[1]!.id);
  await cluster.settled({
    signal,
    tables: [FIRST, THIRD, SYSTEM_TABLE_ID],
    // It goes out of use, and is cleaned by and by.
    apart: [SECOND],
    timeoutMs: NOTICED_MS,
  });
  await assertPodsReachable(lab, { signal });
  assert.deepEqual(
    (await cluster.entries()).filter(({ routeTableId }) => routeTableId === FOURTH),
    [],
    "a table that no vSwitch uses is left alone",
  );
  await clusters.assertJustified({ signal });
  cluster.assertReady();
}, { timeoutMs: 290_000 });

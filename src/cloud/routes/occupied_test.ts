import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import { findOccupied, MAX_OCCUPIED, occupiedPlaces } from "./occupied.ts";
import type { CloudRoute } from "./provider.ts";

const network = Prefix.parse("10.24.0.0/16");

function entry(destination: string, instanceId = "i-dead", more: Partial<CloudRoute> = {}) {
  return {
    routeTableId: "vtb-1",
    destination: Prefix.parse(destination),
    instanceId,
    isStatic: true,
    state: "ready",
    entryId: "rte-1",
    ...more,
  } as CloudRoute;
}

function found(entries: readonly CloudRoute[], claims: Record<string, string> = {}) {
  return findOccupied({
    entries,
    routeTableIds: ["vtb-1"],
    network,
    claims: Object.entries(claims).map(([text, instanceId]) => ({
      destination: Prefix.parse(text),
      instanceId,
    })),
    isLeased: (destination) => `${destination}` === "10.24.9.0/24",
    owns: ({ mark }) => mark === "ours",
  });
}

Deno.test("findOccupied() lists what no lease may replace, those in a lease's way first", () => {
  const list = found([
    entry("10.24.1.0/24"),
    entry("10.24.2.0/24", "i-a"),
    entry("10.24.3.0/24", "i-gone", { mark: "ours" }),
    entry("10.24.4.128/25"),
    entry("10.24.5.0/24", "i-b"),
    entry("10.24.9.0/24", "i-upstream"),
    entry("10.24.0.0/16"),
    entry("0.0.0.0/0"),
    entry("10.25.0.0/24"),
    entry("10.24.6.0/24", "i-c", { routeTableId: "vtb-2" }),
  ], { "10.24.2.0/24": "i-a", "10.24.5.0/24": "i-mine" });
  assert.deepEqual(list.map(({ destination }) => `${destination}`), [
    "10.24.5.0/24",
    "10.24.1.0/24",
    "10.24.4.128/25",
  ]);
  assert.equal(list[1]!.entry, "10.24.1.0/24 via i-dead in vtb-1 (rte-1)");
  const places = occupiedPlaces(list);
  assert.ok(places.find(Prefix.parse("10.24.4.0/24")), "a more specific one takes packets away");
  assert.equal(
    places.find(Prefix.parse("10.24.5.0/25")),
    undefined,
    "a less specific one does not",
  );
});

Deno.test("findOccupied() is bounded, and keeps what is in a lease's way", () => {
  const entries = Array.from(
    { length: 2 * MAX_OCCUPIED },
    (_, n) => entry(`10.24.${n >> 3}.${(n & 7) << 5}/27`, "i-dead", { mark: "x".repeat(500) }),
  );
  const last = entries.at(-1)!.destination.toString();
  const list = found(entries, { [last]: "i-mine" });
  assert.equal(list.length, MAX_OCCUPIED);
  assert.equal(`${list[0]!.destination}`, last);
  assert.ok(list.every(({ entry }) => entry.length <= 120));
});

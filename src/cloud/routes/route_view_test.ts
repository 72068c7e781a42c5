import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import type { CloudRoute } from "./provider.ts";
import { keyOf } from "./route_entry.ts";
import { RouteViewKeeper } from "./route_view.ts";

function entry(n: number, change: Partial<CloudRoute> = {}): CloudRoute {
  return {
    routeTableId: "vtb-1",
    destination: Prefix.parse(`10.24.${n}.0/24`),
    instanceId: `i-${n}`,
    isStatic: true,
    state: "ready",
    ...change,
  };
}

function keeper() {
  const counter = { changes: 0 };
  return { counter, view: new RouteViewKeeper(() => counter.changes++) };
}

Deno.test("RouteViewKeeper shows the last listing of each table, and what was seen since", () => {
  const { view, counter } = keeper();
  view.saw("vtb-1", [entry(1), entry(2)], 7);
  view.saw("vtb-2", [entry(1, { routeTableId: "vtb-2" })], 1);
  assert.equal(counter.changes, 2);
  view.sawOne(entry(3), entry(3, { state: "pending" }));
  view.sawOne(entry(1), undefined);
  view.sawOne(entry(2), entry(2, { instanceId: "i-9" }));
  assert.deepEqual([...view.entries.keys()], [
    "vtb-1 10.24.2.0/24",
    "vtb-2 10.24.1.0/24",
    "vtb-1 10.24.3.0/24",
  ]);
  assert.equal(view.entries.get("vtb-1 10.24.2.0/24")?.instanceId, "i-9");
  assert.deepEqual(
    view.tables.get("vtb-1"),
    { used: 7, full: undefined },
    "one has come and one has gone",
  );
  view.sawOne(entry(4), entry(4, { isStatic: false }));
  assert.deepEqual(
    view.tables.get("vtb-1"),
    { used: 7, full: undefined },
    "dynamic entries do not count",
  );
  view.saw("vtb-1", [], 5);
  assert.deepEqual([...view.entries.keys()], ["vtb-2 10.24.1.0/24"]);
});

Deno.test("RouteViewKeeper knows a table for full until something gives way", () => {
  const full = { used: 2, at: 1_000 };
  const gives: ((view: RouteViewKeeper) => void)[] = [
    (view) => view.notFull("vtb-1"),
    (view) => view.sawOne(entry(1), undefined),
    (view) => view.saw("vtb-1", [entry(1)], 1),
  ];
  for (const give of gives) {
    const { view } = keeper();
    view.saw("vtb-1", [entry(1), entry(2)], 2);
    view.full("vtb-1", full);
    view.saw("vtb-1", [entry(1), entry(2)], 2);
    view.sawOne(entry(2), entry(2));
    assert.deepEqual(view.tables.get("vtb-1"), { used: 2, full });
    give(view);
    assert.equal(view.tables.get("vtb-1")?.full, undefined, String(give));
  }
});

Deno.test("RouteViewKeeper tells why a table cannot be read, until it can", () => {
  const { view } = keeper();
  view.saw("vtb-1", [entry(1)], 1);
  view.unread("vtb-1", "throttled");
  assert.deepEqual(view.tables.get("vtb-1"), { used: 1, full: undefined, error: "throttled" });
  assert.equal(view.entries.size, 1, "what was known stays");
  view.saw("vtb-1", [entry(1)], 1);
  assert.deepEqual(view.tables.get("vtb-1"), { used: 1, full: undefined });
});

Deno.test("RouteViewKeeper forgets what nobody asks for any more, and is quiet otherwise", () => {
  const { view, counter } = keeper();
  view.saw("vtb-1", [entry(1)], 1);
  view.saw("vtb-2", [entry(1, { routeTableId: "vtb-2" })], 1);
  for (const n of [1, 2, 3]) view.failed(keyOf(entry(n)), "full");
  view.keepOnly({
    routeTableIds: new Set(["vtb-1"]),
    isWanted: (key) => key === keyOf(entry(2)),
  });
  assert.deepEqual([...view.tables.keys()], ["vtb-1"]);
  assert.deepEqual([...view.entries.keys()], [keyOf(entry(1))]);
  assert.deepEqual([...view.failures.keys()], [keyOf(entry(1)), keyOf(entry(2))]);
  const before = counter.changes;
  view.keepOnly({ routeTableIds: new Set(["vtb-1"]), isWanted: () => true });
  view.succeeded("vtb-1 192.0.2.0/24");
  view.notFull("vtb-1");
  assert.equal(counter.changes, before);
  view.succeeded(keyOf(entry(1)));
  assert.equal(counter.changes, before + 1);
});

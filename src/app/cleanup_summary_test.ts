import assert from "node:assert/strict";
import type { Table } from "../reconcile/table.ts";
import { CleanUpSummary } from "./cleanup_summary.ts";

Deno.test("CleanUpSummary says what went and what stays, in one line", () => {
  const summary = new CleanUpSummary();
  assert.equal(String(summary), "There was nothing to remove");
  summary.left("the lease, without --release");
  assert.equal(
    String(summary),
    "There was nothing to remove; left the lease, without --release",
  );
  summary.removed("link");
  summary.removed("route", 2);
  summary.removed("route");
  summary.removed("forwarding entry", 2);
  summary.removed("address", 2);
  summary.removed("rule set", 0);
  summary.left("reservation 10.3.1.0/24");
  assert.equal(
    String(summary),
    "Removed 1 link, 3 routes, 2 forwarding entries and 2 addresses; " +
      "left the lease, without --release and reservation 10.3.1.0/24",
  );
});

Deno.test("CleanUpSummary counts what a Table has really removed", async () => {
  const summary = new CleanUpSummary();
  const { signal } = new AbortController();
  const table = {
    kind: { name: "route" },
    list: () => Promise.resolve([1, 2, 3]),
    // deno-lint-ignore no-explicit-any -- a Table of nothing real
    apply: (changes: readonly any[]) =>
      Promise.resolve([{ change: changes[0], error: new Error("busy") }]),
  } as unknown as Table<number>;
  const { table: counted } = summary.counting({ table, desired: () => [] });
  assert.deepEqual(await counted.list({ signal }), [1, 2, 3]);
  const changes = [1, 2, 3].map((actual) => ({ op: "remove" as const, actual }));
  assert.equal((await counted.apply(changes, { signal })).length, 1);
  assert.equal(String(summary), "Removed 2 routes");
});

import assert from "node:assert/strict";
import type { CloudRoute } from "./provider.ts";
import type { Table } from "../../reconcile/table.ts";
import { SwitchedRoutes } from "./switched_routes.ts";

Deno.test("SwitchedRoutes asks the own Table while it is in use, and not more often than it may", async () => {
  const { signal } = new AbortController();
  let lists = 0;
  let now = 0;
  const own = {
    kind: { name: "own" },
    list: () => Promise.resolve([{ instanceId: `i-${++lists}` }]),
    apply: () => Promise.resolve([]),
  } as unknown as Table<CloudRoute>;
  let current: Table<CloudRoute> | undefined;
  const routes = new SwitchedRoutes(() => current, { freshMs: () => 1_000, now: () => now });
  const listed = async () => (await routes.list({ signal })).map(({ instanceId }) => instanceId);

  assert.deepEqual(await listed(), []);
  assert.equal(routes.kind.owns({} as CloudRoute), false);
  current = own;
  assert.equal(routes.kind.name, "own");
  assert.deepEqual(await listed(), ["i-1"]);
  now = 999;
  assert.deepEqual(await listed(), ["i-1"], "still fresh");
  now = 1_000;
  assert.deepEqual(await listed(), ["i-2"]);
  await routes.apply([], { signal });
  assert.deepEqual(await listed(), ["i-3"], "after a write what was listed does not count");
  current = undefined;
  assert.deepEqual(await listed(), []);
});

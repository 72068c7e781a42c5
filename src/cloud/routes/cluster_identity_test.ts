import assert from "node:assert/strict";
import {
  MemoryRegistry,
  MemoryStore,
  openMemoryStore,
} from "../../../tests/fakes/memory_registry.ts";
import { OperatorError } from "../../errors.ts";
import { clusterStore } from "./cluster_store.ts";
import { ensureClusterId, readClusterId } from "./cluster_identity.ts";

/** A cluster's part of the store. */
function storeOf(store: MemoryStore) {
  return clusterStore(openMemoryStore(new MemoryRegistry(store)), "ali-vpc");
}

const signal = new AbortController().signal;

Deno.test("ensureClusterId() makes one id, whoever of many hosts is first", async () => {
  const store = new MemoryStore();
  assert.equal(await readClusterId(storeOf(store), { signal }), undefined);
  const ids = await Promise.all(
    Array.from({ length: 20 }, () => ensureClusterId(storeOf(store), { signal })),
  );
  assert.equal(new Set(ids).size, 1);
  assert.match(ids[0]!, /^[0-9a-f]{16}$/);
  assert.equal(await readClusterId(storeOf(store), { signal }), ids[0]);
  const other = await ensureClusterId(storeOf(new MemoryStore()), { signal });
  assert.notEqual(other, ids[0]);
});

Deno.test("readClusterId() takes what a person writes, if it can be in a name", async () => {
  const values: [string, boolean][] = [
    ["production1", true],
    ["5c1fa89e03b7d264\n", true],
    ["", false],
    ["short", false],
    ["with/slash/in/it", false],
    ["10.24.0.0", false],
    ["x".repeat(33), false],
    ["Production1", false],
  ];
  for (const [value, good] of values) {
    const registry = storeOf(new MemoryStore());
    await registry.documents("").create("cluster", value, { signal });
    if (good) assert.equal(await ensureClusterId(registry, { signal }), value.trim());
    else await assert.rejects(() => ensureClusterId(registry, { signal }), OperatorError, value);
  }
});

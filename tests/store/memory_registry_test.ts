import assert from "node:assert/strict";
import { StoreError } from "../../src/store/errors.ts";
import { MemoryRegistry, MemoryStore } from "../fakes/memory_registry.ts";
import { testRegistryContract } from "./registry_contract.ts";
import { WatchLog } from "./watch_log.ts";

Deno.test("MemoryRegistry fulfils the contract of a registry", async (t) => {
  await testRegistryContract(t, () => {
    const store = new MemoryStore();
    return {
      open: () => new MemoryRegistry(store),
      setConfig: (value) => Promise.resolve(store.setConfig(value)),
      write(path, value) {
        const tree = store.area("");
        value === undefined ? tree.delete(path) : tree.put(path, value);
        return Promise.resolve();
      },
      pass: (seconds) => Promise.resolve(store.advance(seconds)),
      shortestTtlSeconds: 2,
      renewKeepsRevision: true,
    };
  });
});

Deno.test("MemoryRegistry fails on demand, with or without effect", async () => {
  const { signal } = new AbortController();
  const registry = new MemoryRegistry();
  registry.failNext("create");
  registry.failNext("create", { applied: true });
  await assert.rejects(registry.create("a", "1", { signal, lifetimeSeconds: 60 }), StoreError);
  assert.equal(registry.store.get("a"), undefined);
  await assert.rejects(registry.create("a", "1", { signal, lifetimeSeconds: 60 }), StoreError);
  assert.equal(registry.store.get("a")?.value, "1");
  assert.equal(await registry.create("a", "1", { signal, lifetimeSeconds: 60 }), undefined);
  assert.deepEqual(registry.calls, ["create a", "create a", "create a"]);
});

Deno.test("MemoryRegistry goes on after an outage, with a snapshot if history is gone", async () => {
  const { signal } = new AbortController();
  const registry = new MemoryRegistry();
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  registry.disconnect();
  await log.until("the outage", ({ disconnected }) => disconnected);
  registry.store.put("a", "1");
  await assert.rejects(registry.list({ signal }), StoreError);
  registry.reconnect();
  await log.until("the key", ({ map }) => map.has("a"));
  assert.equal(log.snapshots, 1);

  registry.disconnect();
  await log.until("the outage", ({ disconnected }) => disconnected);
  registry.store.delete("a");
  registry.store.compact();
  registry.reconnect();
  await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
  assert.equal(log.map.size, 0);
});

import assert from "node:assert/strict";
import type { EtcdSettings } from "../../src/store/etcd/options.ts";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import type { Registry } from "../../src/store/keys/key_space.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { etcdTest, Relay, settingsFor } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();

/** A watch whose only connection falls silent: noticed, and nothing lost once it is back. */
async function checkSilence(
  etcd: EtcdServers,
  RegistryClass: new (settings: EtcdSettings) => Registry,
  told: { readonly snapshots: number; readonly events: number },
): Promise<void> {
  using relay = new Relay(etcd.any.port);
  await using registry = new RegistryClass(settingsFor([relay.endpoint]));
  await using other = new RegistryClass(settingsFor(etcd.endpoints));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  relay.freeze();
  await other.create("10.3.1.0-24", "unheard", { signal, lifetimeSeconds: 3600 });
  const startedAt = performance.now();
  await log.until("the outage", ({ disconnected }) => disconnected, { timeoutMs: 45_000 });
  const tookMs = performance.now() - startedAt;
  assert(tookMs < 30_000, `noticed after ${tookMs} ms`);
  relay.restore();
  await log.until("the event", ({ map }) => map.has("10.3.1.0-24"));
  assert.deepEqual({ snapshots: log.snapshots, events: log.events.length }, told);
}

// Both at the same time, as each takes 20 seconds of waiting.
etcdTest("etcd v3 and v2: a connection that silently drops everything is noticed", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  await Promise.all([
    checkSilence(etcd, EtcdV3Registry, { snapshots: 1, events: 1 }),
    // v2 cannot prove that its history is still the same one.
    checkSilence(etcd, EtcdV2Registry, { snapshots: 2, events: 0 }),
  ]);
});

etcdTest(
  "etcd v3 and v2: a registry told of other addresses reconnects, and its watch misses nothing",
  async () => {
    await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
    for (const RegistryClass of [EtcdV3Registry, EtcdV2Registry]) {
      using relay = new Relay(etcd.any.port);
      await using registry = new RegistryClass(settingsFor([relay.endpoint]));
      await using log = new WatchLog(registry, { signal });
      await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
      const reading = registry.get("10.3.1.0-24", { signal });
      registry.addressesChanged();
      assert.equal(await reading, undefined, "what waits is asked again");
      await registry.create("10.3.1.0-24", "heard", { signal, lifetimeSeconds: 3600 });
      await log.until("the event", ({ map }) => map.has("10.3.1.0-24"));
      // What waited there waits elsewhere now; v2 reads all anew then.
      assert.equal(log.snapshots, RegistryClass === EtcdV3Registry ? 1 : 2);
      assert.deepEqual(log.outages, []);
    }
  },
);

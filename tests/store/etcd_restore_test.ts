/** An etcd that was restored from a backup or emptied, under the same name and cluster id. */
import assert from "node:assert/strict";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import { type EtcdServer, EtcdServers } from "../support/etcd_process.ts";
import { etcdTest, Relay, settingsFor } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();
const SUBNETS = "/coreos.com/network/subnets/";

function put(server: EtcdServer, key: string, value: string): Promise<string> {
  return server.ctl(["put", "--", `${SUBNETS}${key}`, value], { signal });
}

/** Writes elsewhere, so that the store's revision is further than a follower has ever seen it. */
async function writeElsewhere(server: EtcdServer, times: number): Promise<void> {
  for (let i = 0; i < times; i++) await server.ctl(["put", "/elsewhere", String(i)], { signal });
}

etcdTest(
  "a watch sees that etcd was restored, though its revision is further by then",
  async () => {
    await using etcd = await EtcdServers.start({ signal });
    const server = etcd.any;
    using relay = new Relay(server.port);
    await using registry = new EtcdV3Registry(settingsFor([relay.endpoint]));
    for (const key of ["10.3.1.0-24", "10.3.2.0-24", "10.3.3.0-24"]) await put(server, key, "old");
    const backup = await server.backUp({ signal });
    await using log = new WatchLog(registry, { signal });
    await log.until("the snapshot", ({ map }) => map.size === 3);
    await server.ctl(["del", `${SUBNETS}10.3.1.0-24`], { signal });
    await put(server, "10.3.2.0-24", "new");
    await put(server, "10.3.4.0-24", "new");
    await log.until("what came after the backup", ({ map }) => {
      return map.has("10.3.4.0-24") && !map.has("10.3.1.0-24");
    });

    relay.refuse();
    await server.kill();
    await server.restore(backup, { signal });
    server.start();
    await server.ready({ signal });
    await put(server, "10.3.5.0-24", "newest");
    await writeElsewhere(server, 12);
    relay.restore();
    await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
    const values = () => [...log.map].map(([key, entry]) => `${key} ${entry.value}`).sort();
    assert.deepEqual(values(), [
      "10.3.1.0-24 old",
      "10.3.2.0-24 old",
      "10.3.3.0-24 old",
      "10.3.5.0-24 newest",
    ]);
    await put(server, "10.3.1.0-24", "newest");
    await log.until("what comes then", ({ map }) => map.get("10.3.1.0-24")?.value === "newest");
  },
);

etcdTest("a watch goes on where etcd was only restarted", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const server = etcd.any;
  await using registry = new EtcdV3Registry(settingsFor([server.endpoint]));
  for (const key of ["10.3.1.0-24", "10.3.2.0-24"]) await put(server, key, "old");
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ map }) => map.size === 2);
  await put(server, "10.3.3.0-24", "old");
  await server.ctl(["del", `${SUBNETS}10.3.1.0-24`], { signal });
  await log.until("the events", ({ map }) => map.size === 2 && map.has("10.3.3.0-24"));
  await server.kill();
  server.start();
  await server.ready({ signal });
  await put(server, "10.3.3.0-24", "new");
  await put(server, "10.3.4.0-24", "new");
  await log.until("what comes then", ({ map }) => map.has("10.3.4.0-24"));
  assert.equal(log.snapshots, 1);
});

etcdTest(
  "a watch of v2 sees that etcd was emptied, though its index is further by then",
  async () => {
    await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
    const server = etcd.any;
    const set = (key: string, value: string) =>
      server.ctl(["set", `${SUBNETS}${key}`, value], { signal, api: 2 });
    using relay = new Relay(server.port);
    await using registry = new EtcdV2Registry(settingsFor([relay.endpoint]));
    await set("10.3.1.0-24", "old");
    await set("10.3.2.0-24", "old");
    await using log = new WatchLog(registry, { signal });
    await log.until("the snapshot", ({ map }) => map.size === 2);
    relay.refuse();
    await server.kill();
    await server.empty();
    server.start();
    await server.ready({ signal });
    await set("10.3.3.0-24", "new");
    for (let i = 0; i < 6; i++) {
      await server.ctl(["set", "/elsewhere", String(i)], { signal, api: 2 });
    }
    relay.restore();
    await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
    assert.deepEqual([...log.map.keys()], ["10.3.3.0-24"]);
    await set("10.3.4.0-24", "new");
    await log.until("what comes then", ({ map }) => map.has("10.3.4.0-24"));
  },
);

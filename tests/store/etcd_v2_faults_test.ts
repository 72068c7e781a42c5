import assert from "node:assert/strict";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { type EtcdServer, EtcdServers } from "../support/etcd_process.ts";
import { rejectsWith } from "./registry_contract.ts";
import { etcdTest, Relay, settingsFor } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();
const SUBNETS = "/coreos.com/network/subnets";

async function set(server: EtcdServer, key: string, value: string): Promise<void> {
  await server.ctl(["set", `${SUBNETS}/${key}`, value], { signal, api: 2 });
}

etcdTest(
  "EtcdV2Registry reads what etcdctl's v2 shows, and writes what upstream wrote",
  async () => {
    await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
    const server = etcd.any;
    await using registry = new EtcdV2Registry(settingsFor(etcd.endpoints));
    const value = '{"PublicIP":"192.168.64.3","BackendType":"vxlan","BackendData":{"VNI":1}}';
    await registry.create("10.3.4.0-24", value, { signal, lifetimeSeconds: 86400 });
    const text = await server.ctl(["get", `${SUBNETS}/10.3.4.0-24`], { signal, api: 2 });
    assert.equal(text.trimEnd(), value);
    const [node] = (await (await fetch(`${server.endpoint}/v2/keys${SUBNETS}`)).json()).node.nodes;
    assert(node.ttl > 86_000 && node.ttl <= 86_400, `${node.ttl} seconds`);
  },
);

etcdTest("EtcdV2Registry fails over between members and follows on", async () => {
  await using etcd = await EtcdServers.start({ signal, members: 3, flags: ["--enable-v2"] });
  await using registry = new EtcdV2Registry(settingsFor(etcd.endpoints));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  for (const [round, member] of etcd.members.entries()) {
    await member.kill();
    await etcd.leader({ signal });
    assert.equal((await registry.list({ signal })).length, round);
    const key = `10.3.${round}.0-24`;
    await set(etcd.any, key, "1");
    await log.until("the event", ({ map }) => map.has(key));
    member.start();
    await member.ready({ signal });
  }
  assert.deepEqual([...log.map.keys()].sort(), ["10.3.0.0-24", "10.3.1.0-24", "10.3.2.0-24"]);
});

etcdTest("EtcdV2Registry takes a snapshot when etcd has cleared the events", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const server = etcd.any;
  using relay = new Relay(server.port);
  await using registry = new EtcdV2Registry(settingsFor([relay.endpoint]));
  await using writer = new EtcdV2Registry(settingsFor(etcd.endpoints));
  await set(server, "10.3.1.0-24", "goes");
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  relay.refuse();
  await log.until("the outage", ({ disconnected }) => disconnected);
  await server.ctl(["rm", `${SUBNETS}/10.3.1.0-24`], { signal, api: 2 });
  // etcd remembers the last 1,000 events of all keys.
  for (let from = 0; from < 1_100; from += 50) {
    await Promise.all(
      Array.from(
        { length: 50 },
        (_, i) => writer.create(`k${from + i}`, "", { signal, lifetimeSeconds: 60 }),
      ),
    );
  }
  relay.restore();
  await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
  assert.equal(log.map.size, 1_100);
  await set(server, "10.3.2.0-24", "later");
  await log.until("the event", ({ map }) => map.has("10.3.2.0-24"));
});

etcdTest("EtcdV2Registry sees that the directory was deleted, with all below it", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  await using registry = new EtcdV2Registry(settingsFor(etcd.endpoints));
  await set(etcd.any, "10.3.1.0-24", "1");
  await set(etcd.any, "10.3.2.0-24", "2");
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ map }) => map.size === 2);
  await etcd.any.ctl(["rm", "--recursive", "/coreos.com"], { signal, api: 2 });
  await log.until("the empty snapshot", ({ map }) => map.size === 0);
  assert.deepEqual(await registry.list({ signal }), []);
  await set(etcd.any, "10.3.3.0-24", "3");
  await log.until("the event", ({ map }) => map.has("10.3.3.0-24"));
});

etcdTest("EtcdV2Registry shows its user and password, and tells when they are wrong", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const server = etcd.any;
  const call = async (path: string, body: unknown, password?: string) => {
    const headers = new Headers({ "Content-Type": "application/json" });
    if (password !== undefined) headers.set("Authorization", `Basic ${btoa(`root:${password}`)}`);
    const response = await fetch(`${server.endpoint}/v2/auth/${path}`, {
      method: "PUT",
      headers,
      body: JSON.stringify(body),
    });
    const text = await response.text();
    assert(response.ok, text);
  };
  const rights = { kv: { read: ["/coreos.com/*"], write: ["/coreos.com/*"] } };
  await call("users/root", { user: "root", password: "r00t-pass" });
  await call("roles/flannel", { role: "flannel", permissions: rights });
  await call("users/flannel", { user: "flannel", password: "c0rrect-h0rse", roles: ["flannel"] });
  await call("enable", {});
  await call(
    "roles/guest",
    { role: "guest", revoke: { kv: { read: ["/*"], write: ["/*"] } } },
    "r00t-pass",
  );

  await using registry = new EtcdV2Registry(
    settingsFor(etcd.endpoints, { user: ["flannel", "c0rrect-h0rse"] }),
  );
  assert(await registry.create("10.3.4.0-24", "1", { signal, lifetimeSeconds: 60 }));
  assert.equal((await registry.list({ signal })).length, 1);
  for (const user of [["flannel", "wr0ng-h0rse"], undefined] as const) {
    await using wrong = new EtcdV2Registry(
      settingsFor(etcd.endpoints, user === undefined ? {} : { user }),
    );
    await rejectsWith(wrong.list({ signal }), "denied", /wrong user or password, or no permission/);
  }
});

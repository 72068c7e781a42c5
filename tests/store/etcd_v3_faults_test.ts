import assert from "node:assert/strict";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import { delay } from "../../src/util/time.ts";
import { type EtcdServer, EtcdServers } from "../support/etcd_process.ts";
import { eventually } from "../support/eventually.ts";
import { rejectsWith } from "./registry_contract.ts";
import { etcdTest, MemoryLogger, Relay, settingsFor } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();
const SUBNETS = "/coreos.com/network/subnets/";

/** Writes a key under the default prefix as another host would. */
async function put(server: EtcdServer, key: string, value: string): Promise<void> {
  await server.ctl(["put", "--", `${SUBNETS}${key}`, value], { signal });
}

etcdTest("EtcdV3Registry fails over when members die, and when the leader changes", async () => {
  await using etcd = await EtcdServers.start({ signal, members: 3 });
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  let entry = await registry.create("10.3.4.0-24", "0", { signal, lifetimeSeconds: 3600 });

  // Whoever we are connected to, one of these is it; the leader is among them.
  for (const [round, member] of etcd.members.entries()) {
    await member.kill();
    await eventually(async () => (await etcd.leader({ signal })) !== member, {
      signal,
      title: "another leader",
    });
    const startedAt = performance.now();
    assert.equal((await registry.get("10.3.4.0-24", { signal }))?.version, entry!.version);
    const tookMs = performance.now() - startedAt;
    assert(tookMs < 8_000, `a read took ${tookMs} ms with one member down`);
    // A write may meet the end of an election: the caller's loop repeats it.
    entry = await eventually(
      () => registry.update(entry!, String(round + 1), { signal, lifetimeSeconds: 3600 }),
      { signal, title: "the write" },
    );
    await log.until("the event", ({ map }) => map.get("10.3.4.0-24")?.value === String(round + 1));
    member.start();
    await member.ready({ signal });
  }

  const leader = await etcd.leader({ signal });
  const heir = etcd.members.find((member) => member !== leader)!;
  const [status] = JSON.parse(await heir.ctl(["endpoint", "status", "-w", "json"], { signal }));
  const heirId = BigInt(/"member_id":(\d+)/.exec(JSON.stringify(status))?.[1] ?? 0);
  assert(heirId !== 0n);
  const members = await leader.ctl(["member", "list"], { signal });
  const hex = members.split("\n").find((line) => line.includes(heir.name))!.split(",")[0]!;
  await leader.ctl(["move-leader", hex], { signal });
  await put(heir, "10.3.9.0-24", "after the change of leader");
  await log.until("the event", ({ map }) => map.has("10.3.9.0-24"));
  assert.equal(log.snapshots, 1, "the watch went on, each time, where it was");
});

etcdTest("EtcdV3Registry outlives an etcd that stops in order, also while it is idle", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const server = etcd.any;
  const subject = `${import.meta.dirname}/idle_connections_subject.ts`;
  await using process = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-check", "-A", subject, server.endpoint],
    stdin: "piped",
    stdout: "piped",
  }).spawn();
  const lines = process.stdout.pipeThrough(new TextDecoderStream()).getReader();
  const input = process.stdin.getWriter();
  for (let round = 0; round < 4; round++) {
    assert.equal((await lines.read()).value, "idle\n", `in round ${round}`);
    await server.stop();
    await delay(500, { signal });
    server.start();
    await server.ready({ signal });
    await input.write(new Uint8Array(1));
  }
  assert.equal((await lines.read()).value, "idle\n");
  await input.close();
  assert.equal((await process.status).code, 0);
});

etcdTest("EtcdV3Registry tells an outage once and goes on after it", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const [server] = etcd.members;
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  await put(server!, "10.3.1.0-24", "1");
  await log.until("the event", ({ map }) => map.has("10.3.1.0-24"));

  await server!.kill();
  await log.until("the outage", ({ disconnected }) => disconnected);
  const escaped = RegExp.escape(server!.endpoint);
  assert.match(log.outages[0]!.message, new RegExp(`^Cannot reach etcd at ${escaped}: `));
  await rejectsWith(registry.list({ signal }), "unavailable", /^Cannot reach etcd at .*refused$/);
  await delay(2_000, { signal });
  assert.equal(log.outages.length, 1);

  server!.start();
  await log.until("the end of the outage", ({ disconnected }) => !disconnected);
  await server!.ready({ signal });
  await put(server!, "10.3.2.0-24", "2");
  await log.until("the event", ({ map }) => map.has("10.3.2.0-24"));
  assert.equal(log.snapshots, 1);
  assert.equal(log.events.length, 2);
});

etcdTest("EtcdV3Registry takes a snapshot after compaction during an outage", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const [server] = etcd.members;
  using relay = new Relay(server!.port);
  await using registry = new EtcdV3Registry(settingsFor([relay.endpoint]));
  await put(server!, "10.3.1.0-24", "stays");
  await put(server!, "10.3.2.0-24", "goes");
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ map }) => map.size === 2);

  relay.refuse();
  await log.until("the outage", ({ disconnected }) => disconnected);
  await server!.ctl(["del", `${SUBNETS}10.3.2.0-24`], { signal });
  await put(server!, "10.3.3.0-24", "comes");
  await etcd.compact({ signal });
  relay.restore();
  await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
  assert.deepEqual([...log.map.keys()].sort(), ["10.3.1.0-24", "10.3.3.0-24"]);
  await put(server!, "10.3.4.0-24", "later");
  await log.until("the event", ({ map }) => map.has("10.3.4.0-24"));
  assert.equal(log.snapshots, 2);
});

etcdTest("EtcdV3Registry loses nothing of many events missed, cut off in between", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const [server] = etcd.members;
  using relay = new Relay(server!.port);
  await using registry = new EtcdV3Registry(settingsFor([relay.endpoint]));
  await using writer = new EtcdV3Registry(settingsFor(etcd.endpoints));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  relay.refuse();
  await log.until("the outage", ({ disconnected }) => disconnected);
  const total = 3_500;
  for (let from = 0; from < total; from += 50) {
    await Promise.all(Array.from({ length: 50 }, (_, i) => {
      return writer.create(`key-${from + i}`, "x".repeat(200), { signal });
    }));
  }
  relay.restore();
  // etcd sends at most 1,000 revisions at a time to a watch that lags: cut after each part.
  const parts: number[] = [];
  for (let seen = 0; seen < total;) {
    await log.until("more events", ({ events }) => events.length > seen);
    seen = log.events.length;
    parts.push(seen);
    relay.cut();
  }
  assert.equal(log.map.size, total);
  assert.equal(log.events.length, total, "each event came once");
  assert.equal(log.snapshots, 1);
  assert(parts.length > 1, `came in parts: ${parts}`);
});

etcdTest("EtcdV3Registry leaves a silent member for another one, without an outage", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const [server] = etcd.members;
  using relays = new DisposableStack();
  const [first, second] = [0, 1].map(() => relays.use(new Relay(server!.port)));
  await using registry = new EtcdV3Registry(settingsFor([first!.endpoint, second!.endpoint]));
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
  const [used, spare] = first!.accepted > 0 ? [first!, second!] : [second!, first!];
  used.freeze();
  const startedAt = performance.now();
  assert.deepEqual(await registry.list({ signal }), []);
  const tookMs = performance.now() - startedAt;
  assert(tookMs < 6_000, `a read took ${tookMs} ms with a silent member`);
  await put(server!, "10.3.1.0-24", "1");
  await log.until("the event", ({ map }) => map.has("10.3.1.0-24"));
  assert(spare.accepted > 0);
  assert.deepEqual(log.outages, []);
});

etcdTest("EtcdV3Registry takes a snapshot when the store was replaced", async () => {
  await using old = await EtcdServers.start({ signal });
  using relay = new Relay(old.any.port);
  await using registry = new EtcdV3Registry(settingsFor([relay.endpoint]));
  for (let i = 0; i < 4; i++) await put(old.any, `10.3.${i}.0-24`, "old");
  const listed = await registry.list({ signal });
  const written = (await registry.create("10.3.4.0-24", "own", { signal, lifetimeSeconds: 60 }))!;
  await using log = new WatchLog(registry, { signal, after: { listed, written } });
  await log.until("the snapshot", ({ map }) => map.size === 5);
  const [server] = old.members;
  await server!.kill();
  relay.cut();
  await log.until("the outage", ({ disconnected }) => disconnected);

  // The same address, a new and empty store whose revision is behind the one we know.
  await using replacement = await EtcdServers.start({ signal });
  const [fresh] = replacement.members;
  relay.targetPort = fresh!.port;
  await put(fresh!, "10.3.200.0-24", "new");
  await log.until("the second snapshot", ({ snapshots }) => snapshots === 2);
  await log.until("the key", ({ map }) => map.has("10.3.200.0-24"));
  assert.deepEqual([...log.map.keys()], ["10.3.200.0-24"]);
  // Revisions that the old store had, too, one of them that of the own key.
  for (let i = 0; i < 8; i++) await put(fresh!, `10.3.${i}.0-24`, "new");
  await log.until("all keys", ({ map }) => map.size === 9);
});

etcdTest("EtcdV3Registry authenticates, and again when etcd has forgotten the token", async () => {
  await using etcd = await EtcdServers.start({ signal });
  const [server] = etcd.members;
  const password = "c0rrect-h0rse";
  const user = ["flannel", password] as const;
  const ctl = (...args: string[]) => server!.ctl(args, { signal });
  await ctl("user", "add", `root:r00t-pass`);
  await ctl("user", "grant-role", "root", "root");
  await ctl("role", "add", "flannel");
  await ctl("role", "grant-permission", "--prefix=true", "flannel", "readwrite", "/coreos.com/");
  await ctl("user", "add", `flannel:${password}`);
  await ctl("user", "grant-role", "flannel", "flannel");

  // While authentication is off, credentials do no harm.
  const logger = new MemoryLogger();
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints, { user, log: logger }));
  let entry = await registry.create("10.3.4.0-24", "0", { signal, lifetimeSeconds: 3600 });
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ map }) => map.size === 1);

  await ctl("auth", "enable");
  entry = await registry.update(entry!, "1", { signal, lifetimeSeconds: 3600 });
  assert.equal(entry?.value, "1");
  await log.until("the event", ({ map }) => map.get("10.3.4.0-24")?.value === "1");

  // The tokens live in memory: a restart forgets them.
  await server!.kill();
  server!.start();
  await server!.ready({ signal });
  const renewed = await registry.renew(entry, 3600, { signal });
  assert.deepEqual(renewed, entry);
  entry = await registry.update(entry, "2", { signal, lifetimeSeconds: 3600 });
  await log.until("the event", ({ map }) => map.get("10.3.4.0-24")?.value === "2");
  assert.equal(log.snapshots, 1);

  // A token that etcd forgets while the connection lives: changing the user's password does that.
  await ctl("--user", "root:r00t-pass", "user", "revoke-role", "flannel", "flannel");
  await rejectsWith(registry.list({ signal }), "denied", /lacks the permission/);
  await ctl("--user", "root:r00t-pass", "user", "grant-role", "flannel", "flannel");
  assert.equal((await registry.list({ signal })).length, 1);

  using relay = new Relay(server!.port);
  const wrongUser = ["flannel", "wr0ng-h0rse"] as const;
  await using wrong = new EtcdV3Registry(settingsFor([relay.endpoint], { user: wrongUser }));
  await rejectsWith(wrong.list({ signal }), "denied", /wrong user name or password/);
  await using wrongLog = new WatchLog(wrong, { signal });
  await wrongLog.until("the denial", ({ disconnected }) => disconnected);
  await delay(3_000, { signal });
  assert(relay.accepted <= 6, `${relay.accepted} connections with a wrong password`);

  await using nobody = new EtcdV3Registry(settingsFor(etcd.endpoints));
  await rejectsWith(nobody.list({ signal }), "denied", /demands a user name and password/);
  const texts = [...logger.lines, ...wrongLog.outages.map(({ message }) => message)].join("\n");
  assert(!texts.includes(password) && !texts.includes("wr0ng-h0rse"), texts);
});

etcdTest("EtcdV3Registry reads nothing twice to watch after a list, unless it must", async () => {
  await using etcd = await EtcdServers.start({ signal });
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  const gone = await registry.create("10.3.1.0-24", "1", { signal, lifetimeSeconds: 60 });
  const listed = await registry.list({ signal });
  await registry.remove(gone!, { signal });
  const written = (await registry.create("10.3.2.0-24", "2", { signal, lifetimeSeconds: 60 }))!;
  const after = { listed, written };
  {
    await using log = new WatchLog(registry, { signal, after });
    await log.until("the deletion", ({ events }) => events.length === 1);
    assert.deepEqual(log.events[0], { type: "delete", key: "10.3.1.0-24" });
    assert.equal(log.snapshots, 1);
  }
  await etcd.compact({ signal });
  await using log = new WatchLog(registry, { signal, after });
  await log.until("a newer snapshot", ({ snapshots }) => snapshots === 2);
  assert.deepEqual([...log.map.keys()], ["10.3.2.0-24"]);
});

etcdTest("EtcdV3Registry lists 10,000 leases, and large foreign values beside them", async () => {
  await using etcd = await EtcdServers.start({
    signal,
    flags: ["--max-txn-ops=1000", "--max-request-bytes=10000000"],
  });
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  const value = '{"PublicIP":"192.168.64.3","PublicIPv6":null,"BackendType":"vxlan"}';
  for (let third = 0; third < 40; third++) {
    await Promise.all(Array.from({ length: 250 }, (_, fourth) => {
      return registry.create(`10.${third}.${fourth}.0-24`, value, { signal });
    }));
  }
  const entries = await registry.list({ signal });
  assert.equal(entries.length, 10_000);
  assert.equal(new Set(entries.map(({ key }) => key)).size, 10_000);
  await using log = new WatchLog(registry, { signal });
  await log.until("the snapshot", ({ map }) => map.size === 10_000);

  // Together these exceed what one message may hold.
  const large = "x".repeat(4_000_000);
  for (let i = 0; i < 6; i++) {
    assert(await registry.create(`zz-large-${i}`, large, { signal }));
  }
  await log.until("the large ones", ({ map }) => map.size === 10_006);
  assert.equal((await registry.list({ signal })).length, 10_006);
});

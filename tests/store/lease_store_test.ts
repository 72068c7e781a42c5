import assert from "node:assert/strict";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { openEtcdStore } from "../../src/store/etcd/open.ts";
import { GivenCluster, GivenStore } from "../fakes/given_store.ts";
import { MemoryRegistry, MemoryStore, openMemoryStore } from "../fakes/memory_registry.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { eventually } from "../support/eventually.ts";
import { testLeaseStoreContract } from "./lease_store_contract.ts";
import { etcdTest, MemoryLogger, NETWORK } from "./support.ts";

const { signal } = new AbortController();
const renewMarginSeconds = 3_600;

for (const api of ["v3", "v2"] as const) {
  etcdTest(`etcd ${api} fulfils the contract of a lease store`, async (t) => {
    await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
    let serial = 0;
    await testLeaseStoreContract(t, () => {
      const prefix = `/test${serial++}/network`;
      const { endpoints } = etcd;
      const log = new MemoryLogger();
      return {
        open: () => openEtcdStore({ endpoints, prefix, api, renewMarginSeconds, log }),
        async setConfig(text) {
          const key = `${prefix}/config`;
          const args = api === "v3"
            ? text === undefined ? ["del", key] : ["put", key, text]
            : text === undefined
            ? ["rm", key]
            : ["set", key, text];
          await etcd.any.ctl(args, { signal, api: api === "v3" ? 3 : 2 });
        },
      };
    });
  });
}

Deno.test("keys in memory fulfil the contract of a lease store", async (t) => {
  await testLeaseStoreContract(t, () => {
    const store = new MemoryStore();
    const ticking = setInterval(() => store.advance(0.1), 100);
    return {
      open: () => Promise.resolve(openMemoryStore(new MemoryRegistry(store))),
      setConfig: (text) => Promise.resolve(store.setConfig(text)),
      close: () => clearInterval(ticking),
    };
  });
});

Deno.test("a store that gives subnets and expires nothing fulfils the contract", async (t) => {
  await testLeaseStoreContract(t, () => {
    const cluster = new GivenCluster();
    for (const host of [1, 2]) cluster.addNode(`node-${host}`);
    const assigning = setTimeout(() => {
      for (const host of [1, 2]) {
        cluster.assign(`node-${host}`, Prefix.parse(`10.24.${host}.0/24`));
      }
    }, 20);
    return {
      open: (host) => Promise.resolve(new GivenStore(cluster, `node-${host}`)),
      setConfig: (text) => Promise.resolve(cluster.setConfig(text)),
      close: () => clearTimeout(assigning),
    };
  });
});

Deno.test("a node that was made anew has another lease, and two with one subnet stand apart", async () => {
  const cluster = new GivenCluster();
  cluster.addNode("a", Prefix.parse("10.24.1.0/24"));
  cluster.addNode("b", Prefix.parse("10.24.1.0/24"));
  const stop = new AbortController();
  const leases = new LeaseMap({ network: NETWORK });
  const running: Promise<unknown>[] = [];
  const owns = await Promise.all(["a", "b"].map(async (node, i) => {
    const store = new GivenStore(cluster, node);
    const attributes = { publicIp: Address.parse(`192.0.2.${i + 1}`), backendType: "" };
    const log = new MemoryLogger();
    const own = await store.acquire(
      { network: NETWORK, attributes, previous: undefined, log },
      stop,
    );
    running.push(own.run(stop).catch(() => {}));
    return own;
  }));
  running.push((async () => {
    for await (const update of new GivenStore(cluster, "c").followLeases(stop)) {
      if (update.type === "snapshot") leases.replace(update.entries);
      if (update.type !== "events") continue;
      for (const event of update.events) {
        if (event.type === "put") leases.put(event.entry);
        else leases.delete(event.key);
      }
    }
  })());
  const until = (condition: () => boolean, title: string) =>
    eventually(() => condition(), { signal, title, intervalMs: 5 });
  const [a, b] = owns.map((own) => own.lease.value.key);
  await until(() => leases.get(a!) !== undefined && leases.skippedCount === 1, "the older one");
  assert.match(leases.skipped().get(b!)!, /overlaps the lease a\./);

  cluster.removeNode("a");
  await until(() => !owns[0]!.state.value.held, "that it is not held");
  await until(() => leases.get(b!) !== undefined, "the other one in its place");
  cluster.addNode("a", Prefix.parse("10.24.7.0/24"));
  await until(() => owns[0]!.state.value.held, "that it is held");
  assert.equal(String(owns[0]!.lease.value.subnet.ipv4), "10.24.7.0/24");
  await until(() => leases.get(owns[0]!.lease.value.key) !== undefined, "its annotation");
  stop.abort();
  await Promise.all(running);
});

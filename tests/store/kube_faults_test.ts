/** How the lease store over Kubernetes takes what goes wrong, on a fake API server. */
import assert from "node:assert/strict";
import { LeaseMap } from "../../src/lease/lease_map.ts";
import { Address } from "../../src/net/mod.ts";
import { redact } from "../../src/secret.ts";
import type { LeaseStore, LeaseUpdate, OwnLease } from "../../src/store/lease_store.ts";
import { openKubeStore, type OpenKubeStoreOptions } from "../../src/store/kube/open.ts";
import fixtures from "../fixtures/kube_1_36.json" with { type: "json" };
import { FakeKubeApi } from "../fakes/kube_api.ts";
import { eventually } from "../support/eventually.ts";
import { MemoryLogger, NETWORK } from "./support.ts";

const PREFIX = "flannel.alpha.coreos.com/";

/** A server, a node and what runs for it. */
class Bench implements AsyncDisposable {
  readonly api = new FakeKubeApi();
  readonly log = new MemoryLogger();
  readonly leases = new LeaseMap({ network: NETWORK });
  readonly updates: LeaseUpdate["type"][] = [];
  readonly folder = Deno.makeTempDirSync();
  readonly #stop = new AbortController();
  readonly #running: Promise<unknown>[] = [];
  readonly #stores: LeaseStore[] = [];

  get signal(): AbortSignal {
    return this.#stop.signal;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop.abort(new Error("The test is over"));
    await Promise.all(this.#running);
    for (const store of this.#stores) await store[Symbol.asyncDispose]();
    await this.api[Symbol.asyncDispose]();
    await Deno.remove(this.folder, { recursive: true });
  }

  async open(more: Partial<OpenKubeStoreOptions> = {}): Promise<LeaseStore> {
    const store = await openKubeStore({
      apiUrl: this.api.url,
      environment: { NODE_NAME: "own", POD_NAMESPACE: "default" },
      annotationPrefix: "flannel.alpha.coreos.com",
      setsCondition: true,
      log: this.log,
      serviceAccountFolder: this.folder,
      netConfigPath: `${this.folder}/net-conf.json`,
      ...more,
    }, this);
    this.#stores.push(store);
    return store;
  }

  async addNode(name: string, podCIDR?: string, annotations: Record<string, unknown> = {}) {
    const named = Object.fromEntries(
      Object.entries(annotations).map(([key, value]) => [PREFIX + key, value]),
    );
    await this.api.admin("POST", "/api/v1/nodes", {
      metadata: { name, annotations: named },
      spec: podCIDR === undefined ? {} : { podCIDR },
    });
  }

  addPeer(name: string, podCIDR: string | undefined, more: Record<string, unknown> = {}) {
    return this.addNode(name, podCIDR, {
      "kube-subnet-manager": "true",
      "public-ip": "192.0.2.7",
      "backend-type": "host-gw",
      "backend-data": "null",
      ...more,
    });
  }

  async acquire(store: LeaseStore, more = {}): Promise<OwnLease> {
    const attributes = { publicIp: Address.parse("192.0.2.1"), backendType: "host-gw" };
    const request = { network: NETWORK, attributes, previous: undefined, log: this.log, ...more };
    return await store.acquire(request, this);
  }

  run(loop: Promise<unknown>): void {
    this.#running.push(loop.catch(() => {}));
  }

  follow(store: LeaseStore): void {
    this.run((async () => {
      for await (const update of store.followLeases(this)) {
        this.updates.push(update.type);
        if (update.type === "snapshot") this.leases.replace(update.entries);
        if (update.type !== "events") continue;
        for (const event of update.events) {
          if (event.type === "put") this.leases.put(event.entry);
          else this.leases.delete(event.key);
        }
      }
    })());
  }

  subnets(): string[] {
    return [...this.leases.leases()].map(({ subnet }) => String(subnet.ipv4)).sort();
  }

  until(condition: () => unknown, title: string): Promise<boolean> {
    const { signal } = this;
    return eventually(() => Boolean(condition()), { signal, title, intervalMs: 5 });
  }

  annotation(name: string, node = "own"): string | undefined {
    return this.api.object(`/api/v1/nodes/${node}`)?.metadata.annotations?.[PREFIX + name];
  }

  patch(node: string, annotations: Record<string, unknown>) {
    const named = Object.entries(annotations).map(([key, value]) => [PREFIX + key, value]);
    const metadata = { annotations: Object.fromEntries(named) };
    return this.api.admin("PATCH", `/api/v1/nodes/${node}/status`, { metadata });
  }

  asked(pattern: RegExp): number {
    return this.api.requests.filter((each) => pattern.test(each)).length;
  }
}

Deno.test("kube: node, CIDR and rights are waited for, each said once", async () => {
  await using bench = new Bench();
  bench.api.fault = (request) =>
    request.method === "GET"
      ? { status: 403, text: JSON.stringify(fixtures.forbidden) }
      : undefined;
  const waiting: string[] = [];
  const store = await bench.open();
  const acquiring = bench.acquire(store, { onWaiting: (reason: string) => waiting.push(reason) });
  acquiring.catch(() => {});
  await bench.until(() => waiting.length === 1, "the missing right");
  assert.match(waiting[0]!, /nodes is forbidden: User "nobody" cannot list resource "nodes"/);
  bench.api.fault = undefined;
  await bench.until(() => waiting.length === 2, "the missing node");
  assert.match(waiting[1]!, /"own" does not exist yet/);
  await bench.addNode("own");
  await bench.until(() => waiting.length === 3, "the missing CIDR");
  assert.match(waiting[2]!, /pod cidr not assigned.*--allocate-node-cidrs/);
  await bench.api.admin("PATCH", "/api/v1/nodes/own", { spec: { podCIDR: "10.24.3.0/24" } });
  assert.equal(String((await acquiring).lease.value.subnet.ipv4), "10.24.3.0/24");
  assert.equal(waiting.length, 3);
});

Deno.test("kube: a CIDR outside of the network is an error, and nothing is published", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.99.0.0/24");
  await assert.rejects(
    bench.acquire(await bench.open()),
    /subnet "10.24.0.0\/16" specified in the flannel net config doesn't contain "10.99.0.0\/24"/,
  );
  assert.equal(bench.annotation("kube-subnet-manager"), undefined);
});

Deno.test("kube: own annotations are written as upstream does, put back, and overwritten live", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24", { "backend-v6-data": "{}", "public-ipv6": "fd00::9" });
  const store = await bench.open();
  const own = await bench.acquire(store);
  bench.follow(store);
  bench.run(own.run(bench));
  assert.deepEqual(bench.api.object("/api/v1/nodes/own").metadata.annotations, {
    [`${PREFIX}kube-subnet-manager`]: "true",
    [`${PREFIX}backend-type`]: "host-gw",
    [`${PREFIX}backend-data`]: "null",
    [`${PREFIX}public-ip`]: "192.0.2.1",
  });
  await bench.until(() => bench.leases.size === 1, "the lease");
  await bench.patch("own", { "backend-type": null, "kube-subnet-manager": "no" });
  await bench.until(() => bench.annotation("kube-subnet-manager") === "true", "the annotation");
  assert.equal(bench.annotation("backend-type"), "host-gw");
  await bench.patch("own", { "public-ip-overwrite": "198.51.100.1" });
  await bench.until(() => bench.annotation("public-ip") === "198.51.100.1", "the overwrite");
  await bench.patch("own", { "public-ip-overwrite": null });
  await bench.until(() => bench.annotation("public-ip") === "192.0.2.1", "its end");
});

Deno.test("kube: a node made anew is written again, with its other CIDR", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24");
  const store = await bench.open();
  const own = await bench.acquire(store);
  bench.follow(store);
  bench.run(own.run(bench));
  await bench.until(() => bench.leases.size === 1, "the lease");
  const before = own.lease.value.key;
  await bench.api.admin("DELETE", "/api/v1/nodes/own");
  await bench.until(() => !own.state.value.held, "that it is not held");
  assert.equal(bench.leases.size, 0);
  await bench.addNode("own");
  await bench.api.admin("PATCH", "/api/v1/nodes/own", { spec: { podCIDR: "10.24.8.0/24" } });
  await bench.until(() => own.state.value.held, "that it is held");
  assert.equal(String(own.lease.value.subnet.ipv4), "10.24.8.0/24");
  assert.notEqual(own.lease.value.key, before);
  await bench.until(() => bench.annotation("public-ip") === "192.0.2.1", "the annotation");
  await bench.until(() => bench.subnets().join() === "10.24.8.0/24", "the new lease");
});

Deno.test("kube: the condition is set once, beside the kubelet's, and not where it is not wanted", async () => {
  for (const setsCondition of [true, false]) {
    await using bench = new Bench();
    await bench.addNode("own", "10.24.1.0/24");
    const ready = { type: "Ready", status: "True" };
    await bench.api.admin("PATCH", "/api/v1/nodes/own/status", { status: { conditions: [ready] } });
    const own = await bench.acquire(await bench.open({ setsCondition }));
    bench.run(own.run(bench));
    const conditions = () => bench.api.object("/api/v1/nodes/own").status.conditions;
    assert.deepEqual(conditions(), [ready], "not before pods have a network");
    own.setReady!(true);
    if (setsCondition) await bench.until(() => conditions().length === 2, "the condition");
    own.setReady!(false);
    own.setReady!(true);
    await new Promise((resolve) => setTimeout(resolve, 50));
    const [, { lastHeartbeatTime = "", lastTransitionTime = "", ...rest } = {}] = conditions();
    assert.deepEqual(
      rest,
      setsCondition
        ? {
          type: "NetworkUnavailable",
          status: "False",
          reason: "FlannelIsUp",
          message: "Flannel is running on this node",
        }
        : {},
    );
    assert.equal(lastHeartbeatTime, lastTransitionTime);
    const writes = bench.asked(/^PATCH/);
    assert.equal(writes, setsCondition ? 2 : 1);
  }
});

Deno.test("kube: nodes that are hostile, or overlap, are refused by name and disturb nobody", async () => {
  await using bench = new Bench();
  await bench.addPeer("good", "10.24.1.0/24");
  await bench.addPeer("overlaps", "10.24.1.128/25");
  await bench.addPeer("outside", "0.0.0.0/0");
  await bench.addPeer("mapped", "::ffff:10.24.9.0/120");
  await bench.addPeer("address", "10.24.2.0/24", { "public-ip": "224.0.0.1" });
  await bench.addPeer("json", "10.24.3.0/24", { "backend-data": '","PublicIP":"x' });
  await bench.addNode("unmanaged", "10.24.5.0/24");
  await bench.addPeer("late", undefined);
  await bench.addPeer("host-bits", "10.24.6.9/24");
  bench.follow(await bench.open());
  await bench.until(() => bench.leases.complete, "the leases");
  assert.deepEqual(bench.subnets(), ["10.24.1.0/24", "10.24.6.0/24"]);
  const names = [...bench.leases.skipped().keys()].map((key) => key.split("/")[0]).sort();
  assert.deepEqual(names, ["address", "json", "mapped", "outside", "overlaps"]);
  await bench.api.admin("PATCH", "/api/v1/nodes/late", { spec: { podCIDR: "10.24.7.0/24" } });
  await bench.until(() => bench.leases.size === 3, "the CIDR that came late");
  await bench.patch("address", { "public-ip": "192.0.2.8" });
  await bench.until(() => bench.leases.size === 4, "the one that was mended");
});

Deno.test("kube: heartbeats and bookmarks are no news, and CIDRs are read once", async () => {
  await using bench = new Bench();
  bench.follow(await bench.open());
  await bench.until(() => bench.leases.complete, "the leases");
  await bench.addPeer("peer", "10.24.1.0/24");
  await bench.until(() => bench.leases.size === 1, "the peer");
  const updates = bench.updates.length;
  for (let i = 0; i < 20; i++) {
    const status = {
      conditions: [{ type: "Ready", status: "True", lastHeartbeatTime: String(i) }],
    };
    await bench.api.admin("PATCH", "/api/v1/nodes/peer/status", { status });
    bench.api.bookmark();
  }
  await bench.addPeer("other", "10.24.2.0/24");
  await bench.until(() => bench.leases.size === 2, "the other peer");
  assert.equal(bench.updates.length, updates + 1);
  assert.equal(bench.asked(/^GET .api.v1.nodes.peer/), 1);
  assert.equal(bench.asked(/watch=1/), 2, "one list and one watch");
});

Deno.test("kube: a watch that ends, breaks or is too old goes on", async () => {
  await using bench = new Bench();
  await bench.addPeer("a", "10.24.1.0/24");
  bench.follow(await bench.open());
  await bench.until(() => bench.leases.size === 1 && bench.api.watchCount === 1, "the watch");
  bench.api.endWatches();
  await bench.addPeer("b", "10.24.2.0/24");
  await bench.until(() => bench.leases.size === 2, "what came meanwhile");
  assert.equal(bench.asked(/sendInitialEvents/), 1, "without reading all");
  bench.api.fault = (_, url) =>
    url.searchParams.get("watch") === "1" ? { status: 500, text: "no" } : undefined;
  bench.api.endWatches();
  await bench.api.admin("DELETE", "/api/v1/nodes/a");
  bench.api.compact();
  await bench.until(() => bench.updates.includes("disconnected"), "the outage");
  assert.equal(bench.leases.size, 2, "nothing is removed for an outage");
  bench.api.fault = undefined;
  await bench.until(() => bench.subnets().join() === "10.24.2.0/24", "the present state");
  assert.equal(bench.updates.filter((type) => type === "disconnected").length, 1);
});

Deno.test("kube: a silent watch is taken up again, also where the server went back in time", async () => {
  await using bench = new Bench();
  await bench.addPeer("a", "10.24.1.0/24");
  const backup = bench.api.backup();
  await bench.addPeer("b", "10.24.2.0/24");
  bench.follow(await bench.open({ timing: { silenceMs: 100, watchSeconds: 1_800 } }));
  await bench.until(() => bench.leases.size === 2, "both");
  await bench.until(() => bench.asked(/watch=1&resourceVersion/) >= 3, "watches after silence");
  assert.ok(!bench.updates.includes("disconnected"));
  bench.api.restore(backup);
  await bench.until(() => bench.subnets().join() === "10.24.1.0/24", "the restored state");
});

Deno.test("kube: a list that is cut off removes nothing", async () => {
  await using bench = new Bench();
  for (let i = 1; i <= 9; i++) await bench.addPeer(`n${i}`, `10.24.${i}.0/24`);
  bench.follow(await bench.open());
  await bench.until(() => bench.leases.size === 9, "all");
  let cuts = 0;
  bench.api.fault = (_, url) =>
    url.searchParams.has("sendInitialEvents") && cuts++ < 2 ? "cut" : undefined;
  bench.api.compact();
  await bench.addPeer("n10", "10.24.10.0/24");
  bench.api.compact();
  bench.api.endWatches();
  await bench.api.admin("DELETE", "/api/v1/nodes/n1");
  bench.api.compact();
  await bench.until(() => cuts > 0, "a list that is cut");
  assert.ok(bench.leases.size >= 9);
  await bench.until(
    () => bench.leases.size === 9 && !bench.subnets().includes("10.24.1.0/24"),
    "all",
  );
});

Deno.test("kube: servers without WatchList are listed, by whatever words they say so", async () => {
  for (const refusal of [fixtures.noWatchList, fixtures.noProgress]) {
    await using bench = new Bench();
    for (let i = 1; i <= 3; i++) await bench.addPeer(`n${i}`, `10.24.${i}.0/24`);
    bench.api.fault = (_, url) =>
      !url.searchParams.has("sendInitialEvents")
        ? undefined
        : refusal.code === 422
        ? { status: 422, text: JSON.stringify(refusal) }
        : { status: 200, text: JSON.stringify({ type: "ERROR", object: refusal }) + "\n" };
    bench.follow(await bench.open());
    await bench.until(() => bench.leases.size === 3, "all");
    bench.api.compact();
    await bench.addPeer("n4", "10.24.4.0/24");
    await bench.until(() => bench.leases.size === 4, "the next");
    assert.equal(bench.asked(/sendInitialEvents/), 1);
  }
});

Deno.test("kube: a server that is overloaded is asked again when it says so", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24");
  let refusals = 0;
  bench.api.fault = () =>
    refusals++ < 2
      ? { status: 429, text: "Too many requests, please try again later.", retryAfter: 0 }
      : undefined;
  const own = await bench.acquire(await bench.open());
  assert.ok(own.state.value.held);
  assert.ok(!bench.log.lines.some((line) => line.startsWith("warn")));
});

Deno.test("kube: a server that does not respond fails within the deadline, and is used again", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24");
  const store = await bench.open();
  bench.api.fault = () => "silence";
  const waiting: string[] = [];
  const acquiring = bench.acquire(store, { onWaiting: (reason: string) => waiting.push(reason) });
  await bench.until(() => waiting.length === 1, "the failure");
  assert.match(waiting[0]!, /Cannot get nodes\/own: no response within 10 s/);
  bench.api.fault = undefined;
  assert.ok((await acquiring).state.value.held);
});

Deno.test("kube: a token is read again when it is refused, and is in no text", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24");
  await Deno.writeTextFile(`${bench.folder}/token`, "first-canary\n");
  bench.api.tokens.add("first-canary");
  const store = await bench.open();
  assert.equal(redact("Bearer first-canary"), "Bearer [redacted]");
  await bench.acquire(store);
  bench.api.tokens.clear();
  bench.api.tokens.add("second-canary");
  await Deno.writeTextFile(`${bench.folder}/token`, "second-canary\n");
  await bench.acquire(store);
  assert.ok(!bench.log.lines.some((line) => line.includes("canary")));
  bench.api.tokens.clear();
  bench.api.tokens.add("none-of-ours");
  const waiting: string[] = [];
  bench.run(bench.acquire(store, { onWaiting: (reason: string) => waiting.push(reason) }));
  await bench.until(() => waiting.length === 1, "the refusal");
  assert.match(waiting[0]!, /Unauthorized/);
});

Deno.test("kube: certificates that are replaced half are waited for", async () => {
  await using bench = new Bench();
  await bench.addNode("own", "10.24.1.0/24");
  const kubeconfigFile = `${bench.folder}/kubeconfig`;
  const write = (user: string) =>
    Deno.writeTextFile(
      kubeconfigFile,
      `current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "${bench.api.url}"}}]
users: [{name: u, user: {${user}}}]`,
    );
  await write("token: first");
  const store = await bench.open({ kubeconfigFile, apiUrl: undefined });
  await write(`client-certificate-data: ${btoa("half")}, client-key-data: ${btoa("half")}`);
  bench.api.tokens.add("second"); // the refusal has the file read again
  const waiting: string[] = [];
  const acquiring = bench.acquire(store, { onWaiting: (reason: string) => waiting.push(reason) });
  await bench.until(() => waiting.some((reason) => /certificates/.test(reason)), "the refusal");
  await write("token: second");
  assert.ok((await acquiring).state.value.held);
});

Deno.test("kube: documents end by the server's clock, however wrong the own one is", async () => {
  for (const aheadSeconds of [-7_200, 7_200]) {
    await using bench = new Bench();
    await bench.addNode("own", "10.24.1.0/24");
    bench.api.clockAheadSeconds = aheadSeconds;
    const store = await bench.open();
    await bench.acquire(store); // the first response tells
    const documents = store.documents("cloud/state");
    await documents.create("a", "1", { ...{ signal: bench.signal }, lifetimeSeconds: 600 });
    bench.api.clockAheadSeconds = aheadSeconds + 300;
    assert.ok(await documents.get("a", bench));
    bench.api.clockAheadSeconds = aheadSeconds + 1_000;
    await documents.get("b", bench);
    assert.equal(await documents.get("a", bench), undefined);
  }
});

import assert from "node:assert/strict";
import { MemoryRegistry, MemoryStore } from "../../tests/fakes/memory_registry.ts";
import { encodeLeaseValue } from "../lease/codec.ts";
import { createLogger } from "../log.ts";
import { Address, Prefix } from "../net/mod.ts";
import { planAcquire } from "./acquire.ts";
import { LeaseKeeper, type LeaseKeeperOptions } from "./lease_keeper.ts";
import { type Entry, StoreError } from "./registry.ts";

const network = {
  ipv4: {
    network: Prefix.parse("10.3.0.0/16"),
    subnetLength: 24,
    subnetMin: Address.parse("10.3.1.0"),
    subnetMax: Address.parse("10.3.4.0"),
  },
};

function attributes(ip: string) {
  return { publicIp: Address.parse(ip), backendType: "" };
}

function value(ip: string): string {
  return encodeLeaseValue(attributes(ip));
}

function entry(key: string, ip: string, expires = true): Entry {
  return { key, value: value(ip), revision: "1", expires };
}

function subnet(text: string) {
  return { ipv4: Prefix.parse(text) };
}

/** A keeper's surroundings: a store, a clock that is moved by hand, and what was logged. */
function setUp(ip = "192.0.2.1", store = new MemoryStore()) {
  const registry = new MemoryRegistry(store);
  const lines: string[] = [];
  const time = { ms: 1_000_000 };
  const options: LeaseKeeperOptions = {
    registry,
    network,
    attributes: attributes(ip),
    previous: undefined,
    renewMarginSeconds: 3600,
    onLeaseLoss: "keep",
    log: createLogger({
      format: "human",
      verbosity: 0,
      write: (line) => void lines.push(line.replace(/^\S+ /, "")),
    }),
    random: () => 0,
    now: () => time.ms,
  };
  return { registry, store, lines, time, options };
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.fail(`never: ${what}`);
}

/** Runs the keeper with the store's watch feeding it, as the daemon does. */
function run(keeper: LeaseKeeper, registry: MemoryRegistry) {
  const controller = new AbortController();
  const { signal } = controller;
  const loops = Promise.allSettled([
    keeper.run({ signal }),
    (async () => {
      for await (const update of registry.watch({ signal })) keeper.observe(update);
    })(),
  ]);
  return {
    async [Symbol.asyncDispose]() {
      controller.abort(new Error("end of test"));
      await loops;
    },
  };
}

const { signal } = new AbortController();

Deno.test("planAcquire() follows upstream's order of preference", () => {
  const plan = (entries: Entry[], previous?: string) => {
    const step = planAcquire({
      network,
      owner: attributes("192.0.2.1"),
      entries,
      previous: previous ? subnet(previous) : undefined,
      random: () => 0,
    });
    return step.action === "create"
      ? `create ${step.subnet.ipv4}`
      : step.action === "wait"
      ? "wait"
      : `${step.action} ${step.entry.key}`;
  };
  const mine = entry("10.3.2.0-24", "192.0.2.1");
  const theirs = entry("10.3.3.0-24", "192.0.2.9");
  assert.equal(plan([]), "create 10.3.1.0/24");
  assert.equal(plan([theirs, mine], "10.3.4.0/24"), "reuse 10.3.2.0-24");
  assert.equal(plan([theirs], "10.3.4.0/24"), "create 10.3.4.0/24");
  assert.equal(plan([theirs], "10.3.3.0/24"), "create 10.3.1.0/24", "never another host's");
  assert.equal(plan([theirs], "10.9.0.0/24"), "create 10.3.1.0/24", "not of this network");
  assert.equal(plan([], "10.3.2.0/25"), "create 10.3.1.0/24", "not of this length");
  assert.equal(plan([entry("10.9.0.0-24", "192.0.2.1")]), "remove 10.9.0.0-24");
  assert.equal(plan([entry("10.9.0.0-24", "192.0.2.1", false)]), "create 10.3.1.0/24");
  assert.equal(plan([mine, entry("10.3.4.0-24", "192.0.2.1")], "10.3.4.0/24"), "reuse 10.3.4.0-24");
  const junk = { key: "10.3.1.0-24", value: "garbage", revision: "1", expires: true };
  assert.equal(
    plan([junk, { ...junk, key: "x" }]),
    "create 10.3.2.0/24",
    "junk's subnet is not free",
  );
  assert.equal(
    plan(
      ["10.3.1.0-24", "10.3.2.0-24", "10.3.3.0-24", "10.3.4.0-24"].map((key) =>
        entry(key, "192.0.2.9")
      ),
    ),
    "wait",
  );
});

Deno.test("LeaseKeeper.acquire() writes upstream's bytes with a day to live", async () => {
  const { options, store } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(keeper.lease.key, "10.3.1.0-24");
  assert.equal(store.get("10.3.1.0-24")?.value, '{"PublicIP":"192.0.2.1","PublicIPv6":null}');
  assert.equal(store.timeToLive("10.3.1.0-24"), 86_400);
});

Deno.test("LeaseKeeper.acquire() keeps the lease over a restart, without an event for peers", async () => {
  const { options, store } = setUp();
  store.put("10.3.3.0-24", value("192.0.2.1"), { ttlSeconds: 10 });
  const { revision } = store.get("10.3.3.0-24")!;
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(keeper.lease.key, "10.3.3.0-24");
  assert.equal(store.get("10.3.3.0-24")?.revision, revision);
  assert.equal(store.timeToLive("10.3.3.0-24"), 86_400);
});

Deno.test("LeaseKeeper.acquire() leaves a reservation without an end", async () => {
  const { options, store } = setUp();
  store.put("10.3.2.0-24", '{"PublicIP":"192.0.2.1"}');
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(store.get("10.3.2.0-24")?.expires, false);
  assert.deepEqual(keeper.state, { held: true, expiresAt: undefined });
});

Deno.test("LeaseKeeper.acquire() gives racing hosts different subnets", async () => {
  const store = new MemoryStore();
  const keepers = await Promise.all(
    [1, 2, 3, 4].map((n) => LeaseKeeper.acquire(setUp(`192.0.2.${n}`, store).options, { signal })),
  );
  assert.equal(new Set(keepers.map((keeper) => keeper.lease.key)).size, 4);
});

Deno.test("LeaseKeeper.acquire() lets exactly one of two hosts have a cloned subnet.env's subnet", async () => {
  const store = new MemoryStore();
  const keepers = await Promise.all(
    ["192.0.2.1", "192.0.2.2"].map((ip) =>
      LeaseKeeper.acquire({ ...setUp(ip, store).options, previous: subnet("10.3.4.0/24") }, {
        signal,
      })
    ),
  );
  const won = keepers.filter((keeper) => keeper.lease.key === "10.3.4.0-24");
  assert.equal(won.length, 1);
});

Deno.test("LeaseKeeper renews before the end, and goes on after failures", async () => {
  const { options, registry, store, time, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry);
  store.advance(23 * 3600);
  time.ms += 23 * 3600_000;
  registry.failNext("renew", {
    error: new StoreError("unavailable", "Cannot reach etcd: refused"),
  });
  keeper.observe({ type: "snapshot", entries: store.entries() }); // nothing to do with it
  keeper.publish(attributes("192.0.2.1")); // nor with this
  keeper.observe({ type: "events", events: [{ type: "delete", key: keeper.lease.key }] }); // wakes
  await until(() => store.timeToLive("10.3.1.0-24") === 86_400, "renewed");
  assert.ok(keeper.state.held);
  assert.ok(!lines.some((line) => line.includes("lost")));
});

Deno.test("LeaseKeeper takes back a revoked lease, the same subnet", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry);
  store.delete("10.3.1.0-24");
  await until(() => store.get("10.3.1.0-24") !== undefined, "taken back");
  await until(() => lines.some((line) => line.includes("taken back")), "said so");
  assert.equal(keeper.lease.key, "10.3.1.0-24");
  assert.ok(keeper.state.held);
});

Deno.test("LeaseKeeper keeps its subnet and is not held when another host has it, until that goes", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry);
  store.put("10.3.1.0-24", value("192.0.2.66"), { ttlSeconds: 86_400 });
  await until(() => !keeper.state.held, "lost");
  assert.equal(keeper.lease.key, "10.3.1.0-24");
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.66"), "nothing is stolen");
  assert.match(lines.join("\n"), /ERROR Lease lost: 192\.0\.2\.66 holds 10\.3\.1\.0\/24 now/);
  store.delete("10.3.1.0-24");
  await until(() => keeper.state.held, "held again");
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.1"));
});

Deno.test("LeaseKeeper takes another subnet when told to", async () => {
  const { options, registry, store } = setUp();
  const keeper = await LeaseKeeper.acquire({ ...options, onLeaseLoss: "reassign" }, { signal });
  await using _ = run(keeper, registry);
  store.put("10.3.1.0-24", value("192.0.2.66"));
  await until(() => keeper.lease.key === "10.3.2.0-24", "reassigned");
  assert.ok(keeper.state.held);
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.66"));
});

Deno.test("LeaseKeeper writes its value again over someone's edit, and publishes a new address", async () => {
  const { options, registry, store } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry);
  store.put("10.3.1.0-24", '{"PublicIP":"192.0.2.1","BackendType":"vxlan"}', { ttlSeconds: 9 });
  await until(() => store.get("10.3.1.0-24")?.value === value("192.0.2.1"), "written again");
  keeper.publish(attributes("192.0.2.77"));
  await until(() => store.get("10.3.1.0-24")?.value === value("192.0.2.77"), "published");
  assert.ok(keeper.state.held);
  assert.equal(keeper.lease.key, "10.3.1.0-24");
});

Deno.test("LeaseKeeper tells of a failing store once, and of its end", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry);
  for (let i = 0; i < 2; i++) {
    registry.failNext("get", { error: new StoreError("unavailable", "no leader") });
  }
  store.delete("10.3.1.0-24");
  await until(() => keeper.state.held && keeper.state.trouble === "no leader", "trouble");
  await until(() => store.get("10.3.1.0-24") !== undefined, "taken back");
  await until(() => lines.some((line) => line.includes("in order again")), "said so");
  assert.equal(lines.filter((line) => line.includes("no leader")).length, 1);
});

import assert from "node:assert/strict";
import { MemoryRegistry, MemoryStore } from "../../../tests/fakes/memory_registry.ts";
import { recordLog } from "../../../tests/support/log.ts";
import { encodeLeaseValue } from "../../lease/codec.ts";
import { Address, Places, Prefix } from "../../net/mod.ts";
import type { LeaseSubnet } from "../../lease/lease.ts";
import { LeaseKeeper, type LeaseKeeperOptions } from "./lease_keeper.ts";
import { StoreError } from "../errors.ts";
import { watchLeaseLoss } from "../lease_loss.ts";
import type { LeaseState } from "../lease_store.ts";
import type { Entry } from "../keys/key_space.ts";
import { planAcquire } from "./plan_acquire.ts";

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
  return { key, value: value(ip), version: "1", order: "1", expires };
}

function subnet(text: string) {
  return { ipv4: Prefix.parse(text) };
}

/** A keeper's surroundings: a store, a clock that is moved by hand, and what was logged. */
function setUp(ip = "192.0.2.1", store = new MemoryStore()) {
  const registry = new MemoryRegistry(store);
  const { lines, log } = recordLog();
  const time = { ms: 1_000_000, monotonicMs: 0 };
  const options: LeaseKeeperOptions = {
    space: registry,
    network,
    attributes: attributes(ip),
    previous: undefined,
    renewMarginSeconds: 3600,
    log,
    random: () => 0,
    now: () => time.ms,
    monotonicNow: () => time.monotonicMs,
  };
  return { registry, store, lines, time, options };
}

function isInTrouble(state: LeaseState, trouble: string): boolean {
  return state.held && state.trouble?.message === trouble;
}

async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2_000; i++) {
    if (condition()) return;
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  assert.fail(`never: ${what}`);
}

/** Runs the keeper with the store's watch feeding it, as the daemon does. */
function run(
  keeper: LeaseKeeper,
  registry: MemoryRegistry,
  { log }: LeaseKeeperOptions,
  onLeaseLoss: "keep" | "reassign" = "keep",
) {
  const watching = watchLeaseLoss(keeper, { onLeaseLoss, log });
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
      watching[Symbol.dispose]();
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
  const junk = {
    key: "10.3.1.0-24",
    value: "garbage",
    version: "1",
    order: "1",
    expires: true,
  };
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

const dualStack = {
  ...network,
  ipv6: {
    network: Prefix.parse("fd00:3::/48"),
    subnetLength: 64,
    subnetMin: Address.parse("fd00:3:0:1::"),
    subnetMax: Address.parse("fd00:3:0:4::"),
  },
};

Deno.test("hosts that choose one IPv4 subnet at a time, with several IPv6 ones, do not share it", async () => {
  const store = new MemoryStore();
  const keepers = await Promise.all([0, 0.3, 0.6, 0.9].map((choice, i) => {
    const { options } = setUp(`192.0.2.${i + 1}`, store);
    const random = i % 2 === 0 ? [0, choice] : [choice, 0];
    return LeaseKeeper.acquire({
      ...options,
      network: dualStack,
      random: () => random.shift() ?? 0,
    }, { signal });
  }));
  const subnets = keepers.map(({ lease }) => lease.value.subnet);
  assert.equal(new Set(subnets.map(({ ipv4 }) => String(ipv4))).size, 4);
  assert.equal(new Set(subnets.map(({ ipv6 }) => String(ipv6))).size, 4);
  const held = keepers.map(({ lease }) => lease.value.key).sort();
  assert.deepEqual(store.entries().map(({ key }) => key), held, "what was given back is gone");
});

Deno.test("planAcquire() gives back a lease that shares a subnet with an earlier one, before it is used", () => {
  const at = (order: string, key: string, ip: string) => ({
    ...entry(key, ip),
    order,
  });
  const plan = (entries: Entry[], previous?: LeaseSubnet) =>
    planAcquire({
      network: dualStack,
      owner: attributes("192.0.2.1"),
      entries,
      previous,
      random: () => 0,
    }).action;
  const mine = at("07", "10.3.2.0-24&fd00:3:0:2::-64", "192.0.2.1");
  const subnet = {
    ipv4: Prefix.parse("10.3.2.0/24"),
    ipv6: Prefix.parse("fd00:3:0:2::/64"),
  };
  const earlier = at("06", "10.3.2.0-24&fd00:3:0:3::-64", "192.0.2.9");
  const later = at("10", "10.3.2.0-24&fd00:3:0:3::-64", "192.0.2.9");
  assert.equal(plan([earlier, mine]), "remove");
  assert.equal(plan([later, mine]), "reuse");
  assert.equal(plan([earlier, mine], subnet), "reuse", "pods have its addresses");
  assert.equal(plan([earlier, { ...mine, expires: false }]), "reuse", "the operator's word");
  assert.equal(plan([at("06", "10.3.3.0-24&fd00:3:0:3::-64", "192.0.2.9"), mine]), "reuse");
  assert.equal(plan([at("06", "junk", "192.0.2.9"), mine]), "reuse");
});

Deno.test("LeaseKeeper.acquire() writes upstream's bytes with a day to live", async () => {
  const { options, store } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(keeper.lease.value.key, "10.3.1.0-24");
  assert.equal(store.get("10.3.1.0-24")?.value, '{"PublicIP":"192.0.2.1","PublicIPv6":null}');
  assert.equal(store.timeToLive("10.3.1.0-24"), 86_400);
});

Deno.test("LeaseKeeper.acquire() keeps the lease over a restart, without an event for peers", async () => {
  const { options, store } = setUp();
  store.put("10.3.3.0-24", value("192.0.2.1"), { ttlSeconds: 10 });
  const { version } = store.get("10.3.3.0-24")!;
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(keeper.lease.value.key, "10.3.3.0-24");
  assert.equal(store.get("10.3.3.0-24")?.version, version);
  assert.equal(store.timeToLive("10.3.3.0-24"), 86_400);
});

Deno.test("LeaseKeeper.acquire() tells what the own lease published, and hands the list over", async () => {
  const { options, store, registry } = setUp();
  const other = store.put("10.3.2.0-24", value("192.0.2.9"));
  const published = { ...attributes("192.0.2.1"), backendType: "vxlan", backendData: { VNI: 1 } };
  store.put("10.3.3.0-24", encodeLeaseValue(published), { ttlSeconds: 10 });
  const told: unknown[] = [];
  const keeper = await LeaseKeeper.acquire({
    ...options,
    inherit: (former) => {
      told.push(former);
      return { ...former, backendData: { VNI: 2 } };
    },
  }, { signal });
  assert.deepEqual(told, [published]);
  const { written, listed } = keeper.takeKnown()!;
  assert.deepEqual(keeper.lease.value.attributes.backendData, { VNI: 2 });
  assert.deepEqual(written, store.get("10.3.3.0-24"));
  assert.deepEqual(listed[0], other);
  assert.equal(keeper.takeKnown(), undefined);
  assert.equal(registry.calls.filter((call) => call === "list").length, 1);
});

Deno.test("LeaseKeeper.acquire() says when a lease with our address may be another host's", async () => {
  const { options, lines } = setUp();
  const key = (await LeaseKeeper.acquire(options, { signal })).lease.value.key;
  const acquire = async (previous: string) => {
    lines.splice(0);
    const held = await LeaseKeeper.acquire({ ...options, previous: subnet(previous) }, { signal });
    assert.equal(held.lease.value.key, key);
    return lines.filter((line) => line.startsWith("WARN")).join("\n");
  };
  assert.equal(await acquire(key.replace("-", "/")), "");
  const other = ["10.3.2.0/24", "10.3.3.0/24"].find((each) =>
    !each.startsWith(key.split("-")[0]!)
  )!;
  assert.match(await acquire(other), /has the address of this host, 192\.0\.2\.1, but .*--iface/);
});

Deno.test("LeaseKeeper.acquire() leaves a reservation without an end", async () => {
  const { options, store } = setUp();
  store.put("10.3.2.0-24", '{"PublicIP":"192.0.2.1"}');
  const keeper = await LeaseKeeper.acquire(options, { signal });
  assert.equal(store.get("10.3.2.0-24")?.expires, false);
  assert.deepEqual(keeper.state.value, { held: true, expiresAt: undefined });
});

Deno.test("LeaseKeeper.acquire() gives racing hosts different subnets", async () => {
  const store = new MemoryStore();
  const keepers = await Promise.all(
    [1, 2, 3, 4].map((n) => LeaseKeeper.acquire(setUp(`192.0.2.${n}`, store).options, { signal })),
  );
  assert.equal(new Set(keepers.map((keeper) => keeper.lease.value.key)).size, 4);
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
  const won = keepers.filter((keeper) => keeper.lease.value.key === "10.3.4.0-24");
  assert.equal(won.length, 1);
});

Deno.test("LeaseKeeper.acquire() says that all subnets are taken, and waits", async () => {
  const { options, store, lines } = setUp();
  for (let n = 1; n <= 4; n++) store.put(`10.3.${n}.0-24`, value("192.0.2.66"));
  const controller = new AbortController();
  const told = Promise.withResolvers<string>();
  const acquiring = LeaseKeeper.acquire({ ...options, onWaiting: told.resolve }, controller);
  assert.match(await told.promise, /Cannot lease a subnet: 4 of 4 subnets .* are leased; enlarge/);
  assert.match(lines.join(), /^ERROR Cannot lease a subnet: 4 of 4/);
  controller.abort(new Error("stopping"));
  await assert.rejects(acquiring, /stopping/);
});

Deno.test("planAcquire() names leases that take many subnets when none is left", () => {
  const step = (...keys: string[]) =>
    planAcquire({
      network,
      owner: attributes("192.0.2.1"),
      entries: keys.map((key) => entry(key, "192.0.2.66")),
      previous: undefined,
      random: () => 0,
    });
  const whole = step("10.3.0.0-16", "10.4.0.0-16");
  assert.equal(
    whole.action === "wait" && whole.reason,
    "Cannot lease a subnet: 4 of 4 subnets of 10.3.0.0/16 are leased, several of them by " +
      "10.3.0.0-16; enlarge the network, or remove the leases of hosts that are gone",
  );
  const halves = step("10.3.0.0-23", "10.3.2.0-23", "10.3.4.0-23", "10.3.6.0-23");
  assert.match(
    halves.action === "wait" ? halves.reason : halves.action,
    /several of them by 10\.3\.0\.0-23, 10\.3\.2\.0-23, 10\.3\.4\.0-23 and 1 more;/,
  );
});

Deno.test("LeaseKeeper renews before the end, and goes on after failures", async () => {
  const { options, registry, store, time, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  store.advance(23 * 3600);
  time.ms += 23 * 3600_000;
  registry.failNext("renew", {
    error: new StoreError("unavailable", "Cannot reach etcd: refused"),
  });
  keeper.observe({ type: "snapshot", entries: store.entries() }); // nothing to do with it
  keeper.publish(attributes("192.0.2.1")); // nor with this
  keeper.observe({ type: "events", events: [{ type: "delete", key: keeper.lease.value.key }] }); // wakes
  await until(() => store.timeToLive("10.3.1.0-24") === 86_400, "renewed");
  assert.ok(keeper.state.value.held);
  assert.ok(!lines.some((line) => line.includes("lost")));
});

Deno.test("LeaseKeeper renews by whichever clock is further", async () => {
  for (const [wallHours, monotonicHours] of [[23, 0], [-48, 23], [0, 23]] as const) {
    const { options, registry, store, time } = setUp();
    const keeper = await LeaseKeeper.acquire(options, { signal });
    store.advance(23 * 3600);
    time.ms += wallHours * 3600_000;
    time.monotonicMs += monotonicHours * 3600_000;
    await using _ = run(keeper, registry, options);
    await until(() => store.timeToLive("10.3.1.0-24") === 86_400, `${wallHours} h: renewed`);
    assert.ok(keeper.state.value.held);
  }
});

Deno.test("LeaseKeeper spreads renewals, always before the margin", async () => {
  const renewsAfterHours = async (random: number, hours: number) => {
    const { options, registry, store, time } = setUp();
    const keeper = await LeaseKeeper.acquire({ ...options, random: () => random }, { signal });
    store.advance(hours * 3600);
    time.ms += hours * 3600_000;
    await using _ = run(keeper, registry, options);
    await new Promise((resolve) => setTimeout(resolve, 20));
    return store.timeToLive(keeper.lease.value.key) === 86_400;
  };
  assert.equal(await renewsAfterHours(0.999, 22.7), false);
  assert.equal(await renewsAfterHours(0.999, 22.8), true);
  assert.equal(await renewsAfterHours(0, 22.9), false);
  assert.equal(await renewsAfterHours(0, 23), true);
});

Deno.test("LeaseKeeper does not hold a lease that has ended before it could be renewed", async () => {
  const { options, time } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  time.ms += 24 * 3600_000;
  assert.deepEqual(keeper.state.value, {
    held: false,
    loss: "expired",
    message: "the lease has expired and is not renewed yet",
  });
});

Deno.test("LeaseKeeper does not hold a lease that is gone and cannot be written again", async () => {
  const { options, registry, store } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  registry.failNext("create", { error: new StoreError("denied", "no permission") });
  await using _ = run(keeper, registry, options);
  store.delete("10.3.1.0-24");
  await until(() => !keeper.state.value.held, "not held");
  assert.deepEqual(keeper.state.value, {
    held: false,
    loss: "gone",
    message: "10.3.1.0/24 is gone from the store: no permission",
  });
  await until(() => keeper.state.value.held, "held again");
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.1"));
});

Deno.test("LeaseKeeper asks rarely for a lost lease, however long ago it ended", async () => {
  const { options, registry, store, time } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  time.ms += 25 * 3600_000;
  store.advance(25 * 3600); // ended
  store.put("10.3.1.0-24", value("192.0.2.66"), { ttlSeconds: 86_400 });
  const { get } = registry;
  let reads = 0;
  registry.get = (...args) => {
    reads++;
    return get.apply(registry, args);
  };
  await using _ = run(keeper, registry, options);
  await until(() => !keeper.state.value.held && reads > 0, "lost");
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.ok(reads <= 2, `${reads} reads`);
});

Deno.test("LeaseKeeper takes back a revoked lease, the same subnet", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  store.delete("10.3.1.0-24");
  await until(() => store.get("10.3.1.0-24") !== undefined, "taken back");
  await until(() => lines.some((line) => line.includes("taken back")), "said so");
  assert.equal(keeper.lease.value.key, "10.3.1.0-24");
  assert.ok(keeper.state.value.held);
});

Deno.test("LeaseKeeper logs little of a fight over its key, and goes on taking it back", async () => {
  const { registry, store, lines, time, options } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  const { key } = keeper.lease.value;
  const fight = async (rounds: number) => {
    for (let round = 0; round < rounds; round++) {
      store.delete(key);
      await until(() => store.get(key) !== undefined && keeper.state.value.held, "taken back");
    }
  };
  const told = () => lines.filter((line) => /taken back/.test(line));
  await fight(30);
  assert.equal(told().length, 6);
  assert.match(
    told().at(-1)!,
    /taken back; what comes next is not logged, until an hour has passed/,
  );
  time.monotonicMs += 3_600_000;
  await fight(1);
  assert.equal(told().length, 7);
});

Deno.test("LeaseKeeper keeps its subnet and is not held when another host has it, until that goes", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  store.put("10.3.1.0-24", value("192.0.2.66"), { ttlSeconds: 86_400 });
  await until(() => !keeper.state.value.held, "lost");
  assert.deepEqual(keeper.state.value, {
    held: false,
    loss: "taken",
    message: "192.0.2.66 holds 10.3.1.0/24 now",
  });
  assert.equal(keeper.lease.value.key, "10.3.1.0-24");
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.66"), "nothing is stolen");
  assert.match(lines.join("\n"), /ERROR Lease lost: 192\.0\.2\.66 holds 10\.3\.1\.0\/24 now/);
  store.delete("10.3.1.0-24");
  await until(() => keeper.state.value.held, "held again");
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.1"));
});

Deno.test("LeaseKeeper gives up what a backup says is this host's, unless pods may use it", async () => {
  const { options, registry, store, lines } = setUp();
  const mine = { ...attributes("192.0.2.1"), backendData: { VtepMAC: "0a:00:00:00:00:01" } };
  const text = encodeLeaseValue(mine);
  store.put("10.3.2.0-24", text, { ttlSeconds: 86_400 }); // before the daemon starts
  const keeper = await LeaseKeeper.acquire({
    ...options,
    attributes: mine,
    previous: subnet("10.3.1.0/24"),
    addresses: () =>
      Promise.resolve(["192.0.2.1", "10.3.1.1", "10.3.4.1"].map((each) => Address.parse(each))),
  }, { signal });
  assert.equal(keeper.lease.value.key, "10.3.1.0-24", "the host has addresses of it");
  await using _ = run(keeper, registry, options);
  const gone = async (key: string) => {
    await until(() => store.get(key) === undefined, `${key} is given up`);
    assert.match(lines.join("\n"), new RegExp(`given up.*${key}`));
  };
  await gone("10.3.2.0-24");
  store.put("10.3.3.0-24", text, { ttlSeconds: 86_400 }); // while it runs
  await gone("10.3.3.0-24");
  const kept = {
    "10.3.2.0-24": [text, { ttlSeconds: 86_400 }], // somebody needs it
    "10.3.4.0-24": [text, { ttlSeconds: 86_400 }], // with an address of this host
    "10.3.5.0-24": [text, {}], // a reservation
    "10.3.6.0-24": [value("192.0.2.1"), { ttlSeconds: 86_400 }], // of no certain host
    "10.3.7.0-24": [text.replace("01", "02"), { ttlSeconds: 86_400 }], // another one behind the address
    "junk": [text, { ttlSeconds: 86_400 }],
  } as const;
  for (const [key, [value, options]] of Object.entries(kept)) store.put(key, value, options);
  store.put("10.3.8.0-24", text, { ttlSeconds: 86_400 });
  await gone("10.3.8.0-24");
  for (const key of Object.keys(kept)) assert.ok(store.get(key), `${key} is kept`);
  assert.ok(store.get("10.3.1.0-24"));
  assert.equal(lines.filter((line) => /given up/.test(line)).length, 3);
});

Deno.test("LeaseKeeper gives nothing up while its own lease is another host's", async () => {
  const { options, registry, store } = setUp();
  const mine = { ...attributes("192.0.2.1"), backendData: { VtepMAC: "0a:00:00:00:00:01" } };
  const text = encodeLeaseValue(mine);
  const addresses = () => Promise.resolve([Address.parse("192.0.2.1")]);
  const keeper = await LeaseKeeper.acquire({ ...options, attributes: mine, addresses }, { signal });
  await using _ = run(keeper, registry, options);
  assert.equal(keeper.lease.value.key, "10.3.1.0-24");
  store.put("10.3.1.0-24", value("192.0.2.66"), { ttlSeconds: 86_400 });
  await until(() => !keeper.state.value.held, "lost");
  store.put("10.3.2.0-24", text, { ttlSeconds: 86_400 });
  await new Promise((resolve) => setTimeout(resolve, 50));
  assert.ok(store.get("10.3.2.0-24"));
  store.delete("10.3.1.0-24");
  await until(() => keeper.state.value.held, "held again");
  await until(() => store.get("10.3.2.0-24") === undefined, "given up then");
});

Deno.test("LeaseKeeper takes another subnet when told to", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options, "reassign");
  store.put("10.3.1.0-24", value("192.0.2.66"));
  await until(() => keeper.lease.value.key === "10.3.2.0-24", "reassigned");
  assert.ok(keeper.state.value.held);
  assert.equal(store.get("10.3.1.0-24")?.value, value("192.0.2.66"));
  assert.deepEqual(lines.filter((line) => /lost|held again/.test(line)), [
    "ERROR Lease lost: 192.0.2.66 holds 10.3.1.0/24 now; taking another subnet subnet=10.3.1.0/24",
    "WARN  Another subnet was leased in place of the lost one subnet=10.3.2.0/24 lost=10.3.1.0/24",
    "INFO  Lease is held again subnet=10.3.2.0/24",
  ]);
});

Deno.test("LeaseKeeper writes its value again over someone's edit, and publishes a new address", async () => {
  const { options, registry, store } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  store.put("10.3.1.0-24", '{"PublicIP":"192.0.2.1","BackendType":"vxlan"}', { ttlSeconds: 9 });
  await until(() => store.get("10.3.1.0-24")?.value === value("192.0.2.1"), "written again");
  keeper.publish(attributes("192.0.2.77"));
  await until(() => store.get("10.3.1.0-24")?.value === value("192.0.2.77"), "published");
  assert.ok(keeper.state.value.held);
  assert.equal(keeper.lease.value.key, "10.3.1.0-24");
});

Deno.test("LeaseKeeper writes its lease once more when one that shared a subnet of it goes", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire({ ...options, network: dualStack }, { signal });
  await using _ = run(keeper, registry, options);
  const { key } = keeper.lease.value;
  assert.equal(key, "10.3.1.0-24&fd00:3:0:1::-64");
  const before = store.get(key)!;
  for (const other of ["10.3.2.0-24&fd00:3:0:2::-64", "10.3.1.0-24&fd00:3:0:3::-64", "junk"]) {
    store.put(other, value("192.0.2.9"), { ttlSeconds: 60 });
  }
  store.delete("junk");
  store.delete("10.3.2.0-24&fd00:3:0:2::-64");
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.deepEqual(store.get(key), before, "these share nothing");
  store.delete("10.3.1.0-24&fd00:3:0:3::-64");
  await until(() => store.get(key)!.version !== before.version, "written again");
  assert.equal(store.get(key)!.value, before.value);
  await until(() => lines.some((line) => line.includes("shared its subnet is gone")), "said so");
  const { version } = store.get(key)!;
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(store.get(key)!.version, version, "once");

  keeper.observe({
    type: "events",
    events: [{ type: "delete", key: "10.3.1.0-24&fd00:3:0:3::-64" }, {
      type: "put",
      entry: store.get(key)!,
    }],
  });
  keeper.observe({ type: "snapshot", entries: [] });
  await new Promise((resolve) => setTimeout(resolve, 100));
  assert.equal(store.get(key)!.version, version, "not what was written after that end");
});

Deno.test("LeaseKeeper tells of a failing store once, and of its end", async () => {
  const { options, registry, store, lines } = setUp();
  const keeper = await LeaseKeeper.acquire(options, { signal });
  await using _ = run(keeper, registry, options);
  for (let i = 0; i < 2; i++) {
    registry.failNext("get", { error: new StoreError("unavailable", "no leader") });
  }
  store.delete("10.3.1.0-24");
  await until(() => isInTrouble(keeper.state.value, "no leader"), "trouble");
  await until(() => store.get("10.3.1.0-24") !== undefined, "taken back");
  await until(() => lines.some((line) => line.includes("in order again")), "said so");
  assert.equal(lines.filter((line) => line.includes("no leader")).length, 1);
});

Deno.test("LeaseKeeper draws another subnet when asked to, and stays where there is none", async () => {
  const { registry, store, lines, options } = setUp();
  const taken = ["10.3.1.0/24", "10.3.2.0/24"];
  const occupied = () =>
    Promise.resolve(
      new Places(
        taken.map((text) => ({ prefix: Prefix.parse(text), what: `the route entry ${text}` })),
      ),
    );
  const keeper = await LeaseKeeper.acquire({ ...options, occupied }, { signal });
  assert.equal(keeper.lease.value.key, "10.3.3.0-24", "it knew before");
  await using _running = run(keeper, registry, options);
  taken.push("10.3.3.0/24");
  keeper.redraw("the route entry 10.3.3.0/24");
  await until(() => keeper.lease.value.key === "10.3.4.0-24", "another subnet");
  assert.deepEqual(store.entries().map(({ key }) => key), ["10.3.4.0-24"], "the first is free");
  assert.ok(keeper.state.value.held);
  assert.ok(lines.some((line) => /Another subnet was leased.*route entry 10\.3\.3\.0/.test(line)));

  taken.push("10.3.4.0/24");
  keeper.redraw("the route entry 10.3.4.0/24");
  await until(() => lines.some((line) => /Cannot lease a subnet: 1 of 4/.test(line)), "the reason");
  assert.deepEqual(store.entries().map(({ key }) => key), ["10.3.4.0-24"]);
  assert.ok(keeper.state.value.held);
});

Deno.test("LeaseKeeper moves its lease to an added family in one step, at each attempt", async () => {
  const { store, registry, lines, options } = setUp();
  const ipv6 = {
    network: Prefix.parse("fd00:3::/60"),
    subnetLength: 64,
    subnetMin: Address.parse("fd00:3:0:1::"),
    subnetMax: Address.parse("fd00:3:0:4::"),
  };
  store.put("10.3.2.0-24", value("192.0.2.1"), { ttlSeconds: 60 });
  // Another host chooses the same IPv6 subnet while ours is written.
  const rival = "10.3.3.0-24&fd00:3:0:2::-64";
  const move = registry.move.bind(registry);
  registry.move = (...args) => {
    if (!store.get(rival)) store.put(rival, value("192.0.2.9"), { ttlSeconds: 60 });
    return move(...args);
  };
  const keeper = await LeaseKeeper.acquire(
    { ...options, network: { ...network, ipv6 } },
    { signal },
  );
  assert.equal(keeper.lease.value.key, "10.3.2.0-24&fd00:3:0:1::-64");
  assert.deepEqual(store.entries().map(({ key }) => key), [keeper.lease.value.key, rival]);
  assert.equal(lines.filter((line) => /Lease changed/.test(line)).length, 2);
  assert.deepEqual(keeper.takeKnown()?.listed.map(({ key }) => key), [
    keeper.lease.value.key,
    rival,
  ]);
});

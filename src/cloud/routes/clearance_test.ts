import assert from "node:assert/strict";
import {
  MemoryRegistry,
  MemoryStore,
  openMemoryStore,
} from "../../../tests/fakes/memory_registry.ts";
import { readAliVpcClaim } from "../../backends/mod.ts";
import { clusterStore } from "./cluster_store.ts";
import { Orphans } from "./orphans.ts";
import type { CloudRoute } from "./provider.ts";
import { routeMark } from "./route_entry.ts";
import { LeaseMap } from "../../lease/lease_map.ts";
import type { Logger } from "../../log.ts";
import { Prefix } from "../../net/mod.ts";
import { ClaimStore } from "./claim_store.ts";
import { Clearance } from "./clearance.ts";
import { ensureClusterId, OtherClusterError } from "./cluster_identity.ts";
import { findHolder } from "./lease_holders.ts";
import { questionFor, SubnetStatements } from "./subnet_statement.ts";

const NETWORK = Prefix.parse("10.24.0.0/16");
const GRACE_MS = 600_000;
const signal = new AbortController().signal;

function subnet(n: number): string {
  return `10.24.${n}.0/24`;
}

/** A store, a cloud that knows `instances`, and a writer; the entries of `holders` are all ours. */
async function open(
  { holders, instances = [], store = new MemoryStore(), book = holders }: {
    readonly holders: Readonly<Record<number, string>>;
    readonly instances?: string[];
    readonly store?: MemoryStore;
    readonly book?: Readonly<Record<number, string>>;
  },
) {
  const registry = clusterStore(openMemoryStore(new MemoryRegistry(store)), "ali-vpc");
  const clusterId = await ensureClusterId(registry, { signal });
  const clock = { now: 0 };
  const lines: string[] = [];
  const log = { warn: (line: string) => lines.push(line), info: () => {} } as unknown as Logger;
  const claims = new ClaimStore(registry, { log });
  await claims.update({
    claims: new Map(
      Object.entries(book).map((
        [n, instanceId],
      ) => [subnet(Number(n)), { instanceId, publicIp: `192.168.0.${n}` }]),
    ),
    mayLead: () => true,
  }, { signal });
  const leases = new LeaseMap({ network: { ipv4: { network: NETWORK } } as never });
  const orphans = new Orphans({ graceMs: GRACE_MS, now: () => clock.now });
  const asked: string[] = [];
  const ended = new Set<string>();
  const clearance = new Clearance({
    store: registry,
    clusterId,
    book: claims,
    orphans,
    instanceExists: (id) => {
      asked.push(id);
      if (instances.includes("denied")) return Promise.reject(new Error("RAM denies it"));
      return Promise.resolve(instances.includes(id));
    },
    ownInstanceId: "i-me",
    holderOf: (destination) => findHolder(leases, destination, readAliVpcClaim),
    hasEnded: (destination, instanceId) => ended.has(`${destination} ${instanceId}`),
    log,
    now: () => clock.now,
  });
  const routes = Object.entries(holders).map(([n, instanceId]): CloudRoute => ({
    routeTableId: "vtb-1",
    destination: Prefix.parse(subnet(Number(n))),
    instanceId,
    mark: routeMark({ clusterId, network: NETWORK }, instanceId),
    isStatic: true,
    entryId: `rte-${n}`,
  }));
  const look = async (entries = 100) => {
    const strays = routes.filter(({ destination, instanceId }) => {
      const holder = findHolder(leases, destination, readAliVpcClaim);
      return !(holder.is === "host" && holder.instanceId === instanceId);
    });
    orphans.note(
      "vtb-1",
      strays.filter(({ destination }) =>
        findHolder(leases, destination, readAliVpcClaim).is === "nobody"
      ),
    );
    await clearance.look(strays, entries, { signal });
    return Object.fromEntries(
      clearance.report.orphans.map(({ destination, state }) => [destination.toString(), state]),
    );
  };
  const taken = () =>
    routes.filter((route) => clearance.mayTake(route)).map(({ destination }) => `${destination}`);
  const pastGrace = async (entries?: number) => {
    await look(entries);
    clock.now += GRACE_MS;
    return await look(entries);
  };
  return {
    registry,
    leases,
    clearance,
    clock,
    lines,
    asked,
    ended,
    look,
    taken,
    pastGrace,
  };
}

/** A lease as this daemon writes it, or as upstream does. */
function lease(n: number, ip: string, instanceId?: string) {
  const data = instanceId === undefined ? {} : {
    BackendData: {
      InstanceID: instanceId,
      NetworkInterfaceID: "eni-1",
      VpcID: "vpc-1",
      VSwitchID: "vsw-1",
    },
  };
  return {
    key: subnet(n).replace("/", "-"),
    value: JSON.stringify({ PublicIP: ip, ...data }),
    order: "1",
  };
}

Deno.test("an instance that the cloud has keeps its entry for ever, and is told of once", async () => {
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me", "i-a"] });
  assert.deepEqual(await world.look(), { [subnet(1)]: "grace" });
  assert.deepEqual(world.asked, [], "nobody asks before there is need");
  for (let n = 0; n < 100; n++) {
    world.clock.now += GRACE_MS / 10;
    await world.look();
  }
  assert.deepEqual(await world.look(), { [subnet(1)]: "exists" });
  assert.deepEqual(world.taken(), []);
  assert.equal(world.lines.length, 1);
  assert.match(
    world.lines[0]!,
    /Leaves .*10\.24\.1\.0\/24 via i-a: the instance still exists; run "flanneld cleanup --release"/,
  );
  assert(world.asked.length <= 11, `asked ${world.asked.length} times in 100 min`);
});

Deno.test("an instance that the cloud does not know gives its subnet up after the grace", async () => {
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me"] });
  assert.deepEqual(await world.pastGrace(), { [subnet(1)]: "going" });
  assert.deepEqual(world.taken(), [subnet(1)]);
  assert.deepEqual(world.asked, ["i-a", "i-me"], "whose own instance it must know");
  // A lease that comes at the last moment keeps it.
  world.leases.replace([lease(1, "192.168.0.1", "i-a")]);
  assert.deepEqual(world.taken(), []);
});

Deno.test("a cloud that cannot be asked, or knows nobody, proves nothing", async () => {
  for (const instances of [["denied"], []]) {
    const world = await open({ holders: { 1: "i-a" }, instances });
    assert.deepEqual(await world.pastGrace(), { [subnet(1)]: "unknown" });
    assert.deepEqual(world.taken(), []);
    await world.look();
    assert.match(world.lines.join(), /cannot be found out \((RAM denies it|it does not know i-me)/);
  }
});

Deno.test("what the store's book does not know stays, whatever the cloud says", async () => {
  const cases = [{}, { 1: "i-b" }];
  for (const book of cases) {
    const world = await open({ holders: { 1: "i-a" }, instances: ["i-me"], book });
    assert.deepEqual(await world.pastGrace(), { [subnet(1)]: "foreign" });
    assert.deepEqual(world.taken(), []);
    assert.deepEqual(world.asked, []);
  }
});

Deno.test("a store that loses its keys within a leader's term proves nothing", async () => {
  const store = new MemoryStore();
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me"], store });
  await world.look();
  for (const space of Array.from({ length: 16 }, (_, n) => `claims-${n}`)) {
    for (const document of await world.registry.documents(space).list({ signal })) {
      await world.registry.documents(space).remove(document, { signal });
    }
  }
  assert.deepEqual(await world.pastGrace(), { [subnet(1)]: "foreign" });
  const space = world.registry.documents("");
  await space.remove((await space.get("cluster", { signal }))!, { signal });
  await assert.rejects(() => world.look(), OtherClusterError);
  await ensureClusterId(world.registry, { signal });
  await assert.rejects(() => world.look(), OtherClusterError);
  assert.deepEqual(world.taken(), []);
});

Deno.test("keys that overlap the subnet keep its entry, junk or not", async () => {
  const keys = [
    { key: "10.24.0.0-20", value: '{"PublicIP":"192.168.0.9"}' },
    { key: "10.24.1.0-24", value: "junk" },
    { key: "10.24.1.7-24", value: "{}" },
    { key: "10.24.1.0-25", value: '{"PublicIP":"192.168.0.9"}' },
    { key: "x10.24.1.0-24", value: "" },
    { key: "10.24.0.0_16", value: "" },
  ];
  for (const { key, value } of keys) {
    const world = await open({ holders: { 1: "i-a" }, instances: ["i-me"] });
    world.leases.replace([{ key, value, order: "1" }]);
    assert.deepEqual(await world.pastGrace(), {}, key);
    assert.deepEqual(world.taken(), [], key);
  }
});

Deno.test("a host that states another subnet gives the former up, in the term of the question alone", async () => {
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me", "i-a"] });
  world.leases.replace([lease(2, "192.168.0.1", "i-a")]);
  assert.deepEqual(await world.pastGrace(), { [subnet(1)]: "exists" }, "a lease may be an old one");
  const statements = world.registry.documents("statements");
  const stale = JSON.stringify({ ask: "an older question", subnet: subnet(2) });
  await statements.create("i-a", stale, { signal });
  assert.deepEqual(await world.look(), { [subnet(1)]: "exists" });

  const stop = new AbortController();
  const summary = () => ({ ...world.clearance.report }) as never;
  const answering = new SubnetStatements({
    store: world.registry,
    instanceId: "i-a",
    subnet: () => Prefix.parse(subnet(2)),
    summary,
    log: { debug: () => {} } as unknown as Logger,
  }).run({ signal: stop.signal });
  await new Promise((resolve) => setTimeout(resolve, 10));
  assert.deepEqual(await world.look(), { [subnet(1)]: "going" });
  assert.deepEqual(world.taken(), [subnet(1)]);
  stop.abort(new Error("stop"));
  await assert.rejects(answering, /stop/);
  // Without the lease that it speaks of it may be anybody's.
  world.leases.replace([]);
  assert.deepEqual(await world.look(), { [subnet(1)]: "exists" });
});

Deno.test("an answer that was given before the store was read anew is none any more", async () => {
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me", "i-a"] });
  world.leases.replace([lease(2, "192.168.0.1", "i-a")]);
  await world.pastGrace();
  const answer = JSON.stringify({ ask: world.clearance.report.ask, subnet: subnet(2) });
  await world.registry.documents("statements").create("i-a", answer, { signal });
  assert.deepEqual(await world.look(), { [subnet(1)]: "going" });
  world.clearance.askAnew();
  assert.deepEqual(world.taken(), []);
  assert.deepEqual(await world.look(), { [subnet(1)]: "exists" });
});

Deno.test("questionFor() asks only hosts that have another subnet", () => {
  const orphan = {
    routeTableId: "vtb-1",
    destination: Prefix.parse(subnet(1)),
    instanceId: "i-a",
    ageMs: 0,
  };
  const summary = { ask: "q", orphans: [orphan] } as never;
  assert.equal(questionFor(summary, "i-a", Prefix.parse(subnet(2))), "q");
  assert.equal(questionFor(summary, "i-a", Prefix.parse("10.24.0.0/20")), undefined);
  assert.equal(questionFor(summary, "i-b", Prefix.parse(subnet(2))), undefined);
  assert.equal(questionFor(summary, "i-a", undefined), undefined);
  assert.equal(questionFor(undefined, "i-a", Prefix.parse(subnet(2))), undefined);
});

Deno.test("another host's lease of the subnet ends the grace, but needs as much proof", async () => {
  for (const upstream of [true, false]) {
    const other = lease(1, "192.168.0.77", upstream ? undefined : "i-b");
    const running = await open({ holders: { 1: "i-a" }, instances: ["i-me", "i-a"] });
    running.leases.replace([other]);
    assert.deepEqual(await running.look(), { [subnet(1)]: "exists" });
    assert.deepEqual(running.taken(), []);
    // Its own lease ran out before, and was seen to.
    running.ended.add(`${subnet(1)} i-a`);
    assert.deepEqual(await running.look(), { [subnet(1)]: "going" });
    assert.deepEqual(running.taken(), [subnet(1)]);

    const gone = await open({ holders: { 1: "i-a" }, instances: ["i-me"] });
    gone.leases.replace([other]);
    assert.deepEqual(await gone.look(), { [subnet(1)]: "going" });
  }
});

Deno.test("a host that goes back to upstream's daemon keeps the entry that leads to it", async () => {
  const world = await open({ holders: { 1: "i-a" }, instances: ["i-me", "i-a"] });
  world.ended.add(`${subnet(1)} i-a`);
  world.leases.replace([lease(1, "192.168.0.1")]);
  for (let n = 0; n < 3; n++) assert.deepEqual(await world.look(), {}, "nothing to be told");
  assert.deepEqual(world.taken(), []);
  assert.deepEqual(world.lines, []);
  // Another instance may have its address, and need the place.
  const gone = await open({ holders: { 1: "i-a" }, instances: ["i-me"] });
  gone.leases.replace([lease(1, "192.168.0.1")]);
  await gone.look();
  assert.deepEqual(gone.taken(), [subnet(1)]);
});

Deno.test("many removals wait for an operator's approval, which is good for those that were shown", async () => {
  const holders = Object.fromEntries(Array.from({ length: 28 }, (_, n) => [n, `i-${n}`]));
  const store = new MemoryStore();
  const { 27: _, ...first } = holders;
  const world = await open({ holders: first, book: holders, instances: ["i-me"], store });
  await world.pastGrace();
  assert.deepEqual(world.taken(), [], "not before all instances were asked for");
  const states = await world.look();
  assert.deepEqual(new Set(Object.values(states)), new Set(["held"]));
  assert.deepEqual(world.taken(), []);
  const { brake } = world.clearance.report;
  assert.equal(brake!.routes.length, 27);
  const said = world.lines.filter((line) => /etcdctl put/.test(line));
  assert.match(
    said.at(-1)!,
    /^Removals of route entries wait for an operator's approval, .* and 22 more\. .*, let them go: etcdctl put \/coreos\.com\/network\/ali-vpc\/approval\/removals [0-9a-f]{16}$/,
  );
  // Another writer comes, and one more host has gone.
  const next = await open({ holders, book: holders, instances: ["i-me"], store });
  next.clearance.seed(brake);
  await next.pastGrace();
  await next.look();
  assert.deepEqual(next.taken(), []);
  const approval = next.registry.documents("approval");
  await approval.create("removals", "some other word", { signal });
  await next.look();
  assert.deepEqual(next.taken(), []);
  const wrong = (await approval.get("removals", { signal }))!;
  await approval.update(wrong, `${brake!.token}\n`, { signal });
  await next.look();
  assert.deepEqual(next.taken(), Object.keys(first).map((n) => subnet(Number(n))));
  assert.equal(await approval.get("removals", { signal }), undefined, "a word is good once");
  assert.equal(next.clearance.report.brake!.routes.length, 1);
  await next.look();
  assert.equal(next.taken().length, 28, "few go without a word, and those allowed do not count");
});

Deno.test("no change of the writer loses count of what was removed within the hour", async () => {
  const store = new MemoryStore();
  for (let n = 0; n < 7; n++) {
    const world = await open({ holders: { [n]: `i-${n}` }, instances: ["i-me"], store });
    await world.pastGrace(100);
    assert.equal(world.taken().length, n < 5 ? 1 : 0, `${n}`);
  }
  const small = new MemoryStore();
  for (let n = 0; n < 3; n++) {
    const world = await open({ holders: { [n]: `i-${n}` }, instances: ["i-me"], store: small });
    await world.pastGrace(12);
    assert.equal(world.taken().length, n < 2 ? 1 : 0, `${n} of a dozen`);
  }
});

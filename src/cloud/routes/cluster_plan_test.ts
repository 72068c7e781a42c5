import assert from "node:assert/strict";
import fc from "fast-check";
import { Prefix } from "../../net/mod.ts";
import { type ClusterClaim, type ClusterInputs, planCluster } from "./cluster_plan.ts";
import {
  type ClusterState,
  encodeHosts,
  encodeSummary,
  HOST_SHARDS,
  type HostStatus,
  parseHosts,
  parseSummary,
  shardOf,
} from "./cluster_state.ts";
import type { CloudRoute, RouteWords } from "./provider.ts";
import { keyOf } from "./route_entry.ts";
import type { TableView } from "./route_view.ts";

function claim(n: number): ClusterClaim {
  return {
    key: `10.24.${n}.0-24`,
    destination: Prefix.parse(`10.24.${n}.0/24`),
    instanceId: `i-${n}`,
    networkInterfaceId: `eni-${n}`,
  };
}

function entry(n: number, options: Partial<CloudRoute> = {}): CloudRoute {
  return {
    routeTableId: "vtb-1",
    destination: Prefix.parse(`10.24.${n}.0/24`),
    instanceId: `i-${n}`,
    entryId: `rte-${n}`,
    mark: `flanneld/c0ffee0123456789/10.24.0.0/16/i-${n}`,
    state: "ready",
    isStatic: true,
    ...options,
  };
}

interface World {
  readonly claims?: readonly number[];
  readonly entries?: readonly CloudRoute[];
  readonly tables?: Readonly<Record<string, TableView>>;
  readonly failures?: Readonly<Record<string, string>>;
}

function plan(world: World, options: Partial<ClusterInputs> = {}) {
  const { claims = [], entries = [], tables = { "vtb-1": { used: entries.length } } } = world;
  return planCluster({
    claims: claims.map(claim),
    routeTableIds: Object.keys(tables),
    view: {
      entries: new Map(entries.map((each) => [keyOf(each), each])),
      failures: new Map(Object.entries(world.failures ?? {})),
      tables: new Map(Object.entries(tables)),
    },
    owns: (each) => each.mark?.startsWith("flanneld/c0ffee0123456789/10.24.0.0/16/") ?? false,
    strays: { orphans: [] },
    isCheckOff: () => true,
    former: undefined,
    api: { words: { raiseQuota: "raise the quota of routes" } as RouteWords },
    overflow: "vxlan",
    vtepLingers: false,
    now: 0,
    term: "7",
    writer: "i-1",
    ...options,
  });
}

function states({ state }: { readonly state: ClusterState }): Record<string, string> {
  return Object.fromEntries([...state.hosts].map(([key, host]) => [key.split(".")[2], host.state]));
}

function wanted({ routes }: ReturnType<typeof plan>): string[] {
  return routes.map((route) => `${route.routeTableId} ${route.destination} ${route.instanceId}`);
}

Deno.test("planCluster() keeps to what was seen of a check until it is looked at again", () => {
  const world = { claims: [1, 2], entries: [entry(1), entry(2)] };
  const { state: former } = plan(world, { isCheckOff: (id) => id === "eni-1" });
  const checks = (isCheckOff: ClusterInputs["isCheckOff"], options: Partial<ClusterInputs> = {}) =>
    [...plan(world, { former, isCheckOff, ...options }).state.hosts.values()]
      .map(({ checkOff }) => checkOff);
  assert.deepEqual(checks(() => undefined), [true, false]);
  assert.deepEqual(checks(() => undefined, { former: undefined }), [false, false]);
  assert.deepEqual(checks((id) => id === "eni-2"), [false, true]);
});

Deno.test("planCluster() gives every host a place in every table while there is room", () => {
  const answer = plan({ claims: [1, 2], tables: { "vtb-1": { used: 0 }, "vtb-2": { used: 9 } } });
  assert.deepEqual(wanted(answer), [
    "vtb-1 10.24.1.0/24 i-1",
    "vtb-2 10.24.1.0/24 i-1",
    "vtb-1 10.24.2.0/24 i-2",
    "vtb-2 10.24.2.0/24 i-2",
  ]);
  assert.deepEqual(states(answer), { 1: "pending", 2: "pending" });
  assert.equal(answer.state.summary.vtep, false);
});

Deno.test("planCluster() counts a host as routed when each table leads to it", () => {
  const tables = { "vtb-1": { used: 2 }, "vtb-2": { used: 1 } };
  const entries = [entry(1), entry(1, { routeTableId: "vtb-2" }), entry(2, { state: "pending" })];
  assert.deepEqual(states(plan({ claims: [1, 2], entries, tables })), {
    1: "routed",
    2: "pending",
  });
});

Deno.test("planCluster() does not take a host for lost while its entry is renamed", () => {
  const before = plan({ claims: [1], entries: [entry(1, { mark: "" })] });
  const after = plan({ claims: [1], entries: [entry(1, { state: "changing" })] }, {
    former: before.state,
  });
  assert.deepEqual(states(after), { 1: "routed" });
});

Deno.test("planCluster() takes an entry that leads right for right, whoever made it", () => {
  const answer = plan({ claims: [1], entries: [entry(1, { mark: "by hand" })] });
  assert.deepEqual(states(answer), { 1: "routed" });
});

Deno.test("planCluster() names a foreign entry, and does not tunnel around it", () => {
  const entries = [entry(1, { mark: "theirs", instanceId: "i-9" })];
  const { state, routes } = plan({ claims: [1], entries });
  assert.deepEqual(routes, []);
  const host = state.hosts.get("10.24.1.0-24")!;
  assert.equal(host.state, "unrouted");
  assert.match(host.reason!, /10\.24\.1\.0\/24 via i-9 in vtb-1 .*stands in its place/);
});

Deno.test("planCluster() keeps to the quota: who has a place keeps it, the others overflow", () => {
  const answer = plan(
    { claims: [1, 2, 3, 4], entries: [entry(3), entry(4, { instanceId: "i-old" })] },
    { routeQuota: 3 },
  );
  assert.deepEqual(states(answer), { 1: "pending", 2: "overflow", 3: "routed", 4: "pending" });
  assert.deepEqual(wanted(answer), [
    "vtb-1 10.24.1.0/24 i-1",
    "vtb-1 10.24.3.0/24 i-3",
    "vtb-1 10.24.4.0/24 i-4",
  ]);
  assert.deepEqual(answer.state.summary.overflow, ["10.24.2.0-24"]);
  assert.equal(answer.state.summary.vtep, true);
  assert.deepEqual(answer.state.summary.tables, [{
    id: "vtb-1",
    used: 2,
    limit: 3,
    trouble: undefined,
  }]);
});

Deno.test("planCluster() says what to do where there is neither room nor a tunnel", () => {
  const { state } = plan({ claims: [1], tables: { "vtb-1": { used: 200 } } }, {
    overflow: "none",
    routeQuota: 200,
  });
  assert.deepEqual(state.hosts.get("10.24.1.0-24"), {
    instanceId: "i-1",
    state: "unrouted",
    reason: "route table vtb-1 is full (200 of 200); raise the quota " +
      'of routes or set Backend.Overflow to "vxlan"',
    checkOff: true,
  });
});

Deno.test("planCluster() learns the quota from a refusal, and lets one host try again later", () => {
  const tables = { "vtb-1": { used: 48, full: { used: 48, at: 1_000 } } };
  const early = plan({ claims: [1, 2], tables }, { now: 60_000 });
  assert.deepEqual(states(early), { 1: "overflow", 2: "overflow" });
  assert.deepEqual(wanted(early), []);
  const late = plan({ claims: [1, 2], tables }, { now: 301_000, former: early.state });
  assert.deepEqual(wanted(late), ["vtb-1 10.24.1.0/24 i-1"]);
  assert.deepEqual(states(late), { 1: "overflow", 2: "overflow" }, "reached as before meanwhile");
});

Deno.test("planCluster() gives free places to those that have waited longest", () => {
  const full = plan({ claims: [5], tables: { "vtb-1": { used: 3 } } }, { routeQuota: 3 });
  const later = plan({ claims: [2, 5], tables: { "vtb-1": { used: 3 } } }, {
    routeQuota: 3,
    former: full.state,
  });
  assert.deepEqual(later.state.summary.overflow, ["10.24.5.0-24", "10.24.2.0-24"]);
  const freed = plan({ claims: [2, 5], tables: { "vtb-1": { used: 2 } } }, {
    routeQuota: 3,
    former: later.state,
  });
  assert.deepEqual(wanted(freed), ["vtb-1 10.24.5.0/24 i-5"]);
  assert.deepEqual(freed.state.summary.overflow, ["10.24.5.0-24", "10.24.2.0-24"]);
  const promoted = plan({
    claims: [2, 5],
    entries: [entry(5)],
    tables: { "vtb-1": { used: 3 } },
  }, { routeQuota: 3, former: freed.state });
  assert.deepEqual(states(promoted), { 2: "overflow", 5: "routed" });
});

Deno.test("planCluster() gives a host whose entry was deleted its place back first", () => {
  const before = plan({ claims: [1, 9], entries: [entry(9)], tables: { "vtb-1": { used: 2 } } }, {
    routeQuota: 2,
  });
  assert.deepEqual(states(before), { 1: "overflow", 9: "routed" });
  const after = plan({ claims: [1, 9], tables: { "vtb-1": { used: 1 } } }, {
    routeQuota: 2,
    former: before.state,
  });
  assert.deepEqual(wanted(after), ["vtb-1 10.24.9.0/24 i-9"]);
});

Deno.test("planCluster() works with the tables it can read, and takes others to be as they were", () => {
  const tables = { "vtb-1": { used: 1 }, "vtb-2": { error: "Forbidden" } };
  const fresh = plan({ claims: [1, 2], entries: [entry(1)], tables });
  assert.deepEqual(states(fresh), { 1: "pending", 2: "pending" });
  assert.deepEqual(wanted(fresh), ["vtb-1 10.24.1.0/24 i-1", "vtb-1 10.24.2.0/24 i-2"]);
  const [, unread] = fresh.state.summary.tables;
  assert.deepEqual([unread?.id, unread?.used, unread?.trouble], ["vtb-2", undefined, "Forbidden"]);
  const hosts = new Map(fresh.state.hosts)
    .set("10.24.1.0-24", { instanceId: "i-1", state: "routed", checkOff: true });
  const later = plan({ claims: [1, 2], entries: [entry(1)], tables }, {
    former: { ...fresh.state, hosts },
  });
  assert.deepEqual(states(later), { 1: "routed", 2: "pending" });
});

Deno.test("planCluster() never gives away more than there is, nor takes a place from anyone", () => {
  const numbers = fc.uniqueArray(fc.integer({ min: 0, max: 40 }), { maxLength: 25 });
  fc.assert(
    fc.property(numbers, numbers, fc.integer({ min: 0, max: 30 }), fc.boolean(), (
      claims,
      present,
      routeQuota,
      tunnels,
    ) => {
      const entries = present.map((n) => entry(n));
      const inputs = { routeQuota, overflow: tunnels ? "vxlan" : "none" } as const;
      const answer = plan({ claims, entries }, inputs);
      const routed = new Set(wanted(answer));
      for (const n of claims) {
        const isPresent = present.includes(n);
        if (isPresent) assert(routed.has(`vtb-1 10.24.${n}.0/24 i-${n}`));
        const state = states(answer)[n];
        if (isPresent) assert.equal(state, "routed");
        else assert.equal(state === "pending", routed.has(`vtb-1 10.24.${n}.0/24 i-${n}`));
      }
      const added = claims.filter((n) => !present.includes(n) && states(answer)[n] === "pending");
      assert(added.length <= Math.max(0, routeQuota - present.length));
      // What is published, published again: the same.
      const again = plan({ claims, entries }, { ...inputs, former: answer.state });
      assert.deepEqual(again.state, answer.state);
    }),
  );
});

Deno.test("what is published can be read back, and garbage cannot", () => {
  const { state } = plan({ claims: [1, 2, 3], tables: { "vtb-1": { used: 2 } } }, {
    routeQuota: 3,
    cluster: "c0ffee0123456789",
    strays: {
      orphans: [{
        routeTableId: "vtb-1",
        destination: Prefix.parse("10.24.8.0/24"),
        instanceId: "i-8",
        state: "exists",
        ageMs: 450_000,
      }],
      ask: "abc",
      brake: { token: "123", routes: ["10.24.8.0/24 via i-8"] },
    },
    trouble: "the service is silent",
  });
  const summary = parseSummary(encodeSummary(state.summary));
  assert.equal(encodeSummary(summary), encodeSummary(state.summary));
  assert.deepEqual(summary.overflow, state.summary.overflow);
  assert(summary.orphans[0]!.destination.equals(Prefix.parse("10.24.8.0/24")));
  assert.equal(summary.orphans[0]!.ageMs, 450_000);
  const { term, hosts } = parseHosts(encodeHosts("7", state.hosts));
  assert.equal(term, "7");
  assert.deepEqual(hosts, state.hosts);
  for (const text of ["", "{}", "[]", '{"term":"1","hosts":{"a":{"state":"routed"}}}', "null"]) {
    assert.throws(() => parseHosts(text), /Cannot read a document of hosts/);
    assert.throws(() => parseSummary(text), /Cannot read the summary/);
  }
});

Deno.test("what a former release has published is read, and its orphans are waited for anew", () => {
  const rest = '"term":"1","writer":"i-1","tables":[],"overflow":[],"vtep":false';
  for (const sinceMs of ["1e300", "-1e999", "0", "1700000000000"]) {
    const orphan = `{"routeTableId":"vtb-1","destination":"10.24.8.0/24","sinceMs":${sinceMs}}`;
    const { orphans: [read] } = parseSummary(`{${rest},"orphans":[${orphan}]}`);
    assert.equal(read!.ageMs, 0);
    assert.equal(read!.instanceId, undefined);
  }
  for (const ageSeconds of ["1e300", "-1", "1e999", "0.5", '"1"', "86401"]) {
    const orphan =
      `{"routeTableId":"vtb-1","destination":"10.24.8.0/24","ageSeconds":${ageSeconds}}`;
    assert.throws(() => parseSummary(`{${rest},"orphans":[${orphan}]}`), /Cannot read the summary/);
  }
});

Deno.test("no reason is so long that hosts cannot read what is published", () => {
  const long = "x".repeat(10_000);
  const { state: { summary, hosts } } = plan(
    { claims: [1], tables: { "vtb-1": { error: long } }, failures: {} },
    { trouble: long },
  );
  const read = parseSummary(encodeSummary(summary));
  assert.deepEqual([read.trouble?.length, read.tables[0]?.trouble?.length], [2_000, 2_000]);
  const [[key, host]] = [...hosts] as [[string, HostStatus]];
  const { hosts: readHosts } = parseHosts(encodeHosts("7", [[key, { ...host, reason: long }]]));
  assert.equal(readHosts.get(key)?.reason, `${long.slice(0, 1_999)}…`);
});

Deno.test("leases are spread over the shards", () => {
  const counts = new Array<number>(HOST_SHARDS).fill(0);
  for (let n = 0; n < 256; n++) {
    for (const m of [1, 2, 3, 4]) counts[shardOf(`10.${m}.${n}.0-24`)]!++;
  }
  assert(Math.max(...counts) < 2 * 1024 / HOST_SHARDS, String(counts));
});

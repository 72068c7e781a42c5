import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import { formatChange } from "../../reconcile/diff.ts";
import { diff } from "../../../tests/support/diff.ts";
import type { CloudRouteSpec } from "../../state/mod.ts";
import type { CloudRoute } from "./provider.ts";
import {
  Claims,
  type ClusterOwner,
  formatCloudRoute,
  type HostOwner,
  isOurs,
  isStale,
  makerOf,
  type Owner,
  routeEntryKind,
  routeMark,
  stepAway,
  stepTowards,
} from "./route_entry.ts";

const network = Prefix.parse("10.24.0.0/16");
const mark = { clusterId: "c0ffee0123456789", network };
const owner: HostOwner = {
  mark,
  released: [],
  routeTableIds: new Set(["vtb-1"]),
  instanceId: "i-me",
  claims: new Claims([{ destination: Prefix.parse("10.24.7.0/24"), instanceId: "i-me" }]),
  acceptUnmarked: false,
};
const NAME = routeMark(mark, "i-me");
const desired: CloudRouteSpec = {
  routeTableId: "vtb-1",
  destination: Prefix.parse("10.24.7.0/24"),
  instanceId: "i-me",
};

/** A ready static entry of our subnet, ours unless `change` says otherwise. */
function entry(
  change: Partial<Omit<CloudRoute, "destination">> & { destination?: string } = {},
): CloudRoute {
  return {
    entryId: "rte-1",
    routeTableId: "vtb-1",
    instanceId: "i-me",
    state: "ready",
    isStatic: true,
    mark: NAME,
    ...change,
    destination: Prefix.parse(change.destination ?? "10.24.7.0/24"),
  };
}

/** What one round would do about a table with these entries. */
function planned(entries: readonly ReturnType<typeof entry>[], as: Owner = owner): string[] {
  const kind = routeEntryKind(() => as);
  const { writes, removals, conflicts } = diff(kind, [desired], entries);
  return [
    ...[...writes, ...removals].map((change) => formatChange(kind, change)),
    ...conflicts.map(({ actual }) => `conflict ${formatCloudRoute(actual)}`),
  ];
}

const ADD = "add route entry 10.24.7.0/24 via i-me in vtb-1";
const REPLACE = ADD.replace("add", "replace");

Deno.test("routeMark() is short enough and says whose the entry is", () => {
  assert.equal(NAME, "flanneld/c0ffee0123456789/10.24.0.0/16/i-me");
  const longest = routeMark(
    { clusterId: "x".repeat(32), network: Prefix.parse("255.255.255.0/24") },
    `i-${"x".repeat(64)}`,
  );
  assert(longest.length <= 128);
});

Deno.test("a right entry is left alone, whatever its name", () => {
  assert.deepEqual(planned([entry()]), []);
  assert.deepEqual(planned([entry({ mark: "the operator's own" })]), []);
});

Deno.test("a missing, pending or nameless entry is written", () => {
  assert.deepEqual(planned([]), [ADD]);
  assert.deepEqual(planned([entry({ state: "pending", status: "Pending" })]), [REPLACE]);
  assert.deepEqual(planned([entry({ mark: "" })]), [REPLACE], "upstream's entry is adopted");
  assert.deepEqual(planned([entry({ mark: "" })], { ...owner, acceptUnmarked: true }), []);
});

Deno.test("makerOf() tells this cluster's mark, the old one and others'", () => {
  const names: Record<string, string | undefined> = {
    [NAME]: "ours",
    "flanneld/c0ffee0123456789/10.24.0.0/16/": "ours",
    "flanneld/10.24.0.0/16/i-me": "old",
    "flanneld/0123456789abcdef/10.24.0.0/16/i-me": "other",
    "flanneld/c0ffee0123456789/10.24.0.0/17/i-me": undefined,
    "flanneld/10.25.0.0/16/i-me": undefined,
    "flanneld/": undefined,
    "": undefined,
    "x flanneld/10.24.0.0/16/i-me": undefined,
  };
  for (const [name, whose] of Object.entries(names)) {
    assert.equal(makerOf(entry({ mark: name }), mark), whose, name);
  }
  // A store without an id calls nothing its own, whatever id an entry has.
  const none = { clusterId: undefined, network };
  assert.equal(makerOf(entry({ mark: routeMark(none, "i-me") }), none), "other");
});

Deno.test("our own entry is led back, and nobody else's is led here", () => {
  assert.deepEqual(planned([entry({ instanceId: "i-console" })]), [
    REPLACE,
  ]);
  const former = {
    mark: routeMark(mark, "i-old"),
    instanceId: "i-old",
  };
  assert.match(planned([entry(former)]).join(), /^conflict /, "whose pods may run");
});

Deno.test("an entry that leads here is named, except where others may look for its name", () => {
  assert.deepEqual(planned([entry({ mark: "flanneld/10.24.0.0/16/i-me" })]), [REPLACE]);
  assert.deepEqual(planned([entry({ mark: "flanneld/10.24.0.0/16/i-old" })]), [REPLACE]);
  assert.deepEqual(planned([entry({ mark: routeMark(mark, "i-old") })]), [REPLACE]);
  assert.deepEqual(
    planned([entry({ mark: "flanneld/0123456789abcdef/10.24.0.0/16/i-me" })]),
    [],
  );
});

Deno.test("what is not ours is a conflict where it stands in the way", () => {
  const foreign: Parameters<typeof entry>[0][] = [
    { mark: "", instanceId: "i-other" },
    { mark: "flanneld/10.24.0.0/16/i-other", instanceId: "i-other" },
    { mark: "flanneld/10.99.0.0/16/i-other", instanceId: "i-other" },
    { mark: "x", instanceId: "", hops: ["vpn-1"] },
    { instanceId: "", hops: ["ri-1", "ri-2"] },
    { managedBy: "TR" },
    { isStatic: false, type: "System", instanceId: "", hops: ["local"], mark: "" },
    { isStatic: false, type: "CEN", instanceId: "", hops: ["tr-1"], mark: "" },
    { instanceId: "", hops: [] },
  ];
  for (const change of foreign) {
    const lines = planned([entry(change)]);
    assert.equal(lines.length, 1);
    assert.match(lines[0]!, /^conflict /, Deno.inspect(change));
  }
  assert.match(
    planned([entry({ mark: "vpn", instanceId: "", hops: ["vpn-1"] })])[0]!,
    /10\.24\.7\.0\/24 via vpn-1 in vtb-1 \(rte-1, "vpn"\)/,
  );
});

Deno.test("only marked entries that lead here are removed", () => {
  const kept: Parameters<typeof entry>[0][] = [
    { destination: "0.0.0.0/0", mark: "" },
    { destination: "0.0.0.0/0", mark: NAME },
    { destination: "10.24.9.0/24", mark: "" },
    { destination: "10.24.9.0/24", mark: "to me, by hand" },
    { destination: "10.24.9.0/24", instanceId: "i-console" },
    {
      destination: "10.24.9.0/24",
      mark: routeMark(mark, "i-old"),
      instanceId: "i-old",
    },
    { destination: "10.24.9.0/24", managedBy: "TR" },
    { destination: "10.24.9.0/24", isStatic: false, type: "System" },
    { destination: "10.24.9.0/24", mark: "flanneld/10.24.0.0/16x/i-me" },
    { destination: "10.24.9.0/24", mark: "flanneld/10.25.0.0/16/i-me" },
    { destination: "10.24.9.0/24", mark: "flanneld/10.24.0.0/16/i-me" },
    { destination: "10.24.9.0/24", mark: "flanneld/0123456789abcdef/10.24.0.0/16/i-me" },
    { routeTableId: "vtb-2" },
  ];
  for (const change of kept) {
    assert.deepEqual(
      planned([entry(), entry({ ...change, entryId: "rte-2" })]),
      [],
      Deno.inspect(change),
    );
  }
  assert.deepEqual(planned([entry(), entry({ destination: "10.24.9.0/24", entryId: "rte-2" })]), [
    `remove route entry 10.24.9.0/24 via i-me in vtb-1 (rte-2, "${NAME}")`,
  ]);
});

Deno.test("stepTowards() waits for what is between two states, and touches nothing foreign", () => {
  const step = (actual: ReturnType<typeof entry> | undefined) =>
    stepTowards(desired, actual, owner).do;
  assert.equal(step(undefined), "create");
  assert.equal(step(entry()), "done");
  assert.equal(step(entry({ state: "pending" })), "wait");
  assert.equal(step(entry({ state: "changing" })), "wait");
  assert.equal(step(entry({ mark: "" })), "rename");
  assert.equal(step(entry({ instanceId: "i-console" })), "repoint");
  assert.equal(step(entry({ mark: "by hand" })), "done");
  assert.equal(step(entry({ mark: "", instanceId: "i-x" })), "conflict");
  assert.equal(
    step(entry({ mark: "", state: "pending", instanceId: "i-x" })),
    "conflict",
  );
});

Deno.test("stepAway() deletes only what is still ours and leads here", () => {
  assert.equal(stepAway(undefined, owner).do, "done");
  const stale = { destination: "10.24.9.0/24" };
  assert.equal(stepAway(entry(stale), owner).do, "delete");
  assert.equal(stepAway(entry({ ...stale, state: "changing" }), owner).do, "wait");
  assert.equal(stepAway(entry({ instanceId: "i-x" }), owner).do, "done");
  assert.equal(
    stepAway(entry({ mark: "taken over", destination: "10.24.9.0/24" }), owner).do,
    "done",
  );
});

Deno.test("a host that leaves takes what leads to it from the subnets that it gives back", () => {
  const leaving: HostOwner = {
    ...owner,
    claims: new Claims([]),
    released: [Prefix.parse("10.24.7.0/24")],
  };
  const step = (change: Parameters<typeof entry>[0]) => stepAway(entry(change), leaving).do;
  assert.equal(step({}), "delete");
  assert.equal(step({ destination: "10.24.9.0/24" }), "delete");
  assert.equal(step({ mark: "flanneld/10.24.0.0/16/i-me" }), "delete");
  assert.equal(step({ mark: "flanneld/0123456789abcdef/10.24.0.0/16/i-me" }), "delete");
  assert.equal(step({ mark: "flanneld/10.24.0.0/16/i-me", instanceId: "i-other" }), "done");
  assert.equal(step({ mark: "flanneld/10.24.0.0/16/i-me", destination: "10.24.9.0/24" }), "done");
  assert.equal(step({ mark: "" }), "done");
  assert.equal(step({ mark: "by hand" }), "done");
  const idless = { ...leaving, mark: { clusterId: undefined, network } };
  assert.equal(stepAway(entry({ destination: "10.24.9.0/24" }), idless).do, "done");
});

const NAME_B = routeMark(mark, "i-b");
/** What there is proof of that nobody uses it. */
const proved = new Set(["i-gone 10.24.7.0/24", "i-gone 10.24.99.0/24"]);
const cluster: ClusterOwner = {
  mark,
  claims: new Claims([
    { destination: Prefix.parse("10.24.7.0/24"), instanceId: "i-me" },
    { destination: Prefix.parse("10.24.8.0/24"), instanceId: "i-b" },
  ]),
  acceptUnmarked: false,
  routeTableIds: new Set(["vtb-1"]),
  mayTake: ({ instanceId, destination }) => proved.has(`${instanceId} ${destination}`),
  isLeased: (destination) => String(destination) === "10.24.97.0/24",
  isMarkDue: () => true,
};
const hopB = { mark: NAME_B, instanceId: "i-b" };
const gone = {
  mark: routeMark(mark, "i-gone"),
  instanceId: "i-gone",
};

Deno.test("for all hosts, a claimed subnet is led to its claimant if nobody is cut off by that", () => {
  assert.deepEqual(planned([entry()], cluster), []);
  assert.deepEqual(planned([entry(gone)], cluster), [REPLACE]);
  assert.deepEqual(planned([entry({ mark: "" })], cluster), [REPLACE], "to be named");
  const notYet = { ...cluster, isMarkDue: () => false };
  assert.deepEqual(planned([entry({ mark: "" })], notYet), []);
  for (
    const foreign of [
      { ...hopB, mark: "" },
      hopB,
      { ...hopB, mark: "flanneld/10.24.0.0/16/i-b" },
      { ...hopB, mark: "flanneld/0123456789abcdef/10.24.0.0/16/i-b" },
    ]
  ) assert.match(planned([entry(foreign)], cluster).join(), /^conflict /);
});

Deno.test("for all hosts, what no claim names goes where there is proof, and is ours", () => {
  const kept: Parameters<typeof entry>[0][] = [
    { ...gone, destination: "10.24.98.0/24" },
    { ...hopB, destination: "10.24.98.0/24" },
    { ...hopB, destination: "10.24.8.0/24", routeTableId: "vtb-2" },
    { ...gone, destination: "10.24.99.0/24", mark: "" },
    { ...gone, destination: "10.24.99.0/24", mark: "by hand" },
    { ...gone, destination: "10.24.99.0/24", mark: routeMark(mark, "i-c") },
    { ...gone, destination: "10.24.99.0/24", mark: "flanneld/10.24.0.0/16/i-gone" },
    {
      ...gone,
      destination: "10.24.99.0/24",
      mark: "flanneld/0123456789abcdef/10.24.0.0/16/i-gone",
    },
    { ...gone, destination: "10.24.99.0/24", managedBy: "TR" },
    { ...gone, destination: "10.24.99.0/24", isStatic: false, type: "CEN" },
    { ...gone, destination: "0.0.0.0/0" },
  ];
  for (const change of kept) {
    const found = entry({ ...change, entryId: "rte-2" });
    assert.deepEqual(planned([entry(), found], cluster), [], Deno.inspect(change));
    assert.equal(stepAway(found, cluster).do, "done");
  }
  const goes: Parameters<typeof entry>[0][] = [
    { ...gone, destination: "10.24.99.0/24" },
    { ...gone, destination: "10.24.99.0/24", routeTableId: "vtb-2" },
  ];
  for (const change of goes) {
    const found = entry({ ...change, entryId: "rte-2" });
    assert.match(planned([entry(), found], cluster).join(), /^remove route entry .*rte-2/);
    assert.equal(stepAway(found, cluster).do, "delete");
  }
});

Deno.test("isStale() says so of no entry that a key of the store may stand for", () => {
  const stale = (destination: string) => isStale(entry({ ...gone, destination }), cluster);
  assert(stale("10.24.98.0/24"));
  assert(!stale("10.24.97.0/24"));
  assert(!isStale(entry(hopB), { ...cluster, isLeased: () => true }));
});

Deno.test("isOurs() says so also of what no lease claims yet", () => {
  assert(isOurs(entry({ ...gone, destination: "10.24.50.0/24" }), cluster));
  assert(isOurs(entry({ mark: "" }), cluster));
  assert(!isOurs(entry({ ...gone, mark: "" }), cluster));
  assert(!isOurs(entry({ mark: "by hand" }), cluster));
  assert(isOurs(entry({ mark: "flanneld/10.24.0.0/16/i-me" }), cluster));
  assert(!isOurs(entry({ ...gone, mark: "flanneld/10.24.0.0/16/i-gone" }), cluster));
  assert(!isOurs(entry({ managedBy: "TR" }), cluster));
});

Deno.test("where entries carry no marks, the cluster's book tells which ones it made", () => {
  const bookish: ClusterOwner = {
    ...cluster,
    mark: { ...mark, isBooked: (_, instanceId) => instanceId === "i-gone" },
    acceptUnmarked: true,
  };
  const unmarked = (instanceId: string, destination: string) =>
    entry({ mark: "", instanceId, destination, entryId: "rte-2" });
  assert.deepEqual(planned([unmarked("i-me", "10.24.7.0/24")], bookish), []);
  assert.deepEqual(planned([unmarked("i-gone", "10.24.7.0/24")], bookish), [REPLACE]);
  assert.match(planned([unmarked("i-x", "10.24.7.0/24")], bookish).join(), /^conflict /);
  const elsewhere = (instanceId: string) =>
    planned([entry(), unmarked(instanceId, "10.24.99.0/24")], bookish);
  assert.match(elsewhere("i-gone").join(), /^remove route entry 10\.24\.99\.0\/24/);
  assert.deepEqual(elsewhere("i-x"), []);
});

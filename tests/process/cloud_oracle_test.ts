import assert from "node:assert/strict";
import type { RequestRecord, RouteEntry } from "../simulator/model.ts";
import { CloudOracle } from "./cloud_oracle.ts";

const CLUSTER_ID = "c0ffee0000000001";
const NETWORK = "10.24.0.0/16";
const SUBNET = "10.24.7.0/24";
const TABLE = "vtb-1";
const GRACE_MS = 60_000;
/** Some time, when everything has been as it is for long. */
const NOW_MS = 1_000_000;
const MOMENT_MS = 10_000;

/** A cluster of i-a, which is the writer, and i-b; at first i-a has the lease of SUBNET. */
function open(options: { ownPlaces?: boolean } = {}): CloudOracle {
  const oracle = new CloudOracle([{
    prefix: "/net",
    id: CLUSTER_ID,
    network: NETWORK,
    graceMs: GRACE_MS,
    instances: new Map([["10.0.0.1", "i-a"], ["10.0.0.2", "i-b"]]),
  }], options);
  oracle.noteKey(0, "/net/ali-vpc/election/writer", '{"instance":"i-a"}');
  lease(oracle, 0, "i-a");
  return oracle;
}

function lease(oracle: CloudOracle, atMs: number, instanceId?: string, subnet = SUBNET): void {
  const value = instanceId && JSON.stringify({ BackendData: { InstanceID: instanceId } });
  oracle.noteKey(atMs, `/net/subnets/${subnet.replace("/", "-")}`, value);
}

function entry(change: Partial<RouteEntry> = {}): RouteEntry {
  return {
    id: "rte-1",
    routeTableId: TABLE,
    destination: SUBNET,
    type: "Custom",
    status: "Available",
    name: `flanneld/${CLUSTER_ID}/${NETWORK}/i-a`,
    description: "",
    nextHops: [{ type: "Instance", id: "i-a" }],
    modifiedAtMs: 0,
    ...change,
  };
}

function request(
  action: string,
  params: Record<string, string>,
  change: Partial<RequestRecord> = {},
): RequestRecord {
  return {
    sequence: 1,
    service: "vpc",
    action,
    method: "POST",
    params,
    accessKeyId: "key",
    source: "10.0.0.1",
    startedAtMs: NOW_MS,
    finishedAtMs: NOW_MS,
    status: 200,
    code: "OK",
    performed: true,
    requestId: "",
    ...change,
  };
}

function create(hop: string, change: Partial<RequestRecord> = {}): RequestRecord {
  return request("CreateRouteEntries", {
    "RouteEntries.1.RouteTableId": TABLE,
    "RouteEntries.1.DstCidrBlock": SUBNET,
    "RouteEntries.1.NextHop": hop,
  }, change);
}

function modify(hop: string, change: Partial<RequestRecord> = {}): RequestRecord {
  return request("ModifyRouteEntry", {
    RouteEntryId: "rte-1",
    NewNextHopId: hop,
    RouteEntryName: `flanneld/${CLUSTER_ID}/${NETWORK}/${hop}`,
  }, change);
}

const DELETE = request("DeleteRouteEntry", { RouteEntryId: "rte-1" });

Deno.test("CloudOracle lets a create pass that a lease justifies, and no other", () => {
  assert.deepEqual(open().judge([create("i-a")]), []);
  const [fault, ...more] = open().judge([create("i-b")]);
  assert.match(fault!, /CreateRouteEntries by i-a .*via i-b, which has no lease of it/);
  assert.deepEqual(more, []);

  const ended = open();
  lease(ended, NOW_MS - 1_000);
  assert.deepEqual(ended.judge([create("i-a")]), [], "it was sent on what was known then");
  assert.match(
    ended.judge([create("i-a", { startedAtMs: NOW_MS + MOMENT_MS })]).join(),
    /has no lease of it/,
  );

  const standing = open();
  standing.noteEntries(0, [entry()]);
  assert.match(standing.judge([create("i-a")]).join(), /which stands already/);
});

Deno.test("CloudOracle lets an entry be led to its lease's instance, if it is not there yet", () => {
  const oracle = open();
  oracle.noteEntries(0, [entry()]);
  assert.match(oracle.judge([modify("i-a")]).join(), /which is so already/);
  assert.match(oracle.judge([modify("i-b")]).join(), /has no lease of it/);
  lease(oracle, NOW_MS - 1_000, "i-b");
  assert.deepEqual(oracle.judge([modify("i-b")]), []);

  const foreign = open();
  foreign.noteEntries(0, [entry({ name: "somebody's", nextHops: [{ type: "HaVip", id: "h" }] })]);
  assert.match(foreign.judge([modify("i-a")]).join(), /of the foreign entry/);

  const nameless = open();
  nameless.noteEntries(0, [entry({ name: "" })]);
  const rename = request("ModifyRouteEntry", { RouteEntryId: "rte-1", RouteEntryName: "flanneld" });
  assert.deepEqual(nameless.judge([rename]), []);
});

Deno.test("CloudOracle lets an entry go after the grace, or when its host has moved", () => {
  const oracle = open();
  oracle.noteEntries(0, [entry()]);
  assert.match(oracle.judge([DELETE]).join(), /which is leased/);
  lease(oracle, NOW_MS - GRACE_MS / 2);
  assert.match(oracle.judge([DELETE]).join(), /whose grace is not over/);
  assert.deepEqual(oracle.judge([{ ...DELETE, startedAtMs: NOW_MS + GRACE_MS }]), []);
  lease(oracle, NOW_MS - MOMENT_MS, "i-a", "10.24.8.0/24");
  assert.deepEqual(oracle.judge([DELETE]), []);

  const gone = open();
  lease(gone, 1);
  gone.noteEntries(0, [entry()]);
  gone.noteEntries(NOW_MS - MOMENT_MS, []);
  const refused = { ...DELETE, performed: false, code: "InvalidRouteEntry.NotFound" };
  assert.match(gone.judge([refused]).join(), /which had gone/);

  const foreign = open();
  lease(foreign, 1);
  foreign.noteEntries(0, [entry({ name: "flanneld/10.24.0.0/16/i-a" })]);
  assert.match(foreign.judge([DELETE]).join(), /of the foreign entry/);

  const young = open();
  const nextHops = [{ type: "Instance" as const, id: "i-c" }];
  young.noteEntries(NOW_MS - GRACE_MS / 2, [entry({ destination: "10.24.9.0/24", nextHops })]);
  assert.match(young.judge([DELETE]).join(), /whose grace is not over/);
  assert.match(open().judge([DELETE]).join(), /of the unknown entry/);
});

Deno.test("CloudOracle knows who may write", () => {
  const byOther = create("i-a", { source: "10.0.0.2" });
  assert.match(open().judge([byOther]).join(), /by i-b .*while the route leader is i-a/);
  assert.deepEqual(open().judge([{ ...byOther, performed: false, code: "TaskConflict" }]), []);
  assert.match(open().judge([{ ...byOther, source: "10.9.9.9" }]).join(), /by a stranger/);
  assert.match(open({ ownPlaces: true }).judge([byOther]).join(), /while the route leader/);

  const own = open({ ownPlaces: true });
  lease(own, 1, "i-b");
  assert.deepEqual(own.judge([create("i-b", { source: "10.0.0.2" })]), []);

  const taken = open();
  taken.noteKey(NOW_MS - MOMENT_MS, "/net/ali-vpc/election/writer", undefined);
  taken.noteKey(NOW_MS - MOMENT_MS / 2, "/net/ali-vpc/election/writer", '{"instance":"i-b"}');
  assert.match(taken.judge([create("i-a")]).join(), /while the route leader is i-b/);
  assert.deepEqual(taken.judge([byOther]), []);
  assert.deepEqual(
    taken.judge([request("CreateRouteEntry", { DryRun: "true" }), request("DescribeVpcs", {})]),
    [],
  );
});

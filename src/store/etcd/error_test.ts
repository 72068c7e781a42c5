import assert from "node:assert/strict";
import { EtcdError, type EtcdErrorKind, fromGrpcError, joinFailures } from "./error.ts";

const URL = "http://10.0.0.5:2379";

Deno.test("fromGrpcError() tells what to do next", () => {
  // Code and details as etcd 3.4 to 3.6 and grpc-js give them.
  const cases: readonly (readonly [number, string, EtcdErrorKind])[] = [
    [14, "No connection established. Last error: Error: connect ECONNREFUSED", "unreachable"],
    [14, "No connection established. Last error: Protocol error (…)", "not-served"],
    [14, "Name resolution failed for target dns:etcd:2379", "unreachable"],
    [14, "etcdserver: no leader", "unready"],
    [14, "etcdserver: not capable", "unready"],
    [14, "etcdserver: leader changed", "timeout"],
    [14, "etcdserver: request timed out", "timeout"],
    [14, "etcdserver: request timed out, possibly due to previous leader failure", "timeout"],
    [14, "Connection dropped", "lost"],
    [4, "Deadline exceeded after 2.500s", "timeout"],
    [16, "etcdserver: invalid auth token", "token"],
    [3, "etcdserver: user name is empty", "token"],
    [3, "etcdserver: revision of auth store is old", "token"],
    [3, "etcdserver: authentication failed, invalid user ID or password", "denied"],
    [7, "etcdserver: permission denied", "denied"],
    [3, "etcdserver: key is not provided", "refused"],
    [5, "etcdserver: requested lease not found", "refused"],
    [8, "etcdserver: too many requests", "unready"],
    [8, "etcdserver: mvcc: database space exceeded", "unready"],
    [8, "Received message larger than max (20 vs 10)", "too-large"],
    [11, "etcdserver: mvcc: required revision has been compacted", "compacted"],
    [11, "etcdserver: mvcc: required revision is a future revision", "unready"],
    [12, "unknown service etcdserverpb.KV", "not-served"],
    [13, "Received RST_STREAM with code 2", "lost"],
  ];
  for (const [code, details, kind] of cases) {
    assert.equal(fromGrpcError({ code, details }, URL).kind, kind, details);
  }
});

Deno.test("EtcdError knows what may have run, and what another member may do better", () => {
  const error = (kind: EtcdErrorKind) => new EtcdError(kind, URL, "why");
  assert.equal(error("lost").mayHaveRun, true);
  assert.equal(error("timeout").mayHaveRun, true);
  assert.equal(error("unready").mayHaveRun, false);
  assert.equal(error("unready").isPassing, true);
  assert.equal(error("denied").isPassing, false);
  assert.equal(error("denied").reason, "denied");
  assert.equal(error("refused").reason, "invalid");
  assert.equal(error("unreachable").reason, "unavailable");
  assert.equal(error("unreachable").message, `Cannot reach etcd at ${URL}: why`);
});

Deno.test("joinFailures() names every member once", () => {
  const a = new EtcdError("unreachable", "http://a:1", "connection refused");
  const b = new EtcdError("timeout", "http://b:2", "no answer in time");
  assert.equal(joinFailures([a]), a);
  assert.equal(
    joinFailures([a, b, a]).message,
    "Cannot reach etcd at http://a:1: connection refused; at http://b:2: no answer in time",
  );
  const old = new EtcdError("not-served", "http://c:3", "the v3 API is not served there");
  assert.equal(joinFailures([a, old]).kind, "not-served");
  assert.equal(joinFailures([old, a]).kind, "not-served");
  assert.notEqual(joinFailures([b, old]).kind, "not-served");
});

import assert from "node:assert/strict";
import { OperatorError } from "../errors.ts";
import { Prefix } from "../net/mod.ts";
import { rememberSecret } from "../secret.ts";
import { renderReadyz, renderStatus, type StatusJson } from "./json.ts";
import type { ConditionStatus, Problem, StatusSource } from "./model.ts";

const MINUTE = 60_000;
const since = performance.now() - MINUTE;

const problem: Problem = {
  code: "conflict",
  object: "route 10.5.7.0/24",
  message: "Cannot set route 10.5.7.0/24: another stands in its place",
  remedy: "remove it",
  since,
};

function source(parts: Partial<StatusSource> = {}): StatusSource {
  return { version: () => "1", conditions: () => [], reconcilers: () => ({}), ...parts };
}

const condition = (
  id: ConditionStatus["id"],
  state: ConditionStatus["state"],
  ...problems: Problem[]
): ConditionStatus => ({ id, state, since, problems });

function render(parts: Partial<StatusSource>): StatusJson {
  return JSON.parse(renderStatus(source(parts)));
}

const ROUND = {
  inSync: true,
  changed: 0,
  problems: [],
  problemCount: 0,
  unseen: false,
  tables: [],
};

/** Whether `time` is a minute ago. */
function assertMinuteAgo(time: string | null | undefined): void {
  assert.ok(Math.abs(Date.parse(time!) - (Date.now() - MINUTE)) < 5_000, `${time}`);
}

Deno.test("renderReadyz() gives one reason per line, and what is degraded", () => {
  const text = (...conditions: ConditionStatus[]) => renderReadyz({ conditions: () => conditions });
  assert.deepEqual(text(condition("lease", "met")), { ready: true, text: "flanneld is ready" });
  const remark = { ...problem, message: "1 of 2 peers is left out", remedy: undefined! };
  assert.deepEqual(
    text(condition("peers", "met", remark), condition("cloud", "doubtful", problem)),
    {
      ready: true,
      text: "flanneld is ready\n1 of 2 peers is left out",
    },
  );
  assert.deepEqual(
    text(condition("kernel", "unmet", problem), condition("lease", "unmet", remark)),
    {
      ready: false,
      text: "flanneld is not ready yet\n" +
        "kernel: Cannot set route 10.5.7.0/24: another stands in its place; remove it\n" +
        "lease: 1 of 2 peers is left out",
    },
  );
});

Deno.test("renderStatus() tells each problem once, with code, object, remedy and since when", () => {
  const report = {
    inSync: false,
    changed: 2,
    problems: [problem],
    problemCount: 3,
    unseen: false,
    tables: [{
      kind: "route" as const,
      desired: 3,
      actual: 2,
      problems: [problem],
      inSync: false,
      since,
      lastChangeAt: undefined,
      lastRoundMs: 1.5,
    }],
  };
  const { ready, reasons, remarks, status } = render({
    conditions: () => [condition("kernel", "unmet", problem), condition("lease", "met")],
    reconcilers: () => ({ kernel: report }),
  });
  assert.equal(ready, false);
  assert.equal(reasons.length, 1);
  assert.equal(remarks, undefined);
  assert.deepEqual(status.reconcilers["kernel"], {
    inSync: false,
    changed: 2,
    problems: [`${problem.message}; remove it`, "and 2 more"],
    unseen: false,
  });
  const [told, ...more] = status.problems;
  assert.deepEqual(more, []);
  const { since: at, ...facts } = told!;
  const { since: _, ...expected } = problem;
  assert.deepEqual(facts, expected);
  assertMinuteAgo(at);
  const [table] = status.tables;
  assert.deepEqual(
    [table!.reconciler, table!.kind, table!.desired, table!.actual, table!.lastChange],
    ["kernel", "route", 3, 2, null],
  );
  assert.deepEqual(table!.problems, [told]);
  assertMinuteAgo(table!.since);
  assert.equal(status.conditions["lease"]!.state, "met");
  assert.deepEqual(status.conditions["kernel"]!.problems, [told]);
  assertMinuteAgo(status.conditions["kernel"]!.since);
});

const leader = { holder: "i-7", vacantMs: 62_400 };

Deno.test("renderStatus() tells what the leader of a cloud's routes says", () => {
  const round = { ...ROUND, problems: [problem], problemCount: 1 };
  const { status: { cloud } } = render({
    cloud: () => ({
      instance: "i-7",
      network: "vpc-1",
      credentials: "environment",
      role: "leader",
      leader,
      place: { instanceId: "i-7", state: "routed", checkOff: true },
      cluster: {
        id: "0123456789abcdef",
        term: "7",
        tables: [{ id: "vtb-1", used: 3, limit: 200 }],
        overflow: [],
        occupied: ["10.24.9.0/24 via i-x in vtb-1"],
        orphans: [{
          routeTableId: "vtb-1",
          destination: Prefix.parse("10.24.9.0/24"),
          instanceId: "i-9",
          state: "held",
          ageMs: 61_000,
        }],
        held: { routes: ["10.24.9.0/24 via i-9"], approve: "etcdctl put …" },
      },
      leading: { hosts: { routed: 3 }, round },
    }),
  });
  assert.deepEqual(cloud, {
    instance: "i-7",
    vpc: "vpc-1",
    credentials: "environment",
    role: "route writer",
    route: { instanceId: "i-7", state: "routed", checkOff: true },
    cluster: {
      id: "0123456789abcdef",
      term: "7",
      tables: [{ id: "vtb-1", used: 3, limit: 200 }],
      overflow: [],
      occupied: ["10.24.9.0/24 via i-x in vtb-1"],
      routeWriter: "i-7",
      vacantSeconds: 62,
      orphans: [{
        routeTableId: "vtb-1",
        destination: "10.24.9.0/24",
        instance: "i-9",
        state: "held",
        seconds: 61,
      }],
      waitsForApproval: { routes: ["10.24.9.0/24 via i-9"], approve: "etcdctl put …" },
    },
    writing: {
      hosts: { routed: 3 },
      inSync: true,
      changed: 0,
      problems: [`${problem.message}; remove it`],
      unseen: false,
    },
  });
});

Deno.test("renderStatus() keeps the fields that scripts read", () => {
  const leftOut = {
    count: 200,
    problems: [
      { ...problem, object: "10.5.7.0-24", message: "no address" },
      { ...problem, object: "10.5.7.0-24", code: "peer-device" as const, message: "no MAC" },
    ],
  };
  const { status } = render({
    network: () => [Prefix.parse("10.5.0.0/16")],
    lease: () => ({
      key: "10.5.1.0-24",
      subnet: { ipv4: Prefix.parse("10.5.1.0/24") },
      attributes: { backendType: "vxlan" },
      state: "held",
      since,
      acquiredAt: since,
      expiresAt: performance.now() + 2 * MINUTE,
    }),
    peers: () => ({ count: 7, leftOut }),
    skippedLeases: () => leftOut,
    firewall: () => ({ program: "none", problems: [problem] }),
    surroundings: () => ({ problems: [] }),
    cloud: () => ({ instance: "i-1", network: "vpc-1", role: "own routes", leader }),
    dataPlane: () => undefined,
  });
  assert.deepEqual(status.network, ["10.5.0.0/16"]);
  const { state, acquiredAt, ...lease } = status.lease!;
  assert.deepEqual(lease, {
    key: "10.5.1.0-24",
    subnet: { ipv4: "10.5.1.0/24" },
    attributes: { backendType: "vxlan" },
  });
  assertMinuteAgo(acquiredAt);
  assert.equal(state.held, true);
  assert.ok(Math.abs(state.expiresAt! - Date.now() - 2 * MINUTE) < 5_000);
  assert.equal(status.peers, 7);
  assert.deepEqual(status.skippedPeers, {
    count: 200,
    reasons: { "10.5.7.0-24": "no address; no MAC" },
  });
  assert.deepEqual(status.skippedLeases, { "10.5.7.0-24": "no address; no MAC" });
  assert.deepEqual(status.firewall, {
    program: "none",
    warnings: [`${problem.message}; remove it`],
  });
  assert.deepEqual(status.surroundings, { warnings: [] });
  assert.deepEqual(status.cloud, {
    instance: "i-1",
    vpc: "vpc-1",
    role: "writes its own route",
  });
  assert.ok(!("dataPlane" in status));
});

Deno.test("renderStatus() says of a lease why it is not held, and who has it", () => {
  const lost = { ...problem, message: "another host holds it", remedy: undefined! };
  const lease = { key: "k", subnet: {}, attributes: {}, since, acquiredAt: since };
  const taken = render({
    lease: () => ({ ...lease, state: "taken", expiresAt: undefined, problem: lost }),
  });
  const { since: _, ...state } = taken.status.lease!.state;
  assert.deepEqual(state, { held: false, taken: true, reason: "another host holds it" });
  assert.deepEqual(taken.status.problems.map(({ message }) => message), ["another host holds it"]);
});

Deno.test("renderStatus() is without secrets", () => {
  rememberSecret('canary "of" status');
  const page = renderStatus(source({
    conditions: () => [
      condition("cloud", "unmet", { ...problem, message: 'denied for canary "of" status' }),
    ],
    backend: () => 'canary "of" status',
    interface: () => ({
      link: "eth0",
      mtuBytes: 1500,
      index: 12n,
      error: new OperatorError('canary "of" status', { cause: "no" }),
    }),
  }));
  assert.doesNotMatch(page, /canary/);
  const { reasons, status } = JSON.parse(page) as StatusJson;
  assert.deepEqual(reasons, ["cloud: denied for [redacted]; remove it"]);
  assert.equal(status.backend, "[redacted]");
  assert.deepEqual(
    [status.interface!["index"], status.interface!["error"]],
    ["12", "[redacted]: no"],
  );
  const text = renderReadyz({ conditions: () => [condition("cloud", "unmet", problem)] });
  assert.doesNotMatch(text.text, /canary/);
});

Deno.test("renderStatus() tells the other facts where one cannot be told", () => {
  rememberSecret("canary in a fault");
  const cycle: Record<string, unknown> = {};
  cycle["self"] = cycle;
  const { status } = render({
    backend: () => {
      throw new Error("canary in a fault");
    },
    interface: () => ({ link: "", mtuBytes: 0, cycle }),
    dataPlane: () => ({ infinite: Infinity, none: NaN, fine: -1e300 }),
    overlaps: () => ({
      places: JSON.parse("[".repeat(20_000) + "]".repeat(20_000)),
      problems: [],
    }),
    version: () => "7",
  });
  const failed = (fact: unknown) =>
    assert.match((fact as { error: string }).error, /^Cannot determine/);
  failed(status.backend);
  failed(status.interface);
  failed(status.overlaps);
  assert.doesNotMatch(JSON.stringify(status), /canary/);
  assert.deepEqual(status.dataPlane, { infinite: null, none: null, fine: -1e300 });
  assert.equal(status.version, "7");
});

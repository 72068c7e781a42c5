/** Source/destination checks against the simulated cloud: whose, how often, and what goes wrong. */
import assert from "node:assert/strict";
import type * as v from "valibot";
import { EcsClient } from "../../src/cloud/ali/ecs_client.ts";
import { AliApiError } from "../../src/cloud/ali/errors.ts";
import type { Parameters, Rpc } from "../../src/cloud/ali/rpc.ts";
import {
  type NamedInterface,
  SourceDestCheckTable,
} from "../../src/cloud/routes/source_dest_check.ts";
import { diff } from "../support/diff.ts";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { type Simulator, startSimulator } from "../simulator/mod.ts";
import { checksOf, identifyOn, LineLog, openOn, writes } from "./support.ts";

const { signal } = new AbortController();
const [INSTANCE] = EXAMPLE.instanceIds;

function steppedClock() {
  let now = 1_000_000;
  const clock = { now: () => now, delay: () => Promise.resolve() };
  return { clock, pass: (seconds: number) => now += seconds * 1000 };
}

Deno.test("a check that was seen off is asked for again at every fifth resync only", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  simulator.cloud.setSourceDestCheck(INSTANCE, false);
  const { clock, pass } = steppedClock();
  await using cloud = await openOn(simulator, { clock, backend: { ResyncSeconds: 60 } });
  const asked = () =>
    simulator.requests.filter(({ action }) => action === "DescribeNetworkInterfaces").length;
  const { networkInterfaceId } = cloud.facts;
  const off = [{ networkInterfaceId, enabled: false }];
  assert.equal(asked(), 1, "at start");
  for (let seconds = 0; seconds < 300; seconds += 60) {
    assert.deepEqual(await cloud.sourceDestCheck.list({ signal }), off);
    pass(60);
  }
  assert.equal(asked(), 1);
  simulator.cloud.setSourceDestCheck(INSTANCE, true);
  const on = [{ networkInterfaceId, enabled: true }];
  assert.deepEqual(await cloud.sourceDestCheck.list({ signal }), on);
  assert.deepEqual(await cloud.sourceDestCheck.list({ signal }), on, "until it is off");
  assert.equal(asked(), 3);
  const change = { op: "replace", desired: off[0]!, actual: on[0]! } as const;
  assert.deepEqual(await cloud.sourceDestCheck.apply([change], { signal }), []);
  assert.equal(asked(), 4, "read back");
  assert.deepEqual(await cloud.sourceDestCheck.list({ signal }), off);
  assert.equal(asked(), 4);
  assert.equal(writes(simulator.requests).length, 1);
});

Deno.test("a check that may not be read is taken to be off, with a word about it", async () => {
  await using simulator = await startSimulator({ config: exampleConfig() });
  simulator.cloud.denyAction("ecs:DescribeNetworkInterfaces");
  const { clock, pass } = steppedClock();
  const log = new LineLog();
  await using cloud = await openOn(simulator, { clock, log });
  for (let n = 0; n < 3; n++, pass(1_000)) {
    const [actual] = await cloud.sourceDestCheck.list({ signal });
    assert.equal(actual?.enabled, false);
  }
  const words = log.lines.filter((line) => line.includes("source/destination check"));
  assert.equal(words.length, 1, log.text);
  assert.match(
    words[0]!,
    /RAM denies ecs:DescribeNetworkInterfaces\..*"SourceDestCheck": "ignore"/,
  );
});

/** A cloud with `count` further instances whose leases name them rightly. */
async function startCluster(count: number, options: { checks: boolean }) {
  const hosts = Array.from({ length: count }, (_, n) => ({
    id: `i-host-${n}`,
    vSwitchId: EXAMPLE.vSwitchIds[0],
    privateIp: `192.168.1.${n + 20}`,
    sourceDestCheck: options.checks,
  }));
  const example = exampleConfig();
  const vSwitches = example.vSwitches?.map((each) =>
    each.id === EXAMPLE.vSwitchIds[0] ? { ...each, cidr: "192.168.0.0/23" } : each
  );
  for (const host of hosts.slice(200)) {
    host.privateIp = `192.168.0.${Number(host.id.split("-")[2]) - 100}`;
  }
  const simulator = await startSimulator({
    config: {
      ...example,
      ...(vSwitches ? { vSwitches } : {}),
      instances: [...example.instances ?? [], ...hosts],
    },
  });
  const named = hosts.map(({ id }): NamedInterface => ({
    networkInterfaceId: `eni-${id.slice(2)}`,
    instanceId: id,
    vpcId: EXAMPLE.vpcId,
  }));
  return { simulator, named };
}

function counted(simulator: Simulator, action: string): number {
  return simulator.requests.filter((request) => request.action === action).length;
}

/** Brings all checks off, as the reconciler does; answers what failed. */
async function reconcile(table: SourceDestCheckTable) {
  const { writes } = diff(table.kind, table.allOff(), await table.list({ signal }));
  return await table.apply(writes, { signal });
}

Deno.test("250 interfaces cost three calls, and later ones are asked for with the oldest", async () => {
  const { simulator, named } = await startCluster(250, { checks: false });
  await using _ = simulator;
  const { clock, pass } = steppedClock();
  await using identity = await identifyOn(simulator, { clock, backend: { ResyncSeconds: 60 } });
  let known = named.slice(0, 249);
  const table = checksOf(identity, () => known);
  const asked = () => counted(simulator, "DescribeNetworkInterfaces");
  assert.equal((await table.list({ signal })).length, 249);
  assert.equal(asked(), 3);
  assert(known.every((each) => table.isOff(each.networkInterfaceId)));
  pass(200);
  await table.list({ signal });
  assert.equal(asked(), 3, "all are fresh");
  known = named;
  await table.list({ signal });
  assert.equal(asked(), 4, "the new one, with 99 others");
  pass(100);
  await table.list({ signal });
  assert.equal(asked(), 6, "the 150 that are left");
  pass(300);
  await table.list({ signal });
  assert.equal(asked(), 9);
  known = [];
  pass(300);
  assert.deepEqual(await table.list({ signal }), []);
  assert.equal(asked(), 9, "nobody to ask for");
  assert.equal(table.isOff(named[0]!.networkInterfaceId), undefined, "forgotten");
});

Deno.test("all checks that are on are switched off and read back together", async () => {
  const { simulator, named } = await startCluster(120, { checks: true });
  await using _ = simulator;
  const { clock } = steppedClock();
  await using identity = await identifyOn(simulator, { clock });
  const table = checksOf(identity, () => named);
  // One is in the hands of another operation, and one call comes at a bad time for all.
  for (const code of ["InvalidOperation.Conflict", "Throttling.User"]) {
    simulator.cloud.addFault({
      match: { action: "ModifyNetworkInterfaceAttribute" },
      skip: code === "Throttling.User" ? 60 : 5,
      times: 1,
      effect: { kind: "error", status: 400, code },
    });
  }
  assert.deepEqual(await reconcile(table), []);
  assert(named.every((each) => table.isOff(each.networkInterfaceId)));
  assert.equal(counted(simulator, "ModifyNetworkInterfaceAttribute"), 122);
  assert.equal(counted(simulator, "DescribeNetworkInterfaces"), 2 + 6);
  const on = simulator.cloud.snapshot().networkInterfaces.filter((each) => each.sourceDestCheck);
  assert.deepEqual(
    on.map((each) => each.id).sort(),
    ["eni-node-1", "eni-node-2", "eni-node-3", "eni-other"],
    "no other interface is touched",
  );
});

Deno.test("checks that hosts see to themselves meanwhile are not switched off once more", async () => {
  const { simulator, named } = await startCluster(90, { checks: true });
  await using _ = simulator;
  const { clock } = steppedClock();
  await using identity = await identifyOn(simulator, { clock });
  const table = checksOf(identity, () => named);
  const actual = await table.list({ signal });
  for (const { instanceId } of named) simulator.cloud.setSourceDestCheck(instanceId!, false);
  const changes = actual.map((each) => ({
    op: "replace" as const,
    desired: { ...each, enabled: false },
    actual: each,
  }));
  assert.deepEqual(await table.apply(changes, { signal }), []);
  assert.equal(counted(simulator, "ModifyNetworkInterfaceAttribute"), 20);
  assert(named.every((each) => table.isOff(each.networkInterfaceId)));
});

Deno.test("a service in trouble is left in peace after some tries, and every check fails", async () => {
  const { simulator, named } = await startCluster(30, { checks: true });
  await using _ = simulator;
  const { clock } = steppedClock();
  await using identity = await identifyOn(simulator, { clock });
  const table = checksOf(identity, () => named);
  const fault = simulator.cloud.addFault({
    match: { action: "ModifyNetworkInterfaceAttribute" },
    effect: { kind: "error", status: 503, code: "ServiceUnavailable" },
  });
  const failed = await reconcile(table);
  assert.equal(failed.length, 30);
  assert(failed.every(({ error }) => /ServiceUnavailable/.test(error.message)));
  assert.equal(counted(simulator, "ModifyNetworkInterfaceAttribute"), 8);
  simulator.cloud.removeFault(fault);
  assert.deepEqual(await reconcile(table), []);
});

Deno.test("a denied change fails for each interface by name, and is not tried for all", async () => {
  const { simulator, named } = await startCluster(20, { checks: true });
  await using _ = simulator;
  const { clock } = steppedClock();
  await using identity = await identifyOn(simulator, { clock });
  const table = checksOf(identity, () => named);
  simulator.cloud.denyAction("ecs:ModifyNetworkInterfaceAttribute");
  const failed = await reconcile(table);
  assert.equal(failed.length, 20);
  for (const [n, { error }] of failed.entries()) {
    assert.equal(error.name, "OperatorError");
    assert.match(
      error.message,
      new RegExp(`check of eni-host-${n}: RAM denies ecs:ModifyNetworkInterfaceAttribute`),
    );
  }
  assert.equal(counted(simulator, "ModifyNetworkInterfaceAttribute"), 3);
  simulator.cloud.permitAction("ecs:ModifyNetworkInterfaceAttribute");
  assert.deepEqual(await reconcile(table), []);
});

Deno.test("an interface that is not what a lease says is left alone and named", async () => {
  const { simulator, named } = await startCluster(3, { checks: true });
  await using _ = simulator;
  simulator.cloud.addInstance({
    id: "i-two",
    vSwitchId: EXAMPLE.vSwitchIds[0],
    privateIp: "192.168.1.200",
    secondaryInterfaces: [{ id: "eni-second", privateIp: "192.168.1.201" }],
  });
  const { clock } = steppedClock();
  const log = new LineLog();
  await using identity = await identifyOn(simulator, { clock, log });
  const vpcId = EXAMPLE.vpcId;
  const known: NamedInterface[] = [
    ...named,
    // Says that an interface of the first host is its own.
    { networkInterfaceId: "eni-host-0", instanceId: "i-evil", vpcId },
    { networkInterfaceId: "eni-node-2", instanceId: "i-evil", vpcId },
    { networkInterfaceId: "eni-second", instanceId: "i-two", vpcId },
    { networkInterfaceId: "eni-two", instanceId: "i-two", vpcId: "vpc-elsewhere" },
    { networkInterfaceId: "eni-released", instanceId: "i-released", vpcId },
    { networkInterfaceId: "eni-a\nerror: all is lost", instanceId: "i-evil", vpcId },
  ];
  const table = checksOf(identity, () => known, log);
  assert.equal(table.allOff().length, known.length - 1, "two name one interface");
  for (let n = 0; n < 3; n++) assert.deepEqual(await reconcile(table), []);
  const on = simulator.cloud.snapshot().networkInterfaces.filter((each) => each.sourceDestCheck)
    .map((each) => each.id);
  for (const id of ["eni-node-2", "eni-second", "eni-two"]) {
    assert(on.includes(id), id);
    assert.equal(table.isOff(id), false, id);
  }
  for (const { networkInterfaceId: id } of named) {
    assert.equal(on.includes(id), false, id);
    assert.equal(table.isOff(id), true, id);
  }
  const words = log.lines.filter((line) => line.startsWith("warn"));
  assert.equal(words.length, 1, "said once");
  assert.match(
    words[0]!,
    /eni-a error: all is lost is no id.*eni-node-2 belongs to i-node-2 and not to i-evil/,
  );
  assert.match(words[0]!, /eni-second is not the primary interface of i-two/);
  assert.match(words[0]!, /eni-two is not in vpc-elsewhere; eni-released does not exist$/);
  assert.equal(words[0]!.includes("eni-host-0"), false);
  assert.equal(counted(simulator, "DescribeNetworkInterfaces"), 2, "one look, one read-back");
});

/** An ECS service that answers as `answer` says. */
function fakeEcs(answer: (ids: readonly string[]) => unknown): EcsClient {
  const rpc: Rpc = {
    call<Schema extends v.GenericSchema>(
      _action: string,
      parameters: Parameters,
    ): Promise<v.InferOutput<Schema>> {
      try {
        const ids = parameters["NetworkInterfaceId"] as readonly string[];
        return Promise.resolve(answer(ids) as v.InferOutput<Schema>);
      } catch (error) {
        return Promise.reject(error);
      }
    },
  };
  return new EcsClient(rpc, EXAMPLE.regionId);
}

function reply(ids: readonly string[], fields: Readonly<Record<string, unknown>>) {
  return {
    NextToken: "",
    NetworkInterfaceSets: ids.map((id) => ({
      NetworkInterfaceId: id,
      InstanceId: id.replace("eni-", "i-"),
      VpcId: EXAMPLE.vpcId,
      Type: "Primary",
      ...fields,
    })),
  };
}

Deno.test("a region without the feature has every check off", async () => {
  const ecs = fakeEcs((ids) => reply(ids, {}));
  const interfaces = () => [{ networkInterfaceId: "eni-1", instanceId: "i-1" }];
  const table = new SourceDestCheckTable({
    api: ecs,
    interfaces,
    log: new LineLog(),
  });
  assert.deepEqual(await table.list({ signal }), [{ networkInterfaceId: "eni-1", enabled: false }]);
  assert.equal(table.isOff("eni-1"), true);
});

Deno.test("an id that the service does not take spoils nothing for the others", async () => {
  let calls = 0;
  const ecs = fakeEcs((ids) => {
    calls++;
    if (!ids.includes("eni-37")) return reply(ids, { SourceDestCheck: false });
    throw new AliApiError(
      { action: "ecs:DescribeNetworkInterfaces", message: "The specified id is not found." },
      { status: 404, code: "InvalidEniId.NotFound" },
    );
  });
  const known = Array.from({ length: 100 }, (_, n) => ({
    networkInterfaceId: `eni-${n}`,
    instanceId: `i-${n}`,
  }));
  const log = new LineLog();
  const table = new SourceDestCheckTable({ api: ecs, interfaces: () => known, log });
  await table.list({ signal });
  assert.deepEqual(
    known.map((each) => each.networkInterfaceId).filter((id) => !table.isOff(id)),
    ["eni-37"],
  );
  assert.match(log.text, /eni-37 does not exist/);
  assert(calls <= 15, `${calls} calls`);
});

Deno.test("this host's own interface must exist", async () => {
  const ecs = fakeEcs(() => reply([], {}));
  const interfaces = () => [{ networkInterfaceId: "eni-1" }];
  const table = new SourceDestCheckTable({
    api: ecs,
    interfaces,
    log: new LineLog(),
  });
  for (let n = 0; n < 2; n++) {
    await assert.rejects(() => table.list({ signal }), {
      message: "Cannot read the source/destination check: eni-1 does not exist",
    });
  }
});

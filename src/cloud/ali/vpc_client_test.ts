import assert from "node:assert/strict";
import fc from "fast-check";
import * as v from "valibot";
import { Prefix } from "../../net/mod.ts";
import { EcsClient } from "./ecs_client.ts";
import { VpcClient } from "./vpc_client.ts";
import { AliApiError } from "./errors.ts";
import type { CloudRoute, NewRoute } from "../routes/provider.ts";
import { formatCloudRoute, leadsTo } from "../routes/route_entry.ts";
import type { Parameters, Rpc } from "./rpc.ts";

const { signal } = new AbortController();

/** An Rpc whose answers are made up; it checks them as the real one does. */
class FakeRpc implements Rpc {
  readonly calls: { action: string; parameters: Parameters }[] = [];
  readonly #answer: (action: string, parameters: Parameters) => unknown;

  constructor(answer: (action: string, parameters: Parameters) => unknown) {
    this.#answer = answer;
  }

  async call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Parameters,
    schema: Schema,
  ): Promise<v.InferOutput<Schema>> {
    this.calls.push({ action, parameters });
    const parsed = v.safeParse(schema, await this.#answer(action, parameters));
    if (parsed.success) return parsed.output;
    throw fault("UnexpectedAnswer", `${v.getDotPath(parsed.issues[0])}`);
  }
}

function clientOf(rpc: Rpc): VpcClient {
  return new VpcClient(rpc, { regionId: "cn-x", vpcId: "vpc-1" });
}

/** The static entries of `vtb-1`, complete. */
function readWhole(client: VpcClient): Promise<readonly CloudRoute[]> {
  return client.readOwn("vtb-1", { mark: "" }, { signal });
}

function fault(code: string, message = ""): AliApiError {
  return new AliApiError({ action: "vpc:Test", message }, { status: 400, code });
}

function entry(n: number, change: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    RouteEntryId: `rte-${n}`,
    DestinationCidrBlock: `10.24.${n}.0/24`,
    Status: "Available",
    Type: "Custom",
    RouteEntryName: "",
    NextHops: { NextHop: [{ NextHopType: "instance", NextHopId: "i-1" }] },
    ...change,
  };
}

/** A table whose list is paged by offset, as the service does it. */
function paged(entries: readonly unknown[], options: { size?: number; total?: boolean } = {}) {
  const { size = 100, total = true } = options;
  return (_action: string, { NextToken }: Parameters) => {
    const offset = Number(NextToken ?? 0);
    return {
      NextToken: offset + size < entries.length ? String(offset + size) : "",
      ...(total ? { TotalCount: entries.length } : {}),
      RouteEntrys: { RouteEntry: entries.slice(offset, offset + size) },
    };
  };
}

Deno.test("a list of entries follows every page and leaves out prefix lists", async () => {
  const entries = Array.from({ length: 205 }, (_, n) => entry(n));
  entries.push(entry(900, { DestinationCidrBlock: "pl-abc" }));
  entries.push(entry(901, { DestinationCidrBlock: "192.0.2.1", NextHops: null, Type: "System" }));
  const rpc = new FakeRpc(paged(entries));
  const client = clientOf(rpc);
  const found = await client.read("vtb-1", Prefix.parse("10.24.0.0/16"), { signal });
  assert.equal(found.length, 206);
  assert.equal(found.at(-1)?.destination.toString(), "192.0.2.1/32");
  assert.deepEqual(found.at(-1)?.hops, []);
  assert.deepEqual(found[0]?.hops, ["i-1"]);
  assert.equal(rpc.calls.length, 6, "three pages, twice");
  await client.readOwn("vtb-1", { mark: "n" }, { signal });
  assert.equal((await client.readLeadingTo("vtb-1", "i-1", { signal })).length, 205);
  const common = { RegionId: "cn-x", RouteTableId: "vtb-1", MaxResult: 100, NextToken: undefined };
  assert.deepEqual([0, 6, 12].map((at) => rpc.calls[at]?.parameters), [
    { ...common, DestinationCidrBlock: "10.24.0.0/16" },
    { ...common, RouteEntryType: "Custom", RouteEntryName: "n" },
    { ...common, RouteEntryType: "Custom", NextHopId: "i-1" },
  ]);
});

Deno.test("readTable() and readMany() read each page once, and count what they leave out", async () => {
  const entries = Array.from({ length: 205 }, (_, n) => entry(n));
  entries.push(entry(900, { DestinationCidrBlock: "pl-abc" }));
  for (const total of [true, false]) {
    const rpc = new FakeRpc(paged(entries, { total }));
    const destinations = ["10.24.1.0/24", "10.24.2.0/24"].map((text) => Prefix.parse(text));
    const found = await clientOf(rpc).readTable("vtb-1", { signal });
    assert.deepEqual([found.entries.length, found.used, rpc.calls.length], [205, 206, 3]);
    const some = await clientOf(rpc).readMany("vtb-1", destinations, { signal });
    assert.deepEqual([some.length, rpc.calls.length], [205, 6]);
    assert.deepEqual(rpc.calls[3]?.parameters["DestCidrBlockList"], [
      "10.24.1.0/24",
      "10.24.2.0/24",
    ]);
  }
});

Deno.test("a list of entries begins anew when its token expires", async () => {
  let expired = false;
  const pages = paged(Array.from({ length: 150 }, (_, n) => entry(n)));
  const rpc = new FakeRpc((action, parameters) => {
    if (parameters["NextToken"] === undefined || expired) return pages(action, parameters);
    expired = true;
    throw fault("IllegalParam.NextTokenExpired");
  });
  const found = await readWhole(clientOf(rpc));
  assert.equal(found.length, 150);
  assert.equal(rpc.calls.length, 6);
});

Deno.test("a shifted list of entries is never passed off as whole", async () => {
  const entries = Array.from({ length: 150 }, (_, n) => entry(n));
  let shifts = 1;
  const rpc = new FakeRpc((action, parameters) => {
    // An entry of the first page is deleted before the second is read, and another one created.
    if (parameters["NextToken"] !== undefined && shifts > 0) {
      shifts--;
      entries.shift();
      entries.push(entry(500));
    }
    return paged(entries)(action, parameters);
  });
  const client = clientOf(rpc);
  const found = await readWhole(client);
  assert(
    found.some(({ entryId }) => entryId === "rte-100"),
    "the entry that slipped between the pages",
  );
  shifts = Infinity;
  await assert.rejects(readWhole(client), (error) => {
    assert(error instanceof AliApiError && error.reaction.do === "retry");
    return true;
  });
});

Deno.test("a list of entries ends where a service never stops paging", async () => {
  const rpc = new FakeRpc(() => ({ NextToken: "more", RouteEntrys: { RouteEntry: [] } }));
  await assert.rejects(readWhole(clientOf(rpc)));
});

Deno.test("listTables() reads all pages of more than ten tables", async () => {
  const tables = Array.from({ length: 61 }, (_, n) => ({
    RouteTableId: `vtb-${n}`,
    RouteTableName: n === 0 ? undefined : `name ${n}`,
    VpcId: n < 2 ? "vpc-1" : "",
    RouteTableType: "Custom",
    AssociateType: n === 60 ? "Gateway" : "VSwitch",
    VSwitchIds: n === 1 ? { VSwitchId: ["vsw-1"] } : {},
  }));
  tables.push({ ...tables[0]!, RouteTableId: "vtb-of-another", VpcId: "vpc-2" });
  const rpc = new FakeRpc((_, { PageNumber, PageSize }) => ({
    TotalCount: tables.length,
    RouterTableList: {
      RouterTableListType: tables.slice(
        (Number(PageNumber) - 1) * Number(PageSize),
        Number(PageNumber) * Number(PageSize),
      ),
    },
  }));
  const found = await clientOf(rpc).listTables({ signal });
  assert.equal(found.length, 61);
  assert.deepEqual(found[1], {
    id: "vtb-1",
    name: "name 1",
    servesInstances: true,
    isMain: false,
    subnetIds: ["vsw-1"],
  });
  assert.equal(found.at(-1)?.servesInstances, false);
});

Deno.test("an empty or malformed id in an answer is an error", async () => {
  for (const id of ["", "vtb 1", "-", 7, null, undefined, "x".repeat(500)]) {
    const rpc = new FakeRpc(() => ({
      TotalCount: 1,
      RouterTableList: { RouterTableListType: [{ RouteTableId: id }] },
    }));
    await assert.rejects(clientOf(rpc).listTables({ signal }), /RouterTableList/);
  }
});

const BATCH = [7, 8, 9].map((n): NewRoute => ({
  routeTableId: "vtb-1",
  destination: Prefix.parse(`10.24.${n}.0/24`),
  instanceId: `i-${n}`,
  mark: "n",
}));

Deno.test("create() sends what the service wants", async () => {
  const rpc = new FakeRpc(() => ({ RequestId: "r" }));
  await clientOf(rpc).create(BATCH[0]!, { token: "t", signal });
  await clientOf(rpc).tryCreate(BATCH[0]!, { signal });
  const common = {
    RegionId: "cn-x",
    RouteTableId: "vtb-1",
    DestinationCidrBlock: "10.24.7.0/24",
    NextHopType: "Instance",
    NextHopId: "i-7",
    RouteEntryName: "n",
  };
  assert.deepEqual(rpc.calls, [
    { action: "CreateRouteEntry", parameters: { ...common, ClientToken: "flanneld-t" } },
    { action: "CreateRouteEntry", parameters: { ...common, DryRun: true } },
  ]);
});

Deno.test("batches number their entries", async () => {
  const rpc = new FakeRpc(() => ({ SuccessCount: 2, FailedCount: 0, FailedRouteEntries: [] }));
  const { batches } = clientOf(rpc);
  const none = [undefined, undefined];
  assert.deepEqual(await batches.create(BATCH.slice(0, 2), { signal }), none);
  await batches.delete([{ ...BATCH[0]!, entryId: "rte-1" }], { signal });
  assert.deepEqual(rpc.calls, [
    {
      action: "CreateRouteEntries",
      parameters: {
        RegionId: "cn-x",
        RouteEntries: [7, 8].map((n) => ({
          RouteTableId: "vtb-1",
          DstCidrBlock: `10.24.${n}.0/24`,
          NextHopType: "Instance",
          NextHop: `i-${n}`,
          Name: "n",
        })),
      },
    },
    {
      action: "DeleteRouteEntries",
      parameters: {
        RegionId: "cn-x",
        RouteEntries: [{ RouteTableId: "vtb-1", RouteEntryId: "rte-1" }],
      },
    },
  ]);
});

/** What the service says of entries that it refused. */
type Refusal = Readonly<Record<string, string>>;

Deno.test("batches say which entries were refused and why, in the order of what was asked", async () => {
  const reply = (rows: readonly Refusal[], FailedCount = rows.length) => {
    const FailedRouteEntries = rows.map((row) => ({ FailedCode: "Y", ...row }));
    return clientOf(new FakeRpc(() => ({ FailedCount, FailedRouteEntries }))).batches;
  };
  const create = async (...rows: readonly Refusal[]) =>
    (await reply(rows).create(BATCH, { signal })).map((error) => error?.reaction.do);
  assert.deepEqual(await create(), [undefined, undefined, undefined]);
  const exists = { DstCidrBlock: "10.24.7.0/24", FailedCode: "InvalidCIDRBlock.Duplicate" };
  const quota = { FailedCode: "QuotaExceeded.RouteEntry", FailedMessage: "m" };
  assert.deepEqual(
    await create({ ...quota, DstCidrBlock: "10.24.9.0/24", NextHop: "i-9" }, exists),
    ["exists", undefined, "quota"],
  );
  const entries = BATCH.map((route, n) => ({ ...route, entryId: `rte-${n}` }));
  const removed = await reply([{ ...quota, RouteEntryId: "rte-1" }]).delete(entries, { signal });
  assert.deepEqual(removed.map((error) => error?.code), [undefined, quota.FailedCode, undefined]);
  const isOdd = (error: unknown) => error instanceof AliApiError && error.outcomeUnknown;
  const unasked = [
    { DstCidrBlock: "10.24.10.0/24" },
    { DstCidrBlock: "10.24.7.0/24", NextHop: "i-8" },
    { NextHop: "i-7" },
  ];
  for (const row of unasked) await assert.rejects(() => create(row), isOdd);
  await assert.rejects(
    () => reply([exists], 3).create(BATCH, { signal }),
    isOdd,
    "an answer that contradicts itself says nothing",
  );
});

Deno.test("read() tells where entries lead, and which of them are the operator's", async () => {
  const read = async (change: Record<string, unknown>) => {
    const rpc = new FakeRpc(paged([entry(7, change)]));
    const [route] = await clientOf(rpc).read("vtb-1", BATCH[0]!.destination, { signal });
    return route!;
  };
  const hops = (...pairs: readonly [type: string, id: string][]) => ({
    NextHops: { NextHop: pairs.map(([NextHopType, NextHopId]) => ({ NextHopType, NextHopId })) },
  });
  const rows: readonly (readonly [Record<string, unknown>, leads: boolean, text: string])[] = [
    [{}, true, "via i-1 in vtb-1 (rte-7)"],
    [{ Status: "Modifying" }, true, "via i-1 in vtb-1 (rte-7, Modifying)"],
    [{ Status: "Unheard-of" }, true, "via i-1 in vtb-1 (rte-7, Unheard-of)"],
    [hops(), false, "in vtb-1 (rte-7)"],
    [hops(["VpnGateway", "i-1"]), false, "via i-1 in vtb-1 (rte-7)"],
    [{ ...hops(["local", ""]), Type: "System" }, false, "via local in vtb-1 "],
    [{ Type: "CEN" }, false, "via i-1 in vtb-1 (rte-7, type CEN)"],
    [{ ServiceType: "TR" }, false, "via i-1 in vtb-1 (rte-7, managed by TR)"],
    [hops(["Instance", "i-1"], ["instance", "i-2"]), false, "via i-1, i-2 in vtb-1 (rte-7)"],
  ];
  for (const [change, leads, text] of rows) {
    const route = await read(change);
    assert.equal(leadsTo(route, "i-1"), leads, Deno.inspect(change));
    assert(formatCloudRoute(route).startsWith(`10.24.7.0/24 ${text}`), formatCloudRoute(route));
  }
  const statuses = ["Available", "Modifying", "Pending", "Deleting", "Unheard-of"];
  const states = await Promise.all(statuses.map(async (Status) => (await read({ Status })).state));
  assert.deepEqual(states, ["ready", "changing", "pending", "pending", "pending"]);
});

/** Good answers of every action; the fuzz below damages them. */
const ANSWERS: Readonly<Record<string, unknown>> = {
  DescribeVpcAttribute: {
    VpcId: "vpc-1",
    CidrBlock: "192.168.0.0/16",
    SecondaryCidrBlocks: { SecondaryCidrBlock: ["10.0.0.0/8"] },
    UserCidrs: { UserCidr: [] },
    VSwitchIds: { VSwitchId: ["vsw-1"] },
  },
  DescribeVSwitchAttributes: {
    VSwitchId: "vsw-1",
    VSwitchName: "",
    VpcId: "vpc-1",
    CidrBlock: "192.168.1.0/24",
    RouteTable: { RouteTableId: "vtb-1" },
  },
  DescribeVSwitches: {
    TotalCount: 1,
    VSwitches: {
      VSwitch: [{
        VSwitchId: "vsw-1",
        CidrBlock: "192.168.1.0/24",
        RouteTable: { RouteTableId: "vtb-1" },
      }],
    },
  },
  DescribeRouteTableList: {
    TotalCount: 1,
    RouterTableList: { RouterTableListType: [{ RouteTableId: "vtb-1", VpcId: "vpc-1" }] },
  },
  DescribeRouteEntryList: {
    NextToken: "",
    TotalCount: 1,
    RouteEntrys: { RouteEntry: [entry(1)] },
  },
  CreateRouteEntry: { RouteEntryId: "rte-1" },
  ModifyRouteEntry: {},
  DeleteRouteEntry: {},
  CreateRouteEntries: {
    SuccessCount: 1,
    FailedCount: 1,
    RouteEntryIds: ["rte-1"],
    FailedRouteEntries: [{
      DstCidrBlock: "10.24.7.0/24",
      NextHop: "i-1",
      FailedCode: "TaskConflict",
      FailedMessage: "m",
    }],
  },
  DeleteRouteEntries: { SuccessCount: 1, FailedCount: 0, FailedRouteEntries: [] },
  DescribeNetworkInterfaces: {
    NetworkInterfaceSets: {
      NetworkInterfaceSet: [{
        NetworkInterfaceId: "eni-1",
        InstanceId: "i-1",
        Type: "Primary",
        SourceDestCheck: true,
      }],
    },
  },
  ModifyNetworkInterfaceAttribute: {},
};

/** A copy of `value` without prototypes, as the library's parser gives, damaged at one place. */
function damage(value: unknown, path: readonly number[], junk: unknown): unknown {
  if (typeof value !== "object" || value === null || path.length === 0) return junk;
  const keys = Object.keys(value);
  const key = keys[path[0]! % Math.max(1, keys.length)];
  if (Array.isArray(value)) {
    return value.map((item, n) => String(n) === key ? damage(item, path.slice(1), junk) : item);
  }
  const copy = Object.create(null);
  for (const [name, item] of Object.entries(value)) {
    const hit = name === key;
    if (hit && path.length === 1 && junk === undefined) continue;
    copy[name] = hit ? damage(item, path.slice(1), junk) : item;
  }
  return copy;
}

Deno.test("whatever is missing or wrong in an answer gives a result or an AliApiError", async () => {
  const calls: ((vpc: VpcClient, ecs: EcsClient) => Promise<unknown>)[] = [
    (vpc) => vpc.cidrs({ signal }),
    (vpc) => vpc.tableOf("vsw-1", { signal }),
    (vpc) => vpc.listSubnets([], { signal }),
    (vpc) => vpc.listTables({ signal }),
    (vpc) => readWhole(vpc),
    (vpc) => vpc.count("vtb-1", { signal }),
    (vpc) => vpc.create(BATCH[0]!, { token: "t", signal }),
    (vpc) => vpc.rename({ ...BATCH[0]!, entryId: "rte-1" }, "n", { signal }),
    (vpc) => vpc.remove({ ...BATCH[0]!, entryId: "rte-1" }, { signal }),
    (vpc) => vpc.batches.create(BATCH, { signal }),
    (vpc) => vpc.batches.delete([{ ...BATCH[0]!, entryId: "rte-1" }], { signal }),
    (vpc) => vpc.readTable("vtb-1", { signal }),
    (_, ecs) => ecs.read(["eni-1"], { signal }),
    (_, ecs) => ecs.disableCheck("eni-1", { signal }),
  ];
  await fc.assert(
    fc.asyncProperty(
      fc.nat(calls.length - 1),
      fc.array(fc.nat(8), { maxLength: 6 }),
      fc.oneof(
        fc.constant(undefined),
        fc.constant(null),
        fc.constant({}),
        fc.constant([]),
        fc.string(),
        fc.integer(),
        fc.boolean(),
        fc.jsonValue(),
      ),
      async (which, path, junk) => {
        const rpc = new FakeRpc((action) => damage(ANSWERS[action], path, junk));
        try {
          await calls[which]!(clientOf(rpc), new EcsClient(rpc, "x"));
        } catch (error) {
          assert(error instanceof AliApiError, Deno.inspect(error));
        }
      },
    ),
    { numRuns: 1500 },
  );
});

Deno.test("the answers that the fuzz damages are good before", async () => {
  const rpc = new FakeRpc((action) => ANSWERS[action]);
  const vpc = clientOf(rpc);
  const ecs = new EcsClient(rpc, "x");
  assert.equal((await vpc.cidrs({ signal })).length, 2);
  assert.equal((await vpc.listSubnets([], { signal }))[0]?.routeTableId, "vtb-1");
  assert.equal((await vpc.listTables({ signal })).length, 1);
  assert.equal((await readWhole(vpc)).length, 1);
  assert.equal(await vpc.count("vtb-1", { signal }), 1);
  const [found, ...others] = await ecs.read(["eni-1", "eni-2"], { signal });
  assert.deepEqual([found?.id, found?.sourceDestCheck, others.length], ["eni-1", true, 0]);
  assert.deepEqual(await ecs.read(["eni-2"], { signal }), []);
});

Deno.test("instanceExists() is sure only of a whole, empty answer", async () => {
  const none = { NetworkInterfaceSets: { NetworkInterfaceSet: [] } };
  const row = { NetworkInterfaceId: "eni-1", InstanceId: "i-1" };
  const one = { NetworkInterfaceSets: { NetworkInterfaceSet: [row] } };
  const answers: [object[], boolean, number][] = [
    [[none], false, 1],
    [[one], true, 1],
    [[{ ...none, NextToken: "a" }, none], false, 2],
    [[{ ...none, NextToken: "a" }, one], true, 2],
    // A service that pages for ever has told nothing.
    [Array(9).fill({ ...none, NextToken: "a" }), true, 5],
  ];
  for (const [pages, exists, calls] of answers) {
    const rest = [...pages];
    const rpc = new FakeRpc(() => rest.shift());
    assert.equal(await new EcsClient(rpc, "x").instanceExists("i-1", { signal }), exists);
    assert.equal(rpc.calls.length, calls);
  }
  const rpc = new FakeRpc(() => none);
  // Without an id it would list every interface of the account.
  await assert.rejects(() => new EcsClient(rpc, "x").instanceExists("", { signal }), RangeError);
  assert.equal(rpc.calls.length, 0);
});

Deno.test("EcsClient.read() follows pages, and never asks for all of the account", async () => {
  const ids = ["eni-1", "eni-2", "eni-3", "eni-4"];
  const tokens: unknown[] = [];
  const page = (at: number) => ({
    NextToken: `page-${at + 1}`,
    NetworkInterfaceSets: {
      NetworkInterfaceSet: [
        { NetworkInterfaceId: ids[at], InstanceId: "i-1", VpcId: "vpc-1", Type: "Primary" },
        { NetworkInterfaceId: "eni-of-others", InstanceId: "i-2" },
      ],
    },
  });
  const rpc = new FakeRpc((_, parameters) => {
    tokens.push(parameters["NextToken"]);
    return page(tokens.length - 1);
  });
  const ecs = new EcsClient(rpc, "x");
  const found = await ecs.read(ids, { signal });
  assert.deepEqual(found.map((each) => each.id), ids);
  assert.deepEqual(tokens, [undefined, "page-1", "page-2", "page-3"]);
  // Of a service that pages for ever, what it has not shown cannot be said not to exist.
  for (const pages of [1, 3]) {
    let call = 0;
    const endless = new FakeRpc(() => page(call++ % pages));
    await assert.rejects(
      new EcsClient(endless, "x").read([...ids, "eni-5"], { signal }),
      { name: "AliApiError", code: "EndlessList" },
    );
    assert(endless.calls.length <= 5);
  }
  await assert.rejects(() => ecs.read([], { signal }), {
    name: "RangeError",
    message: "Cannot describe network interfaces: got 0 ids",
  });
  await assert.rejects(() => ecs.read(Array(101).fill("eni-1"), { signal }));
});

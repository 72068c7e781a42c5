import assert from "node:assert/strict";
import fc from "fast-check";
import * as v from "valibot";
import { Prefix } from "../../net/mod.ts";
import { EcsClient } from "./ecs_client.ts";
import { VpcClient } from "./vpc_client.ts";
import { AliApiError } from "./errors.ts";
import type { Parameter, Rpc } from "./rpc.ts";

const { signal } = new AbortController();

/** An Rpc whose answers are made up; it checks them as the real one does. */
class FakeRpc implements Rpc {
  readonly service = "vpc";
  readonly calls: { action: string; parameters: Readonly<Record<string, Parameter>> }[] = [];
  readonly #answer: (action: string, parameters: Readonly<Record<string, Parameter>>) => unknown;

  constructor(
    answer: (action: string, parameters: Readonly<Record<string, Parameter>>) => unknown,
  ) {
    this.#answer = answer;
  }

  async call<Schema extends v.GenericSchema>(
    action: string,
    parameters: Readonly<Record<string, Parameter>>,
    schema: Schema,
  ): Promise<v.InferOutput<Schema>> {
    this.calls.push({ action, parameters });
    const parsed = v.safeParse(schema, await this.#answer(action, parameters));
    if (parsed.success) return parsed.output;
    throw fault("UnexpectedAnswer", `${v.getDotPath(parsed.issues[0])}`);
  }

  [Symbol.asyncDispose](): Promise<void> {
    return Promise.resolve();
  }
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
  return (_action: string, { NextToken }: Readonly<Record<string, Parameter>>) => {
    const offset = Number(NextToken ?? 0);
    return {
      NextToken: offset + size < entries.length ? String(offset + size) : "",
      ...(total ? { TotalCount: entries.length } : {}),
      RouteEntrys: { RouteEntry: entries.slice(offset, offset + size) },
    };
  };
}

Deno.test("describeRouteEntryList() follows every page and leaves out prefix lists", async () => {
  const entries = Array.from({ length: 205 }, (_, n) => entry(n));
  entries.push(entry(900, { DestinationCidrBlock: "pl-abc" }));
  entries.push(entry(901, { DestinationCidrBlock: "192.0.2.1", NextHops: null, Type: "System" }));
  const rpc = new FakeRpc(paged(entries));
  const found = await new VpcClient(rpc, "cn-x").describeRouteEntryList(
    "vtb-1",
    { destination: Prefix.parse("10.24.0.0/16"), type: "Custom", name: "n", nextHopId: "i-1" },
    { signal },
  );
  assert.equal(found.length, 206);
  assert.equal(found.at(-1)?.destination.toString(), "192.0.2.1/32");
  assert.deepEqual(found.at(-1)?.nextHops, []);
  assert.deepEqual(found[0]?.nextHops, [{ type: "instance", id: "i-1" }]);
  assert.equal(rpc.calls.length, 6, "three pages, twice");
  assert.deepEqual(rpc.calls[0]?.parameters, {
    RegionId: "cn-x",
    RouteTableId: "vtb-1",
    RouteEntryType: "Custom",
    RouteEntryName: "n",
    DestinationCidrBlock: "10.24.0.0/16",
    DestCidrBlockList: undefined,
    NextHopId: "i-1",
    MaxResult: 100,
    NextToken: undefined,
  });
});

Deno.test("describeRouteEntryListOnce() reads each page once, and counts what it leaves out", async () => {
  const entries = Array.from({ length: 205 }, (_, n) => entry(n));
  entries.push(entry(900, { DestinationCidrBlock: "pl-abc" }));
  for (const total of [true, false]) {
    const rpc = new FakeRpc(paged(entries, { total }));
    const destinations = ["10.24.1.0/24", "10.24.2.0/24"].map((text) => Prefix.parse(text));
    const found = await new VpcClient(rpc, "cn-x")
      .describeRouteEntryListOnce("vtb-1", { destinations }, { signal });
    assert.deepEqual([found.entries.length, found.count, rpc.calls.length], [205, 206, 3]);
    assert.deepEqual(rpc.calls[0]?.parameters["DestCidrBlockList"], [
      "10.24.1.0/24",
      "10.24.2.0/24",
    ]);
  }
});

Deno.test("describeRouteEntryList() begins anew when its token expires", async () => {
  let expired = false;
  const pages = paged(Array.from({ length: 150 }, (_, n) => entry(n)));
  const rpc = new FakeRpc((action, parameters) => {
    if (parameters["NextToken"] === undefined || expired) return pages(action, parameters);
    expired = true;
    throw fault("IllegalParam.NextTokenExpired");
  });
  const found = await new VpcClient(rpc, "cn-x").describeRouteEntryList("vtb-1", {}, { signal });
  assert.equal(found.length, 150);
  assert.equal(rpc.calls.length, 6);
});

Deno.test("describeRouteEntryList() never passes off a shifted listing as whole", async () => {
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
  const client = new VpcClient(rpc, "cn-x");
  const found = await client.describeRouteEntryList("vtb-1", {}, { signal });
  assert(found.some(({ id }) => id === "rte-100"), "the entry that slipped between the pages");
  shifts = Infinity;
  await assert.rejects(client.describeRouteEntryList("vtb-1", {}, { signal }), (error) => {
    assert(error instanceof AliApiError && error.reaction.do === "retry");
    return true;
  });
});

Deno.test("describeRouteEntryList() ends where a service never stops paging", async () => {
  const rpc = new FakeRpc(() => ({ NextToken: "more", RouteEntrys: { RouteEntry: [] } }));
  await assert.rejects(new VpcClient(rpc, "x").describeRouteEntryList("vtb-1", {}, { signal }));
});

Deno.test("describeRouteTableList() reads all pages of more than ten tables", async () => {
  const tables = Array.from({ length: 61 }, (_, n) => ({
    RouteTableId: `vtb-${n}`,
    RouteTableName: n === 0 ? undefined : `name ${n}`,
    VpcId: "vpc-1",
    RouteTableType: "Custom",
    AssociateType: n === 60 ? "Gateway" : "VSwitch",
    VSwitchIds: n === 1 ? { VSwitchId: ["vsw-1"] } : {},
  }));
  const rpc = new FakeRpc((_, { PageNumber, PageSize }) => ({
    TotalCount: tables.length,
    RouterTableList: {
      RouterTableListType: tables.slice(
        (Number(PageNumber) - 1) * Number(PageSize),
        Number(PageNumber) * Number(PageSize),
      ),
    },
  }));
  const found = await new VpcClient(rpc, "x").describeRouteTableList({ vpcId: "vpc-1" }, {
    signal,
  });
  assert.equal(found.length, 61);
  assert.deepEqual(found[1], {
    id: "vtb-1",
    name: "name 1",
    vpcId: "vpc-1",
    type: "Custom",
    associateType: "VSwitch",
    vSwitchIds: ["vsw-1"],
  });
  assert.equal(found.at(-1)?.associateType, "Gateway");
});

Deno.test("an empty or malformed id in an answer is an error", async () => {
  for (const id of ["", "vtb 1", "-", 7, null, undefined, "x".repeat(500)]) {
    const rpc = new FakeRpc(() => ({
      TotalCount: 1,
      RouterTableList: { RouterTableListType: [{ RouteTableId: id }] },
    }));
    await assert.rejects(
      new VpcClient(rpc, "x").describeRouteTableList({}, { signal }),
      /RouterTableList/,
    );
  }
});

Deno.test("createRouteEntry() sends what the service wants", async () => {
  const rpc = new FakeRpc(() => ({ RequestId: "r" }));
  await new VpcClient(rpc, "cn-x").createRouteEntry({
    routeTableId: "vtb-1",
    destination: Prefix.parse("10.24.7.0/24"),
    instanceId: "i-1",
    name: "n",
    clientToken: "t",
    signal,
  });
  assert.deepEqual(rpc.calls[0], {
    action: "CreateRouteEntry",
    parameters: {
      RegionId: "cn-x",
      RouteTableId: "vtb-1",
      DestinationCidrBlock: "10.24.7.0/24",
      NextHopType: "Instance",
      NextHopId: "i-1",
      RouteEntryName: "n",
      ClientToken: "t",
      DryRun: undefined,
    },
  });
});

const BATCH = [7, 8].map((n) => ({
  routeTableId: "vtb-1",
  destination: Prefix.parse(`10.24.${n}.0/24`),
  instanceId: `i-${n}`,
  name: "n",
}));

Deno.test("createRouteEntries() and deleteRouteEntries() number their entries", async () => {
  const rpc = new FakeRpc(() => ({ SuccessCount: 2, FailedCount: 0, FailedRouteEntries: [] }));
  const client = new VpcClient(rpc, "cn-x");
  assert.deepEqual(await client.createRouteEntries(BATCH, { signal }), []);
  await client.deleteRouteEntries([{ routeTableId: "vtb-1", entryId: "rte-1" }], { signal });
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

Deno.test("createRouteEntries() says which entries were refused, and why", async () => {
  const rows = [
    {
      DstCidrBlock: "10.24.7.0/24",
      NextHop: "i-7",
      FailedCode: "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE",
      FailedMessage: "it is there",
    },
    { RouteEntryId: "rte-8", FailedCode: "QuotaExceeded.RouteEntry" },
  ];
  const client = (reply: unknown) => new VpcClient(new FakeRpc(() => reply), "cn-x");
  const refused = await client({ FailedCount: 2, FailedRouteEntries: rows })
    .createRouteEntries(BATCH, { signal });
  assert.deepEqual(
    refused.map(({ destination, nextHop, entryId, error }) => [
      destination?.toString(),
      nextHop,
      entryId,
      error.code,
      error.reaction.do,
    ]),
    [
      ["10.24.7.0/24", "i-7", undefined, "VPC_ROUTE_ENTRY_CIDR_BLOCK_DUPLICATE", "exists"],
      [undefined, "", "rte-8", "QuotaExceeded.RouteEntry", "quota"],
    ],
  );
  await assert.rejects(
    client({ FailedCount: 3, FailedRouteEntries: rows }).createRouteEntries(BATCH, { signal }),
    (error) => error instanceof AliApiError && error.outcomeUnknown,
    "an answer that contradicts itself says nothing",
  );
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
    (vpc) => vpc.describeVpcAttribute("vpc-1", { signal }),
    (vpc) => vpc.describeVSwitchAttributes("vsw-1", { signal }),
    (vpc) => vpc.describeVSwitches("vpc-1", { signal }),
    (vpc) => vpc.describeRouteTableList({ vpcId: "vpc-1" }, { signal }),
    (vpc) => vpc.describeRouteEntryList("vtb-1", {}, { signal }),
    (vpc) => vpc.countCustomRouteEntries("vtb-1", { signal }),
    (vpc) =>
      vpc.createRouteEntry({
        routeTableId: "vtb-1",
        destination: Prefix.parse("10.24.7.0/24"),
        instanceId: "i-1",
        name: "n",
        signal,
      }),
    (vpc) => vpc.modifyRouteEntry("rte-1", { name: "n" }, { signal }),
    (vpc) => vpc.deleteRouteEntry("rte-1", { signal }),
    (vpc) => vpc.createRouteEntries(BATCH, { signal }),
    (vpc) => vpc.deleteRouteEntries([{ routeTableId: "vtb-1", entryId: "rte-1" }], { signal }),
    (vpc) => vpc.describeRouteEntryListOnce("vtb-1", {}, { signal }),
    (_, ecs) => ecs.describeNetworkInterfaces(["eni-1"], { signal }),
    (_, ecs) => ecs.setSourceDestCheck("eni-1", false, { signal }),
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
          await calls[which]!(new VpcClient(rpc, "x"), new EcsClient(rpc, "x"));
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
  const vpc = new VpcClient(rpc, "x");
  const ecs = new EcsClient(rpc, "x");
  assert.equal((await vpc.describeVpcAttribute("vpc-1", { signal })).cidrs.length, 2);
  assert.equal((await vpc.describeVSwitches("vpc-1", { signal }))[0]?.routeTableId, "vtb-1");
  assert.equal((await vpc.describeRouteTableList({}, { signal })).length, 1);
  assert.equal((await vpc.describeRouteEntryList("vtb-1", {}, { signal })).length, 1);
  assert.equal(await vpc.countCustomRouteEntries("vtb-1", { signal }), 1);
  const [found, ...others] = await ecs.describeNetworkInterfaces(["eni-1", "eni-2"], { signal });
  assert.deepEqual([found?.id, found?.sourceDestCheck, others.length], ["eni-1", true, 0]);
  assert.deepEqual(await ecs.describeNetworkInterfaces(["eni-2"], { signal }), []);
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

Deno.test("describeNetworkInterfaces() follows pages, and never asks for all of the account", async () => {
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
  const found = await ecs.describeNetworkInterfaces(ids, { signal });
  assert.deepEqual(found.map((each) => each.id), ids);
  assert.deepEqual(tokens, [undefined, "page-1", "page-2", "page-3"]);
  // Of a service that pages for ever, what it has not shown cannot be said not to exist.
  for (const pages of [1, 3]) {
    let call = 0;
    const endless = new FakeRpc(() => page(call++ % pages));
    await assert.rejects(
      new EcsClient(endless, "x").describeNetworkInterfaces([...ids, "eni-5"], { signal }),
      { name: "AliApiError", code: "EndlessList" },
    );
    assert(endless.calls.length <= 5);
  }
  await assert.rejects(() => ecs.describeNetworkInterfaces([], { signal }), {
    name: "RangeError",
    message: "Cannot describe network interfaces: got 0 ids",
  });
  await assert.rejects(() => ecs.describeNetworkInterfaces(Array(101).fill("eni-1"), { signal }));
});

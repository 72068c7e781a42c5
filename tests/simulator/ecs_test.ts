import assert from "node:assert/strict";
import { EXAMPLE } from "./example.ts";
import { codeOf, failureOf, TestBench } from "./testing.ts";

const ENI = "eni-node-1";

Deno.test("interfaces start with the source/destination check on, and it can be turned off", async () => {
  await using bench = await TestBench.start();
  const check = async () => {
    const body = await bench.ecs("DescribeNetworkInterfaces", { NetworkInterfaceId: [ENI] });
    return body.NetworkInterfaceSets.NetworkInterfaceSet[0].SourceDestCheck;
  };
  assert.equal(await check(), true);
  await bench.ecs("ModifyNetworkInterfaceAttribute", {
    NetworkInterfaceId: ENI,
    SourceDestCheck: false,
  });
  assert.equal(await check(), false);
  const { networkInterfaces } = bench.cloud.snapshot();
  assert.equal(networkInterfaces.find((each) => each.id === ENI)?.sourceDestCheck, false);
  assert.ok(bench.simulator.requests.at(-2)?.performed);
});

Deno.test("a change of an interface may meet a conflict once, or a denial", async () => {
  await using bench = await TestBench.start();
  const modify = () =>
    bench.ecs("ModifyNetworkInterfaceAttribute", {
      NetworkInterfaceId: ENI,
      SourceDestCheck: false,
    });
  bench.cloud.addFault({
    match: { action: "ModifyNetworkInterfaceAttribute" },
    times: 1,
    effect: { kind: "error", status: 400, code: "InvalidOperation.Conflict" },
  });
  assert.equal(await codeOf(modify()), "InvalidOperation.Conflict");
  await modify();
  bench.cloud.setBehaviour({ interfaceConflictProbability: 1 });
  assert.equal(await codeOf(modify()), "InvalidOperation.Conflict");
  bench.cloud.denyAction("ecs:ModifyNetworkInterfaceAttribute");
  assert.equal((await failureOf(modify())).status, 403);
});

Deno.test("DescribeNetworkInterfaces() filters, pages, and leaves out what is unknown", async () => {
  await using bench = await TestBench.start();
  const find = async (params: object) => {
    const body = await bench.ecs("DescribeNetworkInterfaces", params);
    return body.NetworkInterfaceSets.NetworkInterfaceSet
      .map((each: { NetworkInterfaceId: string }) => each.NetworkInterfaceId);
  };
  assert.deepEqual(await find({ InstanceId: EXAMPLE.instanceIds[1], Type: "Primary" }), [
    "eni-node-2",
  ]);
  assert.deepEqual(await find({ NetworkInterfaceId: ["eni-none"] }), []);
  assert.deepEqual(await find({ VSwitchId: "vsw-h" }), ["eni-node-3"]);
  const small = bench.ecs("DescribeNetworkInterfaces", { MaxResults: 5 });
  assert.equal(await codeOf(small), "InvalidParameter");
  assert.equal(
    await codeOf(bench.ecs("ModifyNetworkInterfaceAttribute", {
      NetworkInterfaceId: "eni-none",
      SourceDestCheck: false,
    })),
    "InvalidEniId.NotFound",
  );
});

Deno.test("DescribeInstances() wants its ids as a JSON array in a string", async () => {
  await using bench = await TestBench.start();
  const body = await bench.ecs("DescribeInstances", {
    InstanceIds: JSON.stringify([EXAMPLE.instanceIds[2]]),
  });
  const [instance] = body.Instances.Instance;
  assert.equal(instance.VpcAttributes.VSwitchId, "vsw-h");
  assert.equal(instance.NetworkInterfaces.NetworkInterface[0].NetworkInterfaceId, "eni-node-3");
  const bare = bench.ecs("DescribeInstances", { InstanceIds: "i-node-1" });
  assert.equal(await codeOf(bare), "InvalidParameter");
  const page = await bench.ecs("DescribeInstances", { MaxResults: 2 });
  assert.equal(page.Instances.Instance.length, 2);
  const next = await bench.ecs("DescribeInstances", { MaxResults: 2, NextToken: page.NextToken });
  assert.equal(next.Instances.Instance[0].InstanceId, EXAMPLE.instanceIds[2]);
});

import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { EXAMPLE } from "./example.ts";
import type { FaultConfig } from "./mod.ts";
import { codeOf, failureOf, TestBench } from "./testing.ts";

const CIDR = "10.24.1.0/24";

/** A bench whose creates meet `effect`, once. */
async function benchWith(effect: FaultConfig["effect"]): Promise<TestBench> {
  const bench = await TestBench.start();
  bench.cloud.addFault({ match: { action: "CreateRouteEntry" }, times: 1, effect });
  return bench;
}

function exists(bench: TestBench): boolean {
  return bench.cloud.routes.at(EXAMPLE.systemTableId, CIDR) !== undefined;
}

Deno.test("drop: the connection ends and nothing was done", async () => {
  await using bench = await benchWith({ kind: "drop" });
  await assert.rejects(bench.create(CIDR));
  assert.equal(exists(bench), false);
  assert.deepEqual(bench.simulator.requests.map((each) => [each.code, each.performed]), [
    ["dropped", false],
  ]);
  await bench.create(CIDR);
});

Deno.test("performThenDrop: the connection ends and the route is there", async () => {
  await using bench = await benchWith({ kind: "performThenDrop" });
  await assert.rejects(bench.create(CIDR));
  assert.equal(exists(bench), true);
  assert.deepEqual(bench.simulator.requests.map((each) => [each.code, each.performed]), [
    ["dropped", true],
  ]);
});

Deno.test("slowTask: what the call began takes as long as is said", async () => {
  await using bench = await benchWith({ kind: "slowTask", taskMs: 5_000 });
  await bench.create(CIDR);
  const statusAfter = (ms: number) => {
    bench.clock.advance(ms);
    bench.cloud.settle();
    return bench.cloud.routes.at(EXAMPLE.systemTableId, CIDR)?.status;
  };
  assert.equal(statusAfter(4_999), "Pending");
  assert.equal(statusAfter(1), "Available");
});

Deno.test("performThenError: an error is answered and the route is there", async () => {
  await using bench = await benchWith({
    kind: "performThenError",
    status: 500,
    code: "InternalError",
  });
  const failure = await failureOf(bench.create(CIDR));
  assert.deepEqual([failure.status, failure.code], [500, "InternalError"]);
  assert.equal(exists(bench), true);
});

Deno.test("truncate: half an answer, and the route is there", async () => {
  await using bench = await benchWith({ kind: "truncate" });
  await assert.rejects(bench.create(CIDR));
  assert.equal(exists(bench), true);
});

Deno.test("html: a proxy's page; empty: nothing at all; nothing was done", async () => {
  await using bench = await benchWith({ kind: "html", status: 502 });
  // pop-core throws a plain object here; it has neither code nor data.
  assert.equal((await failureOf(bench.create(CIDR))).code, undefined);
  bench.cloud.addFault({ times: 1, effect: { kind: "empty" } });
  assert.equal((await failureOf(bench.create(CIDR))).code, undefined);
  assert.equal(exists(bench), false);
  assert.deepEqual(bench.simulator.requests.map((each) => each.status), [502, 204]);
});

Deno.test("error: any status and code, or a body without Code", async () => {
  await using bench = await benchWith({ kind: "error", status: 503, code: "ServiceUnavailable" });
  assert.equal(await codeOf(bench.create(CIDR)), "ServiceUnavailable");
  bench.cloud.addFault({ times: 1, effect: { kind: "error", status: 500 } });
  // pop-core takes a 500 without Code for success: whoever calls must look at the shape.
  assert.equal((await bench.create(CIDR)).RouteEntryId, undefined);
  assert.equal(exists(bench), false);
});

Deno.test("delay and delayAnswer: late, before or after the call is carried out", async () => {
  await using bench = await benchWith({ kind: "delayAnswer", delayMs: 100 });
  const begun = performance.now();
  await bench.create(CIDR);
  assert.ok(performance.now() - begun >= 90);
  bench.cloud.addFault({ times: 1, effect: { kind: "delay", delayMs: 100 } });
  const again = performance.now();
  await bench.list();
  assert.ok(performance.now() - again >= 90);
});

Deno.test("hang: no answer until the caller gives up", async () => {
  await using bench = await TestBench.start();
  bench.cloud.addFault({ effect: { kind: "hang" } });
  const signal = AbortSignal.timeout(500);
  await assert.rejects(fetch(bench.simulator.vpcEndpoint, { signal }), { name: "TimeoutError" });
  // It learns a little later that the caller has gone.
  await eventually(() => bench.simulator.requests[0]?.code === "no answer", {
    signal: AbortSignal.timeout(10_000),
    title: "the simulator to note the call",
  });
});

Deno.test("rules can skip, stop, hold for a time, name a caller, and be removed", async () => {
  await using bench = await TestBench.start();
  const error = { kind: "error", status: 400, code: "Throttling.User" } as const;
  const call = () => bench.vpc("DescribeVpcs").then(() => "OK", (e: { code: string }) => e.code);
  bench.cloud.addFault({ skip: 1, times: 1, effect: error });
  assert.deepEqual([await call(), await call(), await call()], ["OK", "Throttling.User", "OK"]);
  bench.cloud.addFault({ durationMs: 1000, effect: error });
  assert.equal(await call(), "Throttling.User");
  bench.clock.advance(1000);
  assert.equal(await call(), "OK");
  bench.cloud.addFault({ match: { accessKeyId: "somebody" }, effect: error });
  assert.equal(await call(), "OK");
  const id = bench.cloud.addFault({ match: { action: "Describe*" }, effect: error });
  assert.equal(await call(), "Throttling.User");
  bench.cloud.removeFault(id);
  assert.equal(await call(), "OK");
  bench.cloud.addFault({ probability: 0, effect: error });
  assert.equal(await call(), "OK");
});

Deno.test("a connection serves several calls, also after an error", async () => {
  await using bench = await TestBench.start();
  const connection = await Deno.connect({
    hostname: "127.0.0.1",
    port: Number(new URL(bench.simulator.vpcEndpoint).port),
  });
  const buffer = new Uint8Array(4096);
  for (let i = 0; i < 2; i++) {
    await connection.write(new TextEncoder().encode("GET /?Action=X HTTP/1.1\r\nHost: x\r\n\r\n"));
    const count = await connection.read(buffer);
    const text = new TextDecoder().decode(buffer.subarray(0, count ?? 0));
    assert.match(text, /^HTTP\/1\.1 400 .*\r\nConnection: keep-alive\r\n\r\n\{/s);
  }
  connection.close();
});

Deno.test("a chunked body is read whole", async () => {
  await using bench = await TestBench.start();
  const body = ReadableStream.from(
    ["Action=Descri", "beVpcs&Version=1"].map((text) => new TextEncoder().encode(text)),
  );
  const response = await fetch(bench.simulator.vpcEndpoint, {
    method: "POST",
    headers: { "content-type": "application/x-www-form-urlencoded" },
    body,
  });
  assert.equal((await response.json()).Code, "InvalidVersion");
});

Deno.test("a fault of one route table leaves the others alone", async () => {
  await using bench = await TestBench.start();
  bench.cloud.addFault({
    match: { routeTableId: EXAMPLE.customTableId },
    effect: { kind: "error", status: 500, code: "InternalError" },
  });
  const batch = (routeTableId: string) => ({
    "RouteEntries.1.RouteTableId": routeTableId,
    "RouteEntries.1.DstCidrBlock": CIDR,
    "RouteEntries.1.NextHop": EXAMPLE.instanceIds[0]!,
    "RouteEntries.1.NextHopType": "Instance",
  });
  assert.equal(
    await codeOf(bench.vpc("CreateRouteEntries", batch(EXAMPLE.customTableId))),
    "InternalError",
  );
  await bench.vpc("CreateRouteEntries", batch(EXAMPLE.systemTableId));
  assert.equal(exists(bench), true);
});

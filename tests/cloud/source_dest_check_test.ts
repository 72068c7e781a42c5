/** The source/destination check against the simulated cloud: how often it is asked for. */
import assert from "node:assert/strict";
import { EXAMPLE, exampleConfig } from "../simulator/example.ts";
import { startSimulator } from "../simulator/mod.ts";
import { LineLog, openOn, writes } from "./support.ts";

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

import assert from "node:assert/strict";
import { FakeKernel, type FakeNetlink } from "../../tests/fakes/fake_netlink.ts";
import type { NetlinkEvent } from "./netlink.ts";
import { watchKernel, type WatchKernelOptions } from "./watch_kernel.ts";

/** The kinds of events before each of `count` calls of `onChange`, while `act` changes the kernel. */
async function watch(
  netlink: FakeNetlink,
  count: number,
  act: () => void,
  options: Partial<WatchKernelOptions> = {},
): Promise<string[][]> {
  const calls: string[][] = [];
  let kinds = new Set<string>();
  const controller = new AbortController();
  const watching = watchKernel(netlink, {
    signal: controller.signal,
    foldMs: 5,
    note({ kind }: NetlinkEvent) {
      kinds.add(kind);
      return true;
    },
    onChange() {
      calls.push([...kinds]);
      kinds = new Set();
      if (calls.length === count) controller.abort(new Error("seen enough"));
    },
    onError: (error) => assert.fail(String(error)),
    ...options,
  });
  act();
  await assert.rejects(watching, /seen enough/);
  return calls;
}

Deno.test("watchKernel() reports the first change at once and folds those that follow", async () => {
  const kernel = new FakeKernel();
  await using netlink = kernel.open();
  const calls = await watch(netlink, 2, () => {
    kernel.addLink("eth0");
    setTimeout(() => {
      for (let i = 0; i < 50; i++) kernel.addAddress("eth0", `192.0.2.${i + 1}/32`);
      kernel.addRoute("10.0.0.0/8", { dev: "eth0" });
    }, 0);
  });
  assert.deepEqual(calls, [["link"], ["address", "route"]]);
});

Deno.test("watchKernel() reports that events were lost", async () => {
  const kernel = new FakeKernel();
  await using netlink = kernel.open();
  assert.deepEqual(await watch(netlink, 1, () => kernel.loseEvents()), [["lost"]]);
});

Deno.test("watchKernel() leaves out what is irrelevant", async () => {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  await using netlink = kernel.open();
  const seen: string[] = [];
  const note = ({ kind }: NetlinkEvent) => {
    seen.push(kind);
    return kind === "address";
  };
  await watch(netlink, 1, () => {
    kernel.addRoute("10.0.0.0/8", { dev: "eth0", protocol: 3 });
    setTimeout(() => kernel.addAddress("eth0", "192.0.2.1/32"), 20);
  }, { note });
  assert.deepEqual(seen, ["route", "address"]);
});

Deno.test("watchKernel() subscribes again after a failure and reports lost events", async () => {
  const kernel = new FakeKernel();
  await using netlink = kernel.open();
  const errors: unknown[] = [];
  const subscribe = netlink.subscribe.bind(netlink);
  netlink.subscribe = (options) => {
    if (errors.length === 0) throw new Error("no buffer space");
    return subscribe(options);
  };
  const calls = await watch(netlink, 1, () => {}, { onError: (error) => errors.push(error) });
  assert.deepEqual(calls, [["lost"]]);
  assert.match(String(errors[0]), /no buffer space/);
});

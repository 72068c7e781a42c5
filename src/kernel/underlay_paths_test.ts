import assert from "node:assert/strict";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { Address, Prefix } from "../net/mod.ts";
import { UnderlayPaths } from "./underlay_paths.ts";

const { signal } = new AbortController();
const addresses = (...texts: string[]) => texts.map((text) => Address.parse(text));
const own = Prefix.parse("10.244.0.0/16");
const isOwn = (destination: Prefix) => own.contains(destination);

/** A kernel with two links, a point-to-point one, a default route, and its look-ups counted. */
function openKernel() {
  const kernel = new FakeKernel();
  const eth0 = kernel.addLink("eth0");
  kernel.addAddress("eth0", "192.0.2.1/24");
  kernel.addRoute("192.0.2.0/24", { dev: "eth0", scope: "link" });
  const wg0 = kernel.addLink("wg0", { withoutNeighbors: true });
  kernel.addRoute("198.51.100.0/24", { dev: "wg0", scope: "link" });
  kernel.addRoute("203.0.113.0/24", { dev: "eth0", gateway: Address.parse("192.0.2.254") });
  const netlink = kernel.open();
  const asked: string[] = [];
  const underlay = new UnderlayPaths(
    new Proxy(netlink, {
      get(target, name) {
        if (name === "routeGetAll") {
          return (list: readonly Address[], options: { signal: AbortSignal }) => {
            asked.push(...list.map(String));
            return target.routeGetAll(list, options);
          };
        }
        const value = Reflect.get(target, name, target);
        return typeof value === "function" ? value.bind(target) : value;
      },
    }),
  );
  const takeAsked = () => asked.splice(0);
  return {
    kernel,
    underlay,
    takeAsked,
    eth0,
    wg0,
    [Symbol.asyncDispose]: () => netlink[Symbol.asyncDispose](),
  };
}

Deno.test("UnderlayPaths tells direct peers from others, and why", async () => {
  await using opened = openKernel();
  const { underlay } = opened;
  const paths = await underlay.update(
    addresses("192.0.2.7", "198.51.100.7", "203.0.113.7", "192.0.2.1", "100.64.0.1"),
    { signal },
  );
  assert.deepEqual(Object.fromEntries(paths), {
    "192.0.2.7": { direct: true, link: "eth0" },
    "198.51.100.7": {
      direct: false,
      link: "wg0",
      reason: "link wg0 is point-to-point or without ARP",
    },
    "203.0.113.7": { direct: false, reason: "through gateway 192.0.2.254 on eth0" },
    "192.0.2.1": { direct: false, reason: "it is an address of this host" },
    "100.64.0.1": { direct: false, reason: "there is no route to it" },
  });
});

Deno.test("UnderlayPaths asks for new addresses only, until the underlay changes", async () => {
  await using opened = openKernel();
  const { underlay, takeAsked, kernel, eth0 } = opened;
  const first = await underlay.update(addresses("192.0.2.7"), { signal });
  assert.deepEqual(takeAsked(), ["192.0.2.7"]);
  assert.equal(await underlay.update(addresses("192.0.2.7"), { signal }), first);
  assert.deepEqual(takeAsked(), []);
  const second = await underlay.update(addresses("192.0.2.7", "192.0.2.8"), { signal });
  assert.notEqual(second, first);
  assert.deepEqual(takeAsked(), ["192.0.2.8"]);
  const third = await underlay.update(addresses("192.0.2.8"), { signal });
  assert.deepEqual([...third.keys()], ["192.0.2.8"]);
  assert.deepEqual(takeAsked(), []);

  // What leads to pods, or is about links that no path uses, is no change of the underlay.
  assert.equal(
    underlay.observe(
      { kind: "route", removed: false, destination: Prefix.parse("10.244.1.0/24") },
      isOwn,
    ),
    false,
  );
  assert.equal(underlay.observe({ kind: "link", removed: false, linkIndex: 99 }, isOwn), false);
  assert.equal(
    underlay.observe({ kind: "neighbor", removed: false, linkIndex: eth0.index }, isOwn),
    false,
  );
  assert.equal(underlay.isStale, false);

  // A change that changes no answer leaves the object as it is.
  for (
    const event of [
      { kind: "route", removed: false, destination: Prefix.parse("192.0.2.0/24") },
      { kind: "route", removed: true },
      { kind: "link", removed: false, linkIndex: eth0.index },
      { kind: "rule", removed: false },
      { kind: "lost" },
    ] as const
  ) {
    assert.equal(underlay.observe(event, isOwn), true);
    assert.equal(underlay.isStale, true);
    assert.equal(await underlay.update(addresses("192.0.2.8"), { signal }), third);
    assert.deepEqual(takeAsked(), ["192.0.2.8"]);
  }

  kernel.addRoute("192.0.2.8/32", { dev: "eth0", gateway: Address.parse("192.0.2.254") });
  underlay.observe(
    { kind: "route", removed: false, destination: Prefix.parse("192.0.2.8/32") },
    isOwn,
  );
  const changed = await underlay.update(addresses("192.0.2.8"), { signal });
  assert.equal(changed.get("192.0.2.8")?.direct, false);
});

Deno.test("UnderlayPaths cares for no event before it is used, and asks again after a failure", async () => {
  await using opened = openKernel();
  const { underlay, takeAsked } = opened;
  assert.equal(underlay.observe({ kind: "lost" }, isOwn), false);
  const aborted = AbortSignal.abort(new Error("enough"));
  await assert.rejects(underlay.update(addresses("192.0.2.7"), { signal: aborted }), /enough/);
  takeAsked();
  assert.equal(underlay.isStale, true);
  const paths = await underlay.update(addresses("192.0.2.7"), { signal });
  assert.equal(paths.size, 1);
  assert.equal(underlay.isStale, false);
});

Deno.test("UnderlayPaths asks once for an address that comes twice, and forgets those that are gone", async () => {
  await using opened = openKernel();
  const { underlay, takeAsked } = opened;
  const first = await underlay.update(addresses("192.0.2.7", "192.0.2.8", "192.0.2.7"), { signal });
  assert.deepEqual(takeAsked(), ["192.0.2.7", "192.0.2.8"]);
  assert.equal(
    await underlay.update(addresses("192.0.2.8", "192.0.2.7", "192.0.2.8"), { signal }),
    first,
  );
  underlay.observe({ kind: "lost" }, isOwn);
  assert.equal(
    await underlay.update(addresses("192.0.2.8", "192.0.2.7", "192.0.2.8"), { signal }),
    first,
  );
  assert.deepEqual(takeAsked(), ["192.0.2.8", "192.0.2.7"]);
  const exchanged = await underlay.update(addresses("192.0.2.8", "192.0.2.9"), { signal });
  assert.deepEqual([...exchanged.keys()], ["192.0.2.8", "192.0.2.9"]);
  assert.equal((await underlay.update([], { signal })).size, 0);
});

import assert from "node:assert/strict";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { Address, Prefix } from "../net/mod.ts";
import { UnderlayPaths } from "./underlay_paths.ts";

const { signal } = new AbortController();
const hosts = (...texts: string[]) =>
  new Map(texts.map((text) => [`host ${text}`, [Address.parse(text)]]));
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
  await underlay.follow(
    hosts("192.0.2.7", "198.51.100.7", "203.0.113.7", "192.0.2.1", "100.64.0.1"),
    { signal },
  );
  assert.deepEqual(Object.fromEntries(underlay.paths), {
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
  const follow = async (
    ...texts: string[]
  ) => [...await underlay.follow(hosts(...texts), { signal })];
  assert.deepEqual(await follow("192.0.2.7"), ["host 192.0.2.7"]);
  assert.deepEqual(takeAsked(), ["192.0.2.7"]);
  assert.deepEqual(await follow("192.0.2.7"), []);
  assert.deepEqual(takeAsked(), []);
  assert.deepEqual(await follow("192.0.2.8"), ["host 192.0.2.8"]);
  assert.deepEqual(takeAsked(), ["192.0.2.8"]);
  await underlay.follow(new Map([["host 192.0.2.7", []]]), { signal });
  assert.deepEqual([...underlay.paths.keys()], ["192.0.2.8"]);
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
  assert.deepEqual([await follow(), takeAsked()], [[], []]);

  // A change that changes no answer is no news.
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
    assert.deepEqual(await follow(), []);
    assert.deepEqual(takeAsked(), ["192.0.2.8"]);
  }

  kernel.addRoute("192.0.2.8/32", { dev: "eth0", gateway: Address.parse("192.0.2.254") });
  underlay.observe(
    { kind: "route", removed: false, destination: Prefix.parse("192.0.2.8/32") },
    isOwn,
  );
  assert.deepEqual(await follow(), ["host 192.0.2.8"]);
  assert.equal(underlay.paths.get("192.0.2.8")?.direct, false);
});

Deno.test("UnderlayPaths cares for no event before it is used, and asks again after a failure", async () => {
  await using opened = openKernel();
  const { underlay, takeAsked } = opened;
  assert.equal(underlay.observe({ kind: "lost" }, isOwn), false);
  const aborted = AbortSignal.abort(new Error("enough"));
  await underlay.follow(hosts("192.0.2.7"), { signal });
  takeAsked();
  await assert.rejects(underlay.follow(hosts("192.0.2.8"), { signal: aborted }), /enough/);
  await underlay.follow(new Map(), { signal });
  assert.deepEqual([...underlay.paths.keys()].toSorted(), ["192.0.2.7", "192.0.2.8"]);
  takeAsked();
  await underlay.follow(new Map(), { signal });
  assert.deepEqual(takeAsked(), []);
});

Deno.test("UnderlayPaths asks once for an address of several hosts, and forgets one that nobody has", async () => {
  await using opened = openKernel();
  const { underlay, takeAsked } = opened;
  const [address] = hosts("192.0.2.7").values();
  const follow = async (
    changes: Record<string, readonly Address[]>,
    options: { readonly all?: boolean } = {},
  ) => [...await underlay.follow(new Map(Object.entries(changes)), { signal, ...options })];
  assert.deepEqual(await follow({ a: address!, b: address! }), ["a", "b"]);
  assert.deepEqual(takeAsked(), ["192.0.2.7"]);
  assert.deepEqual(await follow({ a: [] }), ["a"]);
  assert.equal(underlay.paths.size, 1, "the other still has it");
  assert.deepEqual(await follow({ c: address! }, { all: true }), ["c"]);
  assert.equal(underlay.paths.size, 1);
  await follow({}, { all: true });
  assert.equal(underlay.paths.size, 0);
});

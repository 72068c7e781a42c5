/** What only a real kernel can tell, mostly through iproute2's eyes. Needs root. */
import assert from "node:assert/strict";
import { skippable } from "../prerequisites.ts";
import { selectExternalInterface } from "../../src/kernel/external_interface.ts";
import { readInterfaceFacts, waitForExternalInterface } from "../../src/kernel/find_interface.ts";
import { createAddressTable, createFdbTable } from "../../src/kernel/link_entry_table.ts";
import { createLinkTable } from "../../src/kernel/link_table.ts";
import { type Netlink, TABLE_MAIN } from "../../src/kernel/netlink.ts";
import { openNetlink } from "../../src/kernel/netlink/rtnetlink.ts";
import { createRouteTable } from "../../src/kernel/route_table.ts";
import { Address, InterfaceAddress, MacAddress, Prefix } from "../../src/net/mod.ts";
import { type LinkSpec, ROUTE_PROTOCOL, type RouteSpec } from "../../src/state/mod.ts";
import { createTestNamespace, namespaceObstacle, type TestNamespace } from "./namespace.ts";
import { vxlanLink } from "../support/links.ts";

const obstacle = namespaceObstacle();

interface Context {
  readonly namespace: TestNamespace;
  readonly netlink: Netlink;
  readonly signal: AbortSignal;
  /** Runs `ip` with these words; its output's lines, blanks at their ends removed. */
  ip(words: string): Promise<string[]>;
}

/** A test in a namespace with a veth pair, eth0 at 192.0.2.1/24 and 2001:db8::1/64. */
function test(name: string, body: (context: Context) => Promise<void>): void {
  Deno.test(
    skippable(`kernel: ${name}`, obstacle),
    { ignore: obstacle !== undefined },
    async () => {
      await using namespace = await createTestNamespace();
      const ip = async (words: string) => {
        const output = await namespace.run("ip", ...words.split(" "));
        return output.trim().split("\n").map((line) => line.trimEnd());
      };
      await ip("link add eth0 type veth peer name far0");
      await ip("link set eth0 up");
      await ip("link set far0 up");
      await ip("address add 192.0.2.1/24 dev eth0");
      await ip("address add 2001:db8::1/64 dev eth0 nodad");
      await using netlink = openNetlink({ namespace: namespace.path });
      await body({ namespace, netlink, signal: new AbortController().signal, ip });
    },
  );
}

function spec(destination: string, rest: Partial<RouteSpec> = {}): RouteSpec {
  return {
    destination: Prefix.parse(destination),
    type: "unicast",
    protocol: ROUTE_PROTOCOL,
    ...rest,
  };
}

const VXLAN: LinkSpec = {
  ...vxlanLink("192.0.2.1", { gbp: true }),
  mac: MacAddress.parse("02:00:00:00:00:01"),
};
const OWNED = { ownsLink: (name: string) => name === "flannel.1" };

test("iproute2 sees the routes as meant", async ({ netlink, signal, ip }) => {
  const gateway = Address.parse("192.0.2.9");
  const desired = [
    spec("10.1.0.0/24", { gateway, link: "eth0" }),
    spec("10.2.0.0/24", { gateway: Address.parse("10.2.0.0"), link: "eth0", onlink: true }),
    spec("10.3.0.0/16", { link: "eth0", scope: "link" }),
    spec("10.4.0.0/24", { type: "blackhole" }),
    spec("fd00:1::/64", { gateway: Address.parse("2001:db8::9"), link: "eth0" }),
    spec("fd00:4::/64", { type: "blackhole" }),
  ];
  const add = desired.map((each) => ({ op: "add" as const, desired: each }));
  assert.deepEqual(await createRouteTable(netlink).apply(add, { signal }), []);
  assert.deepEqual(await ip(`-4 route show proto ${ROUTE_PROTOCOL}`), [
    "10.1.0.0/24 via 192.0.2.9 dev eth0",
    "10.2.0.0/24 via 10.2.0.0 dev eth0 onlink",
    "10.3.0.0/16 dev eth0 scope link",
    "blackhole 10.4.0.0/24",
  ]);
  assert.deepEqual(await ip(`-6 route show proto ${ROUTE_PROTOCOL}`), [
    "fd00:1::/64 via 2001:db8::9 dev eth0 metric 1024 pref medium",
    "blackhole fd00:4::/64 dev lo metric 1024 pref medium",
  ]);
});

test("iproute2 sees the VXLAN device and its entries as meant", async (context) => {
  const { netlink, signal, ip, namespace } = context;
  const [failed] = await createLinkTable(netlink, OWNED).apply(
    [{ op: "add", desired: VXLAN }],
    { signal },
  );
  assert.equal(failed?.error, undefined);
  const [link] = JSON.parse((await ip("-d -j link show flannel.1")).join(""));
  assert.equal(link.mtu, 1450);
  assert.equal(link.address, "02:00:00:00:00:01");
  assert.ok(link.flags.includes("UP"));
  const { info_kind: kind, info_data: data } = link.linkinfo;
  assert.equal(kind, "vxlan");
  assert.deepEqual(
    [data.id, data.link, data.local, data.port, data.learning, data.gbp, data.ttl],
    [1, "eth0", "192.0.2.1", 8472, false, true, 0],
  );
  const mac = MacAddress.parse("02:00:00:00:00:02");
  const remote = Address.parse("192.0.2.7");
  const desired = { link: "flannel.1", mac, remote };
  assert.deepEqual(
    await createFdbTable(netlink, OWNED).apply([{ op: "add", desired }], { signal }),
    [],
  );
  const entries = await namespace.run("bridge", "fdb", "show", "dev", "flannel.1");
  assert.equal(entries.trim(), "02:00:00:00:00:02 dst 192.0.2.7 self permanent");
  const address = InterfaceAddress.parse("fd00:9::/128");
  await createAddressTable(netlink, OWNED).apply(
    [{ op: "add", desired: { link: "flannel.1", address } }],
    { signal },
  );
  const [shown] = await ip("-6 -o address show dev flannel.1 scope global");
  assert.match(shown!, /inet6 fd00:9::\/128 scope global nodad/);
});

test("a device of another make under our name is made anew", async ({ netlink, signal, ip }) => {
  await ip("link add flannel.1 type vxlan id 1 dev eth0 dstport 4789 group 239.1.1.1 l2miss");
  const table = createLinkTable(netlink, OWNED);
  const actual = (await table.list({ signal })).find(({ name }) => name === "flannel.1")!;
  assert.equal(table.kind.equal(VXLAN, actual), false);
  assert.deepEqual(await table.apply([{ op: "replace", desired: VXLAN, actual }], { signal }), []);
  const now = (await table.list({ signal })).find(({ name }) => name === "flannel.1")!;
  assert.equal(table.kind.equal(VXLAN, now), true);
});

test("own routes that others put behind or beside ours are cleared away", async (context) => {
  const { netlink, signal, ip } = context;
  const table = createRouteTable(netlink);
  const protocol = `proto ${ROUTE_PROTOCOL}`;
  await ip(`route add 10.1.0.0/24 via 192.0.2.9 ${protocol}`);
  await ip(`route append 10.1.0.0/24 via 192.0.2.8 ${protocol}`);
  await ip(`route append 10.1.0.0/24 via 192.0.2.7 proto static`);
  await ip(`route add 10.2.0.0/24 via 192.0.2.9 mtu 1300 ${protocol}`);
  await ip(`route add 10.3.0.0/24 ${protocol} nexthop via 192.0.2.9 nexthop via 192.0.2.8`);
  await ip(`-6 route add fd00:1::/64 via 2001:db8::9 ${protocol}`);
  await ip(`-6 route append fd00:1::/64 via 2001:db8::8 ${protocol}`);
  const gateway = Address.parse("192.0.2.9");
  const desired = [
    spec("10.1.0.0/24", { gateway }),
    spec("10.2.0.0/24", { gateway }),
    spec("10.3.0.0/24", { gateway }),
    spec("fd00:1::/64", { gateway: Address.parse("2001:db8::9") }),
  ];
  const listed = await table.list({ signal });
  const byKey = new Map(listed.map((each) => [table.kind.key(each), each]));
  assert.equal(byKey.size, listed.length, "keys are unique");
  const wrong = desired.filter((each) => !table.kind.equal(each, byKey.get(table.kind.key(each))!));
  assert.deepEqual(
    wrong.map(({ destination }) => String(destination)),
    ["10.2.0.0/24", "10.3.0.0/24", "fd00:1::/64"],
    "metrics and further next hops are no part of what we want",
  );
  const wanted = new Set(desired.map((each) => table.kind.key(each)));
  const stray = listed.filter((each) => table.kind.owns(each) && !wanted.has(table.kind.key(each)));
  assert.deepEqual(stray.map((each) => table.kind.key(each)), ["10.1.0.0/24 #1"]);
  assert.deepEqual(
    await table.apply([
      ...wrong.map((each) => ({
        op: "replace" as const,
        desired: each,
        actual: byKey.get(table.kind.key(each))!,
      })),
      ...stray.map((actual) => ({ op: "remove" as const, actual })),
    ], { signal }),
    [],
  );
  assert.deepEqual(await ip("-4 route show root 10.0.0.0/8"), [
    `10.1.0.0/24 via 192.0.2.9 dev eth0 proto ${ROUTE_PROTOCOL}`,
    "10.1.0.0/24 via 192.0.2.7 dev eth0 proto static",
    `10.2.0.0/24 via 192.0.2.9 dev eth0 proto ${ROUTE_PROTOCOL}`,
    `10.3.0.0/24 via 192.0.2.9 dev eth0 proto ${ROUTE_PROTOCOL}`,
  ]);
  assert.deepEqual(await ip("-6 route show root fd00::/8"), [
    `fd00:1::/64 via 2001:db8::9 dev eth0 proto ${ROUTE_PROTOCOL} metric 1024 pref medium`,
  ]);
});

test("a flood of others' changes is told as lost, not as a short list", async (context) => {
  const { netlink, namespace, signal } = context;
  await using other = openNetlink({ namespace: namespace.path });
  await using events = netlink.subscribe({ signal, kinds: ["route"] });
  const link = (await netlink.listLinks({ signal })).find(({ name }) => name === "eth0")!;
  const value = {
    destination: Prefix.parse("10.1.0.0/24"),
    type: "unicast" as const,
    table: TABLE_MAIN,
    protocol: 3,
    scope: "link" as const,
    tos: 0,
    metric: 0,
    linkIndex: link.index,
    onlink: false,
    dead: false,
    nextHops: [],
    others: [],
  };
  const pair = [
    { verb: "add", noun: "route", value },
    { verb: "remove", noun: "route", value },
  ] as const;
  const errors = await other.change(Array.from({ length: 10_000 }, () => pair).flat(), { signal });
  assert.deepEqual(errors.filter((error) => error !== undefined), []);
  let lost = false;
  for await (const batch of events) {
    lost ||= batch.some(({ kind }) => kind === "lost");
    if (lost) break;
  }
  // The subscription goes on after it.
  await other.change([pair[0]], { signal });
  const steps = events[Symbol.asyncIterator]();
  for (;;) {
    const { value: batch } = await steps.next();
    const last = batch?.at(-1);
    if (last?.kind === "route" && !last.removed) break;
  }
});

test("the loss of an own link is told, also when it was our doing", async (context) => {
  const { netlink, signal } = context;
  const table = createLinkTable(netlink, OWNED);
  await table.apply([{ op: "add", desired: VXLAN }], { signal });
  await using events = netlink.subscribe({ signal, kinds: ["link"] });
  const actual = (await table.list({ signal })).find(({ name }) => name === "flannel.1")!;
  await table.apply([{ op: "remove", actual }], { signal });
  for await (const batch of events) {
    if (batch.some((event) => event.kind === "link" && event.removed)) break;
  }
});

test("a kind of link that the kernel lacks is named with its module", async (context) => {
  const { netlink, signal } = context;
  const kind = "no-such-kind" as LinkSpec["kind"];
  const desired: LinkSpec = { name: "flannel.1", kind, mtuBytes: 1450 };
  const failed = await createLinkTable(netlink, OWNED).apply([{ op: "add", desired }], { signal });
  assert.match(
    failed[0]!.error.message,
    /^Cannot add link flannel\.1: this kernel has no support for no-such-kind links; load it with/,
  );
});

test("finds the external interface once its default route and address are there", async (context) => {
  const { netlink, signal, ip } = context;
  const criteria = { families: [4, 6] as const, interfaces: [], patterns: [] };
  await ip("link add eth1 type veth peer name far1");
  await ip("link set far1 up");
  const waits: string[] = [];
  const choice = await waitForExternalInterface(netlink, criteria, {
    signal,
    timeoutMs: 60_000,
    onWaiting(explain) {
      waits.push(explain.join("; "));
      if (waits.length > 1) return;
      // Without "nodad": tentative at first, usable when the check is over.
      for (
        const words of [
          "link set eth1 up",
          "address add 198.51.100.1/24 dev eth1",
          "route add default via 198.51.100.9 metric 5",
          "route add default via 192.0.2.9 metric 50",
          "address add 2001:db8:1::1/64 dev eth1",
          "-6 route add default via 2001:db8:1::9",
        ]
      ) {
        new Deno.Command("ip", {
          args: ["-n", context.namespace.name, ...words.split(" ")],
        }).outputSync();
      }
    },
  });
  assert.equal(choice.found.link, "eth1");
  assert.equal(String(choice.found.address), "198.51.100.1");
  assert.equal(String(choice.found.addressV6), "2001:db8:1::1");
  assert.ok(
    waits.some((text) => /2001:db8:1::1 is (still )?tentative/.test(text)),
    waits.join("\n"),
  );
});

test("--iface-can-reach asks the kernel, multipath routes are understood", async (context) => {
  const { netlink, signal, ip } = context;
  await ip("link add eth1 type veth peer name far1");
  await ip("link set eth1 up");
  await ip("link set far1 up");
  await ip("address add 198.51.100.1/24 dev eth1");
  await ip(
    "route add default nexthop via 192.0.2.9 weight 1 nexthop via 198.51.100.9 weight 7",
  );
  await ip("route add 203.0.113.0/24 via 192.0.2.9");
  const base = { families: [4] as const, interfaces: [], patterns: [] };
  const choose = async (canReach?: string) => {
    const criteria = { ...base, ...(canReach ? { canReach: Address.parse(canReach) } : {}) };
    const facts = await readInterfaceFacts(netlink, criteria, { signal });
    return selectExternalInterface(criteria, facts).found?.link;
  };
  assert.equal(await choose(), "eth1");
  assert.equal(await choose("203.0.113.5"), "eth0");
  assert.equal(await choose("192.0.2.1"), undefined, "an address of its own");
});

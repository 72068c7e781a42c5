/**
 * What every {@linkcode Netlink} and the Tables above it promise, run on the kernel and on the fake.
 *
 * @module
 */
import assert from "node:assert/strict";
import { skippable } from "../prerequisites.ts";
import { vxlanLink } from "../support/links.ts";
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { createLinkTable } from "../../src/kernel/link_table.ts";
import {
  createAddressTable,
  createFdbTable,
  createNeighborTable,
} from "../../src/kernel/link_entry_table.ts";
import {
  type Netlink,
  type NetlinkEvent,
  type NetlinkRequest,
  type Route,
  type Rule,
  TABLE_MAIN,
} from "../../src/kernel/netlink.ts";
import { createRouteTable } from "../../src/kernel/route_table.ts";
import { watchKernel } from "../../src/kernel/watch_kernel.ts";
import { Address, InterfaceAddress, MacAddress, Prefix } from "../../src/net/mod.ts";
import type { Change, Table } from "../../src/reconcile/table.ts";
import {
  type AddressSpec,
  type FdbSpec,
  type LinkSpec,
  type NeighborSpec,
  ROUTE_PROTOCOL,
  type RouteSpec,
} from "../../src/state/mod.ts";

/** A kernel to test on. */
export interface ContractKernel extends AsyncDisposable {
  /** A handle with an identity of its own. */
  open(): Netlink;
}

/** A kernel that takes policy rules, which flanneld only reads. */
export interface RuleKernel extends ContractKernel {
  addRule(rule: Rule): Promise<void>;
}

const ADDRESSES = { eth0: ["192.0.2.1/24", "2001:db8::1/64"], eth1: ["198.51.100.1/24"] };

interface Fixture {
  readonly kernel: RuleKernel;
  readonly netlink: Netlink;
  /** Another process. */
  readonly other: Netlink;
  readonly signal: AbortSignal;
  index(name: string): Promise<number>;
  list<Spec>(table: Table<Spec>): Promise<string[]>;
  /** Brings `table` to `desired` by a plain diff; the errors' texts. */
  converge<Spec>(table: Table<Spec>, desired: readonly Spec[]): Promise<string[]>;
}

/** Registers the suite. `open` makes a kernel with nothing but a loopback link. */
export function netlinkContract(
  name: string,
  open: () => Promise<RuleKernel>,
  obstacle?: string,
): void {
  function test(title: string, body: (fixture: Fixture) => Promise<void>): void {
    const options = { ignore: obstacle !== undefined };
    Deno.test(skippable(`${name} ${title}`, obstacle), options, async () => {
      await using kernel = await open();
      await using netlink = kernel.open();
      await using other = kernel.open();
      await body(await createFixture(kernel, netlink, other));
    });
  }

  test("lists the links and addresses that it added", async ({ netlink, signal }) => {
    const links = await netlink.listLinks({ signal });
    assert.deepEqual(links.map((link) => [link.name, link.mtuBytes, link.up, link.loopback]), [
      ["lo", 65_536, true, true],
      ["eth0", 1500, true, false],
      ["eth1", 1500, true, false],
    ]);
    assert.equal(links[1]?.kind, "bridge");
    const addresses = await netlink.listAddresses({ signal });
    const texts = addresses
      .filter(({ address, scope }) => scope === "universe" && !address.address.isLinkLocal())
      .map(({ address, tentative, permanent }) => [String(address), tentative, permanent])
      .toSorted();
    assert.deepEqual(texts, [
      ["192.0.2.1/24", false, true],
      ["198.51.100.1/24", false, true],
      ["2001:db8::1/64", false, true],
    ]);
  });

  test("change() reports each error at its request's place", async ({ netlink, signal, index }) => {
    const eth0 = await index("eth0");
    const errors = await netlink.change([
      addRoute(route("10.1.0.0/16", { gateway: "192.0.2.9" })),
      addRoute(route("10.1.0.0/16", { gateway: "192.0.2.8" })),
      addRoute(route("10.2.0.0/16", { gateway: "203.0.113.7" })),
      addRoute(route("10.3.0.0/16", { linkIndex: 4711 })),
      { verb: "remove", noun: "route", value: route("10.4.0.0/16", { gateway: "192.0.2.9" }) },
      {
        verb: "remove",
        noun: "neighbor",
        value: { linkIndex: eth0, address: Address.parse("192.0.2.77"), mac: mac(1) },
      },
      {
        verb: "remove",
        noun: "address",
        value: { linkIndex: eth0, address: InterfaceAddress.parse("192.0.2.99/24") },
      },
      { verb: "remove", noun: "link", value: { index: 4711, name: "gone0" } },
      addRoute(route("10.5.0.0/16", { gateway: "192.0.2.9" })),
    ], { signal });
    assert.deepEqual(errors.map(codeOf), [
      undefined,
      "EEXIST",
      "ENETUNREACH",
      "ENODEV",
      "ESRCH",
      "ENOENT",
      "EADDRNOTAVAIL",
      "ENODEV",
      undefined,
    ]);
    assert.match(errors[1]!.message, /^Cannot add route 10\.1\.0\.0\/16 via 192\.0\.2\.8: file/);
  });

  test("change() takes more requests than fit one datagram", async ({ netlink, signal }) => {
    const requests = Array.from(
      { length: 600 },
      (_, i) => addRoute(route(`10.${i >> 8}.${i & 255}.0/24`, { gateway: "192.0.2.9" })),
    );
    requests[300] = addRoute(route("10.0.0.0/24", { gateway: "192.0.2.9" }));
    const errors = await netlink.change(requests, { signal });
    assert.deepEqual(
      errors.flatMap((error, i) => error ? [[i, codeOf(error)]] : []),
      [[300, "EEXIST"]],
    );
    const routes = await netlink.listRoutes({ signal, table: TABLE_MAIN });
    assert.equal(routes.filter(({ protocol }) => protocol === ROUTE_PROTOCOL).length, 599);
  });

  test("routeGet() tells link and source, or that there is none", async (fixture) => {
    const { netlink, signal, index } = fixture;
    await netlink.change([addRoute(route("10.1.0.0/16", { gateway: "192.0.2.9" }))], { signal });
    const found = await netlink.routeGet(Address.parse("10.1.2.3"), { signal });
    assert.equal(found.linkIndex, await index("eth0"));
    assert.equal(String(found.gateway), "192.0.2.9");
    assert.equal(String(found.source), "192.0.2.1");
    assert.equal(found.type, "unicast");
    const own = await netlink.routeGet(Address.parse("192.0.2.1"), { signal });
    assert.equal(own.type, "local");
    await assert.rejects(
      netlink.routeGet(Address.parse("203.0.113.1"), { signal }),
      (error) => codeOf(error) === "ENETUNREACH",
    );
  });

  test("lists rules", async ({ netlink, signal, kernel }) => {
    for (
      const [family, from, ports] of [
        [4, "10.1.0.0/16", { ipProtocol: 17, ports: [8472, 8472], sourcePorts: [1, 999] }],
        [6, "fd00:1::/48", { ipProtocol: 6, ports: [80, 90] }],
        [4, "10.1.0.0/16", {}],
      ] as const
    ) {
      const priority = Object.keys(ports).length > 0 ? 1234 : 1235;
      const rule = {
        family,
        priority,
        table: 5000,
        protocol: ROUTE_PROTOCOL,
        from: Prefix.parse(from),
        mark: 0x10,
        mask: 0xff,
        ...ports,
      };
      await kernel.addRule(rule);
      const rules = await netlink.listRules({ signal });
      assert.deepEqual(
        rules.filter((each) => each.priority === priority && each.family === family),
        [rule],
      );
    }
  });

  test("subscribe() tells of others' changes and not of own ones", async (fixture) => {
    const { netlink, other, signal } = fixture;
    await using events = netlink.subscribe({ signal, kinds: ["route"] });
    await netlink.change([addRoute(route("10.1.0.0/16", { gateway: "192.0.2.9" }))], { signal });
    const destination = Prefix.parse("10.2.0.0/16");
    const foreign = { ...route(String(destination), { gateway: "192.0.2.9" }), protocol: 3 };
    await other.change([addRoute(foreign), { verb: "remove", noun: "route", value: foreign }], {
      signal,
    });
    const about = { kind: "route", protocol: 3, destination };
    assert.deepEqual(
      (await collect(events, 2)).map((event) =>
        event.kind === "lost" ? event : { ...event, route: event.route?.gateway }
      ),
      [false, true].map((removed) => ({ ...about, removed, route: foreign.gateway })),
    );
  });

  test("subscribe() tells what others did to neighbours and forwarding entries", async (fixture) => {
    const { netlink, other, signal, index } = fixture;
    await other.change([{
      verb: "add",
      noun: "link",
      value: {
        name: "flannel.1",
        kind: "vxlan",
        mtuBytes: 1400,
        vxlan: {
          ...{ vni: 1, port: 8472, learning: false, gbp: false },
          underlayIndex: await index("eth0"),
          local: Address.parse("192.0.2.1"),
        },
      },
    }], { signal });
    const linkIndex = await index("flannel.1");
    await using events = netlink.subscribe({ signal, kinds: ["neighbor", "fdb"] });
    const neighbor = { linkIndex, address: Address.parse("10.5.7.0"), mac: mac(7) };
    const fdb = { linkIndex, mac: mac(7), remote: Address.parse("192.0.2.7") };
    await other.change([
      { verb: "replace", noun: "neighbor", value: neighbor },
      { verb: "replace", noun: "fdb", value: fdb },
      { verb: "remove", noun: "neighbor", value: neighbor },
      { verb: "remove", noun: "fdb", value: fdb },
    ], { signal });
    const seen: string[] = [];
    for await (const batch of events) {
      for (const event of batch) {
        if (event.kind === "lost" || event.linkIndex !== linkIndex) continue;
        if (event.kind === "neighbor" && String(event.address) !== "10.5.7.0") continue;
        // Kernels tell of a deleted neighbour once or twice: it has failed, and is gone.
        const isThere = !event.removed && event.entry !== undefined;
        const text = `${event.kind} ${event.entry?.mac ?? ""} ${isThere ? "there" : "gone"}`;
        if (event.kind === "neighbor" || event.entry) seen.push(text);
      }
      if (seen.some((text) => /fdb.*gone/.test(text))) break;
    }
    assert.deepEqual(
      [...new Set(seen)].map((text) => text.replace("neighbor  gone", `neighbor ${mac(7)} gone`)),
      [
        `neighbor ${mac(7)} there`,
        `fdb ${mac(7)} there`,
        `neighbor ${mac(7)} gone`,
        `fdb ${mac(7)} gone`,
      ],
    );
  });

  test("subscribe() wakes a waiting iteration on abort and on disposal", async ({ netlink }) => {
    /** Until it ends: the kernel may still have things to tell of links that came up. */
    const waitFor = async (events: AsyncIterable<unknown>) => {
      for await (const _ of events);
    };
    const controller = new AbortController();
    const events = netlink.subscribe({ signal: controller.signal });
    const reason = new Error("enough");
    setTimeout(() => controller.abort(reason), 20);
    await assert.rejects(waitFor(events), reason);
    await events[Symbol.asyncDispose]();

    const idle = netlink.subscribe({ signal: new AbortController().signal });
    const closed = assert.rejects(waitFor(idle), /closed/);
    await idle[Symbol.asyncDispose]();
    await closed;
  });

  test("watchKernel() tells of changes of every kind", async ({ netlink, other, signal, index }) => {
    const stop = new AbortController();
    const { promise, resolve } = Promise.withResolvers<void>();
    const wanted = new Set<string>(["link", "address", "route", "neighbor"]);
    const watching = watchKernel(netlink, {
      signal: stop.signal,
      foldMs: 5,
      note: ({ kind }) => wanted.delete(kind),
      onChange() {
        if (wanted.size === 0) resolve();
      },
      onError: (error) => assert.fail(String(error)),
    });
    const eth0 = await index("eth0");
    const errors = await other.change([
      { verb: "set", noun: "link", value: { index: eth0, name: "eth0", mtuBytes: 1400 } },
      {
        verb: "add",
        noun: "address",
        value: { linkIndex: eth0, address: InterfaceAddress.parse("10.9.0.1/24") },
      },
      addRoute(route("10.2.0.0/16", { gateway: "10.9.0.9" })),
      {
        verb: "replace",
        noun: "neighbor",
        value: { linkIndex: eth0, address: Address.parse("10.9.0.9"), mac: mac(9) },
      },
    ], { signal });
    assert.deepEqual(errors.map(codeOf), [undefined, undefined, undefined, undefined]);
    await promise;
    stop.abort(new Error("stopped"));
    await assert.rejects(watching, /stopped/);
  });

  test("route Table converges, is idempotent and leaves the rest alone", async (fixture) => {
    const { netlink, other, signal, list, converge } = fixture;
    const table = createRouteTable(netlink);
    const foreign = { ...route("172.16.0.0/16", { gateway: "192.0.2.9" }), protocol: 3 };
    await other.change([addRoute(foreign)], { signal });
    const before = await list(table);
    const desired: RouteSpec[] = [
      spec("10.1.0.0/24", { gateway: "192.0.2.9", link: "eth0" }),
      spec("10.2.0.0/24", { gateway: "203.0.113.9", link: "eth0", onlink: true }),
      spec("10.3.0.0/16", { link: "eth0", scope: "link" }),
      spec("10.4.0.0/16", { link: "eth0", source: "192.0.2.1" }),
      spec("10.5.0.0/24", { type: "blackhole" }),
      spec("10.6.0.0/24", { gateway: "198.51.100.9" }),
      spec("fd00:1::/64", { gateway: "2001:db8::9", link: "eth0" }),
      spec("fd00:2::/64", { gateway: "2001:db8:f::9", link: "eth0", onlink: true }),
      spec("fd00:3::/64", { type: "blackhole" }),
      spec("fd00:4::/64", { link: "eth0" }),
    ];
    assert.deepEqual(await converge(table, desired), []);
    assert.deepEqual(diff(table, desired, await table.list({ signal })), []);
    // Adding what is there and removing what is gone succeed.
    const again = desired.map((each) => ({ op: "add" as const, desired: each }));
    assert.deepEqual(await table.apply(again, { signal }), []);
    const actual = (await table.list({ signal })).filter((each) => table.kind.owns(each));
    assert.equal(actual.length, desired.length);
    const removals = actual.map((each) => ({ op: "remove" as const, actual: each }));
    assert.deepEqual(await table.apply(removals, { signal }), []);
    assert.deepEqual(await table.apply(removals, { signal }), []);
    assert.deepEqual(await list(table), before);
  });

  test("route Table replaces what differs, in place", async ({ netlink, signal, converge }) => {
    const table = createRouteTable(netlink);
    const versions: RouteSpec[][] = [
      [
        spec("10.1.0.0/24", { gateway: "192.0.2.9", link: "eth0" }),
        spec("fd00:1::/64", { gateway: "2001:db8::9", link: "eth0" }),
      ],
      [
        spec("10.1.0.0/24", { gateway: "192.0.2.8", link: "eth0" }),
        spec("fd00:1::/64", { gateway: "2001:db8::8", link: "eth0" }),
      ],
      [
        spec("10.1.0.0/24", { gateway: "192.0.2.8", link: "eth0", onlink: true }),
        spec("fd00:1::/64", { gateway: "2001:db8::8", link: "eth0", onlink: true }),
      ],
      [spec("10.1.0.0/24", { type: "blackhole" }), spec("fd00:1::/64", { type: "blackhole" })],
      [
        spec("10.1.0.0/24", { gateway: "198.51.100.9", link: "eth1" }),
        spec("fd00:1::/64", { gateway: "2001:db8::9", link: "eth0", source: "2001:db8::1" }),
      ],
    ];
    for (const desired of versions) {
      assert.deepEqual(await converge(table, desired), []);
      assert.deepEqual(diff(table, desired, await table.list({ signal })), []);
      const routes = await netlink.listRoutes({ signal, table: TABLE_MAIN });
      const ours = routes.filter(({ protocol }) => protocol === ROUTE_PROTOCOL);
      assert.equal(ours.length, 2, "no former version is left");
    }
  });

  test("route Table names a foreign route in the way and keeps it", async (fixture) => {
    const { netlink, other, signal } = fixture;
    const table = createRouteTable(netlink);
    for (
      const [destination, foreignGateway, gateway] of [
        ["10.1.0.0/24", "192.0.2.7", "192.0.2.9"],
        ["fd00:1::/64", "2001:db8::7", "2001:db8::9"],
      ] as const
    ) {
      const foreign = { ...route(destination, { gateway: foreignGateway }), protocol: 3 };
      await other.change([addRoute(foreign)], { signal });
      const desired = spec(destination, { gateway, link: "eth0" });
      const listed = await table.list({ signal });
      const found = listed.find((each) => table.kind.key(each) === table.kind.key(desired));
      assert.ok(found, "it is listed, as it stands in the way");
      assert.equal(table.kind.owns(found), false);
      assert.equal(table.kind.equal(desired, found), false);
      // Also when it came after the last listing.
      const [failed] = await table.apply([{ op: "add", desired }], { signal });
      assert.match(failed!.error.message, /not flanneld's is in the way.*via (192|2001).*7 /);
      const routes = await netlink.listRoutes({ signal, table: TABLE_MAIN });
      const left = routes.filter((each) => String(each.destination) === destination);
      assert.deepEqual(left.map((each) => String(each.gateway)), [foreignGateway]);
    }
  });

  test("route Table adds over an own, wrong route that came meanwhile", async (fixture) => {
    const { netlink, signal } = fixture;
    const table = createRouteTable(netlink);
    const wrong = route("10.1.0.0/24", { gateway: "192.0.2.7" });
    await netlink.change([addRoute(wrong)], { signal });
    const desired = spec("10.1.0.0/24", { gateway: "192.0.2.9", link: "eth0" });
    assert.deepEqual(await table.apply([{ op: "add", desired }], { signal }), []);
    assert.deepEqual(diff(table, [desired], await table.list({ signal })), []);
  });

  test("route Table removes own routes of another metric", async ({ netlink, signal, list }) => {
    const table = createRouteTable(netlink);
    const before = await list(table);
    const stale = [
      { ...route("10.1.0.0/24", { gateway: "192.0.2.7" }), metric: 77 },
      { ...route("fd00:1::/64", { gateway: "2001:db8::7" }), metric: 77 },
    ];
    await netlink.change(stale.map(addRoute), { signal });
    assert.equal((await list(table)).length, before.length + 2);
    const changes = diff(table, [], await table.list({ signal }));
    assert.deepEqual(changes.map(({ op }) => op), ["remove", "remove"]);
    assert.deepEqual(await table.apply(changes, { signal }), []);
    assert.deepEqual(await list(table), before);
  });

  test("a Table fails one change for a missing link and makes the others", async (fixture) => {
    const { netlink, signal } = fixture;
    const table = createRouteTable(netlink);
    const failed = await table.apply([
      { op: "add", desired: spec("10.1.0.0/24", { link: "flannel.9" }) },
      { op: "add", desired: spec("10.2.0.0/24", { link: "eth0" }) },
    ], { signal });
    assert.deepEqual(failed.map(({ error }) => error.message), [
      `Cannot add route 10.1.0.0/24 dev flannel.9 proto ${ROUTE_PROTOCOL}: ` +
      `there is no link flannel.9`,
    ]);
    const listed = await table.list({ signal });
    assert.ok(listed.some(({ destination }) => String(destination) === "10.2.0.0/24"));
  });

  test("link Table makes a VXLAN device and changes it", async (fixture) => {
    const { netlink, signal, index, converge } = fixture;
    const table = createLinkTable(netlink, { ownsLink: (name) => name.startsWith("flannel") });
    const base = vxlan("flannel.1", "192.0.2.1");
    // Gets 1430, which is all that the underlay leaves, and counts as right.
    const baseV6 = vxlan("flannel-v6.1", "2001:db8::1");
    assert.deepEqual(await converge(table, [base, baseV6]), []);
    assert.deepEqual(diff(table, [base, baseV6], await table.list({ signal })), []);
    const made = await index("flannel.1");

    const inPlace: LinkSpec = {
      ...base,
      mtuBytes: 1300,
      mac: mac(2),
      vxlan: {
        ...base.vxlan!,
        learning: true,
        underlay: "eth1",
        local: Address.parse("198.51.100.1"),
      },
    };
    assert.deepEqual(await converge(table, [inPlace, baseV6]), []);
    assert.deepEqual(diff(table, [inPlace, baseV6], await table.list({ signal })), []);
    assert.equal(await index("flannel.1"), made, "changed in place");

    for (
      const vxlan of [
        { ...base.vxlan!, vni: 7 },
        { ...base.vxlan!, port: 4789 },
        { ...base.vxlan!, gbp: true },
        { ...base.vxlan!, vni: 8, local: Address.parse("2001:db8::1") },
      ]
    ) {
      const before = await index("flannel.1");
      const fixed: LinkSpec = { ...inPlace, vxlan };
      assert.deepEqual(await converge(table, [fixed, baseV6]), []);
      assert.deepEqual(diff(table, [fixed, baseV6], await table.list({ signal })), []);
      assert.notEqual(await index("flannel.1"), before, "made anew");
    }
    assert.deepEqual(await converge(table, []), []);
    const names = (await netlink.listLinks({ signal })).map(({ name }) => name);
    assert.deepEqual(names, ["lo", "eth0", "eth1"], "other links stay");
  });

  test("link Table marks its links, and knows them under any name", async (fixture) => {
    const { netlink, signal, converge } = fixture;
    const open = (alias: string) => {
      const listed: string[][] = [];
      const table = createLinkTable(netlink, {
        ownsLink: (name, kind) => name.startsWith("flannel.") && kind === "vxlan",
        alias,
        onList: (links) => listed.push(links.map(({ name }) => name)),
      });
      return { table, listed };
    };
    const { table: ours, listed } = open("flanneld /run/a.env");
    const base = vxlan("flannel.1", "192.0.2.1");
    assert.deepEqual(await converge(ours, [base]), []);
    const aliasOf = async (name: string) =>
      (await netlink.listLinks({ signal })).find((link) => link.name === name)?.alias;
    assert.equal(await aliasOf("flannel.1"), "flanneld /run/a.env");
    assert.deepEqual(diff(ours, [base], await ours.list({ signal })), []);
    assert.ok(listed.at(-1)?.includes("flannel.1"));

    // Another daemon's is in the way, and stays; what to do is said.
    const { table: others } = open("flanneld /run/b.env");
    const found = (await others.list({ signal })).find(({ name }) => name === "flannel.1")!;
    assert.equal(others.kind.owns(found), false);
    assert.match(others.kind.adviseConflict!(found), /another flanneld.*ip link delete flannel\.1/);
    assert.match(others.kind.format(found), /alias "flanneld \/run\/a\.env"/);

    // One without a mark, of an upstream daemon, is taken over in place.
    const second = vxlan("flannel.2", "192.0.2.1");
    second.vxlan && Object.assign(second.vxlan, { vni: 2 });
    const unmarked = createLinkTable(netlink, { ownsLink: (name) => name === "flannel.2" });
    assert.deepEqual(await converge(unmarked, [second]), []);
    assert.equal(await aliasOf("flannel.2"), undefined);
    assert.deepEqual(await converge(ours, [base, second]), []);
    assert.equal(await aliasOf("flannel.2"), "flanneld /run/a.env");

    // A later run that wants another name finds what the earlier one made.
    const nothing = createLinkTable(netlink, {
      ownsLink: () => false,
      alias: "flanneld /run/a.env",
    });
    assert.deepEqual(await converge(nothing, []), []);
    const names = (await netlink.listLinks({ signal })).map(({ name }) => name);
    assert.deepEqual(names, ["lo", "eth0", "eth1"]);
  });

  test("link Table leaves a link of another kind alone", async (fixture) => {
    const { netlink, other, signal } = fixture;
    const value = { name: "flannel.1", kind: "bridge", mtuBytes: 1500 };
    await other.change([{ verb: "add", noun: "link", value }], { signal });
    const table = createLinkTable(netlink, {
      ownsLink: (name, kind) => name === "flannel.1" && kind === "vxlan",
      alias: "flanneld /run/a.env",
    });
    const found = (await table.list({ signal })).find(({ name }) => name === "flannel.1")!;
    assert.equal(table.kind.owns(found), false);
    assert.equal(table.kind.equal(vxlan("flannel.1", "192.0.2.1"), found), false);
    assert.match(table.kind.format(found), /flannel\.1 mtu 1500 .*type bridge/);
    assert.equal(table.kind.adviseConflict!(found), 'remove it with "ip link delete flannel.1"');
    // Also when it came after the last listing.
    const desired = vxlan("flannel.1", "192.0.2.1");
    const [failed] = await table.apply([{ op: "add", desired }], { signal });
    assert.match(failed!.error.message, /Cannot add link flannel\.1: file already exists/);
  });

  test("address Table leaves those of others on its links alone", async (fixture) => {
    const { netlink, other, signal, index, list, converge } = fixture;
    const owned = { ownsLink: (name: string) => name === "flannel.1" };
    await converge(createLinkTable(netlink, owned), [vxlan("flannel.1", "192.0.2.1")]);
    const linkIndex = await index("flannel.1");
    for (const text of ["172.30.0.1/24", "10.1.9.9/32", "fd00:9::1/128"]) {
      const value = { linkIndex, address: InterfaceAddress.parse(text) };
      await other.change([{ verb: "add", noun: "address", value }], { signal });
    }
    const network = Prefix.parse("10.1.0.0/16");
    const table = createAddressTable(netlink, {
      ...owned,
      ownsAddress: ({ address: { address } }) => address.family === 6 || network.contains(address),
    });
    const desired = [{ link: "flannel.1", address: InterfaceAddress.parse("10.1.0.0/32") }];
    assert.deepEqual(await converge(table, desired), []);
    assert.deepEqual((await list(table)).toSorted(), [
      "10.1.0.0/32 dev flannel.1",
      "172.30.0.1/24 dev flannel.1",
    ]);
  });

  test("looks up the routes to many addresses at once, each in its place", async (fixture) => {
    const { netlink, signal, index } = fixture;
    const add = addRoute(route("198.18.0.0/16", { gateway: "192.0.2.7" }));
    assert.deepEqual(await netlink.change([add], { signal }), [undefined]);
    const texts = ["192.0.2.9", "198.18.3.4", "203.0.113.1", "2001:db8::9", "192.0.2.1"];
    const addresses = Array.from({ length: 300 }, (_, i) => Address.parse(texts[i % 5]!));
    const answers = await netlink.routeGetAll(addresses, { signal });
    assert.equal(answers.length, 300);
    const [eth0] = [await index("eth0")];
    answers.forEach((answer, i) => {
      switch (i % 5) {
        case 0:
        case 3:
          assert.ok(!(answer instanceof Error));
          assert.deepEqual([answer.type, answer.linkIndex, answer.gateway], [
            "unicast",
            eth0,
            undefined,
          ]);
          return;
        case 1:
          assert.equal(answer instanceof Error ? answer : String(answer.gateway), "192.0.2.7");
          return;
        case 2:
          assert.equal(codeOf(answer), "ENETUNREACH");
          return;
        case 4:
          assert.equal(answer instanceof Error ? answer : answer.type, "local");
      }
    });
    assert.deepEqual(await netlink.routeGetAll([], { signal }), []);
  });

  test("route Table takes back what was put over its routes, if it may", async (fixture) => {
    const { netlink, other, signal, converge } = fixture;
    const desired = [
      spec("10.1.0.0/24", { gateway: "192.0.2.9", link: "eth0" }),
      spec("fd00:1::/64", { gateway: "2001:db8::9", link: "eth0" }),
    ];
    const asked: string[] = [];
    const table = createRouteTable(netlink, {
      adopts({ destination }, wasOurs) {
        asked.push(`${destination} ${wasOurs}`);
        return wasOurs;
      },
    });
    const foreign = { ...route("10.2.0.0/24", { gateway: "192.0.2.7" }), protocol: 3 };
    await other.change([addRoute(foreign)], { signal });
    assert.deepEqual(await converge(table, desired), []);
    const over = [
      { ...route("10.1.0.0/24", { gateway: "192.0.2.7" }), protocol: 3 },
      { ...route("fd00:1::/64", { gateway: "2001:db8::7" }), protocol: 3 },
    ];
    const replaced = await other.change(
      over.map((value) => ({ verb: "replace", noun: "route", value })),
      { signal },
    );
    assert.deepEqual(replaced, [undefined, undefined]);
    assert.deepEqual(await converge(table, desired), []);
    assert.deepEqual(diff(table, desired, await table.list({ signal })), []);
    const routes = await netlink.listRoutes({ signal, table: TABLE_MAIN });
    assert.equal(
      routes.filter(({ destination }) => /^(10\.1|fd00)/.test(`${destination}`)).length,
      2,
    );
    assert.ok(asked.includes("10.2.0.0/24 false"));
    assert.ok(routes.some(({ destination }) => String(destination) === "10.2.0.0/24"));
  });

  test("link Table waits for the underlay, and refuses foreign names", async (fixture) => {
    const { netlink, signal } = fixture;
    const table = createLinkTable(netlink, { ownsLink: (name) => name === "flannel.1" });
    const base = vxlan("flannel.1", "192.0.2.1");
    const failed = await table.apply([
      { op: "add", desired: { ...base, vxlan: { ...base.vxlan!, underlay: "eth7" } } },
      { op: "add", desired: { ...base, name: "other" } },
    ], { signal });
    assert.deepEqual(failed.map(({ error }) => error.message), [
      "Cannot add link flannel.1: there is no link eth7",
      "Cannot add link other: the name is not flanneld's",
    ]);
  });

  test("neighbour, forwarding and address Tables keep to own links", async (fixture) => {
    const { netlink, other, signal, index, list, converge } = fixture;
    const owned = { ownsLink: (name: string) => name === "flannel.1" };
    const links = createLinkTable(netlink, owned);
    assert.deepEqual(await converge(links, [vxlan("flannel.1", "192.0.2.1")]), []);
    const eth0 = await index("eth0");
    await other.change([{
      verb: "add",
      noun: "neighbor",
      value: { linkIndex: eth0, address: Address.parse("192.0.2.50"), mac: mac(50) },
    }], { signal });

    const neighbors = createNeighborTable(netlink, owned);
    const neighbor = (address: string, n: number): NeighborSpec => ({
      link: "flannel.1",
      address: Address.parse(address),
      mac: mac(n),
    });
    assert.deepEqual(
      await converge(neighbors, [neighbor("10.1.0.0", 1), neighbor("fd00::1", 2)]),
      [],
    );
    assert.deepEqual(await converge(neighbors, [neighbor("10.1.0.0", 3)]), []);
    assert.deepEqual(await list(neighbors), [
      `10.1.0.0 dev flannel.1 lladdr ${mac(3)} nud permanent`,
    ]);

    const fdb = createFdbTable(netlink, owned);
    const entry = (n: number, remote: string): FdbSpec => ({
      link: "flannel.1",
      mac: mac(n),
      remote: Address.parse(remote),
    });
    assert.deepEqual(await converge(fdb, [entry(1, "192.0.2.8"), entry(2, "192.0.2.9")]), []);
    assert.deepEqual(await converge(fdb, [entry(2, "192.0.2.10")]), []);
    assert.deepEqual(await list(fdb), [
      `${mac(2)} dev flannel.1 dst 192.0.2.10 self permanent`,
    ]);

    const addresses = createAddressTable(netlink, owned);
    const address = (text: string): AddressSpec => ({
      link: "flannel.1",
      address: InterfaceAddress.parse(text),
    });
    const first = [address("10.1.0.0/32"), address("fd00:1::/128")];
    assert.deepEqual(await converge(addresses, first), []);
    assert.deepEqual(diff(addresses, first, await addresses.list({ signal })), []);
    const adds = first.filter((each) => each.address.address.family === 4)
      .map((desired) => ({ op: "add" as const, desired }));
    assert.deepEqual(await addresses.apply(adds, { signal }), []);
    const second = [address("10.2.0.0/32"), address("fd00:1::/64")];
    assert.deepEqual(await converge(addresses, second), []);
    assert.deepEqual((await list(addresses)).toSorted(), [
      "10.2.0.0/32 dev flannel.1",
      "fd00:1::/64 dev flannel.1",
    ]);

    const stray = { ...neighbor("192.0.2.60", 6), link: "eth0" };
    const [failed] = await neighbors.apply([{ op: "add", desired: stray }], { signal });
    assert.match(failed!.error.message, /link eth0 is not flanneld's/);
    assert.equal([...await netlink.scanNeighbors({ signal, linkIndex: eth0 })].length, 1);

    // The link takes everything with it; removing that afterwards succeeds.
    const former = await neighbors.list({ signal });
    assert.deepEqual(await converge(links, []), []);
    const removals = former.map((actual) => ({ op: "remove" as const, actual }));
    assert.deepEqual(await neighbors.apply(removals, { signal }), []);
  });
}

async function createFixture(
  kernel: RuleKernel,
  netlink: Netlink,
  other: Netlink,
): Promise<Fixture> {
  const { signal } = new AbortController();
  const index = async (name: string) => {
    const link = (await netlink.listLinks({ signal })).find((each) => each.name === name);
    assert.ok(link, `there is a link ${name}`);
    return link.index;
  };
  for (const [name, addresses] of Object.entries(ADDRESSES)) {
    const link = { name, kind: "bridge", mtuBytes: 1500 };
    const [error] = await netlink.change([{ verb: "add", noun: "link", value: link }], { signal });
    assert.equal(error, undefined);
    const linkIndex = await index(name);
    const errors = await netlink.change(
      addresses.map((text): NetlinkRequest => ({
        verb: "add",
        noun: "address",
        value: { linkIndex, address: InterfaceAddress.parse(text) },
      })),
      { signal },
    );
    assert.deepEqual(errors.filter((each) => each !== undefined), []);
  }
  return {
    kernel,
    netlink,
    other,
    signal,
    index,
    async list(table) {
      return (await table.list({ signal })).map((each) => table.kind.format(each));
    },
    async converge(table, desired) {
      const changes = diff(table, desired, await table.list({ signal }));
      const failed = await table.apply(changes, { signal });
      return failed.map(({ error }) => error.message);
    },
  };
}

/** A plain diff, so that this suite depends on no reconciler. */
function diff<Spec>(
  { kind }: Table<Spec>,
  desired: readonly Spec[],
  actual: readonly Spec[],
): Change<Spec>[] {
  const found = new Map(actual.map((each) => [kind.key(each), each]));
  assert.equal(found.size, actual.length, "keys are unique");
  const keys = new Set(desired.map((each) => kind.key(each)));
  const changes: Change<Spec>[] = [];
  for (const each of desired) {
    const present = found.get(kind.key(each));
    if (!present) changes.push({ op: "add", desired: each });
    else if (!kind.equal(each, present)) {
      assert.ok(kind.owns(present), `${kind.format(present)} is ours`);
      changes.push({ op: "replace", desired: each, actual: present });
    }
  }
  for (const each of actual) {
    if (kind.owns(each) && !keys.has(kind.key(each))) changes.push({ op: "remove", actual: each });
  }
  return changes;
}

async function collect(
  events: AsyncIterable<readonly NetlinkEvent[]>,
  count: number,
): Promise<NetlinkEvent[]> {
  const collected: NetlinkEvent[] = [];
  for await (const batch of events) {
    collected.push(...batch);
    if (collected.length >= count) break;
  }
  return collected;
}

function codeOf(error: unknown): string | undefined {
  return error === undefined ? undefined : error instanceof NetlinkError ? error.code : `${error}`;
}

function mac(n: number): MacAddress {
  return MacAddress.fromBytes(new Uint8Array([2, 0, 0, 0, 0, n]));
}

function route(
  destination: string,
  { gateway, linkIndex }: { gateway?: string; linkIndex?: number },
): Route {
  const prefix = Prefix.parse(destination);
  return {
    destination: prefix,
    type: "unicast",
    table: TABLE_MAIN,
    protocol: ROUTE_PROTOCOL,
    scope: "universe",
    tos: 0,
    metric: prefix.family === 4 ? 0 : 1024,
    ...(gateway === undefined ? {} : { gateway: Address.parse(gateway) }),
    ...(linkIndex === undefined ? {} : { linkIndex }),
    onlink: false,
    dead: false,
    nextHops: [],
    others: [],
  };
}

function addRoute(value: Route): NetlinkRequest {
  return { verb: "add", noun: "route", value };
}

function spec(
  destination: string,
  { gateway, source, ...rest }: Partial<Omit<RouteSpec, "gateway" | "source">> & {
    readonly gateway?: string;
    readonly source?: string;
  },
): RouteSpec {
  return {
    destination: Prefix.parse(destination),
    type: "unicast",
    protocol: ROUTE_PROTOCOL,
    ...(gateway === undefined ? {} : { gateway: Address.parse(gateway) }),
    ...(source === undefined ? {} : { source: Address.parse(source) }),
    ...rest,
  };
}

function vxlan(name: string, local: string): LinkSpec {
  return { ...vxlanLink(local), name, mac: mac(1) };
}

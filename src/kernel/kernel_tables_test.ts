import { planAll } from "../../tests/support/plan_all.ts";
import assert from "node:assert/strict";
import { FakeKernel } from "../../tests/fakes/fake_netlink.ts";
import { aliVpc } from "../backends/mod.ts";
import { parseNetworkConfig } from "../config/network_config.ts";
import type { Route } from "./netlink.ts";
import { Address, InterfaceAddress, MacAddress, Prefix } from "../net/mod.ts";
import { Reconciler } from "../reconcile/reconciler.ts";
import { Desired } from "../state/desired.ts";
import { sentenceOf } from "../status/problems.ts";
import { type DesiredState, type KindId, ROUTE_PROTOCOL } from "../state/mod.ts";
import { KernelTables, linkAlias } from "./kernel_tables.ts";
import { SILENT } from "../../tests/support/log.ts";

const { signal } = new AbortController();
const log = SILENT;
const mac = (n: number) => MacAddress.fromBytes(new Uint8Array([2, 0, 0, 0, 0, n]));

/** What a vxlan host with one peer wants. */
function vxlanState(vni = 1): DesiredState {
  const link = `flannel.${vni}`;
  return {
    links: [{
      name: link,
      kind: "vxlan",
      mtuBytes: 1450,
      mac: mac(1),
      vxlan: {
        vni,
        port: 8472,
        underlay: "eth0",
        local: Address.parse("192.0.2.1"),
        learning: false,
        gbp: false,
      },
    }],
    addresses: [{ link, address: InterfaceAddress.parse("10.5.1.0/32") }],
    neighbors: [{ link, address: Address.parse("10.5.2.0"), mac: mac(2) }],
    fdb: [{ link, mac: mac(2), remote: Address.parse("192.0.2.2") }],
    routes: [{
      destination: Prefix.parse("10.5.2.0/24"),
      type: "unicast",
      gateway: Address.parse("10.5.2.0"),
      link,
      onlink: true,
      protocol: ROUTE_PROTOCOL,
    }],
  };
}

function openHost(subnetFile = "/run/flannel/subnet.env") {
  const kernel = new FakeKernel();
  kernel.addLink("eth0");
  kernel.addAddress("eth0", "192.0.2.1/24");
  const netlink = kernel.open();
  const run = (file = subnetFile, networks = ["10.5.0.0/16"]) => {
    const tables = new KernelTables({
      netlink,
      alias: linkAlias(file),
      networks: networks.map((each) => Prefix.parse(each)),
      externalLink: "eth0",
      log,
    });
    let state = Desired.of(vxlanState());
    const stages = tables.stages(
      () => state,
      (address) => String(address) === "192.0.2.2",
    ).filter(({ table }) => !["offload", "sysctl"].includes(table.kind.id));
    const reconciler = new Reconciler({ name: "kernel", stages, resyncMs: Infinity, log });
    return {
      tables,
      round: (kinds?: ReadonlySet<KindId>) =>
        reconciler.round({ signal, ...(kinds ? { kinds } : {}) }),
      want: (other: DesiredState) => void (state = Desired.of(other)),
    };
  };
  return {
    kernel,
    run,
    names: () => kernel.links.map(({ name }) => name),
    index: (name: string) => kernel.links.find((link) => link.name === name)!.index,
    [Symbol.asyncDispose]: () => netlink[Symbol.asyncDispose](),
  };
}

Deno.test("KernelTables make a vxlan host and leave nothing of it for another backend", async () => {
  await using host = openHost();
  const { round, want } = host.run();
  const first = await round();
  assert.deepEqual([first.inSync, first.problems, first.changed], [true, [], 5]);
  assert.equal((await round()).changed, 0);
  want({});
  assert.equal((await round()).problems.length, 0);
  assert.deepEqual(host.names(), ["lo", "eth0"]);
  assert.deepEqual(host.kernel.routes.map(({ destination }) => String(destination)), [
    "192.0.2.0/24",
  ]);
});

/** What host 1 of an ali-vpc network wants while hosts `keys` have no route entry. */
function overflowState(keys: readonly string[], vtep: boolean): DesiredState {
  const { config } = aliVpc.parseConfig({ Type: "ali-vpc", Overflow: "vxlan" });
  const claim = (n: number) => ({
    instanceId: `i-${n}`,
    networkInterfaceId: `eni-${n}`,
    vpcId: "vpc-1",
    vSwitchId: "vsw-1",
    routeTableIds: ["vtb-1"],
  });
  const host = (n: number) => {
    const address = Address.parse(`192.0.2.${n}`);
    return { link: "eth0", mtuBytes: 1500, address, publicIp: address };
  };
  const lease = (n: number) => ({
    key: `10.5.${n}.0-24`,
    subnet: { ipv4: Prefix.parse(`10.5.${n}.0/24`) },
    attributes: aliVpc.announce(config, host(n), claim(n)),
  });
  return planAll(aliVpc, {
    config,
    network: parseNetworkConfig('{"Network":"10.5.0.0/16"}').config,
    host: host(1),
    facts: { ...claim(1), overflow: { keys: new Set(keys), vtep } },
    own: lease(1),
    peers: [lease(2), lease(3)],
  });
}

Deno.test("KernelTables make an overflow's device first, and take it away last", async () => {
  await using host = openHost();
  const { kernel } = host;
  const { round, want } = host.run();
  const writes = async (state: DesiredState) => {
    want(state);
    kernel.log.length = 0;
    const { problems } = await round();
    assert.deepEqual(problems, []);
    return [...kernel.log];
  };
  assert.deepEqual(await writes(overflowState(["10.5.2.0-24"], true)), [
    "add link flannel.1",
    "set link flannel.1",
    "add address 10.5.1.0/32 of link index 3",
    "replace neighbour 10.5.2.0 lladdr 0e:a1:c0:00:02:02",
    "replace forwarding entry 0e:a1:c0:00:02:02 dst 192.0.2.2",
    "add route 10.5.2.0/24 via 10.5.2.0 dev index 3",
  ]);
  assert.deepEqual(await writes(overflowState(["10.5.3.0-24"], true)), [
    "replace neighbour 10.5.3.0 lladdr 0e:a1:c0:00:02:03",
    "replace forwarding entry 0e:a1:c0:00:02:03 dst 192.0.2.3",
    "add route 10.5.3.0/24 via 10.5.3.0 dev index 3",
    "remove route 10.5.2.0/24 via 10.5.2.0 dev index 3",
    "remove forwarding entry 0e:a1:c0:00:02:02 dst 192.0.2.2",
    "remove neighbour 10.5.2.0 lladdr 0e:a1:c0:00:02:02",
  ]);
  // Neighbour and forwarding entry go with the device; so would the route, but not unseen.
  assert.deepEqual(await writes(overflowState(["10.5.3.0-24"], false)), [
    "remove route 10.5.3.0/24 via 10.5.3.0 dev index 3",
    "remove link flannel.1",
  ]);
  assert.deepEqual(host.names(), ["lo", "eth0"]);
});

Deno.test("KernelTables take a device over between vxlan and an overflow, in place", async () => {
  await using host = openHost();
  const { round, want } = host.run();
  await round();
  const index = host.index("flannel.1");
  for (
    const state of [overflowState(["10.5.3.0-24"], true), vxlanState(), overflowState([], true)]
  ) {
    want(state);
    assert.deepEqual((await round()).problems, []);
    assert.equal((await round()).changed, 0);
    assert.equal(host.index("flannel.1"), index);
    const { mac } = host.kernel.links.find(({ name }) => name === "flannel.1")!;
    assert.equal(String(mac), String(state.links![0]!.mac));
    const own = host.kernel.routes.filter(({ protocol }) => protocol === ROUTE_PROTOCOL);
    assert.equal(own.length, state.routes?.length ?? 0);
  }
  want(overflowState([], false));
  await round();
  assert.deepEqual(host.names(), ["lo", "eth0"]);
});

Deno.test("KernelTables of a later run know the links of an earlier one, not those of others", async () => {
  await using host = openHost();
  await host.run().round();
  host.kernel.addLink("flannel.9", { kind: "vxlan" });

  const other = host.run("/run/other/subnet.env", ["10.6.0.0/16"]);
  const { problems } = await other.round();
  assert.match(
    problems.map(sentenceOf).join("\n"),
    /flannel\.1.*is not ours; it belongs to another flanneld/,
  );
  other.want({});
  await other.round();
  assert.deepEqual(host.names(), ["lo", "eth0", "flannel.1", "flannel.9"]);

  const later = host.run();
  later.want(vxlanState(42));
  assert.deepEqual((await later.round()).problems, []);
  assert.deepEqual(host.names(), ["lo", "eth0", "flannel.9", "flannel.42"]);
});

Deno.test("KernelTables say which of their objects an event may be about", async () => {
  await using host = openHost();
  const { tables, round } = host.run();
  const veth = host.kernel.addLink("veth1");
  await round();
  await round(); // which sees the new link
  const flannel = host.index("flannel.1");
  const eth0 = host.index("eth0");
  const address = Address.parse("10.5.2.0");
  const fdb = { link: "flannel.1", mac: mac(2), remote: Address.parse("192.0.2.2") };
  const entry = { linkIndex: flannel, mac: fdb.mac, remote: fdb.remote };
  const drifts = [
    [{ kind: "lost" }, "all"],
    [{ kind: "link", removed: true, linkIndex: flannel }, "all"],
    [{ kind: "link", removed: false, linkIndex: eth0 }, "all"],
    [{ kind: "link", removed: false, linkIndex: veth.index }, []],
    [{ kind: "link", removed: false, linkIndex: 999 }, ["link"]],
    [{ kind: "link", removed: true, linkIndex: 999 }, []],
    [{ kind: "address", removed: true, linkIndex: flannel }, ["address"]],
    [{ kind: "address", removed: true, linkIndex: eth0 }, "all"],
    [{ kind: "address", removed: false, linkIndex: veth.index }, []],
    [
      { kind: "neighbor", removed: true, linkIndex: flannel, address },
      { kind: "neighbor", key: "flannel.1 10.5.2.0", gone: true },
    ],
    [
      { kind: "neighbor", removed: false, linkIndex: flannel, address }, // no longer permanent
      { kind: "neighbor", key: "flannel.1 10.5.2.0", gone: true },
    ],
    [{ kind: "neighbor", removed: true, linkIndex: eth0, address }, []],
    [
      { kind: "fdb", removed: false, linkIndex: flannel, entry },
      { kind: "fdb", key: "flannel.1 02:00:00:00:00:02", object: fdb, gone: false },
    ],
    [{ kind: "fdb", removed: false, linkIndex: flannel }, []],
    [{ kind: "route", removed: true }, []],
    [{ kind: "rule", removed: true }, []],
  ] as const;
  for (const [event, expected] of drifts) {
    assert.deepEqual(tables.driftOf(event), expected, JSON.stringify(event));
  }
  const [route] = host.kernel.routes.filter(({ protocol }) => protocol === ROUTE_PROTOCOL);
  const routeDrift = (change: Partial<Route>) => {
    const changed = { ...route!, ...change };
    const { destination, protocol } = changed;
    return tables.driftOf({ kind: "route", removed: true, destination, protocol, route: changed });
  };
  const gone = routeDrift({});
  assert.ok(typeof gone === "object" && "key" in gone);
  assert.deepEqual([gone.kind, gone.key, gone.gone], ["route", "10.5.2.0/24", true]);
  assert.deepEqual(routeDrift({ destination: Prefix.parse("10.6.2.0/24") }), []);
  assert.deepEqual(routeDrift({ table: 255 }), []);
  assert.deepEqual(routeDrift({ linkIndex: 999 }), ["route"]);
  const external = (kind: "link" | "address" | "route", linkIndex: number) =>
    tables.concernsExternalLink({ kind, removed: false, linkIndex });
  assert.deepEqual(
    [external("link", eth0), external("address", eth0), external("link", 999)],
    [true, true, true],
  );
  assert.deepEqual(
    [external("link", veth.index), external("address", flannel), external("route", eth0)],
    [false, false, false],
  );
});

Deno.test("KernelTables take over what an upstream daemon left, and nothing else", async () => {
  await using host = openHost();
  const { kernel } = host;
  kernel.addLink("flannel.1", {
    kind: "vxlan",
    mtuBytes: 1450,
    mac: mac(1),
    vxlan: {
      vni: 1,
      port: 8472,
      underlayIndex: host.index("eth0"),
      local: Address.parse("192.0.2.1"),
      learning: false,
      gbp: false,
      otherModes: [],
    },
  });
  const upstream = (gateway: string) =>
    ({ dev: "flannel.1", gateway: Address.parse(gateway), onlink: true }) as const;
  kernel.addRoute("10.5.2.0/24", upstream("10.5.2.0"));
  kernel.addRoute("10.5.77.0/24", upstream("10.5.77.0")); // of a peer that has gone
  kernel.addRoute("10.5.78.0/24", upstream("10.5.77.0")); // nothing that upstream makes
  kernel.addRoute("172.30.0.0/16", upstream("10.5.2.0"));
  const before = host.index("flannel.1");
  const { problems } = await host.run().round();
  assert.deepEqual(problems, []);
  assert.equal(host.index("flannel.1"), before, "not made anew");
  assert.deepEqual(
    kernel.routes.map(({ destination, protocol }) => `${destination} ${protocol}`).toSorted(),
    [`10.5.2.0/24 ${ROUTE_PROTOCOL}`, "10.5.78.0/24 3", "172.30.0.0/16 3", "192.0.2.0/24 2"],
  );
  assert.ok(
    !kernel.log.some((line) => /remove route 10\.5\.2\.0/.test(line)),
    "the peer's route is replaced in one step",
  );
});

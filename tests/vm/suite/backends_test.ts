/**
 * Daemons, etcd and pods under this kernel: two hosts on one segment, backend after backend.
 *
 * @module
 */
import assert from "node:assert/strict";
import {
  createAddressTable,
  createFdbTable,
  createNeighborTable,
} from "../../../src/kernel/link_entry_table.ts";
import type { Netlink } from "../../../src/kernel/netlink.ts";
import { openNetlink } from "../../../src/kernel/netlink/rtnetlink.ts";
import { createRouteTable } from "../../../src/kernel/route_table.ts";
import type { Table } from "../../../src/reconcile/table.ts";
import { type Host, labTest } from "../../lab/mod.ts";
import {
  assertPodsPing,
  flannelLines,
  kernelState,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
} from "../../process/kernel_support.ts";
import { eventually } from "../../support/eventually.ts";

/** A backend that tunnels, what its link is, and what happens to its objects. */
interface Case {
  readonly backend: Readonly<Record<string, unknown>>;
  readonly link: { readonly name: string; readonly kind: string };
  readonly drifts: readonly string[];
}

/** In a drift, the subnet of the other host. */
const PEER = "<peer>";

const CASES: readonly Case[] = [
  {
    backend: { Type: "ipip" },
    link: { name: "flannel.ipip", kind: "ipip" },
    drifts: [
      "link delete flannel.ipip",
      "link set flannel.ipip mtu 1300",
      "link set flannel.ipip down",
      "address flush dev flannel.ipip",
      "tunnel change flannel.ipip mode ipip local 192.0.2.99",
      `route delete ${PEER}`,
      `route replace blackhole ${PEER}`,
    ],
  },
  {
    backend: { Type: "vxlan" },
    link: { name: "flannel.1", kind: "vxlan" },
    drifts: [
      "link delete flannel.1",
      "neighbor flush dev flannel.1 nud permanent",
      `route delete ${PEER}`,
    ],
  },
];

labTest(
  "pods of two hosts ping both ways with each backend, and drift is repaired",
  async ({ signal }) => {
    await using lab = await openKernelLab({ signal, hosts: 2, config: {} });
    const [host, peer] = lab.hosts as readonly Host[] as [Host, Host];
    await host.namespace.ip([
      "link add other0 type ipip local 198.51.100.1 remote 198.51.100.2",
      "link set other0 up",
      "route add 203.0.113.0/24 dev other0",
    ], { signal });
    let foreign: readonly string[] | undefined;
    for (const { backend, link, drifts } of CASES) {
      const title = JSON.stringify(backend);
      await lab.writeConfig(networkConfig("v4", backend), { signal });
      await startCluster(lab, { signal });
      await assertPodsPing(lab, { signal, title });
      const { families: [family] } = await peer.readSubnetEnv();
      const subnet = family!.subnet.prefix.toString();
      const lines = flannelLines(await kernelState(host, { signal }));
      assert.deepEqual(
        lines.filter((line) => line.startsWith("link ")).map((line) => line.split(" ")[1]),
        [link.name],
        `${title}: nothing of another backend is left`,
      );
      const [shown] = JSON.parse(
        await host.namespace.run("ip", ["-d", "-j", "link", "show", link.name], { signal }),
      );
      assert.equal(shown.linkinfo.info_kind, link.kind);
      const route = lines.filter((line) => line.startsWith(`route unicast ${subnet} `));
      assert.equal(route.length, 1, lines.join("\n"));
      assert.ok(route[0]!.includes(` dev ${link.name} `), route[0]);
      await using netlink = openNetlink({ namespace: `/run/netns/${host.namespace.name}` });
      const before = await view(netlink, signal);
      const others = (await kernelState(host, { signal })).filter((line) => / other0 /.test(line));
      assert.equal(others.length, 2);
      assert.deepEqual(others, foreign ??= others, "the tunnel of others is as it was");
      for (const drift of drifts) {
        const command = drift.replace(PEER, subnet);
        await host.namespace.ip([command], { signal });
        const startedAt = performance.now();
        await eventually(async () => await view(netlink, signal) === before, {
          ...{ signal, title: `${title} to undo "ip ${command}"`, timeoutMs: 5_000 },
        }).catch(async (error) => {
          assert.equal(await view(netlink, signal), before, host.daemonLog());
          throw error;
        });
        const milliseconds = Math.round(performance.now() - startedAt);
        note(`${title}: "ip ${command}" was undone within ${milliseconds} ms`);
      }
      await assertPodsPing(lab, { signal, title: `${title} after all drifts` });
      await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
    }
  },
  { timeoutMs: 60_000 },
);

/**
 * What flanneld cares for on a host, in words. Read without starting a program, which takes long
 * in here.
 */
async function view(netlink: Netlink, signal: AbortSignal): Promise<string> {
  const owned = { ownsLink: (name: string) => name.startsWith("flannel") };
  const links = await netlink.listLinks({ signal });
  const lines = links.map(({ name, up, mtuBytes, mac, kind, ipip, vxlan }) =>
    [name, up, mtuBytes, mac, kind, ipip?.local, ipip?.remote, vxlan?.vni, vxlan?.local].join(" ")
  );
  return [
    ...lines,
    ...await describe(createAddressTable(netlink, owned), signal),
    ...await describe(createNeighborTable(netlink, owned), signal),
    ...await describe(createFdbTable(netlink, owned), signal),
    ...await describe(createRouteTable(netlink), signal),
  ].sort().join("\n");
}

async function describe<Spec>(table: Table<Spec>, signal: AbortSignal): Promise<string[]> {
  const { kind } = table;
  return (await table.list({ signal })).filter((each) => kind.owns(each))
    .map((each) => `${kind.name} ${kind.format(each)}`);
}

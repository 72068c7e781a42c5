/**
 * What {@linkcode createLinkTable} promises of ipip tunnels, run on the fake and, where the kernel
 * has them, on the kernel.
 *
 * @module
 */
import assert from "node:assert/strict";
import { createAddressTable } from "../../src/kernel/link_entry_table.ts";
import { createLinkTable } from "../../src/kernel/link_table.ts";
import type { Netlink, NetlinkRequest } from "../../src/kernel/netlink.ts";
import { createRouteTable } from "../../src/kernel/route_table.ts";
import { Address, InterfaceAddress, Prefix } from "../../src/net/mod.ts";
import { formatChange } from "../../src/reconcile/diff.ts";
import { diff } from "../support/diff.ts";
import type { Table } from "../../src/reconcile/table.ts";
import { type LinkSpec, ROUTE_PROTOCOL } from "../../src/state/mod.ts";
import type { ContractKernel } from "./netlink_contract.ts";

const OWNED = { ownsLink: (name: string) => name === "flannel.ipip" };

function tunnel(local: string, mtuBytes = 1480): LinkSpec {
  return { name: "flannel.ipip", kind: "ipip", mtuBytes, ipip: { local: Address.parse(local) } };
}

/** Registers the suite. `open` makes a kernel with nothing but a loopback link. */
export function ipipContract(name: string, open: () => Promise<ContractKernel>): void {
  Deno.test(`${name} link Table makes an ipip tunnel, changes it and makes it anew`, async () => {
    await using kernel = await open();
    await using netlink = kernel.open();
    const { signal } = new AbortController();
    const links = createLinkTable(netlink, OWNED);
    // The module brings a tunnel of its own to each namespace, which nobody owns.
    const others = async () =>
      (await links.list({ signal })).map((each) => each.name).filter((each) => each !== "tunl0");
    const before = await others();

    const base = tunnel("192.0.2.1");
    assert.deepEqual(await converge(links, [base], signal), [
      "add link flannel.ipip mtu 1480 type ipip local 192.0.2.1",
    ]);
    assert.deepEqual(await converge(links, [base], signal), []);
    const made = await indexOf(netlink, "flannel.ipip");

    const narrow = tunnel("192.0.2.1", 1400);
    assert.equal((await converge(links, [narrow], signal)).length, 1);
    assert.deepEqual(await converge(links, [narrow], signal), []);
    assert.equal(await indexOf(netlink, "flannel.ipip"), made, "changed in place");

    const moved = tunnel("192.0.2.9", 1400);
    assert.equal((await converge(links, [moved], signal)).length, 1);
    assert.deepEqual(await converge(links, [moved], signal), []);
    assert.notEqual(await indexOf(netlink, "flannel.ipip"), made, "made anew");

    assert.equal((await converge(links, [], signal)).length, 1);
    assert.deepEqual(await others(), before);
  });

  Deno.test(`${name} addresses and routes of an ipip tunnel converge, and go with it`, async () => {
    await using kernel = await open();
    await using netlink = kernel.open();
    const { signal } = new AbortController();
    const links = createLinkTable(netlink, OWNED);
    const addresses = createAddressTable(netlink, OWNED);
    const routes = createRouteTable(netlink);
    const desired = {
      address: { link: "flannel.ipip", address: InterfaceAddress.parse("10.24.1.0/32") },
      route: {
        destination: Prefix.parse("10.24.2.0/24"),
        type: "unicast",
        gateway: Address.parse("192.0.2.2"),
        link: "flannel.ipip",
        onlink: true,
        protocol: ROUTE_PROTOCOL,
      },
    } as const;
    const settle = async () => [
      ...await converge(links, [tunnel("192.0.2.1")], signal),
      ...await converge(addresses, [desired.address], signal),
      ...await converge(routes, [desired.route], signal),
    ];
    assert.equal((await settle()).length, 3);
    assert.deepEqual(await settle(), []);

    const index = await indexOf(netlink, "flannel.ipip");
    const removal: NetlinkRequest = {
      verb: "remove",
      noun: "link",
      value: { index, name: "flannel.ipip" },
    };
    assert.deepEqual(await netlink.change([removal], { signal }), [undefined]);
    assert.deepEqual(await settle(), [
      "add link flannel.ipip mtu 1480 type ipip local 192.0.2.1",
      `add address 10.24.1.0/32 dev flannel.ipip`,
      `add route 10.24.2.0/24 via 192.0.2.2 dev flannel.ipip proto ${ROUTE_PROTOCOL} onlink`,
    ]);
    assert.deepEqual(await settle(), []);
  });
}

/** Brings `table` to `desired`; what it did, in words. */
async function converge<Spec>(
  table: Table<Spec>,
  desired: readonly Spec[],
  signal: AbortSignal,
): Promise<string[]> {
  const { writes, removals, conflicts } = diff(table.kind, desired, await table.list({ signal }));
  assert.deepEqual(conflicts, []);
  const changes = [...writes, ...removals];
  assert.deepEqual((await table.apply(changes, { signal })).map(({ error }) => error), []);
  return changes.map((change) => formatChange(table.kind, change));
}

async function indexOf(netlink: Netlink, name: string): Promise<number> {
  const links = await netlink.listLinks(new AbortController());
  const link = links.find((each) => each.name === name);
  assert.ok(link, `there is a link ${name}`);
  return link.index;
}

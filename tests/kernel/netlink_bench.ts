/**
 * Measures dumps and batched writes of 10,000 peers in a network namespace of its own, beside
 * `ip -batch`. To be run as root: `deno run -A tests/kernel/netlink_bench.ts`.
 */
import process from "node:process";
import { createLinkTable } from "../../src/kernel/link_table.ts";
import { createFdbTable, createNeighborTable } from "../../src/kernel/link_entry_table.ts";
import { openNetlink } from "../../src/kernel/netlink/rtnetlink.ts";
import { createRouteTable } from "../../src/kernel/route_table.ts";
import { Address, MacAddress, Prefix } from "../../src/net/mod.ts";
import type { Table } from "../../src/reconcile/table.ts";
import { ROUTE_PROTOCOL } from "../../src/state/mod.ts";
import { createTestNamespace } from "./namespace.ts";
import { vxlanLink } from "../support/links.ts";

const PEERS = Number(Deno.args[0] ?? 10_000);
const { signal } = new AbortController();

function cpuMs(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

async function measure<T>(what: string, action: () => Promise<T>): Promise<T> {
  const wall = performance.now();
  const cpu = cpuMs();
  const result = await action();
  const figures = `${(performance.now() - wall).toFixed(1)} ms, ${
    (cpuMs() - cpu).toFixed(1)
  } ms CPU`;
  report(`${what.padEnd(44)} ${figures}`);
  return result;
}

function report(line: string): void {
  Deno.stdout.writeSync(new TextEncoder().encode(line + "\n"));
}

async function fillAndList<Spec>(table: Table<Spec>, specs: readonly Spec[]): Promise<void> {
  const noun = table.kind.name;
  const add = specs.map((desired) => ({ op: "add" as const, desired }));
  const failed = await measure(`add ${PEERS} × ${noun}`, () => table.apply(add, { signal }));
  if (failed.length > 0) throw failed[0]!.error;
  let actual = await measure(`list ${PEERS} × ${noun}, first`, () => table.list({ signal }));
  for (let i = 0; i < 3; i++) {
    actual = await measure(`list ${PEERS} × ${noun}`, () => table.list({ signal }));
  }
  await measure(`compare ${PEERS} × ${noun}`, () => {
    const found = new Map(actual.map((each) => [table.kind.key(each), each]));
    const right = specs.filter((spec) => {
      const present = found.get(table.kind.key(spec));
      return present !== undefined && table.kind.equal(spec, present);
    });
    if (right.length !== specs.length) throw new Error("not all are there");
    return Promise.resolve();
  });
}

await using namespace = await createTestNamespace();
await namespace.run("ip", "link", "add", "eth0", "type", "bridge");
await namespace.run("ip", "link", "set", "eth0", "up");
await namespace.run("ip", "address", "add", "192.0.2.1/24", "dev", "eth0");
await using netlink = openNetlink({ namespace: namespace.path });
const owned = { ownsLink: (name: string) => name === "flannel.1" };
await createLinkTable(netlink, owned).apply([{ op: "add", desired: vxlanLink("192.0.2.1") }], {
  signal,
});

const peers = Array.from({ length: PEERS }, (_, i) => ({
  subnet: new Prefix(Address.parse("10.0.0.0").add(BigInt(i) << 8n), 24),
  mac: MacAddress.fromBytes(new Uint8Array([2, 0, 0, i >> 16, (i >> 8) & 255, i & 255])),
  publicIp: Address.parse("172.16.0.0").add(BigInt(i)),
}));
const link = "flannel.1";
await fillAndList(
  createNeighborTable(netlink, owned),
  peers.map(({ subnet, mac }) => ({ link, address: subnet.address, mac })),
);
await fillAndList(
  createFdbTable(netlink, owned),
  peers.map(({ mac, publicIp }) => ({ link, mac, remote: publicIp })),
);
await fillAndList(
  createRouteTable(netlink),
  peers.map(({ subnet }) => ({
    destination: subnet,
    type: "unicast" as const,
    gateway: subnet.address,
    link,
    onlink: true,
    protocol: ROUTE_PROTOCOL,
  })),
);

const batch = await Deno.makeTempFile();
try {
  await namespace.run("ip", "route", "flush", "proto", String(ROUTE_PROTOCOL));
  const lines = peers.map(({ subnet }) =>
    `route add ${subnet} via ${subnet.address} dev ${link} onlink proto ${ROUTE_PROTOCOL}\n`
  );
  await Deno.writeTextFile(batch, lines.join(""));
  await measure(
    `ip -batch: add ${PEERS} × route (its wall time)`,
    () => namespace.run("ip", "-batch", batch),
  );
} finally {
  await Deno.remove(batch);
}

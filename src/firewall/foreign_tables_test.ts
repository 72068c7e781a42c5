import assert from "node:assert/strict";
import { Address, Prefix } from "../net/mod.ts";
import { sentenceOf } from "../status/problems.ts";
import { findRefusals, type PodPaths } from "./foreign_tables.ts";
import { readNftTable } from "./nft_verdicts.ts";

const PATHS: PodPaths = {
  family: 4,
  network: Prefix.parse("10.244.0.0/16"),
  subnet: Prefix.parse("10.244.1.0/24"),
  inside: "cni0",
  outside: ["flannel.1"],
  tunnel: {
    protocol: "udp",
    port: 8472,
    link: "eth0",
    local: Address.parse("192.0.2.10"),
    peer: Address.parse("192.0.2.11"),
  },
};

async function findIn(fixture: string, paths: readonly PodPaths[] = [PATHS]): Promise<string[]> {
  const file = new URL(`../../tests/fixtures/firewall/${fixture}`, import.meta.url);
  return findRefusals(readNftTable(await Deno.readTextFile(file)), paths).map(sentenceOf);
}

Deno.test("findRefusals() names firewalld's catch-all, for pods and the tunnel", async () => {
  const found = await findIn("nft-firewalld-public.json");
  assert.equal(found.length, 2, found.join("\n"));
  const [tunnel, pods] = found.toSorted((a, b) => b.length - a.length)[0]!.includes("10.244")
    ? found.toReversed()
    : found;
  const text = found.join("\n");
  assert.ok(tunnel && pods);
  assert.match(text, /filter_FORWARD \(hook forward\) of nft table "inet firewalld" rejects/);
  assert.match(text, /--zone=trusted --add-source=10\.244\.0\.0\/16 && firewall-cmd --reload/);
  assert.match(text, /filter_INPUT \(hook input\).*udp port 8472.*--add-port=8472\/udp/);
});

Deno.test("findRefusals() finds no fault once firewalld lets the network through", async () => {
  assert.deepEqual(await findIn("nft-firewalld-trusted.json"), []);
});

import assert from "node:assert/strict";
import fc from "fast-check";
import {
  createForwardingMemory,
  ForwardingReader,
  MAX_ENTRIES,
  SLOT,
} from "../../src/dataplane/forwarding_reader.ts";
import {
  addressWords,
  type ForwardingEntry,
  ForwardingTable,
} from "../../src/dataplane/forwarding_table.ts";
import { Address, type Family, Prefix } from "../../src/net/mod.ts";

const { signal } = new AbortController();

const addresses = (family: Family) =>
  fc.array(fc.oneof(fc.nat(3), fc.nat(255)), {
    minLength: family === 4 ? 4 : 16,
    maxLength: family === 4 ? 4 : 16,
  }).map((bytes) => Address.fromBytes(Uint8Array.from(bytes)));
const prefixes = (family: Family) =>
  fc.tuple(addresses(family), fc.nat(family === 4 ? 32 : 128))
    .map(([address, length]) => new Prefix(address, length));
const entries = fc.uniqueArray(
  fc.tuple(
    fc.oneof(prefixes(4), prefixes(6)),
    fc.oneof(addresses(4), addresses(6)),
    fc.integer({ min: 1, max: 65_535 }),
  ).map(([prefix, address, port]): ForwardingEntry => ({ prefix, address, port })),
  { selector: ({ prefix }) => prefix.toString(), maxLength: 40, size: "max" },
);

function find(reader: ForwardingReader, address: Address): number {
  const [a, b, c, d] = addressWords(address);
  return address.family === 4 ? reader.lookup4(a) : reader.lookup6(a, b, c, d);
}

function byPrefix(list: readonly ForwardingEntry[]): string[] {
  return list.map(({ prefix, address, port }) => `${prefix} ${address} ${port}`).sort();
}

Deno.test("ForwardingReader finds the longest prefix, as looking at each would", async () => {
  const memory = createForwardingMemory();
  const table = new ForwardingTable(memory);
  const reader = new ForwardingReader(memory);
  await fc.assert(
    fc.asyncProperty(
      entries,
      fc.array(fc.oneof(addresses(4), addresses(6)), { maxLength: 50, size: "max" }),
      async (list, wanted) => {
        await table.replace(list, { signal });
        assert.deepEqual(byPrefix(table.entries()), byPrefix(list));
        reader.begin();
        for (const address of [...wanted, ...list.map(({ prefix }) => prefix.last)]) {
          const best = list.filter(({ prefix }) => prefix.contains(address))
            .toSorted((a, b) => b.prefix.length - a.prefix.length)[0];
          const slot = find(reader, address);
          assert.equal(slot >= 0, best !== undefined);
          if (best) {
            assert.equal(reader.portOf(slot), best.port);
            assert.equal(reader.words[slot + SLOT.PEER_FAMILY], best.address.family);
            assert.deepEqual(
              [...reader.words.slice(slot + SLOT.PEER_ADDRESS, slot + SLOT.PEER_ADDRESS + 4)],
              addressWords(best.address),
            );
          }
        }
        reader.end();
      },
    ),
    { numRuns: 200 },
  );
});

Deno.test("ForwardingTable does not touch what a reader reads", async () => {
  const memory = createForwardingMemory();
  const table = new ForwardingTable(memory);
  const reader = new ForwardingReader(memory);
  const entry = (port: number): ForwardingEntry => ({
    prefix: Prefix.parse("10.0.0.0/8"),
    address: Address.parse("192.0.2.1"),
    port,
  });
  const port = () => reader.portOf(find(reader, Address.parse("10.1.2.3")));
  await table.replace([entry(1)], { signal });
  reader.begin();
  assert.equal(port(), 1);
  await table.replace([entry(2)], { signal });
  assert.equal(port(), 1, "until it begins anew it sees what it saw");
  let third = false;
  const writing = table.replace([entry(3)], { signal }).then(() => third = true);
  await new Promise((resolve) => setTimeout(resolve, 20));
  assert.equal(third, false, "the memory it reads is not written to");
  reader.begin();
  assert.equal(port(), 2);
  await writing;
  reader.begin();
  assert.equal(port(), 3);
  reader.end();
  await assert.rejects(
    table.replace(Array(MAX_ENTRIES + 1).fill(entry(1)), { signal }),
    /at most 65536 fit/,
  );
});

Deno.test("ForwardingTable keeps a learnt port with its peer, and with no other", async () => {
  const memory = createForwardingMemory();
  const table = new ForwardingTable(memory);
  const reader = new ForwardingReader(memory);
  const peer: ForwardingEntry = {
    prefix: Prefix.parse("10.1.0.0/16"),
    address: Address.parse("192.0.2.1"),
    port: 8285,
  };
  await table.replace([peer], { signal });
  reader.begin();
  reader.words[find(reader, Address.parse("10.1.0.1")) + SLOT.LEARNT_PORT] = 4_000;
  reader.end();
  const other = { ...peer, prefix: Prefix.parse("10.2.0.0/16") };
  await table.replace([peer, other], { signal });
  const learnt = () => table.entries().map(({ learntPort }) => learntPort ?? 0).sort();
  assert.deepEqual(learnt(), [0, 4_000]);
  await table.replace([{ ...peer, address: Address.parse("192.0.2.2") }], { signal });
  assert.deepEqual(learnt(), [0]);
});

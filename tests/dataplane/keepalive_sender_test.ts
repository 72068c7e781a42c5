import assert from "node:assert/strict";
import { Libc } from "../../ffi/libc/open.ts";
import { openUdpSocket } from "../../ffi/tun/open.ts";
import { PacketIo } from "../../ffi/tun/packet_io.ts";
import { createForwardingMemory, ForwardingReader } from "../../src/dataplane/forwarding_reader.ts";
import { addressWords, ForwardingTable } from "../../src/dataplane/forwarding_table.ts";
import { KeepaliveSender } from "../../src/dataplane/keepalive_sender.ts";
import {
  CONTROL,
  COUNTER,
  COUNTERS,
  createCounterMemory,
} from "../../src/dataplane/shared_state.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { DatagramPeer } from "./datagrams.ts";
import { isIntact } from "./reference.ts";

const { signal } = new AbortController();
const PEERS = 150;

Deno.test("KeepaliveSender sends to each peer in portions, after 25 s again, and to new ones after 5 s", async () => {
  using libc = Libc.open();
  using io = new PacketIo();
  await using peer = await DatagramPeer.open("127.0.0.2");
  const socket = openUdpSocket(libc, {
    address: Uint8Array.of(127, 0, 0, 1),
    port: 0,
    bufferBytes: 1 << 20,
  });
  const memory = createForwardingMemory();
  const table = new ForwardingTable(memory);
  const reader = new ForwardingReader(memory);
  const counters = new Float64Array(createCounterMemory());
  const control = new Int32Array(CONTROL.WORDS);
  control[CONTROL.OWN_IPV4] = addressWords(Address.parse("10.24.255.0"))[0];
  const peers = (count: number) =>
    Array.from({ length: count }, (_, i) => ({
      prefix: Prefix.parse(`10.24.${i}.0/24`),
      address: Address.parse("127.0.0.2"),
      port: peer.port,
    }));
  await table.replace([
    ...peers(PEERS),
    // Of a family that this host has no subnet of, so that there is nothing to send from.
    { prefix: Prefix.parse("fd00::/64"), address: Address.parse("127.0.0.2"), port: peer.port },
  ], { signal });

  let now = 1_000_000;
  const sender = new KeepaliveSender({
    ...{ io, reader, counters, control, eventfd: -1, now: () => now },
    onNotice: (text) => assert.fail(text),
  });
  sender.setSockets(socket.fd, -1);
  /** As the packet loop does: what is sent in turn, until it may wait for long. */
  const turns = () => {
    const sent: number[] = [];
    do {
      const before = counters[COUNTER.keepalivesSent]!;
      reader.begin();
      sender.sendDue();
      reader.end();
      sent.push(counters[COUNTER.keepalivesSent]! - before);
    } while (sender.waitMs() === 1);
    return sent;
  };

  const first = turns();
  assert.equal(first.reduce((sum, count) => sum + count, 0), PEERS);
  assert.ok(Math.max(...first) <= 64 && first.length >= 3, `${first}`);
  const datagrams = await peer.receive(PEERS);
  assert.ok(datagrams.every((datagram) => datagram.length === 20 && isIntact(datagram)));
  const subnets = new Set(datagrams.map((datagram) => [...datagram.subarray(12, 20)].join(".")));
  assert.deepEqual(
    subnets,
    new Set(peers(PEERS).map(({ prefix }) => `10.24.255.0.${prefix.address}`)),
  );

  assert.equal(sender.waitMs(), 25_000);
  now += 24_990;
  assert.deepEqual(turns(), [0]);
  now += 10;
  assert.equal(turns().reduce((sum, count) => sum + count, 0), PEERS);

  // Changes, however many, bring one round 5 s after the last one.
  for (const count of [10, 20]) {
    await table.replace(peers(count), { signal });
    now += 1_000;
    assert.deepEqual(turns(), [0]);
  }
  assert.equal(sender.waitMs(), 3_000);
  now += 3_000;
  assert.deepEqual(turns(), [20]);
  assert.equal(sender.waitMs(), 25_000);
  const dropped = COUNTERS.filter((name) =>
    name.startsWith("drop") && counters[COUNTER[name]]! > 0
  );
  assert.deepEqual(dropped, []);
  libc.close(socket.fd);
});

/**
 * Egress and Ingress with real UDP sockets on loopback and a device that is a pair of sockets.
 */
import assert from "node:assert/strict";
import fc from "fast-check";
import { Errno } from "../../ffi/tun/packet_io.ts";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { type CounterName, COUNTERS } from "../../src/dataplane/shared_state.ts";
import { DatagramPeer } from "./datagrams.ts";
import { fromDevice, OUTBOUND, PACKET, PacketPath } from "./packet_path.ts";
import { buildPacket, isIntact, type PacketFields, splitFields } from "./reference.ts";

const { signal } = new AbortController();
const FUZZ_MS = Number(Deno.env.get("FUZZ_SECONDS") ?? 60) * 1_000;

/** `fields` one hop on. */
function hop(fields: PacketFields): PacketFields {
  return { ...fields, ttl: fields.ttl - 1 };
}

Deno.test("Egress sends each packet as one bare datagram to its peer, one hop on", async () => {
  await using path = await new PacketPath().open();
  assert.ok(path.device.send(fromDevice(buildPacket(OUTBOUND))));
  path.takeOut();
  const [datagram] = await path.peer.receive(1);
  assert.deepEqual(datagram, buildPacket(hop(OUTBOUND)));
  assert.equal(path.counters().sentPackets, 1);
});

Deno.test("Egress splits a large packet into the datagrams of its parts", async () => {
  await using path = await new PacketPath().open();
  const fields = {
    ...OUTBOUND,
    flags: 0x99,
    payload: Array.from({ length: 40_000 }, (_, i) => i & 0xff),
  };
  const packet = buildPacket(fields);
  const header = { flags: 1, gso_type: 0x81, gso_size: 1400, csum_start: 20, csum_offset: 16 };
  // The hint about the header's length is wrong, as it may be.
  assert.ok(path.device.send(fromDevice(packet, { ...header, hdr_len: 3 })));
  path.takeOut();
  const expected = splitFields(hop(fields), 1400).map(buildPacket);
  assert.deepEqual(await path.peer.receive(expected.length), expected);
  assert.deepEqual(path.drops(), {});
});

Deno.test("Egress sends packets of one length as a run, in order", async () => {
  await using path = await new PacketPath().open();
  const expected: Uint8Array[] = [];
  for (let i = 0; i < 100; i++) {
    const fields = { ...OUTBOUND, id: i, payload: Array(i === 50 ? 30 : 60).fill(i) };
    path.device.send(fromDevice(buildPacket(fields)));
    if (i % 8 === 7) path.takeOut();
    expected.push(buildPacket(hop(fields)));
  }
  path.takeOut();
  assert.deepEqual(await path.peer.receive(100), expected);
  const { sentDatagramRuns, sendCalls } = path.counters();
  assert.ok(sentDatagramRuns > 10 && sendCalls < 20);
});

Deno.test("Egress counts by reason what it cannot send", async () => {
  await using path = await new PacketPath({ mtuBytes: 500 }).open();
  const big = Array(600).fill(1);
  const send = (fields: PacketFields, bytes = buildPacket(fields)) =>
    assert.ok(path.device.send(fromDevice(bytes)));
  send({ ...OUTBOUND, destination: [10, 24, 9, 1] });
  send({ ...OUTBOUND, destination: [224, 0, 0, 1] });
  send({ ...OUTBOUND, ttl: 1 });
  send({ ...OUTBOUND, payload: big });
  send(OUTBOUND, buildPacket(OUTBOUND).subarray(0, 19).slice());
  send(OUTBOUND, buildPacket(OUTBOUND).subarray(0, 60).slice()); // shorter than it says
  path.device.send(fromDevice(buildPacket(OUTBOUND), { gso_type: 1, gso_size: 10 })); // no sums
  path.device.send(
    fromDevice(buildPacket(OUTBOUND), { flags: 1, csum_start: 100, csum_offset: 60 }),
  );
  path.takeOut();
  assert.deepEqual(path.drops(), {
    dropNoPeer: 1,
    dropMulticast: 1,
    dropTtl: 1,
    dropTooLong: 1,
    dropMalformed: 4,
  });
  // What may be fragmented goes all the same.
  send({ ...OUTBOUND, payload: big, dontFragment: false });
  path.takeOut();
  assert.equal((await path.peer.receive(1))[0]!.length, 640);
});

Deno.test("Egress passes over what the kernel cannot hand over, and notes that its device is gone", async () => {
  const readErrors = [Errno.EINTR, Errno.EINVAL, Errno.ENOMEM];
  await using path = await new PacketPath({ readErrors }).open();
  path.device.send(fromDevice(buildPacket(OUTBOUND)));
  assert.equal(path.takeOut(), "idle");
  assert.deepEqual(await path.peer.receive(1), [buildPacket(hop(OUTBOUND))]);
  assert.deepEqual(path.drops(), { dropTunError: 2 });
  await using orphan = await new PacketPath({ readErrors: [Errno.EBADFD] }).open();
  assert.equal(orphan.takeOut(), "gone");
});

Deno.test("Egress survives any header and packet of the device", async () => {
  await using path = await new PacketPath().open();
  const octet = fc.nat(255);
  const packet = buildPacket(OUTBOUND);
  let sent = 0;
  fc.assert(
    fc.property(
      fc.uint8Array({ minLength: 10, maxLength: 10 }),
      fc.array(fc.tuple(fc.nat(60), octet), { maxLength: 4 }),
      fc.nat(packet.length),
      (header, faults, length) => {
        const bytes = fromDevice(packet.slice(0, length));
        bytes.set(header);
        for (const [at, to] of faults) if (10 + at < bytes.length) bytes[10 + at] = to;
        path.device.send(bytes);
        sent++;
        path.takeOut();
      },
    ),
    { numRuns: 5_000 },
  );
  assert.equal(path.counters().tunReads, sent);
});

Deno.test("Ingress writes a peer's packets to the device, one hop on", async () => {
  await using path = await new PacketPath().open();
  await path.send(path.peer, buildPacket(PACKET));
  // Padding behind the packet does not belong to it.
  await path.send(path.peer, Uint8Array.from([...buildPacket({ ...PACKET, id: 77 }), 0, 0, 0]));
  const received = path.takeIn().map((bytes) => bytes.slice(virtio_net_hdr.size));
  assert.deepEqual(received, [
    buildPacket(hop(PACKET)),
    buildPacket(hop({ ...PACKET, id: 77 })),
  ]);
});

Deno.test("Ingress joins a row of packets, and leaves wrong checksums to the receiver", async () => {
  await using path = await new PacketPath().open();
  const row = splitFields({ ...PACKET, payload: Array(3_000).fill(9) }, 1_000).map(buildPacket);
  for (const packet of row) await path.send(path.peer, packet);
  const joined = path.takeIn();
  assert.equal(joined.length, 1);
  assert.equal(joined[0]![virtio_net_hdr.gso_type], 1);
  row[1]![30]! ^= 1;
  for (const packet of row) await path.send(path.peer, packet);
  assert.equal(path.takeIn().length, 3);
});

Deno.test("Ingress takes packets from their peer's address only, and of its subnet only", async () => {
  const foreign = { ...PACKET, source: [192, 168, 1, 1] };
  const ofOther = { ...PACKET, source: [10, 24, 3, 1] };
  {
    await using path = await new PacketPath().open();
    await path.send(path.stranger, buildPacket(PACKET));
    await path.send(path.peer, buildPacket(ofOther));
    await path.send(path.peer, buildPacket(foreign));
    await path.send(path.peer, buildPacket({ ...PACKET, ttl: 1 }));
    assert.deepEqual(path.takeIn(), []);
    assert.deepEqual(path.drops(), {
      dropUnknownSender: 2,
      dropForeignSource: 1,
      dropTtl: 1,
    });
  }
  await using path = await new PacketPath({ allowAnySource: true }).open();
  await path.send(path.stranger, buildPacket(PACKET));
  await path.send(path.peer, buildPacket(foreign));
  assert.equal(path.takeIn().length, 2);
});

Deno.test("with NATTraversal a peer's port is learnt from packets of its own subnet only", async () => {
  await using path = await new PacketPath({ natTraversal: true }).open();
  await using moved = await DatagramPeer.open("127.0.0.2");
  const { port } = moved;
  const learnt = () =>
    path.forwarding.entries().find(({ prefix }) => `${prefix}` === "10.24.2.0/24")!.learntPort;
  await path.send(path.stranger, buildPacket(PACKET));
  await path.send(moved, buildPacket({ ...PACKET, source: [10, 24, 3, 1] }));
  path.takeIn();
  assert.equal(learnt(), undefined);
  await path.send(moved, buildPacket(PACKET));
  path.takeIn();
  assert.equal(learnt(), port);
  path.device.send(fromDevice(buildPacket(OUTBOUND)));
  path.takeOut();
  assert.deepEqual(await moved.receive(1), [buildPacket(hop(OUTBOUND))]);
  // What was learnt survives a change of other peers.
  await path.forwarding.replace(path.forwarding.entries().slice(0), { signal });
  assert.equal(learnt(), port);
});

Deno.test("with NATTraversal no forged datagram takes a peer's port away while that is in use", async () => {
  let now = 1_000;
  await using path = await new PacketPath({ natTraversal: true, nowSeconds: () => now }).open();
  await using first = await DatagramPeer.open("127.0.0.2");
  await using other = await DatagramPeer.open("127.0.0.2");
  const learnt = () =>
    path.forwarding.entries().find(({ prefix }) => `${prefix}` === "10.24.2.0/24")!.learntPort;
  const send = async (from: DatagramPeer) => {
    await path.send(from, buildPacket(PACKET));
    assert.equal(path.takeIn().length, 1);
  };
  await send(first);
  assert.equal(learnt(), first.port);
  // A keepalive every 25 s, one of which is lost, and forged datagrams between them.
  for (const seconds of [1, 24, 25, 25]) {
    now += seconds;
    await send(other);
    assert.equal(learnt(), first.port);
    if (seconds !== 24) await send(first);
  }
  now += 55;
  await send(other);
  assert.equal(learnt(), first.port);
  assert.equal(path.counters().portsNotLearnt, 5);
  // Changes of other peers make it forget neither.
  await path.forwarding.replace(path.forwarding.entries().slice(0), { signal });
  await send(other);
  assert.equal(learnt(), first.port);
  now += 1;
  await send(other);
  assert.equal(learnt(), other.port);
  await send(first);
  assert.equal(learnt(), other.port);
});

Deno.test("Ingress takes the datagrams of a run one by one", async () => {
  await using path = await new PacketPath().open();
  // No row of a flow: nothing is joined.
  const packets = [1, 2, 3].map((n) => buildPacket({ ...PACKET, sourcePort: n }));
  const last = buildPacket({ ...PACKET, payload: [1] });
  const run = Uint8Array.from([...packets, last].flatMap((packet) => [...packet]));
  path.sendRun(run, packets[0]!.length);
  assert.equal(path.takeIn().length, 4);
  assert.equal(path.counters().receivedDatagramRuns, 1);
  // A length that fits no packet leaves none.
  path.sendRun(run, packets[0]!.length - 1);
  assert.equal(path.takeIn().length, 0);
  assert.equal(path.counters().receivedPackets, 4);
});

Deno.test(`Ingress withstands hostile datagrams for ${FUZZ_MS / 1_000} s`, async () => {
  const startedAt = performance.now();
  const ipv6: PacketFields = {
    ...PACKET,
    version: 6,
    source: [0xfd, 0, 0, 0x24, 0, 2, ...Array(9).fill(0), 7],
    destination: Array(16).fill(2),
  };
  const base = [
    buildPacket(PACKET),
    buildPacket({ ...PACKET, protocol: 17 }),
    ...splitFields({ ...PACKET, payload: Array(300).fill(3) }, 100).map(buildPacket),
    buildPacket(ipv6),
    ...splitFields({ ...ipv6, protocol: 17, payload: Array(300).fill(3) }, 100).map(buildPacket),
  ];
  const keepalive = buildPacket({ ...PACKET, payload: [] }).slice(0, 20);
  keepalive.set([0, 20], 2);
  keepalive[9] = 59;
  const random = (below: number) => Math.floor(Math.random() * below);
  const hostile = () => {
    const packet = (random(9) === 0 ? keepalive : base[random(base.length)]!).slice();
    for (let n = random(6); n > 0; n--) packet[random(Math.min(packet.length, 64))] = random(256);
    return random(4) === 0 ? packet.slice(0, random(packet.length + 1)) : packet;
  };
  await using plain = await new PacketPath().open();
  await using open = await new PacketPath({ allowAnySource: true }).open();
  await using nat = await new PacketPath({ natTraversal: true }).open();
  const tallies = new Map([plain, open, nat].map((path) => [path, { sent: 0, written: 0 }]));
  while (performance.now() - startedAt < FUZZ_MS) {
    for (const [path, tally] of tallies) {
      for (let i = 0; i < 50; i++) {
        await path.send(random(5) === 0 ? path.stranger : path.peer, hostile());
      }
      const run = Uint8Array.from(
        Array.from({ length: 1 + random(8) }, () => [...hostile()]).flat(),
      );
      const segmentBytes = Math.max(Math.ceil(run.length / 60), 1 + random(200));
      if (run.length > 0) path.sendRun(run, segmentBytes);
      tally.sent += 50 + Math.ceil(run.length / segmentBytes);
      for (const bytes of path.takeIn()) {
        assertWhole(bytes, path !== open);
        tally.written++;
      }
    }
  }
  for (const [path, { sent, written }] of tallies) {
    const counters = path.counters();
    const dropped = COUNTERS.filter((name) => name.startsWith("drop"))
      .reduce((sum, name: CounterName) => sum + counters[name], 0);
    const { receivedPackets, keepalivesReceived } = counters;
    assert.equal(
      receivedPackets + dropped + keepalivesReceived,
      sent,
      "each is written or counted",
    );
    assert.equal(counters.tunWrites, written);
    assert.ok(written > sent / 20 && dropped > sent / 20);
    assert.ok(counters.receivedDatagramRuns > 0);
    assert.equal(keepalivesReceived > 0, path === nat);
  }
});

/** What is written to the device is whole, and of the peer's own subnets unless any may send. */
function assertWhole(bytes: Uint8Array, ofPeer: boolean): void {
  const packet = bytes.slice(virtio_net_hdr.size);
  const ipv4 = packet[0]! >> 4 === 4;
  if (!ipv4) assert.equal(packet[0]! >> 4, 6);
  if (ofPeer) {
    const prefix = ipv4 ? packet.subarray(12, 15) : packet.subarray(8, 16);
    assert.deepEqual([...prefix], ipv4 ? [10, 24, 2] : [0xfd, 0, 0, 0x24, 0, 2, 0, 0]);
  }
  const length = ipv4 ? packet[2]! * 256 + packet[3]! : 40 + packet[4]! * 256 + packet[5]!;
  assert.equal(packet.length, length);
  if (ipv4 && bytes[virtio_net_hdr.gso_type] !== 0) assert.ok(isIntact(withoutTransport(packet)));
}

/** The IP header alone, as a packet of a protocol without checksum. */
function withoutTransport(packet: Uint8Array): Uint8Array {
  const copy = packet.slice();
  const header = (copy[0]! & 15) * 4;
  // Swapping protocol 6 for 0 in the header's word is undone in its checksum.
  let checksum = copy[10]! * 256 + copy[11]! + copy[9]!;
  if (checksum > 0xffff) checksum -= 0xffff;
  copy[9] = 0;
  copy[10] = checksum >> 8;
  copy[11] = checksum & 255;
  return copy.subarray(0, header);
}

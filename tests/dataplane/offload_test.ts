/** Splitting and joining packets, against the slow version in `reference.ts`. */
import assert from "node:assert/strict";
import fc from "fast-check";
import { virtio_net_hdr } from "../../ffi/tun/structs.ts";
import { sumBytes, updateChecksum } from "../../src/dataplane/checksum.ts";
import { Coalescer } from "../../src/dataplane/coalesce.ts";
import { PacketMemory, PROTOCOL } from "../../src/dataplane/packet.ts";
import { finishChecksum, segment } from "../../src/dataplane/segment.ts";
import {
  buildPacket,
  isIntact,
  type PacketFields,
  referenceSum,
  splitFields,
} from "./reference.ts";

const memory = new PacketMemory(512 * 1024);
const HEADERS_AT = 300 * 1024;

const octet = fc.nat(255);
const octets = (length: number) => fc.array(octet, { minLength: length, maxLength: length });
const words = (max: number) => fc.nat(max).chain((count) => octets(count * 4));
const base = (version: 4 | 6, protocol: 6 | 17): fc.Arbitrary<PacketFields> =>
  fc.record({
    version: fc.constant(version),
    protocol: fc.constant(protocol),
    source: octets(version === 4 ? 4 : 16),
    destination: octets(version === 4 ? 4 : 16),
    sourcePort: fc.nat(65_535),
    destinationPort: fc.nat(65_535),
    tos: octet,
    ttl: fc.integer({ min: 1, max: 255 }),
    id: fc.oneof(fc.nat(65_535), fc.constantFrom(0xfffe, 0xffff)),
    dontFragment: fc.boolean(),
    ipOptions: version === 4 ? fc.oneof(fc.constant([]), words(10)) : fc.constant([]),
    sequence: fc.oneof(
      fc.integer({ min: 0, max: 2 ** 32 - 1 }),
      fc.integer({ min: 2 ** 32 - 4000, max: 2 ** 32 - 1 }),
    ),
    acknowledgement: fc.integer({ min: 0, max: 2 ** 32 - 1 }),
    flags: octet,
    window: fc.nat(65_535),
    urgent: fc.nat(65_535),
    tcpOptions: words(10),
    payload: fc.oneof(
      fc.array(octet, { maxLength: 300, size: "max" }),
      fc.array(octet, { maxLength: 3000, size: "max" }),
    ),
  }, { noNullPrototype: true });
const packets = fc.constantFrom<[4 | 6, 6 | 17]>([4, 6], [6, 6], [4, 17], [6, 17])
  .chain(([version, protocol]) => base(version, protocol));

/** Where the transport header begins. */
function transportOffset({ version, ipOptions }: PacketFields): number {
  return version === 4 ? 20 + ipOptions.length : 40;
}

/** Splits with the code under test; `undefined` if it refuses. */
function split(
  bytes: Uint8Array,
  offset: number,
  transport: number,
  protocol: number,
  segmentBytes: number,
): Uint8Array[] | undefined {
  memory.bytes.set(bytes, offset);
  const found: Uint8Array[] = [];
  let next = HEADERS_AT;
  const done = segment(
    memory,
    protocol === 6 ? PROTOCOL.TCP : PROTOCOL.UDP,
    { offset, length: bytes.length, transport: offset + transport, segmentBytes },
    {
      headerSpace(length) {
        const header = next;
        next += (length + 3) & ~3;
        return header;
      },
      segment(header, headerLength, payload, payloadLength) {
        found.push(Uint8Array.from([
          ...memory.bytes.subarray(header, header + headerLength),
          ...memory.bytes.subarray(payload, payload + payloadLength),
        ]));
        next = HEADERS_AT;
      },
    },
  );
  return done ? found : undefined;
}

/** A packet as it was written to the device. */
interface Written {
  readonly header: Uint8Array;
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly packets: number;
}

/** Joins with the code under test; `gaps` part the packets in memory. */
function join(
  list: readonly Uint8Array[],
  gaps: readonly number[] = [],
  lateHop: readonly boolean[] = [],
): Written[] {
  const written: Written[] = [];
  const coalescer = new Coalescer(memory, {
    write(header, pieces, count, packets) {
      const bytes: number[] = [];
      for (let i = 0; i < count; i++) {
        const at = pieces[2 * i]!;
        bytes.push(...memory.bytes.subarray(at, at + pieces[2 * i + 1]!));
      }
      written.push({ header: header.slice(), bytes: Uint8Array.from(bytes), packets });
    },
  }, { tcp: true, udp: true });
  let at = 0;
  for (const [i, packet] of list.entries()) {
    at += gaps[i % (gaps.length || 1)] ?? 0;
    memory.bytes.set(packet, at);
    const late = lateHop[i] ?? false;
    if (!late || !coalescer.addNext(at, packet.length, 1)) {
      if (late) memory.decrementTtl(at, packet[0]! >> 4 === 4);
      coalescer.add(at, packet.length);
    }
    at += packet.length;
  }
  coalescer.flush();
  return written;
}

/** What the kernel would make of a written packet, by its `virtio_net_hdr`. */
function unjoin({ header, bytes }: Written): Uint8Array[] {
  const view = new DataView(header.buffer);
  const little = new Uint8Array(new Uint16Array([1]).buffer)[0] === 1;
  const gso = header[virtio_net_hdr.gso_type]!;
  if (gso === 0) {
    assert.deepEqual([...header], Array(10).fill(0));
    return [bytes];
  }
  const ipv4 = bytes[0]! >> 4 === 4;
  const transport = ipv4 ? (bytes[0]! & 15) * 4 : 40;
  const protocol = gso === 5 ? 17 : 6;
  assert.equal(gso, protocol === 17 ? 5 : ipv4 ? 1 : 4);
  assert.equal(header[virtio_net_hdr.flags], 1);
  assert.equal(view.getUint16(virtio_net_hdr.csum_start, little), transport);
  assert.equal(view.getUint16(virtio_net_hdr.csum_offset, little), protocol === 17 ? 6 : 16);
  assert.equal(ipv4 ? bytes[2]! * 256 + bytes[3]! : 40 + bytes[4]! * 256 + bytes[5]!, bytes.length);
  if (ipv4) assert.equal(referenceSum(bytes.subarray(0, transport)), 0xffff);
  const copy = new PacketMemory(65_536);
  copy.bytes.set(bytes);
  // The checksum field holds the pseudo-header's sum, so completing it must give a right one.
  assert.ok(finishChecksum(copy, 0, bytes.length, transport, protocol === 17 ? 6 : 16));
  assert.ok(isIntact(copy.bytes.slice(0, bytes.length)));
  const segmentBytes = view.getUint16(virtio_net_hdr.gso_size, little);
  return split(bytes, 0, transport, protocol, segmentBytes)!;
}

Deno.test("PacketMemory.sum() and sumBytes() are the reference's at any place", () => {
  crypto.getRandomValues(memory.bytes.subarray(0, 65_536));
  fc.assert(
    fc.property(fc.nat(200), fc.oneof(fc.nat(100), fc.nat(40_000)), (offset, length) => {
      const expected = referenceSum(memory.bytes.subarray(offset, offset + length));
      assert.equal(memory.sum(offset, length) % 0xffff, expected % 0xffff);
      assert.equal(sumBytes(memory.bytes, offset, length), memory.sum(offset, length));
    }),
    { numRuns: 500 },
  );
  memory.bytes.fill(0xff, 0, 65_540);
  for (const offset of [0, 1, 2, 3]) {
    assert.equal(memory.sum(offset, 65_536), 0xffff);
    assert.equal(sumBytes(memory.bytes, offset, 65_536), 0xffff);
  }
});

Deno.test("updateChecksum() is what a checksum made anew would be", () => {
  fc.assert(fc.property(octets(20), fc.nat(9), fc.nat(65_535), (bytes, index, value) => {
    const header = Uint8Array.from(bytes);
    header[0] = 0x45; // never all zeros
    const checksum = 0xffff - referenceSum(header);
    const before = header[index * 2]! * 256 + header[index * 2 + 1]!;
    header.set([value >> 8, value & 255], index * 2);
    const expected = 0xffff - referenceSum(header);
    assert.equal(updateChecksum(checksum, before, value) % 0xffff, expected % 0xffff);
  }));
});

Deno.test("segment() gives the reference's packets, byte for byte", () => {
  fc.assert(
    fc.property(
      packets,
      fc.oneof(fc.integer({ min: 1, max: 64 }), fc.integer({ min: 1, max: 1500 })),
      fc.nat(7),
      (fields, segmentBytes, offset) => {
        const expected = splitFields(fields, segmentBytes).map(buildPacket);
        const found = split(
          buildPacket(fields),
          offset,
          transportOffset(fields),
          fields.protocol,
          segmentBytes,
        );
        assert.deepEqual(found, expected);
        for (const packet of found!) assert.ok(isIntact(packet));
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("segment() refuses what cannot be, and writes nothing", () => {
  fc.assert(
    fc.property(
      fc.array(octet, { maxLength: 200, size: "max" }),
      fc.nat(220),
      fc.nat(100),
      (bytes, at, size) => {
        const found = split(Uint8Array.from(bytes), 0, at, 6, size);
        const tcpBytes = at + 20 <= bytes.length ? (bytes[at + 12]! >> 4) * 4 : 0;
        const possible = tcpBytes >= 20 && at + tcpBytes <= bytes.length && size > 0 &&
          at + tcpBytes <= 120;
        assert.equal(found !== undefined, possible);
      },
    ),
    { numRuns: 2000 },
  );
});

Deno.test("finishChecksum() completes any checksum within the packet and refuses others", () => {
  fc.assert(fc.property(packets, (fields) => {
    const packet = buildPacket(fields);
    const start = transportOffset(fields);
    const place = fields.protocol === 6 ? 16 : 6;
    const partial = packet.slice();
    // The kernel leaves the pseudo-header's sum there.
    const addresses = fields.version === 4 ? packet.subarray(12, 20) : packet.subarray(8, 40);
    const pseudo = referenceSum(
      addresses,
      referenceSum(Uint8Array.of(0, fields.protocol), packet.length - start),
    );
    partial.set([pseudo >> 8, pseudo & 255], start + place);
    memory.bytes.set(partial, 2);
    assert.ok(finishChecksum(memory, 2, packet.length, start, place));
    assert.deepEqual(memory.bytes.slice(2, 2 + packet.length), packet);
  }));
  assert.equal(finishChecksum(memory, 0, 40, 40, 0), false);
  assert.equal(finishChecksum(memory, 0, 40, 20, 19), false);
  assert.equal(finishChecksum(memory, 0, 40, 65_535, 16), false);
});

Deno.test("Coalescer joins what a split made, and a split gives back the very same packets", () => {
  const joinable = packets.map((fields) => ({
    ...fields,
    ipOptions: [],
    flags: (fields.flags & 0x48) | 0x10,
  }));
  fc.assert(
    fc.property(
      joinable,
      fc.integer({ min: 8, max: 1500 }),
      fc.array(fc.nat(5), { minLength: 1, maxLength: 4 }),
      (fields, segmentBytes, gaps) => {
        const list = splitFields(fields, segmentBytes).map(buildPacket);
        const written = join(list, gaps);
        assert.deepEqual(written.flatMap(unjoin), list);
        // One write for up to 64 datagrams, or 128 pieces.
        const most = fields.protocol === 17 ? 64 : 128;
        if (fields.payload.length > 0) {
          assert.equal(written.length, Math.ceil(list.length / most));
          assert.equal(written.reduce((sum, { packets }) => sum + packets, 0), list.length);
        }
      },
    ),
    { numRuns: 300 },
  );
});

/** Packets of a few flows in a row, some of them marred. */
const mixture = fc.array(
  fc.record({
    flow: fc.nat(11),
    payload: fc.oneof(fc.constant(24), fc.constant(24), fc.nat(40)),
    flags: fc.oneof(fc.constant(0x10), fc.constant(0x10), fc.constant(0x18), octet),
    skip: fc.oneof(fc.constant(0), fc.constant(0), fc.nat(3)),
    /** Whether its TTL is counted down only if it is not joined. */
    late: fc.boolean(),
    fault: fc.oneof(
      { weight: 6, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.record({ at: fc.nat(120), to: octet }) },
    ),
  }, { noNullPrototype: true }),
  { maxLength: 80, size: "max" },
);

Deno.test("Coalescer loses, changes and reorders nothing of any mixture of flows", () => {
  fc.assert(
    fc.property(mixture, (list) => {
      const state = new Map<number, { sequence: number; id: number }>();
      const taken: Uint8Array<ArrayBuffer>[] = [];
      const sent: Uint8Array<ArrayBuffer>[] = [];
      const lateHop: boolean[] = [];
      for (const { flow, payload, flags, skip, fault, late } of list) {
        const version = flow % 3 === 0 ? 6 : 4;
        const known = state.get(flow) ?? { sequence: 0xffffff80 + flow, id: 0xfff8 };
        const packet = buildPacket({
          version,
          protocol: flow % 2 === 0 ? 6 : 17,
          source: Array(version === 4 ? 4 : 16).fill(1),
          destination: Array(version === 4 ? 4 : 16).fill(2),
          sourcePort: flow >> 1,
          destinationPort: 80,
          tos: 0,
          ttl: late ? 10 : 9,
          id: version === 4 ? known.id : 5,
          dontFragment: true,
          ipOptions: [],
          sequence: (known.sequence + skip) >>> 0,
          acknowledgement: 1,
          flags,
          window: 1,
          urgent: 0,
          tcpOptions: flow > 6 ? [1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8] : [],
          payload: Array.from({ length: payload }, (_, i) => i * 7),
        });
        // Version and lengths stay: those are looked at before.
        const lengths = version === 4 ? [0, 2, 3] : [0, 4, 5];
        if (fault && fault.at < packet.length && !lengths.includes(fault.at)) {
          packet[fault.at] = fault.to;
        }
        const isLate = late && packet[version === 4 ? 8 : 7]! > 1;
        lateHop.push(isLate);
        taken.push(packet);
        sent.push(isLate ? afterHop(packet) : packet);
        state.set(flow, {
          sequence: (known.sequence + skip + payload) >>> 0,
          id: (known.id + 1 + skip) & 0xffff,
        });
      }
      const written = join(taken, [], lateHop);
      for (const each of written) {
        // Only right ones are made into others: a wrong checksum is never made a right one.
        if (each.packets > 1) { for (const packet of unjoin(each)) assert.ok(isIntact(packet)); }
      }
      const received = written.flatMap(unjoin);
      assert.equal(received.length, sent.length);
      const byFlow = (packets: readonly Uint8Array[]) =>
        Map.groupBy(packets.map((packet) => packet.toHex()), (hex) => flowOf(hex));
      assert.deepEqual(byFlow(received), orderLike(byFlow(sent), byFlow(received)));
    }),
    { numRuns: 500 },
  );
});

function afterHop(packet: Uint8Array<ArrayBuffer>): Uint8Array<ArrayBuffer> {
  memory.bytes.set(packet);
  memory.decrementTtl(0, packet[0]! >> 4 === 4);
  return memory.bytes.slice(0, packet.length);
}

/** Addresses, protocol and ports: what keeps its order. */
function flowOf(hex: string): string {
  if (hex[0] === "6") return hex.slice(12, 14) + hex.slice(16, 88);
  const transport = parseInt(hex[1]!, 16) * 8;
  return hex.slice(18, 20) + hex.slice(24, 40) + hex.slice(transport, transport + 8);
}

/** `map` with its keys in the order of `order`: flows may overtake each other. */
function orderLike<V>(map: Map<string, V>, order: Map<string, V>): Map<string, V> {
  assert.deepEqual([...map.keys()].sort(), [...order.keys()].sort());
  return new Map([...order.keys()].map((key) => [key, map.get(key)!]));
}

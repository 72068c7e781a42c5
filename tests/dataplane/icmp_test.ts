import assert from "node:assert/strict";
import { writeIcmpError } from "../../src/dataplane/icmp.ts";
import { isKeepalive, writeKeepalive } from "../../src/dataplane/keepalive.ts";
import { PacketMemory } from "../../src/dataplane/packet.ts";
import { buildPacket, type PacketFields, referenceSum, SAMPLE_PACKET } from "./reference.ts";

const memory = new PacketMemory(65_536);
const AT = 10_000;
const PACKET: PacketFields = {
  ...SAMPLE_PACKET,
  protocol: 17,
  source: [10, 24, 1, 9],
  destination: [10, 24, 9, 1],
  payload: Array.from({ length: 2_000 }, (_, i) => i & 255),
};
const PACKET6: PacketFields = {
  ...PACKET,
  version: 6,
  source: [0xfd, ...Array(14).fill(0), 1],
  destination: [0xfd, ...Array(14).fill(0), 2],
};
const OWN4 = Int32Array.of(0x0a180100);
const OWN6 = Int32Array.of(0x7d000000, 0, 0, 7);

function errorAbout(
  packet: Uint8Array,
  problem: "no-peer" | "time-exceeded" | "too-long",
): Uint8Array | undefined {
  memory.bytes.set(packet, 0);
  const source = packet[0]! >> 4 === 4 ? OWN4 : OWN6;
  const length = writeIcmpError(memory, 0, packet.length, AT, { problem, mtuBytes: 1400, source });
  return length === 0 ? undefined : memory.bytes.slice(AT, AT + length);
}

Deno.test("writeIcmpError() answers as upstream does when no peer has the destination", () => {
  const packet = buildPacket(PACKET);
  const error = errorAbout(packet, "no-peer")!;
  assert.equal(error.length, 20 + 8 + 20 + 8);
  assert.equal(referenceSum(error.subarray(0, 20)), 0xffff);
  assert.equal(referenceSum(error.subarray(20)), 0xffff);
  assert.equal(error[8], 8, "TTL");
  assert.equal(error[9], 1, "ICMP");
  assert.deepEqual([...error.subarray(12, 20)], [10, 24, 1, 0, 10, 24, 1, 9]);
  assert.deepEqual([...error.subarray(20, 22)], [3, 0]);
  assert.deepEqual(error.subarray(28), packet.subarray(0, 28), "the packet's header and 8 bytes");
});

Deno.test("writeIcmpError() tells the MTU and the end of the TTL, for both families", () => {
  const long = errorAbout(buildPacket(PACKET), "too-long")!;
  assert.deepEqual([...long.subarray(20, 22), ...long.subarray(24, 28)], [3, 4, 0, 0, 5, 120]);
  const late = errorAbout(buildPacket(PACKET), "time-exceeded")!;
  assert.deepEqual([...late.subarray(20, 22)], [11, 0]);
  const packet6 = buildPacket(PACKET6);
  for (
    const [problem, type, code, extra] of [
      ["no-peer", 1, 0, 0],
      ["too-long", 2, 0, 1400],
      ["time-exceeded", 3, 0, 0],
    ] as const
  ) {
    const error = errorAbout(packet6, problem)!;
    assert.equal(error.length, 1280, "no longer than any IPv6 link carries");
    assert.deepEqual([...error.subarray(40, 42)], [type, code]);
    assert.equal(new DataView(error.buffer).getUint32(44), extra);
    const pseudo = Uint8Array.from([...error.subarray(8, 40), 0, 0, 4, 216, 0, 0, 0, 58]);
    assert.equal(referenceSum(error.subarray(40), referenceSum(pseudo)), 0xffff);
    assert.deepEqual(error.subarray(48), packet6.subarray(0, 1232));
  }
});

Deno.test("writeIcmpError() is silent about what must not be answered", () => {
  const silent = (change: (packet: Uint8Array) => void, problem: "no-peer" | "time-exceeded") => {
    const packet = buildPacket(PACKET);
    change(packet);
    assert.equal(errorAbout(packet, problem), undefined);
  };
  silent((packet) => packet[7] = 1, "no-peer"); // a later fragment
  silent((packet) => packet[9] = 1, "no-peer"); // ICMP, whatever kind
  silent((packet) => packet[0] = 0x4f, "no-peer"); // a header of 60 bytes
  silent((packet) => packet[0] = 0x44, "no-peer");
  silent((packet) => packet.fill(0, 12, 16), "time-exceeded");
  silent((packet) => packet[12] = 224, "time-exceeded");
  silent((packet) => packet[16] = 239, "time-exceeded");
  const icmpError = buildPacket(PACKET);
  icmpError[9] = 1;
  icmpError[20] = 3;
  assert.equal(errorAbout(icmpError, "time-exceeded"), undefined);
  icmpError[20] = 8; // a ping is answered: traceroute lives on that
  assert.ok(errorAbout(icmpError, "time-exceeded"));
  const error6 = buildPacket(PACKET6);
  error6[6] = 58;
  error6[40] = 1;
  assert.equal(errorAbout(error6, "too-long"), undefined);
});

Deno.test("a keepalive is a packet that upstream drops without a word", () => {
  const length = writeKeepalive(memory, AT, OWN4, Int32Array.of(0x0a180200));
  const packet = memory.bytes.slice(AT, AT + length);
  assert.equal(length, 20);
  assert.equal(packet[8], 1, "its TTL ends at the peer");
  assert.equal(referenceSum(packet), 0xffff);
  assert.ok(isKeepalive(memory, AT, length));
  memory.bytes.set(buildPacket({ ...PACKET, payload: [] }), 0);
  assert.equal(isKeepalive(memory, 0, 28), false);
  assert.equal(writeKeepalive(memory, AT, OWN6, OWN6), 40);
  assert.ok(isKeepalive(memory, AT, 40));
});

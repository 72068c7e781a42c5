/** A tunnel's Worker that ends by a fault of its own. */
import assert from "node:assert/strict";
import { Libc } from "../../ffi/libc/open.ts";
import { openUdpSocket, type TunOffloads } from "../../ffi/tun/open.ts";
import { openTunnel } from "../../src/dataplane/tunnel.ts";
import { Address, Prefix } from "../../src/net/mod.ts";
import { DatagramPeer } from "./datagrams.ts";
import { FakeDevice } from "./fake_device.ts";
import { buildPacket, SAMPLE_PACKET } from "./reference.ts";

const PORT = 30_285;

Deno.test("a Worker that fails is told of, and nothing waits for it", async () => {
  const signal = AbortSignal.timeout(20_000);
  using libc = Libc.open();
  using device = new FakeDevice();
  await using peer = await DatagramPeer.open("127.0.0.2");
  const socketV4 = openUdpSocket(libc, {
    address: Uint8Array.of(127, 0, 0, 1),
    port: PORT,
    bufferBytes: 1 << 16,
  });
  const fault = Promise.withResolvers<Error>();
  const tunnel = openTunnel({
    allowAnySource: false,
    natTraversal: false,
    families: [],
    onNotice: assert.fail,
    onDeviceGone: () => assert.fail("the device is there"),
    onFault: fault.resolve,
  });
  const entry = (port: number) => ({
    prefix: Prefix.parse("10.24.2.0/24"),
    address: Address.parse("127.0.0.2"),
    port,
  });
  await tunnel.forwarding.replace([entry(peer.port)], { signal });
  const descriptors = {
    tun: { fd: device.fd, offloads: { tcp: true, udp: true } },
    socketV4,
    socketV6: undefined,
  };
  await tunnel.setDescriptors(descriptors, { signal });
  // Nonsense that the Worker meets at its first TCP packet, in the midst of a batch.
  tunnel.start(undefined as unknown as TunOffloads);
  await peer.send(
    buildPacket(SAMPLE_PACKET),
    PORT,
    "127.0.0.1",
  );
  assert.match((await fault.promise).message, /^Cannot carry packets: /);

  // It was reading the table, and will never say what descriptors it uses.
  for (const port of [1, 2, 3]) await tunnel.forwarding.replace([entry(port)], { signal });
  assert.deepEqual(tunnel.forwarding.entries().map(({ port }) => port), [3]);
  await tunnel.setDescriptors({ ...descriptors, tun: undefined }, { signal });
  const startedAt = performance.now();
  await tunnel[Symbol.asyncDispose]();
  assert.ok(performance.now() - startedAt < 900, "nor does its end");
  libc.close(socketV4.fd);
});

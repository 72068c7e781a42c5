/** Two tunnels between namespaces, without daemons. */
import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { labTest, startLossProbe } from "../lab/mod.ts";
import { openNamespaces } from "../support/namespace.ts";
import { openPair, peer } from "./tunnel_pair.ts";
import type { ProcessPeer } from "./tunnel_process.ts";

/** Of peers that nobody is at. */
const PEER_PORT = 8285;

/** Peers of other networks. */
function crowd(count: number, port: number): ProcessPeer[] {
  return Array.from({ length: count }, (_, i) => ({
    prefix: `10.${100 + (i >> 8)}.${i & 255}.0/24`,
    address: `198.18.${i >> 8}.${i & 255}`,
    port,
  }));
}

labTest(
  "a tunnel loses nothing while thousands of peers come and go",
  async ({ signal }) => {
    await using set = await openNamespaces({ signal });
    await using stack = new AsyncDisposableStack();
    const { namespaces, tunnels } = await openPair(set, stack, signal);
    const [from, to] = namespaces.map((namespace, i) => ({
      label: `end${i}`,
      address: `10.24.${i + 1}.0`,
      namespace,
    }));
    await using probe = await startLossProbe(from!, to!, { signal, directory: set.directory });
    for (let round = 0; round < 20; round++) {
      for (const [i, tunnel] of tunnels.entries()) {
        const others = crowd(round % 2 === 0 ? 10_000 : 10, 1 + round);
        await tunnel.ask({ command: "peers", peers: [...others, peer(2 - i)] });
      }
      await delay(50, { signal });
    }
    const { sent, lost } = await probe.stop({ signal });
    assert.ok(sent > 500);
    assert.equal(lost, 0);
    for (const tunnel of tunnels) {
      const { dropNoPeer, dropUnknownSender, dropForeignSource } = await tunnel.ask({
        command: "counters",
      });
      assert.deepEqual([dropNoPeer, dropUnknownSender, dropForeignSource], [0, 0, 0]);
      assert.ok(await tunnel.stop() < 1_000);
    }
  },
  { tools: ["ip"] },
);

labTest("a tunnel drops, counts and goes on when its queues are full", async ({ signal }) => {
  await using set = await openNamespaces({ signal });
  await using stack = new AsyncDisposableStack();
  const { namespaces: [a, b], tunnels } = await openPair(set, stack, signal);
  // What the far end cannot take any more is lost there; neither side stands still.
  const flood = await a!.try("ping", [
    ...["-f", "-q", "-s", "1400", "-w", "3", "-l", "1000", "10.24.2.0"],
  ], { signal });
  assert.match(flood.stdout, /packets transmitted/);
  const answered = await b!.run("ping", ["-c", "3", "-i", "0.2", "-q", "10.24.1.0"], { signal });
  assert.match(answered, / 0% packet loss/);
  const counters = await tunnels[0]!.ask({ command: "counters" });
  assert.ok(counters["sentPackets"]! > 1_000);
  for (const tunnel of tunnels) assert.ok(await tunnel.stop() < 1_000);
}, { tools: ["ip"] });

labTest(
  "with NATTraversal each peer gets a keepalive every 25 s, and a new one soon",
  async ({ signal }) => {
    await using set = await openNamespaces({ signal });
    await using stack = new AsyncDisposableStack();
    // The second one begins when the first one listens.
    const { tunnels: [other, tunnel] } = await openPair(set, stack, signal, { natTraversal: true });
    /** Waits until so many keepalives were sent; answers when that was. */
    const sent = async (count: number) => {
      for (;;) {
        const { keepalivesSent } = await tunnel!.ask({ command: "counters" });
        if (keepalivesSent === count) return performance.now();
        assert.ok(keepalivesSent! < count, `${keepalivesSent} were sent, not ${count}`);
        await delay(100, { signal });
      }
    };
    const firstAt = await sent(1);
    await tunnel!.ask({ command: "peers", peers: [...crowd(3, PEER_PORT), peer(1)] });
    const secondAt = await sent(1 + 4);
    assert.ok(secondAt - firstAt < 8_000, `${secondAt - firstAt} ms to the first for new peers`);
    const thirdAt = await sent(1 + 4 + 4);
    const distanceMs = thirdAt - secondAt;
    assert.ok(distanceMs > 24_000 && distanceMs < 30_000, `${distanceMs} ms between two`);
    await delay(500, { signal });
    const { keepalivesReceived, dropTtl } = await other!.ask({ command: "counters" });
    assert.deepEqual([keepalivesReceived, dropTtl], [3, 0]);
  },
  { tools: ["ip"] },
);

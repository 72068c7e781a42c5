/** The packet path of backend `udp` over a line that loses, doubles, delays and reorders. */
import assert from "node:assert/strict";
import { labTest } from "../../lab/mod.ts";
import { openPair } from "../../dataplane/tunnel_pair.ts";
import { openNamespaces } from "../../support/namespace.ts";
import { transferFile } from "../../dataplane/transfer.ts";

/** With jitter beyond the distance of packets, netem sends some before earlier ones. */
const LINE = "delay 4ms 3ms loss 1% duplicate 1% reorder 20% 50%";

labTest("a file arrives whole over a line that loses and reorders", async ({ signal }) => {
  await using set = await openNamespaces({ signal });
  await using stack = new AsyncDisposableStack();
  const { namespaces: [a, b], tunnels } = await openPair(set, stack, signal);
  for (const namespace of [a!, b!]) {
    // Without checksums by the link, datagrams are sent one by one, and netem deals with each.
    await namespace.run("ethtool", ["-K", "v0", "tx", "off"], { signal });
    const words = `qdisc add dev v0 root netem ${LINE} limit 10000`.split(" ");
    await namespace.run("tc", words, { signal });
  }
  const [from, to] = [{ address: "10.24.1.0", namespace: a! }, {
    address: "10.24.2.0",
    namespace: b!,
  }];
  await transferFile(from, to, { signal, directory: set.directory, megabytes: 2 });

  for (const [i, namespace] of [a!, b!].entries()) {
    const shown = await namespace.run("tc", ["-s", "qdisc", "show", "dev", "v0"], { signal });
    assert.match(shown, /qdisc netem /);
    if (i === 0) assert.doesNotMatch(shown, /\(dropped 0,/, "the line has lost something");
    const counters = await tunnels[i]!.ask({ command: "counters" });
    const { dropMalformed, dropUnknownSender, dropForeignSource } = counters;
    assert.deepEqual([dropMalformed, dropUnknownSender, dropForeignSource], [0, 0, 0]);
    assert.ok(await tunnels[i]!.stop() < 5_000);
  }
}, { tools: ["ip", "ethtool"] });

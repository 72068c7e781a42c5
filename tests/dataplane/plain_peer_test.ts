/**
 * A tunnel opposite a loop that knows nothing but one bare packet per datagram, as upstream's does.
 * That loop's device has no offloads, so its kernel makes and checks every checksum itself.
 */
import assert from "node:assert/strict";
import { denoEnvironment, labTest } from "../lab/mod.ts";
import { startLogged } from "../support/logged_process.ts";
import { type NetworkNamespace, openNamespaces } from "../support/namespace.ts";
import { readCapture } from "./capture.ts";
import { isIntact } from "./reference.ts";
import { transferFile } from "./transfer.ts";
import { TunnelProcess } from "./tunnel_pair.ts";

const PORT = 8285;
const OURS = "10.24.1.0";
const THEIRS = "10.24.2.0";
/** Length of the IPv4 header and that of UDP. */
const OUTER_BYTES = 28;

/** The kernel's counters of one protocol, from /proc/net/snmp. */
async function snmp(
  namespace: NetworkNamespace,
  protocol: string,
  signal: AbortSignal,
): Promise<Record<string, number>> {
  const text = await namespace.run("cat", ["/proc/net/snmp"], { signal });
  const [names, values] = text.split("\n").filter((line) => line.startsWith(`${protocol}: `))
    .map((line) => line.split(" ").slice(1));
  return Object.fromEntries(names!.map((name, i) => [name, Number(values![i])]));
}

labTest(
  "a tunnel and a plain loop understand each other, and the kernel finds every checksum right",
  async ({ signal }) => {
    await using set = await openNamespaces({ signal });
    const [a, b] = await set.add(["a", "b"], { signal });
    await a!.ip([`link add v0 type veth peer name v0 netns ${b!.name}`], { signal });
    for (const [namespace, own] of [[a!, 1], [b!, 2]] as const) {
      await namespace.ip([`address add 192.0.2.${own}/24 dev v0`, "link set v0 up"], { signal });
    }
    // Runs of datagrams are to be split where they leave, so that they can be seen on the wire.
    await a!.run("ethtool", ["-K", "v0", "tx-udp-segmentation", "off"], { signal });
    await using tunnel = new TunnelProcess(a!, {
      link: "flannel0",
      mtuBytes: 1472,
      local: "192.0.2.1",
      port: PORT,
      base: OURS,
      peers: [{ prefix: "10.24.2.0/24", address: "192.0.2.2", port: PORT }],
    });
    assert.ok((await tunnel.answer())["ready"]);
    const script = new URL("../bench/udp_plain_loop.ts", import.meta.url).pathname;
    await using loop = startLogged(
      b!.command(Deno.execPath(), [
        ...["run", "-A", "--cached-only", script],
        ...["flannel0", "192.0.2.2", "192.0.2.1", String(PORT)],
      ]),
      {
        title: "plain loop",
        logFile: `${set.directory}/loop.log`,
        env: denoEnvironment(),
        holdStdin: true,
      },
    );
    await loop.waitForLine(/ready/, { signal });
    for (const [namespace, base] of [[a!, OURS], [b!, THEIRS]] as const) {
      await namespace.ip([
        "link set lo up",
        "link set flannel0 mtu 1472 up",
        `address add ${base}/32 dev flannel0`,
        "route add 10.24.0.0/16 dev flannel0",
      ], { signal });
    }

    const file = `${set.directory}/wire.pcap`;
    const capture = b!.run("tcpdump", [
      ...["-i", "v0", "-Q", "in", "-c", "500", "-w", file, "-B", "8192", "--immediate-mode"],
      ...["udp", "port", String(PORT)],
    ], { signal, timeoutMs: 60_000 });
    const [here, there] = [{ address: OURS, namespace: a! }, { address: THEIRS, namespace: b! }];
    // Until the capture has begun, pings are what there is to capture.
    for (const address of [THEIRS, THEIRS]) {
      // In fragments, too.
      await a!.run("ping", ["-c", "3", "-i", "0.2", "-s", "5000", address], { signal });
    }
    const options = { signal, directory: set.directory, megabytes: 8 };
    await transferFile(here, there, options);
    await capture;
    await transferFile(there, here, options);

    const packets = readCapture(await Deno.readFile(file));
    assert.equal(packets.length, 500);
    let full = 0;
    for (const packet of packets) {
      const inner = packet.subarray(OUTER_BYTES);
      assert.equal(packet[0], 0x45);
      assert.equal(inner[2]! * 256 + inner[3]!, inner.length, "one packet, and nothing beside it");
      assert.equal([...inner.subarray(12, 20)].join("."), `${OURS}.${THEIRS}`);
      assert.equal(inner[8], 63, "one hop on");
      assert.ok((inner[6]! & 0x3f) > 0 || inner[7]! > 0 || isIntact(inner));
      if (inner.length === 1472) full++;
    }
    assert.ok(full > 300, "packets of a stream as large as the tunnel takes");

    assert.ok((await snmp(b!, "Tcp", signal))["InSegs"]! > 5_000, "each of them was looked at");
    for (const namespace of [a!, b!]) {
      assert.equal((await snmp(namespace, "Tcp", signal))["InErrs"], 0);
      assert.equal((await snmp(namespace, "Udp", signal))["InCsumErrors"], 0);
      assert.equal((await snmp(namespace, "Ip", signal))["InHdrErrors"], 0);
    }
    const { dropMalformed, sentDatagramRuns } = await tunnel.ask({ command: "counters" });
    assert.equal(dropMalformed, 0);
    assert.ok(sentDatagramRuns! > 50);
    await tunnel.stop();
  },
  { tools: ["ip", "tcpdump", "ethtool"] },
);

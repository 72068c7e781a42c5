/** The daemon with backend `udp` on hosts of the lab. */
import assert from "node:assert/strict";
import { runProgram } from "../../src/util/process.ts";
import { delay } from "../../src/util/time.ts";
import {
  type Host,
  iperf,
  type Lab,
  labTest,
  openLab,
  ping,
  type Pod,
  startLossProbe,
} from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { run } from "../support/run.ts";
import { isIntact } from "./reference.ts";

const CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "udp" } };
/** Each host has a network of its own, so one port does. */
const FLAGS = ["--healthz-ip=127.0.0.1", "--healthz-port=8471"];

async function openUdpLab(
  signal: AbortSignal,
  config: unknown = CONFIG,
  options: Partial<Parameters<typeof openLab>[0]> = {},
): Promise<Lab> {
  const lab = await openLab({ signal, topology: "routed", hosts: 2, ...options });
  try {
    await lab.writeConfig(config, { signal });
    await Promise.all(lab.hosts.map(async (host) => {
      const daemon = await host.startDaemon({ flags: FLAGS });
      await daemon.ready({ signal });
    }));
    await lab.ensurePods(1, { signal });
    return lab;
  } catch (error) {
    await lab[Symbol.asyncDispose]();
    throw error;
  }
}

async function assertAllPing(lab: Lab, signal: AbortSignal): Promise<void> {
  const results = await lab.pingPods({ signal, seconds: 5 });
  assert.ok(results.length > 0);
  for (const { from, to, address, milliseconds } of results) {
    assert.ok(milliseconds !== undefined, `${from.label} cannot ping ${to.label} at ${address}`);
  }
}

/** The one host's pod, and the other's. */
function podsOf(lab: Lab): [Pod, Pod] {
  return [lab.hosts[0]!.pods[0]!, lab.hosts[1]!.pods[0]!];
}

/** What the daemon tells about its data plane. */
async function counters(host: Host, signal: AbortSignal): Promise<Record<string, number>> {
  const text = await host.namespace.run("curl", [
    ...["-sS", "--noproxy", "*", "--max-time", "5", "http://127.0.0.1:8471/status"],
  ], { signal });
  return JSON.parse(text).status.dataPlane;
}

/** Sends a file of random bytes from pod to pod; it has to arrive as it was. */
async function transferFile(lab: Lab, megabytes: number, signal: AbortSignal): Promise<void> {
  const [from, to] = podsOf(lab);
  const file = `${lab.directory}/data`;
  await run("dd", ["if=/dev/urandom", `of=${file}`, "bs=1M", `count=${megabytes}`], { signal });
  const script = new URL("./file_transfer.ts", import.meta.url).pathname;
  const deno = (...args: string[]) => ["run", "-A", "--cached-only", script, ...args];
  const options = { signal, timeoutMs: 60_000 };
  const [received] = await Promise.all([
    to.namespace.run(Deno.execPath(), deno("receive", to.address), options),
    from.namespace.run(Deno.execPath(), deno("send", to.address, file), options),
  ]);
  const { stdout } = await runProgram("sha256sum", [file], { signal });
  assert.equal(received.trim(), stdout.split(" ")[0]);
}

labTest(
  "udp: pods of two hosts reach each other, and host objects are upstream's",
  async ({ signal }) => {
    await using lab = await openUdpLab(signal);
    await assertAllPing(lab, signal);
    const [host] = lab.hosts;
    const { mtuBytes } = await host!.readSubnetEnv();
    assert.equal(mtuBytes, 1472);
    const show = (...args: string[]) => host!.namespace.run("ip", args, { signal });
    assert.match(
      await show("-d", "link", "show", "flannel0"),
      /mtu 1472 [^]*tun type tun .*persist/,
    );
    assert.match(await show("route"), /^10\.24\.0\.0\/16 dev flannel0 proto 102/m);
    const base = host!.pods[0]!.address.replace(/\d+$/, "0");
    assert.ok((await show("address", "show", "flannel0")).includes(`inet ${base}/32 `));
    const leases = await lab.leases({ signal });
    assert.equal(leases.get(`${base}-24`), `{"PublicIP":"${host!.address}","PublicIPv6":null}`);
  },
);

labTest("udp: a datagram on the wire is a bare inner packet, two hops on", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [from, to] = podsOf(lab);
  const [sender, receiver] = lab.hosts;
  const capture = receiver!.namespace.run("tcpdump", [
    ...["-i", "eth0", "-n", "-x", "-c", "1", "--immediate-mode"],
    ...["udp", "port", "8285", "and", "udp[17]", "=", "1"], // protocol of the inner header
  ], { signal, timeoutMs: 20_000 });
  await delay(1_000, { signal });
  await from.namespace.run("ping", ["-c", "3", "-i", "0.3", "-t", "64", to.address], { signal });
  const text = await capture;
  const hex = [...text.matchAll(/0x[0-9a-f]+: +([0-9a-f ]+)/g)].map(([, line]) => line).join("");
  const packet = Uint8Array.fromHex(hex.replaceAll(" ", ""));
  const inner = packet.subarray((packet[0]! & 15) * 4 + 8);
  assert.ok(text.includes(`${sender!.address}.8285 > ${receiver!.address}.8285`), text);
  assert.equal(inner[0], 0x45);
  assert.equal(inner[2]! * 256 + inner[3]!, inner.length, "nothing before it, nothing behind it");
  assert.equal([...inner.subarray(16, 20)].join("."), to.address);
  assert.equal(inner[8], 62, "the host took one of the TTL, the tunnel another");
  assert.ok(isIntact(inner.slice()));
});

labTest("udp: senders are told what cannot pass", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [from, to] = podsOf(lab);
  const tryPing = async (...args: string[]) => {
    const { stdout } = await from.namespace.try("ping", ["-n", "-c", "2", "-W", "2", ...args], {
      signal,
    });
    return stdout;
  };
  // The own host, the tunnel on the way out, the tunnel on the way in, the far host.
  for (const ttl of [1, 2, 3, 4]) {
    const text = await tryPing("-t", String(ttl), to.address);
    assert.match(text, /Time to live exceeded/, `TTL ${ttl}: ${text}`);
  }
  assert.match(await tryPing("-t", "5", to.address), /bytes from/);
  // Everything between pod and tunnel takes what the tunnel does not.
  for (const { namespace } of [lab.hosts[0]!, from]) {
    const links = JSON.parse(await namespace.run("ip", ["-j", "link"], { signal }));
    const names = links.map(({ ifname }: { ifname: string }) => ifname)
      .filter((name: string) => !["lo", "flannel0"].includes(name));
    await namespace.ip(names.map((name: string) => `link set ${name} mtu 1500`), { signal });
  }
  const tooLong = await tryPing("-M", "do", "-s", "1472", to.address);
  assert.match(tooLong, /mtu ?= ?1472/, tooLong);
  // A connection to a subnet that nobody has is refused at once, rather than waited for.
  const startedAt = performance.now();
  const refused = await from.namespace.try("bash", ["-c", "exec 3<>/dev/tcp/10.24.250.9/9"], {
    signal,
  });
  assert.match(refused.stderr, /unreachable|No route to host/);
  assert.ok(performance.now() - startedAt < 5_000);
  const { icmpSent, dropNoPeer, dropTtl } = await counters(lab.hosts[0]!, signal);
  assert.ok(icmpSent! >= 3 && dropNoPeer! > 0 && dropTtl! > 0);
});

labTest(
  "udp: large datagrams pass as fragments, and files arrive as they were",
  async ({ signal }) => {
    await using lab = await openUdpLab(signal);
    const [from, to] = podsOf(lab);
    assert.match(
      await from.namespace.run("ping", ["-c", "3", "-s", "20000", "-i", "0.2", to.address], {
        signal,
      }),
      / 0% packet loss/,
    );
    await transferFile(lab, 64, signal);
    const { receivedDatagramRuns, tunWrites, receivedPackets } = await counters(
      lab.hosts[1]!,
      signal,
    );
    assert.ok(receivedDatagramRuns! > 0, "runs of datagrams are received as one");
    assert.ok(tunWrites! < receivedPackets! / 4, "and joined to large packets");
  },
);

labTest("udp: a smaller MTU on the way is found and told", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [from, to] = podsOf(lab);
  for (const link of ["h1", "h2"]) {
    await lab.fabric.namespace.ip([`link set ${link} mtu 1400`], { signal });
  }
  const { bitsPerSecond } = await iperf(from, to, { signal, seconds: 2 });
  assert.ok(bitsPerSecond > 1e6, `${bitsPerSecond}`);
});

labTest("udp: IPv4 and IPv6 pods reach each other", async ({ signal }) => {
  await using lab = await openUdpLab(signal, {
    Network: "10.24.0.0/16",
    EnableIPv6: true,
    IPv6Network: "fd00:24::/48",
    Backend: { Type: "udp" },
  }, { underlay: "dual" });
  await assertAllPing(lab, signal);
  const [from, to] = podsOf(lab);
  assert.equal(to.addresses?.length, 2);
  for (const address of to.addresses!) {
    const { bitsPerSecond } = await iperf(from, to, { signal, address });
    assert.ok(bitsPerSecond > 50e6, `${address}: ${bitsPerSecond}`);
  }
});

labTest("udp: a file arrives as it was although datagrams are lost", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  for (const host of lab.hosts) {
    await host.namespace.nft(
      `table inet loss {
        chain in {
          type filter hook input priority filter
          udp dport 8285 numgen random mod 100 < 2 counter drop
        }
      }`,
      { signal },
    );
  }
  await transferFile(lab, 8, signal);
  const rules = await lab.hosts[1]!.namespace.run("nft", ["list", "table", "inet", "loss"], {
    signal,
  });
  assert.match(rules, /counter packets [1-9]/, "some were lost indeed");
});

labTest("udp: a removed device comes back with all that belongs to it", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [from, to] = podsOf(lab);
  await lab.hosts[0]!.namespace.ip(["link delete flannel0"], { signal });
  await eventually(async () => await ping(from, to.address, { signal }) !== undefined, {
    signal,
    title: "the tunnel to be back",
  });
});

labTest("udp: a restart cuts traffic no longer than the start takes", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [from, to] = podsOf(lab);
  await using probe = await startLossProbe(from, to, { signal, directory: lab.directory });
  await delay(500, { signal });
  const host = lab.hosts[1]!;
  const stoppedAt = performance.now();
  await host.daemon.stop();
  assert.ok(performance.now() - stoppedAt < 1_500, "the stop");
  const routes = await host.namespace.run("ip", ["route"], { signal });
  assert.match(routes, /^10\.24\.0\.0\/16 dev flannel0/m, "routes stay");
  const daemon = await host.startDaemon({ flags: FLAGS });
  await daemon.ready({ signal });
  const wholeMs = performance.now() - stoppedAt;
  await delay(500, { signal });
  const { lost, longestGapMs } = await probe.stop({ signal });
  assert.ok(longestGapMs < wholeMs + 200, `${longestGapMs} ms of ${wholeMs} ms; ${lost} lost`);
  await assertAllPing(lab, signal);
});

labTest(
  "udp: with NATTraversal a host behind a NAT that changes ports is reached",
  async ({ signal }) => {
    /** What host2 sends comes from another port, and only answers to it come in. */
    const nat = `
    table inet nat_router {
      chain out {
        type nat hook postrouting priority srcnat
        udp sport 8285 masquerade to :40000-40100
      }
      chain in {
        type filter hook input priority filter
        udp dport 8285 ct direction original drop
      }
    }`;
    for (const NATTraversal of [true, false]) {
      await using lab = await openLab({ signal, topology: "routed", hosts: 2 });
      await lab.writeConfig({ ...CONFIG, Backend: { Type: "udp", NATTraversal } }, { signal });
      await lab.hosts[1]!.namespace.nft(nat, { signal });
      for (const host of lab.hosts) {
        await (await host.startDaemon({ flags: FLAGS })).ready({ signal });
      }
      await lab.ensurePods(1, { signal });
      const [from, to] = podsOf(lab);
      if (NATTraversal) {
        await eventually(async () => await ping(from, to.address, { signal }) !== undefined, {
          signal,
          title: "the mapping to be opened by a keepalive",
        });
        const { portsLearnt, keepalivesReceived } = await counters(lab.hosts[0]!, signal);
        assert.ok(portsLearnt! > 0 && keepalivesReceived! > 0);
      } else {
        assert.equal(await ping(from, to.address, { signal, seconds: 3 }), undefined);
      }
    }
  },
);

labTest(
  "udp: under full load the daemon answers, takes peers and stops in time",
  async ({ signal }) => {
    await using lab = await openUdpLab(signal);
    const [from, to] = podsOf(lab);
    const [host] = lab.hosts;
    const loading = iperf(from, to, { signal, seconds: 8 });
    await delay(500, { signal });
    const { etcd } = lab;
    const answers: number[] = [];
    for (let i = 0; i < 5; i++) {
      const key = `/coreos.com/network/subnets/10.24.${200 + i}.0-24`;
      await etcd.put(key, `{"PublicIP":"192.0.2.${i + 1}"}`, { signal });
      const text = await host!.namespace.run("curl", [
        ...["-sS", "--noproxy", "*", "--max-time", "5", "-o", "/dev/null", "-w", "%{time_total}"],
        "http://127.0.0.1:8471/healthz",
      ], { signal });
      answers.push(Number(text) * 1_000);
      await etcd.ctl(["del", key], { signal });
    }
    const { bitsPerSecond } = await loading;
    assert.ok(bitsPerSecond > 50e6, `${bitsPerSecond}`);
    // The goal is 20 ms on a machine of its own; here others compete for it.
    const middle = answers.toSorted((a, b) => a - b)[2]!;
    assert.ok(middle < 200, `${answers}`);
    const flood = from.namespace.try("ping", ["-f", "-q", "-s", "1400", "-w", "4", to.address], {
      signal,
    });
    await delay(1_000, { signal });
    const stoppedAt = performance.now();
    const status = await host!.daemon.stop();
    assert.ok(performance.now() - stoppedAt < 2_000, "the end of the whole daemon");
    assert.equal(status.code, 0);
    await flood;
  },
);

labTest("udp: another backend leaves nothing of it", async ({ signal }) => {
  await using lab = await openUdpLab(signal);
  const [host] = lab.hosts;
  const traces = async () => {
    const lines = await host!.namespace.run("ip", ["-o", "link"], { signal }) +
      await host!.namespace.run("ip", ["route"], { signal });
    return lines.split("\n").filter((line) => line.includes("flannel0"));
  };
  assert.equal((await traces()).length, 2);
  await host!.daemon.stop();
  await lab.writeConfig({ ...CONFIG, Backend: { Type: "alloc" } }, { signal });
  await (await host!.startDaemon()).ready({ signal });
  assert.deepEqual(await traces(), []);
});

/** The daemon with backend `udp` on hosts of the lab. */
import assert from "node:assert/strict";
import { type Lab, labTest, openLab, startLossProbe } from "../lab/mod.ts";

const CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "udp" } };

async function openUdpLab(
  signal: AbortSignal,
  config: unknown = CONFIG,
  options: Partial<Parameters<typeof openLab>[0]> = {},
): Promise<Lab> {
  const lab = await openLab({ signal, topology: "routed", hosts: 2, ...options });
  try {
    await lab.writeConfig(config, { signal });
    await Promise.all(lab.hosts.map(async (host) => {
      const daemon = await host.startDaemon();
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
  const results = await lab.pingPods({ signal });
  assert.ok(results.length > 0);
  for (const { from, to, address, milliseconds } of results) {
    assert.ok(milliseconds !== undefined, `${from.label} cannot ping ${to.label} at ${address}`);
  }
}

labTest(
  "udp: pods of two hosts reach each other, and host objects are upstream's",
  async ({ signal }) => {
    await using lab = await openUdpLab(signal);
    await assertAllPing(lab, signal);
    const [host] = lab.hosts;
    const { mtuBytes } = await host!.readSubnetEnv();
    assert.equal(mtuBytes, 1472);
    const link = await host!.namespace.run("ip", ["-d", "link", "show", "flannel0"], { signal });
    assert.match(link, /mtu 1472 .*\n.*\n?.*tun/);
    const routes = await host!.namespace.run("ip", ["route"], { signal });
    assert.match(routes, /^10\.24\.0\.0\/16 dev flannel0 proto 102/m);
  },
);
void startLossProbe;

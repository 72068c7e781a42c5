import assert from "node:assert/strict";
import { labTest } from "../lab/mod.ts";
import { kernelState, networkConfig, openKernelLab } from "./kernel_support.ts";

/** Configs that nobody can work with, and everything that has to be said about each. */
const CASES: readonly {
  readonly config: unknown;
  readonly flags?: readonly string[];
  readonly faults: readonly RegExp[];
}[] = [
  {
    config: networkConfig("v4", { Type: "vxlan", VNI: 16_777_216, Port: 70_000, MTU: 40 }),
    faults: [/Backend\.VNI/, /Backend\.Port/, /Backend\.MTU/],
  },
  {
    config: networkConfig("v4", {
      Type: "vxlan",
      VNI: -1,
      Port: "8472x",
      MTU: 1.5,
      GBP: "yes",
      Learning: 2,
      DirectRouting: null,
      ChecksumOffload: "maybe",
    }),
    faults: [
      ...[/Backend\.VNI/, /Backend\.Port/, /Backend\.MTU/, /Backend\.GBP/, /Backend\.Learning/],
      /Backend\.ChecksumOffload/,
    ],
  },
  {
    config: networkConfig("dual", { Type: "vxlan", VNI: 12_345_678 }),
    faults: [/flannel-v6\.12345678/],
  },
  {
    config: networkConfig("v4", { Type: "vxlam" }),
    faults: [/unknown backend type "vxlam"/, /vxlan/],
  },
  { config: networkConfig("v6", { Type: "ipip" }), faults: [/ipip/, /IPv6/] },
  {
    config: networkConfig("v4", { Type: "host-gw" }),
    flags: ["--iface=eth0", "--public-ip=198.51.100.7"],
    faults: [/host-gw/, /NAT/, /198\.51\.100\.7/],
  },
];

labTest("a config that cannot work ends the daemon with every fault named", async ({ signal }) => {
  await using lab = await openKernelLab({ signal, hosts: 1, underlay: "dual", config: {} });
  const [host] = lab.hosts;
  const before = await kernelState(host!, { signal });
  for (const { config, flags = [], faults } of CASES) {
    const title = JSON.stringify(config);
    await lab.writeConfig(config, { signal });
    const daemon = await host!.startDaemon({ flags });
    const { code } = await daemon.process.status;
    const log = daemon.process.lines.join("\n");
    assert.equal(code, 1, `${title}:\n${log}`);
    for (const fault of faults) assert.match(log, fault, title);
    assert.deepEqual(await kernelState(host!, { signal }), before, title);
    assert.deepEqual(await lab.leases({ signal }), new Map(), `${title}: no lease was taken`);
  }
});

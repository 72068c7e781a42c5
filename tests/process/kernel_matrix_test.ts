import assert from "node:assert/strict";
import { type Host, labTest } from "../lab/mod.ts";
import {
  assertPodsPing,
  type Families,
  flannelLines,
  kernelState,
  networkConfig,
  note,
  openKernelLab,
  startCluster,
  vxlanLinks,
} from "./kernel_support.ts";

/** The rules of flanneld on a host, as far as they tell which mode made them, and of which family. */
async function ruleModes(host: Host, options: { signal: AbortSignal }): Promise<string[]> {
  const found: string[] = [];
  for (const [family, program] of [["v4", "iptables-save"], ["v6", "ip6tables-save"]] as const) {
    if (/FLANNEL/.test(await host.namespace.run(program, [], options))) {
      found.push(`iptables ${family}`);
    }
  }
  const tables = await host.namespace.run("nft", ["list", "tables"], options);
  if (/table ip flannel-ipv4/.test(tables)) found.push("nftables v4");
  if (/table ip6 flannel-ipv6/.test(tables)) found.push("nftables v6");
  return found;
}

/** Each step differs from the one before in one thing, so every kind of switch is seen. */
const STEPS = [
  { backend: { Type: "vxlan" }, mode: "iptables" },
  { backend: { Type: "vxlan" }, mode: "nftables" },
  { backend: { Type: "host-gw" }, mode: "nftables" },
  { backend: { Type: "host-gw" }, mode: "iptables" },
  { backend: { Type: "vxlan", VNI: 42, Port: 4789, DirectRouting: true }, mode: "iptables" },
  { backend: { Type: "vxlan", VNI: 42, Port: 4789 }, mode: "iptables" },
] as const;

for (const families of ["v4", "v6", "dual"] as const satisfies readonly Families[]) {
  labTest(
    `pods of ${families} reach each other with each backend and rule mode, one after another`,
    async ({ signal }) => {
      await using lab = await openKernelLab({
        signal,
        hosts: 3,
        underlay: families,
        config: {},
      });
      const numbers = families === "dual" ? ["v4", "v6"] : [families];
      for (const { backend, mode } of STEPS) {
        const title = `${families} ${JSON.stringify(backend)} ${mode}`;
        const config = networkConfig(families, backend, { EnableNFTables: mode === "nftables" });
        await lab.writeConfig(config, { signal });
        const startedAt = performance.now();
        await startCluster(lab, { signal, flags: ["--ip-masq"] });
        await assertPodsPing(lab, { signal, title });
        const [host] = lab.hosts;
        assert.deepEqual(
          await ruleModes(host!, { signal }),
          numbers.map((number) => `${mode} ${number}`),
          title,
        );
        const lines = flannelLines(await kernelState(host!, { signal }));
        const links = lines.filter((line) => line.startsWith("link ")).map((line) =>
          line.split(" ")[1]
        );
        assert.deepEqual(
          links,
          backend.Type === "vxlan"
            ? vxlanLinks(families, "VNI" in backend ? backend.VNI : 1).toSorted()
            : [],
          title,
        );
        // Two peers, and per family and tunnelled peer a neighbour, an entry and a route.
        const direct = backend.Type === "host-gw" || "DirectRouting" in backend;
        const count = (kind: string) => lines.filter((line) => line.startsWith(`${kind} `)).length;
        assert.equal(count("route"), 2 * numbers.length, `${title}:\n${lines.join("\n")}`);
        assert.equal(count("neighbor"), direct ? 0 : 2 * numbers.length, title);
        assert.equal(count("fdb"), direct ? 0 : 2 * numbers.length, title);
        note(`${title}: ${((performance.now() - startedAt) / 1000).toFixed(1)} s`);
        await Promise.all(lab.hosts.map(({ daemon }) => daemon.stop()));
      }
    },
  );
}

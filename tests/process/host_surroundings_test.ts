/** What the daemon finds around it that a person may not think of: PATH and TMPDIR. */
import assert from "node:assert/strict";
import { labTest } from "../lab/mod.ts";
import { ALLOC_CONFIG, behind, openAllocLab, startReady } from "./support.ts";

labTest("neither PATH nor TMPDIR need be good for rules to be set", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 2 });
  const [host, other] = lab.hosts;
  const flags = ["--ip-masq"];
  const bad = await behind(lab, "bad", ["env", "PATH=/nowhere", "TMPDIR=/nowhere"]);
  const none = await behind(lab, "none", ["env", "-u", "PATH", "-u", "TMPDIR"]);
  await startReady(host!, { signal, flags, program: bad });
  const rules = await host!.namespace.run("iptables-save", [], { signal });
  assert.match(rules, /FLANNEL-POSTRTG/);

  await lab.writeConfig({ ...ALLOC_CONFIG, EnableNFTables: true }, { signal });
  await startReady(other!, { signal, flags, program: none });
  assert.match(await other!.namespace.run("nft", ["list", "ruleset"], { signal }), /flannel-ipv4/);
  for (const each of [host!, other!]) {
    assert.equal((await each.daemon.stop()).code, 0);
    const cleaned = await each.cleanUp({ signal, program: bad });
    assert.equal(cleaned.code, 0, cleaned.stderr);
  }
  assert.doesNotMatch(await host!.namespace.run("iptables-save", [], { signal }), /FLANNEL/);
});

labTest(
  "an env file and a script with Windows line ends mean what they say",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    await startReady(host, {
      signal,
      defaultFlags: [],
      flags: [`--subnet-file=${host.subnetFile}\r`, "--iptables-forward-rules\r"],
      env: {
        FLANNELD_ETCD_ENDPOINTS: `${lab.etcd.endpoints.join(",")}\r`,
        FLANNELD_ETCD_PREFIX: "/coreos.com/network\r",
        FLANNELD_IFACE: "eth0@if7\r",
        FLANNELD_IP_MASQ: "true\r",
        FLANNELD_V: "\r",
      },
    });
    const names = [...Deno.readDirSync(host.directory)].map(({ name }) => name);
    assert.ok(names.includes("subnet.env"), names.join());
    assert.ok(names.every((name) => !name.includes("\r")), JSON.stringify(names));
    assert.match(await Deno.readTextFile(host.subnetFile), /^FLANNEL_IPMASQ=true$/m);
  },
);

/** Without the rights that it needs, the daemon takes no lease; where it needs none, it runs. */
import assert from "node:assert/strict";
import { labTest } from "../lab/mod.ts";
import { ALLOC_CONFIG, behind, openAllocLab } from "./support.ts";

const without = (capability: string) => [
  "setpriv",
  `--bounding-set=-${capability}`,
  `--inh-caps=-${capability}`,
  "--",
];

labTest("without its capabilities the daemon takes no lease, and names what it needs", async (
  { signal },
) => {
  await using lab = await openAllocLab({
    signal,
    config: { Network: "10.24.0.0/16", Backend: { Type: "vxlan" } },
  });
  const host = lab.hosts[0]!;
  for (
    const [name, words, says] of [
      [
        "plain",
        without("net_admin"),
        /CAP_NET_ADMIN is missing, which backend vxlan, --iptables-forward-rules needs: .*AmbientCap/,
      ],
      // All capabilities, of a user namespace that the host's network is not of.
      [
        "user",
        ["unshare", "--map-root-user", "--"],
        /CAP_NET_ADMIN is missing in the user namespace/,
      ],
    ] as const
  ) {
    const program = await behind(lab, name, words);
    const daemon = await host.startDaemon({ program });
    const { code } = await daemon.process.status;
    const log = daemon.process.lines.join("\n");
    assert.equal(code, 1, log);
    assert.match(log, says);
    assert.equal((await lab.leases({ signal })).size, 0, name);
  }

  const cleaned = await host.cleanUp({
    signal,
    program: await behind(lab, "cleanup", without("net_admin")),
    flags: ["--release"],
  });
  assert.equal(cleaned.code, 1);
  assert.match(cleaned.stderr, /CAP_NET_ADMIN is missing, which cleanup needs/);

  await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "udp" } }, { signal });
  const program = await behind(lab, "tun", [
    ...["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net; exec "$@"', "sh"],
  ]);
  const daemon = await host.startDaemon({ program });
  assert.equal((await daemon.process.status).code, 1);
  assert.match(
    daemon.process.lines.join("\n"),
    /Cannot open \/dev\/net\/tun, which backend udp needs/,
  );
  assert.equal((await lab.leases({ signal })).size, 0);
});

labTest("backend alloc without traffic rules runs without any capability", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, config: ALLOC_CONFIG });
  const host = lab.hosts[0]!;
  const program = await behind(lab, "none", [
    ...["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--"],
  ]);
  const daemon = await host.startDaemon({ program, flags: ["--iptables-forward-rules=false"] });
  await daemon.ready({ signal });
  assert.equal((await lab.leases({ signal })).size, 1);
});

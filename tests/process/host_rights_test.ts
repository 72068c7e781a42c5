/** Without the rights that it needs, the daemon takes no lease; where it needs none, it runs. */
import assert from "node:assert/strict";
import { type Lab, labTest } from "../lab/mod.ts";
import { ALLOC_CONFIG, behind, openAllocLab } from "./support.ts";

const without = (capability: string) => [
  "setpriv",
  `--bounding-set=-${capability}`,
  `--inh-caps=-${capability}`,
  "--",
];

const IN_USER_NAMESPACE = ["unshare", "--map-root-user", "--"];
const VXLAN_CONFIG = { Network: "10.24.0.0/16", Backend: { Type: "vxlan" } };

/** Lets a daemon start behind `words` on a host of a lab and checks that it gives up at once. */
async function assertRefused(
  lab: Lab,
  name: string,
  words: readonly string[],
  says: RegExp,
  signal: AbortSignal,
): Promise<void> {
  const daemon = await lab.hosts[0]!.startDaemon({ program: await behind(lab, name, words) });
  const { code } = await daemon.process.status;
  const log = daemon.process.lines.join("\n");
  assert.equal(code, 1, log);
  assert.match(log, says);
  assert.equal((await lab.leases({ signal })).size, 0, name);
}

labTest("without its capabilities the daemon takes no lease, and names what it needs", async (
  { signal },
) => {
  await using lab = await openAllocLab({ signal, config: VXLAN_CONFIG });
  const host = lab.hosts[0]!;
  await assertRefused(
    lab,
    "plain",
    without("net_admin"),
    /CAP_NET_ADMIN is missing, which backend vxlan, --iptables-forward-rules needs: .*AmbientCap/,
    signal,
  );

  const cleaned = await host.cleanUp({
    signal,
    program: await behind(lab, "cleanup", without("net_admin")),
    flags: ["--release"],
  });
  assert.equal(cleaned.code, 1);
  assert.match(cleaned.stderr, /CAP_NET_ADMIN is missing, which cleanup needs/);

  await lab.writeConfig({ Network: "10.24.0.0/16", Backend: { Type: "udp" } }, { signal });
  await assertRefused(
    lab,
    "tun",
    ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /dev/net; exec "$@"', "sh"],
    /Cannot open \/dev\/net\/tun, which backend udp needs/,
    signal,
  );
});

labTest("with all capabilities of another user namespace the daemon takes no lease", async (
  { signal },
) => {
  await using lab = await openAllocLab({ signal, config: VXLAN_CONFIG });
  await assertRefused(
    lab,
    "user",
    IN_USER_NAMESPACE,
    /CAP_NET_ADMIN is missing in the user namespace/,
    signal,
  );
}, {
  obstacle() {
    const [program, ...args] = IN_USER_NAMESPACE;
    const { success } = new Deno.Command(program!, { args: [...args, "true"], stderr: "null" })
      .outputSync();
    return success ? undefined : "the kernel makes no user namespace here, as in a chroot";
  },
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

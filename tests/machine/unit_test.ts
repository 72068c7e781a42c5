/**
 * The unit under a real systemd: every backend within its limits, of which a system call outside of
 * the filter kills here; what `systemctl` shows; the watchdog; the store for descriptors.
 *
 * @module
 */
import assert from "node:assert/strict";
import { skippable } from "../prerequisites.ts";
import { compiledBinary } from "../support/compiled_binary.ts";
import { eventually } from "../support/eventually.ts";
import { Machines, machinesObstacle as obstacle } from "./machines.ts";

/** `ipip` needs a module that these machines do not have; what it runs is in the others. */
const CONFIGS: Readonly<Record<string, unknown>> = {
  vxlan: { Network: "10.20.0.0/16", Backend: { Type: "vxlan" } },
  nft: { Network: "10.21.0.0/16", EnableNFTables: true, Backend: { Type: "vxlan", VNI: 7 } },
  "host-gw": { Network: "10.22.0.0/16", Backend: { Type: "host-gw" } },
  alloc: { Network: "10.23.0.0/16", Backend: { Type: "alloc" } },
  udp: { Network: "10.24.0.0/16", Backend: { Type: "udp" } },
};

/** Stricter than the unit: without an error number, what the filter forbids is fatal. */
const DROP_IN = `[Service]
SystemCallErrorNumber=
WatchdogSec=2
RestartSec=100ms
`;

const INSTALL = `install -m 755 dist/flanneld /usr/local/bin/flanneld
install -m 644 dist/flanneld.service /etc/systemd/system/flanneld.service
mkdir -p /etc/systemd/system/flanneld.service.d
printf '${DROP_IN.replaceAll("\n", "\\n")}' > /etc/systemd/system/flanneld.service.d/test.conf
sysctl -qw net.ipv4.ip_forward=1
systemctl daemon-reload`;

Deno.test({
  name: skippable("the unit's limits leave every backend what it needs", obstacle),
  ignore: obstacle !== undefined,
  async fn() {
    const signal = AbortSignal.timeout(5 * 60_000);
    const binary = await compiledBinary(signal);
    await using machines = await Machines.start(2, signal);
    const both = async (commands: string) =>
      await Promise.all([1, 2].map((m) => machines.shell(m, commands)));
    const shows = async (m: number, property: string) =>
      (await machines.shell(m, `systemctl show -P ${property} flanneld`)).trim();
    const becomes = async (m: number, property: string, expected: RegExp) =>
      await eventually(async () => expected.test(await shows(m, property)), {
        signal,
        timeoutMs: 30_000,
        title: `${property} of ${expected}`,
      });

    for (const m of [1, 2]) await machines.putProgram(m, binary);
    await both(INSTALL);
    const security = await machines.shell(1, "systemd-analyze security --no-pager flanneld");
    const [, exposure] = /exposure level for flanneld\.service: ([\d.]+)/.exec(security)!;
    assert.ok(Number(exposure) <= 3, security);

    // Without etcd it is not ready, and says what it waits for.
    await both(`printf 'FLANNELD_ETCD_ENDPOINTS=http://10.79.0.1:2379
FLANNELD_ETCD_PREFIX=/vxlan
FLANNELD_IP_MASQ=true
' > /etc/flanneld.env; systemctl start --no-block flanneld`);
    await becomes(1, "StatusText", /etcd/);
    assert.equal(await shows(1, "ActiveState"), "activating");
    await machines.shell(
      1,
      `echo ETCD_LISTEN_CLIENT_URLS=http://10.79.0.1:2379 >> /etc/default/etcd
echo ETCD_ADVERTISE_CLIENT_URLS=http://10.79.0.1:2379 >> /etc/default/etcd
systemctl restart etcd
export ETCDCTL_API=3 ETCDCTL_ENDPOINTS=http://10.79.0.1:2379
${
        Object.entries(CONFIGS).map(([name, config]) =>
          `etcdctl put /${name}/config '${JSON.stringify(config)}'`
        ).join("\n")
      }`,
    );

    let peer = "";
    for (const name of Object.keys(CONFIGS)) {
      await both(
        `sed -i 's|_PREFIX=.*|_PREFIX=/${name}|' /etc/flanneld.env
systemctl reset-failed flanneld # its count of starts
systemctl restart flanneld`,
      );
      for (const m of [1, 2]) assert.equal(await shows(m, "StatusText"), "Ready");
      // A bridge of pods, without pods.
      [, peer] = await both(`. /run/flannel/subnet.env
ip link del pods 2> /dev/null || true
ip link add pods type bridge
ip address add $FLANNEL_SUBNET dev pods
ip link set pods up
echo -n \${FLANNEL_SUBNET%/*}`) as [string, string];
      if (name === "alloc") continue;
      await eventually(
        () => machines.shell(1, ping(peer, "-c 1 -W 1")).then(() => true, () => false),
        { signal, timeoutMs: 20_000, title: `packets with ${name}` },
      );
      assert.equal(await shows(1, "NRestarts"), "0", name);
    }

    // Backend udp, the last one: systemd keeps what packets wait in.
    assert.notEqual(await shows(1, "NFileDescriptorStore"), "0");
    const pinging = machines.shell(1, ping(peer, "-c 30 -i 0.1"));
    await machines.shell(1, "systemctl restart flanneld");
    assert.match(await pinging, / 0% packet loss/);

    // A daemon that is stuck is killed, leaves no core, and starts again.
    const before = await shows(1, "MainPID");
    await machines.shell(1, `kill -STOP ${before}`);
    await becomes(1, "NRestarts", /^1$/);
    await becomes(1, "StatusText", /^Ready$/);
    const journal = await machines.shell(1, "journalctl -u flanneld -o cat --since -1min");
    assert.match(journal, /Watchdog timeout.*\n(?:.*\n)*.*code=killed, status=6\/ABRT/);
    assert.match(await machines.shell(1, ping(peer, "-c 1 -W 2")), / 0% packet loss/);
  },
});

function ping(peer: string, flags: string): string {
  return `. /run/flannel/subnet.env; ping ${flags} -I \${FLANNEL_SUBNET%/*} ${peer}`;
}

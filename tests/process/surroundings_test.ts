/**
 * What others on a host do to the network's packets is seen by the running daemon, named with what
 * helps, and seen to be over.
 *
 * @module
 */
import assert from "node:assert/strict";
import { type Host, labTest } from "../lab/mod.ts";
import { eventually } from "../support/eventually.ts";
import { patient } from "../support/slowness.ts";
import { assertPodsPing, networkConfig, openKernelLab, startCluster } from "./kernel_support.ts";
import { askHealth, askStatus } from "./support.ts";

interface Seen {
  readonly ready: boolean;
  readonly reasons: string;
  readonly warnings: string;
}

async function see(host: Host, signal: AbortSignal): Promise<Seen> {
  const { status, body } = await askHealth(host, "/readyz", { signal });
  const page = await askStatus(host, { signal });
  const { surroundings, firewall } = page.status;
  return {
    ready: status === 200,
    reasons: body,
    warnings: [...surroundings.warnings, ...firewall.warnings].join("\n"),
  };
}

/** Waits until the host is seen as `holds` says. */
async function until(
  host: Host,
  title: string,
  holds: (seen: Seen) => boolean,
  signal: AbortSignal,
): Promise<Seen> {
  let seen: Seen | undefined;
  try {
    await eventually(async () => {
      seen = await see(host, signal);
      return holds(seen);
    }, { signal, title, timeoutMs: patient(45_000), intervalMs: 250 });
  } catch (cause) {
    throw new Error(`${title}: ${JSON.stringify(seen)}\n${host.daemonLog()}`, { cause });
  }
  return seen!;
}

labTest("what others do to the network's packets is named while it lasts", async ({ signal }) => {
  await using lab = await openKernelLab({
    signal,
    hosts: 2,
    config: networkConfig("v4", { Type: "vxlan" }),
  });
  const host = lab.hosts[0]!;
  const { namespace, identity: { port } } = host;
  const other = lab.hosts[1]!.identity;
  await startCluster(lab, { signal });
  await assertPodsPing(lab, { signal, seconds: 2 });
  const isFine = ({ ready, warnings }: Seen) => ready && warnings === "";
  await until(host, "nothing to be told", isFine, signal);

  const sysctl = (key: string, value: string) => namespace.sysctl({ [key]: value }, { signal });
  const ip = (...commands: string[]) => namespace.ip(commands, { signal });
  const nft = (script: string) => namespace.nft(script, { signal });
  const away = `via ${port.gateway ?? "10.0.1.1"} dev eth0 onlink`;

  interface Harm {
    readonly harm: () => Promise<unknown>;
    readonly named: RegExp;
    readonly undo: (warnings: string) => Promise<unknown>;
  }
  // Each round takes as long as the daemon does to look twice.
  const rounds: readonly (readonly Harm[])[] = [[{
    harm: () => sysctl("net/ipv4/ip_forward", "0"),
    named: /forwards no IPv4 packets any more.*net\.ipv4\.ip_forward=1/,
    undo: () => sysctl("net/ipv4/ip_forward", "1"),
  }, {
    // As nm-cloud-setup has it: a table of its own for what this host sends from its address.
    harm: () =>
      ip(
        `route add default ${away} table 30400`,
        `rule add from ${port.address} lookup 30400 priority 30400`,
      ),
    named:
      /of this host to .* do not take the route .* on flannel\.1, but go .* on eth0: .*"from 10\.\S+ lookup 30400 priority 30400"/,
    undo: (warnings) => ip(/come first: ip (rule add .*? priority \d+)/.exec(warnings)![1]!),
  }, {
    harm: () =>
      nft(
        "table inet site { chain in { type filter hook input priority 5; policy drop;\n" +
          "ct state established accept\ntcp dport { 22, 2379, 8471 } accept\niif lo accept\n}\n}\n",
      ),
    named: /Chain in \(hook input\).*tunnel between hosts \(udp port 8472\).*8472 accept/,
    undo: () => nft("delete table inet site\n"),
  }], [{
    harm: () => sysctl("net/ipv4/conf/flannel.1/forwarding", "0"),
    named: /come in by flannel\.1.*net\/ipv4\/conf\/flannel\.1\/forwarding=1/,
    undo: () => sysctl("net/ipv4/conf/flannel.1/forwarding", "1"),
  }, {
    harm: () =>
      nft(
        "table inet site { chain fw { type filter hook forward priority 5; policy drop;\n" +
          "ct state established accept\n}\n}\n",
      ),
    named: /Chain fw \(hook forward\) of nft table "inet site" drops packets of 10\.24\.0\.0/,
    undo: () => nft("delete table inet site\n"),
  }, {
    harm: () =>
      nft(
        "table netdev edge { chain in { type filter hook ingress device eth0 priority 0;\n" +
          "udp dport { 53, 8000-8999 } drop\n}\n}\n",
      ),
    named: /Chain in \(hook ingress\) of nft table "netdev edge" drops .*udp port 8472.* accept/,
    undo: (warnings) => nft(`${/(insert rule netdev edge in .*? accept)/.exec(warnings)![1]!}\n`),
  }, {
    harm: () => ip("rule add ipproto udp dport 8000-8999 blackhole priority 5271"),
    named:
      /tunnel between hosts to .* go nowhere: .*"from all ipproto udp dport 8000-8999 blackhole/,
    undo: () => ip("rule del priority 5271"),
  }, {
    harm: () => ip("rule add ipproto udp dport 53 blackhole priority 5269"), // is for others
    named: /^(?![^]*dport 53 )/,
    undo: () => ip("rule del priority 5269"),
  }], [{
    harm: () => ip(`route add 10.24.0.0/16 ${away} table 52`, "rule add lookup 52 priority 5270"),
    named: /Packets of pods to .* lookup 52 priority 5270"/,
    undo: () => ip("rule del lookup 52 priority 5270"),
  }, {
    harm: () =>
      ip("route add blackhole 10.24.0.0/16 table 53", "rule add to 10.24.0.0/16 lookup 53"),
    named: /Packets of pods to .* go nowhere: .*"from all to 10\.24\.0\.0\/16 lookup 53/,
    undo: () => ip("rule del to 10.24.0.0/16 lookup 53"),
  }, {
    // Rules that refuse lead to no table.
    harm: () => ip("rule add not from 192.0.2.0/24 to 10.24.0.0/16 prohibit priority 5272"),
    named:
      /Packets of pods to .*"not from 192\.0\.2\.0\/24 to 10\.24\.0\.0\/16 prohibit priority 5272"/,
    undo: () => ip("rule del priority 5272"),
  }, {
    harm: () => ip(`rule add to ${other.port.address} blackhole priority 5273`),
    named: /Packets of the tunnel between hosts to .* go nowhere: .*from all to \S+ blackhole/,
    undo: () => ip("rule del priority 5273"),
  }]];
  for (const harms of rounds) {
    for (const { harm } of harms) await harm();
    const isNamed = ({ ready, warnings }: Seen) =>
      !ready && harms.every(({ named }) => named.test(warnings));
    const { warnings, reasons } = await until(
      host,
      harms.map(({ named }) => named).join(" and "),
      isNamed,
      signal,
    );
    assert.match(reasons, /^traffic: /m);
    for (const { undo } of harms) await undo(warnings);
    await until(host, "the end of it", isFine, signal);
  }
  await assertPodsPing(lab, { signal, seconds: 2, title: "after all" });
  const lines = host.daemon.process.lines;
  const told = lines.filter((line) => / WARN +(host|firewall): /.test(line));
  const over = lines.filter((line) => /No longer true/.test(line));
  assert.equal(told.length, over.length, host.daemonLog());
});

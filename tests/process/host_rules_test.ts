import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { eventually } from "../support/eventually.ts";
import { startLogged } from "../support/logged_process.ts";
import type { Host, Lab } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import { ALLOC_CONFIG, labTestsAtOnce, linesOf, openAllocLab, startReady } from "./support.ts";

const atOnce = labTestsAtOnce("traffic rules");

const MODES = ["iptables", "nftables"] as const;
type Mode = (typeof MODES)[number];

/** Each mode has a network, and so a host, of its own. */
function flagsOf(mode: Mode): string[] {
  return [`--etcd-prefix=/${mode}`, "--ip-masq", "--ip-blackhole-route", "--iptables-resync=1"];
}

async function writeConfigs(lab: Lab, options: { signal: AbortSignal }): Promise<void> {
  for (const mode of MODES) {
    const config = { ...ALLOC_CONFIG, EnableNFTables: mode === "nftables" };
    await lab.etcd.put(`/${mode}/config`, JSON.stringify(config), options);
  }
}

/** The rules that bear flanneld's names, wherever they are. */
async function ownRules(
  { namespace }: Host,
  options: { signal: AbortSignal },
): Promise<Record<Mode, string[]>> {
  const [legacy, saved, tables] = await Promise.all([
    namespace.run("iptables-legacy-save", [], options),
    namespace.run("iptables-save", [], options),
    namespace.run("nft", ["--stateless", "list", "tables"], options),
  ]);
  const nft = await Promise.all(
    (tables.match(/^table ip6? flannel-ipv[46]$/gm) ?? []).map((table) =>
      namespace.run("nft", ["--stateless", "list", ...table.split(" ")], options)
    ),
  );
  return {
    iptables: (legacy + saved).split("\n").filter((line) => /^-A .*FLANNEL/i.test(line)),
    nftables: nft.flatMap((text) =>
      text.split("\n").filter((line) => /accept|return|masquerade/.test(line))
    ),
  };
}

/** Rules of somebody else, in both places. */
async function addForeignRules({ namespace }: Host, options: { signal: AbortSignal }) {
  for (
    const rule of [
      ["-t", "nat", "-A", "POSTROUTING", "-s", "172.31.0.0/16", "-j", "MASQUERADE"],
      ["-A", "FORWARD", "-i", "docker0", "-m", "comment", "--comment", "someone", "-j", "ACCEPT"],
    ]
  ) await namespace.run("iptables", rule, options);
  await namespace.nft(
    "table ip foreign { chain c { type filter hook forward priority 5; tcp dport 9 drop; }; }",
    options,
  );
}

async function foreignRules({ namespace }: Host, options: { signal: AbortSignal }) {
  const saved = await namespace.run("iptables-save", [], options);
  return [
    ...saved.split("\n").filter((line) => /172\.31|someone/.test(line)),
    await namespace.run("nft", ["--stateless", "list", "table", "ip", "foreign"], options),
  ];
}

atOnce(
  "both rule modes hold, and a change of mode leaves nothing of the other",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    await writeConfigs(lab, { signal });
    await addForeignRules(host, { signal });
    const foreign = await foreignRules(host, { signal });
    let before: Record<Mode, string[]> | undefined;
    for (const mode of ["iptables", "nftables", "iptables"] as const) {
      await startReady(host, { signal, flags: [...flagsOf(mode), "--no-masq-cidr=10.0.0.0/16"] });
      const rules = await ownRules(host, { signal });
      const other = mode === "iptables" ? "nftables" : "iptables";
      await eventually(async () => (await ownRules(host, { signal }))[other].length === 0, {
        signal,
        title: `the end of the rules of ${other}`,
      });
      assert.ok(rules[mode].some((line) => line.includes("10.0.0.0/16")), rules[mode].join("\n"));
      const { prefix } = (await host.readSubnetEnv()).subnet;
      assert.ok(rules[mode].some((line) => line.includes(prefix.toString())));
      assert.deepEqual(await foreignRules(host, { signal }), foreign);
      await host.daemon.stop();
      // What is left in place is what was set.
      const left = await ownRules(host, { signal });
      assert.deepEqual(left[mode], rules[mode]);
      if (before && mode === "iptables") assert.equal(left.iptables.length, before.iptables.length);
      if (mode === "iptables") before = left;
    }
    // Without rules wanted those of before go.
    await startReady(host, {
      signal,
      flags: ["--etcd-prefix=/iptables", "--iptables-forward-rules=false"],
    });
    assert.deepEqual(await ownRules(host, { signal }), { iptables: [], nftables: [] });
    assert.deepEqual(await foreignRules(host, { signal }), foreign);
  },
);

atOnce("rules that were changed by hand are right again at the next look", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: MODES.length });
  await writeConfigs(lab, { signal });
  await Promise.all(MODES.map(async (mode, index) => {
    const host = lab.hosts[index]!;
    const { namespace } = host;
    await startReady(host, { signal, flags: flagsOf(mode) });
    const rules = (await ownRules(host, { signal }))[mode];
    const writes = () => linesOf(host.daemon, / firewall: (add|replace) rule set/).length;
    const setUp = writes();
    const harms: string[][] = mode === "iptables"
      ? [
        ["iptables", "-t", "nat", "-D", "FLANNEL-POSTRTG", "2"],
        ["iptables", "-t", "nat", "-F", "FLANNEL-POSTRTG"],
        ["iptables", "-F", "FORWARD"],
        ["iptables", "-t", "nat", "-A", "FLANNEL-POSTRTG", "-j", "RETURN"],
      ]
      : [
        ["nft", "flush", "chain", "ip", "flannel-ipv4", "postrtg"],
        ["nft", "delete", "table", "ip", "flannel-ipv4"],
        ["nft", "insert", "rule", "ip", "flannel-ipv4", "postrtg", "return"],
      ];
    for (const [program, ...args] of harms as [string, ...string[]][]) {
      await namespace.run(program, args, { signal });
      await eventually(
        async () =>
          JSON.stringify((await ownRules(host, { signal }))[mode]) === JSON.stringify(rules),
        { signal, timeoutMs: patient(5_000), title: `${mode} after ${args.join(" ")}` },
      );
    }
    assert.equal(writes(), setUp + harms.length, host.daemon.process.tail());
    assert.equal(linesOf(host.daemon, / (WARN|ERROR) /).length, 0, host.daemon.process.tail());
  }));
});

atOnce("a daemon with nothing to do writes nothing", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: MODES.length });
  await writeConfigs(lab, { signal });
  // All of them first: a lease that comes later is a write to the store they share.
  await Promise.all(
    MODES.map((mode, index) =>
      startReady(lab.hosts[index]!, { signal, flags: [...flagsOf(mode), "-v=2"] })
    ),
  );
  await Promise.all(lab.hosts.map(async (host) => {
    const { namespace } = host;
    // All that is written to the kernel: rules by nft, the rest by ip.
    const env = { PATH: Deno.env.get("PATH")! };
    const watch = (program: string, ...args: string[]) =>
      startLogged(namespace.command(program, args), {
        title: program,
        logFile: `${host.directory}/${program}-monitor.log`,
        env,
      });
    await using rules = watch("nft", "monitor");
    await using rest = watch("ip", "monitor", "link", "address", "route", "rule");
    // It works: of somebody else's changes each tells.
    const probe = async (name: string) => {
      await namespace.nft(`add table ip ${name}`, { signal });
      await rules.waitForLine(new RegExp(`add table ip ${name}`), {
        signal,
        timeoutMs: patient(5_000),
      });
      await namespace.ip([`route add 192.0.2.${name.length}/32 dev lo`], { signal });
      await rest.waitForLine(new RegExp(`192\\.0\\.2\\.${name.length} `), { signal });
    };
    await eventually(async () => {
      await namespace.nft("add table ip early; delete table ip early", { signal });
      return rules.lines.length > 0;
    }, { signal, title: "nft monitor" });
    await probe("begin");
    const from = [rules.lines.length, rest.lines.length];
    const file = await Deno.stat(host.subnetFile);
    const revision = async () => {
      const text = await lab.etcd.ctl(["get", "/", "-w", "json"], { signal });
      return JSON.parse(text).header.revision;
    };
    const [before, logged] = [await revision(), host.daemon.process.lines.length];
    // Several rounds of the rules, one of the file.
    await delay(7_000, { signal });
    assert.equal(await revision(), before);
    const events = (lines: readonly string[]) => lines.filter((line) => !/generation/.test(line));
    assert.deepEqual(events(rules.lines.slice(from[0])), []);
    assert.deepEqual(rest.lines.slice(from[1]), []);
    const after = await Deno.stat(host.subnetFile);
    assert.deepEqual([after.ino, after.mtime], [file.ino, file.mtime]);
    assert.deepEqual(host.daemon.process.lines.slice(logged), [], "nor a line to the log");
    await probe("ending");
  }));
});

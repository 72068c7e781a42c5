import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Host, labTest } from "../lab/mod.ts";
import { linesOf, openAllocLab, startReady } from "./support.ts";

const HOSTS = 4;
const KILLS_PER_HOST = 25;
/** Moments are drawn from the time after these lines, as most of a start is spent loading. */
const BEGINNINGS = [
  undefined,
  / Starting /,
  /External interface is/,
  /lease: Lease (taken|kept)/,
  /Leases of the network are known/,
];
const FLAGS = ["--ip-masq", "--ip-blackhole-route"];

/** Everything of flanneld's on a host, with its subnet written as SUBNET. */
async function traces(
  host: Host,
  options: { signal: AbortSignal },
): Promise<Record<string, readonly string[]>> {
  const { subnet } = await host.readSubnetEnv();
  const lines = (text: string) =>
    text.replaceAll(subnet.prefix.toString(), "SUBNET").replaceAll(subnet.toString(), "BRIDGE")
      .split("\n").map((line) => line.trim()).filter((line) => line !== "" && !/^#/.test(line));
  const run = async (program: string, ...args: string[]) =>
    lines(await host.namespace.run(program, args, options));
  return {
    routes: await run("ip", "route", "show", "table", "all", "type", "blackhole"),
    rules: (await run("iptables-save")).map((line) => line.replace(/\[\d+:\d+\]/, "[]")),
    rulesV6: (await run("ip6tables-save")).filter((line) => /flannel/i.test(line)),
    legacy: (await run("iptables-legacy-save")).filter((line) => /flannel/i.test(line)),
    tables: (await run("nft", "list", "tables")).filter((line) => /flannel/i.test(line)),
    file: lines(await Deno.readTextFile(host.subnetFile)),
    // Without the socket that this test listens on.
    files: [...Deno.readDirSync(host.directory)].map(({ name }) => name)
      .filter((name) => !name.startsWith("notify-")).sort(),
  };
}

labTest(
  "kill -9 at any moment of a start leaves nothing that the next start does not set right",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: HOSTS + 1 });
    const [reference, ...hosts] = lab.hosts as [Host, ...Host[]];
    const first = await startReady(reference, { signal, flags: FLAGS });
    const time = (pattern: RegExp) => Date.parse(linesOf(first, pattern)[0]!.split(" ")[0]!);
    // From its first line to its last; several daemons at once take longer.
    const windowMs = 2 * (time(/ Ready: /) - time(/ Starting /));
    assert.ok(windowMs > 0);
    await reference.daemon.stop();

    const moments = await Promise.all(hosts.map(async (host) => {
      let text: string | undefined;
      const moments = { before: 0, leased: 0, written: 0, ready: 0 };
      for (let kill = 0; kill < KILLS_PER_HOST; kill++) {
        const daemon = await host.startDaemon({ flags: FLAGS });
        const after = BEGINNINGS[kill % BEGINNINGS.length];
        if (after) await daemon.process.waitForLine(after, { signal });
        await delay(Math.random() * windowMs / (after ? 4 : 1), { signal });
        assert.equal(daemon.process.ended, undefined, daemon.process.tail());
        const ready = daemon.isReady();
        await daemon.kill();
        moments[
          ready
            ? "ready"
            : linesOf(daemon, /add subnet file/).length > 0
            ? "written"
            : linesOf(daemon, /lease: Lease (taken|kept)/).length > 0
            ? "leased"
            : "before"
        ]++;
        // Whole or absent, and never another one.
        const now = await Deno.readTextFile(host.subnetFile).catch(() => undefined);
        if (text !== undefined) assert.equal(now, text);
        if (now !== undefined) await host.readSubnetEnv();
        text = now;
      }
      return moments;
    }));
    const total = (name: "before" | "leased" | "written" | "ready") =>
      moments.reduce((sum, each) => sum + each[name], 0);
    const summary = JSON.stringify(moments);

    assert.ok(["before", "leased", "ready"].every((name) => total(name as "before") > 0), summary);

    await startReady(reference, { signal, flags: FLAGS });
    const expected = await traces(reference, { signal });
    assert.equal(expected["routes"]!.length, 1);
    assert.ok(expected["rules"]!.some((line) => /SUBNET/.test(line)));
    await Promise.all(hosts.map(async (host) => {
      await startReady(host, { signal, flags: FLAGS });
      assert.deepEqual(await traces(host, { signal }), expected, summary);
    }));
    const leases = await lab.leases({ signal });
    assert.deepEqual(
      [...leases.values()].sort(),
      lab.hosts.map(({ address }) => `{"PublicIP":"${address}","PublicIPv6":null}`).sort(),
    );
  },
  { timeoutMs: 240_000 },
);

import assert from "node:assert/strict";
import { delay } from "../../src/util/time.ts";
import { type Daemon, ETCD_PREFIX } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import { ALLOC_CONFIG, labTestsAtOnce, linesOf, openAllocLab, startReady } from "./support.ts";

const atOnce = labTestsAtOnce("what a start waits for");

/** What a daemon has said that needs somebody's attention. */
function warnings(daemon: Daemon): string[] {
  return linesOf(daemon, / (WARN|ERROR) /).map((line) => line.replace(/^\S+ +/, ""));
}

/** Waits for the daemon to end by itself; it must be with exit code 1. */
async function assertFails(daemon: Daemon, signal: AbortSignal): Promise<string> {
  await daemon.process.waitForLine(/ ERROR /, { signal });
  assert.equal((await daemon.process.status).code, 1, daemon.process.tail());
  const errors = linesOf(daemon, / ERROR /);
  assert.equal(errors.length, 1, daemon.process.tail());
  assert.ok(!daemon.isReady());
  return errors[0]!;
}

atOnce("etcd that is down at start is waited for with one line per change", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 2 });
  const [first, second] = lab.hosts;
  await lab.etcd.kill();
  const daemon = await first!.startDaemon();
  // This one cannot even send: what it waits for is said in the same way.
  await lab.router.isolate(second!.identity.port, { signal });
  const silent = await second!.startDaemon();
  await daemon.process.waitForLine(/Cannot read the network config yet/, { signal });
  await silent.process.waitForLine(/Cannot read the network config yet/, { signal });
  // Long enough for several tries (0.5 s, 1 s, 2 s apart).
  await delay(4_000, { signal });
  assert.deepEqual(
    warnings(daemon),
    [
      "WARN  Cannot read the network config yet: Cannot reach etcd at http://10.0.0.5:2379: " +
      "connection refused; trying again",
    ],
  );
  assert.match(
    daemon.statuses().at(-1)!,
    /Waiting to read the network config: .*http:\/\/10\.0\.0\.5:2379/,
  );
  assert.equal(warnings(silent).length, 1, silent.process.tail());
  assert.match(warnings(silent)[0]!, /Cannot reach etcd at http:\/\/10\.0\.0\.5:2379/);
  for (const each of [daemon, silent]) assert.ok(!each.isReady());

  await lab.router.heal({ signal });
  await lab.etcd.start({ signal });
  await Promise.all([daemon, silent].map(async (each) => {
    await each.ready({ signal });
    assert.equal(linesOf(each, /Could read the network config after \d+ s/).length, 1);
    assert.ok(warnings(each).length <= 2, each.process.tail());
  }));
});

atOnce("a missing config is asked for with the line that writes it", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const [host] = lab.hosts;
  const daemon = await host!.startDaemon({ flags: ["--etcd-prefix=//team a/net/"] });
  const line = await daemon.process.waitForLine(/waiting for it/, { signal });
  const command = /write it with: (.*); waiting for it$/.exec(line)?.[1];
  assert.ok(command, line);
  assert.match(
    command,
    /^ETCDCTL_API=3 etcdctl --endpoints=http:\/\/10\.0\.0\.5:2379 put '\/team a\/net\/config' /,
  );
  await delay(2_500, { signal });
  assert.equal(warnings(daemon).length, 1, daemon.process.tail());

  // The line works as it stands, with the backend that this lab has.
  const shell = command.replace('"ali-vpc"', '"alloc"');
  assert.notEqual(shell, command);
  await lab.etcd.members[0]!.namespace.run("sh", ["-c", shell], { signal });
  await daemon.ready({ signal });
  assert.equal((await lab.etcd.list("/team a/net/subnets/", { signal })).size, 1);
});

atOnce("a config that cannot be used ends the start with every fault", async ({ signal }) => {
  const configs: [config: string, says: RegExp[]][] = [
    ["{", [/Cannot use network config: /]],
    [
      JSON.stringify({ Network: "10.24.0.0/16", SubnetLen: 31, Backend: { Type: "alloc" } }),
      [/SubnetLen must be less than \/31/],
    ],
    [
      JSON.stringify({
        Network: "10.24.0.0/16",
        SubnetMin: "10.24.9.0",
        SubnetMax: "10.24.5.0",
        EnableIPv6: true,
        Backend: { Type: "vxlann" },
      }),
      [/SubnetMin/, /IPv6Network/, /vxlann/],
    ],
    [
      JSON.stringify({ EnableIPv4: false, Backend: { Type: "alloc" } }),
      [/EnableIPv4|EnableIPv6/],
    ],
  ];
  await using lab = await openAllocLab({ signal, hosts: configs.length });
  await Promise.all(configs.map(async ([config, says], index) => {
    await lab.etcd.put(`/bad${index}/config`, config, { signal });
    const daemon = await lab.hosts[index]!.startDaemon({ flags: [`--etcd-prefix=/bad${index}`] });
    const error = await assertFails(daemon, signal);
    for (const pattern of says) assert.match(error, pattern);
    assert.match(daemon.statuses().at(-1)!, says[0]!);
    assert.equal((await lab.etcd.list(`/bad${index}/subnets`, { signal })).size, 0);
  }));
});

atOnce("both etcd APIs serve; auto takes the one that has the config", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 6, etcd: { v2: true } });
  const v2Config = { ...ALLOC_CONFIG, Network: "10.99.0.0/16" };
  await lab.etcd.put("/old/config", JSON.stringify(v2Config), { signal, api: 2 });
  await lab.etcd.put(`${ETCD_PREFIX}/config`, JSON.stringify(v2Config), { signal, api: 2 });
  const cases = [
    { flags: [], network: "10.24.0.0/16", api: 3, under: ETCD_PREFIX },
    { flags: ["--etcd-api=v3"], network: "10.24.0.0/16", api: 3, under: ETCD_PREFIX },
    { flags: ["--etcd-api=v2"], network: "10.99.0.0/16", api: 2, under: ETCD_PREFIX },
    { flags: ["--etcd-prefix=/old"], network: "10.99.0.0/16", api: 2, under: "/old" },
    {
      flags: ["--etcd-prefix=/old", "--etcd-api=auto"],
      network: "10.99.0.0/16",
      api: 2,
      under: "/old",
    },
  ] as const;
  await Promise.all(cases.map(async ({ flags, network }, index) => {
    const host = lab.hosts[index]!;
    await startReady(host, { signal, flags });
    assert.equal(String((await host.readSubnetEnv()).network), network);
  }));
  const v3 = await lab.leases({ signal });
  const v2 = new Map<string, { value: string; ttl?: number }>();
  for (const prefix of [ETCD_PREFIX, "/old"]) {
    const port = lab.etcd.members[0]!;
    const text = await port.ctl(["ls", `${prefix}/subnets`], { signal, api: 2 });
    for (const key of text.split("\n").filter((each) => each.startsWith("/"))) {
      const value = await port.ctl(["-o", "extended", "get", key], { signal, api: 2 });
      const ttl = /^TTL: (\d+)$/m.exec(value)?.[1];
      // Under two prefixes, two hosts may draw the same subnet.
      v2.set(key, { value: value.split("\n").at(-2)!, ttl: Number(ttl) });
    }
  }
  for (const [index, { api, under }] of cases.entries()) {
    const host = lab.hosts[index]!;
    const { prefix } = (await host.readSubnetEnv()).subnet;
    const key = `${prefix.address}-${prefix.length}`;
    const value = `{"PublicIP":"${host.address}","PublicIPv6":null}`;
    assert.equal(v3.get(key), api === 3 ? value : undefined, host.daemon.process.tail());
    const inV2 = v2.get(`${under}/subnets/${key}`);
    assert.equal(inV2?.value, api === 2 ? value : undefined);
    if (api === 2) {
      const { ttl } = inV2!;
      assert.ok(ttl! > 86_300 && ttl! <= 86_400, `a day, not ${ttl} s`);
    }
  }
  assert.equal(v3.size + v2.size, cases.length);

  // Told to use v3 it stays with v3, and names the API that does hold the config.
  const stubborn = await lab.hosts[5]!.startDaemon({
    flags: ["--etcd-prefix=/old", "--etcd-api=v3"],
  });
  await stubborn.process.waitForLine(/v2 API does hold this key: use --etcd-api=v2/, { signal });
  assert.ok(!stubborn.isReady());
});

atOnce("a default route that comes late is waited for, and chosen", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 2 });
  const [late, never] = lab.hosts;
  for (const { namespace, identity: { port } } of lab.hosts) {
    await namespace.ip([
      "route del default",
      `route add 10.0.0.0/24 via ${port.gateway} dev eth0`,
      "link add other type veth peer name rehto",
      "address add 192.0.2.1/24 dev other",
      "link set other up",
    ], { signal });
  }
  const [waiting, failing] = await Promise.all([
    late!.startDaemon(),
    never!.startDaemon({ flags: ["--wait-network=1"] }),
  ]);
  await waiting.process.waitForLine(/No external interface yet/, { signal });
  const error = await assertFails(failing, signal);
  // Each candidate, and what to do.
  for (const text of [`eth0 has ${never!.address}`, "other has 192.0.2.1", "--iface"]) {
    assert.ok(error.includes(text), error);
  }
  assert.equal(waiting.process.ended, undefined);
  assert.match(waiting.statuses().at(-1)!, /Waiting for an external interface: /);
  const addedAt = performance.now();
  await late!.namespace.ip([`route add default via ${late!.identity.port.gateway} dev eth0`], {
    signal,
  });
  await waiting.ready({ signal });
  assert.ok(performance.now() - addedAt < patient(5_000), "woken by the kernel's event");
  assert.equal(warnings(waiting).length, 1, waiting.process.tail());
  assert.match(
    await waiting.process.waitForLine(/External interface is/, { signal }),
    /is eth0: .*default route/,
  );
});

import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { ETCD_PREFIX, type Host, type Lab, labTest } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import {
  ALLOC_CONFIG,
  askHealth,
  askStatus,
  HEALTH_FLAGS,
  linesOf,
  openAllocLab,
  startReady,
} from "./support.ts";

const SUBNETS = `${ETCD_PREFIX}/subnets`;

/** A subnet's key below the prefix, from the host's subnet.env. */
async function leaseKey(host: Host): Promise<string> {
  const { prefix } = (await host.readSubnetEnv()).subnet;
  return `${prefix.address}-${prefix.length}`;
}

function leaseValue(publicIp: string): string {
  return `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
}

/** The etcd lease that a key hangs on, as etcdctl names it; `undefined` for none. */
async function etcdLease(
  lab: Lab,
  key: string,
  options: { signal: AbortSignal },
): Promise<string | undefined> {
  const text = await lab.etcd.ctl(["get", "-w", "fields", `${SUBNETS}/${key}`], options);
  const id = BigInt(/^"Lease" : (\d+)$/m.exec(text)![1]!);
  return id === 0n ? undefined : id.toString(16);
}

labTest("a host keeps its subnet over restarts", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  await startReady(host, { signal });
  const key = await leaseKey(host);
  const text = await Deno.readTextFile(host.subnetFile);
  const again = async (says: RegExp) => {
    const daemon = await startReady(host, { signal });
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    assert.deepEqual(await lab.leases({ signal }), new Map([[key, leaseValue(host.address)]]));
    await daemon.process.waitForLine(says, { signal });
  };
  await host.daemon.stop();
  await again(/Lease kept/);
  await host.daemon.kill(); // as kill -9 does
  await again(/Lease kept/);
  // By its public address alone.
  await host.daemon.stop();
  await Deno.remove(host.subnetFile);
  await again(/Lease kept/);
  // By subnet.env alone.
  await host.daemon.stop();
  await lab.etcd.ctl(["del", `${SUBNETS}/${key}`], { signal });
  await again(/Lease taken .*the subnet of the last run is free/);
  // A value as another version may have written it is kept as the own one, and brought up to date.
  await host.daemon.stop();
  await lab.etcd.put(`${SUBNETS}/${key}`, `{ "publicip": "${host.address}", "New": [1] }`, {
    signal,
  });
  await again(/Lease kept/);
});

labTest(
  "hosts that start at once on a network just large enough all get a subnet of their own",
  async ({ signal }) => {
    const count = 15;
    await using lab = await openAllocLab({
      signal,
      hosts: count + 1,
      // 16 subnets, of which the first is never used.
      config: { ...ALLOC_CONFIG, Network: "10.24.0.0/26", SubnetLen: 30 },
    });
    const [extra, ...hosts] = lab.hosts.toReversed();
    await Promise.all(hosts.map((host) => host.startDaemon({ flags: ["-v=1"] })));
    await Promise.all(hosts.map((host) => host.daemon.ready({ signal })));
    const leases = await lab.leases({ signal });
    assert.equal(leases.size, count);
    for (const host of hosts) {
      assert.equal(leases.get(await leaseKey(host)), leaseValue(host.address));
      assert.equal(host.daemon.process.ended, undefined);
    }

    // One more finds none, says so once, and gets the first that becomes free.
    const daemon = await extra!.startDaemon({ flags: HEALTH_FLAGS });
    const line = await daemon.process.waitForLine(/Cannot lease a subnet/, { signal });
    assert.match(line, /15 of 15 subnets of 10\.24\.0\.0\/26 are leased; enlarge the network, or /);
    assert.equal((await askHealth(extra!, "/readyz", { signal })).status, 503);
    const gone = hosts[3]!;
    await gone.daemon.stop();
    const freed = await leaseKey(gone);
    await lab.etcd.ctl(["del", `${SUBNETS}/${freed}`], { signal });
    await daemon.ready({ signal });
    assert.equal(await leaseKey(extra!), freed);
    assert.equal(linesOf(daemon, /Cannot lease a subnet/).length, 1);
  },
);

labTest(
  "of several hosts with one cloned subnet.env exactly one gets its subnet",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: 6 });
    const text = "FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=10.24.77.1/24\nFLANNEL_MTU=1500\n" +
      "FLANNEL_IPMASQ=false\n";
    await Promise.all(lab.hosts.map((host) => Deno.writeTextFile(host.subnetFile, text)));
    await Promise.all(lab.hosts.map((host) => host.startDaemon()));
    await Promise.all(lab.hosts.map((host) => host.daemon.ready({ signal })));
    const keys = await Promise.all(lab.hosts.map(leaseKey));
    assert.equal(new Set(keys).size, lab.hosts.length);
    assert.equal(keys.filter((key) => key === "10.24.77.0-24").length, 1);
    const leases = await lab.leases({ signal });
    assert.deepEqual(
      lab.hosts.map((host, index) => leases.get(keys[index]!) === leaseValue(host.address)),
      lab.hosts.map(() => true),
    );
  },
);

labTest("a revoked lease is taken back at once, with the same subnet", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 2 });
  await Promise.all(lab.hosts.map(async (host, index) => {
    const daemon = await startReady(host, { signal, flags: HEALTH_FLAGS });
    const key = await leaseKey(host);
    const text = await Deno.readTextFile(host.subnetFile);
    const before = await etcdLease(lab, key, { signal });
    assert.ok(before !== undefined);
    const from = daemon.process.lines.length;
    await lab.etcd.ctl(
      index === 0 ? ["del", `${SUBNETS}/${key}`] : ["lease", "revoke", before],
      { signal },
    );
    const removedAt = performance.now();
    await daemon.process.waitForLine(/taken back/, { signal, from });
    assert.ok(performance.now() - removedAt < patient(5_000));
    const leases = await lab.leases({ signal });
    assert.equal(leases.get(key), leaseValue(host.address));
    assert.ok(await etcdLease(lab, key, { signal }), "expires again");
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    const ready = () => askHealth(host, "/readyz", { signal });
    await eventually(async () => (await ready()).status === 200, { signal, title: "readiness" });
  }));
});

labTest(
  "a subnet that another host holds is said, and kept under running pods",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal, hosts: 2 });
    const [keeping, moving] = lab.hosts as [Host, Host];
    await Promise.all([
      startReady(keeping, { signal, flags: HEALTH_FLAGS }),
      startReady(moving, { signal, flags: [...HEALTH_FLAGS, "--on-lease-loss=reassign"] }),
    ]);
    const keys = await Promise.all([keeping, moving].map(leaseKey)) as [string, string];
    const text = await Deno.readTextFile(keeping.subnetFile);
    for (const key of keys) {
      await lab.etcd.put(`${SUBNETS}/${key}`, leaseValue("10.0.9.9"), { signal });
    }

    const said = await keeping.daemon.process.waitForLine(/Lease lost/, { signal });
    assert.match(said, / ERROR .*10\.0\.9\.9 holds \S+ now; .*--on-lease-loss=reassign/);
    const answer = await eventually(async () => {
      const answer = await askHealth(keeping, "/readyz", { signal });
      return answer.status === 503 && answer;
    }, { signal, title: "/readyz to say so" });
    assert.match(answer.body, /lease: 10\.0\.9\.9 holds/);
    assert.match(keeping.daemon.statuses().at(-1)!, /10\.0\.9\.9 holds/);

    await moving.daemon.process.waitForLine(/Another subnet was leased/, { signal });
    await eventually(async () => await leaseKey(moving) !== keys[1], {
      signal,
      title: "subnet.env with the other subnet",
    });
    await eventually(async () => (await askHealth(moving, "/readyz", { signal })).status === 200, {
      signal,
      title: "the moved host to be ready",
    });
    const moved = await leaseKey(moving);
    const leases = await lab.leases({ signal });
    assert.equal(leases.get(moved), leaseValue(moving.address));
    // The other host's leases are as they were.
    assert.deepEqual(keys.map((key) => leases.get(key)), keys.map(() => leaseValue("10.0.9.9")));
    assert.equal(leases.size, 3);
    assert.equal(await Deno.readTextFile(keeping.subnetFile), text);

    // A restart does not take what another holds; nor is it in the way of an end in order.
    const stopped = await keeping.daemon.stop();
    assert.equal(stopped.code, 0);
    assert.equal(await Deno.readTextFile(keeping.subnetFile), text);
  },
);

labTest("a lost subnet is taken back when the other host lets go of it", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  const daemon = await startReady(host, { signal, flags: HEALTH_FLAGS });
  const key = await leaseKey(host);
  await lab.etcd.put(`${SUBNETS}/${key}`, leaseValue("10.0.9.9"), { signal });
  await daemon.process.waitForLine(/Lease lost/, { signal });
  await lab.etcd.ctl(["del", `${SUBNETS}/${key}`], { signal });
  await daemon.process.waitForLine(/Lease is held again/, { signal, timeoutMs: patient(5_000) });
  await eventually(async () => (await askHealth(host, "/readyz", { signal })).status === 200, {
    signal,
    title: "readiness",
  });
  assert.equal((await lab.leases({ signal })).get(key), leaseValue(host.address));
});

labTest(
  "a host that was frozen while another took its subnet sees it when it wakes",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    const daemon = await startReady(host, { signal, flags: HEALTH_FLAGS });
    const key = await leaseKey(host);
    daemon.process.signal("SIGSTOP");
    await lab.etcd.ctl(["del", `${SUBNETS}/${key}`], { signal });
    await lab.etcd.put(`${SUBNETS}/${key}`, leaseValue("10.0.9.9"), { signal });
    daemon.process.signal("SIGCONT");
    await daemon.process.waitForLine(/Lease lost: 10\.0\.9\.9 holds/, {
      signal,
      timeoutMs: patient(5_000),
    });
    assert.equal((await lab.leases({ signal })).get(key), leaseValue("10.0.9.9"));
  },
);

labTest(
  "a changed config is told, and applied by a restart, with a lease that fits it",
  async ({ signal }) => {
    await using lab = await openAllocLab({ signal });
    const host = lab.hosts[0]!;
    const daemon = await startReady(host, { signal });
    const before = await lab.leases({ signal });
    const text = await Deno.readTextFile(host.subnetFile);
    await lab.writeConfig({ ...ALLOC_CONFIG, Network: "10.96.0.0/16" }, { signal });
    await daemon.process.waitForLine(/config was changed; restart flanneld to apply it/, {
      signal,
    });
    await lab.writeConfig(ALLOC_CONFIG, { signal });
    await daemon.process.waitForLine(/config is the one in use again/, { signal });
    assert.equal(await Deno.readTextFile(host.subnetFile), text);
    assert.deepEqual(await lab.leases({ signal }), before);

    await lab.writeConfig({ ...ALLOC_CONFIG, Network: "10.96.0.0/16" }, { signal });
    await daemon.stop();
    const next = await startReady(host, { signal });
    await next.process.waitForLine(/Removing the own lease .* does not fit the network config/, {
      signal,
    });
    const key = await leaseKey(host);
    assert.match(key, /^10\.96\./);
    assert.deepEqual(await lab.leases({ signal }), new Map([[key, leaseValue(host.address)]]));
  },
);

labTest("a reservation stays one, over restarts and rewrites", async ({ signal }) => {
  await using lab = await openAllocLab({ signal });
  const host = lab.hosts[0]!;
  const key = "10.24.200.0-24";
  // As the guide writes it; without the fields that a daemon adds.
  await lab.etcd.put(`${SUBNETS}/${key}`, `{"PublicIP":"${host.address}"}`, { signal });
  for (let run = 0; run < 2; run++) {
    await startReady(host, { signal });
    assert.equal(await leaseKey(host), key);
    assert.deepEqual(await lab.leases({ signal }), new Map([[key, leaseValue(host.address)]]));
    assert.equal(await etcdLease(lab, key, { signal }), undefined);
    await host.daemon.stop();
  }
});

labTest("junk in the store is named, counted, and disturbs no lease", async ({ signal }) => {
  await using lab = await openAllocLab({ signal, hosts: 3 });
  const [first, second, third] = lab.hosts as [Host, Host, Host];
  const putAll = async (entries: Readonly<Record<string, string>>) => {
    for (const [key, value] of Object.entries(entries)) {
      await lab.etcd.put(`${SUBNETS}/${key}`, value, { signal });
    }
  };
  const good = '{"PublicIP":"10.0.9.1"}';
  // Beyond the first hundred free subnets, of which hosts draw theirs. Before the start …
  await putAll({ "junk": good, "10.24.207.0-24": "{", "10.24.208.0-24": good });
  // … and beside the keys, where a prefix read without its slash would find it.
  await lab.etcd.put(`${SUBNETS}foo`, "x", { signal });
  const daemon = await startReady(first, { signal, flags: HEALTH_FLAGS });
  await startReady(second, { signal });
  const status = async () => (await askStatus(first, { signal })).status;
  const peers = (count: number, skipped: number) =>
    eventually(async () => {
      const { peers, skippedLeases } = await status();
      return peers === count && Object.keys(skippedLeases).length === skipped;
    }, { signal, title: `${count} peers and ${skipped} entries that are skipped` });
  await peers(2, 2); // 10.24.208.0 and the second host

  // While it runs: keys that are none, values that are none, subnets outside and overlapping.
  await putAll({
    "10.24.300.0-24": good,
    "10.24.209.0-24": '{"PublicIP":null}',
    "10.24.210.0-24": "\u0001\u2028",
    "10.99.1.0-24": good,
    "10.24.208.128-25": '{"PublicIP":"10.0.9.2"}',
  });
  await peers(2, 7);
  await startReady(third, { signal });
  await peers(3, 7);
  for (
    const key of ["junk", "10.24.207.0-24", "10.24.300.0-24", "10.24.209.0-24", "10.24.210.0-24"]
  ) {
    const named = linesOf(daemon, /Skipping an entry/).filter((line) =>
      line.endsWith(` key=${key}`)
    );
    assert.equal(named.length, 1, `${key}:\n${daemon.process.tail()}`);
  }
  assert.equal(
    linesOf(daemon, /10\.24\.208\.128\/25 overlaps the lease 10\.24\.208\.0-24/).length,
    1,
    daemon.process.tail(),
  );
  assert.equal(linesOf(daemon, /10\.99\.1\.0\/24 is not inside the network/).length, 1);

  // What is mended counts from then on; what was in the way goes, what it kept out comes in.
  await putAll({ "10.24.209.0-24": good });
  await peers(4, 6);
  await lab.etcd.ctl(["del", `${SUBNETS}/10.24.208.0-24`], { signal });
  await peers(4, 5);
  // Nobody touched an entry that is not his own.
  const leases = await lab.leases({ signal });
  assert.equal(leases.get("junk"), good);
  assert.equal(leases.get("10.24.207.0-24"), "{");
  assert.equal(leases.size, 10);
  assert.equal((await askHealth(first, "/readyz", { signal })).status, 200);
});

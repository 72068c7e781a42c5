import assert from "node:assert/strict";
import { eventually } from "../support/eventually.ts";
import { ETCD_PREFIX, type Host, type Lab } from "../lab/mod.ts";
import { patient } from "../support/slowness.ts";
import {
  ALLOC_CONFIG,
  askHealth,
  askStatus,
  HEALTH_FLAGS,
  labTestsAtOnce,
  linesOf,
  openAllocLab,
  startReady,
} from "./support.ts";

const atOnce = labTestsAtOnce("etcd's v2 store");

const SUBNETS = `${ETCD_PREFIX}/subnets`;

/** A cluster that still lives in etcd's v2 store. */
async function openV2Lab(hosts: number, signal: AbortSignal): Promise<Lab> {
  const lab = await openAllocLab({ signal, hosts, etcd: { v2: true } });
  await lab.etcd.ctl(["del", `${ETCD_PREFIX}/config`], { signal });
  await lab.writeConfig(ALLOC_CONFIG, { signal, api: 2 });
  return lab;
}

interface V2Lease {
  readonly value: string;
  /** 0: never expires. */
  readonly ttlSeconds: number;
}

/** The v2 leases by key. */
async function v2Leases(
  lab: Lab,
  options: { signal: AbortSignal },
): Promise<Map<string, V2Lease>> {
  const ctl = (...args: string[]) => lab.etcd.ctl(args, { ...options, api: 2 });
  const keys = (await ctl("ls", SUBNETS)).split("\n").filter((line) => line !== "");
  return new Map(
    await Promise.all(keys.map(async (key): Promise<[string, V2Lease]> => {
      const [head, value] = (await ctl("-o", "extended", "get", key)).split("\n\n");
      const ttlSeconds = Number(/^TTL: (\d+)$/m.exec(head!)![1]);
      return [key.slice(SUBNETS.length + 1), { value: value!.trimEnd(), ttlSeconds }];
    })),
  );
}

async function leaseKey(host: Host): Promise<string> {
  const { prefix } = (await host.readSubnetEnv()).subnet;
  return `${prefix.address}-${prefix.length}`;
}

function leaseValue(publicIp: string): string {
  return `{"PublicIP":"${publicIp}","PublicIPv6":null}`;
}

async function peers(host: Host, count: number, options: { signal: AbortSignal }): Promise<void> {
  await eventually(async () => (await askStatus(host, options)).status.peers === count, {
    ...options,
    title: `${host.label} to know ${count} peers`,
  });
}

atOnce("v2: leases are kept, taken back, and lost to others as with v3", async ({ signal }) => {
  await using lab = await openV2Lab(3, signal);
  const [host, reserved, cloned] = lab.hosts as [Host, Host, Host];
  const set = (key: string, value: string) =>
    lab.etcd.put(`${SUBNETS}/${key}`, value, { signal, api: 2 });
  // As upstream before 0.16 wrote it, and without a TTL.
  await set("10.24.200.0-24", `{"PublicIP":"${reserved.address}"}`);
  await Promise.all(
    [host, reserved].map((each) => startReady(each, { signal, flags: HEALTH_FLAGS })),
  );
  const key = await leaseKey(host);
  assert.equal(await leaseKey(reserved), "10.24.200.0-24");
  const found = await v2Leases(lab, { signal });
  assert.deepEqual(found.get("10.24.200.0-24"), {
    value: leaseValue(reserved.address),
    ttlSeconds: 0,
  });
  assert.equal(found.get(key)!.value, leaseValue(host.address));
  assert.ok(found.get(key)!.ttlSeconds > 86_300);
  assert.equal(found.size, 2);
  await peers(host, 1, { signal });
  await peers(reserved, 1, { signal });

  // One with a clone of its subnet.env gets another subnet.
  const text = await Deno.readTextFile(host.subnetFile);
  await Deno.writeTextFile(cloned.subnetFile, text);
  await startReady(cloned, { signal });
  assert.notEqual(await leaseKey(cloned), key);
  await peers(host, 2, { signal });

  await lab.etcd.ctl(["rm", `${SUBNETS}/${key}`], { signal, api: 2 });
  await host.daemon.process.waitForLine(/taken back/, { signal, timeoutMs: patient(5_000) });
  const again = (await v2Leases(lab, { signal })).get(key);
  assert.equal(again?.value, leaseValue(host.address));
  assert.ok(again.ttlSeconds > 86_300);

  await host.daemon.kill();
  await startReady(host, { signal, flags: HEALTH_FLAGS });
  assert.equal(await Deno.readTextFile(host.subnetFile), text);

  await set(key, leaseValue("10.0.9.9"));
  await host.daemon.process.waitForLine(/ ERROR .*10\.0\.9\.9 holds/, {
    signal,
    timeoutMs: patient(5_000),
  });
  await eventually(async () => (await askHealth(host, "/readyz", { signal })).status === 503, {
    signal,
    title: "/readyz to say so",
  });
  assert.equal(await Deno.readTextFile(host.subnetFile), text);
  await lab.etcd.ctl(["rm", `${SUBNETS}/${key}`], { signal, api: 2 });
  await host.daemon.process.waitForLine(/Lease is held again/, { signal });
  assert.equal((await host.daemon.stop()).code, 0);
  assert.equal((await lab.leases({ signal })).size, 0, "nothing in v3");
});

atOnce(
  "v2: junk is named, an outage outlived, and missed events are made up for",
  async ({ signal }) => {
    await using lab = await openV2Lab(2, signal);
    const [host, peer] = lab.hosts as [Host, Host];
    const ctl = (...args: string[]) => lab.etcd.ctl(args, { signal, api: 2 });
    // Beyond the first hundred free subnets, of which hosts draw theirs.
    await ctl("set", `${SUBNETS}/junk`, "{");
    await ctl("mkdir", `${SUBNETS}/10.24.205.0-24`);
    await ctl("set", `${SUBNETS}/10.24.205.0-24/deep`, leaseValue("10.0.9.1"));
    await startReady(host, { signal, flags: HEALTH_FLAGS });
    await startReady(peer, { signal });
    await peers(host, 1, { signal });
    await ctl("set", `${SUBNETS}/10.24.206.0-24`, leaseValue("10.0.9.2"));
    await ctl("set", `${SUBNETS}/10.24.207.0-24`, "junk, too");
    await ctl("set", "--ttl=10", `${SUBNETS}/10.24.208.0-24`, leaseValue("10.0.9.3"));
    await peers(host, 3, { signal });
    for (const key of ["junk", "10.24.207.0-24"]) {
      await host.daemon.process.waitForLine(new RegExp(`Skipping an entry.* key=${key}$`), {
        signal,
      });
    }
    await peers(host, 2, { signal }); // the one that expires

    await lab.etcd.kill();
    await host.daemon.process.waitForLine(/Peers are not followed at present/, { signal });
    assert.equal((await askHealth(host, "/readyz", { signal })).status, 200);
    await lab.etcd.start({ signal });
    // More events than etcd's v2 store remembers (1,000) would be slow to make here; after a
    // restart it remembers none at all, which is the same to a watcher.
    await ctl("rm", `${SUBNETS}/10.24.206.0-24`);
    await ctl("set", `${SUBNETS}/10.24.209.0-24`, leaseValue("10.0.9.4"));
    await ctl("set", `${SUBNETS}/10.24.210.0-24`, leaseValue("10.0.9.5"));
    await peers(host, 3, { signal });
    assert.equal(host.daemon.process.ended, undefined);
    const said = linesOf(host.daemon, / (WARN|ERROR) /);
    assert.ok(said.length <= 5, said.join("\n"));
  },
);

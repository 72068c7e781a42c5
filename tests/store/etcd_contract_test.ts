import assert from "node:assert/strict";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import { delay } from "../../src/util/time.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { testRegistryContract } from "./registry_contract.ts";
import { etcdTest, settingsFor } from "./support.ts";

const { signal } = new AbortController();

etcdTest("EtcdV3Registry fulfils the contract of a registry", async (t) => {
  await using etcd = await EtcdServers.start({ signal });
  let serial = 0;
  await testRegistryContract(t, () => {
    const prefix = `/test${serial++}/network`;
    const settings = settingsFor(etcd.endpoints, { prefix });
    const write = async (path: string, value: string | undefined) => {
      const args = value === undefined
        ? ["del", `${prefix}/${path}`]
        : ["put", "--", `${prefix}/${path}`, value];
      await etcd.any.ctl(args, { signal });
    };
    return {
      open: () => new EtcdV3Registry(settings),
      setConfig: (value) => write("config", value),
      write,
      pass: (seconds) => delay(seconds * 1000, { signal }),
      shortestTtlSeconds: 3, // etcd raises anything below 1.5 election time-outs
      renewKeepsRevision: true,
    };
  });
});

etcdTest("EtcdV2Registry fulfils the contract of a registry", async (t) => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  let serial = 0;
  await testRegistryContract(t, () => {
    const prefix = `/test${serial++}/network`;
    const settings = settingsFor(etcd.endpoints, { prefix });
    const write = async (path: string, value: string | undefined) => {
      const key = `${prefix}/${path}`;
      // Not etcdctl: its v2 "set" takes an empty value for "read it from standard input".
      const url = `${etcd.endpoints[0]}/v2/keys${key.split("/").map(encodeURIComponent).join("/")}`;
      const response = await fetch(
        url,
        value === undefined
          ? { method: "DELETE" }
          : { method: "PUT", body: new URLSearchParams({ value }) },
      );
      const text = await response.text();
      assert(response.ok, text);
    };
    return {
      open: () => new EtcdV2Registry(settings),
      setConfig: (value) => write("config", value),
      write,
      pass: (seconds) => delay(seconds * 1000, { signal }),
      shortestTtlSeconds: 2,
      renewKeepsRevision: false,
    };
  });
});

etcdTest("EtcdV3Registry writes keys and values byte by byte as upstream does", async () => {
  await using etcd = await EtcdServers.start({ signal });
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  const value =
    '{"PublicIP":"192.168.64.3","PublicIPv6":"fd00::3","BackendType":"vxlan","BackendData":{"VNI":1}}';
  const key = "10.3.4.0-24&fd00:0:0:4::-64";
  await registry.create(key, value, { signal, lifetimeSeconds: 86400 });
  const text = await etcd.any.ctl(["get", "--prefix", "", "-w", "json"], { signal });
  const { kvs } = JSON.parse(text) as { kvs: { key: string; value: string; lease?: number }[] };
  assert.equal(kvs.length, 1);
  const decode = (base64: string) => new TextDecoder().decode(Uint8Array.fromBase64(base64));
  assert.equal(decode(kvs[0]!.key), `/coreos.com/network/subnets/${key}`);
  assert.equal(decode(kvs[0]!.value), value);

  // What upstream puts, blindly and under an etcd lease of its own, is an entry like ours.
  const grant = await etcd.any.ctl(["lease", "grant", "86400"], { signal });
  const lease = /lease ([0-9a-f]+)/.exec(grant)![1]!;
  const args = ["put", `--lease=${lease}`, "/coreos.com/network/subnets/10.3.5.0-24", value];
  await etcd.any.ctl(args, { signal });
  const foreign = await registry.get("10.3.5.0-24", { signal });
  assert.equal(foreign?.value, value);
  assert.equal(foreign.expires, true);
  const renewed = await registry.renew(foreign, 86400, { signal });
  assert.deepEqual(renewed, foreign);
});

etcdTest("EtcdV3Registry leaves no etcd lease behind when a comparison fails", async () => {
  await using etcd = await EtcdServers.start({ signal });
  await using registry = new EtcdV3Registry(settingsFor(etcd.endpoints));
  await registry.create("10.3.4.0-24", "1", { signal, lifetimeSeconds: 60 });
  for (let i = 0; i < 3; i++) {
    await registry.create("10.3.4.0-24", "2", { signal, lifetimeSeconds: 60 });
  }
  await registry.update({ key: "10.3.4.0-24", version: "1" }, "2", { signal, lifetimeSeconds: 60 });
  assert.match(await etcd.any.ctl(["lease", "list"], { signal }), /found 1 leases/);
});

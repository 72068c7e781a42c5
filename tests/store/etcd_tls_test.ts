import assert from "node:assert/strict";
import { ConfigError, OperatorError } from "../../src/errors.ts";
import { EtcdV2Registry } from "../../src/store/etcd/v2.ts";
import { EtcdV3Registry } from "../../src/store/etcd/v3.ts";
import type { EtcdSettings } from "../../src/store/etcd/options.ts";
import { openEtcdKeys } from "../../src/store/etcd/open.ts";
import type { Registry } from "../../src/store/keys/key_space.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { type CertificateFiles, TestCa } from "../support/test_ca.ts";
import { rejectsWith } from "./registry_contract.ts";
import { etcdTest, MemoryLogger, Relay, settingsFor } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();

/** etcd with TLS, serving both APIs. */
async function startTlsEtcd(
  ca: TestCa,
  server: CertificateFiles,
  client?: CertificateFiles,
): Promise<EtcdServers> {
  return await EtcdServers.start({
    signal,
    flags: ["--enable-v2"],
    tls: {
      caFile: ca.caFile,
      ...server,
      clientCertificate: client !== undefined,
      ...(client === undefined ? {} : {
        clientCertFile: client.certFile,
        clientKeyFile: client.keyFile,
      }),
    },
  });
}

const APIS: readonly (readonly [string, new (settings: EtcdSettings) => Registry])[] = [
  ["v3", EtcdV3Registry],
  ["v2", EtcdV2Registry],
];

for (const [api, RegistryClass] of APIS) {
  etcdTest(`etcd ${api} over TLS: names and addresses are verified against the CA`, async () => {
    await using ca = await TestCa.create({ signal });
    await using otherCa = await TestCa.create({ signal });
    const server = await ca.issue("server", {
      subjectAltNames: ["DNS:localhost", "IP:127.0.0.1"],
    });
    await using etcd = await startTlsEtcd(ca, server);
    const { port } = etcd.any;
    const { caFile } = ca;

    for (const host of ["127.0.0.1", "localhost"]) {
      await using registry = new RegistryClass(
        settingsFor([`https://${host}:${port}`], { caFile, prefix: `/${host}` }),
      );
      const entry = await registry.create("10.3.4.0-24", "1", { signal, lifetimeSeconds: 3600 });
      await using log = new WatchLog(registry, { signal });
      await log.until("the snapshot", ({ map }) => map.size === 1);
      await registry.update(entry!, "2", { signal, lifetimeSeconds: 3600 });
      await log.until("the event", ({ map }) => map.get("10.3.4.0-24")?.value === "2");
    }

    const refused = async (url: string, file: string | undefined, message: RegExp) => {
      await using registry = new RegistryClass(
        settingsFor([url], file === undefined ? {} : { caFile: file }),
      );
      await rejectsWith(registry.list({ signal }), "unavailable", message);
    };
    // This address leads to the same server, and its certificate does not say so.
    using relay = new Relay(port, { hostname: "127.0.0.2" });
    await refused(
      `https://${relay.address}`,
      caFile,
      /^Cannot reach etcd at https:\/\/127.0.0.2:\d+: the certificate is not valid for 127.0.0.2, but for localhost, 127.0.0.1: use one of these in --etcd-endpoints, or issue one with subjectAltName=IP:127.0.0.2$/,
    );
    await refused(
      `https://127.0.0.1:${port}`,
      otherCa.caFile,
      /not signed by a CA that is trusted: is \S+ the CA of this etcd\?$/,
    );
    await refused(`https://127.0.0.1:${port}`, undefined, /: give etcd's CA with --etcd-cafile$/);
  }, { needs: ["openssl"] });

  etcdTest(`etcd ${api} over TLS: client certificates are shown, and read again`, async () => {
    await using ca = await TestCa.create({ signal });
    await using otherCa = await TestCa.create({ signal });
    const server = await ca.issue("server", { subjectAltNames: ["IP:127.0.0.1"] });
    const operator = await ca.issue("operator");
    await using etcd = await startTlsEtcd(ca, server, operator);
    const { caFile } = ca;

    await using stranger = new RegistryClass(settingsFor(etcd.endpoints, { caFile }));
    // With TLS 1.3 the refusal comes after the handshake, and the end may be seen before it.
    const demand = /demands a client certificate: give|closed by the server(: does it want a c|$)/;
    await rejectsWith(stranger.list({ signal }), "unavailable", demand);

    // A certificate of the wrong CA is refused; the right one put in its place is used.
    const files = await otherCa.issue("client");
    await using registry = new RegistryClass(settingsFor(etcd.endpoints, { caFile, ...files }));
    const refusal =
      /refuses the client certificate \(\w+\): is it|closed by the server(: does it want an|$)/;
    await rejectsWith(registry.list({ signal }), "unavailable", refusal);
    const right = await ca.issue("client");
    await Deno.copyFile(right.keyFile, files.keyFile);
    await Deno.copyFile(right.certFile, files.certFile);
    assert.deepEqual(await registry.list({ signal }), []);

    await using log = new WatchLog(registry, { signal });
    await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
    await etcd.any.kill();
    await log.until("the outage", ({ disconnected }) => disconnected);
    etcd.members[0]!.start();
    await log.until("the end of the outage", ({ disconnected }) => !disconnected);
    assert(await registry.create("10.3.4.0-24", "1", { signal, lifetimeSeconds: 3600 }));
    await log.until("the event", ({ map }) => map.size === 1);
  }, { needs: ["openssl"] });
}

Deno.test("openEtcdKeys() refuses what only a person can mend, all at once", async () => {
  const log = new MemoryLogger();
  await assert.rejects(
    openEtcdKeys({
      endpoints: ["ftp://10.0.0.5", "http://me:s3cret@10.0.0.5:2379", "http://10.0.0.5:70000"],
      api: "auto",
      certFile: "/nonexistent",
      username: "me",
      log,
    }),
    (error) => {
      assert(error instanceof ConfigError);
      assert.equal(error.faults.length, 5);
      assert(!error.message.includes("s3cret"));
      return true;
    },
  );
  await assert.rejects(
    openEtcdKeys({ endpoints: ["https://etcd:2379"], api: "v3", caFile: "/nonexistent", log }),
    (error) => error instanceof OperatorError && /CA file \/nonexistent/.test(error.message),
  );
  await using _plain = await openEtcdKeys({
    endpoints: ["http://127.0.0.1:1"],
    api: "v2",
    caFile: import.meta.dirname + "/../support/test_ca.ts",
    log,
  }).catch((error) => {
    // A file that is no certificate is refused, even where it would not be used.
    assert.match(String(error), /holds no PEM block "CERTIFICATE"/);
    return undefined;
  });
});

etcdTest("openEtcdKeys() warns of TLS files beside an http endpoint", async () => {
  await using ca = await TestCa.create({ signal });
  const log = new MemoryLogger();
  await using _registry = await openEtcdKeys({
    endpoints: ["http://127.0.0.1:1", "https://127.0.0.1:2"],
    api: "v2",
    caFile: ca.caFile,
    log,
  });
  assert.equal(log.lines.length, 1);
  assert.match(log.lines[0]!, /^warn TLS files are given but not used for http:\/\/127.0.0.1:1/);
}, { needs: ["openssl"] });

import assert from "node:assert/strict";
import { Secret } from "../../src/secret.ts";
import { openEtcdKeys, type OpenEtcdStoreOptions } from "../../src/store/etcd/open.ts";
import { EtcdStore } from "../../src/store/etcd/store.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { eventually } from "../support/eventually.ts";
import { rejectsWith } from "./registry_contract.ts";
import { etcdTest, MemoryLogger, Relay } from "./support.ts";
import { WatchLog } from "./watch_log.ts";

const { signal } = new AbortController();
const CONFIG_KEY = "/coreos.com/network/config";
const CONFIG = '{"Network":"10.24.0.0/16"}';

async function open(endpoints: readonly string[], more: Partial<OpenEtcdStoreOptions> = {}) {
  const keys = await openEtcdKeys({ endpoints, api: "auto", log: new MemoryLogger(), ...more });
  const store = new EtcdStore(keys, { renewMarginSeconds: 3_600 });
  return {
    keys,
    store,
    config: store.config,
    [Symbol.asyncDispose]: () => store[Symbol.asyncDispose](),
  };
}

etcdTest("openEtcdStore() takes v3, and v2 only while v3 has no config and v2 has", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const server = etcd.any;
  {
    await using opened = await open(etcd.endpoints);
    assert.equal(opened.keys.api, undefined);
    assert.equal(await opened.config.read({ signal }), undefined);
    assert.equal(opened.keys.api, undefined, "nothing is decided while nothing is there");
    assert.throws(
      () => opened.store.documents("ali-vpc/state"),
      /before the network config is read/,
    );
    const text = await opened.config.explainMissing(CONFIG, { signal });
    assert.equal(
      text,
      `Cannot find the network config: etcd v3 at ${server.endpoint} has no key ${CONFIG_KEY}; ` +
        `write it with: ETCDCTL_API=3 etcdctl --endpoints=${server.endpoint} put ${CONFIG_KEY} ` +
        `'${CONFIG}'`,
    );
    const command = /write it with: (.*)$/.exec(text)![1]!;
    // The line is meant for a shell; here its words are run without one.
    const words = command.match(/'[^']*'|\S+/g)!.map((word) => word.replaceAll("'", ""));
    await server.ctl(words.slice(3), { signal });
    assert.equal(await opened.config.read({ signal }), CONFIG);
    assert.equal(opened.keys.api, "v3");
    await server.ctl(["del", CONFIG_KEY], { signal });
  }

  await server.ctl(["set", CONFIG_KEY, CONFIG], { signal, api: 2 });
  {
    await using opened = await open(etcd.endpoints);
    assert.equal(await opened.config.read({ signal }), CONFIG);
    assert.equal(opened.keys.api, "v2");
    assert.match(opened.store.description, /^etcd v2 at /);
    await opened.keys.decided.create("10.3.4.0-24", "{}", { signal, lifetimeSeconds: 3600 });
    await using log = new WatchLog(opened.keys.decided, { signal });
    await log.until("the snapshot", ({ map }) => map.has("10.3.4.0-24"));
    const listed = await server.ctl(["ls", "/coreos.com/network/subnets"], { signal, api: 2 });
    assert.equal(listed.trim(), "/coreos.com/network/subnets/10.3.4.0-24");
    const space = opened.keys.decided.space("ali-vpc/election");
    const written = await space.create("writer", "us", { signal, lifetimeSeconds: 3600 });
    await using spaceLog = new WatchLog(space, { signal });
    await spaceLog.until("the snapshot of a space", ({ map }) => map.has("writer"));
    assert.deepEqual(await space.list({ signal }), [written]);
    const key = "/coreos.com/network/ali-vpc/election/writer";
    assert.equal((await server.ctl(["get", key], { signal, api: 2 })).trim(), "us");
    assert.throws(() => opened.keys.decided.space("subnets"), RangeError);
    // The choice stays, even if v3 gets a config later: the leases are here.
    await server.ctl(["put", CONFIG_KEY, "{}"], { signal });
    assert.equal(await opened.config.read({ signal }), CONFIG);
    await server.ctl(["del", CONFIG_KEY], { signal });
  }
  {
    await using opened = await open(etcd.endpoints, { api: "v3" });
    assert.equal(await opened.config.read({ signal }), undefined);
    const text = await opened.config.explainMissing(CONFIG, { signal });
    assert.match(text, /; etcd's v2 API does hold this key: use --etcd-api=v2 if that is the one$/);
  }
  await server.ctl(["put", CONFIG_KEY, '{"Network":"10.3.0.0/16"}'], { signal });
  {
    await using opened = await open(etcd.endpoints);
    assert.equal(await opened.config.read({ signal }), '{"Network":"10.3.0.0/16"}');
    assert.equal(opened.keys.api, "v3");
  }
});

etcdTest("openEtcdStore() names a config that is nearly where it is looked for", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const server = etcd.any;
  /** What is said of a config at `key`, and that nothing else was written to the store. */
  const explain = async (api: 2 | 3, key: string, more: Partial<OpenEtcdStoreOptions>) => {
    const { signal } = new AbortController();
    await server.ctl([api === 3 ? "put" : "set", "--", key, CONFIG], { signal, api });
    await using opened = await open(etcd.endpoints, more);
    assert.equal(await opened.config.read({ signal }), undefined, key);
    const text = await opened.config.explainMissing(CONFIG, { signal });
    await server.ctl([api === 3 ? "del" : "rm", "--", key], { signal, api });
    const left = await server.ctl(["get", "--prefix", "--keys-only", ""], { signal });
    assert.equal(left.trim(), "", "a mistaken prefix makes no second cluster");
    return text;
  };
  const cases: readonly (readonly [2 | 3, string, Partial<OpenEtcdStoreOptions>, RegExp])[] = [
    [
      3,
      "coreos.com/network/config",
      {},
      /; it holds .* at c\S+: use --etcd-prefix=coreos.com\/net/,
    ],
    [3, "/coreos.com/network", {}, /; it holds .* at \/coreos.com\/network: the place for it is /],
    [3, "/Coreos.com/Network/Config", {}, /at \/Coreos.com\/Network\/Config: the place for it is /],
    [
      3,
      CONFIG_KEY,
      { prefix: "/coreos/network" },
      /at \/c\S+: use --etcd-prefix=\/coreos.com\/net/,
    ],
    [3, CONFIG_KEY, { prefix: "coreos.com/network" }, /use --etcd-prefix=\/coreos.com\/network if/],
    [3, "/config", { prefix: "/x" }, /at \/config: use --etcd-prefix=\/ if that is the one/],
    [3, "/odd one/config", {}, /has no key \S+; write it with/],
    [
      3,
      "/our/net/config",
      { api: "v2" },
      /etcd's v3 API .*: use --etcd-api=v3 --etcd-prefix=\/our\/net/,
    ],
    [
      2,
      "/coreos.com/Network/config",
      {},
      /etcd's v2 API holds .*: use --etcd-prefix=\/coreos.com\/Ne/,
    ],
    [2, "/coreos.com/network", { api: "v2" }, /; it holds .* at \/coreos.com\/network: the place/],
    [2, "/a/b/config", { api: "v2", prefix: "/" }, /; it holds .*: use --etcd-prefix=\/a\/b if/],
  ];
  for (const [api, key, more, pattern] of cases) {
    const text = await explain(api, key, more);
    assert.match(text, pattern, `${key}: ${text}`);
  }
});

etcdTest("openEtcdStore() finds a misplaced config behind thousands of leases", async () => {
  await using etcd = await EtcdServers.start({ signal });
  await using leases = await open(etcd.endpoints, { api: "v3", prefix: "/a" });
  for (let from = 0; from < 5_000; from += 100) {
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => {
        return leases.keys.decided.create(`10.${from + i}`, "{}", { signal });
      }),
    );
  }
  await etcd.any.ctl(["put", "/b/config", CONFIG], { signal });
  await using opened = await open(etcd.endpoints, { prefix: "/c" });
  const text = await opened.config.explainMissing(CONFIG, { signal });
  assert.match(text, /at \/b\/config: use --etcd-prefix=\/b if that is the one; or write it with/);
});

etcdTest("openEtcdStore() waits for the config to turn up in either store", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  await using opened = await open(etcd.endpoints);
  assert.equal(await opened.config.read({ signal }), undefined);
  await etcd.any.ctl(["set", CONFIG_KEY, CONFIG], { signal, api: 2 });
  assert.equal(await opened.config.read({ signal }), CONFIG);
  const controller = new AbortController();
  const seen: (string | undefined)[] = [];
  const following = (async () => {
    for await (const config of opened.config.follow(controller)) seen.push(config);
  })();
  await eventually(() => seen.length === 1, { signal, title: "the config" });
  await etcd.any.ctl(["set", CONFIG_KEY, "{}"], { signal, api: 2 });
  await eventually(() => seen.length === 2, { signal, title: "the changed config" });
  controller.abort();
  await following;
  assert.deepEqual(seen, [CONFIG, "{}"]);
});

etcdTest(
  "openEtcdStore() closes the store that it does not choose, and all at its end",
  async () => {
    await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
    await etcd.any.ctl(["set", CONFIG_KEY, CONFIG], { signal, api: 2 });
    using relay = new Relay(etcd.any.port);
    const areLeft = (count: number, api: string) =>
      eventually(() => relay.open === count, { signal, title: `${count} connections with ${api}` });
    for (const api of ["v2", "v3"] as const) {
      await using opened = await open([relay.endpoint]);
      assert.equal(relay.open, 0);
      // Many calls meet the choice.
      const read = await Promise.all([1, 2, 3].map(() => opened.config.read({ signal })));
      assert.deepEqual(read, [CONFIG, CONFIG, CONFIG]);
      assert.equal(opened.keys.api, api);
      await areLeft(api === "v2" ? 3 : 1, api);
      assert.match(await opened.config.explainMissing(CONFIG, { signal }), /^Cannot find/);
      await areLeft(api === "v2" ? 3 : 1, api);
      await opened[Symbol.asyncDispose]();
      await areLeft(0, api);
      await etcd.any.ctl(["put", CONFIG_KEY, CONFIG], { signal });
    }
  },
);

etcdTest("openEtcdStore() takes unix sockets, for both APIs", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/etcd.sock`;
    using relay = new Relay(etcd.any.port, { path });
    for (const api of ["v3", "v2"] as const) {
      await using opened = await open([`unix://${path}`], { api });
      assert.equal(opened.store.description, `etcd ${api} at unix://${path}`);
      await using log = new WatchLog(opened.keys.decided, { signal });
      await log.until("the snapshot", ({ snapshots }) => snapshots === 1);
      await opened.keys.decided.create("10.3.4.0-24", api, { signal, lifetimeSeconds: 3600 });
      await log.until("the event", ({ map }) => map.get("10.3.4.0-24")?.value === api);
      relay.cut();
      const key = "/coreos.com/network/subnets/10.3.5.0-24";
      await etcd.any.ctl([api === "v3" ? "put" : "set", key, api], {
        signal,
        api: api === "v3" ? 3 : 2,
      });
      await log.until("the event after a cut", ({ map }) => map.has("10.3.5.0-24"));
    }
    await using opened = await open([`unix:${directory}/other.sock`], { api: "v3" });
    await rejectsWith(
      opened.config.read({ signal }),
      "unavailable",
      /^Cannot reach etcd at unix:\/\/\S*\/other.sock: /,
    );
    await using v2 = await open([`unix:${directory}/other.sock`], { api: "v2" });
    await rejectsWith(
      v2.config.read({ signal }),
      "unavailable",
      /^Cannot reach etcd at unix:\/\/\S*\/other.sock: /,
    );
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

etcdTest("openEtcdStore() needs no etcd to open, and reads it once it is there", async () => {
  await using etcd = await EtcdServers.start({ signal });
  await etcd.any.ctl(["put", CONFIG_KEY, CONFIG], { signal });
  const server = etcd.any;
  await server.kill();
  await using opened = await open(["http://127.0.0.1:1", server.endpoint], {
    username: "flannel",
    password: new Secret("c0rrect-h0rse"),
  });
  await rejectsWith(
    opened.config.read({ signal }),
    "unavailable",
    /^Cannot reach etcd at http:.*: connection refused; at http:.*: connection refused$/,
  );
  server.start();
  await server.ready({ signal });
  assert.equal(await opened.config.read({ signal }), CONFIG);
});

etcdTest("openEtcdStore() takes v2 where v3 is not served at all", async () => {
  await using etcd = await EtcdServers.start({ signal, flags: ["--enable-v2"] });
  await etcd.any.ctl(["set", CONFIG_KEY, CONFIG], { signal, api: 2 });
  // An etcd of before v3: HTTP/1 only.
  await using old = Deno.serve({
    hostname: "127.0.0.1",
    port: 0,
    onListen() {},
  }, async (request) => {
    const { pathname, search } = new URL(request.url);
    if (!pathname.startsWith("/v2/")) return new Response("404 page not found", { status: 404 });
    return await fetch(`${etcd.any.endpoint}${pathname}${search}`, {
      method: request.method,
      headers: request.headers,
      ...(request.body === null ? {} : { body: await request.text() }),
    });
  });
  using front = new Http1Only(old.addr.port);
  await using opened = await open([front.endpoint]);
  assert.equal(await opened.config.read({ signal }), CONFIG);
  assert.equal(opened.keys.api, "v2");
  await using v3 = await open([front.endpoint], { api: "v3" });
  await rejectsWith(v3.config.read({ signal }), "unavailable", /the v3 API is not served there$/);
});

/** Refuses HTTP/2 as a server that has never heard of it: Deno's own would accept it. */
class Http1Only implements Disposable {
  readonly #relay: Relay;
  readonly #listener: Deno.TcpListener;

  constructor(port: number) {
    this.#relay = new Relay(port);
    this.#listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    this.#serve();
  }

  get endpoint(): string {
    return `http://127.0.0.1:${this.#listener.addr.port}`;
  }

  [Symbol.dispose](): void {
    this.#listener.close();
    this.#relay[Symbol.dispose]();
  }

  async #serve(): Promise<void> {
    try {
      for await (const local of this.#listener) this.#join(local).catch(() => {});
    } catch { /* closed */ }
  }

  async #join(local: Deno.TcpConn): Promise<void> {
    using _local = { [Symbol.dispose]: () => close(local) };
    const buffer = new Uint8Array(65536);
    const first = buffer.slice(0, await local.read(buffer) ?? 0);
    if (new TextDecoder().decode(first).startsWith("PRI * HTTP/2.0")) {
      const refusal = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
      await local.write(new TextEncoder().encode(refusal));
      return;
    }
    const { hostname, port } = new URL(this.#relay.endpoint);
    using remote = await Deno.connect({ hostname, port: Number(port) });
    await remote.write(first);
    await Promise.race([
      local.readable.pipeTo(remote.writable),
      remote.readable.pipeTo(local.writable),
    ]);
  }
}

function close(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch { /* It is closed already. */ }
}

Deno.test("writeCommand() is right for either API, and for any prefix", async () => {
  const cases = [
    ["v3", "/a", "etcdctl put /a/x/y 01ab"],
    ["auto", "/a//b/", "etcdctl put /a/b/x/y 01ab"],
    ["v3", "/", "etcdctl put /x/y 01ab"],
    ["v3", "a b", "etcdctl put 'a b/x/y' 01ab"],
    ["v2", "a", "ETCDCTL_API=2 etcdctl set /a/x/y 01ab"],
  ] as const;
  for (const [api, prefix, command] of cases) {
    await using opened = await open(["http://127.0.0.1:1"], { api, prefix });
    assert.equal(opened.keys.writeCommand("x/y", "01ab"), command);
  }
});

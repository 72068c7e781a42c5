/** The CNI config that the daemon writes: its text, whose it is, and what it needs. */
import assert from "node:assert/strict";
import { diff } from "../../tests/support/diff.ts";
import { missingPlugins, openConflistTable, removeConflist, renderConflist } from "./conflist.ts";

const ENV =
  "FLANNEL_NETWORK=10.5.0.0/16\nFLANNEL_SUBNET=10.5.72.1/24\nFLANNEL_IPV6_NETWORK=fd00:5::/48\n" +
  "FLANNEL_IPV6_SUBNET=fd00:5:0:7::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=false\n";
const { signal } = new AbortController();

Deno.test("renderConflist() has bridge and portmap as upstream's manifest configures them", () => {
  assert.deepEqual(JSON.parse(renderConflist(ENV)), {
    name: "cbr0",
    cniVersion: "0.3.1",
    managedBy: "flanneld",
    plugins: [{
      type: "bridge",
      ipMasq: true,
      mtu: 1450,
      isGateway: true,
      hairpinMode: true,
      isDefaultGateway: true,
      ipam: {
        type: "host-local",
        ranges: [[{ subnet: "10.5.72.0/24" }], [{ subnet: "fd00:5:0:7::/64" }]],
        routes: [{ dst: "10.5.0.0/16" }, { dst: "fd00:5::/48" }],
      },
    }, { type: "portmap", capabilities: { portMappings: true } }],
  });
});

Deno.test("the CNI config file is written, follows changes, and is never somebody else's", async () => {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-conflist-" });
  try {
    const path = `${directory}/net.d/10-flannel.conflist`;
    const table = openConflistTable(path);
    const round = async (env: string) => {
      const desired = [{ path, text: renderConflist(env) }];
      const found = diff(table.kind, desired, await table.list({ signal }));
      assert.deepEqual(await table.apply([...found.writes, ...found.removals], { signal }), []);
      return [found.writes.length, found.conflicts.length];
    };
    assert.deepEqual(await round(ENV), [1, 0]);
    assert.deepEqual(await round(ENV), [0, 0]);
    assert.deepEqual(await round(ENV.replace("1450", "1400")), [1, 0]);
    assert.match(await Deno.readTextFile(path), /"mtu": 1400/);
    await Deno.writeTextFile(path, `{"name":"mine"}`);
    assert.deepEqual(await round(ENV), [0, 1]);
    assert.equal(await removeConflist(path), false);
    assert.equal(await Deno.readTextFile(path), `{"name":"mine"}`);
    await Deno.remove(path);
    assert.deepEqual(await round(ENV), [1, 0]);
    assert.equal(await removeConflist(path), true);
    assert.equal(await removeConflist(path), false);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("missingPlugins() names those that no directory has", async () => {
  const directory = await Deno.makeTempDir({ prefix: "flanneld-conflist-" });
  try {
    for (const name of ["bridge", "loopback"]) await Deno.writeTextFile(`${directory}/${name}`, "");
    assert.deepEqual(await missingPlugins(["/nowhere", directory]), ["host-local", "portmap"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { isBridgeFiltering, isForwarding, readSysctl } from "./sysctl.ts";

Deno.test("reads kernel parameters, and tells one that is missing", async () => {
  const root = await Deno.makeTempDir();
  try {
    for (
      const [path, text] of [
        ["net/ipv4/ip_forward", "1\n"],
        ["net/ipv6/conf/all/forwarding", "0\n"],
        ["net/bridge/bridge-nf-call-iptables", "1\n"],
      ] as const
    ) {
      await Deno.mkdir(join(root, path, ".."), { recursive: true });
      await Deno.writeTextFile(join(root, path), text);
    }
    assert.equal(await readSysctl("net.ipv4.ip_forward", { root }), "1");
    assert.equal(await isForwarding(4, { root }), true);
    assert.equal(await isForwarding(6, { root }), false);
    assert.equal(await isBridgeFiltering(4, { root }), true);
    assert.equal(await isBridgeFiltering(6, { root }), undefined);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

import assert from "node:assert/strict";
import { join } from "node:path";
import { isForwarding, readSysctl } from "./sysctl.ts";

Deno.test("reads kernel parameters, and tells one that is missing", async () => {
  const root = await Deno.makeTempDir();
  try {
    for (
      const [path, text] of [
        ["net/ipv4/ip_forward", "1\n"],
        ["net/ipv6/conf/all/forwarding", "0\n"],
      ] as const
    ) {
      await Deno.mkdir(join(root, path, ".."), { recursive: true });
      await Deno.writeTextFile(join(root, path), text);
    }
    assert.equal(readSysctl("net.ipv4.ip_forward", { root }), "1");
    assert.equal(readSysctl("net.ipv4.ip_forwarding", { root }), undefined);
    assert.equal(isForwarding(4, { root }), true);
    assert.equal(isForwarding(6, { root }), false);
    await Deno.remove(join(root, "net/ipv6"), { recursive: true });
    assert.equal(isForwarding(6, { root }), undefined);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

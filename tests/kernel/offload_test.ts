import assert from "node:assert/strict";
import { skippable } from "../prerequisites.ts";
import { createOffloadTable } from "../../src/kernel/offload_table.ts";
import { diff } from "../support/diff.ts";
import { createTestNamespace, namespaceObstacle } from "./namespace.ts";

const obstacle = namespaceObstacle(["ethtool"]);

Deno.test(
  skippable("offload Table turns a link's checksums off and on", obstacle),
  { ignore: obstacle !== undefined },
  async () => {
    const { signal } = new AbortController();
    await using namespace = await createTestNamespace();
    await namespace.run("ip", "link", "add", "eth0", "type", "bridge");
    await namespace.run(
      ...["ip", "link", "add", "flannel.1", "type", "vxlan", "id", "1"] as const,
      ...["dev", "eth0", "dstport", "8472"],
    );
    const table = createOffloadTable({
      links: () => ["flannel.1", "flannel.2"],
      namespace: namespace.path,
    });
    const shown = async () => {
      const features = await namespace.run("ethtool", "-k", "flannel.1");
      return /^tx-checksumming: (\w+)$/m.exec(features)?.[1];
    };
    for (const on of [false, true, false]) {
      const desired = [{ link: "flannel.1", txChecksum: on }];
      const round = async () => {
        const { writes, removals } = diff(table.kind, desired, await table.list({ signal }));
        assert.deepEqual(removals, []);
        assert.deepEqual(await table.apply(writes, { signal }), []);
        return writes.length;
      };
      assert.equal(await round(), 1);
      assert.equal(await shown(), on ? "on" : "off");
      assert.equal(await round(), 0);
      // Somebody else changes it.
      await namespace.run("ethtool", "-K", "flannel.1", "tx", on ? "off" : "on");
      assert.equal(await round(), 1);
      assert.equal(await shown(), on ? "on" : "off");
    }
    const [failed] = await table.apply([
      { op: "add", desired: { link: "flannel.2", txChecksum: false } },
    ], { signal });
    assert.match(String(failed?.error.cause), /no such device/);
  },
);

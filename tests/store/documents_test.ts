import assert from "node:assert/strict";
import { parseNetworkConfig } from "../../src/config/network_config.ts";
import { SHELL_BLOCKS } from "../shell_blocks.ts";
import { firstCommand, readDocument } from "../support/documents.ts";
import { EtcdServers } from "../support/etcd_process.ts";
import { etcdTest } from "./support.ts";

const signal = AbortSignal.timeout(60_000);
const THIS_FILE = "tests/store/documents_test.ts";
const CONFIG = '{"Network":"10.24.0.0/16","Backend":{"Type":"ali-vpc"}}';

etcdTest("docs/operations.md's backup of etcd is enough to restore from", async () => {
  const name = "docs/operations.md";
  const blocks = readDocument(name).blocks.map(({ text }) => text)
    .filter((text) => SHELL_BLOCKS[`${name}: ${firstCommand(text)}`]?.run === THIS_FILE);
  const [seeLeader, backUp, restoreId] = blocks;
  assert.ok(seeLeader && backUp && restoreId && blocks.length === 3);
  const folder = await Deno.makeTempDir();
  try {
    {
      await using etcd = await EtcdServers.start({ signal });
      const [server] = etcd.members;
      const put = (key: string, value: string) =>
        server!.ctl(["put", `/coreos.com/network/${key}`, value], { signal });
      await put("config", CONFIG);
      await put("ali-vpc/cluster", "c0ffee0123456789");
      await put("ali-vpc/election/writer", "i-leader");
      assert.match(await shell(seeLeader, server!.endpoint, folder), /i-leader/);
      await shell(backUp, server!.endpoint, folder);
    }
    await using etcd = await EtcdServers.start({ signal });
    const [server] = etcd.members;
    await shell(restoreId, server!.endpoint, folder);
    const id = await server!.ctl(
      ["get", "--print-value-only", "/coreos.com/network/ali-vpc/cluster"],
      { signal },
    );
    assert.equal(id.trim(), "c0ffee0123456789");
    const saved = await Deno.readTextFile(`${folder}/flannel-config.json`);
    assert.deepEqual(parseNetworkConfig(saved), parseNetworkConfig(CONFIG));
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** What `commands`, with this etcd in place of the example's, print. */
async function shell(commands: string, endpoint: string, cwd: string): Promise<string> {
  const here = commands.replaceAll("http://10.0.0.5:2379", endpoint);
  const { success, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-euc", here],
    cwd,
    signal,
  }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}

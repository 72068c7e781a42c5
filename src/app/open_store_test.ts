import assert from "node:assert/strict";
import { parseCommandLine } from "../cli/parse.ts";
import { createLogger } from "../log.ts";
import { etcdOptions } from "./open_store.ts";

Deno.test("etcdOptions() asks the ports that were written", () => {
  const command = parseCommandLine([
    "--etcd-endpoints=http://a:80,https://b:443,https://c:80,http://d:443,[fd00::5]:80,10.0.0.5",
    "--etcd-prefix=/",
  ], {});
  assert(command.action === "run");
  const log = createLogger({ format: "human", verbosity: 0 });
  const { endpoints, prefix } = etcdOptions(command.options, log);
  assert.deepEqual(endpoints, [
    "http://a:80",
    "https://b:443",
    "https://c:80",
    "http://d:443",
    "http://[fd00::5]:80",
    "http://10.0.0.5:2379",
  ]);
  assert.equal(prefix, "/");
});

import assert from "node:assert/strict";
import { run } from "../support/run.ts";
import { etcdTest } from "./support.ts";

const { signal } = new AbortController();

etcdTest("etcd v3 and v2: a name with dead IPv6 addresses is reached at its IPv4 one", async () => {
  const subject = `${import.meta.dirname}/dead_address_subject.ts`;
  const output = await run("unshare", [
    ...["--net", "--mount", Deno.execPath(), "run", "--no-check", "-A", subject],
  ], { signal });
  const { tookMs, sockets } = JSON.parse(output.trim().split("\n").at(-1)!);
  for (const each of tookMs) assert(each < 8_000, `took ${each} ms`);
  // What was tried in vain is given up; fetch keeps one connection for later.
  assert(sockets <= 2, `${sockets} sockets are left`);
}, { needs: ["ip"] });

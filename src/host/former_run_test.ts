import assert from "node:assert/strict";
import { readFormerRun } from "./former_run.ts";
import { recordLog } from "../../tests/support/log.ts";

Deno.test("readFormerRun() asks again where the file cannot be read for a moment", async () => {
  const { lines, log } = recordLog();
  const { signal } = new AbortController();
  const text = "FLANNEL_NETWORK=10.24.0.0/16\nFLANNEL_SUBNET=10.24.7.1/24\n";
  for (
    const [failures, reason, subnet] of [
      [0, "", "10.24.7.0/24"],
      [3, "Too many open files (os error 24)", "10.24.7.0/24"],
      [1, "Input/output error (os error 5)", "10.24.7.0/24"],
      [Infinity, "Input/output error (os error 5)", undefined],
      [1, "Is a directory (os error 21)", undefined],
    ] as const
  ) {
    let left: number = failures;
    lines.length = 0;
    const read = () => left-- > 0 ? Promise.reject(new Error(reason)) : Promise.resolve(text);
    const former = await readFormerRun("subnet.env", { log, signal, read });
    assert.equal(former.subnet?.ipv4?.toString(), subnet, reason);
    assert.equal(former.networks.length, subnet ? 1 : 0);
    assert.equal(lines.length, subnet ? 0 : 1);
  }
});

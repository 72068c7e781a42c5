import assert from "node:assert/strict";
import { decideChecksumOffload } from "./underlay_runtime.ts";

Deno.test("decideChecksumOffload() turns it off only where the kernel spoils checksums", () => {
  for (
    const [release, expected] of [
      ["4.19.0-27-amd64", false],
      ["5.4.0-1", false],
      ["5.6.19", false],
      ["5.7.0-rc1", undefined],
      ["5.10.0-35-cloud-amd64", undefined],
      ["6.1.0", undefined],
      ["10.0.1", undefined],
      ["", undefined],
      ["mine", undefined],
    ] as const
  ) {
    assert.equal(decideChecksumOffload("auto", release), expected, release);
    assert.equal(decideChecksumOffload("on", release), true);
    assert.equal(decideChecksumOffload("off", release), false);
  }
});

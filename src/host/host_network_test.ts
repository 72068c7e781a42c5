import assert from "node:assert/strict";
import { LibraryNotFoundError } from "../../ffi/shared_library.ts";
import { OperatorError } from "../errors.ts";
import type { Netlink } from "../kernel/netlink.ts";
import { openHostKernel } from "./host_network.ts";
import { SILENT } from "../../tests/support/log.ts";

Deno.test({
  name: "openHostKernel() waits out what keeps netlink from opening for a moment",
  sanitizeResources: false, // libnl is loaded for good
  fn: checkOpening,
});

async function checkOpening(): Promise<void> {
  const log = SILENT;
  const { signal } = new AbortController();
  const netlink = {} as Netlink;
  const openAfter = (failures: number, error: Error) => {
    let left = failures;
    return openHostKernel({
      log,
      signal,
      open() {
        if (left-- > 0) throw error;
        return netlink;
      },
    });
  };
  const missing = new LibraryNotFoundError("Cannot load libnl-3.so.200: install …");
  const starved = new LibraryNotFoundError("Cannot load libnl-3.so.200: install …", {
    cause: new Error("libnl-3.so.200: cannot open shared object file: Too many open files"),
  });
  assert.equal(await openAfter(2, new Error("nl_connect: Unspecific failure")), netlink);
  assert.equal(await openAfter(2, starved), netlink);
  await assert.rejects(openAfter(1, missing), OperatorError);
  await assert.rejects(openAfter(Infinity, new Error("EIO")), /^Error: EIO$/);
}

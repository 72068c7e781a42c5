import assert from "node:assert/strict";
import { NetlinkError } from "../../ffi/libnl/errors.ts";
import { Address, MacAddress } from "../net/mod.ts";
import type { Change } from "../reconcile/table.ts";
import { applyChanges, GONE, resolving, type Step } from "./apply_changes.ts";
import type { Netlink, NetlinkRequest } from "./netlink.ts";

const { signal } = new AbortController();
const mac = MacAddress.parse("02:00:00:00:00:01");

/** A kernel that answers each request with what `answer` says. */
function kernel(answer: (linkIndex: number) => Error | undefined) {
  const requests: NetlinkRequest[] = [];
  const netlink: Pick<Netlink, "change"> = {
    change(list) {
      requests.push(...list);
      return Promise.resolve(
        list.map(({ value }) => answer((value as { linkIndex: number }).linkIndex)),
      );
    },
  };
  return { netlink: netlink as Netlink, requests };
}

const remove = (linkIndex: number): Step => ({
  request: {
    verb: "remove",
    noun: "neighbor",
    value: { linkIndex, address: Address.parse("192.0.2.1"), mac },
  },
  accept: GONE,
});

const removal = (actual: number): Change<number> => ({ op: "remove", actual });

Deno.test("applyChanges() fails a change by its plan or its first failing step, and no other", async () => {
  const { netlink, requests } = kernel((n) =>
    n === 3 ? new NetlinkError("Cannot", 1) : n === 4 ? new NetlinkError("Cannot", 3) : undefined
  );
  const failed = await applyChanges(
    netlink,
    [1, 2, 3, 4, 5].map(removal),
    (change) => {
      const n = change.op === "remove" ? change.actual : 0;
      if (n === 2) resolving(() => "remove 2", () => assert.fail("there is no link"));
      return [remove(n), remove(n)];
    },
    { signal },
  );
  assert.deepEqual(
    failed.map(({ change, error }) => [change, error.message.split(":")[0]]),
    [[removal(2), "Cannot remove 2"], [removal(3), "Cannot"]],
    "ESRCH of 4 is as good as success",
  );
  assert.equal(requests.length, 8);
});

Deno.test("applyChanges() lets other work in while it plans thousands of changes", async () => {
  const { netlink, requests } = kernel(() => undefined);
  let turns = 0;
  const timer = setInterval(() => turns++, 0);
  try {
    const changes = Array.from({ length: 3_000 }, (_, n) => removal(n));
    await applyChanges(netlink, changes, (change) => {
      const end = performance.now() + 0.01;
      while (performance.now() < end);
      return [remove(change.op === "remove" ? change.actual : 0)];
    }, { signal });
  } finally {
    clearInterval(timer);
  }
  assert.ok(turns > 0);
  assert.equal(requests.length, 3_000);
});

import assert from "node:assert/strict";
import { judgeLeftOut } from "./left_out.ts";

const skip = (...keys: string[]) =>
  keys.map((key) => ({ key, code: "peer-address" as const, reason: `${key} is odd` }));

Deno.test("judgeLeftOut() lets nobody count as ready who reaches no other host", () => {
  const one = { peers: 3, families: 1 };
  assert.deepEqual(judgeLeftOut([], one), {});
  assert.deepEqual(judgeLeftOut(skip("a"), one), {
    remark: "1 of 3 peers is left out, such as a: a is odd",
  });
  assert.deepEqual(judgeLeftOut(skip("a", "b", "c"), one), {
    fault: "all 3 other hosts are left out, such as a: a is odd",
  });
  assert.deepEqual(judgeLeftOut(skip("a"), { peers: 1, families: 1 }), {
    fault: "the only other host is left out: a: a is odd",
  });
});

Deno.test("judgeLeftOut() counts a peer as reached that is so in one family of two", () => {
  const two = { peers: 2, families: 2 };
  assert.deepEqual(judgeLeftOut(skip("a", "b"), two), {
    remark: "2 of 2 peers are reached in one family only, such as a: a is odd",
  });
  assert.deepEqual(judgeLeftOut(skip("a", "b", "b"), two), {
    remark: "1 of 2 peers is left out, such as b: b is odd",
  });
  assert.deepEqual(judgeLeftOut(skip("a", "b", "b", "a"), two), {
    fault: "all 2 other hosts are left out, such as a: a is odd",
  });
});

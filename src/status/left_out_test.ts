import assert from "node:assert/strict";
import type { SkippedPeer } from "../state/mod.ts";
import { judgeLeftOut } from "./left_out.ts";
import type { Finding } from "./model.ts";

const skip = (...keys: string[]): SkippedPeer[] =>
  keys.map((key) => ({ key, code: "peer-address", reason: `${key} is odd` }));

function judge(
  skipped: readonly SkippedPeer[],
  { peers, families = 1 }: { peers: number; families?: number },
): string {
  let verdict = "";
  const say = (state: string) => (...[found]: readonly Finding[]) =>
    verdict = `${state}: ${found?.message ?? ""}`;
  const condition = {
    met: (problems: readonly Finding[] = []) => void say("met")(...problems),
    unmet: (...problems: readonly Finding[]) => void say("unmet")(...problems),
  };
  judgeLeftOut(condition, skipped, { peers, families });
  return verdict;
}

Deno.test("judgeLeftOut() lets nobody count as ready who reaches no other host", () => {
  assert.equal(judge([], { peers: 3 }), "met: ");
  assert.equal(
    judge(skip("a"), { peers: 3 }),
    "met: 1 of 3 peers is left out, such as a: a is odd",
  );
  assert.equal(
    judge(skip("a", "b", "c"), { peers: 3 }),
    "unmet: all 3 other hosts are left out, such as a: a is odd",
  );
  assert.equal(
    judge(skip("a"), { peers: 1 }),
    "unmet: the only other host is left out: a: a is odd",
  );
});

Deno.test("judgeLeftOut() counts a peer as reached that is so in one family of two", () => {
  const two = { peers: 2, families: 2 };
  assert.equal(
    judge(skip("a", "b"), two),
    "met: 2 of 2 peers are reached in one family only, such as a: a is odd",
  );
  assert.equal(
    judge(skip("a", "b", "b"), two),
    "met: 1 of 2 peers is left out, such as b: b is odd",
  );
  assert.equal(
    judge(skip("a", "b", "b", "a"), two),
    "unmet: all 2 other hosts are left out, such as a: a is odd",
  );
});

import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import { Orphans } from "./orphans.ts";

const A = { routeTableId: "vtb-1", destination: Prefix.parse("10.24.1.0/24") };
const B = { routeTableId: "vtb-1", destination: Prefix.parse("10.24.2.0/24") };
const C = { routeTableId: "vtb-2", destination: Prefix.parse("10.24.1.0/24") };

/** A book with both clocks in hand. */
function book(start = { now: 5_000, wall: 1_700_000_000_000 }) {
  const clock = { ...start };
  const orphans = new Orphans({
    graceMs: 600_000,
    now: () => clock.now,
    wallNow: () => clock.wall,
  });
  const pass = (ms: number) => {
    clock.now += ms;
    clock.wall += ms;
  };
  return { clock, orphans, pass };
}

Deno.test("Orphans.isDue() holds from the end of the grace on", () => {
  const { orphans, pass } = book();
  assert(!orphans.isDue(A), "unheard of");
  orphans.note("vtb-1", [A.destination]);
  pass(599_999);
  orphans.note("vtb-1", [A.destination]);
  assert(!orphans.isDue(A));
  pass(1);
  assert(orphans.isDue(A));
  assert(!orphans.isDue(C), "the same destination in another table");
});

Deno.test("Orphans.note() is the whole truth of one table, and time begins anew", () => {
  const { orphans, pass } = book();
  orphans.note("vtb-1", [A.destination, B.destination]);
  orphans.note("vtb-2", [C.destination]);
  pass(600_000);
  orphans.note("vtb-1", [B.destination]);
  assert(!orphans.isDue(A));
  assert(orphans.isDue(B) && orphans.isDue(C));
  orphans.note("vtb-1", [A.destination, B.destination]);
  assert(!orphans.isDue(A));
  orphans.drop(({ routeTableId }) => routeTableId === "vtb-2");
  assert(!orphans.isDue(C));
});

Deno.test("Orphans.list() says the same until a clock is set", () => {
  const { clock, orphans, pass } = book();
  orphans.note("vtb-1", [A.destination]);
  const said = orphans.list();
  for (const apartMs of [0.6, -1.4, 1.3]) {
    pass(60_000);
    clock.now += apartMs;
    assert.deepEqual(orphans.list(), said);
  }
  clock.wall += 3_600_000;
  assert.notDeepEqual(orphans.list(), said);
});

Deno.test("Orphans.seed() goes on where a former writer was, whatever the clocks do", () => {
  const former = book();
  former.orphans.note("vtb-1", [A.destination]);
  former.pass(500_000);
  former.orphans.note("vtb-1", [A.destination, B.destination]);
  const handed = former.orphans.list();
  assert.deepEqual(handed.map(({ sinceMs }) => sinceMs), [1_700_000_000_000, 1_700_000_500_000]);

  const next = book({ now: 77, wall: former.clock.wall + 1_000 });
  next.orphans.seed(handed);
  next.orphans.seed([{ ...A, sinceMs: next.clock.wall }]);
  assert.deepEqual(next.orphans.list(), handed, "the earlier one counts");
  next.pass(98_999);
  assert(!next.orphans.isDue(A));
  next.pass(1);
  assert(next.orphans.isDue(A) && !next.orphans.isDue(B));

  const behind = book({ now: 0, wall: 1_600_000_000_000 });
  behind.orphans.seed(handed);
  behind.clock.wall += 10 * 365 * 86_400_000;
  assert(!behind.orphans.isDue(A), "a step of the wall clock ends no grace");
  behind.pass(600_000);
  assert(behind.orphans.isDue(A), "and a clock that was behind does not make it endless");
});

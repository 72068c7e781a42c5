import assert from "node:assert/strict";
import { Prefix } from "../../net/mod.ts";
import { Orphans } from "./orphans.ts";

const A = {
  routeTableId: "vtb-1",
  destination: Prefix.parse("10.24.1.0/24"),
  instanceId: "i-a",
};
const B = { ...A, destination: Prefix.parse("10.24.2.0/24") };
const C = { ...A, routeTableId: "vtb-2" };

/** A book with its clock in hand. */
function book(start = 5_000) {
  const clock = { now: start };
  const orphans = new Orphans({ graceMs: 600_000, now: () => clock.now });
  const pass = (ms: number) => clock.now += ms;
  return { orphans, pass };
}

Deno.test("Orphans.isDue() holds from the end of the grace on", () => {
  const { orphans, pass } = book();
  assert(!orphans.isDue(A), "unheard of");
  orphans.note("vtb-1", [A]);
  pass(599_999);
  orphans.note("vtb-1", [A]);
  assert(!orphans.isDue(A));
  pass(1);
  assert(orphans.isDue(A));
  assert(!orphans.isDue(C), "the same destination in another table");
  assert(!orphans.isDue({ ...A, instanceId: "i-b" }), "led elsewhere");
  orphans.note("vtb-1", [{ ...A, instanceId: "i-b" }]);
  assert(!orphans.isDue({ ...A, instanceId: "i-b" }), "which begins its time anew");
});

Deno.test("Orphans.note() is the whole truth of one table, and time begins anew", () => {
  const { orphans, pass } = book();
  orphans.note("vtb-1", [A, B]);
  orphans.note("vtb-2", [C]);
  pass(600_000);
  orphans.note("vtb-1", [B]);
  assert(!orphans.isDue(A));
  assert(orphans.isDue(B) && orphans.isDue(C));
  orphans.note("vtb-1", [A, B]);
  assert(!orphans.isDue(A));
  orphans.drop(({ routeTableId }) => routeTableId === "vtb-2");
  assert(!orphans.isDue(C));
});

Deno.test("Orphans.list() changes a few times within a grace, and not after it", () => {
  const { orphans, pass } = book();
  orphans.note("vtb-1", [A]);
  const ages = new Set<number>();
  for (let n = 0; n < 1_000; n++) {
    ages.add(orphans.list()[0]!.ageMs);
    pass(7_000);
  }
  assert.deepEqual([...ages], [0, 150_000, 300_000, 450_000, 600_000]);
});

Deno.test("Orphans.seed() goes on with the time that a former writer has watched, and no other", () => {
  const former = book();
  former.orphans.note("vtb-1", [A]);
  former.pass(500_000);
  former.orphans.note("vtb-1", [A, B]);
  const handed = former.orphans.list();
  assert.deepEqual(handed.map(({ ageMs }) => ageMs), [450_000, 0]);

  const next = book(77);
  next.orphans.seed(handed);
  // However long nobody watched.
  next.pass(86_400_000);
  next.orphans.note("vtb-1", [A, B]);
  assert.deepEqual(next.orphans.list(), handed);
  next.pass(149_999);
  assert(!next.orphans.isDue(A));
  next.pass(1);
  assert(next.orphans.isDue(A) && !next.orphans.isDue(B));
});

Deno.test("Orphans.seed() believes no age that cannot be, and none of another entry", () => {
  for (const ageMs of [NaN, -Infinity, -1]) {
    const { orphans } = book();
    orphans.seed([{ ...A, ageMs }]);
    orphans.note("vtb-1", [A]);
    assert.equal(orphans.list()[0]!.ageMs, 0);
  }
  const { orphans } = book();
  orphans.seed([{ ...A, instanceId: "i-b", ageMs: 600_000 }]);
  const { instanceId: _, ...unnamed } = B;
  orphans.seed([{ ...unnamed, ageMs: 600_000 }]);
  orphans.note("vtb-1", [A, B]);
  assert(!orphans.isDue(A) && !orphans.isDue(B));
});

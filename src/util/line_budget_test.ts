import assert from "node:assert/strict";
import { LineBudget } from "./line_budget.ts";

Deno.test("LineBudget lets so many lines pass in any stretch of its window, and tells the last", () => {
  let time = 0;
  const budget = new LineBudget({ lines: 3, windowMs: 1_000, now: () => time });
  const take = (at: number) => (time = at, budget.take());
  assert.deepEqual([0, 100, 200, 300, 999].map(take), ["yes", "yes", "last", "no", "no"]);
  assert.deepEqual([1_000, 1_050, 1_100].map(take), ["last", "no", "last"]);
  assert.deepEqual([9_000, 9_000].map(take), ["yes", "yes"]);
});

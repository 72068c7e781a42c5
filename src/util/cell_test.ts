import assert from "node:assert/strict";
import { Cell, sameItems } from "./cell.ts";

Deno.test("a cell tells its listeners of changes, in order, with the value before", () => {
  const cell = new Cell(1);
  const seen: string[] = [];
  cell.subscribe((value, before) => seen.push(`first ${before} ${value}`));
  cell.subscribe((value, before) => seen.push(`second ${before} ${value}`));
  assert.deepEqual(seen, []);
  assert.equal(cell.set(2), true);
  assert.equal(cell.value, 2);
  assert.deepEqual(seen, ["first 1 2", "second 1 2"]);
});

Deno.test("a cell keeps its value for one that equals it, and tells nobody", () => {
  const first = { id: 1 };
  const cell = new Cell(first, (a, b) => a.id === b.id);
  cell.subscribe(() => assert.fail("no change"));
  assert.equal(cell.set({ id: 1 }), false);
  assert.equal(cell.value, first);
});

Deno.test("a subscription ends when disposed, also by a listener before it", () => {
  const cell = new Cell(0);
  const seen: number[] = [];
  const first = cell.subscribe(() => second[Symbol.dispose]());
  const second = cell.subscribe((value) => seen.push(value));
  cell.set(1);
  assert.deepEqual(seen, []);
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  cell.set(2);
  assert.deepEqual(seen, []);
});

Deno.test("one function may be subscribed twice, and each subscription ends alone", () => {
  const cell = new Cell(0);
  const seen: number[] = [];
  const listener = (value: number) => seen.push(value);
  const first = cell.subscribe(listener);
  cell.subscribe(listener);
  cell.set(1);
  first[Symbol.dispose]();
  cell.set(2);
  assert.deepEqual(seen, [1, 1, 2]);
});

Deno.test("a listener that sets the cell leaves everybody with the last value", () => {
  const cell = new Cell(0);
  const seen: number[] = [];
  cell.subscribe((value) => void (value === 1 && cell.set(2)));
  cell.subscribe((value) => seen.push(value));
  cell.set(1);
  assert.equal(cell.value, 2);
  assert.deepEqual(seen, [2]);
});

Deno.test("arrays have the same items in the same order", () => {
  assert.ok(sameItems([], []));
  assert.ok(sameItems([1, 2], [1, 2]));
  assert.ok(!sameItems([1, 2], [2, 1]));
  assert.ok(!sameItems([1], [1, 1]));
  assert.ok(sameItems(["a"], ["A"], (a, b) => a.toLowerCase() === b.toLowerCase()));
});

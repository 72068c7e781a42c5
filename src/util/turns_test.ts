import assert from "node:assert/strict";
import { Turns } from "./turns.ts";

const { signal } = new AbortController();

Deno.test("Turns lets one at a time in, in order", async () => {
  const turns = new Turns();
  const happened: string[] = [];
  assert(!turns.taken);
  const one = async (name: string) => {
    using _turn = await turns.take({ signal });
    happened.push(`${name} begins`);
    await new Promise((resolve) => setTimeout(resolve, 1));
    happened.push(`${name} ends`);
  };
  const all = ["a", "b", "c"].map(one);
  assert(turns.taken);
  await Promise.all(all);
  assert.deepEqual(happened, ["a", "b", "c"].flatMap((name) => [`${name} begins`, `${name} ends`]));
  assert(!turns.taken);
});

Deno.test("Turns lets others pass one who gave up waiting", async () => {
  const turns = new Turns();
  const first = await turns.take({ signal });
  const impatient = new AbortController();
  const second = turns.take(impatient);
  const third = turns.take({ signal });
  impatient.abort(new Error("enough"));
  await assert.rejects(second, /enough/);
  let reached = false;
  third.then(() => reached = true);
  await new Promise((resolve) => setTimeout(resolve, 1));
  assert(!reached, "the first still has it");
  first[Symbol.dispose]();
  first[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  assert(!turns.taken, "giving back twice counts once");
  await assert.rejects(turns.take({ signal: AbortSignal.abort(new Error("late")) }), /late/);
  assert(!turns.taken);
});

Deno.test("Turns lets as many at once as it is told, and passes over who has given up", async () => {
  const turns = new Turns(2);
  const [first, _second] = [await turns.take({ signal }), await turns.take({ signal })];
  const impatient = new AbortController();
  const given = turns.take(impatient);
  const order: string[] = [];
  const third = turns.take({ signal }).then((turn) => {
    order.push("third");
    return turn;
  });
  assert.equal(turns.taken, true);
  impatient.abort(new Error("no more"));
  await assert.rejects(given, /no more/);
  assert.deepEqual(order, []);
  first[Symbol.dispose]();
  (await third)[Symbol.dispose]();
  assert.deepEqual(order, ["third"]);
  assert.equal(turns.taken, false);
});

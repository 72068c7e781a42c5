import assert from "node:assert/strict";
import { Silence } from "./silence.ts";

Deno.test("Silence counts from the first to the last call without an answer", () => {
  let now = 1_000;
  const silence = new Silence(() => now);
  assert.equal(silence.ms, 0);
  silence.unanswered();
  now += 60_000;
  assert.equal(silence.ms, 0, "nobody has called since");
  silence.unanswered();
  assert.equal(silence.ms, 60_000);
  silence.over();
  assert.equal(silence.ms, 0);
  silence.unanswered();
  assert.equal(silence.ms, 0);
});

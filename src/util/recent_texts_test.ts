import assert from "node:assert/strict";
import { RecentTexts } from "./recent_texts.ts";

Deno.test("RecentTexts takes for news what did not come of late", () => {
  let time = 0;
  const recent = new RecentTexts({ forMs: 1_000, now: () => time });
  assert.equal(recent.isNews("No answer [request 1]"), true);
  assert.equal(recent.isNews("No answer [request 2]"), false);
  assert.equal(recent.isNews("refused"), true);
  for (let n = 0; n < 5; n++) {
    time += 900;
    assert.equal(recent.isNews("No answer [request 3]"), false, "it lasts");
  }
  assert.equal(recent.isNews("refused"), true, "it was away");
  time += 1_001;
  assert.equal(recent.isNews("No answer [request 4]"), true);
});

Deno.test("RecentTexts remembers a limited number of texts", () => {
  const recent = new RecentTexts({ limit: 3 });
  for (const text of ["a", "b", "c", "d"]) assert.equal(recent.isNews(text), true);
  assert.equal(recent.isNews("d"), false);
  assert.equal(recent.isNews("a"), true);
});

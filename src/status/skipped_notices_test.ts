import assert from "node:assert/strict";
import { createLogger } from "../log.ts";
import { SkippedNotices } from "./skipped_notices.ts";

function setUp(options: { now?: () => number } = {}) {
  const lines: string[] = [];
  const log = createLogger({
    format: "human",
    verbosity: 0,
    write: (line) => void lines.push(line.replace(/^\S+ +/, "")),
  });
  const notices = new SkippedNotices(log, {
    one: "Skipping an entry",
    more: "more entries are skipped",
    none: "No entry is skipped any more",
  }, options);
  return { lines, notices };
}

Deno.test("SkippedNotices says each reason once, and when nothing is skipped any more", () => {
  const { lines, notices } = setUp();
  notices.update([]);
  const junk = { key: "junk", reason: "it is no lease" };
  notices.update([junk]);
  notices.update([junk]);
  notices.update([junk, { key: "other", reason: "it overlaps" }]);
  notices.update([{ ...junk, reason: "it is outside the network" }]);
  notices.update([]);
  notices.update([]);
  assert.deepEqual(lines, [
    "WARN  Skipping an entry: it is no lease key=junk",
    "WARN  Skipping an entry: it overlaps key=other",
    "WARN  Skipping an entry: it is outside the network key=junk",
    "INFO  No entry is skipped any more",
  ]);
});

Deno.test("SkippedNotices names and lists some of very many, and counts them all", () => {
  const { lines, notices } = setUp();
  notices.update(Array.from({ length: 1_000 }, (_, n) => ({ key: `k${n}`, reason: "junk" })));
  assert.equal(lines.length, 11);
  assert.equal(lines.at(-1), "WARN  and 990 more entries are skipped");
  const { count, reasons } = notices.list();
  assert.equal(count, 1_000);
  assert.equal(Object.keys(reasons).length, 100);
});

Deno.test("SkippedNotices tells several reasons of one key together", () => {
  const { lines, notices } = setUp();
  notices.update([{ key: "a", reason: "no address" }, { key: "a", reason: "no MAC" }]);
  assert.deepEqual(lines, ["WARN  Skipping an entry: no address; no MAC key=a"]);
});

Deno.test("SkippedNotices does not follow a flood: a key written or removed again and again", () => {
  let time = 0;
  const { lines, notices } = setUp({ now: () => time });
  for (let n = 0; n < 1_000; n++, time += 100) {
    notices.update([{ key: "junk", reason: `it is no lease: "${n}"` }]);
    if (n % 2 === 0) notices.update([]);
  }
  assert.equal(lines.length, 31);
  assert.match(lines.at(-1)!, /too often: it is logged again in ten minutes/);
  assert.equal(notices.count, 1);
  time += 600_000;
  notices.update([{ key: "junk", reason: "it is something else" }]);
  assert.equal(lines.length, 32);
});

import assert from "node:assert/strict";
import { steadyText } from "./steady_text.ts";

function assertAlike(...texts: string[]): void {
  assert.equal(new Set(texts.map(steadyText)).size, 1, texts.map(steadyText).join("\n"));
}

Deno.test("steadyText() leaves out what differs from one report of a trouble to the next", () => {
  assertAlike(
    "Throttling (busy) [HTTP 503, request 473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E]",
    "Throttling (busy) [HTTP 503, request 07F6E37D-1B8C-4D33-9B1E-6C2B0F2D9A11]",
  );
  assertAlike("[HTTP 400, request 1A2B3C]", "[HTTP 400, request 9f-00]");
  assertAlike("given up after 20 min: still busy", "given up after 21 min: still busy");
  assertAlike("No answer within 2000 ms", "No answer within 1999.5 ms");
  assertAlike(
    "expired at 2026-11-22T05:58:42Z: check the clock",
    "expired at 2026-11-22 05:59:01.5Z: check the clock",
  );
});

Deno.test("steadyText() keeps what names the trouble", () => {
  for (
    const [a, b] of [
      ["Cannot add route 10.3.1.0/24", "Cannot add route 10.3.2.0/24"],
      ["Cannot reach etcd at http://10.0.0.5:2379", "Cannot reach etcd at http://10.0.0.6:2379"],
      ["HTTP status 503", "HTTP status 500"],
      ["route table is full (200 of 200)", "route table is full (300 of 300)"],
      ["fd00::1:2:3 is unreachable", "fd00::1:2:4 is unreachable"],
    ]
  ) assert.notEqual(steadyText(a!), steadyText(b!));
});
